//! A bounded copy on the node's own disk of what was read from the object store lately.
//!
//! It holds the same ciphertext that the store holds. It is asked only after the index has said that the user has
//! the block, and under a name made of user and block, so it never answers for somebody else; what it answers is
//! checked against the CID like everything else. It is never flushed: a torn file fails that check and is dropped.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use champ::{Block, Cid, MAX_BLOCK_BYTES, text::to_hex};
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::{
    random::random,
    store::{
        Partition, StoreError,
        split::{BlockBytes, BlockHead, ListedBytes},
    },
};

/// What a file takes on the disk at least.
const FILE_UNIT_BYTES: u64 = 4096;
/// Files are spread over this many folders by the first byte of their name.
const FOLDERS: u16 = 256;
/// Beginning of the names of files that are being written.
const UNFINISHED: &str = "new-";

/// How a cache does.
#[derive(Debug, Default)]
pub struct CacheCounts {
    hits: AtomicU64,
    misses: AtomicU64,
    evicted: AtomicU64,
    bytes: AtomicU64,
}

impl CacheCounts {
    /// Returns how many reads were answered from the cache.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Returns how many reads had to go to the object store.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// Returns how many blocks were dropped to make room.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Returns how many bytes of the disk are taken.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Puts a cache in front of a place for bytes.
pub(super) struct Cached {
    behind: Arc<dyn BlockBytes>,
    shelf: Arc<Shelf>,
}

/// The files.
struct Shelf {
    folder: PathBuf,
    max_bytes: u64,
    order: Mutex<Order>,
    counts: Arc<CacheCounts>,
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
type Name = [u8; 16];

impl Cached {
    /// Opens the cache in a folder, which is made if it does not exist.
    pub(super) async fn open(
        behind: Arc<dyn BlockBytes>,
        folder: PathBuf,
        max_bytes: u64,
    ) -> Result<Self, StoreError> {
        let shelf = tokio::task::spawn_blocking(move || Shelf::open(folder, max_bytes))
            .await
            .map_err(|_| StoreError::Closed)??;
        Ok(Self {
            behind,
            shelf: Arc::new(shelf),
        })
    }

    pub(super) fn counts(&self) -> Arc<CacheCounts> {
        Arc::clone(&self.shelf.counts)
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shelf) -> T + Send + 'static,
    ) -> Option<T> {
        let shelf = Arc::clone(&self.shelf);
        tokio::task::spawn_blocking(move || work(&shelf)).await.ok()
    }
}

#[async_trait::async_trait]
impl BlockBytes for Cached {
    async fn put(&self, partition: &Partition, block: &Block) -> Result<(), StoreError> {
        self.behind.put(partition, block).await
    }

    fn list(&self) -> BoxStream<'_, Result<ListedBytes, StoreError>> {
        self.behind.list()
    }

    async fn get(&self, partition: &Partition, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        let name = name_of(partition, cid);
        let wanted = cid.clone();
        let found = match self.shelf.knows(&name) {
            true => self.on_disk(move |shelf| shelf.read(&name, &wanted)).await,
            false => None,
        };
        if let Some(Some(bytes)) = found {
            self.shelf.counts.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(bytes));
        }
        self.shelf.counts.misses.fetch_add(1, Ordering::Relaxed);
        let Some(bytes) = self.behind.get(partition, cid).await? else {
            return Ok(None);
        };
        if cid.matches(&bytes) {
            let copy = bytes.clone();
            // Failing to keep a copy is no reason to fail a read.
            self.on_disk(move |shelf| shelf.keep(name, &copy)).await;
        }
        Ok(Some(bytes))
    }

    async fn head(
        &self,
        partition: &Partition,
        cid: &Cid,
    ) -> Result<Option<BlockHead>, StoreError> {
        // Asked only about blocks that nobody has read yet.
        self.behind.head(partition, cid).await
    }

    fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        let counts = &self.shelf.counts;
        vec![
            (
                "kastro_cache_hits",
                "Reads answered from the cache since the start.",
                counts.hits(),
            ),
            (
                "kastro_cache_misses",
                "Reads that went to the object store since the start.",
                counts.misses(),
            ),
            (
                "kastro_cache_evicted",
                "Blocks dropped from the cache since the start.",
                counts.evicted(),
            ),
            (
                "kastro_cache_bytes",
                "Bytes of disk that the cache takes.",
                counts.bytes(),
            ),
        ]
    }

    async fn remove(&self, partition: &Partition, cids: &[Cid]) -> Vec<Result<(), StoreError>> {
        let names: Vec<Name> = cids
            .iter()
            .map(|cid| name_of(partition, cid))
            .filter(|name| self.shelf.knows(name))
            .collect();
        if !names.is_empty() {
            self.on_disk(move |shelf| {
                for name in names {
                    shelf.drop_file(&name);
                }
            })
            .await;
        }
        self.behind.remove(partition, cids).await
    }
}

