//! A download in progress: written under a hidden name, moved to its own name when complete.
//!
//! Invariant: a file is never seen under its final name with partial content; an interrupted download leaves at
//! most one hidden file, which the next attempt goes on with or replaces.

use std::{
    fs::{File, Metadata, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use sha2::{Digest, Sha256};

/// A file being downloaded. Removed on drop unless [`Self::finish`] was called, or it can be taken up later.
#[derive(Debug)]
pub struct PartialFile {
    file: Option<File>,
    hidden: PathBuf,
    target: PathBuf,
    position: u64,
    /// What is there when this is dropped is worth something to the next attempt.
    stays: bool,
}

impl PartialFile {
    /// Opens an empty hidden file beside `target`, removed on drop.
    ///
    /// # Errors
    ///
    /// Of the file system; `WouldBlock` when another process downloads to the same name.
    pub fn create(target: &Path) -> io::Result<Self> {
        let partial = Self::open(target, &hidden_name(target)?)?;
        partial.file()?.set_len(0)?;
        Ok(partial)
    }

    /// Opens the hidden file of one state of the remote file with what an earlier download left in it, and removes what is
    /// left of other states. What is complete stays on drop, for the next attempt.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn take_up(target: &Path, state: &str) -> io::Result<Self> {
        let common = hidden_name(target)?;
        let own = format!("{common}-{}", state.get(..STATE_CHARS).unwrap_or(state));
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        for entry in std::fs::read_dir(folder)?.flatten() {
            let name = entry.file_name();
            if let Some(name) = name.to_str()
                && name.starts_with(&common)
                && name != own
            {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        let mut partial = Self::open(target, &own)?;
        partial.stays = true;
        Ok(partial)
    }

    /// Keeps what is there as long as `is_right` says so of each whole chunk, cuts off the rest, and returns the number of
    /// chunks kept. The next bytes follow them.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn keep_while(
        &mut self,
        chunk_bytes: usize,
        mut is_right: impl FnMut(usize, &[u8]) -> bool,
    ) -> io::Result<u64> {
        let mut chunk = vec![0; chunk_bytes];
        let file = self.file.as_mut().ok_or_else(closed)?;
        file.rewind()?;
        let mut kept = 0;
        loop {
            match file.read_exact(&mut chunk) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
            if !is_right(kept, &chunk) {
                break;
            }
            kept += 1;
        }
        self.position = (kept as u64) * (chunk_bytes as u64);
        file.set_len(self.position)?;
        file.seek(SeekFrom::Start(self.position))?;
        Ok(kept as u64)
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(closed)
    }

    fn open(target: &Path, hidden_name: &str) -> io::Result<Self> {
        let hidden = target.with_file_name(hidden_name);
        let file = match own_file(&hidden, false) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                match own_file(&hidden, true) {
                    Ok(file) if is_ours(&file.metadata()?) => file,
                    // Somebody has put a link or a file of theirs there, in a folder that many can write.
                    _ => {
                        std::fs::remove_file(&hidden)?;
                        own_file(&hidden, false)?
                    }
                }
            }
            file => file?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "another download to the same name is under way",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(Self {
            file: Some(file),
            hidden,
            target: target.to_path_buf(),
            position: 0,
            stays: false,
        })
    }

    /// Appends bytes. Stretches of zeros become holes.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().ok_or_else(closed)?;
        for piece in bytes.chunks(HOLE_BYTES) {
            if piece.len() == HOLE_BYTES && piece.iter().all(|byte| *byte == 0) {
                file.seek(SeekFrom::Current(HOLE_BYTES_I64))?;
            } else {
                file.write_all(piece)?;
            }
        }
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Completes the file, gives it its name and modification time, and returns how it looks.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn finish(mut self, modified: Option<SystemTime>) -> io::Result<Metadata> {
        let file = self.file.take().ok_or_else(closed)?;
        file.set_len(self.position)?;
        #[cfg(unix)]
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(finished_mode()))?;
        if self.position >= SYNCED_BYTES || std::fs::symlink_metadata(&self.target).is_ok() {
            // What it replaces must not be gone before this is on the disk.
            file.sync_all()?;
        }
        if let Some(modified) = modified {
            file.set_modified(modified)?;
        }
        let found = file.metadata()?;
        std::fs::rename(&self.hidden, &self.target)?;
        self.hidden.clear();
        Ok(found)
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        let is_worth_keeping = self.stays && self.position > 0;
        if !self.hidden.as_os_str().is_empty() && !is_worth_keeping {
            let _ = std::fs::remove_file(&self.hidden);
        }
    }
}

/// Returns how the hidden names for a target begin.
fn hidden_name(target: &Path) -> io::Result<String> {
    let name = target
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    // The name itself would not fit when it is as long as names can be.
    let digest = Sha256::digest(name.as_encoded_bytes());
    let digest = data_encoding::HEXLOWER.encode(digest.get(..8).unwrap_or_default());
    Ok(format!("{PART_PREFIX}{digest}"))
}

/// Opens the hidden file, new or there already, for its owner alone and without following a link.
fn own_file(hidden: &Path, is_there: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(!is_there);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // A pipe that nobody reads must not hold us up either.
        options
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .mode(HIDDEN_MODE);
    }
    options.open(hidden)
}

/// Returns true when nobody else can read or write what is in a file that was there.
fn is_ours(found: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let is_private = found.mode() & 0o077 == 0 && found.nlink() == 1;
        found.is_file() && is_private && found.uid() == own_id()
    }
    #[cfg(not(unix))]
    found.is_file()
}

