//! The folder of a backup: its marker, its lock, its snapshots, and files that are there completely or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    error::BackupError,
    manifest::{MANIFEST_FILE, Manifest},
};

/// Content of the marker in front of the number of the format.
const MARKER_PREFIX: &str = "kastro backup ";
/// The format this program writes, and the newest it reads.
pub(super) const FORMAT: u32 = 1;
/// Longest marker that is looked at.
const MAX_MARKER_BYTES: usize = 64;
/// Files and folders that are not complete begin with this.
pub(super) const DRAFT_PREFIX: &str = ".new-";

/// A backup.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// Held while somebody writes.
    lock: Option<File>,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            // A program that is being started at this moment has a copy of the file until it runs: closing this one
            // alone would leave the lock to it.
            let _ = lock.unlock();
        }
    }
}

impl Folder {
    /// Opens a backup to add to it, or makes one in an empty folder. What an earlier run left incomplete is
    /// removed.
    pub(super) fn write(path: &Path) -> Result<Self, BackupError> {
        make(path)?;
        let marker = path.join("backup");
        if !is_marked(path)? {
            let mut entries = fs::read_dir(path).map_err(BackupError::io("list", path))?;
            let is_ours = |name: &std::ffi::OsStr| name == "lock" || name == ".new-backup";
            if entries.any(|entry| entry.is_ok_and(|entry| !is_ours(&entry.file_name()))) {
                return Err(BackupError::NotABackup(path.to_owned()));
            }
        }
        let lock = lock(path)?;
        if !is_marked(path)? {
            write_file(&marker, format!("{MARKER_PREFIX}{FORMAT}\n").as_bytes())?;
        }
        let folder = Self {
            path: path.to_owned(),
            lock: Some(lock),
        };
        make(&folder.packs())?;
        make(&folder.snapshots())?;
        for parent in [folder.packs(), folder.snapshots()] {
            for name in names(&parent)? {
                if name.starts_with(DRAFT_PREFIX) {
                    remove(&parent.join(name))?;
                }
            }
        }
        sync(path)?;
        Ok(folder)
    }

    /// Opens a backup to read it.
    pub(super) fn read(path: &Path) -> Result<Self, BackupError> {
        if !is_marked(path)? {
            return Err(BackupError::NotABackup(path.to_owned()));
        }
        Ok(Self {
            path: path.to_owned(),
            lock: None,
        })
    }

    pub(super) fn packs(&self) -> PathBuf {
        self.path.join("packs")
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    pub(super) fn snapshot(&self, name: &str) -> PathBuf {
        self.snapshots().join(name)
    }

    /// Returns the names of complete snapshots, oldest first.
    pub(super) fn snapshot_names(&self) -> Result<Vec<String>, BackupError> {
        let mut names = names(&self.snapshots())?;
        names.retain(|name| {
            !name.starts_with('.') && self.snapshot(name).join(MANIFEST_FILE).is_file()
        });
        names.sort();
        Ok(names)
    }

    /// Reads the manifest of a snapshot, or of the newest one.
    pub(super) fn manifest(&self, name: Option<&str>) -> Result<Manifest, BackupError> {
        let names = self.snapshot_names()?;
        let name = match name {
            Some(wanted) => names.iter().find(|name| *name == wanted),
            None => names.last(),
        };
        let name = name.ok_or_else(|| BackupError::NoSnapshot(self.path.clone()))?;
        Manifest::read(&self.snapshot(name))
    }
}

/// Returns true when the folder is marked as a backup that this program understands.
fn is_marked(path: &Path) -> Result<bool, BackupError> {
    let marker = path.join("backup");
    let text = match fs::read(&marker) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(BackupError::io("read", &marker)(error)),
    };
    let text = text.get(..text.len().min(MAX_MARKER_BYTES));
    let text = text.and_then(|text| std::str::from_utf8(text).ok());
    let number = text.and_then(|text| text.strip_prefix(MARKER_PREFIX));
    let found = number.and_then(|number| number.trim_end().parse().ok());
    match found {
        None => Err(BackupError::NotABackup(path.to_owned())),
        Some(FORMAT) => Ok(true),
        Some(found) => Err(BackupError::NewerFormat {
            found,
            supported: FORMAT,
        }),
    }
}

fn lock(path: &Path) -> Result<File, BackupError> {
    let path = path.join("lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options
        .open(&path)
        .map_err(BackupError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BackupError::InUse(
            path.parent().unwrap_or(&path).to_owned(),
        )),
        Err(TryLockError::Error(error)) => Err(BackupError::io("lock", &path)(error)),
    }
}

/// Makes a folder, readable by its owner only: keys of the node are in it.
pub(super) fn make(path: &Path) -> Result<(), BackupError> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    made.map_err(BackupError::io("create", path))
}

/// Removes a file or folder.
pub(super) fn remove(path: &Path) -> Result<(), BackupError> {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_folder {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.map_err(BackupError::io("remove", path))
}

/// Flushes the names in a folder.
pub(super) fn sync(path: &Path) -> Result<(), BackupError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(BackupError::io("flush", path))
}

/// Lists the names in a folder that are text.
pub(super) fn names(path: &Path) -> Result<Vec<String>, BackupError> {
    let entries = fs::read_dir(path).map_err(BackupError::io("list", path))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(BackupError::io("list", path))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

/// Creates a file that must not exist, readable by its owner only.
pub(super) fn create(path: &Path) -> Result<File, BackupError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).map_err(BackupError::io("create", path))
}

/// Writes a file that is there completely or not at all, and its name, to stable storage.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let parent = path.parent().unwrap_or(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = parent.join(format!("{DRAFT_PREFIX}{name}"));
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(BackupError::io("remove", &draft)(error));
        }
        _ => {}
    }
    let mut file = create(&draft)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(BackupError::io("write", &draft))?;
    fs::rename(&draft, path).map_err(BackupError::io("rename", &draft))?;
    sync(parent)
}
