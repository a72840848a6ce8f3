//! What happens to one call: planning of puts, files beside the database, reads that verify.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use champ::{Block, Cid};
use parking_lot::Mutex;
use redb::ReadTransaction;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::{JoinError, JoinSet, spawn_blocking},
};

use super::{
    DiskOptions,
    database::DatabaseCell,
    fault::{database_fault, io_fault},
    files::BlockFiles,
    group::{Answer, Entry, Operation, Put, block_size},
    layout::{
        BlockFile, INDEX, INLINE, IndexRow, META, PartitionNumber, PartitionRow, Place, index_key,
        partition_key, run_of,
    },
    medium::{Disk, LockGuard},
    open,
    writer::{Failure, Job, QUEUE_JOBS, Writer},
};
use crate::store::{Deleted, Generation, Partition, StoreError, TransactionId, archive::Holds};

/// Bytes of writes that may wait or be under way, in units of [`BUDGET_UNIT_BYTES`].
const BUDGET_UNITS: u32 = 1024;
/// Every write costs at least one unit, so that the units also bound the number of writes.
const BUDGET_UNIT_BYTES: usize = 32 << 10;
/// Block files written and flushed at the same time: concurrent flushes share the work of the file system.
const FILES_AT_ONCE: usize = 16;
/// Attempts of a put whose existing copies vanish under it before it writes all of them anew.
const MAX_SHARED_ATTEMPTS: u32 = 3;

const _: () = assert!(
    BUDGET_UNITS as usize <= QUEUE_JOBS,
    "the queue has room for every permit"
);

/// An open data folder.
pub(super) struct Engine {
    pub(super) options: DiskOptions,
    disk: Arc<dyn Disk>,
    database: Arc<DatabaseCell>,
    pub(super) files: Arc<BlockFiles>,
    pub(super) holds: Arc<Holds>,
    writer: Writer,
    budget: Arc<Semaphore>,
    file_slots: Arc<Semaphore>,
    lock: Mutex<Option<LockGuard>>,
}

/// A block as the database knows it.
pub(super) struct Found {
    pub(super) partition: PartitionNumber,
    pub(super) row: IndexRow,
    /// The bytes of an inline block; `None` also when they are missing.
    pub(super) inline: Option<Bytes>,
}

impl Engine {
    pub(super) fn open(options: DiskOptions, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let opened = open::open(&disk, &options.folder, options.cache_bytes)?;
        let holds = Arc::<Holds>::default();
        let writer = Writer::start(
            opened.database.clone(),
            opened.files.clone(),
            holds.clone(),
            opened.removed,
        )?;
        let budget_units = usize::try_from(BUDGET_UNITS).unwrap_or(usize::MAX);
        Ok(Self {
            options,
            disk,
            database: opened.database,
            files: opened.files,
            holds,
            writer,
            budget: Arc::new(Semaphore::new(budget_units)),
            file_slots: Arc::new(Semaphore::new(FILES_AT_ONCE)),
            lock: Mutex::new(Some(opened.lock)),
        })
    }

    /// Waits for all writes, stops the writer, closes the database and lets go of the folder.
    pub(super) async fn close(self: Arc<Self>) -> Result<(), StoreError> {
        let Ok(all) = self.budget.acquire_many(BUDGET_UNITS).await else {
            return Ok(());
        };
        self.budget.close();
        drop(all);
        let engine = self.clone();
        blocking(move || {
            engine.writer.stop();
            engine.database.close();
            drop(engine.lock.lock().take());
            Ok(())
        })
        .await
    }

    /// Waits until a write of this size may start.
    pub(super) async fn admit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, StoreError> {
        let units = u32::try_from(bytes / BUDGET_UNIT_BYTES + 1).unwrap_or(u32::MAX);
        let units = units.min(BUDGET_UNITS);
        let permit = self.budget.clone().acquire_many_owned(units).await;
        permit.map_err(|_| StoreError::Closed)
    }

    /// Hands an operation to the writer and waits for it; the permit is kept by whoever calls.
    async fn decide(&self, operation: Operation) -> Result<Answer, Failure> {
        let (reply, answer) = oneshot::channel();
        let job = Job { operation, reply };
        self.writer.submit(job).map_err(Failure::Before)?;
        answer
            .await
            .map_err(|_| Failure::Undecided(StoreError::Closed))?
    }

    /// Runs an operation that concerns the database alone, to its end even if the caller goes away.
    pub(super) async fn operate(
        self: &Arc<Self>,
        operation: Operation,
    ) -> Result<Answer, StoreError> {
        let permit = self.admit(operation.database_bytes()).await?;
        let engine = self.clone();
        detached(async move {
            let _permit = permit;
            engine.decide(operation).await.map_err(Failure::into_error)
        })
        .await
    }

