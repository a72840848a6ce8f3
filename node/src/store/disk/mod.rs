//! The durable engine for one machine: large blocks in files, small blocks and metadata in redb.
//!
//! The layout of the folder and the order of every write are in `docs/storage-format.md`. One writer thread merges
//! all waiting writes into one transaction and one flush; block files are flushed, several at a time, before
//! the transaction that names them. Reads never wait for writes.
//!
//! Spec: 40 §11.2.

mod archive;
mod database;
mod engine;
mod fault;
mod files;
mod group;
mod layout;
mod log;
mod medium;
mod open;
mod overlay;
mod protected;
mod upkeep;
mod writer;

pub use medium::{Disk, LockGuard, Locked, Space, SystemDisk};

use std::{fmt, path::PathBuf, sync::Arc, time::SystemTime};

use bytes::Bytes;
use champ::{Block, Cid};

use self::{
    engine::{Engine, blocking, seconds},
    fault::database_fault,
    group::{Answer, Operation},
    layout::{
        INDEX, IndexRow, META, TransactionRow, index_cid, index_key, meta_key, partition_key,
        partition_name, transactions_prefix,
    },
};
use super::{
    Archive, Batch, BlockCounts, BlockInfo, BlockStore, Clock, CommitOutcome, Deleted, Generation,
    MAX_DELETE_BLOCKS, MAX_LIST_BLOCKS, MAX_SCAN_ROWS, MetaStore, Misuse, Partition, Store,
    StoreError, Table, TransactionId, Upkeep, block::check_put,
};

/// Name of the log in the data folder.
const LOG_NAME: &str = "meta.log";
/// Bytes of values after which a scan stops early.
const MAX_SCAN_BYTES: usize = 8 << 20;

/// How a data folder is opened.
#[derive(Clone)]
#[non_exhaustive]
pub struct DiskOptions {
    /// The data folder; made if it does not exist.
    pub folder: PathBuf,
    /// Blocks below this size live in the database, others in files. Default 64 KiB. May change between
    /// starts.
    pub inline_below_bytes: usize,
    /// Memory for pages of the database. Default 8 MiB: what falls out of it is mostly still in the
    /// page cache of the system, which costs one copy.
    pub cache_bytes: usize,
    /// Space to keep free.
    pub free_floor: FreeFloor,
    /// Tells the age of transactions.
    pub clock: Clock,
}

/// How much of the file system is left to others: below it, blocks are refused; small ones, without which nothing could be
/// deleted, below half of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FreeFloor {
    /// Two percent of the file system, at least 1 GiB (Spec: 40, WR-13).
    Default,
    /// This many bytes.
    Bytes(u64),
}

impl FreeFloor {
    /// Returns the floor in bytes on a file system of this size.
    pub fn bytes(self, total_bytes: u64) -> u64 {
        match self {
            Self::Default => (total_bytes / 50).max(1 << 30),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl DiskOptions {
    /// Returns the defaults for a data folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            inline_below_bytes: 64 << 10,
            cache_bytes: 8 << 20,
            free_floor: FreeFloor::Default,
            clock: Arc::new(SystemTime::now),
        }
    }
}

impl fmt::Debug for DiskOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskOptions")
            .field("folder", &self.folder)
            .field("inline_below_bytes", &self.inline_below_bytes)
            .field("cache_bytes", &self.cache_bytes)
            .field("free_floor", &self.free_floor)
            .finish_non_exhaustive()
    }
}

/// A [`Store`] in a folder of this machine.
///
/// Its futures must run on a tokio runtime. Writes run to their end even if their future is dropped. Dropping
/// the store without [`Store::close`] loses nothing that was acknowledged.
pub struct DiskStore {
    engine: Arc<Engine>,
}

impl DiskStore {
    /// Opens or makes a data folder. Blocking: call it before serving, or through `spawn_blocking`.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::NewerFormat`], [`StoreError::BadFolder`], and failures of the disk.
    pub fn open(options: DiskOptions) -> Result<Self, StoreError> {
        Self::open_on(options, Arc::new(SystemDisk))
    }

