//! Making a snapshot of a running node (Spec: 40 REL-12).
//!
//! Order: hold all blocks where they are; take one snapshot of the metadata; list the blocks; copy what the backup
//! does not have, each block verified as it is read; keys and settings; the manifest last. The hold is let go of space
//! by space, so the collector waits no longer than needed. Whatever the store is, it is read through its traits.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use champ::{Block, Cid};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::{
    error::BackupError,
    folder::{DRAFT_PREFIX, FORMAT, Folder, make, sync, write_file},
    manifest::{Content, MANIFEST_FILE, Manifest, StoredFile},
    pack::{Known, PackWriter},
    restore::RESTORING_FILE,
    rows::{RowReader, RowWriter, checksum},
};
use crate::{
    check::user_of,
    store::{Archive, Hold, MAX_LIST_BLOCKS, Partition, Store, StoreError, Table, tables},
};

/// Blocks read at the same time.
const READS_AT_ONCE: usize = 8;
/// Bytes of blocks gathered before they are written.
const BATCH_BYTES: u64 = 8 << 20;
/// Blocks gathered before they are written.
const BATCH_BLOCKS: usize = 256;
/// Largest file of the data folder that belongs to a backup: keys and settings are far smaller.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Most such files.
const MAX_FILES: usize = 10_000;
/// Damaged blocks that a manifest lists.
const MAX_DAMAGED: usize = 100_000;
/// What of the data folder is not copied as it is: the store has its own way, the rest belongs to a running process.
const LEFT_OUT: [&str; 5] = ["store", "lock", "cache", "admin.sock", RESTORING_FILE];

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

/// Tables that belong to running processes and not to the data.
const TRANSIENT: [Table; 1] = [tables::LEASES];

/// Writes all rows of one moment.
async fn write_metadata(archive: &dyn Archive, path: PathBuf) -> Result<Content, BackupError> {
    let mut snapshot = archive.snapshot().await?;
    let file = path.clone();
    let mut writer = blocking(move || RowWriter::create(&file)).await?;
    loop {
        let rows = snapshot.rows().await?;
        if rows.is_empty() {
            return blocking(move || writer.finish()).await;
        }
        let file = path.clone();
        writer = blocking(move || {
            let is_data = |table: &str| TRANSIENT.iter().all(|other| other.name() != table);
            for row in rows.iter().filter(|row| is_data(&row.table)) {
                let written = writer.metadata(&row.table, &row.key, &row.value);
                written.map_err(BackupError::io("write", &file))?;
            }
            Ok(writer)
        })
        .await?;
    }
}

/// Writes the names of all blocks, and returns the sum of their sizes too.
async fn write_list(store: &dyn Store, path: PathBuf) -> Result<(Content, u64), BackupError> {
    let file = path.clone();
    let mut writer = blocking(move || RowWriter::create(&file)).await?;
    let mut bytes = 0;
    let mut last: Option<Partition> = None;
    loop {
        let partitions = store.partitions(last.as_ref(), MAX_LIST_BLOCKS).await?;
        if partitions.is_empty() {
            return Ok((blocking(move || writer.finish()).await?, bytes));
        }
        last = partitions.last().cloned();
        for partition in partitions {
            let mut after: Option<Cid> = None;
            loop {
                let page = store
                    .list_blocks(&partition, after.as_ref(), MAX_LIST_BLOCKS)
                    .await?;
                let Some(end) = page.last() else { break };
                after = Some(end.cid.clone());
                let (file, partition) = (path.clone(), partition.clone());
                (writer, bytes) = blocking(move || {
                    for info in page {
                        bytes += u64::from(info.size_bytes);
                        let written = writer.block(&partition, &info.cid, info.size_bytes);
                        written.map_err(BackupError::io("write", &file))?;
                    }
                    Ok((writer, bytes))
                })
                .await?;
            }
        }
    }
}

/// What was copied.
#[derive(Default)]
struct Copied {
    blocks: u64,
    bytes: u64,
    damaged: Vec<(String, String)>,
}

/// Copies the blocks of a draft that the backup does not have.
async fn copy(
    store: &dyn Store,
    folder: &Arc<Folder>,
    draft: &Draft,
    known: Known,
    hold: Box<dyn Hold>,
    told: &mut (dyn FnMut(&BackupProgress) -> bool + Send),
) -> Result<Copied, BackupError> {
    let mut copier = Copier {
        store,
        writer: Some(PackWriter::new(folder.packs(), known.next)),
        known,
        copied: Copied::default(),
        batch: Vec::new(),
        batch_bytes: 0,
    };
    let mut progress = BackupProgress {
        all_blocks: draft.blocks.rows,
        all_bytes: draft.block_bytes,
        ..BackupProgress::default()
    };
    let list = draft.folder.join("blocks");
    let mut rows = RowReader::unchecked(&list, &draft.blocks)?;
    let mut at: Option<Partition> = None;
    loop {
        // A few thousand rows at a time, off the threads that serve.
        let (page, back) = blocking(move || {
            let mut page = Vec::new();
            while page.len() < 4_096 {
                match rows.block()? {
                    Some(row) => page.push(row),
                    None => break,
                }
            }
            Ok((page, rows))
        })
        .await?;
        rows = back;
        if page.is_empty() {
            break;
        }
        for (partition, cid, size) in page {
            if at.as_ref() != Some(&partition) {
                copier.flush().await?;
                if let Some(done) = at.replace(partition.clone()) {
                    hold.release(&done);
                }
            }
            progress.blocks += 1;
            progress.bytes += u64::from(size);
            copier.want(partition, cid, size);
            if copier.is_full() {
                copier.flush().await?;
                progress.copied_bytes = copier.copied.bytes;
                let is_kept = hold.is_kept();
                if !is_kept || !told(&progress) {
                    hold.end().await;
                    copier.close().await?;
                    return Err(match is_kept {
                        true => BackupError::Stopped,
                        false => BackupError::HoldLost,
                    });
                }
            }
        }
    }
    copier.flush().await?;
    let is_kept = hold.is_kept();
    hold.end().await;
    copier.close().await?;
    if !is_kept {
        return Err(BackupError::HoldLost);
    }
    progress.copied_bytes = copier.copied.bytes;
    told(&progress);
    Ok(copier.copied)
}

