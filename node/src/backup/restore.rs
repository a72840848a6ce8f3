//! Turning a snapshot back into a data folder, or into whichever store a configuration names (Spec: 40 REL-12, REL-13).
//!
//! The folder carries the mark [`RESTORING_FILE`] until everything is there; a node refuses to start on it, and the
//! same restore goes on where it broke off.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use champ::{Block, Cid};
use serde::{Deserialize, Serialize};

use super::{
    create::blocking,
    error::BackupError,
    folder::{Folder, make, names, remove, sync, write_file},
    manifest::Manifest,
    pack::{Entry, Known, Pack},
    rows::{RowReader, checksum},
};
use crate::{
    check::user_of,
    config::Config,
    node::{OpenError, open_data_set},
    node_keys::remember_keys,
    shared_keys::shared_key_file,
    store::{Batch, FreeFloor, Partition, Store, StoreError, Table, s3::BUCKET_ROW, tables},
};

/// The mark of a data folder that is not complete; holds the name of the snapshot.
pub const RESTORING_FILE: &str = "restoring";
/// Row of the node's own table that says which backup it comes from.
const ROW: &[u8] = b"restored";
/// Bytes and blocks put at a time.
const BATCH_BYTES: usize = 16 << 20;
const BATCH_BLOCKS: usize = 512;
/// Bytes and rows of metadata committed at a time.
const BATCH_ROW_BYTES: usize = 4 << 20;
const BATCH_ROWS: usize = 2_000;
/// Open packs.
const MAX_OPEN_PACKS: usize = 64;

/// What to restore, and where to.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The folder of the backup.
    pub from: PathBuf,
    /// The data folder to make.
    pub data: PathBuf,
    /// Name of the snapshot; the newest when absent.
    pub snapshot: Option<String>,
    /// The time, seconds since 1970.
    pub now_seconds: i64,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreOutcome {
    /// Name of the snapshot.
    pub name: String,
    /// Its time, seconds since 1970: later changes are not in it.
    pub created_seconds: i64,
    /// How old it is, in seconds.
    pub age_seconds: i64,
    /// Rows of metadata.
    pub rows: u64,
    /// Blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Keys and settings.
    pub files: u64,
    /// Blocks that are damaged in the backup, or were when it was made: user and CID.
    pub lost: Vec<(String, String)>,
}

/// What a node knows of the backup it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Time of the snapshot, seconds since 1970.
    pub created_seconds: i64,
    /// Time of the restore, seconds since 1970.
    pub restored_seconds: i64,
}

/// Returns from which backup a store was restored, if it was.
///
/// # Errors
/// Failures of the disk.
pub async fn restored(store: &dyn Store) -> Result<Option<Restored>, StoreError> {
    let row = store.get(tables::NODE, ROW).await?;
    Ok(row.and_then(|row| serde_json::from_slice(&row).ok()))
}

/// Restores a snapshot into a folder that is empty, or in which the same restore broke off. `progress` is told
/// how many of how many bytes are done; when it returns false, the restore stops.
///
/// # Errors
/// [`BackupError`]. Damaged blocks are no error: they are listed in the outcome.
pub async fn restore(
    options: &RestoreOptions,
    progress: &mut (dyn FnMut(u64, u64) -> bool + Send),
) -> Result<RestoreOutcome, BackupError> {
    restore_as(options, &Config::default(), progress).await
}

