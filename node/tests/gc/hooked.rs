//! A store that lets a test act between the steps of a collection, and break blocks.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use bytes::Bytes;
use champ::{Block, Cid};
use futures_util::future::BoxFuture;
use node::store::{
    Batch, BlockCounts, BlockInfo, BlockStore, CommitOutcome, Deleted, Generation, MetaStore,
    Partition, Store, StoreError, Table, TransactionId, tables,
};
use parking_lot::Mutex;

/// Where a collection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Point {
    BeforeList,
    AfterList,
    AfterProtected,
    BeforeGiveUp,
    AfterGiveUp,
    AfterDelete,
    /// Not of a collection: an update has been checked and is about to be committed.
    BeforePointer,
}

impl Point {
    /// The points of a collection.
    pub(crate) const ALL: [Self; 6] = [
        Self::BeforeList,
        Self::AfterList,
        Self::AfterProtected,
        Self::BeforeGiveUp,
        Self::AfterGiveUp,
        Self::AfterDelete,
    ];
}

pub(crate) type Hook = Arc<dyn Fn(Point) -> BoxFuture<'static, ()> + Send + Sync>;

/// The store; what the hook itself does is not hooked.
pub(crate) struct Hooked {
    pub(crate) inner: Arc<dyn Store>,
    hook: Mutex<Option<Hook>>,
    pub(crate) damaged: Mutex<BTreeSet<Cid>>,
    /// Blocks that have been read.
    pub(crate) reads: Mutex<u64>,
    /// Tables of the rows that have been read one by one, in order.
    pub(crate) tables_read: Mutex<Vec<&'static str>>,
}

impl Hooked {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            hook: Mutex::default(),
            damaged: Mutex::default(),
            reads: Mutex::default(),
            tables_read: Mutex::default(),
        })
    }

    pub(crate) fn set_hook(&self, hook: Option<Hook>) {
        *self.hook.lock() = hook;
    }

    async fn at(&self, point: Point) {
        let hook = self.hook.lock().take();
        if let Some(hook) = hook {
            hook(point).await;
            self.hook.lock().get_or_insert(hook);
        }
    }
}

#[async_trait::async_trait]
impl MetaStore for Hooked {
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.tables_read.lock().push(table.name());
        self.inner.get(table, key).await
    }

    async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.inner.scan(table, prefix, after, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<CommitOutcome, StoreError> {
        let gives_up = batch
            .writes()
            .iter()
            .any(|write| write.table == tables::GC_DOOMED && write.value.is_some());
        let points = |write: &node::store::Write| write.table == tables::POINTERS;
        if gives_up {
            self.at(Point::BeforeGiveUp).await;
        } else if batch.writes().iter().any(points) {
            self.at(Point::BeforePointer).await;
        }
        let outcome = self.inner.commit(batch).await;
        if gives_up {
            self.at(Point::AfterGiveUp).await;
        }
        outcome
    }
}

#[async_trait::async_trait]
impl BlockStore for Hooked {
    async fn put_blocks(
        &self,
        partition: &Partition,
        blocks: Vec<Block>,
        transaction: Option<&TransactionId>,
    ) -> Result<(), StoreError> {
        self.inner.put_blocks(partition, blocks, transaction).await
    }

    async fn block(&self, partition: &Partition, cid: &Cid) -> Result<Option<Block>, StoreError> {
        if self.damaged.lock().contains(cid) {
            return Err(StoreError::Damaged(cid.clone()));
        }
        *self.reads.lock() += 1;
        self.inner.block(partition, cid).await
    }

    async fn block_size(
        &self,
        partition: &Partition,
        cid: &Cid,
    ) -> Result<Option<u32>, StoreError> {
        self.inner.block_size(partition, cid).await
    }

    async fn list_blocks(
        &self,
        partition: &Partition,
        after: Option<&Cid>,
        limit: usize,
    ) -> Result<Vec<BlockInfo>, StoreError> {
        self.at(Point::BeforeList).await;
        let listed = self.inner.list_blocks(partition, after, limit).await;
        self.at(Point::AfterList).await;
        listed
    }

    async fn delete_blocks(
        &self,
        partition: &Partition,
        candidates: Vec<(Cid, Generation)>,
    ) -> Result<Deleted, StoreError> {
        let deleted = self.inner.delete_blocks(partition, candidates).await;
        self.at(Point::AfterDelete).await;
        deleted
    }

    async fn block_counts(&self, partition: &Partition) -> Result<BlockCounts, StoreError> {
        self.inner.block_counts(partition).await
    }

    async fn partitions(
        &self,
        after: Option<&Partition>,
        limit: usize,
    ) -> Result<Vec<Partition>, StoreError> {
        self.inner.partitions(after, limit).await
    }

    async fn close_transaction(
        &self,
        partition: &Partition,
        transaction: &TransactionId,
    ) -> Result<(), StoreError> {
        self.inner.close_transaction(partition, transaction).await
    }

    async fn expire_transactions(
        &self,
        partition: &Partition,
        before: SystemTime,
    ) -> Result<(), StoreError> {
        self.inner.expire_transactions(partition, before).await
    }

    async fn protected_blocks(&self, partition: &Partition) -> Result<Vec<Cid>, StoreError> {
        let protected = self.inner.protected_blocks(partition).await;
        self.at(Point::AfterProtected).await;
        protected
    }
}

#[async_trait::async_trait]
impl Store for Hooked {
    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
