//! WR-10 to WR-12: quotas that cannot be dodged, usage that does not drift.
//!
//! A hundred restarts: `cargo test --release -p node --test main wr_10 -- --include-ignored`.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use champ::Cid;
use node::{Config, Node, store::BlockStore as _, store::MemoryStore};
use pki::wire::block_group::BlockFormat;

use super::{node_and_store, on_disk, open, partition, stored_bytes};
use crate::{
    conformance::{
        account::{Account, Root, cbor_block, key, owning, update},
        harness::{TestNode, config},
    },
    store::model_disk::Dice,
};

/// What a refused write is allowed to add: the tolerance for deletions, and one request.
const TOLERANCE: u64 = (1 << 20) + 300_000;

fn small_quota(config: Config) -> Config {
    Config {
        default_quota_bytes: 2_000_000,
        ..config
    }
}

/// Uploads that are never committed, over pauses longer than every interval and over restarts.
#[tokio::test]
async fn wr_10_what_is_never_committed_counts_for_as_long_as_it_lies_there() {
    never_commit(6).await;
}

#[tokio::test]
#[ignore = "a minute: the command is at the top"]
async fn wr_10_what_is_never_committed_counts_after_a_hundred_restarts() {
    never_commit(100).await;
}

async fn never_commit(rounds: u8) {
    let folder = tempfile::tempdir().unwrap();
    let settings = || small_quota(on_disk(folder.path()));
    let node = TestNode::with(settings()).await;
    let mallory = Account::sign_up(&node, "mallory", 7).await;
    let mut node = node;
    let mut refused = 0;
    for round in 0..rounds {
        for n in 0..4u8 {
            let block = Bytes::from([&[round, n][..], &vec![1; 250_000]].concat());
            let answer = mallory
                .put(&node, &mallory.home, BlockFormat::Raw, &[block])
                .await;
            if answer.status != 200 {
                assert!(
                    answer.message().starts_with("Storage quota reached!")
                        || answer.message().starts_with("Upload bandwidth exceeded"),
                    "{}",
                    answer.message()
                );
                refused += 1;
            }
        }
        // Longer than the hour, the ten minutes, and the day of the upload window.
        node.clock.advance(2 * 86_400_000);
        node.node.close().await.unwrap();
        let now = node::clock::Clock::now_millis(node.clock.as_ref());
        drop(node);
        let store = open(folder.path());
        let bytes = stored_bytes(&store, "mallory").await;
        assert!(bytes <= 2_000_000 + TOLERANCE, "{bytes}");
        drop(store);
        node = TestNode::with(settings()).await;
        node.clock.set(now);
    }
    assert!(refused > 10, "{refused}");
    node.node.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wr_11_parallel_writes_and_new_writers_share_one_quota() {
    let (node, store) = node_and_store(small_quota(config())).await;
    let (node, mallory) = {
        let mallory = Account::sign_up(&node, "mallory", 7).await;
        (Arc::new(node), Arc::new(mallory))
    };
    // Thirty writers of one user.
    let writers: Vec<_> = (0..30).map(|n| key(n, 40)).collect();
    let owned: Vec<_> = writers.iter().collect();
    let parent = owning(&mallory.home, &owned).await;
    mallory.put_root(&node, &mallory.home, &parent).await;
    let first = mallory.home_root().await.cid();
    let adopt = update(&mallory.home, Some(&first), Some(&parent.cid()), Some(2));
    assert_eq!(mallory.set(&node, &adopt).await.body, [1]);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64u8 {
        let (node, mallory) = (Arc::clone(&node), Arc::clone(&mallory));
        tasks.spawn(async move {
            let block = Bytes::from([&[n][..], &vec![2; 200_000]].concat());
            let writer = key(n % 30, 40);
            mallory
                .put(&node, &writer, BlockFormat::Raw, &[block])
                .await
                .status
        });
    }
    let statuses = tasks.join_all().await;
    let accepted = statuses.iter().filter(|status| **status == 200).count() as u64;
    assert!(accepted >= 8, "{accepted}");
    let bytes = stored_bytes(store.as_ref(), "mallory").await;
    assert!(bytes <= 2_000_000 + TOLERANCE, "{bytes}");
    let counted = mallory.usage(&node, "&local=true").await;
    assert!(counted as u64 <= 2_000_000 + TOLERANCE, "{counted}");
}

/// Sizes below a root, every path counted, as the accounting defines it.
async fn size(store: &MemoryStore, cid: &Cid, known: &mut HashMap<Cid, i64>) -> i64 {
    if let Some(size) = known.get(cid) {
        return *size;
    }
    let Some(block) = store.block(&partition("alice"), cid).await.unwrap() else {
        return 0;
    };
    let mut total = block.bytes().len() as i64;
    if cid.codec() == champ::Codec::DagCbor {
        for link in champ::cbor::decode(block.bytes()).unwrap().links() {
            if link.identity_content().is_none() {
                total += Box::pin(size(store, &link, known)).await;
            }
        }
    }
    known.insert(cid.clone(), total);
    total
}

/// Random commits, deletions and restarts: what is counted equals what is reachable, after each.
#[tokio::test]
async fn wr_12_usage_equals_what_is_reachable_after_random_changes() {
    let mut dice = Dice(12);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let (mut node, store) = node_and_store(on_disk(folder.path())).await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let identity = alice.identity_root().await.cid();
    let mut current = Some(alice.home_root().await.cid());
    let mut sequence = 1;
    let mut leaves: Vec<Cid> = Vec::new();
    for step in 0..40 {
        for _ in 0..dice.roll(3) {
            let leaf = Bytes::from(vec![dice.roll(256) as u8; 1 + dice.roll(5000) as usize]);
            alice
                .put(
                    &node,
                    &alice.home,
                    BlockFormat::Raw,
                    std::slice::from_ref(&leaf),
                )
                .await;
            leaves.push(Cid::of_raw(&leaf));
        }
        let next = (dice.roll(6) > 0).then(|| {
            let links = (0..dice.roll(4)).filter_map(|_| {
                let len = leaves.len() as u64;
                (len > 0).then(|| leaves[dice.roll(len) as usize].clone())
            });
            let inner = cbor_block(&format!("inner {step}"), &links.collect::<Vec<_>>());
            let twice = [inner.cid().clone(), inner.cid().clone()];
            (inner, cbor_block("outer", &twice))
        });
        let root = match next {
            None => None,
            Some((inner, outer)) => {
                let mut root: Root = alice.home_root().await;
                root.data.tree = Some(outer.cid().clone());
                root.blocks.extend([inner, outer]);
                alice.put_root(&node, &alice.home, &root).await;
                Some(root.cid())
            }
        };
        if root == current {
            continue;
        }
        sequence += 1;
        let write = update(&alice.home, current.as_ref(), root.as_ref(), Some(sequence));
        let answer = alice.set(&node, &write).await;
        assert_eq!(answer.body, [1], "{}", answer.message());
        current = root;
        if dice.roll(5) == 0 {
            // As after a crash: another process on the same store, before the accounting is done.
            let settings = Config {
                clock: node.clock.clone(),
                ..on_disk(folder.path())
            };
            node.node = Node::with_store(settings, store.clone()).await.unwrap();
        }
        let mut known = HashMap::new();
        let mut expected = size(&store, &identity, &mut known).await;
        if let Some(current) = &current {
            expected += size(&store, current, &mut known).await;
        }
        assert_eq!(alice.usage(&node, "").await, expected, "step {step}");
    }
}
