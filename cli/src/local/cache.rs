//! Blocks kept on disk between commands: encrypted, as the node has them (Spec: 21 §2.2).
//!
//! Two generations instead of an order of use: what is read moves to the young one; when that holds half of what the cache
//! may hold it becomes the old one, and the previous old one is deleted. Several processes may use a cache at once. Nothing in
//! it is believed: whoever reads it hashes it again. Losing it loses nothing, so nothing is flushed.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use bytes::Bytes;
use champ::Cid;
use cryptree::client::BlockKeeper;

use crate::local::private;

/// A folder of blocks within a budget of bytes.
#[derive(Debug)]
pub struct DiskCache {
    folder: PathBuf,
    max_bytes: u64,
}

impl DiskCache {
    /// Opens or makes a cache that holds at most `max_bytes`.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn open(folder: &Path, max_bytes: u64) -> io::Result<Self> {
        private::make_folder(&folder.join(YOUNG))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            max_bytes,
        })
    }

    fn path(&self, generation: &str, name: &str) -> PathBuf {
        // The end of a name is random, its beginning is not.
        let shelf = name.get(name.len().saturating_sub(2)..).unwrap_or("_");
        self.folder.join(generation).join(shelf).join(name)
    }

    fn read(&self, cid: &Cid) -> io::Result<Vec<u8>> {
        let name = cid.to_string();
        let young = self.path(YOUNG, &name);
        match fs::read(&young) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let bytes = fs::read(self.path(OLD, &name))?;
        // Written again instead of renamed: the old generation may be on its way out.
        let _ = self.write(&name, &bytes);
        Ok(bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(YOUNG, name);
        if path.exists() {
            return Ok(());
        }
        let shelf = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(shelf)?;
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let written = fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, &path));
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        written?;
        self.grow(bytes.len() as u64 + ENTRY_BYTES)
    }

    /// Counts what was added, and changes generations when it is enough.
    fn grow(&self, bytes: u64) -> io::Result<()> {
        // As long as there are units in use: adding to the end is the one way to count together with others.
        let units = self.folder.join(YOUNG).join("units");
        let mut file = OpenOptions::new().append(true).create(true).open(units)?;
        let count = usize::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(usize::MAX);
        let unit = [b'.'; MAX_UNITS];
        file.write_all(unit.get(..count).unwrap_or(&unit))?;
        let used = file.metadata()?.len().saturating_mul(UNIT_BYTES);
        if used > self.max_bytes / 2 {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&self) -> io::Result<()> {
        let (young, old) = (self.folder.join(YOUNG), self.folder.join(OLD));
        let doomed = self.folder.join(format!("doomed-{}", std::process::id()));
        let _ = fs::rename(&old, &doomed);
        let turned = fs::rename(&young, &old);
        let _ = fs::remove_dir_all(&doomed);
        match turned {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }?;
        fs::create_dir_all(young)
    }
}

#[async_trait]
impl BlockKeeper for DiskCache {
    async fn load(&self, cid: &Cid) -> Option<Bytes> {
        self.read(cid).ok().map(Bytes::from)
    }

    async fn keep(&self, cid: &Cid, bytes: &Bytes) {
        if bytes.len() as u64 > self.max_bytes / 1024 {
            return;
        }
        if let Err(error) = self.write(&cid.to_string(), bytes) {
            tracing::debug!(%error, "a block could not be kept");
        }
    }
}

const YOUNG: &str = "young";
const OLD: &str = "old";
/// What is counted at once.
const UNIT_BYTES: u64 = 4096;
/// Most units of one block: 1 MiB and its access token.
const MAX_UNITS: usize = 260;
/// What a small file costs on disk beyond its bytes.
const ENTRY_BYTES: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn block(n: u32, bytes: usize) -> (Cid, Bytes) {
        let mut content = vec![0; bytes];
        content[..4].copy_from_slice(&n.to_be_bytes());
        (Cid::of_raw(&content), content.into())
    }

    fn held(folder: &Path) -> u64 {
        let mut bytes = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let found = entry.metadata().unwrap();
            bytes += match found.is_dir() {
                true => held(&entry.path()),
                false => found.len(),
            };
        }
        bytes
    }

    #[tokio::test]
    async fn it_stays_within_its_budget_and_keeps_what_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(folder.path(), 8_400_000).unwrap();
        let (kept, content) = block(u32::MAX, 1000);
        cache.keep(&kept, &content).await;
        for n in 0..1800 {
            let (cid, bytes) = block(n, 8000);
            cache.keep(&cid, &bytes).await;
            assert_eq!(
                cache.load(&kept).await.as_ref(),
                Some(&content),
                "lost after {n}"
            );
            assert_eq!(cache.load(&cid).await, Some(bytes));
        }
        assert!(held(folder.path()) <= 8_400_000, "{}", held(folder.path()));
        assert!(cache.load(&block(0, 8000).0).await.is_none());
        // Another process finds it.
        let again = DiskCache::open(folder.path(), 8_400_000).unwrap();
        assert!(again.load(&kept).await.is_some());
    }

    #[tokio::test]
    async fn what_is_too_large_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(folder.path(), 8_400_000).unwrap();
        let (cid, bytes) = block(1, 9000);
        cache.keep(&cid, &bytes).await;
        assert!(cache.load(&cid).await.is_none());
    }
}