    /// Refuses blocks when the disk is too full, before their files are written.
    ///
    /// Small ones may use half of what is kept free: whoever deletes, renames or takes back a permission has to store
    /// small blocks before anything is given back.
    pub(super) fn check_writable(&self, blocks: &[Block]) -> Result<(), StoreError> {
        self.database.check_writable()?;
        let folder = &self.options.folder;
        let space = self.disk.space(folder);
        let space = space.map_err(|error| io_fault("measure", folder, error))?;
        let floor_bytes = self.options.free_floor.bytes(space.total_bytes);
        let floor_bytes = match blocks.iter().all(|block| self.is_inline(block)) {
            true => floor_bytes / 2,
            false => floor_bytes,
        };
        if space.free_bytes < floor_bytes {
            return Err(StoreError::NoSpace {
                free_bytes: space.free_bytes,
                floor_bytes,
            });
        }
        Ok(())
    }

    /// Stores blocks without repetitions.
    pub(super) async fn put(
        self: &Arc<Self>,
        partition: Partition,
        mut blocks: Vec<Block>,
        transaction: Option<TransactionId>,
    ) -> Result<(), StoreError> {
        let mut seen = HashSet::new();
        blocks.retain(|block| seen.insert(block.cid().clone()));
        let bytes = blocks.iter().map(|block| block.bytes().len()).sum();
        let permit = self.admit(bytes).await?;
        let transaction = transaction.map(|id| (id, seconds((self.options.clock)())));
        let engine = self.clone();
        detached(async move {
            let _permit = permit;
            engine.put_admitted(partition, blocks, transaction).await
        })
        .await
    }

    async fn put_admitted(
        self: &Arc<Self>,
        partition: Partition,
        blocks: Vec<Block>,
        transaction: Option<(TransactionId, u64)>,
    ) -> Result<(), StoreError> {
        let has_files = blocks.iter().any(|block| !self.is_inline(block));
        let number = if has_files {
            Some(self.number(&partition).await?)
        } else {
            None
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut written = Written::default();
            let share = attempt <= MAX_SHARED_ATTEMPTS;
            let entries = self.plan(number, &blocks, share, &mut written).await;
            let entries = match entries {
                Ok(entries) => entries,
                Err(error) => {
                    self.discard(written.0).await;
                    return Err(error);
                }
            };
            let put = Put {
                partition: partition.clone(),
                entries,
                transaction: transaction.clone(),
            };
            match self.decide(Operation::Put(put)).await {
                Ok(Answer::Stored { unneeded, retired }) => {
                    self.discard(unneeded).await;
                    written
                        .0
                        .iter()
                        .for_each(|file| self.files.settle(file.sequence));
                    self.remove_retired(retired).await;
                    return Ok(());
                }
                Ok(_) => self.discard(written.0).await,
                Err(Failure::Before(error)) => {
                    self.discard(written.0).await;
                    return Err(error);
                }
                // The rows may be there: the files must stay. They keep counting as possible leftovers, and the
                // next start finds out which they are.
                Err(Failure::Undecided(error)) => return Err(error),
            }
        }
    }

    fn is_inline(&self, block: &Block) -> bool {
        block.bytes().len() < self.options.inline_below_bytes
    }

    /// Returns the number of a partition, which is given one if it has none.
    async fn number(&self, name: &Partition) -> Result<PartitionNumber, StoreError> {
        if let Some(row) = self.partition(name)? {
            return Ok(row.number);
        }
        match self.decide(Operation::Number(name.clone())).await {
            Ok(Answer::Number(number)) => Ok(number),
            Ok(_) => Err(StoreError::Closed),
            Err(failure) => Err(failure.into_error()),
        }
    }

    /// Decides where each block goes and writes the files, several at a time.
    async fn plan(
        self: &Arc<Self>,
        partition: Option<PartitionNumber>,
        blocks: &[Block],
        share: bool,
        written: &mut Written,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::with_capacity(blocks.len());
        let mut tasks = JoinSet::new();
        let mut outcome = Ok(());
        for block in blocks {
            let Some(partition) = partition.filter(|_| !self.is_inline(block)) else {
                entries.push(Entry::Inline(block.clone()));
                continue;
            };
            let slot = self.file_slots.clone().acquire_owned().await;
            let slot = slot.map_err(|_| StoreError::Closed)?;
            let (engine, block) = (self.clone(), block.clone());
            tasks.spawn_blocking(move || {
                let _slot = slot;
                engine.place_file(partition, &block, share)
            });
        }
        while let Some(placed) = tasks.join_next().await {
            match placed.map_err(|error| lost_task(&error)) {
                Ok(Ok(entry)) => {
                    if let Entry::File { file, .. } = &entry {
                        written.0.push(file.clone());
                    }
                    entries.push(entry);
                }
                Ok(Err(error)) | Err(error) => outcome = Err(error),
            }
        }
        outcome.map(|()| entries)
    }

