//! The files of the cache, and which of them were used longest ago.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use bytes::Bytes;
use champ::{Cid, MAX_BLOCK_BYTES, text::to_hex};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::CacheCounts;
use crate::{
    random::random,
    store::{Partition, StoreError},
};

/// What a file takes on the disk at least.
const FILE_UNIT_BYTES: u64 = 4096;

/// Files are spread over this many folders by the first byte of their name.
const FOLDERS: u16 = 256;

/// Beginning of the names of files that are being written.
const UNFINISHED: &str = "new-";

/// The files.
pub(super) struct Shelf {
    folder: PathBuf,
    max_bytes: u64,
    order: Mutex<Order>,
    pub(super) counts: Arc<CacheCounts>,
}

/// Which file was used when.
#[derive(Default)]
struct Order {
    /// Size on disk and time of last use, by name.
    files: HashMap<Name, (u64, u64)>,
    /// Names by time of last use.
    by_use: BTreeMap<u64, Name>,
    now: u64,
    bytes: u64,
}

/// Name of a file: the beginning of a hash over partition and CID.
pub(super) type Name = [u8; 16];

impl Shelf {
    pub(super) fn open(folder: PathBuf, max_bytes: u64) -> Result<Self, StoreError> {
        let shelf = Self {
            max_bytes,
            order: Mutex::default(),
            counts: Arc::default(),
            folder,
        };
        let failed = |source: io::Error| StoreError::Io {
            operation: "open the cache in",
            path: shelf.folder.clone(),
            source: Arc::new(source),
        };
        let mut found = Vec::new();
        for number in 0..FOLDERS {
            let folder = shelf.folder.join(format!("{number:02x}"));
            make_folder(&folder).map_err(failed)?;
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                match (parsed(&entry.file_name()), entry.metadata()) {
                    (Some(name), Ok(about)) if about.is_file() => {
                        let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                        found.push((used, name, about.len()));
                    }
                    // Left by a process that was stopped while it wrote.
                    _ => {
                        let _ = fs::remove_file(entry.path());
                    }
                }
            }
        }
        found.sort();
        for (_, name, length) in found {
            shelf.note(name, length);
        }
        Ok(shelf)
    }

    pub(super) fn path(&self, name: &Name) -> PathBuf {
        let text = to_hex(name);
        self.folder.join(text.get(..2).unwrap_or("00")).join(text)
    }

    pub(super) fn knows(&self, name: &Name) -> bool {
        self.order.lock().files.contains_key(name)
    }

    /// Reads a file; what does not match the CID is dropped.
    pub(super) fn read(&self, name: &Name, cid: &Cid) -> Option<Bytes> {
        let bytes = fs::read(self.path(name)).ok();
        let bytes = bytes.filter(|bytes| cid.matches(bytes)).map(Bytes::from);
        match bytes {
            Some(_) => self.order.lock().touch(name),
            None => self.drop_file(name),
        }
        bytes
    }

    pub(super) fn keep(&self, name: Name, bytes: &[u8]) {
        if taken(bytes.len() as u64) > self.max_bytes || bytes.len() > MAX_BLOCK_BYTES {
            return;
        }
        let path = self.path(&name);
        let unfinished = path.with_file_name(format!("{UNFINISHED}{}", to_hex(&random::<8>())));
        if write_file(&unfinished, bytes)
            .and_then(|()| fs::rename(&unfinished, &path))
            .is_err()
        {
            let _ = fs::remove_file(&unfinished);
            return;
        }
        self.note(name, bytes.len() as u64);
    }

    /// Enters a file and drops what no longer fits.
    fn note(&self, name: Name, length: u64) {
        let dropped = {
            let mut order = self.order.lock();
            order.insert(name, taken(length));
            let dropped = order.shrink(self.max_bytes);
            self.counts.bytes.store(order.bytes, Ordering::Relaxed);
            dropped
        };
        self.counts
            .evicted
            .fetch_add(dropped.len() as u64, Ordering::Relaxed);
        for name in dropped {
            let _ = fs::remove_file(self.path(&name));
        }
    }

    pub(super) fn drop_file(&self, name: &Name) {
        {
            let mut order = self.order.lock();
            order.remove(name);
            self.counts.bytes.store(order.bytes, Ordering::Relaxed);
        }
        let _ = fs::remove_file(self.path(name));
    }
}

impl Order {
    fn insert(&mut self, name: Name, bytes: u64) {
        self.remove(&name);
        self.now += 1;
        self.files.insert(name, (bytes, self.now));
        self.by_use.insert(self.now, name);
        self.bytes += bytes;
    }

    fn remove(&mut self, name: &Name) {
        if let Some((bytes, used)) = self.files.remove(name) {
            self.by_use.remove(&used);
            self.bytes -= bytes;
        }
    }

    fn touch(&mut self, name: &Name) {
        if let Some((bytes, _)) = self.files.get(name).copied() {
            self.insert(*name, bytes);
        }
    }

    /// Forgets files, least recently used first, until the rest fits.
    fn shrink(&mut self, max_bytes: u64) -> Vec<Name> {
        let mut dropped = Vec::new();
        while self.bytes > max_bytes
            && let Some((_, name)) = self.by_use.first_key_value()
        {
            let name = *name;
            self.remove(&name);
            dropped.push(name);
        }
        dropped
    }
}

pub(super) fn name_of(partition: &Partition, cid: &Cid) -> Name {
    let mut hash = Sha256::new();
    hash.update(partition.as_str());
    hash.update([0]);
    hash.update(cid.to_bytes());
    let mut name = Name::default();
    for (out, byte) in name.iter_mut().zip(hash.finalize()) {
        *out = byte;
    }
    name
}

fn parsed(file_name: &std::ffi::OsStr) -> Option<Name> {
    let text = file_name.to_str()?;
    champ::text::from_hex(text).ok()?.try_into().ok()
}

fn taken(length: u64) -> u64 {
    length.next_multiple_of(FILE_UNIT_BYTES)
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    io::Write::write_all(&mut options.open(path)?, bytes)
}
