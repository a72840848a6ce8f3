//! What can go wrong with a backup, sorted by what the operator should do about it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::store::StoreError;

/// A failure of a backup or a restore.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The operating system failed an operation.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried: a verb, as in "write".
        operation: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The store of the node failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The store keeps everything in memory.
    #[error("this node keeps everything in memory")]
    Unsupported,
    /// Nodes of the same data set could not be kept from collecting garbage until the end.
    #[error("the data set could not be reached for too long while it was backed up")]
    HoldLost,
    /// The folder holds something that is no backup.
    #[error("{} is not a backup", .0.display())]
    NotABackup(PathBuf),
    /// The backup was made by a newer version of this program.
    #[error("the backup has format {found}, this program knows formats up to {supported}")]
    NewerFormat {
        /// Format of the backup.
        found: u32,
        /// Newest format this program reads.
        supported: u32,
    },
    /// The folder holds no complete snapshot, or none of this name.
    #[error("{} holds no such snapshot", .0.display())]
    NoSnapshot(PathBuf),
    /// A file of the backup is not what was written.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The folder to restore into holds something.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// The store to restore into holds something.
    #[error("the store that is configured holds data already")]
    StoreNotEmpty,
    /// Another process works on the backup.
    #[error("another process works on the backup {}", .0.display())]
    InUse(PathBuf),
    /// The backup would be inside of what it backs up, or the other way round.
    #[error("{} is inside of the node's data folder", .0.display())]
    Inside(PathBuf),
    /// Somebody stopped it.
    #[error("stopped; the next backup goes on where this one was")]
    Stopped,
}

impl BackupError {
    /// Returns a function that turns the error of a file operation into one of these.
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source: Arc::new(source),
        }
    }

    pub(super) fn damaged(path: &Path, reason: &'static str) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            reason,
        }
    }

    /// Returns true when the destination is full.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge)
            }
            Self::Store(error) => matches!(error, StoreError::NoSpace { .. }),
            _ => false,
        }
    }
}