/// Restores a snapshot as [`restore`] does, but into the store that `config` names: this is how a node moves from
/// its disk to a bucket or to PostgreSQL. Keys and settings go into the data folder of `options` in any case.
///
/// # Errors
/// As [`restore`], and [`BackupError::StoreNotEmpty`].
pub async fn restore_as(
    options: &RestoreOptions,
    config: &Config,
    progress: &mut (dyn FnMut(u64, u64) -> bool + Send),
) -> Result<RestoreOutcome, BackupError> {
    let folder = Folder::read(&options.from)?;
    let manifest = folder.manifest(options.snapshot.as_deref())?;
    let snapshot = folder.snapshot(&manifest.name);
    let is_continued = prepare(&options.data, &manifest)?;
    let packs = folder.packs();
    let known = blocking(move || Known::read(&packs)).await?;
    let config = Config {
        data: Some(options.data.clone()),
        // What fits is for the operator to know: a restore that stops for a floor helps nobody.
        free_floor: FreeFloor::Bytes(0),
        ..config.clone()
    };
    let store = open_data_set(&config).await.map_err(unusable)?;
    let store = store.as_ref();
    if !is_continued && is_used(store).await? {
        remove(&options.data.join(RESTORING_FILE))?;
        return Err(BackupError::StoreNotEmpty);
    }
    let mut outcome = RestoreOutcome {
        name: manifest.name.clone(),
        created_seconds: manifest.created_seconds,
        age_seconds: options.now_seconds.saturating_sub(manifest.created_seconds),
        rows: 0,
        blocks: 0,
        bytes: 0,
        files: 0,
        lost: Vec::new(),
    };
    let mut source = Source {
        packs: folder.packs(),
        known,
        open: HashMap::new(),
    };
    let list = snapshot.join("blocks");
    let rows = RowReader::open(&list, &manifest.blocks)?;
    blocks(store, rows, &mut source, &manifest, &mut outcome, progress).await?;
    let rows = RowReader::open(&snapshot.join("metadata"), &manifest.metadata)?;
    let keys = metadata(store, rows, options, &mut outcome).await?;
    for file in &manifest.files {
        key_file(&snapshot.join("files"), &options.data, file)?;
        outcome.files += 1;
    }
    for key in keys {
        outcome.files += u64::from(key.write(&options.data)?);
    }
    if !store.is_shared() {
        let remembered = remember_keys(&options.data, store).await;
        remembered.map_err(unusable)?;
    }
    store.close().await?;
    sync(&options.data)?;
    // Last: from here on it is a data folder like any other.
    remove(&options.data.join(RESTORING_FILE))?;
    sync(&options.data)?;
    Ok(outcome)
}

fn unusable(error: OpenError) -> BackupError {
    BackupError::Store(match error {
        OpenError::Store(error) => error,
        error => StoreError::Unusable {
            reason: error.to_string(),
        },
    })
}

/// Returns true when somebody's data is in a store.
async fn is_used(store: &dyn Store) -> Result<bool, StoreError> {
    let pointers = store.scan(tables::POINTERS, b"", None, 1).await?;
    Ok(!pointers.is_empty() || !store.partitions(None, 1).await?.is_empty())
}

