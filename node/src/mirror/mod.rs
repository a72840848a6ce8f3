//! Copies of other nodes' users: everything they have here in ciphertext, kept in step (Spec: 12 §5, §6).
//!
//! A mirror needs no password and can decrypt nothing. It follows a user's signed pointers and fetches the blocks they
//! lead to with the user's mirror token. Invariants: a pointer is stored only when the whole tree below it is;
//! every block was compared with its name and every pointer with its writer's signature; no pointer ever goes
//! back, whatever the other node says.

mod copy;
mod heal;
mod pass;
mod remote;
mod row;
mod snapshot;
mod supply;
mod worker;

use std::sync::Arc;

use champ::{BlockError, Cid};
use pki::{keys::Writer, owned::OwnedError, pointer::HistoryError};

use crate::{error::Refusal, p2p::PeerError, store::StoreError};

pub(crate) use copy::{Copying, Fetching};
pub(crate) use heal::heal;
pub(crate) use pass::{Copied, Source, commit_pointer, pass, store_snapshot_pointers, verified};
pub(crate) use remote::{Pace, Remote};
pub(crate) use row::{Mirroring, NodeRow, UserRow};
pub(crate) use snapshot::{apply as apply_snapshot, page as snapshot_page, snapshot};
pub(crate) use supply::PeerBlocks;
pub(crate) use worker::{Mirrors, is_readable, may_answer, round, start, users};

/// Why a copy is not in step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// The other node cannot be asked, or refused.
    #[error("the other node does not give the data")]
    Peer(#[from] PeerError),
    /// A block is not where the copy comes from.
    #[error("block {0} is missing at the other node")]
    Missing(Cid),
    /// What came under the name of a block is something else.
    #[error("the other node sent a wrong block")]
    WrongBlock(#[source] BlockError),
    /// An answer that cannot be read.
    #[error("the other node's {0} cannot be read")]
    Malformed(&'static str),
    /// A pointer that its writer did not sign.
    #[error("the other node's pointer of {0} is not signed by its writer")]
    Forged(Writer),
    /// A pointer that is older than the one that is here, or contradicts it.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Who owns which writer cannot be followed.
    #[error("the owned keys cannot be followed")]
    Owned(#[source] OwnedError),
    /// The user's space here is full.
    #[error("the space for this copy is full")]
    QuotaReached {
        /// Bytes.
        quota: u64,
    },
    /// A tree of more blocks than one pass copies.
    #[error("more than {max} blocks in one tree")]
    TooManyBlocks {
        /// The limit.
        max: usize,
    },
    /// There is no access token to read the user's blocks with.
    #[error("the user has not allowed this node to keep a copy yet")]
    NoToken,
    /// This node takes no part in a network.
    #[error("this node reaches no other nodes")]
    Offline,
    /// The pointer changed here meanwhile; the next pass tries again.
    #[error("the data changed here meanwhile")]
    Conflict,
    /// This machine failed, or refuses.
    #[error("this node cannot keep the copy")]
    Here(#[source] Refusal),
}

impl From<Refusal> for MirrorError {
    fn from(refusal: Refusal) -> Self {
        Self::Here(refusal)
    }
}

impl From<StoreError> for MirrorError {
    fn from(error: StoreError) -> Self {
        Self::Here(error.into())
    }
}

impl From<OwnedError> for MirrorError {
    fn from(error: OwnedError) -> Self {
        // A failed fetch inside a walk is more telling than the walk.
        if let OwnedError::Source(champ::SourceError::Failed(source)) = &error
            && let Some(inner) = Arc::clone(source).downcast_ref::<Self>()
            && let Some(same) = inner.again()
        {
            return same;
        }
        Self::Owned(error)
    }
}

impl MirrorError {
    /// Returns the failures that a walk may have wrapped, for those that are decided on, and for those that say more
    /// than the walk.
    fn again(&self) -> Option<Self> {
        Some(match self {
            Self::Peer(PeerError::Unreachable { peer, reason }) => {
                Self::Peer(PeerError::Unreachable {
                    peer: *peer,
                    reason: reason.clone(),
                })
            }
            Self::Peer(PeerError::TimedOut(peer)) => Self::Peer(PeerError::TimedOut(*peer)),
            Self::Peer(PeerError::Busy(peer)) => Self::Peer(PeerError::Busy(*peer)),
            Self::Peer(PeerError::Refused { status, message }) => Self::Peer(PeerError::Refused {
                status: *status,
                message: message.clone(),
            }),
            Self::Missing(cid) => Self::Missing(cid.clone()),
            Self::WrongBlock(error) => Self::WrongBlock(error.clone()),
            Self::Forged(writer) => Self::Forged(writer.clone()),
            Self::History(error) => Self::History(error.clone()),
            Self::QuotaReached { quota } => Self::QuotaReached { quota: *quota },
            _ => return None,
        })
    }

    /// Returns true when the other node could not be reached, so that nothing is known about what it has.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Peer(error) if error.is_transport()) || matches!(self, Self::Offline)
    }
}
