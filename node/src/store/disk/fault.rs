//! From errors of the operating system and of redb to errors of the store.

use std::{io, path::Path, sync::Arc};

use crate::store::StoreError;

/// Returns the error of a file operation.
pub(super) fn io_fault(operation: &'static str, path: &Path, error: io::Error) -> StoreError {
    if is_full(&error) {
        return no_space();
    }
    StoreError::Io {
        operation,
        path: path.to_owned(),
        source: Arc::new(error),
    }
}

/// Returns the error of the database.
pub(super) fn database_fault(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) if is_full(&error) => no_space(),
        error => StoreError::Database(Arc::new(error)),
    }
}

/// Returns true for every way a file system says that it takes no more bytes.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

const fn no_space() -> StoreError {
    StoreError::NoSpace {
        free_bytes: 0,
        floor_bytes: 0,
    }
}
