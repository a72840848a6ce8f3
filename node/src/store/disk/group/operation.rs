//! What the writer is asked to do, and what it answers.

use champ::{Block, Cid};

use super::super::layout::{BlockFile, PartitionNumber, Place, QuarantineRow, run_of};
use crate::store::{
    Batch, BlockCounts, CommitOutcome, Deleted, Generation, Partition, TransactionId,
};

/// One operation of the writer.
#[derive(Debug)]
pub(in crate::store::disk) enum Operation {
    /// A batch of metadata.
    Commit(Batch),
    /// Look up the number of a partition, or give it one.
    Number(Partition),
    /// Blocks whose files are written.
    Put(Put),
    /// Blocks to be deleted if they are as they were listed.
    Delete(Partition, Vec<(Cid, Generation)>),
    /// End of a transaction.
    Close(Partition, TransactionId),
    /// Drop protection older than this, in seconds since 1970.
    Expire(Partition, u64),
    /// Record that the damaged copy in this place is given up.
    Quarantine(PartitionNumber, Cid, QuarantineRow),
    /// Count the blocks of a partition anew.
    Recount(Partition),
    /// Wait for everything before.
    Nothing,
}

/// Blocks of one put.
#[derive(Debug)]
pub(in crate::store::disk) struct Put {
    pub(in crate::store::disk) partition: Partition,
    pub(in crate::store::disk) entries: Vec<Entry>,
    /// The transaction, and the time in seconds since 1970.
    pub(in crate::store::disk) transaction: Option<(TransactionId, u64)>,
}

/// One block of a put.
#[derive(Debug)]
pub(in crate::store::disk) enum Entry {
    /// Goes into the database.
    Inline(Block),
    /// Has a new file.
    File {
        file: BlockFile,
        size_bytes: u32,
        /// The damaged copy that it takes the place of.
        replaces: Option<Place>,
    },
    /// Has a copy that has been compared with the block.
    Present { cid: Cid, place: Place },
}

/// What an operation came to.
#[derive(Debug)]
pub(in crate::store::disk) enum Answer {
    Batch(CommitOutcome),
    Number(PartitionNumber),
    /// Stored; these files of the put are not needed, and these older ones no more.
    Stored {
        unneeded: Vec<BlockFile>,
        retired: Vec<BlockFile>,
    },
    /// A copy that the put relied on is gone: nothing was done, plan again.
    Stale,
    /// Deleted; these files are to be removed.
    Deleted(Deleted, Vec<BlockFile>),
    /// What was believed and what is so.
    Recounted(BlockCounts, BlockCounts),
    Done,
}

impl Operation {
    /// Returns the runs whose folders must be flushed before the operation is committed.
    pub(in crate::store::disk) fn runs(&self) -> impl Iterator<Item = u64> {
        let entries = match self {
            Self::Put(put) => put.entries.as_slice(),
            _ => &[],
        };
        entries.iter().filter_map(|entry| match entry {
            Entry::File { file, .. } => Some(run_of(file.sequence)),
            _ => None,
        })
    }

    /// Returns roughly how many bytes the operation writes into the database.
    pub(in crate::store::disk) fn database_bytes(&self) -> usize {
        match self {
            Self::Commit(batch) => {
                let writes = batch.writes().iter();
                writes
                    .map(|w| w.key.len() + w.value.as_ref().map_or(0, bytes::Bytes::len))
                    .sum()
            }
            Self::Put(put) => {
                let entries = put.entries.iter();
                entries
                    .map(|entry| match entry {
                        Entry::Inline(block) => block.bytes().len() + 100,
                        _ => 100,
                    })
                    .sum()
            }
            Self::Delete(_, candidates) => candidates.len() * 100,
            _ => 100,
        }
    }
}
