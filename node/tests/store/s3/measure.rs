//! How fast a bucket on loopback is beside a disk; prints a table, checks nothing.
//!
//! `cargo test --release -p node --test main -- --ignored --nocapture measure_s3`

use std::{sync::Arc, time::Instant};

use champ::Block;
use node::store::{DiskOptions, DiskStore, FreeFloor, MetaEngine, Store, s3::S3Blocks};

use super::store::system_clock;
use crate::servers::s3::{S3Server, server};
use crate::store::contract::{alice, raw, transaction};

/// Puts of 5 MiB: what a client sends for one chunk.
const PUTS: u64 = 40;
const SMALL_PUTS: u64 = 100;

fn disk(folder: &std::path::Path) -> DiskStore {
    let mut options = DiskOptions::new(folder);
    options.free_floor = FreeFloor::Bytes(0);
    DiskStore::open(options).unwrap()
}

async fn measure(name: &str, store: Arc<dyn Store>) {
    let chunk = |n: u64| -> Vec<Block> { (0..5).map(|m| raw(n * 5 + m, 1 << 20)).collect() };
    let chunks: Vec<_> = (0..PUTS).map(chunk).collect();
    let mib = (PUTS * 5) as f64;
    let began = Instant::now();
    for chunk in &chunks {
        let id = transaction("t");
        store
            .put_blocks(&alice(), chunk.clone(), Some(&id))
            .await
            .unwrap();
    }
    let put = mib / began.elapsed().as_secs_f64();
    let mut gets = [0.0; 2];
    for rate in &mut gets {
        let began = Instant::now();
        for chunk in &chunks {
            let reads = chunk.iter().map(|block| store_block(&store, block));
            futures_util::future::join_all(reads).await;
        }
        *rate = mib / began.elapsed().as_secs_f64();
    }
    let began = Instant::now();
    for n in 0..SMALL_PUTS {
        let blocks = (0..6).map(|m| raw(1 << 32 | (n * 6 + m), 3_000)).collect();
        store.put_blocks(&alice(), blocks, None).await.unwrap();
    }
    let small = SMALL_PUTS as f64 / began.elapsed().as_secs_f64();
    println!(
        "{name:24} put {put:6.0} MiB/s  first get {:6.0} MiB/s  second get {:6.0} MiB/s  {small:6.0} puts/s of 6 x 3 kB",
        gets[0], gets[1]
    );
}

async fn store_block(store: &Arc<dyn Store>, block: &Block) {
    assert!(store.block(&alice(), block.cid()).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure_s3() {
    let Some(server) = server() else { return };
    let folder = tempfile::tempdir().unwrap();
    measure("disk", Arc::new(disk(&folder.path().join("a")))).await;
    for cache in [0, 1 << 30] {
        let mut options = server.options(&S3Server::fresh_prefix());
        options.cache_bytes = cache;
        let rows = folder.path().join(format!("rows{cache}"));
        let meta: Arc<dyn MetaEngine> = Arc::new(disk(&rows));
        let place = folder.path().join("cache");
        let blocks = S3Blocks::open(&options, meta.as_ref(), Some(place), system_clock())
            .await
            .unwrap();
        let name = match cache {
            0 => "bucket on loopback",
            _ => "the same with a cache",
        };
        measure(name, Arc::new(blocks.with_metadata(meta, system_clock()))).await;
    }
}