struct Copier<'a> {
    store: &'a dyn Store,
    writer: Option<PackWriter>,
    known: Known,
    copied: Copied,
    batch: Vec<(Partition, Cid)>,
    batch_bytes: u64,
}

impl Copier<'_> {
    fn want(&mut self, partition: Partition, cid: Cid, size: u32) {
        if !self.known.blocks.contains_key(&cid) {
            self.batch_bytes += u64::from(size);
            self.batch.push((partition, cid));
        }
    }

    fn is_full(&self) -> bool {
        self.batch.len() >= BATCH_BLOCKS || self.batch_bytes >= BATCH_BYTES
    }

    /// Reads the gathered blocks, several at a time, and writes them.
    async fn flush(&mut self) -> Result<(), BackupError> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let store = self.store;
        let reads = batch.into_iter().map(|(partition, cid)| async move {
            let block = store.block(&partition, &cid).await;
            (partition, cid, block)
        });
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
        let mut blocks: Vec<Block> = Vec::new();
        while let Some((partition, cid, block)) = reads.next().await {
            match block {
                Ok(Some(block)) => blocks.push(block),
                // Held, so it cannot have been deleted: it is as lost as a damaged one.
                Ok(None) | Err(StoreError::Damaged(_) | StoreError::Io { .. }) => {
                    if self.copied.damaged.len() < MAX_DAMAGED {
                        let lost = (user_of(&partition), cid.to_string());
                        self.copied.damaged.push(lost);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        let Some(mut writer) = self.writer.take() else {
            return Err(BackupError::Stopped);
        };
        let (writer, added) = blocking(move || {
            let mut added = Vec::with_capacity(blocks.len());
            for block in blocks {
                added.push((block.cid().clone(), writer.add(&block)?));
            }
            Ok((writer, added))
        })
        .await?;
        self.writer = Some(writer);
        for (cid, location) in added {
            // Two users may have it, in one batch.
            if self.known.blocks.insert(cid, location).is_none() {
                self.copied.blocks += 1;
                self.copied.bytes += u64::from(location.bytes);
            }
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<(), BackupError> {
        if let Some(mut writer) = self.writer.take() {
            blocking(move || writer.close()).await?;
        }
        Ok(())
    }
}

/// Copies keys and settings: every file of the data folder that nobody else takes care of.
fn copy_files(data: &Path, to: &Path) -> Result<Vec<StoredFile>, BackupError> {
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

/// Returns a name that sorts by time.
fn free_name(folder: &Folder, seconds: i64) -> Result<String, BackupError> {
    let names = folder.snapshot_names()?;
    let time = time_text(seconds);
    for number in 0..=u32::MAX {
        let name = format!("{time}-{number:03}");
        // Also when the clock went back: the newest snapshot has the last name.
        if names.last().is_none_or(|last| *last < name) {
            return Ok(name);
        }
        if names.last().is_some_and(|last| !last.starts_with(&time)) {
            let last = names.last().cloned().unwrap_or_default();
            return Ok(format!("{last}+"));
        }
    }
    Err(BackupError::NoSnapshot(folder.path.clone()))
}

/// Returns a time as `20260102T030405Z`.
fn time_text(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400);
    let rest = seconds.rem_euclid(86_400);
    // Days to a civil date, in years that begin in March.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Runs blocking work.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    let done = spawn_blocking(work).await;
    done.map_err(|_| BackupError::Store(StoreError::Closed))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_out() {
        assert_eq!(time_text(0), "19700101T000000Z");
        assert_eq!(time_text(951_782_400), "20000229T000000Z");
        assert_eq!(time_text(1_767_323_045), "20260102T030405Z");
        assert_eq!(time_text(-1), "19691231T235959Z");
    }

    #[test]
    fn names_follow_each_other_also_when_the_clock_goes_back() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::write(root.path()).unwrap();
        let mut names = Vec::new();
        for seconds in [1_000_000_000, 1_000_000_000, 5, 5, 1_000_000_001] {
            let name = free_name(&folder, seconds).unwrap();
            let path = folder.snapshot(&name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join(MANIFEST_FILE), "{}").unwrap();
            names.push(name);
        }
        assert!(names.is_sorted(), "{names:?}");
        names.dedup();
        assert_eq!(names.len(), 5);
    }

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
