//! What the person who runs a node can ask of it: one typed operation each, with two callers.
//!
//! A running node holds the lock of its data folder, so a command reaches it through the socket in that folder
//! ([`listener`]); when none is running the same command opens the folder and runs the same operation itself.
//! Whoever can open the folder or the socket is the operator: no signature is asked for. Nothing here is
//! reachable from the listener for users (Spec: 05 §11, 40 P2P-2), and nothing decrypts anything.
//!
//! To add an operation: a serializable struct with its parameters, [`Operation`] for it, one line in
//! [`operations!`] below.
//!
//! Spec: 09 §6, 12 §3.4, §8.

pub mod collect;
pub mod identity;
pub mod invites;
pub mod listener;
pub mod messages;
pub mod mirror;
pub mod names;
pub mod overview;
pub mod quota;
pub mod removal;
mod report;
pub mod space_requests;
pub(crate) mod status;
pub mod upkeep;
pub mod users;
pub mod waitlist;

use std::future::Future;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{error::Refusal, node::Node, p2p::PeerId, store::StoreError};

pub use report::{Event, Line, Progress, Report, Unit, follow};

/// Most causes of a failure that are told.
const MAX_CAUSES: usize = 8;

/// One thing an operator can ask for. The value holds the parameters, as they travel over the socket.
pub trait Operation: Serialize + DeserializeOwned + Send + 'static {
    /// The name, lower case with dashes; part of the address on the socket.
    const NAME: &'static str;
    /// What comes back.
    type Outcome: Serialize + DeserializeOwned + Send + 'static;

    /// Does it. Dropping the future cancels the operation between two steps; what it has done stays done, so
    /// every operation can be asked for again.
    fn run(
        self,
        node: &Node,
        report: &Report,
    ) -> impl Future<Output = Result<Self::Outcome, Failed>> + Send;
}

/// Why an operation failed; the same on both sides of the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    /// What the caller should do about it.
    pub kind: FailedKind,
    /// One sentence, lower case, without full stop; holds no secrets.
    pub message: String,
    /// What can be done next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailedKind {
    /// The request cannot be understood: caller and node are of different versions.
    Request,
    /// The user, request or token does not exist.
    NotFound,
    /// A rule forbids it.
    Refused,
    /// A value that is not allowed.
    NotAllowed,
    /// Something else changed at the same time.
    Conflict,
    /// Stored data is damaged.
    Damaged,
    /// The disk is full.
    NoSpace,
    /// A file cannot be read or written.
    Local,
    /// Anything else.
    Internal,
    /// A kind that a newer node knows.
    #[serde(other)]
    Other,
}

impl Failed {
    /// Makes a failure.
    pub fn new(kind: FailedKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            help: None,
        }
    }

    /// Adds what can be done next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Makes a failure of this machine out of an error and its causes.
    pub(crate) fn of(kind: FailedKind, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut next = error.source();
        for _ in 0..MAX_CAUSES {
            let Some(cause) = next else { break };
            message.push_str(": ");
            message.push_str(&cause.to_string());
            next = cause.source();
        }
        Self::new(kind, message)
    }

    /// There is no such user.
    pub(crate) fn no_user(name: &str) -> Self {
        Self::new(FailedKind::NotFound, format!("there is no user {name}"))
            .help("`kastro users list` shows who there is")
    }
}

/// Reads the id of another node.
fn peer_id(text: &str) -> Result<PeerId, Failed> {
    text.parse()
        .map_err(|_| Failed::new(FailedKind::NotAllowed, "not a node id"))
}

/// An id was given that is this node's own.
fn this_node() -> Failed {
    Failed::new(FailedKind::NotAllowed, "that is the id of this node")
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Damaged(_) | StoreError::DamagedRow { .. } => FailedKind::Damaged,
            StoreError::NoSpace { .. } => FailedKind::NoSpace,
            StoreError::Io { .. } => FailedKind::Local,
            _ => FailedKind::Internal,
        };
        Self::of(kind, &error)
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Internal(cause) => match cause.downcast::<StoreError>() {
                Ok(error) => (*error).into(),
                Err(cause) => Self::of(FailedKind::Internal, cause.as_ref()),
            },
            Refusal::DiskFull => Self::new(FailedKind::NoSpace, "the disk is full"),
            Refusal::UnknownName => Self::new(FailedKind::NotFound, "there is no such user"),
            refusal => Self::new(FailedKind::Refused, refusal.to_string()),
        }
    }
}

macro_rules! operations {
    ($($operation:ty),* $(,)?) => {
        /// The names of all operations.
        pub const NAMES: &[&str] = &[$(<$operation as Operation>::NAME),*];

        /// Runs the operation of this name with parameters in JSON.
        async fn perform(
            name: &str,
            parameters: &[u8],
            node: &Node,
            report: &Report,
        ) -> Result<serde_json::Value, Failed> {
            $(
                if name == <$operation as Operation>::NAME {
                    return Box::pin(perform_one::<$operation>(parameters, node, report)).await;
                }
            )*
            Err(Failed::new(FailedKind::Request, format!("unknown operation {name}")))
        }
    };
}

operations! {
    users::ListUsers,
    users::ShowUser,
    quota::ShowQuota,
    quota::SetQuota,
    quota::ShowDefaultQuota,
    quota::SetDefaultQuota,
    quota::Recount,
    collect::CollectGarbage,
    upkeep::Check,
    upkeep::Repair,
    upkeep::Database,
    upkeep::ShowScrub,
    upkeep::Backup,
    removal::RemoveUser,
    space_requests::ListSpaceRequests,
    space_requests::ApproveSpaceRequest,
    space_requests::DeclineSpaceRequest,
    invites::NewInvites,
    invites::ListInvites,
    invites::RevokeInvite,
    messages::SendMessage,
    messages::ListMessages,
    waitlist::ListWaiting,
    waitlist::RemoveWaiting,
    overview::ShowOverview,
    identity::ShowIdentity,
    identity::RotateIdentity,
    names::ShowNames,
    names::FollowNames,
    names::ExportNames,
    names::TakeOverNames,
    mirror::AddMirror,
    mirror::RemoveMirror,
    mirror::ListMirrors,
    mirror::RunMirrors,
    mirror::MirrorNode,
}

async fn perform_one<O: Operation>(
    parameters: &[u8],
    node: &Node,
    report: &Report,
) -> Result<serde_json::Value, Failed> {
    let operation: O = serde_json::from_slice(parameters)
        .map_err(|error| Failed::new(FailedKind::Request, format!("bad parameters: {error}")))?;
    let outcome = operation.run(node, report).await?;
    serde_json::to_value(outcome).map_err(|error| Failed::of(FailedKind::Internal, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_into_an_address() {
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMES.len());
        for name in names {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
        }
    }

    #[test]
    fn failures_survive_the_socket_and_unknown_kinds_are_read() {
        let failed = Failed::new(FailedKind::NotFound, "there is no user x").help("look");
        let text = serde_json::to_string(&failed).unwrap();
        assert_eq!(serde_json::from_str::<Failed>(&text).unwrap(), failed);
        let newer = r#"{"kind":"on-fire","message":"m"}"#;
        let read: Failed = serde_json::from_str(newer).unwrap();
        assert_eq!(read.kind, FailedKind::Other);
    }

    #[test]
    fn a_damaged_row_stays_recognizable_through_a_refusal() {
        let refusal = Refusal::from(StoreError::DamagedRow { row: "index" });
        assert_eq!(Failed::from(refusal).kind, FailedKind::Damaged);
    }
}
