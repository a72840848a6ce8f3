//! Everything that can go wrong for the user of a client, told apart by what the user can do about it.
//!
//! Spec: 05 §7.3 and §7.4 (how replies are classified), 21 §16 (what is reported).

use champ::{Cid, SourceError};

use crate::{environment::Abandoned, transport::TransportError};

/// Why an operation of the client failed. Nothing that was acknowledged before is lost by any of these.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A file or folder name that may not be used: empty, `.`, `..`, with `/`, or too long.
    #[error("`{name}` is not a legal name")]
    IllegalName {
        /// The name.
        name: String,
    },
    /// A path that is too long or does not start with a user name.
    #[error("`{path}` is not a legal path")]
    IllegalPath {
        /// The path.
        path: String,
    },
    /// A user name that cannot be registered.
    #[error("`{name}` is not a legal user name")]
    IllegalUsername {
        /// The name.
        name: String,
    },
    /// What has to be known before an account can be asked for could not be learned; nothing was sent, and there is no
    /// account.
    #[error("{0}")]
    NotAsked(Box<Self>),
    /// A password that is refused before anything is sent.
    #[error("this password is not allowed: {reason}")]
    WeakPassword {
        /// Why.
        reason: &'static str,
    },
    /// Something of that name is there already.
    #[error("`{path}` exists already")]
    Exists {
        /// The path.
        path: String,
    },
    /// Nothing is there.
    #[error("`{path}` does not exist")]
    NotFound {
        /// The path.
        path: String,
    },
    /// A folder was needed.
    #[error("`{path}` is not a folder")]
    NotADirectory {
        /// The path.
        path: String,
    },
    /// A file was needed.
    #[error("`{path}` is a folder")]
    IsADirectory {
        /// The path.
        path: String,
    },
    /// An item would be moved or copied into itself.
    #[error("`{path}` cannot be put inside itself")]
    IntoItself {
        /// The path.
        path: String,
    },
    /// The keys at hand do not open it, or it is damaged.
    #[error("`{what}` cannot be read: it is damaged or not shared with you")]
    CannotRead {
        /// What was being read.
        what: String,
    },
    /// A folder was to be removed that is not empty.
    #[error("`{path}` is not empty")]
    NotEmpty {
        /// The path.
        path: String,
    },
    /// Another device changed the item: what was to be done to it was meant for another state.
    #[error("`{path}` was changed by another device in the meantime")]
    ChangedElsewhere {
        /// The path.
        path: String,
    },
    /// Text that is no version of a file or folder.
    #[error("`{text}` is not a version")]
    IllegalVersion {
        /// The text, cut.
        text: String,
    },
    /// Write access is missing.
    #[error("`{path}` is read only")]
    ReadOnly {
        /// The path.
        path: String,
    },
    /// The content changed while it was being read or resumed.
    #[error("`{path}` changed while it was being transferred")]
    SourceChanged {
        /// The path.
        path: String,
    },
    /// The content to upload could not be read, or the downloaded content not be written.
    #[error("local input or output failed")]
    Local(#[source] std::sync::Arc<std::io::Error>),
    /// The user's space is used up.
    #[error("out of space: {message}")]
    QuotaReached {
        /// What the node said.
        message: String,
    },
    /// Another device changed the same thing again and again; trying later will work.
    #[error("someone else is changing this at the same time")]
    Conflict,
    /// The node asks to slow down.
    #[error("the node is limiting requests: {message}")]
    RateLimited {
        /// What the node said.
        message: String,
    },
    /// The name or the password is wrong.
    #[error("wrong user name or password")]
    WrongCredentials,
    /// The node names another key for a user than the one that is known, and the known one did not sign it.
    #[error("the key of {name} changed in a way that {name} did not sign")]
    KeyChanged {
        /// The user name.
        name: String,
    },
    /// Nobody has registered the name.
    #[error("there is no user `{name}`")]
    UnknownUser {
        /// The name.
        name: String,
    },
    /// The account was deleted.
    #[error("the account `{name}` was deleted")]
    AccountDeleted {
        /// The name.
        name: String,
    },
    /// The name belongs to somebody already.
    #[error("the name `{name}` is taken")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The node does not take new accounts, or not with this token.
    #[error("the node refused the sign-up: {message}")]
    SignupRefused {
        /// What the node said.
        message: String,
    },
    /// The proof of work asked for is beyond what a client will do; the maximum 256 means never.
    #[error("the node asks for a proof of work of difficulty {difficulty}, more than {max}")]
    TooMuchWork {
        /// Bits asked for.
        difficulty: u32,
        /// Bits accepted.
        max: u32,
    },
    /// The node asks for a second factor that the caller did not offer.
    #[error("a second factor is needed")]
    SecondFactorNeeded,
    /// The second factor was refused.
    #[error("the second factor was refused: {message}")]
    SecondFactorRefused {
        /// What the node said.
        message: String,
    },
    /// This is not the account's home server.
    #[error("the node does not serve this account: {message}")]
    WrongServer {
        /// What the node said.
        message: String,
    },
    /// A copy was to be kept by the node that is the account's home.
    #[error("that node is the home of the account")]
    HomeKeepsNoCopy,
    /// The home of the account was to be given up as lost, and answers.
    #[error("the home of the account answers: it is not lost")]
    HomeAnswers,
    /// The description of the key derivation is outside what a client accepts (Spec: 40, INT-8).
    #[error("the account's key derivation is not acceptable: {reason}")]
    UnacceptableDerivation {
        /// Which bound it breaks.
        reason: &'static str,
    },
    /// Saved session data that cannot be opened or is of a newer version.
    #[error("the saved session cannot be used")]
    BadSession,
    /// An account of an older layout that this operation does not support.
    #[error("{what} is not supported for accounts of the old layout")]
    OldLayout {
        /// The operation.
        what: &'static str,
    },
    /// A larger or deeper structure than a client is willing to process.
    #[error("{what} exceeds the limit of {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// The node sent something that an honest node never sends.
    #[error("the node misbehaves")]
    Misbehavior(#[from] Misbehavior),
    /// The node refused a call for another reason.
    #[error("the node refused `{call}` with status {status}: {message}")]
    Refused {
        /// Path of the call.
        call: String,
        /// HTTP status.
        status: u16,
        /// Decoded message.
        message: String,
    },
    /// No reply could be had.
    #[error("network trouble")]
    Network(#[from] TransportError),
    /// Background work was abandoned by the executor.
    #[error(transparent)]
    Abandoned(#[from] Abandoned),
    /// A record this client made itself could not be built; a defect of the client.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

/// What a node was caught at. None of these is repaired by asking the same node again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misbehavior {
    /// A block's bytes are not what its name says.
    #[error("the bytes served for block {cid} do not match it")]
    HashMismatch {
        /// The block asked for.
        cid: Cid,
    },
    /// A block that a verified parent links to is said not to exist.
    #[error("block {cid} is withheld or lost")]
    BlockWithheld {
        /// The block asked for.
        cid: Cid,
    },
    /// A block has the right hash and a wrong inner form.
    #[error("{what} is malformed")]
    MalformedRecord {
        /// Which record.
        what: &'static str,
    },
    /// A pointer that its writer did not sign.
    #[error("the pointer of {writer} is not signed by it")]
    ForgedPointer {
        /// The writer asked for.
        writer: Cid,
    },
    /// A pointer older than one seen before.
    #[error("the pointer of {writer} went back from sequence {seen} to {served}")]
    Rollback {
        /// The writer.
        writer: Cid,
        /// Highest sequence seen; -1 stands for a pointer without sequence.
        seen: i64,
        /// Sequence served.
        served: i64,
    },
    /// Two different pointers with the same sequence.
    #[error("the node serves two versions of sequence {sequence} of {writer}")]
    Equivocation {
        /// The writer.
        writer: Cid,
        /// The sequence.
        sequence: i64,
    },
    /// A root block that belongs to another writer.
    #[error("the root block of {writer} names another controller")]
    ControllerMismatch {
        /// The writer asked for.
        writer: Cid,
    },
    /// A writer for which no valid owner proof exists.
    #[error("writer {writer} is not owned by the account")]
    UnownedWriter {
        /// The writer.
        writer: Cid,
    },
    /// Directory, root block and login data do not name the same identity.
    #[error("the identity served for `{name}` is not the one in the login data")]
    IdentityMismatch {
        /// The user name.
        name: String,
    },
    /// A claim chain that does not verify or does not extend the known one.
    #[error("the claim chain served for `{name}` is not valid")]
    BadClaimChain {
        /// The user name.
        name: String,
    },
    /// The answer to a block write names other blocks than were sent.
    #[error("the answer to a block write does not name the blocks sent")]
    WrongPutAnswer,
    /// A write was acknowledged and is not there afterwards.
    #[error("an acknowledged change of {writer} is not there")]
    LostWrite {
        /// The writer.
        writer: Cid,
    },
    /// A reply that does not decode.
    #[error("the reply to `{call}` is malformed")]
    MalformedReply {
        /// Path of the call.
        call: &'static str,
    },
}

impl ClientError {
    /// Returns true when the same operation may succeed on a fresh state of the same node.
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict)
    }

    /// Returns true when the node could not be reached or its answer was lost.
    pub const fn is_network(&self) -> bool {
        matches!(self, Self::Network(_))
    }

    pub(crate) fn not_found(path: impl Into<String>) -> Self {
        Self::NotFound { path: path.into() }
    }

    pub(crate) fn cannot_read(what: impl Into<String>) -> Self {
        Self::CannotRead { what: what.into() }
    }

    pub(crate) const fn malformed(call: &'static str) -> Self {
        Self::Misbehavior(Misbehavior::MalformedReply { call })
    }

    pub(crate) const fn bad_record(what: &'static str) -> Self {
        Self::Misbehavior(Misbehavior::MalformedRecord { what })
    }
}

impl From<std::io::Error> for ClientError {
    fn from(error: std::io::Error) -> Self {
        Self::Local(std::sync::Arc::new(error))
    }
}

impl From<ClientError> for SourceError {
    fn from(error: ClientError) -> Self {
        Self::Failed(std::sync::Arc::new(error))
    }
}

impl From<SourceError> for ClientError {
    /// Recovers the error that a block source of this crate wrapped.
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Failed(inner) => inner
                .downcast_ref::<Self>()
                .cloned()
                .unwrap_or(Self::Internal("a block source failed")),
            SourceError::Rejected { cid, .. } => {
                Self::Misbehavior(Misbehavior::HashMismatch { cid })
            }
            _ => Self::Internal("a block source failed"),
        }
    }
}
