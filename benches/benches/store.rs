//! The disk engine beside a plain sequential write, in one run on one file system.
//!
//! `cargo bench -p benches --bench store`. Settings by environment: `KASTRO_BENCH_FOLDER` (default: the system's
//! temporary folder), `KASTRO_BENCH_BLOCKS` (default 100000: blocks for the open time and the memory),
//! `KASTRO_BENCH_MIB` (default 256: bytes of each ingest run). Compare ratios within one run, not seconds between
//! runs.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a bench that cannot go on may stop, and its output is its result"
)]

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use champ::{Block, Cid};
use node::store::{
    Batch, BlockStore, DiskOptions, DiskStore, FreeFloor, MetaStore, Partition, Store, tables,
};
use tokio::runtime::Runtime;

const MIB: usize = 1 << 20;
const CHILD: &str = "KASTRO_BENCH_CHILD";

fn main() {
    let root = std::env::var_os("KASTRO_BENCH_FOLDER").map(PathBuf::from);
    let root = root
        .unwrap_or_else(std::env::temp_dir)
        .join("kastro-bench-store");
    if let Ok(mode) = std::env::var(CHILD) {
        return child(&mode, &root.join("many"));
    }
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root).unwrap();
    println!("| what | result |\n| --- | --- |");
    ingest(&root);
    commits(&root);
    reads(&root);
    many(&root);
    fs::remove_dir_all(&root).unwrap();
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn row(what: &str, result: &str) {
    println!("| {what} | {result} |");
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn open(folder: &Path) -> Arc<DiskStore> {
    let mut options = DiskOptions::new(folder);
    options.free_floor = FreeFloor::Bytes(0);
    Arc::new(DiskStore::open(options).unwrap())
}

fn owner() -> Partition {
    Partition::new("bench").unwrap()
}

/// Blocks that differ, made in advance: hashing is the caller's work and not measured here.
fn blocks(seed: u64, count: usize, bytes: usize) -> Vec<Block> {
    let mut state = seed;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state
    };
    let block = |_| {
        let words = std::iter::repeat_with(&mut random).take(bytes.div_ceil(8));
        let mut content: Vec<u8> = words.flat_map(u64::to_be_bytes).collect();
        content.truncate(bytes);
        Block::raw(content).unwrap()
    };
    (0..count).map(block).collect()
}

/// Runs `count` numbered jobs, `at_once` at the same time.
async fn concurrently<F: Future<Output = ()> + Send + 'static>(
    count: usize,
    at_once: usize,
    job: impl Fn(usize) -> F + Send + Sync + 'static,
) -> Duration {
    let start = Instant::now();
    let (next, job) = (Arc::new(AtomicU64::new(0)), Arc::new(job));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..at_once {
        let (next, job) = (next.clone(), job.clone());
        tasks.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed) as usize;
                if n >= count {
                    return;
                }
                job(n).await;
            }
        });
    }
    tasks.join_all().await;
    start.elapsed()
}