impl Shelf {
    fn open(folder: PathBuf, max_bytes: u64) -> Result<Self, StoreError> {
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

    fn path(&self, name: &Name) -> PathBuf {
        let text = to_hex(name);
        self.folder.join(text.get(..2).unwrap_or("00")).join(text)
    }

    fn knows(&self, name: &Name) -> bool {
        self.order.lock().files.contains_key(name)
    }

    /// Reads a file; what does not match the CID is dropped.
    fn read(&self, name: &Name, cid: &Cid) -> Option<Bytes> {
        let bytes = fs::read(self.path(name)).ok();
        let bytes = bytes.filter(|bytes| cid.matches(bytes)).map(Bytes::from);
        match bytes {
            Some(_) => self.order.lock().touch(name),
            None => self.drop_file(name),
        }
        bytes
    }

    fn keep(&self, name: Name, bytes: &[u8]) {
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

    fn drop_file(&self, name: &Name) {
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

fn name_of(partition: &Partition, cid: &Cid) -> Name {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what is asked of it.
    #[derive(Default)]
    struct Behind {
        blocks: Mutex<HashMap<(Partition, Cid), Bytes>>,
        reads: AtomicU64,
    }

    #[async_trait::async_trait]
    impl BlockBytes for Behind {
        async fn put(&self, partition: &Partition, block: &Block) -> Result<(), StoreError> {
            let key = (partition.clone(), block.cid().clone());
            self.blocks.lock().insert(key, block.bytes().clone());
            Ok(())
        }

        async fn get(&self, partition: &Partition, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let key = (partition.clone(), cid.clone());
            Ok(self.blocks.lock().get(&key).cloned())
        }

        async fn head(&self, _: &Partition, _: &Cid) -> Result<Option<BlockHead>, StoreError> {
            Ok(None)
        }

        async fn remove(&self, partition: &Partition, cids: &[Cid]) -> Vec<Result<(), StoreError>> {
            for cid in cids {
                self.blocks.lock().remove(&(partition.clone(), cid.clone()));
            }
            vec![Ok(()); cids.len()]
        }
    }

    fn block(n: u8, len: usize) -> Block {
        Block::raw(vec![n; len]).unwrap()
    }

    struct Bench {
        behind: Arc<Behind>,
        cached: Cached,
        alice: Partition,
        folder: tempfile::TempDir,
    }

    impl Bench {
        async fn new(max_bytes: u64) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let behind = Arc::new(Behind::default());
            let path = folder.path().join("cache");
            Self {
                cached: Cached::open(behind.clone(), path, max_bytes).await.unwrap(),
                behind,
                alice: Partition::new("u-alice").unwrap(),
                folder,
            }
        }

        async fn put(&self, block: &Block) {
            self.cached.put(&self.alice, block).await.unwrap();
        }

        /// Reads, checks, and returns how often the store behind was asked.
        async fn read(&self, block: &Block) -> u64 {
            let before = self.behind.reads.load(Ordering::Relaxed);
            let found = self.cached.get(&self.alice, block.cid()).await.unwrap();
            assert_eq!(found.as_ref(), Some(block.bytes()));
            self.behind.reads.load(Ordering::Relaxed) - before
        }
    }

    #[tokio::test]
    async fn the_second_read_stays_on_this_machine_also_after_a_restart() {
        let mut bench = Bench::new(1 << 20).await;
        let block = block(1, 5000);
        bench.put(&block).await;
        assert_eq!(bench.read(&block).await, 1);
        assert_eq!(bench.read(&block).await, 0);
        let path = bench.folder.path().join("cache");
        fs::write(path.join("00").join("new-0123"), b"torn").unwrap();
        bench.cached = Cached::open(bench.behind.clone(), path.clone(), 1 << 20)
            .await
            .unwrap();
        assert_eq!(bench.read(&block).await, 0);
        assert!(!path.join("00").join("new-0123").exists());
        assert_eq!(bench.cached.counts().bytes(), 8192);
        assert_eq!(
            (bench.cached.counts().hits(), bench.cached.counts().misses()),
            (1, 0)
        );
    }

    #[tokio::test]
    async fn the_bound_holds_and_the_least_used_goes_first() {
        let bench = Bench::new(3 * 4096).await;
        let blocks: Vec<Block> = (0..4).map(|n| block(n, 100)).collect();
        for block in &blocks {
            bench.put(block).await;
        }
        for block in &blocks[..3] {
            assert_eq!(bench.read(block).await, 1);
        }
        assert_eq!(bench.read(&blocks[0]).await, 0);
        assert_eq!(bench.read(&blocks[3]).await, 1);
        assert_eq!(bench.read(&blocks[0]).await, 0);
        assert_eq!(bench.read(&blocks[1]).await, 1);
        assert_eq!(bench.cached.counts().bytes(), 3 * 4096);
        assert_eq!(bench.cached.counts().evicted(), 2);
        let large = block(9, 4 * 4096);
        bench.put(&large).await;
        assert_eq!(bench.read(&large).await, 1);
        assert_eq!(bench.read(&large).await, 1);
    }

    #[tokio::test]
    async fn rel_6_damaged_copies_are_never_served() {
        let bench = Bench::new(1 << 20).await;
        let block = block(1, 5000);
        bench.put(&block).await;
        bench.read(&block).await;
        let path = bench.cached.shelf.path(&name_of(&bench.alice, block.cid()));
        let good = fs::read(&path).unwrap();
        for bad in [&good[..4000], b"", &[0_u8; 5000][..]] {
            fs::write(&path, bad).unwrap();
            assert_eq!(bench.read(&block).await, 1);
            assert_eq!(bench.read(&block).await, 0);
        }
        // What the store behind damages is handed on as it is and not kept.
        bench
            .cached
            .remove(&bench.alice, std::slice::from_ref(block.cid()))
            .await;
        let key = (bench.alice.clone(), block.cid().clone());
        bench
            .behind
            .blocks
            .lock()
            .insert(key, Bytes::from_static(b"wrong"));
        for _ in 0..2 {
            let found = bench.cached.get(&bench.alice, block.cid()).await.unwrap();
            assert_eq!(found.unwrap(), "wrong");
        }
        assert_eq!(bench.cached.counts().bytes(), 0);
    }

    #[tokio::test]
    async fn nobody_is_answered_from_the_space_of_another() {
        let bench = Bench::new(1 << 20).await;
        let block = block(1, 500);
        bench.put(&block).await;
        bench.read(&block).await;
        let bob = Partition::new("u-bob").unwrap();
        assert_eq!(bench.cached.get(&bob, block.cid()).await.unwrap(), None);
        bench
            .cached
            .remove(&bench.alice, std::slice::from_ref(block.cid()))
            .await;
        assert_eq!(
            bench.cached.get(&bench.alice, block.cid()).await.unwrap(),
            None
        );
    }
}
