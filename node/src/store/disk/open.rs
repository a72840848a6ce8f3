//! Start-up: lock, format, database and log, and what a crash left behind.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::ReadTransaction;

use super::{
    LOG_NAME,
    database::{DatabaseCell, Flush},
    fault::{database_fault, io_fault},
    files::BlockFiles,
    layout::{
        BlockFile, FORMAT, FORMAT_PREFIX, INDEX, INLINE, IndexRow, META, OLDEST_FORMAT, Place,
        SequenceRow, index_key, sequence_key, unlink_prefix,
    },
    medium::{Disk, LockGuard, Locked},
};
use crate::store::StoreError;

/// Longest `format` file that is looked at.
const MAX_FORMAT_BYTES: usize = 64;

/// An opened data folder.
pub(super) struct Opened {
    pub(super) lock: LockGuard,
    pub(super) database: Arc<DatabaseCell>,
    pub(super) files: Arc<BlockFiles>,
    /// Files of unfinished deletions that are gone now.
    pub(super) removed: Vec<BlockFile>,
}

/// Opens or makes the data folder.
pub(super) fn open(
    disk: &Arc<dyn Disk>,
    folder: &Path,
    cache_bytes: usize,
) -> Result<Opened, StoreError> {
    let paths = Paths::new(folder);
    let made = disk.create_folder(folder);
    made.map_err(|error| io_fault("create", folder, error))?;
    let lock = lock(disk.as_ref(), &paths)?;
    let format = read_format(disk.as_ref(), &paths)?;
    match format {
        None => clear_torn_creation(disk.as_ref(), &paths)?,
        Some(format) => {
            if !exists(disk.as_ref(), &paths.folder, "meta.redb")? {
                return Err(bad_folder(folder, "its database meta.redb is missing"));
            }
            if format == FORMAT && !exists(disk.as_ref(), &paths.folder, LOG_NAME)? {
                return Err(bad_folder(folder, "its log meta.log is missing"));
            }
        }
    }
    let database = DatabaseCell::open(
        disk.clone(),
        paths.database.clone(),
        paths.log.clone(),
        cache_bytes,
    )?;
    match format {
        None => create(disk.as_ref(), &database, &paths)?,
        Some(FORMAT) => {}
        Some(_) => add_log(disk.as_ref(), &database, &paths)?,
    }
    let sequence = database.read(read_sequence)?;
    let files = BlockFiles::new(disk.clone(), paths.blocks, sequence.reserved);
    let removed = finish_deletions(&database, &files)?;
    sweep(&database, &files, sequence.lowest_run)?;
    Ok(Opened {
        lock,
        database: Arc::new(database),
        files: Arc::new(files),
        removed,
    })
}

struct Paths {
    folder: PathBuf,
    lock: PathBuf,
    format: PathBuf,
    format_draft: PathBuf,
    database: PathBuf,
    log: PathBuf,
    blocks: PathBuf,
}

impl Paths {
    fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            lock: folder.join("lock"),
            format: folder.join("format"),
            format_draft: folder.join("format.new"),
            database: folder.join("meta.redb"),
            log: folder.join(LOG_NAME),
            blocks: folder.join("blocks"),
        }
    }
}

fn lock(disk: &dyn Disk, paths: &Paths) -> Result<LockGuard, StoreError> {
    let locked = disk.lock(&paths.lock);
    match locked.map_err(|error| io_fault("lock", &paths.lock, error))? {
        Locked::Ours(guard) => Ok(guard),
        Locked::Theirs(pid) => Err(StoreError::InUse {
            path: paths.folder.clone(),
            pid,
        }),
    }
}

/// Reads the `format` file, if there is one.
fn read_format(disk: &dyn Disk, paths: &Paths) -> Result<Option<u32>, StoreError> {
    let text = match disk.read(&paths.format, MAX_FORMAT_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_fault("read", &paths.format, error)),
    };
    let text = std::str::from_utf8(&text).unwrap_or_default();
    let number = text.strip_prefix(FORMAT_PREFIX).map(str::trim_end);
    let Some(found) = number.and_then(|number| number.parse().ok()) else {
        return Err(bad_folder(&paths.folder, "its format file is damaged"));
    };
    if found > FORMAT {
        return Err(StoreError::NewerFormat {
            found,
            supported: FORMAT,
        });
    }
    // There has never been an older one.
    if found < OLDEST_FORMAT {
        return Err(bad_folder(&paths.folder, "its format file is damaged"));
    }
    Ok(Some(found))
}

