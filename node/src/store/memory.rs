//! A store in memory: the model that the durable engines are tested against, and what tests of the node use.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Bound,
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use champ::{Block, Cid};
use parking_lot::Mutex;

use super::{
    Batch, BlockCounts, BlockInfo, BlockStore, Clock, CommitOutcome, Deleted, Generation,
    MAX_DELETE_BLOCKS, MAX_LIST_BLOCKS, MAX_SCAN_ROWS, MetaStore, Misuse, Partition, Store,
    StoreError, Table, TransactionId, block::check_put,
};

/// Keeps everything in memory; "durable" means until it is dropped.
pub struct MemoryStore {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    tables: BTreeMap<Table, BTreeMap<Bytes, Bytes>>,
    partitions: BTreeMap<Partition, Space>,
    generation: u64,
}

/// One partition.
#[derive(Default)]
struct Space {
    /// By binary CID, which is the order of listings.
    blocks: BTreeMap<Vec<u8>, (Block, Generation)>,
    transactions: BTreeMap<TransactionId, Vec<(SystemTime, Vec<Cid>)>>,
}

impl MemoryStore {
    /// Makes an empty store with the clock of the system.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemTime::now))
    }

    /// Makes an empty store.
    pub fn with_clock(clock: Clock) -> Self {
        Self {
            clock,
            state: Mutex::default(),
        }
    }

    fn open(&self) -> Result<parking_lot::MutexGuard<'_, State>, StoreError> {
        let state = self.state.lock();
        if state.closed {
            return Err(StoreError::Closed);
        }
        Ok(state)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl Space {
    fn protected(&self) -> BTreeSet<&Cid> {
        let puts = self.transactions.values().flatten();
        puts.flat_map(|(_, cids)| cids).collect()
    }
}

#[async_trait::async_trait]
impl MetaStore for MemoryStore {
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let state = self.open()?;
        Ok(state.tables.get(&table).and_then(|t| t.get(key)).cloned())
    }

    async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let state = self.open()?;
        let Some(rows) = state.tables.get(&table) else {
            return Ok(Vec::new());
        };
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        Ok(rows
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit.min(MAX_SCAN_ROWS))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    async fn commit(&self, batch: Batch) -> Result<CommitOutcome, StoreError> {
        batch.checked()?;
        let mut state = self.open()?;
        for (index, condition) in batch.conditions().iter().enumerate() {
            let rows = state.tables.get(&condition.table);
            let actual = rows.and_then(|t| t.get(&condition.key));
            if actual != condition.expected.as_ref() {
                let actual = actual.cloned();
                return Ok(CommitOutcome::ConditionFailed { index, actual });
            }
        }
        for write in batch.writes() {
            let rows = state.tables.entry(write.table).or_default();
            match &write.value {
                Some(value) => rows.insert(write.key.clone(), value.clone()),
                None => rows.remove(&write.key),
            };
        }
        Ok(CommitOutcome::Committed)
    }
}

#[async_trait::async_trait]
impl BlockStore for MemoryStore {
    async fn put_blocks(
        &self,
        partition: &Partition,
        blocks: Vec<Block>,
        transaction: Option<&TransactionId>,
    ) -> Result<(), StoreError> {
        check_put(&blocks)?;
        let now = (self.clock)();
        let mut state = self.open()?;
        if blocks.is_empty() {
            return Ok(());
        }
        state.generation += 1;
        let generation = Generation(state.generation);
        let space = state.partitions.entry(partition.clone()).or_default();
        if let Some(id) = transaction {
            let cids = blocks.iter().map(|block| block.cid().clone()).collect();
            let puts = space.transactions.entry(id.clone()).or_default();
            puts.push((now, cids));
        }
        for block in blocks {
            let key = block.cid().to_bytes();
            space.blocks.insert(key, (block, generation));
        }
        Ok(())
    }

    async fn block(&self, partition: &Partition, cid: &Cid) -> Result<Option<Block>, StoreError> {
        let state = self.open()?;
        let space = state.partitions.get(partition);
        let found = space.and_then(|space| space.blocks.get(&cid.to_bytes()));
        Ok(found.map(|(block, _)| block.clone()))
    }

    async fn block_size(
        &self,
        partition: &Partition,
        cid: &Cid,
    ) -> Result<Option<u32>, StoreError> {
        let block = self.block(partition, cid).await?;
        Ok(block.map(|block| size_bytes(&block)))
    }

