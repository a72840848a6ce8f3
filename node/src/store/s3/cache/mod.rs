//! A bounded copy on the node's own disk of what was read from the object store lately.
//!
//! It holds the same ciphertext that the store holds. It is asked only after the index has said that the user has
//! the block, and under a name made of user and block, so it never answers for somebody else; what it answers is
//! checked against the CID like everything else. It is never flushed: a torn file fails that check and is dropped.
//!
//! [`shelf`] has the files and their order.

mod shelf;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use champ::{Block, Cid};
use futures_util::stream::BoxStream;

use crate::store::{
    Partition, StoreError,
    split::{BlockBytes, BlockHead, ListedBytes},
};

use shelf::{Name, Shelf, name_of};

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
pub(in crate::store::s3) struct Cached {
    behind: Arc<dyn BlockBytes>,
    shelf: Arc<Shelf>,
}

impl Cached {
    /// Opens the cache in a folder, which is made if it does not exist.
    pub(in crate::store::s3) async fn open(
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

    pub(in crate::store::s3) fn counts(&self) -> Arc<CacheCounts> {
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

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fs};

    use parking_lot::Mutex;

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
