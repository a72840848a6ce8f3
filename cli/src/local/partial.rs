//! A download in progress: written under a hidden name, moved to its own name when complete.
//!
//! Invariant: a file is never seen under its final name with partial content; an interrupted download leaves at
//! most one hidden file, which the next attempt goes on with or replaces.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, Metadata, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    time::SystemTime,
};

use sha2::{Digest, Sha256};

use super::folder::Folder;

/// A file being downloaded. Removed on drop unless [`Self::finish`] was called, or it can be taken up later.
#[derive(Debug)]
pub struct PartialFile {
    file: Option<File>,
    folder: Folder,
    /// Empty once the file has its own name.
    hidden: String,
    target: OsString,
    position: u64,
    /// What is there when this is dropped is worth something to the next attempt.
    stays: bool,
}

impl PartialFile {
    /// Opens an empty hidden file in a folder, to become `target` there; removed on drop.
    ///
    /// # Errors
    ///
    /// Of the file system; `WouldBlock` when another process downloads to the same name.
    pub fn create(folder: &Folder, target: impl AsRef<OsStr>) -> io::Result<Self> {
        let target = target.as_ref();
        let partial = Self::open(folder, target, hidden_name(target))?;
        partial.file()?.set_len(0)?;
        Ok(partial)
    }

    /// Opens the hidden file of one state of the remote file with what an earlier download left in it, and removes what is
    /// left of other states. What is complete stays on drop, for the next attempt.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn take_up(folder: &Folder, target: impl AsRef<OsStr>, state: &str) -> io::Result<Self> {
        let target = target.as_ref();
        let common = hidden_name(target);
        let own = format!("{common}-{}", state.get(..STATE_CHARS).unwrap_or(state));
        for name in folder.names()? {
            if let Some(name) = name.to_str()
                && name.starts_with(&common)
                && name != own
            {
                let _ = folder.remove_file(name);
            }
        }
        let mut partial = Self::open(folder, target, own)?;
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