    /// Opens a data folder on another disk than the machine's: models of faults and crashes.
    ///
    /// # Errors
    /// As [`DiskStore::open`].
    pub fn open_on(options: DiskOptions, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let engine = Arc::new(Engine::open(options, disk)?);
        Ok(Self { engine })
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl MetaStore for DiskStore {
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.engine.read(|transaction| {
            let meta = transaction.open_table(META).map_err(database_fault)?;
            let value = meta
                .get(meta_key(table, key).as_slice())
                .map_err(database_fault)?;
            Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
        })
    }

    async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let prefix = meta_key(table, prefix);
        let after = after.map(|after| meta_key(table, after));
        let name_bytes = meta_key(table, b"").len();
        let limit = limit.min(MAX_SCAN_ROWS);
        let engine = self.engine.clone();
        blocking(move || {
            engine.read(|transaction| {
                let meta = transaction.open_table(META).map_err(database_fault)?;
                let start = after
                    .as_ref()
                    .filter(|after| **after >= prefix)
                    .unwrap_or(&prefix);
                let mut rows = Vec::new();
                let mut bytes = 0;
                for row in meta.range(start.as_slice()..).map_err(database_fault)? {
                    let (key, value) = row.map_err(database_fault)?;
                    let (key, value) = (key.value(), value.value());
                    if rows.len() >= limit || bytes > MAX_SCAN_BYTES || !key.starts_with(&prefix) {
                        break;
                    }
                    if after.as_deref() == Some(key) {
                        continue;
                    }
                    let key = key.get(name_bytes..).unwrap_or_default();
                    bytes += key.len() + value.len();
                    rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                }
                Ok(rows)
            })
        })
        .await
    }

    async fn commit(&self, batch: Batch) -> Result<CommitOutcome, StoreError> {
        batch.checked()?;
        match self.engine.operate(Operation::Commit(batch)).await? {
            Answer::Batch(outcome) => Ok(outcome),
            _ => Err(StoreError::Closed),
        }
    }
}

#[async_trait::async_trait]
impl BlockStore for DiskStore {
    async fn put_blocks(
        &self,
        partition: &Partition,
        blocks: Vec<Block>,
        transaction: Option<&TransactionId>,
    ) -> Result<(), StoreError> {
        check_put(&blocks)?;
        if blocks.is_empty() {
            return Ok(());
        }
        self.engine.check_writable(&blocks)?;
        self.engine
            .put(partition.clone(), blocks, transaction.cloned())
            .await
    }

    async fn block(&self, partition: &Partition, cid: &Cid) -> Result<Option<Block>, StoreError> {
        match self.engine.look_up(partition, cid)? {
            Some(found) => self.engine.verified(cid, found).await,
            None => Ok(None),
        }
    }

    async fn block_size(
        &self,
        partition: &Partition,
        cid: &Cid,
    ) -> Result<Option<u32>, StoreError> {
        let found = self.engine.look_up(partition, cid)?;
        Ok(found.map(|found| found.row.size_bytes))
    }

    async fn list_blocks(
        &self,
        partition: &Partition,
        after: Option<&Cid>,
        limit: usize,
    ) -> Result<Vec<BlockInfo>, StoreError> {
        let Some(row) = self.engine.partition(partition)? else {
            return Ok(Vec::new());
        };
        let after = after.map(|cid| index_key(row.number, &cid.to_bytes()));
        let limit = limit.min(MAX_LIST_BLOCKS);
        let engine = self.engine.clone();
        blocking(move || {
            engine.read(|transaction| {
                let index = transaction.open_table(INDEX).map_err(database_fault)?;
                let prefix = row.number.prefix();
                let start = after.as_deref().unwrap_or(&prefix);
                let mut blocks = Vec::new();
                for row in index.range(start..).map_err(database_fault)? {
                    let (key, value) = row.map_err(database_fault)?;
                    if blocks.len() >= limit || !key.value().starts_with(&prefix) {
                        break;
                    }
                    if after.as_deref() == Some(key.value()) {
                        continue;
                    }
                    let row = IndexRow::decode(value.value())?;
                    blocks.push(BlockInfo {
                        cid: index_cid(key.value())?,
                        size_bytes: row.size_bytes,
                        generation: row.generation,
                    });
                }
                Ok(blocks)
            })
        })
        .await
    }

