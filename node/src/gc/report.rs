//! What a collection has to say.

use std::time::Duration;

use champ::Cid;
use pki::owned::OwnedError;
use serde::{Deserialize, Serialize};

use super::graph::ListingError;
use crate::{
    error::Refusal,
    store::{BlockCounts, StoreError},
};

/// Why nothing of an owner was deleted, or no more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Abort {
    /// A block below a root is not stored.
    #[error("block {0} is reachable and missing")]
    Missing(Cid),
    /// A block below a root does not match its name.
    #[error("block {0} is reachable and damaged")]
    Damaged(Cid),
    /// A block below a root cannot be understood.
    #[error("block {0} is reachable and malformed")]
    Malformed(Cid),
    /// A registered writer has no row.
    #[error("writer {0} is registered and unknown")]
    Writer(Cid),
    /// A row cannot be understood.
    #[error("a stored {0} row is damaged")]
    Row(&'static str),
    /// The owner's identity never had a pointer.
    #[error("the identity has no pointer")]
    NoIdentity,
    /// The keys that the owner has cannot be found out.
    #[error("owned keys cannot be read: {0}")]
    Ownership(#[from] OwnedError),
    /// A pointer or row cannot be read.
    #[error("metadata cannot be read: {0}")]
    Metadata(#[from] Refusal),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// The store listed what cannot be.
    #[error(transparent)]
    Listing(ListingProblem),
    /// Pointers moved faster than they could be followed; the next collection tries again.
    #[error("pointers move too fast")]
    Busy,
}

/// A listing of blocks that breaks the contract of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ListingProblem(#[from] ListingError);

impl From<ListingError> for Abort {
    fn from(error: ListingError) -> Self {
        Self::Listing(error.into())
    }
}

impl Abort {
    /// True when one block is the reason: below a root that is kept as a courtesy it may be left out.
    pub(super) const fn is_about_a_block(&self) -> bool {
        matches!(
            self,
            Self::Missing(_) | Self::Damaged(_) | Self::Malformed(_)
        )
    }

    /// True when nobody needs to look at it: trying again will do.
    pub(super) const fn is_passing(&self) -> bool {
        matches!(self, Self::Busy)
    }
}

/// What a collection shall do.
#[derive(Debug, Clone, Default)]
pub struct CollectOptions {
    /// Only the blocks of this user.
    pub user: Option<String>,
    /// Find out, change nothing.
    pub dry_run: bool,
    /// Delete also what became garbage a moment ago. Safe for everything that pointers reach; who still reads an
    /// old root may find blocks of it gone.
    pub now: bool,
    /// Look also at owners for whom nothing has changed since their last collection.
    pub all: bool,
}

/// Blocks and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Number of blocks.
    pub blocks: u64,
    /// Sum of their sizes in bytes.
    pub bytes: u64,
}

impl From<BlockCounts> for Amount {
    fn from(counts: BlockCounts) -> Self {
        Self {
            blocks: counts.blocks,
            bytes: counts.bytes,
        }
    }
}

impl Amount {
    pub(super) fn add(&mut self, more: Self) {
        self.blocks = self.blocks.saturating_add(more.blocks);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// How the collection of one owner ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// Everything that could be deleted was, or would have been in a dry run.
    Collected,
    /// Nothing has changed since the last collection.
    Unchanged,
    /// There is garbage, and the time after which it may be deleted has not come.
    Waiting {
        /// Seconds until then.
        seconds: i64,
    },
    /// Something below a root could not be read: nothing was deleted, or no more.
    Aborted {
        /// What.
        reason: String,
        /// True when somebody should look at it.
        alarm: bool,
    },
    /// The blocks belong to nobody whom this node knows; they are never deleted.
    Unknown,
}

/// What happened to one owner's blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OwnerReport {
    /// The owner's block space.
    pub partition: String,
    /// The owner's name.
    pub user: Option<String>,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Blocks that were listed.
    pub seen: Amount,
    /// Blocks that pointers reach.
    pub needed: u64,
    /// Blocks in open transactions.
    pub in_transactions: u64,
    /// Deleted; in a dry run what would be.
    pub deleted: Amount,
    /// Not reached by a pointer, and left for a later collection: in transactions, too young, or below a root that
    /// was replaced a moment ago.
    pub waiting: Amount,
    /// Put again while they were about to be deleted.
    pub saved: u64,
    /// Blocks that were read; the links of all others were known from earlier collections.
    pub read: u64,
}

/// What a collection did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// When it began, seconds since 1970.
    pub began: i64,
    /// How long it took.
    #[serde(rename = "seconds", with = "seconds")]
    pub took: Duration,
    /// True when nothing was to be changed.
    pub dry_run: bool,
    /// Each owner.
    pub owners: Vec<OwnerReport>,
    /// Sum over all owners.
    pub seen: Amount,
    /// Sum over all owners.
    pub deleted: Amount,
    /// Sum over all owners.
    pub waiting: Amount,
    /// Owners for whom something could not be read and somebody should look at it.
    pub alarms: u64,
}

/// Times as a number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(took: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(took.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}

impl Report {
    pub(super) fn add(&mut self, owner: OwnerReport) {
        self.seen.add(owner.seen);
        self.deleted.add(owner.deleted);
        self.waiting.add(owner.waiting);
        if matches!(owner.outcome, Outcome::Aborted { alarm: true, .. }) {
            self.alarms += 1;
        }
        self.owners.push(owner);
    }
}

/// Where a collection is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Progress {
    /// Whose blocks.
    pub partition: String,
    /// What it does.
    pub phase: Phase,
    /// Blocks done in this phase.
    pub done: u64,
    /// Blocks to be done, if that is known.
    pub total: Option<u64>,
}

/// The steps of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Phase {
    /// Listing blocks.
    Listing,
    /// Finding out what is needed.
    Marking,
    /// Deleting.
    Deleting,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_the_way_to_the_operator() {
        let mut report = Report {
            took: Duration::from_millis(1500),
            ..Report::default()
        };
        for outcome in [
            Outcome::Collected,
            Outcome::Waiting { seconds: 5 },
            Outcome::Aborted {
                reason: "a block is missing".to_owned(),
                alarm: true,
            },
        ] {
            report.add(OwnerReport {
                partition: "u-alice".to_owned(),
                user: Some("alice".to_owned()),
                outcome,
                seen: Amount {
                    blocks: 3,
                    bytes: 4,
                },
                needed: 1,
                in_transactions: 0,
                deleted: Amount::default(),
                waiting: Amount::default(),
                saved: 0,
                read: 2,
            });
        }
        assert_eq!((report.alarms, report.seen.bytes), (1, 12));
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains(r#""seconds":1.5"#) && text.contains(r#""outcome":"waiting""#));
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(back.owners, report.owners);
        assert_eq!(back.took, report.took);
    }
}
