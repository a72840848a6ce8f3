//! Durable storage: blocks in one partition per user, metadata in tables.
//!
//! Two interfaces, [`BlockStore`] and [`MetaStore`], and what joins them, [`Store`]. Both keep one promise: when
//! the future of a write resolves, the write is on stable storage, and blocks are there before the metadata that
//! names them. [`DiskStore`] keeps a folder of this machine; [`PostgresStore`] a data set that
//! several nodes serve; [`MemoryStore`] is the model and serves tests.
//!
//! Spec: 06 §4, 12 §1, §2, §4.2, 40 §11.

mod archive;
mod block;
mod direct;
pub mod disk;
mod error;
mod memory;
mod meta;
pub mod postgres;
pub mod s3;
pub mod split;
pub mod tables;
mod upkeep;

pub use archive::{Archive, Hold, Snapshot, SnapshotRow};
pub use block::{
    BlockCounts, BlockInfo, BlockStore, Deleted, Generation, MAX_DELETE_BLOCKS, MAX_LIST_BLOCKS,
    MAX_PUT_BLOCKS, NameError, Partition, TransactionId,
};
pub use direct::{AnnouncedBlock, DirectAccess, DirectOffer, SignedRequest};
pub use disk::{DiskOptions, DiskStore, FreeFloor};
pub use error::{Misuse, StoreError};
pub use memory::MemoryStore;
#[cfg(test)]
pub(crate) use memory::SharedMemory;
pub use meta::{
    Batch, CommitOutcome, Condition, MAX_BATCH_ROWS, MAX_KEY_BYTES, MAX_SCAN_ROWS, MAX_VALUE_BYTES,
    MetaStore, Table, Write,
};
pub use postgres::{PostgresOptions, PostgresStore};
pub use upkeep::{
    Copy, MAX_QUARANTINE_PAGE, MAX_UNNAMED, Orphans, Quarantine, Quarantined, Unnamed, UnnamedFile,
    Upkeep,
};

use std::{sync::Arc, time::SystemTime};

/// Tells the time: the age of transactions is measured with it.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Everything a node stores.
#[async_trait::async_trait]
pub trait Store: BlockStore + MetaStore + MetaEngine {
    /// Finishes all accepted writes and lets go of the data; later calls fail with [`StoreError::Closed`].
    ///
    /// # Errors
    /// Failures of the disk; what was acknowledged is safe also then.
    async fn close(&self) -> Result<(), StoreError>;

    /// Returns the maintenance of a store that keeps its blocks itself.
    fn upkeep(&self) -> Option<&dyn Upkeep> {
        None
    }

    /// Finds copies of blocks that no row names, apart from writes under way; removes them if asked to.
    ///
    /// # Errors
    /// Failures of the store.
    async fn strays(&self, remove: bool) -> Result<Orphans, StoreError> {
        match self.upkeep() {
            Some(upkeep) => upkeep.orphans(remove).await,
            None => Ok(Orphans::default()),
        }
    }

    /// Returns how to copy a store while it is in use; a store in memory cannot be copied.
    fn archive(&self) -> Option<&dyn Archive> {
        None
    }

    /// Returns how clients may transfer raw blocks without this node in between; most engines cannot do that.
    fn direct(&self) -> Option<&dyn DirectAccess> {
        None
    }

    /// Returns what an operator may watch besides the blocks: name, meaning, value.
    fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        Vec::new()
    }
}

/// The half of a store that keeps metadata, for engines that are joined with blocks kept elsewhere.
#[async_trait::async_trait]
pub trait MetaEngine: MetaStore {
    /// Finishes all accepted writes and lets go of the data.
    ///
    /// # Errors
    /// As [`Store::close`].
    async fn close_metadata(&self) -> Result<(), StoreError>;

    /// Returns how to copy the metadata while it is in use.
    fn metadata_archive(&self) -> Option<&dyn Archive> {
        None
    }
}

#[async_trait::async_trait]
impl<S: Store> MetaEngine for S {
    async fn close_metadata(&self) -> Result<(), StoreError> {
        self.close().await
    }

    fn metadata_archive(&self) -> Option<&dyn Archive> {
        self.archive()
    }
}
