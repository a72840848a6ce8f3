//! Blocks in one place, metadata in another: an index over any [`MetaStore`], bytes in any [`BlockBytes`].
//!
//! Bytes live under a name made of partition and CID alone, so a put and a deletion of one block aim at the same
//! object. The index keeps them apart, also between processes that share both places:
//!
//! * a put reads the rows of its blocks, stores the bytes, and then commits rows under the condition that they are
//!   still what it read; when one is not, it stores the bytes again;
//! * a deletion first turns the row into `deleting`, removes the bytes, and leaves a `deleted` row for longer
//!   than any put takes; a put that meets a `deleting` row waits.
//!
//! So a live row always means that its bytes were stored after the last removal. Bytes without a row are what
//! a crash leaves behind: they take space and nothing else, until a sweep (`strays`) removes them.
//!
//! Spec: 12 §1, §4.2, §4.4, 40 §11.

mod archive;
mod bytes;
mod delete;
mod direct;
mod index;
mod put;
mod row;
mod settle;
mod strays;

#[cfg(test)]
mod tests;

pub use self::bytes::{BlockBytes, BlockHead, HEAD_BYTES, ListedBytes};

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use ::bytes::Bytes;
use champ::{Block, Cid};

use self::{
    index::Index,
    row::{Row, State},
};
use super::{
    Archive, Batch, BlockCounts, BlockInfo, BlockStore, Clock, CommitOutcome, Deleted,
    DirectAccess, Generation, MAX_DELETE_BLOCKS, MetaEngine, MetaStore, Misuse, Orphans, Partition,
    Store, StoreError, Table, TransactionId, archive::DeletionGate, block::check_put,
};

/// How long a put may take from reading its rows to committing them; it begins again after that.
const MAX_PUT_TIME: Duration = Duration::from_secs(10 * 60);
/// How long a deletion may go on removing bytes after it marked the rows, and requests of it may linger: the
/// signature of a request to S3 is valid for 15 minutes. After that anybody may take it over.
const DELETION_LEASE: Duration = Duration::from_secs(20 * 60);
/// How long the row of a deleted block stays: longer than any put.
const DELETED_ROW_LIFE: Duration = Duration::from_secs(60 * 60);
/// How long a client may take to write a block directly after it was allowed to; the permit itself ends sooner.
const EXPECTATION_LIFE: Duration = Duration::from_secs(60 * 60);
/// How long a put waits for a deletion of the same block.
const DELETION_WAIT: Duration = Duration::from_secs(15);
/// Transfers of one call that run at the same time.
const PARALLEL_TRANSFERS: usize = 16;
/// How often a call begins again because somebody else changed the same rows.
const MAX_ATTEMPTS: usize = 64;

/// A [`Store`] made of a metadata engine and a place for bytes.
///
/// Its futures must run on a tokio runtime. Clones of the handle inside share everything.
#[derive(Clone)]
pub struct SplitStore {
    inner: Arc<Inner>,
}

struct Inner {
    index: Index,
    bytes: Arc<dyn BlockBytes>,
    signer: Option<Arc<dyn RequestSigner>>,
    is_closed: AtomicBool,
    gate: Arc<DeletionGate>,
}

pub use self::direct::RequestSigner;

impl SplitStore {
    /// Joins the two halves. `signer` lets clients transfer raw blocks directly, if the place offers that.
    pub fn new(
        meta: Arc<dyn MetaEngine>,
        bytes: Arc<dyn BlockBytes>,
        signer: Option<Arc<dyn RequestSigner>>,
        clock: Clock,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                index: Index::new(meta, clock),
                bytes,
                signer,
                is_closed: AtomicBool::new(false),
                gate: Arc::default(),
            }),
        }
    }
}

impl fmt::Debug for SplitStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SplitStore").finish_non_exhaustive()
    }
}

impl Inner {
    fn check_open(&self) -> Result<(), StoreError> {
        match self.is_closed.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(StoreError::Closed),
        }
    }

    /// Returns the row of a block that is stored, after looking whether an expected one has arrived.
    async fn live_row(&self, partition: &Partition, cid: &Cid) -> Result<Option<Row>, StoreError> {
        self.check_open()?;
        match self.index.row(partition, cid).await? {
            Some(row) if row.state == State::Live => Ok(Some(row)),
            Some(row) if row.state == State::Expected => self.arrived(partition, cid, row).await,
            _ => Ok(None),
        }
    }

    async fn read(&self, partition: &Partition, cid: &Cid) -> Result<Option<Block>, StoreError> {
        let Some(row) = self.live_row(partition, cid).await? else {
            return Ok(None);
        };
        if let Some(bytes) = self.bytes.get(partition, cid).await?
            && let Ok(block) = Block::verified(cid.clone(), bytes)
        {
            return Ok(Some(block));
        }
        // Bytes that are gone because somebody deleted the block meanwhile are not damage.
        match self.index.row(partition, cid).await? {
            Some(now) if now.is_live() && now.generation == row.generation => {
                Err(StoreError::Damaged(cid.clone()))
            }
            Some(now) if now.is_live() => match self.bytes.get(partition, cid).await? {
                Some(bytes) => Block::verified(cid.clone(), bytes)
                    .map(Some)
                    .map_err(|_| StoreError::Damaged(cid.clone())),
                None => Err(StoreError::Damaged(cid.clone())),
            },
            _ => Ok(None),
        }
    }
}

