//! Interleavings that no test over a network meets on purpose (REL-8): bytes in memory that stop where a test says.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use futures_util::{StreamExt as _, stream, stream::BoxStream};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::*;
use crate::store::{MemoryStore, tables};

/// Where the clock begins, seconds since 1970.
const START: u64 = 1_800_000_000;

/// Bytes in memory, with gates before the calls.
#[derive(Default)]
struct Gated {
    stored: Mutex<HashMap<(Partition, Cid), Bytes>>,
    puts: AtomicU64,
    /// Calls of a kind that wait until they are let through.
    gates: Mutex<HashMap<&'static str, Arc<Gate>>>,
}

#[derive(Default)]
struct Gate {
    arrived: Notify,
    open: Notify,
}

impl Gated {
    fn close(&self, kind: &'static str) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        self.gates.lock().insert(kind, gate.clone());
        gate
    }

    async fn pass(&self, kind: &'static str) {
        let gate = self.gates.lock().remove(kind);
        if let Some(gate) = gate {
            gate.arrived.notify_one();
            gate.open.notified().await;
        }
    }

    fn has(&self, cid: &Cid) -> bool {
        self.stored.lock().contains_key(&(alice(), cid.clone()))
    }
}

#[async_trait::async_trait]
impl BlockBytes for Gated {
    async fn put(&self, partition: &Partition, block: &Block) -> Result<(), StoreError> {
        self.pass("before put").await;
        self.puts.fetch_add(1, Ordering::SeqCst);
        let key = (partition.clone(), block.cid().clone());
        self.stored.lock().insert(key, block.bytes().clone());
        self.pass("after put").await;
        Ok(())
    }

    async fn get(&self, partition: &Partition, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        self.pass("get").await;
        let key = (partition.clone(), cid.clone());
        Ok(self.stored.lock().get(&key).cloned())
    }

    async fn head(
        &self,
        partition: &Partition,
        cid: &Cid,
    ) -> Result<Option<BlockHead>, StoreError> {
        let key = (partition.clone(), cid.clone());
        let stored = self.stored.lock();
        Ok(stored.get(&key).map(|bytes| BlockHead {
            size_bytes: bytes.len() as u64,
            head: bytes.slice(..bytes.len().min(HEAD_BYTES)),
        }))
    }

    /// Everything was stored when the clock of these tests began.
    fn list(&self) -> BoxStream<'_, Result<ListedBytes, StoreError>> {
        let stored = self.stored.lock();
        let listed = stored.iter().map(|((partition, cid), bytes)| {
            Ok(ListedBytes {
                partition: partition.clone(),
                cid: cid.clone(),
                size_bytes: bytes.len() as u64,
                modified: SystemTime::UNIX_EPOCH + Duration::from_secs(START),
            })
        });
        stream::iter(listed.collect::<Vec<_>>()).boxed()
    }

    async fn remove(&self, partition: &Partition, cids: &[Cid]) -> Vec<Result<(), StoreError>> {
        self.pass("remove").await;
        let mut stored = self.stored.lock();
        for cid in cids {
            stored.remove(&(partition.clone(), cid.clone()));
        }
        vec![Ok(()); cids.len()]
    }
}

fn alice() -> Partition {
    Partition::new("alice").unwrap()
}

fn block(n: u8) -> Block {
    Block::raw(vec![n; 100]).unwrap()
}

struct Bench {
    bytes: Arc<Gated>,
    store: SplitStore,
    seconds: Arc<AtomicU64>,
}

impl Bench {
    fn new() -> Self {
        let bytes = Arc::new(Gated::default());
        let seconds = Arc::new(AtomicU64::new(START));
        let now = seconds.clone();
        let clock: Clock = Arc::new(move || {
            SystemTime::UNIX_EPOCH + Duration::from_secs(now.load(Ordering::SeqCst))
        });
        let meta: Arc<dyn MetaEngine> = Arc::new(MemoryStore::new());
        Self {
            store: SplitStore::new(meta, bytes.clone(), None, clock),
            bytes,
            seconds,
        }
    }

