//! The redb database: short transactions, and reopening after a failure.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase, StorageBackend, WriteTransaction,
};

use super::{
    fault::{database_fault, io_fault},
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
/// open the file itself first. Only a failed flush is final: the kernel may have
/// dropped pages that later commits would build on (Spec: 40 §11.2 rule 6), so writes stop for good.
pub(super) struct DatabaseCell {
    disk: Arc<dyn Disk>,
    path: PathBuf,
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
    Open(Database),
    /// Open on top of an overlay: good for reads only.
    ReadOnly(Database),
    /// The last attempt to open it failed.
    Failed,
    Closed,
}

/// How a write transaction is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// One flush; after a crash the next start verifies the pages of the database.
    Once,
    /// Two flushes and a snapshot of redb's allocator, so that the next start need not read them.
    Settle,
}

impl DatabaseCell {
    /// Opens the database, which is created if the file is absent.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        cache_bytes: usize,
    ) -> Result<Self, StoreError> {
        let cell = Self {
            disk,
            path,
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

    fn open_file(&self, for_what: Use) -> Result<Database, StoreError> {
        let file = self.disk.database(&self.path);
        let file = file.map_err(|error| io_fault("open", &self.path, error))?;
        match for_what {
            Use::Write => self.open_on(Backend {
                file,
                flush_failed: self.flush_failed.clone(),
            }),
            Use::Read => self.open_on(Overlay::new(file)),
        }
    }

    fn open_on(&self, backend: impl StorageBackend) -> Result<Database, StoreError> {
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes);
        let told = AtomicU8::new(0);
        builder.set_repair_callback(move |session| {
            // A large database takes seconds: whoever waits should see why.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a fraction of one"
            )]
            let tenths = (session.progress().clamp(0.0, 1.0) * 10.0) as u8;
            if told.swap(tenths, Ordering::Relaxed) != tenths {
                tracing::info!(
                    percent = tenths * 10,
                    "verifying the database: the node did not stop cleanly"
                );
            }
        });
        builder.create_with_backend(backend).map_err(database_fault)
    }

    /// Runs `work` on a snapshot of the committed state.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with(Use::Read, |database| {
            work(&database.begin_read().map_err(database_fault)?)
        })
    }

    /// Returns a snapshot of the committed state. Pages that it needs are kept as long as it lives, so the file
    /// grows with what is written meanwhile.
    pub(super) fn snapshot(&self) -> Result<ReadTransaction, StoreError> {
        self.with(Use::Read, |database| {
            database.begin_read().map_err(database_fault)
        })
    }

    /// Runs `work` in a write transaction and commits it; any error leaves the committed state as it was,
    /// unless the commit itself failed, which leaves it undecided.
    pub(super) fn write<T>(
        &self,
        flush: Flush,
        work: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.check_writable()?;
        self.with(Use::Write, |database| {
            let mut transaction = database.begin_write().map_err(database_fault)?;
            transaction.set_quick_repair(flush == Flush::Settle);
            let value = work(&transaction)?;
            transaction.commit().map_err(database_fault)?;
            Ok(value)
        })
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
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
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
            (Opening::Open(database), _) | (Opening::ReadOnly(database), Use::Read) => {
                work(database)
            }
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
            match self.open_file(Use::Read) {
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
        let database = self.open_file(Use::Write)?;
        state.openings += 1;
        state.database = Opening::Open(database);
        state.attempt = None;
        Ok(())
    }

    /// Closes the database once running transactions are done.
    pub(super) fn close(&self) {
        self.state.write().database = Opening::Closed;
    }
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

/// Watches the file of the database for failed flushes.
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