#[async_trait::async_trait]
impl MetaStore for SplitStore {
    fn is_shared(&self) -> bool {
        self.inner.index.meta.is_shared()
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.check_open()?;
        self.inner.index.meta.get(table, key).await
    }

    async fn get_many(
        &self,
        table: Table,
        keys: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.inner.check_open()?;
        self.inner.index.meta.get_many(table, keys).await
    }

    async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.inner.check_open()?;
        self.inner
            .index
            .meta
            .scan(table, prefix, after, limit)
            .await
    }

    async fn commit(&self, batch: Batch) -> Result<CommitOutcome, StoreError> {
        self.inner.check_open()?;
        self.inner.index.meta.commit(batch).await
    }
}

#[async_trait::async_trait]
impl BlockStore for SplitStore {
    async fn put_blocks(
        &self,
        partition: &Partition,
        blocks: Vec<Block>,
        transaction: Option<&TransactionId>,
    ) -> Result<(), StoreError> {
        check_put(&blocks)?;
        self.inner.check_open()?;
        self.inner.put(partition, blocks, transaction).await
    }

    async fn block(&self, partition: &Partition, cid: &Cid) -> Result<Option<Block>, StoreError> {
        self.inner.read(partition, cid).await
    }

    async fn block_size(
        &self,
        partition: &Partition,
        cid: &Cid,
    ) -> Result<Option<u32>, StoreError> {
        let row = self.inner.live_row(partition, cid).await?;
        Ok(row.map(|row| row.size_bytes))
    }

    async fn list_blocks(
        &self,
        partition: &Partition,
        after: Option<&Cid>,
        limit: usize,
    ) -> Result<Vec<BlockInfo>, StoreError> {
        self.inner.check_open()?;
        self.inner.index.list(partition, after, limit).await
    }

    async fn delete_blocks(
        &self,
        partition: &Partition,
        candidates: Vec<(Cid, Generation)>,
    ) -> Result<Deleted, StoreError> {
        if candidates.len() > MAX_DELETE_BLOCKS {
            return Err(Misuse::TooManyRows(candidates.len()).into());
        }
        self.inner.check_open()?;
        // On a task of its own: what began to be removed must be removed, whoever stops listening.
        let (inner, partition) = (Arc::clone(&self.inner), partition.clone());
        tokio::spawn(async move { inner.delete(&partition, candidates).await })
            .await
            .map_err(|_| StoreError::Closed)?
    }

    async fn block_counts(&self, partition: &Partition) -> Result<BlockCounts, StoreError> {
        self.inner.check_open()?;
        self.inner.index.counts(partition).await
    }

    async fn partitions(
        &self,
        after: Option<&Partition>,
        limit: usize,
    ) -> Result<Vec<Partition>, StoreError> {
        self.inner.check_open()?;
        self.inner.index.partitions(after, limit).await
    }

    async fn close_transaction(
        &self,
        partition: &Partition,
        transaction: &TransactionId,
    ) -> Result<(), StoreError> {
        self.inner.check_open()?;
        self.inner.index.close(partition, transaction).await
    }

    async fn expire_transactions(
        &self,
        partition: &Partition,
        before: SystemTime,
    ) -> Result<(), StoreError> {
        self.inner.check_open()?;
        self.inner.index.expire(partition, before).await?;
        // A collector begins with this call, and must see what clients wrote directly.
        self.inner.settle(partition).await
    }

    async fn protected_blocks(&self, partition: &Partition) -> Result<Vec<Cid>, StoreError> {
        self.inner.check_open()?;
        let cids = self.inner.index.protected(partition).await?;
        Ok(cids.into_iter().collect())
    }
}

#[async_trait::async_trait]
impl Store for SplitStore {
    async fn close(&self) -> Result<(), StoreError> {
        self.inner.is_closed.store(true, Ordering::Release);
        self.inner.index.meta.close_metadata().await
    }

    async fn strays(&self, remove: bool) -> Result<Orphans, StoreError> {
        self.inner.check_open()?;
        self.inner.strays(remove).await
    }

    fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.inner.bytes.gauges()
    }

    fn archive(&self) -> Option<&dyn Archive> {
        let metadata = self.inner.index.meta.metadata_archive();
        metadata.map(|_| self as &dyn Archive)
    }

    fn direct(&self) -> Option<&dyn DirectAccess> {
        self.inner
            .signer
            .as_ref()
            .map(|_| self as &dyn DirectAccess)
    }
}