    /// Finds a good copy of a large block, or writes a new file.
    fn place_file(
        &self,
        partition: PartitionNumber,
        block: &Block,
        share: bool,
    ) -> Result<Entry, StoreError> {
        let cid = block.cid().clone();
        let found = self.find(partition, &cid)?;
        let place = found.as_ref().map(|found| found.row.place);
        if share && let (Some(found), Some(place)) = (found, place) {
            match self.load(&cid, found) {
                Ok(Some(bytes)) if bytes == block.bytes() => {
                    return Ok(Entry::Present { cid, place });
                }
                Ok(_) => {}
                // A copy that the disk cannot read is as good as none.
                Err(error) => {
                    tracing::warn!(%error, "writing a block anew whose copy is unreadable")
                }
            }
        }
        let sequence = self.files.open_number();
        let file = BlockFile {
            cid,
            partition,
            sequence,
        };
        if let Err(error) = self.files.write(&file, block.bytes()) {
            self.discard_file(&file);
            return Err(error);
        }
        Ok(Entry::File {
            file,
            size_bytes: block_size(block),
            replaces: place,
        })
    }

    /// Removes files that no row names.
    async fn discard(self: &Arc<Self>, files: Vec<BlockFile>) {
        if files.is_empty() {
            return;
        }
        let engine = self.clone();
        let done = blocking(move || {
            files.iter().for_each(|file| engine.discard_file(file));
            Ok(())
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, "leftover files stay until the next start");
        }
    }

    fn discard_file(&self, file: &BlockFile) {
        match self.files.remove(file) {
            Ok(()) => self.files.settle(file.sequence),
            // It goes on counting as a leftover, so the next start removes it.
            Err(error) => tracing::warn!(%error, "a leftover file stays until the next start"),
        }
    }

    /// Removes files whose rows are gone for good, and says so to the writer.
    async fn remove_retired(self: &Arc<Self>, files: Vec<BlockFile>) {
        if files.is_empty() {
            return;
        }
        let engine = self.clone();
        let done = blocking(move || {
            let mut removed = Vec::with_capacity(files.len());
            let mut runs = HashSet::new();
            for file in files {
                match engine.files.remove(&file) {
                    Ok(()) => {
                        runs.insert(run_of(file.sequence));
                        removed.push(file);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a deleted block keeps its file until the next start");
                    }
                }
            }
            runs.into_iter()
                .for_each(|run| engine.files.remove_empty_run(run));
            engine.writer.removed(removed);
            Ok(())
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, "deleted blocks keep their files until the next start");
        }
    }

    /// Deletes blocks and gives their space back.
    pub(super) async fn delete(
        self: &Arc<Self>,
        partition: Partition,
        candidates: Vec<(Cid, Generation)>,
    ) -> Result<Deleted, StoreError> {
        let operation = Operation::Delete(partition, candidates);
        let permit = self.admit(operation.database_bytes()).await?;
        let engine = self.clone();
        detached(async move {
            let _permit = permit;
            match engine
                .decide(operation)
                .await
                .map_err(Failure::into_error)?
            {
                Answer::Deleted(deleted, files) => {
                    engine.remove_retired(files).await;
                    Ok(deleted)
                }
                _ => Ok(Deleted::default()),
            }
        })
        .await
    }