    async fn put(&self, block: &Block) {
        self.store
            .put_blocks(&alice(), vec![block.clone()], None)
            .await
            .unwrap();
    }

    async fn listed(&self) -> Vec<(Cid, Generation)> {
        let listed = self.store.list_blocks(&alice(), None, 100).await.unwrap();
        listed
            .into_iter()
            .map(|info| (info.cid, info.generation))
            .collect()
    }

    async fn read(&self, block: &Block) -> Option<Block> {
        self.store.block(&alice(), block.cid()).await.unwrap()
    }
}

#[tokio::test]
async fn rel_8_a_put_during_a_deletion_waits_for_it_and_stores_again() {
    let bench = Bench::new();
    let block = block(1);
    bench.put(&block).await;
    let all = bench.listed().await;
    let gate = bench.bytes.close("remove");
    let store = bench.store.clone();
    let deletion = tokio::spawn(async move { store.delete_blocks(&alice(), all).await });
    gate.arrived.notified().await;
    assert_eq!(bench.read(&block).await, None);
    let (store, again) = (bench.store.clone(), block.clone());
    let put = tokio::spawn(async move { store.put_blocks(&alice(), vec![again], None).await });
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(!put.is_finished());
    gate.open.notify_one();
    deletion.await.unwrap().unwrap();
    put.await.unwrap().unwrap();
    assert_eq!(bench.read(&block).await.unwrap(), block);
    assert_eq!(bench.store.block_counts(&alice()).await.unwrap().blocks, 1);
}