fn plain(root: &Path, content: &[Block]) -> f64 {
    let path = root.join("plain");
    let start = Instant::now();
    let mut file = File::create(&path).unwrap();
    for five in content.chunks(5) {
        for block in five {
            file.write_all(block.bytes()).unwrap();
        }
        file.sync_data().unwrap();
    }
    let rate = content.len() as f64 / start.elapsed().as_secs_f64();
    fs::remove_file(path).unwrap();
    rate
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn ingest(root: &Path) {
    let count = setting("KASTRO_BENCH_MIB", 256);
    let content = blocks(1, count, MIB);
    let runtime = runtime();
    for at_once in [1, 4, 16] {
        let (mut base, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        // Alternating, since other work on the machine comes and goes.
        for round in 0..3 {
            let before = plain(root, &content);
            let folder = root.join(format!("ingest-{at_once}-{round}"));
            let store = open(&folder);
            let (blocks, writer) = (content.clone(), store.clone());
            let time = runtime.block_on(concurrently(count, at_once, move |n| {
                let (store, block) = (writer.clone(), blocks[n].clone());
                async move { store.put_blocks(&owner(), vec![block], None).await.unwrap() }
            }));
            runtime.block_on(store.close()).unwrap();
            let rate = count as f64 / time.as_secs_f64();
            let mean = f64::midpoint(before, plain(root, &content));
            base.push(mean);
            ours.push(rate);
            ratios.push(rate / mean * 100.0);
            fs::remove_dir_all(folder).unwrap();
        }
        row(
            &format!("durable ingest of 1 MiB blocks, {at_once} at once"),
            &format!(
                "{:.0} MiB/s, plain write with a flush per 5 MiB {:.0} MiB/s: {:.0} %",
                median(ours),
                median(base),
                median(ratios)
            ),
        );
    }
}

fn commits(root: &Path) {
    let runtime = runtime();
    for at_once in [1, 16, 128] {
        let store = open(&root.join(format!("commits-{at_once}")));
        let count = 100 * at_once.min(32);
        let time = runtime.block_on(concurrently(count, at_once, move |n| {
            let store = store.clone();
            async move {
                let key = n.to_be_bytes().to_vec();
                let batch = Batch::new()
                    .expect_absent(tables::POINTERS, key.clone())
                    .put(tables::POINTERS, key, vec![7; 200]);
                assert!(store.commit(batch).await.unwrap().is_committed());
            }
        }));
        let rate = count as f64 / time.as_secs_f64();
        row(
            &format!("compare-and-swap commits, {at_once} at once"),
            &format!("{rate:.0} per s"),
        );
    }
    for at_once in [1, 16] {
        let store = open(&root.join(format!("small-{at_once}")));
        let count = 100 * at_once;
        let content = Arc::new(blocks(2, count * 6, 2_000));
        let time = runtime.block_on(concurrently(count, at_once, move |n| {
            let (store, content) = (store.clone(), content.clone());
            async move {
                let six = content[n * 6..][..6].to_vec();
                store.put_blocks(&owner(), six, None).await.unwrap();
            }
        }));
        let rate = count as f64 / time.as_secs_f64();
        row(
            &format!("puts of 6 blocks of 2 kB, {at_once} at once"),
            &format!("{rate:.0} per s"),
        );
    }
}

fn reads(root: &Path) {
    let runtime = runtime();
    let store = open(&root.join("reads"));
    for (bytes, count, rounds) in [(4_800, 10_000, 4), (MIB, 200, 5)] {
        let content = blocks(3, count, bytes);
        let cids: Arc<Vec<Cid>> = Arc::new(content.iter().map(|b| b.cid().clone()).collect());
        for group in content.chunks(100) {
            runtime
                .block_on(store.put_blocks(&owner(), group.to_vec(), None))
                .unwrap();
        }
        for at_once in [1, 16] {
            let (store, cids) = (store.clone(), cids.clone());
            let reads = count * rounds;
            let time = runtime.block_on(concurrently(reads, at_once, move |n| {
                let store = store.clone();
                let cid = cids[n * 7_919 % cids.len()].clone();
                async move {
                    assert!(store.block(&owner(), &cid).await.unwrap().is_some());
                }
            }));
            let rate = reads as f64 / time.as_secs_f64();
            row(
                &format!("verified reads of {bytes} bytes, {at_once} at once"),
                &format!(
                    "{rate:.0} per s, {:.0} MiB/s",
                    rate * bytes as f64 / MIB as f64
                ),
            );
        }
    }
    let key = b"k".to_vec();
    let batch = Batch::new().put(tables::POINTERS, key, vec![7; 200]);
    let _ = runtime.block_on(store.commit(batch)).unwrap();
    let time = runtime.block_on(concurrently(200_000, 2, move |_| {
        let store = store.clone();
        async move {
            assert!(store.get(tables::POINTERS, b"k").await.unwrap().is_some());
        }
    }));
    row(
        "metadata gets",
        &format!("{:.0} per s", 200_000.0 / time.as_secs_f64()),
    );
}

/// Fills a store with many blocks; then other processes open it, so that their memory is only that.
fn many(root: &Path) {
    let count = setting("KASTRO_BENCH_BLOCKS", 100_000);
    let folder = root.join("many");
    let runtime = runtime();
    let store = open(&folder);
    let start = Instant::now();
    for n in 0..count.div_ceil(1_000) {
        let content = blocks(100 + n as u64, 1_000, 1_000);
        runtime
            .block_on(store.put_blocks(&owner(), content, None))
            .unwrap();
    }
    let time = start.elapsed();
    let closing = Instant::now();
    runtime.block_on(store.close()).unwrap();
    let size = fs::metadata(folder.join("meta.redb")).unwrap().len() as f64 / MIB as f64;
    row(
        &format!("{count} blocks of 1 kB in puts of 1000"),
        &format!(
            "{:.1} s, close {:.0} ms, database {size:.0} MiB",
            time.as_secs_f64(),
            closing.elapsed().as_secs_f64() * 1e3
        ),
    );
    drop(store);
    run_child("open", "open after a clean stop");
    run_child("abort", "(one commit, then abort)");
    run_child("open", "open after an abort in the middle of writing");
    run_child("quiet", "(one commit, a quiet second, then abort)");
    run_child("open", "open after an abort in a quiet moment");
}

fn run_child(mode: &str, what: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.env(CHILD, mode).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    row(what, text.trim());
}

fn child(mode: &str, folder: &Path) {
    let before = resident_mib();
    let start = Instant::now();
    let store = open(folder);
    let time = start.elapsed().as_secs_f64() * 1e3;
    let runtime = runtime();
    if mode != "open" {
        let content = blocks(u64::from(std::process::id()), 1, 1_000);
        runtime
            .block_on(store.put_blocks(&owner(), content, None))
            .unwrap();
        if mode == "quiet" {
            std::thread::sleep(Duration::from_secs(1));
        }
        println!("{time:.1} ms");
        std::process::abort();
    }
    let opened = resident_mib();
    runtime.block_on(async {
        let mut after = None;
        for _ in 0..20 {
            let page = store
                .list_blocks(&owner(), after.as_ref(), 1_000)
                .await
                .unwrap();
            for info in &page {
                assert!(store.block(&owner(), &info.cid).await.unwrap().is_some());
            }
            after = page.last().map(|info| info.cid.clone());
        }
    });
    println!(
        "{time:.1} ms; resident {before:.1} MiB before, {opened:.1} MiB after, {:.1} MiB after 20000 reads",
        resident_mib()
    );
}

fn resident_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<f64> = line
        .and_then(|l| l.split_whitespace().next())
        .and_then(|n| n.parse().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