/// Removes what a creation that was cut short left; refuses when there are blocks.
fn clear_torn_creation(disk: &dyn Disk, paths: &Paths) -> Result<(), StoreError> {
    let blocks = match disk.list(&paths.blocks) {
        Ok(names) => !names.is_empty(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(io_fault("list", &paths.blocks, error)),
    };
    if blocks {
        return Err(bad_folder(
            &paths.folder,
            "it holds blocks but no format file",
        ));
    }
    for path in [&paths.database, &paths.log, &paths.format_draft] {
        match disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_fault("remove", path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes the tables and folders; the `format` file comes last and says that all is there.
fn create(disk: &dyn Disk, database: &DatabaseCell, paths: &Paths) -> Result<(), StoreError> {
    database.write(Flush::Settle, |transaction, _| {
        let mut meta = transaction.open_table(META).map_err(database_fault)?;
        let start = SequenceRow {
            reserved: 0,
            lowest_run: 0,
        };
        let (key, row) = (sequence_key(), start.encode());
        meta.insert(key.as_slice(), row.as_slice())
            .map_err(database_fault)?;
        transaction.open_table(INDEX).map_err(database_fault)?;
        transaction.open_table(INLINE).map_err(database_fault)?;
        Ok(())
    })?;
    let made = disk.create_folder(&paths.blocks);
    made.map_err(|error| io_fault("create", &paths.blocks, error))?;
    write_format(disk, paths)?;
    match paths.folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync(disk, parent),
        _ => Ok(()),
    }
}

/// From format 1 to 2: the database is settled under the first seal, and the name of the log flushed, before
/// `format` says that a log has to be looked at.
fn add_log(disk: &dyn Disk, database: &DatabaseCell, paths: &Paths) -> Result<(), StoreError> {
    database.write(Flush::Settle, |_, _| Ok(()))?;
    match disk.remove(&paths.format_draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_fault("remove", &paths.format_draft, error));
        }
        _ => {}
    }
    write_format(disk, paths)
}

/// Writes the `format` file, which says that everything else is there.
fn write_format(disk: &dyn Disk, paths: &Paths) -> Result<(), StoreError> {
    let text = format!("{FORMAT_PREFIX}{FORMAT}\n");
    let written = disk.write_new(&paths.format_draft, text.as_bytes());
    written.map_err(|error| io_fault("write", &paths.format_draft, error))?;
    // The names of the database, the log and the blocks folder must not be younger than the format file's.
    sync(disk, &paths.folder)?;
    let renamed = disk.rename(&paths.format_draft, &paths.format);
    renamed.map_err(|error| io_fault("rename", &paths.format, error))?;
    sync(disk, &paths.folder)
}

fn sync(disk: &dyn Disk, folder: &Path) -> Result<(), StoreError> {
    disk.sync_folder(folder)
        .map_err(|error| io_fault("flush", folder, error))
}

fn exists(disk: &dyn Disk, folder: &Path, name: &str) -> Result<bool, StoreError> {
    let names = disk
        .list(folder)
        .map_err(|error| io_fault("list", folder, error))?;
    Ok(names.iter().any(|found| found == name))
}

fn read_sequence(transaction: &ReadTransaction) -> Result<SequenceRow, StoreError> {
    let meta = transaction.open_table(META).map_err(database_fault)?;
    let row = meta
        .get(sequence_key().as_slice())
        .map_err(database_fault)?;
    let row = row.ok_or(StoreError::DamagedRow { row: "sequence" })?;
    SequenceRow::decode(row.value())
}

/// Removes the files of deletions that were committed but not finished.
fn finish_deletions(
    database: &DatabaseCell,
    files: &BlockFiles,
) -> Result<Vec<BlockFile>, StoreError> {
    let pending = database.read(|transaction| {
        let meta = transaction.open_table(META).map_err(database_fault)?;
        let prefix = unlink_prefix();
        let mut pending = Vec::new();
        for row in meta.range(prefix.as_slice()..).map_err(database_fault)? {
            let (key, _) = row.map_err(database_fault)?;
            if !key.value().starts_with(&prefix) {
                break;
            }
            pending.push(BlockFile::from_unlink_key(key.value())?);
        }
        Ok(pending)
    })?;
    for file in &pending {
        files.remove(file)?;
    }
    Ok(pending)
}

/// Removes files that no row names from the runs that may hold leftovers.
fn sweep(database: &DatabaseCell, files: &BlockFiles, lowest_run: u64) -> Result<(), StoreError> {
    let mut swept = 0_u64;
    for file in files.list_from(lowest_run)? {
        let is_named = database.read(|transaction| {
            let index = transaction.open_table(INDEX).map_err(database_fault)?;
            let key = index_key(file.partition, &file.cid.to_bytes());
            let row = index.get(key.as_slice()).map_err(database_fault)?;
            let row = row.map(|row| IndexRow::decode(row.value())).transpose()?;
            Ok(row.is_some_and(|row| row.place == Place::File(file.sequence)))
        })?;
        if !is_named {
            files.remove(&file)?;
            swept += 1;
        }
    }
    if swept > 0 {
        tracing::info!(
            files = swept,
            "removed leftovers of writes that were cut short"
        );
    }
    Ok(())
}

fn bad_folder(folder: &Path, reason: &'static str) -> StoreError {
    StoreError::BadFolder {
        path: folder.to_owned(),
        reason,
    }
}