#[tokio::test]
async fn rel_8_bytes_stored_before_a_deletion_are_stored_again_before_they_count() {
    let bench = Bench::new();
    let block = block(1);
    bench.put(&block).await;
    let all = bench.listed().await;
    // A second put has stored its bytes and not committed yet, when a whole deletion comes between.
    let gate = bench.bytes.close("after put");
    let (store, again) = (bench.store.clone(), block.clone());
    let put = tokio::spawn(async move { store.put_blocks(&alice(), vec![again], None).await });
    gate.arrived.notified().await;
    let gone = bench.store.delete_blocks(&alice(), all).await.unwrap();
    assert_eq!(gone.removed.blocks, 1);
    assert!(!bench.bytes.has(block.cid()));
    gate.open.notify_one();
    put.await.unwrap().unwrap();
    assert_eq!(bench.read(&block).await.unwrap(), block);
    assert_eq!(bench.bytes.puts.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_first_put_notices_a_put_and_a_deletion_that_came_between() {
    let bench = Bench::new();
    let block = block(1);
    let gate = bench.bytes.close("after put");
    let (store, again) = (bench.store.clone(), block.clone());
    let put = tokio::spawn(async move { store.put_blocks(&alice(), vec![again], None).await });
    gate.arrived.notified().await;
    // Nothing was there when it began, and nothing is there when it commits: only the row that stays tells.
    bench.put(&block).await;
    let all = bench.listed().await;
    bench.store.delete_blocks(&alice(), all).await.unwrap();
    gate.open.notify_one();
    put.await.unwrap().unwrap();
    assert_eq!(bench.read(&block).await.unwrap(), block);
}

#[tokio::test]
async fn rel_8_a_deletion_that_was_decided_before_a_put_keeps_the_block() {
    let bench = Bench::new();
    let block = block(1);
    bench.put(&block).await;
    let all = bench.listed().await;
    bench.put(&block).await;
    let kept = bench.store.delete_blocks(&alice(), all).await.unwrap();
    assert_eq!((kept.kept, kept.removed.blocks), (1, 0));
    assert!(bench.bytes.has(block.cid()));
}

#[tokio::test]
async fn a_read_that_loses_against_a_deletion_finds_nothing_rather_than_damage() {
    let bench = Bench::new();
    let block = block(1);
    bench.put(&block).await;
    let all = bench.listed().await;
    let gate = bench.bytes.close("get");
    let (store, cid) = (bench.store.clone(), block.cid().clone());
    let read = tokio::spawn(async move { store.block(&alice(), &cid).await });
    gate.arrived.notified().await;
    bench.store.delete_blocks(&alice(), all).await.unwrap();
    gate.open.notify_one();
    assert_eq!(read.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_deletion_runs_to_its_end_when_nobody_waits_for_it() {
    let bench = Bench::new();
    let block = block(1);
    bench.put(&block).await;
    let all = bench.listed().await;
    let gate = bench.bytes.close("remove");
    let store = bench.store.clone();
    let deletion = tokio::spawn(async move { store.delete_blocks(&alice(), all).await });
    gate.arrived.notified().await;
    deletion.abort();
    gate.open.notify_one();
    // A put can only get through when it is over.
    bench.put(&block).await;
    assert_eq!(bench.read(&block).await.unwrap(), block);
}

#[tokio::test]
async fn a_deletion_that_broke_off_is_taken_over_when_its_time_is_up() {
    let bench = Bench::new();
    let (dead, other) = (block(1), block(2));
    bench.put(&dead).await;
    bench.put(&other).await;
    // As a process leaves it that was killed between row and bytes.
    let index = &bench.store.inner.index;
    let row = index.row(&alice(), dead.cid()).await.unwrap().unwrap();
    let begun = bench.store.inner.deletion(dead.cid(), row);
    assert!(index.change(&alice(), &[begun], None).await.unwrap());
    assert_eq!(bench.read(&dead).await, None);
    assert_eq!(bench.store.block_counts(&alice()).await.unwrap().blocks, 1);
    bench.store.inner.settle(&alice()).await.unwrap();
    assert!(bench.bytes.has(dead.cid()));
    bench.seconds.fetch_add(30 * 60, Ordering::SeqCst);
    bench.store.inner.settle(&alice()).await.unwrap();
    assert!(!bench.bytes.has(dead.cid()));
    // The row that is left goes when no put can remember an older one.
    bench.seconds.fetch_add(2 * 60 * 60, Ordering::SeqCst);
    bench.store.inner.settle(&alice()).await.unwrap();
    assert_eq!(index.row(&alice(), dead.cid()).await.unwrap(), None);
    assert_eq!(bench.read(&other).await.unwrap(), other);
}

#[tokio::test]
async fn a_put_that_died_before_its_row_leaves_nothing_that_anybody_sees() {
    let bench = Bench::new();
    let block = block(1);
    let gate = bench.bytes.close("after put");
    let (store, first) = (bench.store.clone(), block.clone());
    let put = tokio::spawn(async move { store.put_blocks(&alice(), vec![first], None).await });
    gate.arrived.notified().await;
    put.abort();
    assert!(bench.bytes.has(block.cid()));
    assert_eq!(bench.read(&block).await, None);
    assert!(bench.listed().await.is_empty());
    bench.put(&block).await;
    assert_eq!(bench.read(&block).await.unwrap(), block);
}

#[tokio::test(flavor = "multi_thread")]
async fn rel_8_counts_and_bytes_agree_after_a_stampede() {
    let bench = Bench::new();
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..8_u8 {
        let store = bench.store.clone();
        tasks.spawn(async move {
            for round in 0..40_u8 {
                let n = (worker + round) % 10;
                if round % 4 == 3 {
                    let listed = store.list_blocks(&alice(), None, 100).await.unwrap();
                    let some = listed
                        .into_iter()
                        .skip(usize::from(worker) % 3)
                        .step_by(3)
                        .map(|info| (info.cid, info.generation))
                        .collect();
                    store.delete_blocks(&alice(), some).await.unwrap();
                } else {
                    let blocks = vec![block(n), block(n + 10)];
                    store.put_blocks(&alice(), blocks, None).await.unwrap();
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let live = bench.listed().await;
    for (cid, _) in &live {
        let found = bench.store.block(&alice(), cid).await.unwrap();
        assert_eq!(found.unwrap().cid(), cid);
    }
    let counts = bench.store.block_counts(&alice()).await.unwrap();
    assert_eq!(counts.blocks, live.len() as u64);
    assert_eq!(counts.bytes, live.len() as u64 * 100);
    assert_eq!(bench.bytes.stored.lock().len(), live.len());
}

#[tokio::test]
async fn metadata_of_others_is_left_alone() {
    let bench = Bench::new();
    let batch = Batch::new().put(tables::NODE, "k", "v");
    assert!(bench.store.commit(batch).await.unwrap().is_committed());
    bench.put(&block(1)).await;
    let value = bench.store.get(tables::NODE, b"k").await.unwrap();
    assert_eq!(value.unwrap(), "v");
}

impl Bench {
    /// Leaves bytes without a row, as a process that died in a put does.
    fn leave(&self, block: &Block) {
        let key = (alice(), block.cid().clone());
        self.bytes.stored.lock().insert(key, block.bytes().clone());
    }

    fn pass_time(&self, time: Duration) {
        self.seconds.fetch_add(time.as_secs(), Ordering::SeqCst);
    }
}

#[tokio::test]
async fn bytes_that_no_row_knows_go_when_they_are_old() {
    let bench = Bench::new();
    let (stray, live) = (block(1), block(2));
    bench.put(&live).await;
    bench.leave(&stray);
    let none = bench.store.strays(true).await.unwrap();
    assert_eq!(none, Orphans::default());
    bench.pass_time(strays::SAFE_AGE + Duration::from_secs(1));
    let found = bench.store.strays(false).await.unwrap();
    assert_eq!((found.found.blocks, found.found.bytes), (1, 100));
    assert_eq!(found.removed, 0);
    assert!(bench.bytes.has(stray.cid()));
    let swept = bench.store.strays(true).await.unwrap();
    assert_eq!((swept.found.blocks, swept.removed), (1, 1));
    assert!(!bench.bytes.has(stray.cid()));
    assert_eq!(bench.read(&live).await, Some(live));
    assert_eq!(bench.listed().await.len(), 1);
    let again = bench.store.strays(true).await.unwrap();
    assert_eq!(again.found.blocks, 0);
    bench.put(&stray).await;
    assert_eq!(bench.read(&stray).await, Some(stray));
    let counts = bench.store.block_counts(&alice()).await.unwrap();
    assert_eq!(counts.blocks, 2);
}

#[tokio::test]
async fn rel_8_a_put_whose_bytes_are_swept_before_its_commit_stores_them_again() {
    let bench = Bench::new();
    let block = block(1);
    bench.leave(&block);
    let gate = bench.bytes.close("after put");
    let (store, wanted) = (bench.store.clone(), block.clone());
    let put = tokio::spawn(async move { store.put_blocks(&alice(), vec![wanted], None).await });
    gate.arrived.notified().await;
    // The listing is of before the put: its time still is that of the older bytes.
    bench.pass_time(strays::SAFE_AGE + Duration::from_secs(1));
    let swept = bench.store.strays(true).await.unwrap();
    assert_eq!(swept.removed, 1);
    assert!(!bench.bytes.has(block.cid()));
    gate.open.notify_one();
    put.await.unwrap().unwrap();
    assert_eq!(bench.read(&block).await, Some(block));
}

#[tokio::test]
async fn rel_8_a_put_that_meets_a_sweep_waits_for_it() {
    let bench = Bench::new();
    let block = block(1);
    bench.leave(&block);
    bench.pass_time(strays::SAFE_AGE + Duration::from_secs(1));
    let gate = bench.bytes.close("remove");
    let store = bench.store.clone();
    let sweep = tokio::spawn(async move { store.strays(true).await });
    gate.arrived.notified().await;
    let (store, wanted) = (bench.store.clone(), block.clone());
    let put = tokio::spawn(async move { store.put_blocks(&alice(), vec![wanted], None).await });
    while !put.is_finished() && bench.bytes.puts.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
        gate.open.notify_one();
    }
    put.await.unwrap().unwrap();
    assert_eq!(sweep.await.unwrap().unwrap().removed, 1);
    assert_eq!(bench.read(&block).await, Some(block));
}
