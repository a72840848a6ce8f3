//! Messages that clients act upon, and what they mean (Spec: 05 §7.3).
//!
//! The node takes its texts from here and the client recognizes them here, so the two cannot drift apart.

/// Texts that must be kept as they are.
pub mod text {
    /// Begins the answer to a write above the quota.
    pub const QUOTA_REACHED: &str = "Storage quota reached!";
    /// A user who uploads more than the quota within the window.
    pub const BANDWIDTH_EXCEEDED: &str = "Upload bandwidth exceeded please try again tomorrow";
    /// Begins the answer to a lost compare-and-swap.
    pub const POINTER_CAS: &str = "PointerCAS:";
    /// Begins a lost compare-and-swap of older servers.
    pub const CAS_EXCEPTION: &str = "CAS exception";
    /// Begins another form of the same.
    pub const UPDATE_FAILED: &str = "Mutable pointer update failed";
    /// Begins the answer to a caller who asks too often.
    pub const RATE_LIMIT: &str = "Rate Limit: ";
    /// The default of answers with status 429.
    pub const TOO_MANY_REQUESTS: &str = "Too Many Requests";
    /// A server that is busy.
    pub const QUEUE_FULL: &str = "Queue full";
    /// Begins the answer when a champ cannot be looked up here.
    pub const CHAMP_ROOT_ABSENT: &str = "Champ root not present locally: ";
    /// A block that the token sent does not open.
    pub const UNAUTHORIZED: &str = "Unauthorised!";
    /// Login refused: unknown user, wrong password.
    pub const BAD_LOGIN: &str = "Incorrect username or password";
    /// Begins the answer to a wrong code; the credential id in hex follows.
    pub const BAD_TOTP: &str = "Invalid TOTP code for credId ";
    /// Begins the answer to a wrong backup code; the credential id in hex follows.
    pub const BAD_BACKUP_CODE: &str = "Invalid backup code for credId ";
    /// Begins the answer for a second factor that does not exist.
    pub const UNKNOWN_CREDENTIAL: &str = "Unknown credential id";
    /// A signed time or request outside its window.
    pub const STALE_AUTH: &str = "Stale auth time, is your clock accurate?";
    /// A user who logs in at a node that is not his home.
    pub const WRONG_SERVER: &str = "Please login on your home server";
    /// Begins the answer for a user whose chain names no server; the key hash follows.
    pub const NO_HOME: &str = "Unable to find home server to send request to for ";
    /// Begins the answer to a sign-up whose claim names another server; its id follows.
    pub const WRONG_HOST: &str = "Trying to signup to wrong host! ";
    /// A user without space.
    pub const SUBSCRIPTION_EXPIRED: &str =
        "Your subscription has expired, please contact us to renew";
    /// No place for new users.
    pub const SIGNUPS_CLOSED: &str =
        "This server is not currently accepting new sign ups. Please try again later";
    /// A token the operator did not give out.
    pub const BAD_SIGNUP_TOKEN: &str = "Invalid signup token.";
    /// No place for users who move here.
    pub const MIGRATIONS_CLOSED: &str =
        "This server is not currently accepting new user migrations.";
    /// Too much data for the quota of a user who moves here.
    pub const NO_SPACE_TO_MIGRATE: &str =
        "Not enough space for user to migrate user to this server!";
    /// A signature that does not verify; official servers close the connection instead.
    pub const INVALID_SIGNATURE: &str = "Invalid signature";
    /// A block whose signature does not cover it.
    pub const INVALID_BLOCK_SIGNATURE: &str = "Invalid signature for block!";
    /// A block above the limit.
    pub const BLOCK_TOO_BIG: &str = "Block too big!";
    /// Begins the answer for a key that is in no chain.
    pub const UNKNOWN_IDENTITY: &str = "Unknown identity key: ";
    /// A call of direct storage on a node that has none.
    pub const UNIMPLEMENTED: &str = "Unimplemented call!";
}

/// What a client should do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Out of space: tell the user, do not repeat.
    QuotaReached,
    /// Somebody else changed the pointer: merge or report a conflict.
    Conflict,
    /// Stop asking for now.
    RateLimited,
    /// Read block by block instead; do not repeat.
    ChampRootAbsent,
    /// The token does not open the block.
    Unauthorized,
    /// Wrong name or password.
    BadLogin,
    /// Ask for the second factor's code again.
    BadCode,
    /// The stored device login is void.
    UnknownCredential,
    /// The clock is wrong.
    StaleClock,
    /// Anything else: an error to show.
    Other,
}

impl Refusal {
    /// Classifies a decoded message, in the manner of official clients: some texts count at the beginning,
    /// others anywhere.
    pub fn of(message: &str) -> Self {
        let begins = |texts: &[&str]| texts.iter().any(|text| message.starts_with(text));
        if message.contains(text::QUOTA_REACHED) {
            Self::QuotaReached
        } else if begins(&[text::POINTER_CAS, text::CAS_EXCEPTION, text::UPDATE_FAILED]) {
            Self::Conflict
        } else if begins(&["Rate Limit", text::TOO_MANY_REQUESTS])
            || message.contains(text::QUEUE_FULL)
            || message.contains("exceeded")
        {
            Self::RateLimited
        } else if message.contains(text::CHAMP_ROOT_ABSENT.trim_end()) {
            Self::ChampRootAbsent
        } else if message.contains(text::UNAUTHORIZED) {
            Self::Unauthorized
        } else if message.contains(text::BAD_LOGIN) || message.contains("Incorrect password") {
            Self::BadLogin
        } else if message.contains(text::BAD_TOTP.trim_end())
            || message.contains(text::BAD_BACKUP_CODE.trim_end())
        {
            Self::BadCode
        } else if message.contains(text::UNKNOWN_CREDENTIAL) {
            Self::UnknownCredential
        } else if message.contains(text::STALE_AUTH) {
            Self::StaleClock
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_classified() {
        for (message, refusal) in [
            ("Storage quota reached! \nUsed 1", Refusal::QuotaReached),
            ("java.lang.X: Storage quota reached!", Refusal::QuotaReached),
            ("PointerCAS:EMPTY,,EMPTY", Refusal::Conflict),
            ("CAS exception updating cid", Refusal::Conflict),
            ("Mutable pointer update failed! x", Refusal::Conflict),
            ("x PointerCAS:", Refusal::Other),
            (
                "Rate Limit: Server S3 request limit exceeded.",
                Refusal::RateLimited,
            ),
            (
                "Upload bandwidth exceeded please try again tomorrow",
                Refusal::RateLimited,
            ),
            ("x Queue full y", Refusal::RateLimited),
            ("Too Many Requests", Refusal::RateLimited),
            (
                "Champ root not present locally: zdpu",
                Refusal::ChampRootAbsent,
            ),
            ("Unauthorised!", Refusal::Unauthorized),
            ("Incorrect username or password", Refusal::BadLogin),
            ("Invalid TOTP code for credId 00", Refusal::BadCode),
            ("Invalid backup code for credId 00", Refusal::BadCode),
            (
                "x: Unknown credential id for user y",
                Refusal::UnknownCredential,
            ),
            (
                "Stale auth time, is your clock accurate?",
                Refusal::StaleClock,
            ),
            ("", Refusal::Other),
            ("Unknown identity key: z", Refusal::Other),
        ] {
            assert_eq!(Refusal::of(message), refusal, "{message}");
        }
    }
}
