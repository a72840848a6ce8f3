//! Block files: unique names in runs of sequence numbers, written once and never changed.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use champ::MAX_BLOCK_BYTES;
use parking_lot::Mutex;

use super::{
    fault::io_fault,
    layout::{BlockFile, run_of},
    medium::Disk,
};
use crate::store::StoreError;

/// Folders remembered as existing before old ones are forgotten.
const MAX_KNOWN_RUNS: usize = 64;

/// The folder of block files and the sequence that names them.
#[derive(Debug)]
pub(super) struct BlockFiles {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    sequence: Mutex<Sequence>,
    /// Runs whose folder exists and whose name is flushed.
    known_runs: Mutex<BTreeSet<u64>>,
}

#[derive(Debug)]
struct Sequence {
    next: u64,
    /// Numbers of files that may exist without a row that names them.
    open: BTreeSet<u64>,
}

impl BlockFiles {
    pub(super) fn new(disk: Arc<dyn Disk>, folder: PathBuf, next: u64) -> Self {
        let sequence = Mutex::new(Sequence {
            next,
            open: BTreeSet::new(),
        });
        Self {
            disk,
            folder,
            sequence,
            known_runs: Mutex::default(),
        }
    }

    /// Takes a number for a generation or an inline block.
    pub(super) fn number(&self) -> u64 {
        let mut sequence = self.sequence.lock();
        let number = sequence.next;
        sequence.next += 1;
        number
    }

    /// Takes a number for a file, which counts as a possible leftover until it is settled.
    pub(super) fn open_number(&self) -> u64 {
        let mut sequence = self.sequence.lock();
        let number = sequence.next;
        sequence.next += 1;
        sequence.open.insert(number);
        number
    }

    /// Says that a file is named by a committed row now, or is gone.
    pub(super) fn settle(&self, number: u64) {
        self.sequence.lock().open.remove(&number);
    }

    /// Returns the next number and the lowest run that may hold leftovers.
    pub(super) fn position(&self) -> (u64, u64) {
        let sequence = self.sequence.lock();
        let lowest = sequence.open.first().copied().unwrap_or(sequence.next);
        (sequence.next, run_of(lowest))
    }

    /// Writes a block file and flushes it. Its name is durable after [`BlockFiles::sync_run`].
    pub(super) fn write(&self, file: &BlockFile, bytes: &[u8]) -> Result<(), StoreError> {
        self.prepare_run(run_of(file.sequence))?;
        let path = self.path(file);
        let written = self.disk.write_new(&path, bytes);
        written.map_err(|error| io_fault("write", &path, error))
    }

    /// Makes sure that the folder of a run exists and that its own name is flushed.
    fn prepare_run(&self, run: u64) -> Result<(), StoreError> {
        let mut known = self.known_runs.lock();
        if known.contains(&run) {
            return Ok(());
        }
        let path = self.run_path(run);
        let created = self.disk.create_folder(&path);
        created.map_err(|error| io_fault("create", &path, error))?;
        let synced = self.disk.sync_folder(&self.folder);
        synced.map_err(|error| io_fault("flush", &self.folder, error))?;
        known.insert(run);
        if known.len() > MAX_KNOWN_RUNS {
            known.pop_first();
        }
        Ok(())
    }

    /// Flushes the names in the folder of a run.
    pub(super) fn sync_run(&self, run: u64) -> Result<(), StoreError> {
        let path = self.run_path(run);
        let synced = self.disk.sync_folder(&path);
        synced.map_err(|error| io_fault("flush", &path, error))
    }

    /// Reads a block file; `None` when it is missing. Longer than a block is cut one byte above the limit, so that
    /// no hash matches.
    pub(super) fn read(&self, file: &BlockFile) -> Result<Option<Bytes>, StoreError> {
        let path = self.path(file);
        match self.disk.read(&path, MAX_BLOCK_BYTES) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_fault("read", &path, error)),
        }
    }

    /// Removes a block file; one that is gone already is no error.
    pub(super) fn remove(&self, file: &BlockFile) -> Result<(), StoreError> {
        let path = self.path(file);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_fault("remove", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the folder of a run if it is empty and will never be written again.
    pub(super) fn remove_empty_run(&self, run: u64) {
        if run < self.position().1 {
            // A folder that is not empty stays, and an empty one does no harm.
            let _ = self.disk.remove_folder(&self.run_path(run));
        }
    }

    /// Lists the files in runs from `lowest` on. Names that are not ours are left out.
    pub(super) fn list_from(&self, lowest: u64) -> Result<Vec<BlockFile>, StoreError> {
        let mut files = Vec::new();
        for run in self.runs()?.into_iter().filter(|run| *run >= lowest) {
            files.extend(self.list_run(run)?);
        }
        Ok(files)
    }

    /// Lists the runs that have a folder, in ascending order.
    pub(super) fn runs(&self) -> Result<Vec<u64>, StoreError> {
        let names = self.names(&self.folder)?;
        let runs = names.iter().map(String::as_str);
        let mut runs: Vec<_> = runs.filter_map(BlockFile::parse_folder).collect();
        runs.sort_unstable();
        Ok(runs)
    }

    /// Lists the files of one run; none when its folder is gone. Names that are not ours are left out.
    pub(super) fn list_run(&self, run: u64) -> Result<Vec<BlockFile>, StoreError> {
        let path = self.run_path(run);
        let names = match self.names(&path) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Vec::new()
            }
            names => names?,
        };
        let names = names.iter().map(String::as_str);
        Ok(names.filter_map(BlockFile::parse).collect())
    }

    /// Returns true when a file may exist without a row that names it.
    pub(super) fn is_open(&self, number: u64) -> bool {
        let sequence = self.sequence.lock();
        number >= sequence.next || sequence.open.contains(&number)
    }

    /// Returns the length of a block file in bytes; `None` when it is missing.
    pub(super) fn size(&self, file: &BlockFile) -> Result<Option<u64>, StoreError> {
        let path = self.path(file);
        match self.disk.size(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_fault("measure", &path, error)),
        }
    }

    /// Makes sure that the folder of damaged copies exists, beside that of the blocks, and returns it.
    pub(super) fn prepare_quarantine(&self) -> Result<PathBuf, StoreError> {
        let path = self.folder.with_file_name("quarantine");
        let created = self.disk.create_folder(&path);
        created.map_err(|error| io_fault("create", &path, error))?;
        if let Some(parent) = path.parent() {
            let synced = self.disk.sync_folder(parent);
            synced.map_err(|error| io_fault("flush", parent, error))?;
        }
        Ok(path)
    }

    /// Returns the disk.
    pub(super) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    fn names(&self, folder: &Path) -> Result<Vec<String>, StoreError> {
        let names = self
            .disk
            .list(folder)
            .map_err(|error| io_fault("list", folder, error))?;
        Ok(names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .collect())
    }

    fn run_path(&self, run: u64) -> PathBuf {
        self.folder.join(BlockFile::folder(run))
    }

    pub(super) fn path(&self, file: &BlockFile) -> PathBuf {
        self.run_path(run_of(file.sequence)).join(file.name())
    }
}
