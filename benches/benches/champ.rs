//! CHAMP by number of keys: single reads, batches of puts, and reading a whole tree.
//!
//! `cargo bench -p benches --bench champ` prints, before the timings, how many blocks each batch writes:
//! round trips and stored bytes matter more than the time in memory. Keys are 32 uniformly distributed
//! bytes and values links, as in the file tree of a writer.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use champ::{
    Cid, Codec, MemoryBlocks, Multihash,
    cbor::Value,
    map::{Champ, Change},
};
use divan::{Bencher, counter::ItemsCount};
use futures_util::FutureExt;

const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
const BATCH: u64 = 1_000;

fn main() {
    #[expect(
        clippy::print_stdout,
        reason = "the counts are a result of the benchmark"
    )]
    for size in SIZES {
        let tree = tree(size);
        let mut champ = Champ::at(tree.root.clone());
        put(&mut champ, size..size + 1, &tree.stored);
        let (_, one) = finish(&mut champ);
        put(&mut champ, size + 1..size + 1 + BATCH, &tree.stored);
        let (_, batch) = finish(&mut champ);
        println!(
            "{size:>9} keys: {} nodes, {:.1} MB; one put writes {} blocks, {} B; {BATCH} puts in one batch {} blocks, {} kB",
            tree.stored.len(),
            bytes(tree.stored.iter()) as f64 / 1e6,
            one.len(),
            bytes(one.iter()),
            batch.len(),
            bytes(batch.iter()) / 1000,
        );
    }
    divan::main();
}

/// Reads one key of a tree whose nodes are not in memory: decoding of one node per level.
#[divan::bench(args = SIZES)]
fn get_cold(bencher: Bencher<'_, '_>, size: u64) {
    let tree = tree(size);
    let turn = AtomicU64::new(0);
    bencher
        .with_inputs(|| {
            let key = key(turn.fetch_add(7919, Relaxed) % size);
            (Champ::at(tree.root.clone()), key)
        })
        .bench_refs(|(champ, key)| now(champ.get(key, &tree.stored)));
}

/// Reads one key of a tree that is in memory.
#[divan::bench(args = SIZES)]
fn get_warm(bencher: Bencher<'_, '_>, size: u64) {
    let tree = tree(size);
    let champ = Champ::at(tree.root.clone());
    let keys: Vec<[u8; 32]> = (0..size).map(key).collect();
    now(champ.load(&keys, &tree.stored)).ok();
    let turn = AtomicU64::new(0);
    bencher
        .with_inputs(|| key(turn.fetch_add(7919, Relaxed) % size))
        .bench_refs(|key| now(champ.get(key, &tree.stored)));
}

/// Puts one new key and encodes the new nodes.
#[divan::bench(args = SIZES)]
fn put_one(bencher: Bencher<'_, '_>, size: u64) {
    let tree = tree(size);
    bencher
        .with_inputs(|| Champ::at(tree.root.clone()))
        .bench_refs(|champ| {
            put(champ, size..size + 1, &tree.stored);
            finish(champ)
        });
}

/// Puts a batch of new keys and encodes the new nodes.
#[divan::bench(args = SIZES, sample_count = 10)]
fn put_batch(bencher: Bencher<'_, '_>, size: u64) {
    let tree = tree(size);
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| Champ::at(tree.root.clone()))
        .bench_refs(|champ| {
            put(champ, size..size + BATCH, &tree.stored);
            finish(champ)
        });
}

/// Builds the whole tree in memory and encodes it once.
#[divan::bench(args = SIZES, sample_count = 1, sample_size = 1)]
fn build(bencher: Bencher<'_, '_>, size: u64) {
    let stored = MemoryBlocks::new();
    bencher.counter(ItemsCount::new(size)).bench_local(|| {
        let mut champ = Champ::empty();
        put(&mut champ, 0..size, &stored);
        finish(&mut champ)
    });
}

/// Visits every mapping, from blocks.
#[divan::bench(args = SIZES, sample_count = 3, sample_size = 1)]
fn enumerate(bencher: Bencher<'_, '_>, size: u64) {
    let tree = tree(size);
    bencher
        .counter(ItemsCount::new(size))
        .bench_local(|| now(Champ::at(tree.root.clone()).count(&tree.stored)));
}

struct Tree {
    root: Cid,
    stored: MemoryBlocks,
}

/// Returns the tree with keys `0..size`; built once per size.
fn tree(size: u64) -> Arc<Tree> {
    static TREES: LazyLock<Mutex<HashMap<u64, Arc<Tree>>>> = LazyLock::new(Mutex::default);
    let mut trees = TREES
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    trees
        .entry(size)
        .or_insert_with(|| {
            let mut stored = MemoryBlocks::new();
            let mut champ = Champ::empty();
            put(&mut champ, 0..size, &stored);
            let (root, blocks) = finish(&mut champ);
            stored.extend(blocks);
            Arc::new(Tree { root, stored })
        })
        .clone()
}

fn put(champ: &mut Champ, keys: std::ops::Range<u64>, stored: &MemoryBlocks) {
    let changes = keys.map(|i| Change {
        key: key(i).to_vec().into(),
        expected: None,
        value: Some(Value::Link(Cid::v1(
            Codec::DagCbor,
            Multihash::from_sha2_256(key(!i)),
        ))),
    });
    #[expect(clippy::expect_used, reason = "a complete tree takes distinct keys")]
    now(champ.apply(changes.collect(), stored)).expect("puts succeed");
}

fn finish(champ: &mut Champ) -> (Cid, Vec<champ::Block>) {
    #[expect(clippy::expect_used, reason = "links are small")]
    champ.finish().expect("nodes fit into blocks")
}

/// A key that looks random: splitmix64 of the number.
fn key(i: u64) -> [u8; 32] {
    let mut key = [0; 32];
    for (word, n) in key.chunks_exact_mut(8).zip(0u64..) {
        let mut z = i
            .wrapping_mul(4)
            .wrapping_add(n)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    key
}

fn bytes<'a>(blocks: impl Iterator<Item = &'a champ::Block>) -> usize {
    blocks.map(|block| block.bytes().len()).sum()
}

fn now<T>(future: impl Future<Output = T>) -> T {
    #[expect(clippy::expect_used, reason = "nothing here waits")]
    future.now_or_never().expect("memory sources never wait")
}
