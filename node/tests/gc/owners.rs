//! What a collection looks at, what it leaves alone, and what hostile trees cost.

use std::time::{Duration, Instant};

use champ::{
    Block, Cid,
    cbor::{Map, Value},
};
use node::{
    gc::{CollectError, CollectOptions, Outcome},
    store::{Batch, BlockStore as _, MetaStore as _, Partition, tables},
};

use super::world::{GRACE, Uploader, World, assert_collected, of, partition, small_tree};
use crate::conformance::account::{cbor_block, update};

const DAY: Duration = Duration::from_secs(86_400);

fn leaves(seed: &str, count: usize) -> Vec<Block> {
    (0..count)
        .map(|n| Block::raw(format!("{seed} {n}").into_bytes()).unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn rel_9_what_was_deleted_is_given_back() {
    let world = World::new().await;
    let mut alice = Uploader::sign_up(&world.server, "alice", 1).await;
    for round in 0..3 {
        let (tree, blocks) = small_tree(&format!("round {round}"), 100);
        alice.commit(&world.server, &tree, &blocks).await;
    }
    world.settle().await;
    world.collect().await;
    world.wait(GRACE).await;
    let report = world.collect().await;
    // Two trees and the root blocks above them, and the writer's very first root block.
    assert_eq!(of(&report, "alice").deleted.blocks, 2 * 103 + 1);
    let needed = world.reachable("alice", &alice.roots().await).await;
    assert_eq!(world.stored("alice").await, needed);
    let counts = world.store.block_counts(&partition("alice")).await.unwrap();
    assert_eq!(counts.blocks, needed.len() as u64);
    assert_eq!(of(&report, "alice").needed, counts.blocks);
    // Without anything to keep: the account points nowhere.
    let write = update(
        alice.key(),
        Some(&alice.home),
        None,
        Some(alice.sequence + 1),
    );
    assert_eq!(alice.account.set(&world.server, &write).await.body, [1]);
    world.settle().await;
    for _ in 0..2 {
        world.wait(GRACE).await;
        world.collect().await;
    }
    let identity = alice.account.identity_root().await.cid();
    assert_eq!(
        world.stored("alice").await,
        world.reachable("alice", &[identity]).await
    );
}

#[tokio::test(start_paused = true)]
async fn only_new_blocks_are_read_and_unchanged_owners_are_skipped() {
    let world = World::new().await;
    let mut alice = Uploader::sign_up(&world.server, "alice", 1).await;
    let raw = leaves("big", 50);
    let nodes: Vec<_> = raw
        .chunks(5)
        .map(|some| {
            let links: Vec<_> = some.iter().map(|b| b.cid().clone()).collect();
            cbor_block("inner", &links)
        })
        .collect();
    let links: Vec<_> = nodes.iter().map(|b| b.cid().clone()).collect();
    let top = cbor_block("top", &links);
    let mut all = raw;
    all.extend(nodes);
    all.push(top.clone());
    alice.commit(&world.server, top.cid(), &all).await;
    world.settle().await;
    let report = world.collect_now().await;
    // Eleven of the tree, and the root blocks with what they own; raw blocks are never read.
    let first = of(&report, "alice").read;
    assert!((11..=18).contains(&first), "{first}");
    assert_eq!(
        of(&world.collect().await, "alice").outcome,
        Outcome::Unchanged
    );

    // One leaf more: its block, the changed path and the root are new.
    let leaf = leaves("one more", 1).remove(0);
    let mut links = links;
    links.push(leaf.cid().clone());
    let top = cbor_block("top 2", &links);
    alice
        .commit(&world.server, top.cid(), &[leaf, top.clone()])
        .await;
    world.settle().await;
    let report = world.collect_now().await;
    assert_collected(&report, "alice");
    assert!(of(&report, "alice").read <= 2, "{report:?}");
    // Everything is known also when everything is looked at again.
    let all = CollectOptions {
        all: true,
        ..CollectOptions::default()
    };
    assert_eq!(of(&world.collect_with(all).await, "alice").read, 0);
}

#[tokio::test(start_paused = true)]
async fn damaged_link_records_are_not_believed() {
    let world = World::new().await;
    let mut alice = Uploader::sign_up(&world.server, "alice", 1).await;
    let (tree, blocks) = small_tree("tree", 3);
    alice.commit(&world.server, &tree, &blocks).await;
    world.collect_now().await;
    let rows = world
        .store
        .scan(tables::GC_LINKS, b"alice\0", None, 10)
        .await
        .unwrap();
    let (key, chunk) = rows.first().expect("links are kept").clone();
    let mut wrong = chunk.to_vec();
    *wrong.last_mut().unwrap() ^= 1;
    let batch = Batch::new().put(tables::GC_LINKS, key, wrong);
    assert!(world.store.commit(batch).await.unwrap().is_committed());
    let state = Batch::new().put(tables::GC_STATES, b"alice".to_vec(), b"rubbish".to_vec());
    assert!(world.store.commit(state).await.unwrap().is_committed());
    let report = world.collect_now().await;
    assert!(of(&report, "alice").read > 2);
    world.reachable("alice", &alice.roots().await).await;
    // They have been made anew.
    let (other, others) = small_tree("other", 1);
    alice.commit(&world.server, &other, &others).await;
    let report = world.collect_now().await;
    assert!(of(&report, "alice").read <= 3, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_tells_and_changes_nothing() {
    let world = World::new().await;
    let mut alice = Uploader::sign_up(&world.server, "alice", 1).await;
    for seed in ["a", "b"] {
        let (tree, blocks) = small_tree(seed, 5);
        alice.commit(&world.server, &tree, &blocks).await;
    }
    let before = world.stored("alice").await;
    let options = CollectOptions {
        dry_run: true,
        now: true,
        ..CollectOptions::default()
    };
    let told = world.collect_with(options).await;
    assert_eq!(world.stored("alice").await, before);
    assert!(told.deleted.blocks > 0 && told.dry_run);
    let rows = world.store.get(tables::GC_STATES, b"alice").await.unwrap();
    assert_eq!(rows, None);
    let done = world.collect_now().await;
    assert_eq!(done.deleted, told.deleted);
}

#[tokio::test(start_paused = true)]
async fn blocks_of_nobody_are_never_deleted() {
    let world = World::new().await;
    let block = leaves("stray", 1);
    for name in ["u-nobody", "other"] {
        let space = Partition::new(name).unwrap();
        world
            .store
            .put_blocks(&space, block.clone(), None)
            .await
            .unwrap();
    }
    let report = world.collect_now().await;
    let unknown = report
        .owners
        .iter()
        .filter(|o| o.outcome == Outcome::Unknown);
    assert_eq!(unknown.count(), 2);
    for name in ["u-nobody", "other"] {
        let space = Partition::new(name).unwrap();
        assert!(
            world
                .store
                .block(&space, block[0].cid())
                .await
                .unwrap()
                .is_some()
        );
    }
    let options = CollectOptions {
        user: Some("nobody-at-all".to_owned()),
        ..CollectOptions::default()
    };
    let error = world
        .collector
        .collect_garbage(&options, &|_| ())
        .await
        .unwrap_err();
    assert!(matches!(error, CollectError::UnknownUser));
}

#[tokio::test(start_paused = true)]
async fn the_space_of_a_removed_account_is_collected_whole() {
    let world = World::new().await;
    let mut alice = Uploader::sign_up(&world.server, "alice", 1).await;
    let bob = Uploader::sign_up(&world.server, "bob", 2).await;
    let (tree, blocks) = small_tree("tree", 3);
    alice.commit(&world.server, &tree, &blocks).await;
    // Rows that are gone without a word prove nothing.
    let mut gone = Batch::new();
    for key in [alice.key(), &alice.account.identity] {
        gone = gone.remove(tables::POINTERS, key.writer().cid().to_bytes());
    }
    assert!(world.store.commit(gone).await.unwrap().is_committed());
    let before = world.stored("alice").await;
    let report = world.collect_now().await;
    assert!(matches!(
        of(&report, "alice").outcome,
        Outcome::Aborted { alarm: true, .. }
    ));
    assert_eq!(world.stored("alice").await, before);
    let removed = Batch::new().put(tables::REMOVED, b"alice".to_vec(), b"1".to_vec());
    assert!(world.store.commit(removed).await.unwrap().is_committed());
    world.collect_now().await;
    assert!(world.stored("alice").await.is_empty());
    // An empty space needs nobody's attention, whether anything is known of its owner or not.
    let gone = Batch::new().remove(tables::REMOVED, b"alice".to_vec());
    assert!(world.store.commit(gone).await.unwrap().is_committed());
    assert_eq!(world.collect_now().await.alarms, 0);
    assert_eq!(world.collector.examine().await.unreadable_owners, 0);
    world.reachable("bob", &bob.roots().await).await;
}

/// 12 §8: a month after the identity was deleted, the other writers go as well.
#[tokio::test(start_paused = true)]
async fn a_deleted_identity_takes_its_writers_along_after_a_month() {
    let world = World::new().await;
    let mut alice = Uploader::sign_up(&world.server, "alice", 1).await;
    let (tree, blocks) = small_tree("tree", 3);
    alice.commit(&world.server, &tree, &blocks).await;
    let identity = alice.account.identity_root().await.cid();
    let write = update(&alice.account.identity, Some(&identity), None, Some(2));
    assert_eq!(alice.account.set(&world.server, &write).await.body, [1]);
    world.settle().await;
    for _ in 0..29 {
        world.collect_now().await;
        world.wait(DAY).await;
    }
    world
        .reachable("alice", std::slice::from_ref(&alice.home))
        .await;
    world.wait(DAY).await;
    let report = world.collect_now().await;
    let left = world.stored("alice").await;
    assert!(left.is_empty(), "{left:?} {report:?}");
    let rows = world
        .store
        .scan(tables::RETIRED_POINTERS, b"alice\0", None, 9)
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
}

/// DOS-3: 8^60 paths, 60 blocks. DOS-4: as many links as fit into a block, to blocks that do not exist.
#[tokio::test(start_paused = true)]
async fn dos_3_bombs_cost_what_their_blocks_cost() {
    let world = World::new().await;
    let mut mallory = Uploader::sign_up(&world.server, "mallory", 3).await;
    let mut below = Block::raw(&b"bottom"[..]).unwrap();
    let mut blocks = vec![below.clone()];
    for level in 0..60 {
        let links = vec![below.cid().clone(); 8];
        below = cbor_block(&format!("level {level}"), &links);
        blocks.push(below.clone());
    }
    let started = Instant::now();
    let answer = mallory.commit(&world.server, below.cid(), &blocks).await;
    assert_eq!(answer.body, [1]);
    let report = world.collect_now().await;
    assert_collected(&report, "mallory");
    assert!(of(&report, "mallory").read < 80);
    // A second bomb instead of the first, admitted against a collected account.
    let (tree, small) = small_tree("small", 1);
    mallory.commit(&world.server, &tree, &small).await;
    world.collect_now().await;
    let answer = mallory.commit(&world.server, below.cid(), &blocks).await;
    assert_eq!(answer.body, [1], "{}", answer.message());
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    world.collect_now().await;
    world.reachable("mallory", &mallory.roots().await).await;
}

#[tokio::test(start_paused = true)]
async fn dos_4_a_block_full_of_links_is_bounded() {
    let world = World::new().await;
    let mut mallory = Uploader::sign_up(&world.server, "mallory", 3).await;
    // As many as an upload may have.
    let links: Vec<_> = (0..5_000_u32)
        .map(|n| Value::from(&Cid::of_cbor(&n.to_be_bytes())))
        .collect();
    let mut map = Map::new();
    map.insert("links", links);
    let bomb = Block::cbor(Value::Map(map).encode()).unwrap();
    let started = Instant::now();
    let answer = mallory
        .commit(&world.server, bomb.cid(), std::slice::from_ref(&bomb))
        .await;
    assert_eq!(answer.body, [1]);
    // Its own owner's collection ends at the first block that is not there; nobody else's does.
    let report = world.collect_now().await;
    assert!(matches!(
        of(&report, "mallory").outcome,
        Outcome::Aborted { .. }
    ));
    assert!(
        report
            .owners
            .iter()
            .filter(|o| o.user.as_deref() != Some("mallory"))
            .all(|o| o.outcome == Outcome::Collected)
    );
    // As garbage it is deleted without being read.
    let (tree, small) = small_tree("small", 1);
    mallory.commit(&world.server, &tree, &small).await;
    let report = world.collect_now().await;
    assert_collected(&report, "mallory");
    assert!(!world.stored("mallory").await.contains(bomb.cid()));
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}