/// Returns the user that this process acts as; nobody, where the system does not tell.
#[cfg(unix)]
fn own_id() -> u32 {
    static ID: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *ID.get_or_init(|| {
        let ids = status("Uid:").unwrap_or_default();
        // Real, effective, saved, of the file system.
        let effective = ids.split_whitespace().nth(1);
        effective.and_then(|id| id.parse().ok()).unwrap_or(u32::MAX)
    })
}

/// Returns the permissions that a finished file gets: those of any new file of this process, where the system tells.
#[cfg(unix)]
fn finished_mode() -> u32 {
    static MODE: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *MODE.get_or_init(|| {
        let mask = status("Umask:").and_then(|mask| u32::from_str_radix(&mask, 8).ok());
        mask.map_or(HIDDEN_MODE, |mask| 0o666 & !mask)
    })
}

/// Returns what Linux says of this process.
#[cfg(unix)]
fn status(key: &str) -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.trim().to_owned())
}

fn closed() -> io::Error {
    io::Error::other("the download is finished already")
}

/// How the hidden names begin.
pub const PART_PREFIX: &str = ".kastro-part-";
/// Permissions of a hidden file.
#[cfg(unix)]
const HIDDEN_MODE: u32 = 0o600;
/// New files at least this long are on the disk before they get their name; a shorter one that a power cut takes back has
/// no content and is fetched again.
const SYNCED_BYTES: u64 = 1 << 20;
/// Characters of a state in a hidden name.
const STATE_CHARS: usize = 32;
/// Zeros at least this long are not written.
const HOLE_BYTES: usize = 64 * 1024;
const HOLE_BYTES_I64: i64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nothing_is_seen_before_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.txt");
        let mut partial = PartialFile::create(&target).unwrap();
        partial.append(b"hello").unwrap();
        assert!(!target.exists());
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        partial.finish(Some(modified)).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"hello");
        assert_eq!(target.metadata().unwrap().modified().unwrap(), modified);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_abandoned_download_leaves_nothing_and_touches_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.txt");
        std::fs::write(&target, b"old").unwrap();
        let mut partial = PartialFile::create(&target).unwrap();
        partial.append(b"new").unwrap();
        drop(partial);
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_right_is_gone_on_with_and_other_states_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.txt");
        let mut partial = PartialFile::take_up(&target, "one").unwrap();
        assert_eq!(partial.keep_while(4, |_, _| true).unwrap(), 0);
        partial.append(b"aaaabbbbcc").unwrap();
        drop(partial);
        let mut seen = Vec::new();
        let mut partial = PartialFile::take_up(&target, "one").unwrap();
        let kept = partial.keep_while(4, |index, chunk| {
            seen.push((index, chunk.to_vec()));
            chunk == b"aaaa"
        });
        assert_eq!(kept.unwrap(), 1);
        assert_eq!(seen.len(), 2);
        partial.append(b"XXXX").unwrap();
        partial.finish(None).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"aaaaXXXX");
        let mut partial = PartialFile::take_up(&target, "two").unwrap();
        partial.append(b"aaaa").unwrap();
        drop(partial);
        let mut partial = PartialFile::take_up(&target, "three").unwrap();
        assert_eq!(partial.keep_while(4, |_, _| true).unwrap(), 0);
        drop(partial);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_downloads_to_one_name_do_not_mix() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.txt");
        let _first = PartialFile::create(&target).unwrap();
        let second = PartialFile::create(&target).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn zeros_read_back_as_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("sparse");
        let mut content = vec![1_u8; HOLE_BYTES];
        content.resize(5 * HOLE_BYTES + 17, 0);
        let mut partial = PartialFile::create(&target).unwrap();
        partial.append(&content).unwrap();
        partial.finish(None).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), content);
    }

    #[cfg(unix)]
    #[test]
    fn fs_4_what_somebody_planted_is_neither_followed_nor_written() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.txt");
        let victim = folder.path().join("victim");
        std::fs::write(&victim, b"keep").unwrap();
        let hidden = PartialFile::create(&target).unwrap().hidden.clone();
        let plants: [&dyn Fn(); 3] = [
            &|| std::os::unix::fs::symlink(&victim, &hidden).unwrap(),
            &|| std::fs::hard_link(&victim, &hidden).unwrap(),
            &|| {
                std::fs::write(&hidden, b"kept open by somebody").unwrap();
                let all = std::fs::Permissions::from_mode(0o666);
                std::fs::set_permissions(&hidden, all).unwrap();
            },
        ];
        for plant in plants {
            plant();
            let planted = std::fs::symlink_metadata(&hidden).unwrap();
            // As long as somebody has it open its number is not given out again.
            let _spy = File::open(&hidden).unwrap();
            let mut partial = PartialFile::create(&target).unwrap();
            let found = std::fs::symlink_metadata(&hidden).unwrap();
            assert!(found.is_file());
            assert!(planted.is_symlink() || found.ino() != planted.ino());
            assert_eq!(found.mode() & 0o777, 0o600, "nobody else reads along");
            partial.append(b"new").unwrap();
            partial.finish(None).unwrap();
            assert_eq!(std::fs::read(&target).unwrap(), b"new");
            assert_eq!(std::fs::read(&victim).unwrap(), b"keep");
        }
        // Finished, it is like any file that is made here.
        let other = folder.path().join("other");
        std::fs::write(&other, b"").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
        assert_eq!(mode(&target), mode(&other));
        // What cannot be put aside is not written over.
        std::fs::create_dir(&hidden).unwrap();
        assert!(PartialFile::create(&target).is_err());
    }
}
