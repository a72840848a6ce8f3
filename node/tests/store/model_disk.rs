//! A disk in memory that tells written from flushed bytes (Spec: 40 §12, M3).
//!
//! Content is durable after a flush of the file, names after a flush of their folder. A crash keeps any
//! subset of what was not flushed: writes may be lost one by one or torn at 512 bytes, lengths and names on their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use node::store::disk::{Disk, Locked, Space};
use parking_lot::Mutex;
use redb::StorageBackend;

/// The disk; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModelDisk(Arc<Mutex<State>>);

#[derive(Debug, Clone, Default)]
struct State {
    files: BTreeMap<u64, Content>,
    next_file: u64,
    /// What a path is now and what it is after a crash; folders hold no content.
    live: BTreeMap<PathBuf, Name>,
    durable: BTreeMap<PathBuf, Name>,
    flushes: u64,
    changes: u64,
    plan: Plan,
    has_stopped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    File(u64),
    Folder,
}

#[derive(Debug, Clone, Default)]
struct Content {
    current: Vec<u8>,
    flushed: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Plan {
    /// The machine stops when this many flushes are done.
    pub(crate) stop_after_flushes: Option<u64>,
    /// The n-th changing operation (from 0) fails once, with this error.
    pub(crate) fail_change: Option<(u64, io::ErrorKind)>,
    /// From the n-th changing operation on, nothing can be written.
    pub(crate) full_from: Option<u64>,
    /// Nothing can be changed, not even removed or flushed.
    pub(crate) stuck: Option<io::ErrorKind>,
    /// Folder flushes do nothing: a broken engine that the tests must find out.
    pub(crate) skip_folder_flushes: bool,
    /// Flushes of files do nothing.
    pub(crate) skip_file_flushes: bool,
}

/// Small generator: the model must be repeatable from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

impl ModelDisk {
    pub(crate) fn plan(&self, plan: Plan) {
        let mut state = self.0.lock();
        state.plan = plan;
        (state.flushes, state.changes) = (0, 0);
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.0.lock().has_stopped
    }

    /// Returns how many changing operations there were since the last plan.
    pub(crate) fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    pub(crate) fn flushes(&self) -> u64 {
        self.0.lock().flushes
    }

    /// Returns the disk as it may be found after a crash now.
    pub(crate) fn crash(&self, seed: u64) -> Self {
        let state = self.0.lock();
        let mut dice = Dice(seed);
        let mut after = State {
            next_file: state.next_file,
            ..State::default()
        };
        let paths: BTreeSet<_> = state.live.keys().chain(state.durable.keys()).collect();
        for path in paths {
            let (live, durable) = (state.live.get(path), state.durable.get(path));
            let name = if live == durable || dice.roll(2) == 0 {
                durable
            } else {
                live
            };
            // Parents sort before their children, so a lost folder takes its content along.
            let parent = path
                .parent()
                .is_none_or(|p| is_root(p) || after.live.contains_key(p));
            if let Some(name) = name.filter(|_| parent) {
                after.live.insert(path.clone(), *name);
            }
        }
        after.durable = after.live.clone();
        for (id, content) in &state.files {
            let mut bytes = content.flushed.clone();
            for change in &content.pending {
                match change {
                    _ if dice.roll(2) == 0 => {}
                    Change::Length(len) => bytes.resize(*len, 0),
                    Change::Write(at, data) => {
                        let torn = dice.roll(4) == 0;
                        let sectors = data.len() as u64 / 512;
                        let keep = if torn {
                            dice.roll(sectors + 1) as usize * 512
                        } else {
                            data.len()
                        };
                        write_at(&mut bytes, *at, &data[..keep]);
                    }
                }
            }
            let content = Content {
                current: bytes.clone(),
                flushed: bytes,
                pending: Vec::new(),
            };
            after.files.insert(*id, content);
        }
        Self(Arc::new(Mutex::new(after)))
    }

    /// Lists all files.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let state = self.0.lock();
        let files = state
            .live
            .iter()
            .filter(|(_, name)| matches!(name, Name::File(_)));
        files.map(|(path, _)| path.clone()).collect()
    }
}

fn is_root(path: &Path) -> bool {
    path == Path::new("/") || path == Path::new("")
}