/// Marks the folder, unless something else is in it; returns true when the same restore broke off here.
fn prepare(data: &Path, manifest: &Manifest) -> Result<bool, BackupError> {
    make(data)?;
    let mark = data.join(RESTORING_FILE);
    match fs::read_to_string(&mark) {
        Ok(name) if name == manifest.name => return Ok(true),
        Ok(_) => return Err(BackupError::NotEmpty(data.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(BackupError::io("read", &mark)(error)),
    }
    let is_ours = |name: &String| name.starts_with(super::folder::DRAFT_PREFIX);
    if names(data)?.iter().any(|name| !is_ours(name)) {
        return Err(BackupError::NotEmpty(data.to_owned()));
    }
    write_file(&mark, manifest.name.as_bytes())?;
    Ok(false)
}

/// Blocks in packs.
pub(super) struct Source {
    pub(super) packs: PathBuf,
    pub(super) known: Known,
    pub(super) open: HashMap<u64, Arc<Pack>>,
}

impl Source {
    /// Returns a verified block; `None` when there is no good copy.
    pub(super) fn block(&mut self, cid: &Cid) -> Result<Option<Block>, BackupError> {
        let Some(location) = self.known.blocks.get(cid).copied() else {
            return Ok(None);
        };
        let pack = match self.open.get(&location.pack) {
            Some(pack) => pack.clone(),
            None => {
                if self.open.len() >= MAX_OPEN_PACKS {
                    self.open.clear();
                }
                let pack = Arc::new(Pack::open(&self.packs, location.pack)?);
                self.open.insert(location.pack, pack.clone());
                pack
            }
        };
        let entry = Entry {
            cid: cid.clone(),
            offset: location.offset,
            bytes: location.bytes,
        };
        match pack.block(&entry) {
            Ok(block) => Ok(Some(block)),
            Err(BackupError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

async fn blocks(
    store: &dyn Store,
    mut rows: RowReader,
    source: &mut Source,
    manifest: &Manifest,
    outcome: &mut RestoreOutcome,
    progress: &mut (dyn FnMut(u64, u64) -> bool + Send),
) -> Result<(), BackupError> {
    let mut batch: Vec<Block> = Vec::new();
    let mut bytes = 0;
    let mut at: Option<Partition> = None;
    loop {
        let row = rows.block()?;
        let next = row.as_ref().map(|(partition, _, _)| partition);
        let is_full = bytes >= BATCH_BYTES || batch.len() >= BATCH_BLOCKS;
        if let Some(partition) = &at
            && (is_full || next != Some(partition))
        {
            if !batch.is_empty() {
                let blocks = std::mem::take(&mut batch);
                store.put_blocks(partition, blocks, None).await?;
            }
            bytes = 0;
            if !progress(outcome.bytes, manifest.block_bytes) {
                return Err(BackupError::Stopped);
            }
        }
        let Some((partition, cid, size)) = row else {
            return Ok(());
        };
        outcome.blocks += 1;
        outcome.bytes += u64::from(size);
        // There already when an earlier attempt broke off.
        if store.block_size(&partition, &cid).await?.is_none() {
            match source.block(&cid)? {
                Some(block) => {
                    bytes += block.bytes().len();
                    batch.push(block);
                }
                None => outcome.lost.push((user_of(&partition), cid.to_string())),
            }
        }
        at = Some(partition);
    }
}

async fn metadata(
    store: &dyn Store,
    mut rows: RowReader,
    options: &RestoreOptions,
    outcome: &mut RestoreOutcome,
) -> Result<Vec<SharedKey>, BackupError> {
    let mut keys = Vec::new();
    let mut batch = Batch::new();
    let (mut count, mut bytes) = (0, 0);
    loop {
        let row = rows.metadata()?;
        if count >= BATCH_ROWS || bytes >= BATCH_ROW_BYTES || (row.is_none() && count > 0) {
            let _ = store.commit(std::mem::take(&mut batch)).await?;
            (count, bytes) = (0, 0);
        }
        let Some(row) = row else { break };
        let damaged = StoreError::DamagedRow { row: "metadata" };
        let table = Table::of_name(&row.table).ok_or(damaged)?;
        if !is_portable(table, &row.key, store.is_shared()) {
            continue;
        }
        if let Some(file) = shared_key_file(table, &row.key)
            && !store.is_shared()
        {
            // Somebody else's data set kept it in a row; a node that is alone keeps it in a file.
            keys.push(SharedKey {
                file,
                secret: zeroize::Zeroizing::new(row.value),
            });
            continue;
        }
        bytes += row.key.len() + row.value.len();
        count += 1;
        outcome.rows += 1;
        batch = batch.put(table, row.key, row.value);
    }
    let row = Restored {
        created_seconds: outcome.created_seconds,
        restored_seconds: options.now_seconds,
    };
    let row = serde_json::to_vec(&row).unwrap_or_default();
    let _ = store
        .commit(Batch::new().put(tables::NODE, ROW, row))
        .await?;
    Ok(keys)
}

/// Returns false for rows that mean nothing in another store: where blocks are, which of them the last collection
/// saw by their generations, which bucket they were in, and what running processes agree on.
fn is_portable(table: Table, key: &[u8], is_shared: bool) -> bool {
    let is_of_store = tables::OF_THE_STORE.contains(&table);
    let is_collection = [tables::GC_STATES, tables::GC_DOOMED].contains(&table);
    let is_bucket = table == tables::NODE && key == BUCKET_ROW;
    let is_of_processes = [tables::GUARDS, tables::CHALLENGES, tables::PENDING].contains(&table);
    !(is_of_store
        || is_collection
        || is_bucket
        || table == tables::LEASES
        || is_of_processes && !is_shared)
}

/// A secret that becomes a file.
struct SharedKey {
    file: &'static str,
    secret: zeroize::Zeroizing<Vec<u8>>,
}

impl SharedKey {
    /// Writes the file unless the backup had one; returns true when it was written.
    fn write(&self, data: &Path) -> Result<bool, BackupError> {
        let path = data.join(self.file);
        if path.exists() {
            return Ok(false);
        }
        write_file(&path, &self.secret)?;
        Ok(true)
    }
}

/// Copies a key or setting back, compared with its checksum.
fn key_file(
    from: &Path,
    data: &Path,
    file: &super::manifest::StoredFile,
) -> Result<(), BackupError> {
    let mut path = PathBuf::new();
    for part in file.path.split('/') {
        if part.is_empty() || part == "." || part == ".." || part.contains('\\') {
            return Err(BackupError::damaged(from, "a path in it leads elsewhere"));
        }
        path.push(part);
    }
    let (from, to) = (from.join(&path), data.join(&path));
    let (bytes, sha256) = checksum(&from)?;
    if bytes != file.bytes || sha256 != file.sha256 {
        return Err(BackupError::damaged(
            &from,
            "it does not match its checksum",
        ));
    }
    if let Some(parent) = to.parent() {
        make(parent)?;
    }
    let content = fs::read(&from).map_err(BackupError::io("read", &from))?;
    write_file(&to, &zeroize::Zeroizing::new(content))
}