    async fn delete_blocks(
        &self,
        partition: &Partition,
        candidates: Vec<(Cid, Generation)>,
    ) -> Result<Deleted, StoreError> {
        if candidates.len() > MAX_DELETE_BLOCKS {
            return Err(Misuse::TooManyRows(candidates.len()).into());
        }
        self.engine.delete(partition.clone(), candidates).await
    }

    async fn block_counts(&self, partition: &Partition) -> Result<BlockCounts, StoreError> {
        let row = self.engine.partition(partition)?;
        Ok(row.map_or_else(BlockCounts::default, |row| row.counts))
    }

    async fn partitions(
        &self,
        after: Option<&Partition>,
        limit: usize,
    ) -> Result<Vec<Partition>, StoreError> {
        let prefix = partition_key("");
        let start = partition_key(after.map_or("", Partition::as_str));
        let engine = self.engine.clone();
        blocking(move || {
            engine.read(|transaction| {
                let meta = transaction.open_table(META).map_err(database_fault)?;
                let mut names = Vec::new();
                for row in meta.range(start.as_slice()..).map_err(database_fault)? {
                    let (key, _) = row.map_err(database_fault)?;
                    if names.len() >= limit || !key.value().starts_with(&prefix) {
                        break;
                    }
                    if key.value() != start.as_slice() {
                        names.push(partition_name(key.value())?);
                    }
                }
                Ok(names)
            })
        })
        .await
    }

    async fn close_transaction(
        &self,
        partition: &Partition,
        transaction: &TransactionId,
    ) -> Result<(), StoreError> {
        let operation = Operation::Close(partition.clone(), transaction.clone());
        self.engine.operate(operation).await.map(drop)
    }

    async fn expire_transactions(
        &self,
        partition: &Partition,
        before: SystemTime,
    ) -> Result<(), StoreError> {
        let operation = Operation::Expire(partition.clone(), seconds(before));
        self.engine.operate(operation).await.map(drop)
    }

    async fn protected_blocks(&self, partition: &Partition) -> Result<Vec<Cid>, StoreError> {
        let Some(row) = self.engine.partition(partition)? else {
            return Ok(Vec::new());
        };
        let engine = self.engine.clone();
        blocking(move || {
            engine.read(|transaction| {
                let meta = transaction.open_table(META).map_err(database_fault)?;
                let prefix = transactions_prefix(row.number);
                let mut cids = std::collections::BTreeSet::new();
                for row in meta.range(prefix.as_slice()..).map_err(database_fault)? {
                    let (key, row) = row.map_err(database_fault)?;
                    if !key.value().starts_with(&prefix) {
                        break;
                    }
                    cids.extend(TransactionRow::decode(row.value())?.cids);
                }
                let damaged = StoreError::DamagedRow { row: "transaction" };
                let cids = cids
                    .iter()
                    .map(|cid| Cid::decode(cid).map_err(|_| damaged.clone()));
                cids.collect()
            })
        })
        .await
    }
}

#[async_trait::async_trait]
impl Store for DiskStore {
    async fn close(&self) -> Result<(), StoreError> {
        self.engine.clone().close().await
    }

    fn upkeep(&self) -> Option<&dyn Upkeep> {
        Some(self)
    }

    fn archive(&self) -> Option<&dyn Archive> {
        Some(self)
    }
}