    async fn list_blocks(
        &self,
        partition: &Partition,
        after: Option<&Cid>,
        limit: usize,
    ) -> Result<Vec<BlockInfo>, StoreError> {
        let state = self.open()?;
        let Some(space) = state.partitions.get(partition) else {
            return Ok(Vec::new());
        };
        let start = after.map_or(Bound::Unbounded, |cid| Bound::Excluded(cid.to_bytes()));
        let blocks = space.blocks.range((start, Bound::Unbounded));
        Ok(blocks
            .take(limit.min(MAX_LIST_BLOCKS))
            .map(|(_, (block, generation))| BlockInfo {
                cid: block.cid().clone(),
                size_bytes: size_bytes(block),
                generation: *generation,
            })
            .collect())
    }

    async fn delete_blocks(
        &self,
        partition: &Partition,
        candidates: Vec<(Cid, Generation)>,
    ) -> Result<Deleted, StoreError> {
        if candidates.len() > MAX_DELETE_BLOCKS {
            return Err(Misuse::TooManyRows(candidates.len()).into());
        }
        let mut state = self.open()?;
        let mut deleted = Deleted::default();
        let Some(space) = state.partitions.get_mut(partition) else {
            return Ok(deleted);
        };
        let protected: BTreeSet<Cid> = space.protected().into_iter().cloned().collect();
        for (cid, generation) in candidates {
            let key = cid.to_bytes();
            let Some((block, current)) = space.blocks.get(&key) else {
                continue;
            };
            if *current != generation || protected.contains(&cid) {
                deleted.kept += 1;
                continue;
            }
            deleted.removed.blocks += 1;
            deleted.removed.bytes += u64::from(size_bytes(block));
            space.blocks.remove(&key);
        }
        Ok(deleted)
    }

    async fn block_counts(&self, partition: &Partition) -> Result<BlockCounts, StoreError> {
        let state = self.open()?;
        let mut counts = BlockCounts::default();
        let space = state.partitions.get(partition);
        for (block, _) in space.into_iter().flat_map(|space| space.blocks.values()) {
            counts.blocks += 1;
            counts.bytes += u64::from(size_bytes(block));
        }
        Ok(counts)
    }

    async fn partitions(
        &self,
        after: Option<&Partition>,
        limit: usize,
    ) -> Result<Vec<Partition>, StoreError> {
        let state = self.open()?;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = state.partitions.range((start, Bound::Unbounded));
        Ok(names.take(limit).map(|(name, _)| name.clone()).collect())
    }

    async fn close_transaction(
        &self,
        partition: &Partition,
        transaction: &TransactionId,
    ) -> Result<(), StoreError> {
        let mut state = self.open()?;
        if let Some(space) = state.partitions.get_mut(partition) {
            space.transactions.remove(transaction);
        }
        Ok(())
    }

    async fn expire_transactions(
        &self,
        partition: &Partition,
        before: SystemTime,
    ) -> Result<(), StoreError> {
        let mut state = self.open()?;
        if let Some(space) = state.partitions.get_mut(partition) {
            for puts in space.transactions.values_mut() {
                puts.retain(|(at, _)| *at >= before);
            }
            space.transactions.retain(|_, puts| !puts.is_empty());
        }
        Ok(())
    }

    async fn protected_blocks(&self, partition: &Partition) -> Result<Vec<Cid>, StoreError> {
        let state = self.open()?;
        let space = state.partitions.get(partition);
        Ok(space.map_or_else(Vec::new, |space| {
            space.protected().into_iter().cloned().collect()
        }))
    }
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn close(&self) -> Result<(), StoreError> {
        self.state.lock().closed = true;
        Ok(())
    }
}

fn size_bytes(block: &Block) -> u32 {
    u32::try_from(block.bytes().len()).unwrap_or(u32::MAX)
}

/// A memory store that says others use it too; for tests of what several processes do.
#[cfg(test)]
#[derive(Debug, Default, Clone)]
pub(crate) struct SharedMemory(Arc<MemoryStore>);

#[cfg(test)]
#[async_trait::async_trait]
impl MetaStore for SharedMemory {
    fn is_shared(&self) -> bool {
        true
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(table, key).await
    }

    async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.0.scan(table, prefix, after, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<CommitOutcome, StoreError> {
        self.0.commit(batch).await
    }
}
