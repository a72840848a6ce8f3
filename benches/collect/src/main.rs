//! Garbage collection with many small blocks, and what writers notice of it.
//!
//! ```text
//! cargo run --release -p collect [-- BLOCKS]
//! ```
//!
//! Fills a data folder with one account of BLOCKS blocks (default 1,000,000), then measures, with the node in this
//! process: writers alone, the first collection, one after a small change, and one that deletes half of everything;
//! each beside a writer of the same account and one of another. A write is an upload of two blocks, the update of the
//! pointer, and the end of the transaction. At last, how long starts take (`restart`).
#![expect(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

mod account;
mod restart;
mod writer;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use champ::{Block, Cid};
use node::{
    Config, Node,
    gc::{CollectOptions, CollectionConfig, Report},
    store::{BlockStore as _, DiskOptions, DiskStore, FreeFloor, Partition, Store},
};

use account::{Account, linked};
use writer::{Latencies, Writers};

/// Blocks of one commit while the folder is filled.
const SHARE: usize = 10_000;
/// Raw blocks below each cbor block.
const LEAVES: usize = 2;
/// Cbor blocks below each inner block.
const FANOUT: usize = 64;
/// Time that writers run alone.
const ALONE: Duration = Duration::from_secs(20);

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if restart::child(&arguments).await? {
        return Ok(());
    }
    let blocks: usize = match arguments.first() {
        Some(number) => number.parse().context("BLOCKS is not a number")?,
        None => 1_000_000,
    };
    let folder = tempfile::tempdir()?;
    let node = open(folder.path()).await?;
    let store = node.1;
    let node = node.0;
    let mut alice = Account::sign_up(&node, "alice", 1).await?;
    let request = alice.pointer_request();
    let bob = Account::sign_up(&node, "bob", 2).await?;
    let started = Instant::now();
    let shares = fill(&node, &store, &mut alice, blocks).await?;
    println!(
        "filled with {blocks} blocks in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    println!("resident: {} MB", resident_megabytes());

    let mut writers = Writers::start(&node, vec![alice, bob]);
    writers.begin();
    tokio::time::sleep(ALONE).await;
    let alone = writers.end().await;
    show("writers alone", None, &alone, &alone);

    writers.begin();
    let first = collect(&node, false).await?;
    show(
        "first collection",
        Some(&first),
        &writers.end().await,
        &alone,
    );

    writers.begin();
    let next = collect(&node, true).await?;
    show("next collection", Some(&next), &writers.end().await, &alone);

    // Half of the account is deleted in one commit.
    let kept: Vec<_> = shares.iter().step_by(2).cloned().collect();
    writers.keep(0, &kept).await?;
    // Until the deletion is accounted its blocks are needed.
    tokio::time::sleep(Duration::from_secs(5)).await;
    writers.begin();
    let half = collect(&node, true).await?;
    show("deleting half", Some(&half), &writers.end().await, &alone);
    let counts = store.block_counts(&Partition::new("u-alice")?).await?;
    println!("blocks left: {}", counts.blocks);

    let idle = collect(&node, false).await?;
    let idle_again = collect(&node, false).await?;
    println!(
        "unchanged owners: {:.1} ms ({} owners)",
        idle_again.took.as_secs_f64() * 1e3,
        idle.owners.len()
    );
    println!("resident: {} MB", resident_megabytes());
    node.close().await?;
    drop((node, store, writers));
    restart::measure(folder.path(), &request)
}

async fn open(folder: &Path) -> Result<(Node, Arc<DiskStore>)> {
    let mut options = DiskOptions::new(folder.join("store"));
    options.free_floor = FreeFloor::Bytes(0);
    let store = Arc::new(DiskStore::open(options)?);
    let config = Config {
        data: Some(folder.to_owned()),
        // Accounts are made without proof of work.
        max_signups_per_day: 4_000_000_000,
        collection: CollectionConfig {
            period: Duration::ZERO,
            grace: Duration::ZERO,
            ..CollectionConfig::default()
        },
        ..Config::default()
    };
    let shared: Arc<dyn Store> = store.clone();
    Ok((Node::with_store(config, shared).await?, store))
}

/// Stores blocks in shares, each below one block, and commits after each.
async fn fill(
    node: &Node,
    store: &DiskStore,
    account: &mut Account,
    blocks: usize,
) -> Result<Vec<Cid>> {
    let space = Partition::new("u-alice")?;
    let mut shares = Vec::new();
    let mut made = 0;
    while made < blocks {
        let mut some = Vec::with_capacity(SHARE);
        let mut nodes = Vec::new();
        while some.len() < SHARE - SHARE / FANOUT / LEAVES {
            let mut links = Vec::with_capacity(LEAVES);
            for _ in 0..LEAVES {
                let content = format!("raw {} {:0120}", shares.len(), made + some.len());
                let leaf = Block::raw(content.into_bytes())?;
                links.push(leaf.cid().clone());
                some.push(leaf);
            }
            let node = linked(&format!("node {}", made + some.len()), &links)?;
            nodes.push(node.cid().clone());
            some.push(node);
        }
        let mut inner = Vec::new();
        for (at, nodes) in nodes.chunks(FANOUT).enumerate() {
            let node = linked(&format!("inner {} {at}", shares.len()), nodes)?;
            inner.push(node.cid().clone());
            some.push(node);
        }
        let top = linked(&format!("share {}", shares.len()), &inner)?;
        shares.push(top.cid().clone());
        some.push(top);
        made += some.len();
        store.put_blocks(&space, some, None).await?;
        account.commit(node, &shares, &[]).await?;
    }
    ensure!(shares.len() > 1, "too few blocks for more than one share");
    Ok(shares)
}

async fn collect(node: &Node, now: bool) -> Result<Report> {
    let options = CollectOptions {
        now,
        ..CollectOptions::default()
    };
    Ok(node.collect_garbage(&options, &|_| ()).await?)
}

fn show(name: &str, report: Option<&Report>, seen: &[Latencies], alone: &[Latencies]) {
    println!("\n{name}");
    if let Some(report) = report {
        println!(
            "  {:.1} s, {} blocks seen",
            report.took.as_secs_f64(),
            report.seen.blocks
        );
        for owner in &report.owners {
            println!(
                "  {}: {:?}, {} seen, {} needed, {} read, {} deleted, {} waiting",
                owner.partition,
                owner.outcome,
                owner.seen.blocks,
                owner.needed,
                owner.read,
                owner.deleted.blocks,
                owner.waiting.blocks
            );
        }
    }
    for (who, (seen, alone)) in ["same account", "other account"]
        .iter()
        .zip(seen.iter().zip(alone))
    {
        let (p50, p99) = (seen.percentile(50), seen.percentile(99));
        println!(
            "  writer of the {who}: {} writes, p50 {:.1} ms, p99 {:.1} ms ({:.2} times alone), worst {:.1} ms",
            seen.len(),
            p50.as_secs_f64() * 1e3,
            p99.as_secs_f64() * 1e3,
            p99.as_secs_f64() / alone.percentile(99).as_secs_f64().max(1e-9),
            seen.percentile(100).as_secs_f64() * 1e3,
        );
    }
    println!("  resident: {} MB", resident_megabytes());
}

/// Returns what this process has in memory, its peak included.
fn resident_megabytes() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kilobytes / 1024)
    };
    match (field("VmRSS"), field("VmHWM")) {
        (Some(now), Some(peak)) => format!("{now} (peak {peak})"),
        _ => "?".to_owned(),
    }
}
