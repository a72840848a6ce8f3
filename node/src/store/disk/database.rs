//! The redb database and its log: short transactions, and reopening after a failure.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use redb::{
    Builder, Database, Durability, ReadTransaction, ReadableDatabase, StorageBackend,
    WriteTransaction,
};

use super::{
    fault::{database_fault, io_fault},
    layout::{META, damaged, seal_key},
    log::{Changes, Log, Seal, apply},
    medium::Disk,
    overlay::Overlay,
};
use crate::store::StoreError;

/// An attempt to open the file for writing that took longer than this has verified a large file, ...
const LONG_ATTEMPT: Duration = Duration::from_millis(100);
/// ... and when it failed, it is repeated only after this many times its duration.
const ATTEMPT_PAUSE: u32 = 10;

/// Keeps a database open.
///
/// redb refuses all work after the first failed file operation, also after a disk that was full for a moment.
/// This cell then opens the file again, at its last commit. When that fails too, because the file cannot be written
/// (opening repairs it), it is opened with an [`Overlay`] in memory, so that reads go on; each write then tries to
/// open the file itself first. Opening applies the log. Only a failed flush is final: the kernel may have
/// dropped pages that later commits would build on (Spec: 40 §11.2 rule 6), so writes stop for good.
pub(super) struct DatabaseCell {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    log_path: PathBuf,
    cache_bytes: usize,
    flush_failed: Arc<AtomicBool>,
    state: RwLock<State>,
}

struct State {
    /// How many times the file has been opened: tells which opening a failure belongs to.
    openings: u64,
    database: Opening,
    /// The last attempt to open it for writing while it could only be read.
    attempt: Option<Attempt>,
}

/// An attempt to open the file for writing.
struct Attempt {
    ended: Instant,
    took: Duration,
    error: StoreError,
}

enum Opening {
    Open(Live),
    /// Open on top of an overlay: good for reads only.
    ReadOnly(Live),
    /// The last attempt to open it failed.
    Failed,
    Closed,
}

/// An open database and its log.
struct Live {
    database: Database,
    log: Mutex<Log>,
    /// redb had to verify all pages: until the next settling commit it would have to again.
    was_verified: AtomicBool,
}

/// How a write transaction is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// By the log, with one flush, as long as there is room in it.
    Log,
    /// In the database itself, with everything before: two flushes and a snapshot of redb's allocator.
    Settle,
}

