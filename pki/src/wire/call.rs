//! The table of all calls (Spec: 05 §2, §12).

use std::borrow::Cow;

/// Whether a call that names a user of another server is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// Answered by the node that is asked.
    Here,
    /// Passed on to the home server of the user named in the call.
    Forwarded,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    call: Call,
    /// Without leading slash: also the path inside signed requests.
    path: &'static str,
    /// Largest request body in bytes; none for calls without body.
    body: Option<usize>,
    changes_state: bool,
    home: Home,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident $path:literal $body:expr, $changes:literal, $home:ident;)*) => {
        /// A call of the HTTP API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Call {
            $($(#[$doc])* $name,)*
        }

        impl Call {
            /// Every call.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            const fn row(self) -> Row {
                match self {
                    $(Self::$name => Row {
                        call: Self::$name,
                        path: $path,
                        body: $body,
                        changes_state: $changes,
                        home: Home::$home,
                    },)*
                }
            }

            fn from_exact_path(path: &str) -> Option<Self> {
                match path {
                    $($path => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

const NAME: Option<usize> = Some(super::directory::MAX_KEY_REQUEST_BYTES);
const SIGNUP: Option<usize> = Some(<super::signup::SignupRequest as super::Body>::MAX_BYTES);

calls! {
    /// The node's current server id.
    Id "api/v0/id" None, false, Here;
    /// All server ids of the node.
    Ids "api/v0/ids" None, false, Here;
    /// Host name on which secret links of an owner open.
    LinkHost "api/v0/link-host" None, false, Forwarded;
    /// Which direct transfers the node offers.
    BlockstoreProps "api/v0/blockstore/props" None, false, Here;
    /// Presigned writes.
    BlockstoreAuth "api/v0/blockstore/auth" Some(super::direct_store::MAX_AUTHORIZE_BYTES), true, Here;
    /// Presigned reads.
    BlockstoreAuthReads "api/v0/blockstore/auth-reads" Some(super::direct_store::MAX_AUTHORIZE_BYTES), false, Here;
    /// Open a transaction.
    TransactionStart "api/v0/transaction/start" None, true, Forwarded;
    /// Close a transaction.
    TransactionClose "api/v0/transaction/close" None, true, Forwarded;
    /// Store blocks.
    BlockPutBulk "api/v0/block/put/bulk" Some(super::block_group::MAX_GROUP_BYTES), true, Forwarded;
    /// Store blocks, legacy multipart form.
    BlockPut "api/v0/block/put" Some(super::block_group::MAX_GROUP_BYTES), true, Forwarded;
    /// Read a block.
    BlockGet "api/v0/block/get" None, false, Forwarded;
    /// Size of a block.
    BlockStat "api/v0/block/stat" None, false, Here;
    /// Look up keys in a champ.
    ChampGetBulk "api/v0/champ/get/bulk" None, false, Forwarded;
    /// Look up one key, legacy form.
    ChampGet "api/v0/champ/get" None, false, Forwarded;
    /// Open a secret link.
    LinkGet "api/v0/link/get" None, true, Forwarded;
    /// Retrieval counts of secret links.
    LinkCounts "api/v0/link/counts" None, false, Forwarded;
    /// Signed identity record of a server.
    IpnsGet "api/v0/ipns/get" None, false, Here;

    /// Current pointer of a writer.
    GetPointer "peergos/v0/mutable/getPointer" None, false, Forwarded;
    /// Change one pointer.
    SetPointer "peergos/v0/mutable/setPointer" Some(super::pointer_batch::MAX_SET_POINTER_BYTES), true, Forwarded;
    /// Change several pointers, all or none.
    SetPointers "peergos/v0/mutable/setPointers" Some(super::pointer_batch::MAX_BATCH_BYTES), true, Forwarded;

    /// Store login data.
    SetLogin "peergos/v0/login/setLogin" Some(super::login_data::MAX_LOGIN_DATA_BYTES), true, Forwarded;
    /// Fetch the login record.
    GetLogin "peergos/v0/login/getLogin" None, false, Forwarded;
    /// List second factors.
    ListMfa "peergos/v0/login/listMfa" None, false, Forwarded;
    /// Add a TOTP factor.
    AddTotp "peergos/v0/login/addTotp" None, true, Forwarded;
    /// Enable a TOTP factor.
    EnableTotp "peergos/v0/login/enableTotp" None, true, Forwarded;
    /// Add a mount factor.
    AddMount "peergos/v0/login/addMount" None, true, Forwarded;
    /// Enable a mount factor.
    EnableMount "peergos/v0/login/enableMount" None, true, Forwarded;
    /// Make backup codes.
    GenBackupCodes "peergos/v0/login/genBackupCodes" None, true, Forwarded;
    /// Begin to register a security key.
    RegisterWebauthnStart "peergos/v0/login/registerWebauthnStart" None, true, Forwarded;
    /// Register a security key.
    RegisterWebauthnComplete "peergos/v0/login/registerWebauthnComplete" Some(super::second_factor::MAX_REGISTRATION_BYTES), true, Forwarded;
    /// Delete a second factor.
    DeleteMfa "peergos/v0/login/deleteMfa" None, true, Forwarded;

    /// Space in use.
    Usage "peergos/v0/storage/usage" None, false, Forwarded;
    /// Space allowed.
    Quota "peergos/v0/storage/quota" None, false, Forwarded;
    /// What space costs.
    PaymentProperties "peergos/v0/storage/payment-properties" None, false, Here;
    /// Ask for space.
    RequestSpace "peergos/v0/storage/request" None, true, Here;

    /// Version of the node.
    Version "peergos/v0/admin/version" None, false, Here;
    /// Which sign-ups are open.
    Signups "peergos/v0/admin/signups" None, false, Here;
    /// Join the waiting list.
    Waitlist "peergos/v0/admin/waitlist" None, true, Here;
    /// Pending space requests.
    Pending "peergos/v0/admin/pending" None, false, Here;
    /// Approve a space request.
    Approve "peergos/v0/admin/approve" None, true, Here;

    /// Mirror tokens of the user.
    GetUserBats "peergos/v0/bats/getUserBats" None, false, Forwarded;
    /// Add a mirror token.
    AddBat "peergos/v0/bats/addBat" None, true, Forwarded;

    /// Messages from the operator.
    RetrieveMessages "peergos/v0/server-message/retrieve" None, false, Here;
    /// Message to the operator.
    SendMessage "peergos/v0/server-message/send" Some(super::message::MAX_SEND_BYTES), true, Here;

    /// Leave a follow request.
    SendFollowRequest "peergos/v0/social/followRequest" Some(super::social::MAX_FOLLOW_REQUEST_BYTES), true, Forwarded;
    /// Pending follow requests.
    GetFollowRequests "peergos/v0/social/getFollowRequests" None, false, Forwarded;
    /// Remove a follow request.
    RemoveFollowRequest "peergos/v0/social/removeFollowRequest" Some(super::social::MAX_REMOVE_BYTES), true, Forwarded;

    /// Claim chain of a name.
    GetChain "peergos/v0/core/getChain" NAME, false, Here;
    /// Identity key hash of a name.
    GetPublicKey "peergos/v0/core/getPublicKey" NAME, false, Here;
    /// Name of an identity key hash.
    GetUsername "peergos/v0/core/getUsername" NAME, false, Here;
    /// Every known name; the prefix is a second path segment.
    GetUsernames "peergos/v0/core/getUsernamesGzip" None, false, Here;
    /// Register a name with an account.
    Signup "peergos/v0/core/signup" SIGNUP, true, Here;
    /// Extend a claim chain.
    UpdateChain "peergos/v0/core/updateChain" SIGNUP, true, Here;
    /// Begin a paid sign-up.
    StartPaidSignup "peergos/v0/core/startPaidSignup" SIGNUP, true, Here;
    /// Finish a paid sign-up.
    CompletePaidSignup "peergos/v0/core/completePaidSignup" SIGNUP, true, Here;
    /// Mirror a user here.
    Mirror "peergos/v0/core/mirror" Some(<super::mirror::MirrorRequest as super::Body>::MAX_BYTES), true, Here;
    /// Begin to mirror for money.
    StartPaidMirror "peergos/v0/core/startPaidMirror" Some(<super::mirror::StartPaidMirror as super::Body>::MAX_BYTES), true, Here;
    /// Pay for mirroring.
    CompletePaidMirror "peergos/v0/core/completePaidMirror" Some(<super::mirror::CompletePaidMirror as super::Body>::MAX_BYTES), true, Here;
    /// State of all users of a node.
    GetUserSnapshots "peergos/v0/core/getUserSnapshots" Some(<super::mirror::SnapshotsRequest as super::Body>::MAX_BYTES), false, Here;
    /// Move a user here.
    MigrateUser "peergos/v0/core/migrateUser" Some(<super::mirror::MigrateRequest as super::Body>::MAX_BYTES), true, Here;
}

/// What a request path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target<'a> {
    /// A call, and the path segments after it (only `getUsernamesGzip` looks at them).
    Call(Call, &'a str),
    /// Below `/api/v0/`, but no call: 404 without message.
    NoSuchBlockCall,
    /// Below one of the other prefixes, but no call: 400 with this message.
    NoSuchCall(Cow<'static, str>),
    /// Anything else: static files, or 404.
    Other,
}

const BLOCK_PREFIX: &str = "api/v0/";
const SOCIAL_PREFIX: &str = "peergos/v0/social/";

/// Prefixes whose first further segment names the call, and the answer for names they do not have.
const PREFIXES: &[(&str, &str)] = &[
    ("peergos/v0/core/", "Unknown pkinode method!"),
    ("peergos/v0/mutable/", "Unknown method in mutable pointers!"),
    ("peergos/v0/login/", "Unknown method in AccountHandler!"),
    (SOCIAL_PREFIX, "Unknown method "),
    ("peergos/v0/storage/", "Unknown method in StorageHandler!"),
    ("peergos/v0/admin/", "Unknown method in admin handler!"),
    ("peergos/v0/bats/", "Unknown method in BatsHandler!"),
    (
        "peergos/v0/server-message/",
        "Unknown method in ServerMessageHandler!",
    ),
];

impl Call {
    /// Returns the path without leading slash, as clients append it and signed requests name it.
    pub const fn path(self) -> &'static str {
        self.row().path
    }

    /// Returns the largest request body in bytes; none for a call without body.
    pub const fn max_body_bytes(self) -> Option<usize> {
        self.row().body
    }

    /// Returns true for calls that change something.
    pub const fn changes_state(self) -> bool {
        self.row().changes_state
    }

    /// Returns whether the call is passed on to the user's home server.
    pub const fn home(self) -> Home {
        self.row().home
    }

    /// Finds what a request path leads to: percent-decoded, with its leading slash, without the query.
    pub fn at_path(path: &str) -> Target<'_> {
        let Some(path) = path.strip_prefix('/') else {
            return Target::Other;
        };
        if path.starts_with(BLOCK_PREFIX) {
            return match Self::from_exact_path(path) {
                Some(call) => Target::Call(call, ""),
                None => Target::NoSuchBlockCall,
            };
        }
        for (prefix, message) in PREFIXES {
            let Some(rest) = path.strip_prefix(prefix) else {
                continue;
            };
            let (name, further) = rest.split_once('/').unwrap_or((rest, ""));
            let exact = path.get(..prefix.len() + name.len()).unwrap_or_default();
            return match Self::from_exact_path(exact) {
                Some(call) => Target::Call(call, further),
                None if *prefix == SOCIAL_PREFIX => {
                    Target::NoSuchCall(format!("{message}{name}").into())
                }
                None => Target::NoSuchCall(Cow::Borrowed(message)),
            };
        }
        Target::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_found_by_its_path() {
        for call in Call::ALL {
            let path = format!("/{}", call.path());
            assert_eq!(Call::at_path(&path), Target::Call(*call, ""));
            assert_eq!(call.row().call, *call);
        }
        assert_eq!(Call::ALL.len(), 60);
    }

    #[test]
    fn block_calls_match_exactly() {
        for path in [
            "/api/v0/id/",
            "/api/v0/nosuch",
            "/api/v0/",
            "/api/v0/ID",
            "/api/v0/%69d",
        ] {
            assert_eq!(Call::at_path(path), Target::NoSuchBlockCall, "{path}");
        }
        for path in [
            "block/has",
            "block/rm",
            "block/rm/bulk",
            "block/stat/bulk",
            "refs/local",
            "bloom/add",
        ] {
            let path = format!("/api/v0/{path}");
            assert_eq!(Call::at_path(&path), Target::NoSuchBlockCall, "{path}");
        }
    }

    #[test]
    fn other_calls_ignore_further_segments() {
        assert_eq!(
            Call::at_path("/peergos/v0/admin/version/extra/segments"),
            Target::Call(Call::Version, "extra/segments")
        );
        assert_eq!(
            Call::at_path("/peergos/v0/core/getUsernamesGzip/kate"),
            Target::Call(Call::GetUsernames, "kate")
        );
        assert_eq!(
            Call::at_path("/peergos/v0/admin/"),
            Target::NoSuchCall("Unknown method in admin handler!".into())
        );
        assert_eq!(
            Call::at_path("/peergos/v0/storage/nosuch"),
            Target::NoSuchCall("Unknown method in StorageHandler!".into())
        );
        assert_eq!(
            Call::at_path("/peergos/v0/social/nosuch/x"),
            Target::NoSuchCall("Unknown method nosuch".into())
        );
    }

    #[test]
    fn everything_else_is_static() {
        for path in [
            "",
            "/",
            "api/v0/id",
            "//api/v0/id",
            "/api/v0",
            "/peergos/v0/admin",
            "/nosuch",
            "/p2p/x/http/api/v0/id",
            "/API/v0/id",
            "/%",
            "/peergos/v0/stop/",
        ] {
            assert_eq!(Call::at_path(path), Target::Other, "{path}");
        }
    }
}
