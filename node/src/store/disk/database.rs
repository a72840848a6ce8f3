//! The redb database: short transactions, and reopening after a failure.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::RwLock;
use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase, StorageBackend, WriteTransaction,
};

use super::{
    fault::{database_fault, io_fault},
    medium::Disk,
};
use crate::store::StoreError;

/// Keeps a database open.
///
/// redb refuses all work after the first failed file operation, also after a disk that was full for a moment.
/// This cell then opens the file again, at its last commit. Only a failed flush is final: the kernel may have
/// dropped pages that later commits would build on (Spec: 40 §11.2 rule 6), so writes stop for good.
pub(super) struct DatabaseCell {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    cache_bytes: usize,
    flush_failed: Arc<AtomicBool>,
    state: RwLock<State>,
}

enum State {
    Open(Database),
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
            state: RwLock::new(State::Failed),
        };
        *cell.state.write() = State::Open(cell.open_file()?);
        Ok(cell)
    }

    fn open_file(&self) -> Result<Database, StoreError> {
        let file = self.disk.database(&self.path);
        let file = file.map_err(|error| io_fault("open", &self.path, error))?;
        let backend = Backend {
            file,
            flush_failed: self.flush_failed.clone(),
        };
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes);
        builder.create_with_backend(backend).map_err(database_fault)
    }

    /// Runs `work` on a snapshot of the committed state.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let state = self.state.read();
        let result = state.database()?.begin_read().map_err(database_fault);
        let result = result.and_then(|transaction| work(&transaction));
        drop(state);
        if matches!(result, Err(StoreError::Database(_))) {
            self.reopen();
        }
        result
    }

    /// Runs `work` in a write transaction and commits it; any error leaves the committed state as it was,
    /// unless the commit itself failed, which leaves it undecided.
    pub(super) fn write<T>(
        &self,
        flush: Flush,
        work: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.flush_failed.load(Ordering::Acquire) {
            return Err(StoreError::Halted);
        }
        let state = self.state.read();
        let attempt = || {
            let mut transaction = state.database()?.begin_write().map_err(database_fault)?;
            transaction.set_quick_repair(flush == Flush::Settle);
            let value = work(&transaction)?;
            transaction.commit().map_err(database_fault)?;
            Ok(value)
        };
        let result = attempt();
        drop(state);
        if matches!(
            result,
            Err(StoreError::Database(_) | StoreError::NoSpace { .. })
        ) {
            self.reopen();
        }
        result
    }

    /// Opens the file again after a failure.
    fn reopen(&self) {
        let mut state = self.state.write();
        if matches!(*state, State::Closed) {
            return;
        }
        // Another thread may have been here since ours failed.
        if let State::Open(database) = &*state
            && database
                .begin_read()
                .is_ok_and(|transaction| transaction.list_tables().is_ok())
        {
            return;
        }
        tracing::warn!(path = %self.path.display(), "reopening the database after a failure");
        *state = State::Failed;
        match self.open_file() {
            Ok(database) => *state = State::Open(database),
            Err(error) => tracing::error!(%error, "the database cannot be opened again"),
        }
    }

    /// Closes the database once running transactions are done.
    pub(super) fn close(&self) {
        *self.state.write() = State::Closed;
    }
}

impl fmt::Debug for DatabaseCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseCell")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl State {
    fn database(&self) -> Result<&Database, StoreError> {
        match self {
            Self::Open(database) => Ok(database),
            Self::Failed => Err(database_fault(redb::Error::PreviousIo)),
            Self::Closed => Err(StoreError::Closed),
        }
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
