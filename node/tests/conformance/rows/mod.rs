//! Rows of the security checklist (Spec: 40): tests named after the row, doing what its last column says.
//!
//! Rows whose test grew out of a call's own tests stand there; `grep -rn "fn wr_5" tests` finds either.

mod caching;
mod clocks;
mod existence;
mod kill;
mod limits;
mod linearizable;
mod names;
mod social;
mod tokens;
mod usage;
mod writes;

use std::sync::Arc;

use node::{
    Config, Node,
    clock::ManualClock,
    store::{DiskOptions, DiskStore, FreeFloor, MemoryStore, Partition, Store},
};

use super::{
    account::Account,
    harness::{NOW, TestNode, config},
};

/// A node whose store the test can look into.
async fn node_and_store(config: Config) -> (TestNode, Arc<MemoryStore>) {
    let clock = Arc::new(ManualClock::at(NOW));
    let store = Arc::new(MemoryStore::new());
    let config = Config {
        clock: clock.clone(),
        ..config
    };
    let node = Node::with_store(config, store.clone()).await.unwrap();
    (TestNode::of(node, clock), store)
}

/// Settings of a node on a folder.
fn on_disk(folder: &std::path::Path) -> Config {
    Config {
        data: Some(folder.join("data")),
        free_floor: FreeFloor::Bytes(0),
        ..config()
    }
}

/// The store of a node that is not running.
fn open(folder: &std::path::Path) -> DiskStore {
    let mut options = DiskOptions::new(folder.join("data/store"));
    options.free_floor = FreeFloor::Bytes(0);
    DiskStore::open(options).unwrap()
}

fn partition(name: &str) -> Partition {
    Partition::new(&format!("u-{name}")).unwrap()
}

/// Bytes of all blocks that lie in a user's space, whatever they are counted as.
async fn stored_bytes(store: &dyn Store, name: &str) -> u64 {
    let blocks = store.list_blocks(&partition(name), None, 10_000).await;
    blocks
        .unwrap()
        .iter()
        .map(|info| u64::from(info.size_bytes))
        .sum()
}

/// One honest upload and download: what every hostile request must leave possible.
async fn still_serves(node: &TestNode, who: &Account, n: u8) {
    use pki::wire::block_group::BlockFormat;
    let content = bytes::Bytes::from(vec![n; 300]);
    let blocks = [content.clone()];
    let answer = who.put(node, &who.home, BlockFormat::Raw, &blocks).await;
    assert_eq!(answer.status, 200, "{}", answer.message());
    let cid = champ::Cid::of_raw(&content);
    assert_eq!(node.ok(&who.get_target(&cid), "").await, content);
}