impl DatabaseCell {
    /// Opens the database and its log, which are created if the files are absent.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        log_path: PathBuf,
        cache_bytes: usize,
    ) -> Result<Self, StoreError> {
        let cell = Self {
            disk,
            path,
            log_path,
            cache_bytes,
            flush_failed: Arc::default(),
            state: RwLock::new(State {
                openings: 0,
                database: Opening::Failed,
                attempt: None,
            }),
        };
        cell.reopen(0)?;
        Ok(cell)
    }

    fn open_files(&self, for_what: Use) -> Result<Live, StoreError> {
        let file = self.disk.database(&self.path);
        let file = file.map_err(|error| io_fault("open", &self.path, error))?;
        match for_what {
            Use::Write => self.open_on(self.watched(file)),
            Use::Read => self.open_on(Overlay::new(file)),
        }
    }

    /// Watches a file for failed flushes.
    fn watched(&self, file: Box<dyn StorageBackend>) -> Backend {
        Backend {
            file,
            flush_failed: self.flush_failed.clone(),
        }
    }

    fn open_on(&self, backend: impl StorageBackend) -> Result<Live, StoreError> {
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes);
        let was_verified = Arc::<AtomicBool>::default();
        let (told, verified) = (AtomicU8::new(0), was_verified.clone());
        builder.set_repair_callback(move |session| {
            verified.store(true, Ordering::Relaxed);
            // A large database takes seconds: whoever waits should see why.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a fraction of one"
            )]
            let tenths = (session.progress().clamp(0.0, 1.0) * 10.0) as u8;
            if told.swap(tenths, Ordering::Relaxed) != tenths {
                tracing::info!(percent = tenths * 10, "verifying the database");
            }
        });
        let database = builder
            .create_with_backend(backend)
            .map_err(database_fault)?;
        let log = self.apply_log(&database)?;
        Ok(Live {
            database,
            log: Mutex::new(log),
            was_verified: AtomicBool::new(was_verified.load(Ordering::Relaxed)),
        })
    }

    /// Brings the database to the last commit in its log. Nothing is flushed: the log stays what it is.
    fn apply_log(&self, database: &Database) -> Result<Log, StoreError> {
        let file = self.disk.database(&self.log_path);
        let file = file.map_err(|error| io_fault("open", &self.log_path, error))?;
        let seal = read_seal(database)?;
        let transaction = database.begin_write().map_err(database_fault)?;
        let log = Log::open(Box::new(self.watched(file)), seal, |record| {
            apply(&transaction, record)
        })?;
        if log.is_empty() {
            transaction.abort().map_err(database_fault)?;
        } else {
            commit_unflushed(transaction)?;
        }
        Ok(log)
    }

    /// Runs `work` on a snapshot of the committed state.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with(Use::Read, |live| {
            work(&live.database.begin_read().map_err(database_fault)?)
        })
    }

    /// Returns a snapshot of the committed state. Pages that it needs are kept as long as it lives, so the file
    /// grows with what is written meanwhile.
    pub(super) fn snapshot(&self) -> Result<ReadTransaction, StoreError> {
        self.with(Use::Read, |live| {
            live.database.begin_read().map_err(database_fault)
        })
    }

    /// Runs `work` in a write transaction and commits it; it notes every row it changes. Any error leaves the
    /// committed state as it was, unless the commit itself failed, which leaves it undecided.
    pub(super) fn write<T>(
        &self,
        flush: Flush,
        work: impl FnOnce(&WriteTransaction, &mut Changes) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.check_writable()?;
        self.with(Use::Write, |live| {
            let mut transaction = live.database.begin_write().map_err(database_fault)?;
            let mut changes = Changes::default();
            let value = work(&transaction, &mut changes)?;
            let mut log = live.log.lock();
            if flush == Flush::Log && log.has_room(&changes) {
                // In this order: what readers see is durable.
                log.append(&changes)?;
                commit_unflushed(transaction)?;
                return Ok(value);
            }
            let seal = Seal::random();
            write_seal(&transaction, seal)?;
            transaction.set_quick_repair(true);
            transaction.commit().map_err(database_fault)?;
            log.restart(seal);
            live.was_verified.store(false, Ordering::Relaxed);
            Ok(value)
        })
    }

    /// Returns true when the database holds everything itself and opens quickly.
    pub(super) fn is_settled(&self) -> bool {
        match &self.state.read().database {
            Opening::Open(live) => {
                live.log.lock().is_empty() && !live.was_verified.load(Ordering::Relaxed)
            }
            _ => false,
        }
    }

    /// Refuses everything after a flush has failed.
    pub(super) fn check_writable(&self) -> Result<(), StoreError> {
        if self.flush_failed.load(Ordering::Acquire) {
            return Err(StoreError::Halted);
        }
        Ok(())
    }

    fn with<T>(
        &self,
        for_what: Use,
        work: impl FnOnce(&Live) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.state.read();
        if state.must_open(for_what) {
            let openings = state.openings;
            drop(state);
            self.open_again(openings, for_what)?;
            state = self.state.read();
        }
        let openings = state.openings;
        let result = match (&state.database, for_what) {
            (Opening::Open(live), _) | (Opening::ReadOnly(live), Use::Read) => work(live),
            (Opening::ReadOnly(_) | Opening::Failed, _) => {
                Err(database_fault(redb::Error::PreviousIo))
            }
            (Opening::Closed, _) => Err(StoreError::Closed),
        };
        drop(state);
        if matches!(
            result,
            Err(StoreError::Database(_) | StoreError::NoSpace { .. } | StoreError::Io { .. })
        ) {
            // The failure of the work is what the caller wants to know.
            let _ = self.open_again(openings, Use::Read);
        }
        result
    }

    /// Opens the file again after a failure of the given opening.
    fn open_again(&self, failed: u64, for_what: Use) -> Result<(), StoreError> {
        if for_what == Use::Write {
            let state = self.state.read();
            if let Some(attempt) = &state.attempt
                && matches!(state.database, Opening::ReadOnly(_))
                && attempt.took > LONG_ATTEMPT
                && attempt.ended.elapsed() < attempt.took * ATTEMPT_PAUSE
            {
                return Err(attempt.error.clone());
            }
        }
        let begun = Instant::now();
        let Err(error) = self.reopen(failed) else {
            return Ok(());
        };
        let mut state = self.state.write();
        if matches!(state.database, Opening::Failed) {
            match self.open_files(Use::Read) {
                Ok(database) => {
                    tracing::error!(%error, "the database can only be read until its disk takes writes again");
                    state.openings += 1;
                    state.database = Opening::ReadOnly(database);
                }
                Err(error) => tracing::error!(%error, "the database cannot even be read"),
            }
        }
        state.attempt = Some(Attempt {
            ended: Instant::now(),
            took: begun.elapsed(),
            error: error.clone(),
        });
        match (&state.database, for_what) {
            (Opening::ReadOnly(_), Use::Read) => Ok(()),
            _ => Err(error),
        }
    }

    fn reopen(&self, failed: u64) -> Result<(), StoreError> {
        let mut state = self.state.write();
        if matches!(state.database, Opening::Closed) || state.openings != failed {
            return Ok(());
        }
        if failed > 0 {
            tracing::warn!(path = %self.path.display(), "reopening the database after a failure");
        }
        state.database = Opening::Failed;
        // The last record of the log may be in memory alone: nothing that was built on it may reach the disk.
        self.check_writable()?;
        let database = self.open_files(Use::Write)?;
        state.openings += 1;
        state.database = Opening::Open(database);
        state.attempt = None;
        Ok(())
    }

    /// Runs `work` while nobody else uses the database; everything else waits. It is settled afterwards, and no
    /// commit is only in the log.
    pub(super) fn alone<T>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // Also makes sure that it is open for writing.
        self.write(Flush::Settle, |_, _| Ok(()))?;
        let mut state = self.state.write();
        let openings = state.openings;
        let result = match &mut state.database {
            Opening::Open(live) => {
                live.was_verified.store(true, Ordering::Relaxed);
                work(&mut live.database)
            }
            Opening::ReadOnly(_) | Opening::Failed => Err(database_fault(redb::Error::PreviousIo)),
            Opening::Closed => Err(StoreError::Closed),
        };
        drop(state);
        match result {
            Ok(value) => {
                self.write(Flush::Settle, |_, _| Ok(()))?;
                Ok(value)
            }
            Err(error @ StoreError::Busy) => Err(error),
            Err(error) => {
                let _ = self.open_again(openings, Use::Read);
                Err(error)
            }
        }
    }

    /// Returns the length of the file in bytes.
    pub(super) fn file_bytes(&self) -> Result<u64, StoreError> {
        let size = self.disk.size(&self.path);
        size.map_err(|error| io_fault("measure", &self.path, error))
    }

    /// Closes the database once running transactions are done.
    pub(super) fn close(&self) {
        self.state.write().database = Opening::Closed;
    }
}

