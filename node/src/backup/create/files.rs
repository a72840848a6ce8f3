//! Copying keys and settings: what of the data folder nobody else takes care of.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::super::{
    error::BackupError,
    folder::{make, sync, write_file},
    manifest::StoredFile,
    restore::RESTORING_FILE,
    rows::checksum,
};

/// Largest file of the data folder that belongs to a backup: keys and settings are far smaller.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Most such files.
const MAX_FILES: usize = 10_000;

/// What of the data folder is not copied as it is: the store has its own way, the rest belongs to a running process.
const LEFT_OUT: [&str; 5] = ["store", "lock", "cache", "admin.sock", RESTORING_FILE];

/// Copies keys and settings: every file of the data folder that nobody else takes care of.
pub(super) fn copy_files(data: &Path, to: &Path) -> Result<Vec<StoredFile>, BackupError> {
    make(to)?;
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let from = data.join(&folder);
        let mut names: Vec<_> = fs::read_dir(&from)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(BackupError::io("list", &from))?;
        names.sort_by_key(fs::DirEntry::file_name);
        for entry in names {
            let name = entry.file_name();
            let Some(text) = name.to_str() else { continue };
            let is_top = folder.as_os_str().is_empty();
            if (is_top && LEFT_OUT.contains(&text)) || is_draft(text) {
                continue;
            }
            let path = folder.join(&name);
            let kind = entry.file_type().map_err(BackupError::io("read", &path))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && files.len() < MAX_FILES {
                files.extend(copy_file(data, &path, to)?);
            }
        }
    }
    for folder in files
        .iter()
        .filter_map(|file| Path::new(&file.path).parent())
    {
        sync(&to.join(folder))?;
    }
    sync(to)?;
    Ok(files)
}

fn is_draft(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".new") || name.ends_with(".log")
}

fn copy_file(data: &Path, path: &Path, to: &Path) -> Result<Option<StoredFile>, BackupError> {
    let from = data.join(path);
    let metadata = fs::metadata(&from).map_err(BackupError::io("read", &from))?;
    if metadata.len() > MAX_FILE_BYTES {
        tracing::warn!(path = %from.display(), "too large to be a setting: not in the backup");
        return Ok(None);
    }
    let bytes = zeroize::Zeroizing::new(fs::read(&from).map_err(BackupError::io("read", &from))?);
    let copy = to.join(path);
    if let Some(parent) = copy.parent() {
        make(parent)?;
    }
    write_file(&copy, &bytes)?;
    let (bytes, sha256) = checksum(&copy)?;
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    Ok(Some(StoredFile {
        path: parts.join("/"),
        bytes,
        sha256,
    }))
}