fn write_at(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

impl State {
    fn running(&self) -> io::Result<()> {
        if self.has_stopped {
            Err(io::Error::other("the machine has stopped"))
        } else {
            Ok(())
        }
    }

    /// Counts a changing operation and lets it fail if that is the plan.
    fn change(&mut self, takes_space: bool) -> io::Result<()> {
        self.running()?;
        let number = self.changes;
        self.changes += 1;
        if let Some((at, kind)) = self.plan.fail_change
            && at == number
        {
            return Err(kind.into());
        }
        if let Some(kind) = self.plan.stuck {
            return Err(kind.into());
        }
        if takes_space && self.plan.full_from.is_some_and(|from| number >= from) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn flushed(&mut self) {
        self.flushes += 1;
        self.has_stopped |= self
            .plan
            .stop_after_flushes
            .is_some_and(|n| self.flushes >= n);
    }

    fn file(&mut self, path: &Path) -> io::Result<&mut Content> {
        match self.live.get(path) {
            Some(Name::File(id)) => Ok(self.files.get_mut(id).unwrap()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create(&mut self, path: &Path) -> io::Result<u64> {
        let parent = path.parent().unwrap();
        if self.live.get(parent) != Some(&Name::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if self.live.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.next_file;
        self.next_file += 1;
        self.files.insert(id, Content::default());
        self.live.insert(path.to_owned(), Name::File(id));
        Ok(id)
    }

    fn flush_file(&mut self, id: u64) -> io::Result<()> {
        let failed = self.change(false);
        let skip = self.plan.skip_file_flushes;
        let content = self.files.get_mut(&id).unwrap();
        match failed {
            // After a failed flush the kernel takes the pages for clean: they never reach the disk.
            Err(error) => {
                content.pending.clear();
                return Err(error);
            }
            Ok(()) if skip => {}
            Ok(()) => {
                content.flushed.clone_from(&content.current);
                content.pending.clear();
            }
        }
        self.flushed();
        Ok(())
    }

    fn write(&mut self, id: u64, at: usize, data: &[u8]) -> io::Result<()> {
        self.change(true)?;
        let content = self.files.get_mut(&id).unwrap();
        write_at(&mut content.current, at, data);
        content.pending.push(Change::Write(at, data.to_vec()));
        Ok(())
    }
}

impl Disk for ModelDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change(true)?;
        state.live.entry(path.to_owned()).or_insert(Name::Folder);
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change(false)?;
        if !state.plan.skip_folder_flushes {
            let inside = |name: &PathBuf| name.parent() == Some(path);
            state.durable.retain(|name, _| !inside(name));
            let live: Vec<_> = state.live.iter().filter(|(name, _)| inside(name)).collect();
            let live: Vec<_> = live
                .into_iter()
                .map(|(path, name)| (path.clone(), *name))
                .collect();
            state.durable.extend(live);
        }
        state.flushed();
        Ok(())
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change(true)?;
        let id = state.create(path)?;
        // Two writes, so that a fault can come between.
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        state.write(id, 0, head)?;
        state.write(id, head.len(), tail)?;
        state.flush_file(id)
    }

    fn read(&self, path: &Path, max_bytes: usize) -> io::Result<Vec<u8>> {
        let mut state = self.0.lock();
        state.running()?;
        let bytes = &state.file(path)?.current;
        Ok(bytes[..bytes.len().min(max_bytes + 1)].to_vec())
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        let mut state = self.0.lock();
        state.running()?;
        Ok(state.file(path)?.current.len() as u64)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change(false)?;
        state.file(path)?;
        state.live.remove(path);
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change(false)?;
        if state.live.keys().any(|name| name.parent() == Some(path)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.live.remove(path);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change(true)?;
        let name = state.live.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.live.insert(to.to_owned(), name);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let state = self.0.lock();
        state.running()?;
        if state.live.get(path) != Some(&Name::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.live.keys().filter(|name| name.parent() == Some(path));
        Ok(inside
            .map(|name| name.file_name().unwrap().to_owned())
            .collect())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        Ok(Space {
            free_bytes: 1 << 40,
            total_bytes: 1 << 40,
        })
    }

    fn database(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>> {
        let mut state = self.0.lock();
        state.running()?;
        let id = match state.live.get(path) {
            Some(Name::File(id)) => *id,
            _ => {
                state.change(true)?;
                state.create(path)?
            }
        };
        Ok(Box::new(ModelFile {
            disk: self.clone(),
            id,
        }))
    }

    fn lock(&self, _path: &Path) -> io::Result<Locked> {
        self.0.lock().running()?;
        Ok(Locked::Ours(Box::new(())))
    }
}

#[derive(Debug)]
struct ModelFile {
    disk: ModelDisk,
    id: u64,
}

impl StorageBackend for ModelFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.0.lock();
        state.running()?;
        Ok(state.files[&self.id].current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.0.lock();
        state.running()?;
        let at = offset as usize;
        let bytes = state.files[&self.id].current.get(at..at + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.change(true)?;
        let content = state.files.get_mut(&self.id).unwrap();
        content.current.resize(len as usize, 0);
        content.pending.push(Change::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.0.lock().flush_file(self.id)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.0.lock().write(self.id, offset as usize, data)
    }
}
