//! Where the bytes of blocks are kept when their metadata is elsewhere.

use std::time::SystemTime;

use bytes::Bytes;
use champ::{Block, Cid};
use futures_util::stream::BoxStream;

use crate::store::{Partition, StoreError};

/// Bytes of a block that [`BlockBytes::head`] asks for at most: enough for any access prefix (Spec: 01 §5.3).
pub const HEAD_BYTES: usize = 256;

/// The beginning of a stored block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockHead {
    /// Length of the whole block in bytes.
    pub size_bytes: u64,
    /// Its first bytes, at most [`HEAD_BYTES`].
    pub head: Bytes,
}

/// Bytes as a listing shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedBytes {
    /// Partition.
    pub partition: Partition,
    /// The name they are kept under.
    pub cid: Cid,
    /// Their length.
    pub size_bytes: u64,
    /// When they were stored last, by the clock of the place.
    pub modified: SystemTime,
}

/// Keeps bytes by partition and CID, and knows nothing else about them.
///
/// Contract: a put is on stable storage when its future resolves and replaces what was there; what was removed is
/// gone when the future resolves; nothing is checked against its CID on the way out. Dropping a future leaves open
/// whether the write happens.
#[async_trait::async_trait]
pub trait BlockBytes: Send + Sync {
    /// Stores the bytes of a block.
    ///
    /// # Errors
    /// Failures of the storage.
    async fn put(&self, partition: &Partition, block: &Block) -> Result<(), StoreError>;

    /// Reads bytes as they are; `None` when there are none.
    ///
    /// # Errors
    /// Failures of the storage; also bytes longer than any block, as [`StoreError::Damaged`].
    async fn get(&self, partition: &Partition, cid: &Cid) -> Result<Option<Bytes>, StoreError>;

    /// Reads length and beginning; `None` when there are none.
    ///
    /// # Errors
    /// Failures of the storage.
    async fn head(&self, partition: &Partition, cid: &Cid)
    -> Result<Option<BlockHead>, StoreError>;

    /// Lists all bytes that are kept, in no particular order; nothing where a place cannot do that.
    fn list(&self) -> BoxStream<'_, Result<ListedBytes, StoreError>> {
        Box::pin(futures_util::stream::empty())
    }

    /// Returns what an operator may watch: name, meaning, value.
    fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        Vec::new()
    }

    /// Removes bytes, and answers for each CID in order; removing what is not there is no error.
    async fn remove(&self, partition: &Partition, cids: &[Cid]) -> Vec<Result<(), StoreError>>;
}