    fn open(folder: &Folder, target: &OsStr, hidden: String) -> io::Result<Self> {
        let file = match folder.open_own(&hidden, false) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                match folder.open_own(&hidden, true) {
                    Ok(file) if is_ours(&file.metadata()?) => file,
                    // Somebody has put a link or a file of theirs there, in a folder that many can write.
                    _ => {
                        folder.remove_file(&hidden)?;
                        folder.open_own(&hidden, false)?
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
            folder: folder.clone(),
            hidden,
            target: target.to_owned(),
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

    /// Completes the file, gives it its name and modification time, and returns how it looks. A file that has the name is
    /// replaced only if `replaces` says so.
    ///
    /// # Errors
    ///
    /// Of the file system; `AlreadyExists` when something has the name that is not to be replaced.
    pub fn finish(mut self, modified: Option<SystemTime>, replaces: bool) -> io::Result<Metadata> {
        let file = self.file.take().ok_or_else(closed)?;
        file.set_len(self.position)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(finished_mode()))?;
        if self.position >= SYNCED_BYTES || replaces {
            // What it replaces must not be gone before this is on the disk.
            file.sync_all()?;
        }
        if let Some(modified) = modified {
            file.set_modified(modified)?;
        }
        let found = file.metadata()?;
        let folder = &self.folder;
        match replaces {
            true => folder.replace(&self.hidden, folder, &self.target)?,
            false => folder.rename(&self.hidden, folder, &self.target)?,
        }
        self.hidden.clear();
        Ok(found)
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        let is_worth_keeping = self.stays && self.position > 0;
        if !self.hidden.is_empty() && !is_worth_keeping {
            let _ = self.folder.remove_file(&self.hidden);
        }
        if let Some(file) = &self.file {
            // A program that is being started at this moment has a copy of the file until it runs: closing this one alone
            // would leave the lock to it.
            let _ = file.unlock();
        }
    }
}

/// Returns how the hidden names for a target begin.
fn hidden_name(target: &OsStr) -> String {
    // The name itself would not fit when it is as long as names can be.
    let digest = Sha256::digest(target.as_encoded_bytes());
    let digest = data_encoding::HEXLOWER.encode(digest.get(..8).unwrap_or_default());
    format!("{PART_PREFIX}{digest}")
}

/// Returns true when nobody else can read or write what is in a file that was there.
fn is_ours(found: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let is_private = found.mode() & 0o077 == 0 && found.nlink() == 1;
    found.is_file() && is_private && found.uid() == own_id()
}

/// Returns the user that this process acts as; nobody, where the system does not tell.
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
fn finished_mode() -> u32 {
    static MODE: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *MODE.get_or_init(|| {
        let mask = status("Umask:").and_then(|mask| u32::from_str_radix(&mask, 8).ok());
        mask.map_or(HIDDEN_MODE, |mask| 0o666 & !mask)
    })
}

/// Returns what Linux says of this process.
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
/// Permissions of a file where the system does not tell those of a new one.
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
    use std::{path::Path, time::Duration};

    use super::*;

    fn create(target: &Path) -> io::Result<PartialFile> {
        let (folder, name) = Folder::holding(target)?;
        PartialFile::create(&folder, name)
    }

    fn take_up(target: &Path, state: &str) -> io::Result<PartialFile> {
        let (folder, name) = Folder::holding(target)?;
        PartialFile::take_up(&folder, name, state)
    }

    #[test]
    fn nothing_is_seen_before_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.txt");
        let mut partial = create(&target).unwrap();
        partial.append(b"hello").unwrap();
        assert!(!target.exists());
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        partial.finish(Some(modified), false).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"hello");
        assert_eq!(target.metadata().unwrap().modified().unwrap(), modified);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_abandoned_download_leaves_nothing_and_touches_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.txt");
        std::fs::write(&target, b"old").unwrap();
        let mut partial = create(&target).unwrap();
        partial.append(b"new").unwrap();
        drop(partial);
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_came_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.txt");
        let mut partial = create(&target).unwrap();
        partial.append(b"new").unwrap();
        std::fs::write(&target, b"from elsewhere").unwrap();
        let error = partial.finish(None, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&target).unwrap(), b"from elsewhere");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_right_is_gone_on_with_and_other_states_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.txt");
        let mut partial = take_up(&target, "one").unwrap();
        assert_eq!(partial.keep_while(4, |_, _| true).unwrap(), 0);
        partial.append(b"aaaabbbbcc").unwrap();
        drop(partial);
        let mut seen = Vec::new();
        let mut partial = take_up(&target, "one").unwrap();
        let kept = partial.keep_while(4, |index, chunk| {
            seen.push((index, chunk.to_vec()));
            chunk == b"aaaa"
        });
        assert_eq!(kept.unwrap(), 1);
        assert_eq!(seen.len(), 2);
        partial.append(b"XXXX").unwrap();
        partial.finish(None, true).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"aaaaXXXX");
        let mut partial = take_up(&target, "two").unwrap();
        partial.append(b"aaaa").unwrap();
        drop(partial);
        let mut partial = take_up(&target, "three").unwrap();
        assert_eq!(partial.keep_while(4, |_, _| true).unwrap(), 0);
        drop(partial);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_downloads_to_one_name_do_not_mix() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.txt");
        let _first = create(&target).unwrap();
        let second = create(&target).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn zeros_read_back_as_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("sparse");
        let mut content = vec![1_u8; HOLE_BYTES];
        content.resize(5 * HOLE_BYTES + 17, 0);
        let mut partial = create(&target).unwrap();
        partial.append(&content).unwrap();
        partial.finish(None, true).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), content);
    }

    #[test]
    fn fs_4_what_somebody_planted_is_neither_followed_nor_written() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.txt");
        let victim = folder.path().join("victim");
        std::fs::write(&victim, b"keep").unwrap();
        let hidden = folder.path().join(&create(&target).unwrap().hidden);
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
            let mut partial = create(&target).unwrap();
            let found = std::fs::symlink_metadata(&hidden).unwrap();
            assert!(found.is_file());
            assert!(planted.is_symlink() || found.ino() != planted.ino());
            assert_eq!(found.mode() & 0o777, 0o600, "nobody else reads along");
            partial.append(b"new").unwrap();
            partial.finish(None, true).unwrap();
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
        assert!(create(&target).is_err());
    }
}
