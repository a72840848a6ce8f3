//! What can go wrong with a store, sorted by what the caller should do about it.

use std::{io, path::PathBuf, sync::Arc};

use champ::Cid;

/// A failure of a store.
///
/// Cheap to clone, because one failed group commit fails every write that was merged into it. After any
/// error of a write the caller knows only that it was not acknowledged: it may have happened or not.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full, or below the configured floor of free space. Reads, deletions and small
    /// metadata updates go on; the same write succeeds when space is back.
    #[error("no space for blocks: {free_bytes} bytes free, {floor_bytes} are kept free")]
    NoSpace {
        /// Free bytes of the file system when the write was refused.
        free_bytes: u64,
        /// Bytes the operator wants left free.
        floor_bytes: u64,
    },
    /// The stored bytes of a block do not match its CID, or its file is missing. Never served; a
    /// put of the same block heals it.
    #[error("stored block {0} is damaged")]
    Damaged(Cid),
    /// A stored row of the engine itself cannot be understood.
    #[error("stored {row} row is damaged")]
    DamagedRow {
        /// Which kind of row.
        row: &'static str,
    },
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
    /// The embedded database failed.
    #[error("the database failed")]
    Database(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// A flush of the database failed, so what is on the disk is unknown: no write is accepted until the process
    /// is started again. Reads go on.
    #[error("writes are stopped since a flush of the database failed; restart the node")]
    Halted,
    /// The database server cannot be reached, or refused the connection; nothing was changed.
    #[error("the database server cannot be used")]
    Unreachable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The connection to the database server broke during a write: it may have happened or not.
    #[error("the connection to the database server broke during a write")]
    Undecided(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// Others were in the way for too long; nothing was changed, and the same call may succeed later.
    #[error("the database is too busy")]
    Busy,
    /// The database server does not flush what it acknowledges (`fsync` is off).
    #[error("the database server does not keep what it acknowledges: its fsync setting is off")]
    NotDurable,
    /// The data folder belongs to a running process.
    #[error("data folder {} is in use by another kastro{}", path.display(), Pid(*.pid))]
    InUse {
        /// The data folder.
        path: PathBuf,
        /// Its process id, if it could be read.
        pid: Option<u32>,
    },
    /// The data folder was written by a newer version of this program.
    #[error("data folder has format {found}, this program knows formats up to {supported}")]
    NewerFormat {
        /// Format of the folder.
        found: u32,
        /// Newest format this program reads.
        supported: u32,
    },
    /// The data folder holds blocks but its database is gone, or is not a data folder at all.
    #[error("{} is not a usable data folder: {reason}", path.display())]
    BadFolder {
        /// The data folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The object store that keeps the blocks failed, after all attempts.
    #[error("the object store failed to {operation}")]
    Objects {
        /// What was tried: a verb, as in "read a block".
        operation: &'static str,
        /// What it said.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The object store cannot be used with these settings.
    #[error("the object store cannot be used: {reason}")]
    Unusable {
        /// What is wrong and what to do about it.
        reason: String,
    },
    /// Others change the same blocks all the time, or are deleting them; the same call may succeed a little later.
    #[error("the same blocks are being changed by somebody else; try again")]
    Contended,
    /// The caller broke a rule of the interface; a defect of the node, not of its peer.
    #[error("misuse of the store: {0}")]
    Misuse(Misuse),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// Which rule of the interface a caller broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// A key longer than [`super::MAX_KEY_BYTES`].
    #[error("metadata key of {0} bytes is too long")]
    KeyTooLong(usize),
    /// A value longer than [`super::MAX_VALUE_BYTES`].
    #[error("metadata value of {0} bytes is too long")]
    ValueTooLong(usize),
    /// A batch of more than [`super::MAX_BATCH_ROWS`] conditions and writes, or a put of more than
    /// [`super::MAX_PUT_BLOCKS`] blocks.
    #[error("{0} rows are too many for one write")]
    TooManyRows(usize),
    /// Identity CIDs hold their own content and are never stored (Spec: 01 §3.3).
    #[error("a block that is its own CID cannot be stored")]
    IdentityBlock,
    /// Empty blocks do not exist (Spec: 01 §4).
    #[error("an empty block cannot be stored")]
    EmptyBlock,
}

impl From<Misuse> for StoreError {
    fn from(misuse: Misuse) -> Self {
        Self::Misuse(misuse)
    }
}

struct Pid(Option<u32>);

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |pid| write!(f, " (process {pid})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source_of(text: &'static str) -> Arc<dyn std::error::Error + Send + Sync> {
        Arc::new(io::Error::other(text))
    }

    #[test]
    fn every_message_reads_well() {
        let cid = Cid::of_raw(b"x");
        let path = PathBuf::from("/data");
        let source = Arc::new(io::Error::other("broken"));
        let cases = [
            (
                StoreError::NoSpace {
                    free_bytes: 5,
                    floor_bytes: 9,
                },
                "no space for blocks: 5 bytes free, 9 are kept free".to_owned(),
            ),
            (
                StoreError::Damaged(cid.clone()),
                format!("stored block {cid} is damaged"),
            ),
            (
                StoreError::DamagedRow { row: "index" },
                "stored index row is damaged".to_owned(),
            ),
            (
                StoreError::Io {
                    operation: "write",
                    path: path.clone(),
                    source: source.clone(),
                },
                "cannot write /data".to_owned(),
            ),
            (
                StoreError::Database(source),
                "the database failed".to_owned(),
            ),
            (
                StoreError::Unreachable(source_of("x")),
                "the database server cannot be used".to_owned(),
            ),
            (
                StoreError::Undecided(source_of("x")),
                "the connection to the database server broke during a write".to_owned(),
            ),
            (StoreError::Busy, "the database is too busy".to_owned()),
            (
                StoreError::Objects {
                    operation: "read a block",
                    source: source_of("x"),
                },
                "the object store failed to read a block".to_owned(),
            ),
            (
                StoreError::Unusable {
                    reason: "no".to_owned(),
                },
                "the object store cannot be used: no".to_owned(),
            ),
            (
                StoreError::Contended,
                "the same blocks are being changed by somebody else; try again".to_owned(),
            ),
            (
                StoreError::NotDurable,
                "the database server does not keep what it acknowledges: its fsync setting is off"
                    .to_owned(),
            ),
            (
                StoreError::Halted,
                "writes are stopped since a flush of the database failed; restart the node"
                    .to_owned(),
            ),
            (
                StoreError::InUse {
                    path: path.clone(),
                    pid: Some(7),
                },
                "data folder /data is in use by another kastro (process 7)".to_owned(),
            ),
            (
                StoreError::InUse {
                    path: path.clone(),
                    pid: None,
                },
                "data folder /data is in use by another kastro".to_owned(),
            ),
            (
                StoreError::NewerFormat {
                    found: 2,
                    supported: 1,
                },
                "data folder has format 2, this program knows formats up to 1".to_owned(),
            ),
            (
                StoreError::BadFolder { path, reason: "no" },
                "/data is not a usable data folder: no".to_owned(),
            ),
            (
                Misuse::KeyTooLong(3).into(),
                "misuse of the store: metadata key of 3 bytes is too long".to_owned(),
            ),
            (
                Misuse::ValueTooLong(3).into(),
                "misuse of the store: metadata value of 3 bytes is too long".to_owned(),
            ),
            (
                Misuse::TooManyRows(3).into(),
                "misuse of the store: 3 rows are too many for one write".to_owned(),
            ),
            (
                Misuse::IdentityBlock.into(),
                "misuse of the store: a block that is its own CID cannot be stored".to_owned(),
            ),
            (
                Misuse::EmptyBlock.into(),
                "misuse of the store: an empty block cannot be stored".to_owned(),
            ),
            (StoreError::Closed, "the store is closed".to_owned()),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }
}