/// Makes a transaction visible whose changes the log keeps.
fn commit_unflushed(mut transaction: WriteTransaction) -> Result<(), StoreError> {
    transaction
        .set_durability(Durability::None)
        .map_err(|error| StoreError::Database(Arc::new(error)))?;
    transaction.commit().map_err(database_fault)
}

/// Returns the seal of the log; a database without one has settled everything.
fn read_seal(database: &Database) -> Result<Seal, StoreError> {
    let transaction = database.begin_read().map_err(database_fault)?;
    let meta = match transaction.open_table(META) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Seal::default()),
        meta => meta.map_err(database_fault)?,
    };
    let row = meta.get(seal_key().as_slice()).map_err(database_fault)?;
    let Some(row) = row else {
        return Ok(Seal::default());
    };
    let seal = row.value().try_into().map_err(|_| damaged("seal"))?;
    Ok(Seal(seal))
}

fn write_seal(transaction: &WriteTransaction, seal: Seal) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META).map_err(database_fault)?;
    meta.insert(seal_key().as_slice(), seal.0.as_slice())
        .map_err(database_fault)?;
    Ok(())
}

impl State {
    fn must_open(&self, for_what: Use) -> bool {
        match self.database {
            Opening::Failed => true,
            Opening::ReadOnly(_) => for_what == Use::Write,
            Opening::Open(_) | Opening::Closed => false,
        }
    }
}

/// What a caller wants of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Write,
}

impl fmt::Debug for DatabaseCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseCell")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Watches a file for failed flushes.
#[derive(Debug)]
struct Backend {
    file: Box<dyn StorageBackend>,
    flush_failed: Arc<AtomicBool>,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().inspect_err(|error| {
            tracing::error!(%error, "flushing the database failed: no more writes until restart");
            self.flush_failed.store(true, Ordering::Release);
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
