//! What happens to one call: planning of puts, files beside the database, reads that verify.
//!
//! * [`put`][]: writing and deleting;
//! * [`read`][]: reading.

mod put;
mod read;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use champ::Block;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::{JoinError, spawn_blocking},
};

use super::{
    DiskOptions,
    database::DatabaseCell,
    fault::{database_fault, io_fault},
    files::BlockFiles,
    group::{Answer, Operation},
    layout::{IndexRow, PartitionNumber},
    medium::{Disk, LockGuard},
    open,
    writer::{Failure, Job, QUEUE_JOBS, Writer},
};
use crate::store::{StoreError, archive::Holds};

use put::FILES_AT_ONCE;

/// Bytes of writes that may wait or be under way, in units of [`BUDGET_UNIT_BYTES`].
const BUDGET_UNITS: u32 = 1024;

/// Every write costs at least one unit, so that the units also bound the number of writes.
const BUDGET_UNIT_BYTES: usize = 32 << 10;

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
