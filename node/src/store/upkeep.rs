//! What looking after stored data needs beyond reading and writing it: finding what does not fit, and moving damaged
//! copies aside.
//!
//! Nothing here ever deletes the only copy of anything.
//!
//! Spec: 40 REL-6, REL-14.

use std::{collections::HashMap, time::SystemTime};

use champ::{Block, Cid};

use super::{BlockCounts, Partition, StoreError};

/// Most entries of one page of [`Upkeep::quarantined`].
pub const MAX_QUARANTINE_PAGE: usize = 1_000;

/// Most entries of [`Upkeep::unnamed`].
pub const MAX_UNNAMED: usize = 1_000_000;

/// Files that no row names: one of each block.
pub type Unnamed = HashMap<(Partition, Cid), UnnamedFile>;

/// Where the store finds such a file again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnnamedFile {
    pub(super) partition: u32,
    pub(super) sequence: u64,
}

/// The stored copy of a block, judged without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Copy {
    /// There is no such block.
    Absent,
    /// A copy of the recorded length is there.
    Present,
    /// The index names a copy that is not there.
    Missing,
    /// The copy has another length than was recorded.
    WrongLength {
        /// Bytes that are there.
        actual: u64,
        /// Bytes that were stored.
        recorded: u64,
    },
}

/// What an attempt to quarantine a block came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quarantine {
    /// The damaged copy has been moved aside and recorded.
    Moved,
    /// There was no copy to move; that is recorded.
    Recorded,
    /// The block is sound, or has been put again meanwhile: nothing was done.
    Sound,
    /// There is no such block.
    Absent,
}

/// A block whose damaged copy has been moved aside and that has not been put again since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Partition.
    pub partition: Partition,
    /// Name.
    pub cid: Cid,
    /// When it was moved.
    pub since: SystemTime,
}

/// Files or objects that no row names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Orphans {
    /// What was found.
    pub found: BlockCounts,
    /// How many of them were removed.
    pub removed: u64,
}

/// Maintenance of a store that keeps its blocks itself.
#[async_trait::async_trait]
pub trait Upkeep: Send + Sync {
    /// Looks whether the copy of a block is there, without reading it.
    ///
    /// # Errors
    /// Failures of the disk.
    async fn inspect(&self, partition: &Partition, cid: &Cid) -> Result<Copy, StoreError>;

    /// Moves the copy of a block aside if it is damaged. The block goes on being listed, reading it fails as
    /// damaged, and a put of the same block heals it.
    ///
    /// # Errors
    /// Failures of the disk.
    async fn quarantine(&self, partition: &Partition, cid: &Cid) -> Result<Quarantine, StoreError>;

    /// Lists quarantined blocks that have not been healed, at most [`MAX_QUARANTINE_PAGE`], strictly after
    /// `after`.
    ///
    /// # Errors
    /// Failures of the disk.
    async fn quarantined(
        &self,
        after: Option<(&Partition, &Cid)>,
    ) -> Result<Vec<Quarantined>, StoreError>;

    /// Finds files that no row names, apart from writes under way; removes them if asked to.
    ///
    /// # Errors
    /// Failures of the disk.
    async fn orphans(&self, remove: bool) -> Result<Orphans, StoreError>;

    /// Lists the files that no row names, apart from writes under way, at most [`MAX_UNNAMED`]: their names say which
    /// blocks they were, should rows of the index ever be lost.
    ///
    /// # Errors
    /// Failures of the disk.
    async fn unnamed(&self) -> Result<Unnamed, StoreError>;

    /// Reads one of those files; `None` when it is gone, or not what its name says.
    ///
    /// # Errors
    /// Failures of the disk.
    async fn unnamed_block(
        &self,
        file: UnnamedFile,
        cid: &Cid,
    ) -> Result<Option<Block>, StoreError>;

    /// Counts the blocks of a partition and, if asked to, corrects what the store believes; returns what it
    /// believed and what is so.
    ///
    /// # Errors
    /// Failures of the disk.
    async fn recount(
        &self,
        partition: &Partition,
        correct: bool,
    ) -> Result<(BlockCounts, BlockCounts), StoreError>;

    /// Gives what is free inside of the database file back to the file system; returns the length of the file in bytes
    /// before and after. Everything else waits meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while a snapshot is read, and failures of the disk.
    async fn compact(&self) -> Result<(u64, u64), StoreError>;

    /// Verifies every page of the database. Everything else waits meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Database`] when a page is damaged, and failures of the disk.
    async fn verify_pages(&self) -> Result<(), StoreError>;
}
