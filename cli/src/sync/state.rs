//! What both sides were when they last agreed, kept on disk between runs.
//!
//! One JSON object a line. The first line says what is synchronized with what; each later one is one agreement, or its
//! end. Lines are added while a run goes on; a line that a crash cut short is dropped, and what it said is found again by
//! comparing. Now and then the file is written anew: to another name, flushed, and renamed.
//! The file tells names and hashes of content, no keys: mode 0600 like the session.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use cryptree::properties::Timestamp;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::tree::{Known, RemoteFile, Stamp, shift, take};
use crate::{
    exit::{Class, Failure},
    local::private,
};

/// What is synchronized with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Absolute path of the local folder.
    pub local: String,
    /// Where the node is.
    pub node: String,
    /// Path of the remote folder.
    pub remote: String,
}

/// The agreements of one pair of folders.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    pair: Pair,
    known: BTreeMap<String, Known>,
    log: Option<BufWriter<File>>,
    /// Lines that say something that is no longer so.
    stale: usize,
    /// Held as long as this lives: two runs on the same folders would undo each other.
    lock: File,
}

impl Drop for State {
    fn drop(&mut self) {
        // What is written yet is written under the lock.
        self.log = None;
        // A program that is being started at this moment has a copy of the file until it runs: closing this one alone
        // would leave the lock to it.
        let _ = self.lock.unlock();
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Sync { version: u32, pair: Pair },
    Folder(String, u64, Option<String>),
    File(String, Box<FileRow>),
    Gone(String),
    Moved(String, String),
}

#[derive(Serialize, Deserialize)]
struct FileRow {
    size: u64,
    modified: (i64, u32),
    inode: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    there: (u64, (i64, u32), Option<String>),
}

impl State {
    /// Opens or starts the state of a pair in `folder`.
    ///
    /// # Errors
    ///
    /// When another run has it, or it cannot be read or understood.
    pub fn open(folder: &Path, pair: Pair) -> Result<Self, Failure> {
        let mut named = Sha256::new();
        for part in [&pair.local, &pair.node, &pair.remote] {
            named.update((part.len() as u64).to_be_bytes());
            named.update(part.as_bytes());
        }
        let digest = named.finalize();
        let name = HEXLOWER.encode(digest.get(..16).unwrap_or_default());
        let path = folder.join(format!("{name}.jsonl"));
        let lock_path = folder.join(format!("{name}.lock"));
        private::make_folder(folder).map_err(|e| Failure::local("make the folder", folder, &e))?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let lock = options
            .open(&lock_path)
            .map_err(|e| Failure::local("open", &lock_path, &e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(
                    Class::InUse,
                    "these folders are being synchronized already",
                )
                .help("wait for the other run to end, or stop it"));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Failure::local("lock", &lock_path, &error));
            }
        }
        let mut state = Self {
            path,
            pair,
            known: BTreeMap::new(),
            log: None,
            stale: 0,
            lock,
        };
        state.load()?;
        Ok(state)
    }

    fn load(&mut self) -> Result<(), Failure> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Failure::local("read", &self.path, &error)),
        };
        let path = self.path.clone();
        let unusable = || {
            Failure::new(
                Class::Local,
                format!("the state in {} cannot be used", path.display()),
            )
            .help("remove it: the next run compares everything and keeps both where they differ")
        };
        let Some(complete) = text.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(());
        };
        self.stale += usize::from(complete + 1 != text.len());
        let mut is_first = true;
        let lines = text.get(..complete).unwrap_or_default();
        for line in lines.split(|byte| *byte == b'\n') {
            let line: Line = serde_json::from_slice(line).map_err(|_| unusable())?;
            match line {
                Line::Sync { version, pair } => {
                    if !is_first || version != VERSION || pair != self.pair {
                        return Err(unusable());
                    }
                }
                _ if is_first => return Err(unusable()),
                Line::Folder(path, inode, id) => {
                    let id = id.map(|id| bytes(&id).ok_or_else(unusable)).transpose()?;
                    self.add(path, Known::Folder { inode, id });
                }
                Line::File(path, row) => {
                    let known = row.known().ok_or_else(unusable)?;
                    self.add(path, known);
                }
                Line::Gone(path) => {
                    self.stale += 1 + take(&mut self.known, &path).len();
                }
                Line::Moved(from, to) => {
                    self.stale += 1 + shift(&mut self.known, &from, &to).len();
                }
            }
            is_first = false;
        }
        Ok(())
    }

    fn add(&mut self, path: String, known: Known) {
        if self.known.insert(path, known).is_some() {
            self.stale += 1;
        }
    }

    /// Returns the agreements.
    #[must_use]
    pub const fn known(&self) -> &BTreeMap<String, Known> {
        &self.known
    }

    /// Notes that both sides agree on an item.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn agree(&mut self, path: String, known: Known) -> Result<(), Failure> {
        self.write(&line_of(&path, &known))?;
        self.add(path, known);
        Ok(())
    }

    /// Notes that an item and everything below it is gone on both sides.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn forget(&mut self, path: &str) -> Result<(), Failure> {
        self.write(&Line::Gone(path.to_owned()))?;
        self.stale += 1 + take(&mut self.known, path).len();
        Ok(())
    }

    /// Notes that an item and everything below it has another path on both sides.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn moved(&mut self, from: &str, to: &str) -> Result<(), Failure> {
        self.write(&Line::Moved(from.to_owned(), to.to_owned()))?;
        self.stale += 1 + shift(&mut self.known, from, to).len();
        Ok(())
    }

    fn write(&mut self, line: &Line) -> Result<(), Failure> {
        if self.log.is_none() {
            // Whatever was cut short or is out of date goes first.
            self.rewrite()?;
        }
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        put(log, line).map_err(|error| Failure::local("write", &self.path, &error))
    }

    /// Hands what was noted to the system: it survives the end of this process.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn flush(&mut self) -> Result<(), Failure> {
        match &mut self.log {
            Some(log) => log
                .flush()
                .map_err(|error| Failure::local("write", &self.path, &error)),
            None => Ok(()),
        }
    }

    /// Ends a run: everything is on the disk, without what is out of date.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn finish(&mut self) -> Result<(), Failure> {
        if self.log.is_some() {
            self.rewrite()?;
        }
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), Failure> {
        self.flush()?;
        let failed = |error: io::Error| Failure::local("write", &self.path, &error);
        let fresh = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut out = BufWriter::new(options.open(&fresh).map_err(failed)?);
        let written = (|| {
            put(
                &mut out,
                &Line::Sync {
                    version: VERSION,
                    pair: self.pair.clone(),
                },
            )?;
            for (path, known) in &self.known {
                put(&mut out, &line_of(path, known))?;
            }
            out.flush()?;
            out.get_ref().sync_all()?;
            fs::rename(&fresh, &self.path)
        })();
        written.map_err(failed)?;
        // The file that was renamed stays open: lines are added to it.
        self.log = Some(out);
        self.stale = 0;
        Ok(())
    }
}