    /// Runs `work` on a snapshot of the database.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.database.read(work)
    }

    /// Returns the committed state of this moment, for as long as the caller keeps it.
    pub(super) fn snapshot(&self) -> Result<ReadTransaction, StoreError> {
        self.database.snapshot()
    }

    /// Gives free pages of the database back to the file system; returns its length before and after. Blocking, and
    /// everything else waits.
    pub(super) fn compact(&self) -> Result<(u64, u64), StoreError> {
        let before = self.database.file_bytes()?;
        self.database.alone(|database| {
            database.compact().map(drop).map_err(|error| match error {
                redb::CompactionError::Storage(error) => database_fault(error),
                // Somebody reads a snapshot.
                _ => StoreError::Busy,
            })
        })?;
        Ok((before, self.database.file_bytes()?))
    }

    /// Reads and verifies every page of the database. Blocking, and everything else waits.
    pub(super) fn verify_pages(&self) -> Result<(), StoreError> {
        self.database.alone(|database| {
            let verified = database.check_integrity();
            verified.map(drop).map_err(database_fault)
        })
    }

    /// Returns the row of a partition.
    pub(super) fn partition(&self, name: &Partition) -> Result<Option<PartitionRow>, StoreError> {
        self.read(|transaction| partition_row(transaction, name))
    }

    /// Looks a block up, with its bytes when they are in the database.
    pub(super) fn look_up(&self, name: &Partition, cid: &Cid) -> Result<Option<Found>, StoreError> {
        self.read(|transaction| match partition_row(transaction, name)? {
            Some(row) => find(transaction, row.number, cid),
            None => Ok(None),
        })
    }

    fn find(&self, partition: PartitionNumber, cid: &Cid) -> Result<Option<Found>, StoreError> {
        self.read(|transaction| find(transaction, partition, cid))
    }

    /// Returns the bytes of a block that was found; `None` when its copy is missing. Blocking for files.
    pub(super) fn load(&self, cid: &Cid, found: Found) -> Result<Option<Bytes>, StoreError> {
        match found.row.place {
            Place::Inline(_) => Ok(found.inline),
            Place::File(sequence) => self.files.read(&BlockFile {
                cid: cid.clone(),
                partition: found.partition,
                sequence,
            }),
        }
    }

    /// Reads and verifies a block that was found.
    pub(super) async fn verified(
        self: &Arc<Self>,
        cid: &Cid,
        found: Found,
    ) -> Result<Option<Block>, StoreError> {
        if let Place::Inline(_) = found.row.place {
            let bytes = found.inline.ok_or_else(|| report_damage(cid))?;
            return verify(cid, bytes).map(Some);
        }
        let (engine, cid) = (self.clone(), cid.clone());
        blocking(move || engine.read_file(&cid, found)).await
    }

    /// Reads and verifies a block file. A file that is missing may have been deleted, or replaced by a good copy,
    /// since its row was read: only if the row still says so the block is damaged.
    fn read_file(&self, cid: &Cid, mut found: Found) -> Result<Option<Block>, StoreError> {
        loop {
            let (partition, place) = (found.partition, found.row.place);
            if let Some(bytes) = self.load(cid, found)? {
                return verify(cid, bytes).map(Some);
            }
            match self.find(partition, cid)? {
                None => return Ok(None),
                Some(again) if again.row.place == place => return Err(report_damage(cid)),
                Some(again) => found = again,
            }
        }
    }
}

/// Files that a put has written.
#[derive(Default)]
struct Written(Vec<BlockFile>);

fn partition_row(
    transaction: &ReadTransaction,
    name: &Partition,
) -> Result<Option<PartitionRow>, StoreError> {
    let meta = transaction.open_table(META).map_err(database_fault)?;
    let row = meta
        .get(partition_key(name.as_str()).as_slice())
        .map_err(database_fault)?;
    row.map(|row| PartitionRow::decode(row.value())).transpose()
}

fn find(
    transaction: &ReadTransaction,
    partition: PartitionNumber,
    cid: &Cid,
) -> Result<Option<Found>, StoreError> {
    let index = transaction.open_table(INDEX).map_err(database_fault)?;
    let key = index_key(partition, &cid.to_bytes());
    let Some(row) = index.get(key.as_slice()).map_err(database_fault)? else {
        return Ok(None);
    };
    let row = IndexRow::decode(row.value())?;
    let inline = match row.place {
        Place::Inline(location) => {
            let inline = transaction.open_table(INLINE).map_err(database_fault)?;
            let bytes = inline.get(location).map_err(database_fault)?;
            bytes.map(|bytes| Bytes::copy_from_slice(bytes.value()))
        }
        Place::File(_) => None,
    };
    Ok(Some(Found {
        partition,
        row,
        inline,
    }))
}

fn verify(cid: &Cid, bytes: Bytes) -> Result<Block, StoreError> {
    Block::verified(cid.clone(), bytes).map_err(|_| report_damage(cid))
}

fn report_damage(cid: &Cid) -> StoreError {
    tracing::error!(%cid, "a stored block is damaged");
    StoreError::Damaged(cid.clone())
}

/// Returns a time as whole seconds since 1970; earlier is 0.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since: Duration| since.as_secs())
}

/// Runs blocking work.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    spawn_blocking(work)
        .await
        .map_err(|error| lost_task(&error))?
}

/// Runs work to its end even if the caller is dropped: half a put would leave files behind.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(work)
        .await
        .map_err(|error| lost_task(&error))?
}

/// A task of ours ends early only when it panics or the runtime goes down.
fn lost_task(error: &JoinError) -> StoreError {
    tracing::error!(%error, "a task of the store was lost");
    StoreError::Closed
}
