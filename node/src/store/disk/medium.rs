//! The seam between the engine and the operating system: every byte that reaches the disk goes through it.
//!
//! Tests put a model behind it that tells written from flushed bytes, fails operations, and stops after the
//! n-th flush (Spec: 40 §12, M3).

use std::{
    ffi::OsString,
    fmt,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
};

use redb::StorageBackend;

/// Space of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still write.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Holds a data folder as long as it lives.
pub type LockGuard = Box<dyn Send + Sync>;

/// How an attempt to lock ended.
pub enum Locked {
    /// The lock is ours until the guard is dropped.
    Ours(LockGuard),
    /// Another process has it, with this id if it could be read.
    Theirs(Option<u32>),
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(_) => f.write_str("Ours"),
            Self::Theirs(pid) => f.debug_tuple("Theirs").field(pid).finish(),
        }
    }
}

/// File operations, blocking.
///
/// Names of files and folders (creation, removal, renaming) are durable only after [`Disk::sync_folder`] of the
/// folder that holds them. Short writes and interruptions are retried inside.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Creates a folder, readable by its owner only; an existing one is no error.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Flushes the names in a folder.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Creates a file that must not exist, readable by its owner only, and flushes its content.
    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Reads a file, but not more than `max_bytes` and one byte more, which tells that it is too long.
    fn read(&self, path: &Path, max_bytes: usize) -> io::Result<Vec<u8>>;
    /// Returns the length of a file in bytes.
    fn size(&self, path: &Path) -> io::Result<u64>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder if it is empty.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Renames a file over another.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Lists the names in a folder, in any order.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;
    /// Asks for the space of the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Opens the file of the database or of its log, made empty if it does not exist.
    fn database(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>>;
    /// Takes the lock of a data folder without waiting and leaves our process id in the file.
    fn lock(&self, path: &Path) -> io::Result<Locked>;
}

/// Attempts to take a lock that this very process holds or has just given up.
const OWN_LOCK_TRIES: u32 = 20;
/// Time between two of them.
const OWN_LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    fn read(&self, path: &Path, max_bytes: usize) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let limit = max_bytes.saturating_add(1);
        let len = usize::try_from(file.metadata()?.len()).unwrap_or(limit);
        let mut bytes = Vec::with_capacity(len.min(limit));
        file.take(u64::try_from(limit).unwrap_or(u64::MAX))
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(std::fs::metadata(path)?.len())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(path)?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }

    fn database(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let file = match options.open(path) {
            // A file system that turned read only: good for reads.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(path)?,
            file => file?,
        };
        Ok(Box::new(DatabaseFile(file)))
    }

    fn lock(&self, path: &Path) -> io::Result<Locked> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(path)?;
        let mut patience = OWN_LOCK_TRIES;
        loop {
            match file.try_lock() {
                Ok(()) => {
                    // Only for the message that another process shows: a full disk must not keep a node from
                    // starting.
                    let noted = file
                        .set_len(0)
                        .and_then(|()| file.seek(SeekFrom::Start(0)))
                        .and_then(|_| {
                            file.write_all(format!("{}\n", std::process::id()).as_bytes())
                        });
                    if let Err(error) = noted {
                        tracing::warn!(%error, "the lock does not show the process id");
                    }
                    return Ok(Locked::Ours(Box::new(file)));
                }
                Err(std::fs::TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    // Only for the message: whoever holds the lock may be about to write it.
                    let _ = file.seek(SeekFrom::Start(0));
                    let _ = (&file).take(32).read_to_string(&mut text);
                    let pid = text.trim().parse().ok();
                    patience -= 1;
                    if pid != Some(std::process::id()) || patience == 0 {
                        return Ok(Locked::Theirs(pid));
                    }
                    // Given up by this process a moment ago, and still held by a program that is being started: it
                    // has a copy of the file until it runs.
                    std::thread::sleep(OWN_LOCK_PAUSE);
                }
                Err(std::fs::TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

/// The file of the database or of its log. The lock of the data folder makes locks of its own needless.
#[derive(Debug)]
struct DatabaseFile(File);

impl StorageBackend for DatabaseFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