fn put(out: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

fn line_of(path: &str, known: &Known) -> Line {
    let hex = |bytes: &Option<[u8; 32]>| bytes.as_ref().map(|bytes| HEXLOWER.encode(bytes));
    match known {
        Known::Folder { inode, id } => Line::Folder(path.to_owned(), *inode, hex(id)),
        Known::File {
            stamp,
            remote,
            hash,
        } => Line::File(
            path.to_owned(),
            Box::new(FileRow {
                size: stamp.size,
                modified: pair(stamp.modified),
                inode: stamp.inode,
                hash: hex(hash),
                id: hex(&remote.id),
                version: hex(&remote.version),
                there: (remote.size, pair(remote.modified), hex(&remote.hash)),
            }),
        ),
    }
}

impl FileRow {
    fn known(&self) -> Option<Known> {
        let optional = |text: &Option<String>| match text {
            Some(text) => bytes(text).map(Some),
            None => Some(None),
        };
        let (size, modified, hash) = &self.there;
        Some(Known::File {
            stamp: Stamp {
                size: self.size,
                modified: Timestamp::new(self.modified.0, self.modified.1)?,
                inode: self.inode,
            },
            remote: RemoteFile {
                id: optional(&self.id)?,
                version: optional(&self.version)?,
                size: *size,
                modified: Timestamp::new(modified.0, modified.1)?,
                hash: optional(hash)?,
                is_verified: false,
            },
            hash: optional(&self.hash)?,
        })
    }
}

const fn pair(time: Timestamp) -> (i64, u32) {
    (time.epoch_seconds(), time.nanos())
}

fn bytes(text: &str) -> Option<[u8; 32]> {
    let bytes = HEXLOWER.decode(text.as_bytes()).ok()?;
    bytes.try_into().ok()
}

const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Pair {
        Pair {
            local: "/home/alice/docs".into(),
            node: "http://127.0.0.1:8000".into(),
            remote: "/alice/docs".into(),
        }
    }

    fn file(n: u8) -> Known {
        let modified = Timestamp::new(-5, 123_456_789).unwrap();
        Known::File {
            stamp: Stamp {
                size: n.into(),
                modified,
                inode: u64::MAX,
            },
            remote: RemoteFile {
                id: Some([n; 32]),
                version: None,
                size: n.into(),
                modified,
                hash: Some([7; 32]),
                is_verified: false,
            },
            hash: None,
        }
    }

    fn folder() -> Known {
        Known::Folder { inode: 3, id: None }
    }

    fn state_file(folder: &Path) -> PathBuf {
        let entries = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut found = entries.filter(|path| path.extension().is_some_and(|e| e == "jsonl"));
        found.next().unwrap()
    }

    #[test]
    fn agreements_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open(dir.path(), pair()).unwrap();
        state.agree("d".into(), folder()).unwrap();
        state.agree("d/\u{e9}\n\"x".into(), file(1)).unwrap();
        state.agree("d/y".into(), file(2)).unwrap();
        state.moved("d", "e").unwrap();
        state.forget("e/y").unwrap();
        state.flush().unwrap();
        let expected = state.known().clone();
        drop(state);
        let mut again = State::open(dir.path(), pair()).unwrap();
        assert_eq!(again.known(), &expected);
        assert_eq!(again.known().len(), 2);
        again.agree("z".into(), file(3)).unwrap();
        again.finish().unwrap();
        drop(again);
        assert_eq!(State::open(dir.path(), pair()).unwrap().known().len(), 3);
        let other = Pair {
            remote: "/alice/x".into(),
            ..pair()
        };
        assert!(State::open(dir.path(), other).unwrap().known().is_empty());
    }

    #[test]
    fn a_crash_at_any_byte_costs_the_last_line_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open(dir.path(), pair()).unwrap();
        for n in 0..4 {
            state.agree(format!("f{n}"), file(n)).unwrap();
        }
        state.flush().unwrap();
        drop(state);
        let path = state_file(dir.path());
        let whole = fs::read(&path).unwrap();
        let head = whole.iter().position(|byte| *byte == b'\n').unwrap();
        for end in head + 1..=whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let lines = whole[..end].iter().filter(|byte| **byte == b'\n').count();
            let mut state = State::open(dir.path(), pair()).unwrap();
            assert_eq!(state.known().len(), lines - 1, "cut at {end}");
            // And what is added then is readable.
            state.agree("more".into(), file(9)).unwrap();
            state.flush().unwrap();
            drop(state);
            assert_eq!(
                State::open(dir.path(), pair()).unwrap().known().len(),
                lines
            );
        }
    }

    #[test]
    fn the_lock_ends_with_the_run_whoever_has_a_copy_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), pair()).unwrap();
        let of_a_program_being_started = state.lock.try_clone().unwrap();
        drop(state);
        State::open(dir.path(), pair()).unwrap();
        drop(of_a_program_being_started);
    }

    #[test]
    fn damaged_states_are_refused_and_two_runs_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open(dir.path(), pair()).unwrap();
        state.agree("a".into(), file(1)).unwrap();
        state.flush().unwrap();
        let second = State::open(dir.path(), pair()).unwrap_err();
        assert_eq!(second.class, Class::InUse);
        drop(state);
        let path = state_file(dir.path());
        let good = fs::read_to_string(&path).unwrap();
        for bad in [
            "rubbish\n".to_owned(),
            good.replace("\"version\":1", "\"version\":2"),
            good.replace("123456789", "1000000000"),
            good.lines().rev().map(|line| format!("{line}\n")).collect(),
        ] {
            fs::write(&path, &bad).unwrap();
            assert_eq!(
                State::open(dir.path(), pair()).unwrap_err().class,
                Class::Local,
                "{bad}"
            );
        }
    }
}
