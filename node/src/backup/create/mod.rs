//! Making a snapshot of a running node (Spec: 40 REL-12).
//!
//! Order: hold all blocks where they are; take one snapshot of the metadata; list the blocks; copy what the backup
//! does not have, each block verified as it is read; keys and settings; the manifest last. The hold is let go of space
//! by space, so the collector waits no longer than needed. Whatever the store is, it is read through its traits.
//!
//! * [`metadata`][]: the rows and the list of blocks;
//! * [`copy`][]: the blocks;
//! * [`files`][]: keys and settings;
//! * [`name`][]: what a snapshot is called.

mod copy;
mod files;
mod metadata;
mod name;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::{
    error::BackupError,
    folder::{DRAFT_PREFIX, FORMAT, Folder, make, sync, write_file},
    manifest::{Content, MANIFEST_FILE, Manifest},
    pack::Known,
};
use crate::store::{Archive, Store, StoreError};

use copy::copy;
use files::copy_files;
use metadata::{write_list, write_metadata};
use name::free_name;

/// What to back up, and where to.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The node's data folder: its keys are there.
    pub data: PathBuf,
    /// The folder of the backup; made when missing.
    pub to: PathBuf,
    /// Complete snapshots to keep; older ones are removed after this one is complete. `None` keeps all.
    pub keep: Option<usize>,
    /// The time, seconds since 1970.
    pub now_seconds: i64,
}

/// How far a backup is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupProgress {
    /// Blocks looked at.
    pub blocks: u64,
    /// Blocks of the snapshot.
    pub all_blocks: u64,
    /// Bytes of blocks looked at.
    pub bytes: u64,
    /// Bytes of all blocks.
    pub all_bytes: u64,
    /// Bytes that were copied.
    pub copied_bytes: u64,
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupOutcome {
    /// Name of the new snapshot.
    pub name: String,
    /// Its time, seconds since 1970.
    pub created_seconds: i64,
    /// Rows of metadata.
    pub rows: u64,
    /// Blocks of the snapshot.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that were not there yet.
    pub copied_blocks: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Keys and settings.
    pub files: u64,
    /// Blocks that cannot be read here, and of which the backup has no copy: user and CID.
    pub damaged: Vec<(String, String)>,
    /// Snapshots that were removed, oldest first.
    pub removed: Vec<String>,
}

/// Makes a snapshot. `progress` is told now and then; when it returns false, the backup stops with
/// [`BackupError::Stopped`], and the next one goes on with what was copied.
///
/// # Errors
/// [`BackupError`]; older snapshots are as they were.
pub async fn backup(
    store: &dyn Store,
    options: &BackupOptions,
    progress: &mut (dyn FnMut(&BackupProgress) -> bool + Send),
) -> Result<BackupOutcome, BackupError> {
    let archive = store.archive().ok_or(BackupError::Unsupported)?;
    keep_apart(&options.data, &options.to)?;
    let to = options.to.clone();
    let folder = Arc::new(blocking(move || Folder::write(&to)).await?);
    let packs = folder.packs();
    let known = blocking(move || Known::read(&packs)).await?;
    // Everything the snapshot lists stays until it has been copied.
    let hold = archive.hold().await?;
    let draft = Draft::take(store, archive, &folder, options).await?;
    let copied = copy(store, &folder, &draft, known, hold, progress).await?;
    let (kept, folder) = (options.keep, folder);
    let manifest = draft.finish(&folder, options, copied.damaged).await?;
    let removed = match kept {
        None => Vec::new(),
        Some(keep) => {
            let folder = folder.clone();
            blocking(move || super::prune::prune(&folder, keep)).await?
        }
    };
    Ok(BackupOutcome {
        name: manifest.name,
        created_seconds: manifest.created_seconds,
        rows: manifest.metadata.rows,
        blocks: manifest.blocks.rows,
        bytes: manifest.block_bytes,
        copied_blocks: copied.blocks,
        copied_bytes: copied.bytes,
        files: manifest.files.len() as u64,
        damaged: manifest.damaged,
        removed,
    })
}

/// Refuses a backup inside of what it backs up.
fn keep_apart(data: &Path, to: &Path) -> Result<(), BackupError> {
    let data = data.canonicalize().map_err(BackupError::io("find", data))?;
    // What does not exist yet is judged by the folder it will be in.
    let mut at = std::path::absolute(to).map_err(BackupError::io("find", to))?;
    loop {
        match at.canonicalize() {
            Ok(real) if real.starts_with(&data) => return Err(BackupError::Inside(to.to_owned())),
            Ok(_) => return Ok(()),
            Err(_) if at.pop() => {}
            Err(error) => return Err(BackupError::io("find", to)(error)),
        }
    }
}

/// A snapshot that is not complete yet.
struct Draft {
    folder: PathBuf,
    name: String,
    metadata: Content,
    blocks: Content,
    block_bytes: u64,
}

impl Draft {
    /// Writes the metadata of this moment, and then the list of blocks.
    async fn take(
        store: &dyn Store,
        archive: &dyn Archive,
        folder: &Arc<Folder>,
        options: &BackupOptions,
    ) -> Result<Self, BackupError> {
        let name = free_name(folder, options.now_seconds)?;
        let path = folder.snapshots().join(format!("{DRAFT_PREFIX}{name}"));
        let made = path.clone();
        blocking(move || make(&made)).await?;
        let metadata = write_metadata(archive, path.join("metadata")).await?;
        let (blocks, block_bytes) = write_list(store, path.join("blocks")).await?;
        Ok(Self {
            folder: path,
            name,
            metadata,
            blocks,
            block_bytes,
        })
    }

    /// Adds keys, settings and the manifest, and gives the snapshot its name.
    async fn finish(
        self,
        folder: &Arc<Folder>,
        options: &BackupOptions,
        damaged: Vec<(String, String)>,
    ) -> Result<Manifest, BackupError> {
        let (folder, options) = (folder.clone(), options.clone());
        blocking(move || {
            let manifest = Manifest {
                format: FORMAT,
                created_seconds: options.now_seconds,
                program: env!("CARGO_PKG_VERSION").to_owned(),
                files: copy_files(&options.data, &self.folder.join("files"))?,
                name: self.name,
                metadata: self.metadata,
                blocks: self.blocks,
                block_bytes: self.block_bytes,
                damaged,
            };
            write_file(&self.folder.join(MANIFEST_FILE), &manifest.encode())?;
            sync(&self.folder)?;
            let to = folder.snapshot(&manifest.name);
            fs::rename(&self.folder, &to).map_err(BackupError::io("rename", &self.folder))?;
            sync(&folder.snapshots())?;
            Ok(manifest)
        })
        .await
    }
}

/// Runs blocking work.
pub(in crate::backup) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    let done = spawn_blocking(work).await;
    done.map_err(|_| BackupError::Store(StoreError::Closed))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_inside_of_the_data_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        fs::create_dir(&data).unwrap();
        for inside in ["data", "data/backup", "data/a/b", "other/../data/x"] {
            fs::create_dir_all(root.path().join("other")).unwrap();
            let refused = keep_apart(&data, &root.path().join(inside));
            assert!(matches!(refused, Err(BackupError::Inside(_))), "{inside}");
        }
        keep_apart(&data, &root.path().join("backup/deep")).unwrap();
    }
}
