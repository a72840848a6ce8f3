//! REL-8: every way in which a collection could delete what is needed, each as a deterministic interleaving.

use std::{sync::Arc, time::Duration};

use champ::Cid;
use futures_util::FutureExt as _;
use node::{
    clock::ManualClock,
    gc::{CollectOptions, Outcome},
    health::Status,
    store::{BlockStore as _, DiskOptions, DiskStore, FreeFloor},
};
use parking_lot::Mutex;

use super::{
    hooked::{Hook, Point},
    world::{GRACE, Uploader, World, assert_collected, of, partition, small_tree},
};
use crate::{
    conformance::harness::NOW,
    store::model_disk::{ModelDisk, Plan},
};

/// Runs `action` once, the first time that a collection comes to `point`.
fn once<F>(point: Point, action: impl FnOnce() -> F + Send + 'static) -> Hook
where
    F: Future<Output = ()> + Send + 'static,
{
    let action = Mutex::new(Some(action));
    Arc::new(move |at| {
        let action = (at == point).then(|| action.lock().take()).flatten();
        match action {
            Some(action) => action().boxed(),
            None => std::future::ready(()).boxed(),
        }
    })
}

/// A user with a committed tree, and an older tree that is garbage.
async fn with_garbage(world: &World) -> (Uploader, Cid, Vec<champ::Block>) {
    let mut alice = Uploader::sign_up(&world.server, "alice", 1).await;
    let (old, old_blocks) = small_tree("old", 3);
    assert_eq!(
        alice.commit(&world.server, &old, &old_blocks).await.body,
        [1]
    );
    let (new, new_blocks) = small_tree("new", 3);
    assert_eq!(
        alice.commit(&world.server, &new, &new_blocks).await.body,
        [1]
    );
    world.settle().await;
    (alice, old, old_blocks)
}

async fn assert_complete(world: &World, user: &Uploader) {
    world.reachable(user.name(), &user.roots().await).await;
}

async fn assert_only_reachable(world: &World, user: &Uploader) {
    let needed = world.reachable(user.name(), &user.roots().await).await;
    assert_eq!(world.stored(user.name()).await, needed);
}

#[tokio::test(start_paused = true)]
async fn rel_8_a_an_upload_inside_a_transaction_survives_wherever_it_falls() {
    for point in Point::ALL {
        let world = World::new().await;
        let (alice, _, _) = with_garbage(&world).await;
        let after = Arc::new(Mutex::new(alice.clone()));
        let (node, cell) = (world.client(), after.clone());
        world.set_hook(Some(once(point, move || async move {
            let mut alice = cell.lock().clone();
            let (tree, blocks) = small_tree("upload", 4);
            assert_eq!(
                alice.commit(&node, &tree, &blocks).await.body,
                [1],
                "{point:?}"
            );
            *cell.lock() = alice;
        })));
        let report = world.collect_now().await;
        world.set_hook(None);
        assert_collected(&report, "alice");
        let alice = after.lock().clone();
        assert_eq!(alice.sequence, 4, "{point:?}");
        assert_complete(&world, &alice).await;
        world.settle().await;
        world.collect_now().await;
        assert_only_reachable(&world, &alice).await;
    }
}

/// The blocks are uploaded before the collection and committed in its middle, or never closed.
#[tokio::test(start_paused = true)]
async fn rel_8_a_blocks_of_an_open_transaction_stay_until_it_is_closed() {
    for point in Point::ALL {
        let world = World::new().await;
        let (alice, _, _) = with_garbage(&world).await;
        let (tree, blocks) = small_tree("open", 4);
        let root = alice.root(&tree).await;
        alice.put(&world.server, "open", &blocks).await;
        alice.put(&world.server, "open", &root.all_blocks()).await;
        // Nothing of it goes while the transaction is open, however often.
        for _ in 0..2 {
            world.collect_now().await;
        }
        let after = Arc::new(Mutex::new(alice));
        let (node, cell, cid) = (world.client(), after.clone(), root.cid());
        world.set_hook(Some(once(point, move || async move {
            let mut alice = cell.lock().clone();
            assert_eq!(alice.point(&node, &cid).await.body, [1], "{point:?}");
            alice.close(&node, "open").await;
            *cell.lock() = alice;
        })));
        world.collect_now().await;
        world.set_hook(None);
        let mut alice = after.lock().clone();
        if alice.home != root.cid() {
            // There was nothing to delete, so the collection never came to this point.
            alice.point(&world.server, &root.cid()).await;
            alice.close(&world.server, "open").await;
        }
        assert_complete(&world, &alice).await;
        world.settle().await;
        world.collect_now().await;
        assert_only_reachable(&world, &alice).await;
    }
}

#[tokio::test(start_paused = true)]
async fn rel_8_b_a_block_put_again_just_before_its_deletion_stays() {
    for point in Point::ALL {
        let world = World::new().await;
        let (alice, old, old_blocks) = with_garbage(&world).await;
        let after = Arc::new(Mutex::new(alice));
        let (node, cell) = (world.client(), after.clone());
        world.set_hook(Some(once(point, move || async move {
            let mut alice = cell.lock().clone();
            let answer = alice.commit(&node, &old, &old_blocks).await;
            assert_eq!(answer.body, [1], "{point:?}: {}", answer.message());
            *cell.lock() = alice;
        })));
        let report = world.collect_now().await;
        world.set_hook(None);
        let alice = after.lock().clone();
        assert_eq!(alice.sequence, 4, "{point:?}");
        assert_complete(&world, &alice).await;
        if point == Point::AfterGiveUp {
            assert!(of(&report, "alice").saved > 0);
        }
        world.settle().await;
        world.collect_now().await;
        assert_only_reachable(&world, &alice).await;
    }
}

/// A client that breaks the rules: it points back to an old root without putting its blocks again.
#[tokio::test(start_paused = true)]
async fn rel_8_c_a_commit_of_an_old_root_keeps_its_blocks_or_is_refused() {
    let mut outcomes = Vec::new();
    for point in Point::ALL {
        let world = World::new().await;
        let (alice, old, _) = with_garbage(&world).await;
        let old_root = alice.root(&old).await.cid();
        let after = Arc::new(Mutex::new(alice));
        let (node, cell) = (world.client(), after.clone());
        world.set_hook(Some(once(point, move || async move {
            let mut alice = cell.lock().clone();
            let answer = alice.point(&node, &old_root).await;
            assert!(matches!(answer.status, 200 | 400), "{point:?}");
            *cell.lock() = alice;
        })));
        world.collect_now().await;
        world.set_hook(None);
        let alice = after.lock().clone();
        assert_complete(&world, &alice).await;
        outcomes.push((point, alice.sequence == 4));
        world.settle().await;
        world.collect_now().await;
        assert_only_reachable(&world, &alice).await;
    }
    // Before a batch is given up the pointer wins, from then on the collection.
    for (point, is_kept) in outcomes {
        assert_eq!(is_kept, point < Point::AfterGiveUp, "{point:?}");
    }
}

/// The other way round: the collection comes between the check of an update and its commit.
#[tokio::test(start_paused = true)]
async fn rel_8_c_an_update_that_a_collection_overtakes_is_checked_again() {
    for is_first in [true, false] {
        let world = World::new().await;
        let (mut alice, old, _) = with_garbage(&world).await;
        if !is_first {
            // Something was collected before: there is a state of the sweep to compare with.
            let (_, stray) = small_tree("stray", 1);
            alice.put(&world.server, "stray", &stray).await;
            alice.close(&world.server, "stray").await;
            world.set_hook(None);
            let old_root = alice.root(&old).await;
            alice
                .put(&world.server, "kept", &old_root.all_blocks())
                .await;
            world.collect_now().await;
            alice.close(&world.server, "kept").await;
        }
        let collector = world.collector.clone();
        world.set_hook(Some(once(Point::BeforePointer, move || async move {
            let now = CollectOptions {
                now: true,
                ..CollectOptions::default()
            };
            let report = collector.collect_garbage(&now, &|_| ()).await.unwrap();
            assert!(report.deleted.blocks > 0);
        })));
        let old_root = alice.root(&old).await.cid();
        let answer = alice.point(&world.server, &old_root).await;
        world.set_hook(None);
        assert_eq!(answer.status, 400, "first: {is_first}");
        assert_complete(&world, &alice).await;
        world.settle().await;
        world.collect_now().await;
        assert_only_reachable(&world, &alice).await;
    }
}

/// The same below a new root block: the root itself is there, what it builds on is not.
#[tokio::test(start_paused = true)]
async fn rel_8_c_a_new_root_cannot_build_on_blocks_that_were_collected() {
    let world = World::new().await;
    let (mut alice, old, old_blocks) = with_garbage(&world).await;
    world.collect_now().await;
    let answer = alice.commit(&world.server, &old, &[]).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.message().starts_with("Couldn't retrieve")
            || answer.message().contains("not present")
    );
    let middle = &old_blocks[3..];
    let answer = alice.commit(&world.server, &old, middle).await;
    assert_eq!(answer.status, 400, "leaves are missing");
    let answer = alice.commit(&world.server, &old, &old_blocks).await;
    assert_eq!(answer.body, [1], "{}", answer.message());
    assert_complete(&world, &alice).await;
}

#[tokio::test(start_paused = true)]
async fn rel_8_d_an_unreadable_block_ends_the_collection_of_its_owner_only() {
    let world = World::new().await;
    let (alice, _, _) = with_garbage(&world).await;
    let mut bob = Uploader::sign_up(&world.server, "bob", 2).await;
    for seed in ["one", "two"] {
        let (tree, blocks) = small_tree(seed, 2);
        bob.commit(&world.server, &tree, &blocks).await;
    }
    let before = world.stored("alice").await;
    let (tree, blocks) = small_tree("new", 3);
    for broken in [tree, blocks[3].cid().clone()] {
        *world.store.damaged.lock() = [broken.clone()].into();
        let report = world.collect_now().await;
        let Outcome::Aborted { reason, alarm } = &of(&report, "alice").outcome else {
            panic!("{report:?}");
        };
        assert!(*alarm && reason.contains(&broken.to_string()), "{reason}");
        assert_eq!(report.alarms, 1);
        assert_eq!(world.stored("alice").await, before);
        assert_eq!(world.collector.last_collection().unwrap().alarms, 1);
        let health = world.collector.examine().await;
        assert_eq!(health.unreadable_owners, 1);
        assert_eq!(health.status, Status::Degraded);
    }
    assert_only_reachable(&world, &bob).await;
    world.store.damaged.lock().clear();
    let report = world.collect_now().await;
    assert_eq!(report.alarms, 0);
    assert_eq!(world.collector.examine().await.unreadable_owners, 0);
    assert_only_reachable(&world, &alice).await;
}

/// A block that is missing is as bad as one that is damaged.
#[tokio::test(start_paused = true)]
async fn rel_8_d_a_missing_block_ends_the_collection_of_its_owner() {
    let world = World::new().await;
    let mut alice = Uploader::sign_up(&world.server, "alice", 1).await;
    let (tree, blocks) = small_tree("first", 3);
    alice.commit(&world.server, &tree, &blocks).await;
    // One leaf, or the inner block, is never sent.
    for left_out in [0, 3] {
        let (tree, blocks) = small_tree(&format!("second {left_out}"), 3);
        let mut some = blocks.clone();
        let missing = some.remove(left_out);
        let mut client = alice.clone();
        let answer = client.commit(&world.server, &tree, &some).await;
        assert_eq!(answer.body, [1], "{}", answer.message());
        let before = world.stored("alice").await;
        let report = world.collect_now().await;
        let Outcome::Aborted { reason, .. } = &of(&report, "alice").outcome else {
            panic!("{report:?}");
        };
        assert!(reason.contains(&missing.cid().to_string()), "{reason}");
        assert_eq!(world.stored("alice").await, before);
        let (other, others) = small_tree(&format!("other {left_out}"), 1);
        client.commit(&world.server, &other, &others).await;
        alice = client;
    }
    world.settle().await;
    world.collect_now().await;
    assert_only_reachable(&world, &alice).await;
}

#[tokio::test(start_paused = true)]
async fn rel_8_e_a_transaction_protects_for_a_day_after_its_last_put() {
    let world = World::new().await;
    let (alice, _, _) = with_garbage(&world).await;
    let (_, early) = small_tree("early", 2);
    let (_, late) = small_tree("late", 2);
    alice.put(&world.server, "long", &early).await;
    world.collect_now().await;
    let hour = Duration::from_secs(3600);
    for _ in 0..23 {
        world.wait(hour).await;
    }
    alice.put(&world.server, "long", &late).await;
    world.collect_now().await;
    let has = async |blocks: &[champ::Block]| {
        let stored = world.stored("alice").await;
        blocks.iter().all(|block| stored.contains(block.cid()))
    };
    assert!(has(&early).await && has(&late).await);
    world.wait(2 * hour).await;
    world.collect_now().await;
    assert!(!has(&early).await && has(&late).await);
    for _ in 0..23 {
        world.wait(hour).await;
    }
    world.collect_now().await;
    assert!(!has(&late).await);
    assert_only_reachable(&world, &alice).await;
}

#[tokio::test(start_paused = true)]
async fn rel_8_f_equal_blocks_of_two_owners_are_two_blocks() {
    let world = World::new().await;
    let mut alice = Uploader::sign_up(&world.server, "alice", 1).await;
    let mut bob = Uploader::sign_up(&world.server, "bob", 2).await;
    let (tree, blocks) = small_tree("shared", 3);
    alice.commit(&world.server, &tree, &blocks).await;
    bob.commit(&world.server, &tree, &blocks).await;
    let (other, others) = small_tree("other", 1);
    alice.commit(&world.server, &other, &others).await;
    world.collect_now().await;
    let leaf = blocks[0].cid();
    let get = async |user| world.store.block(&partition(user), leaf).await.unwrap();
    assert!(get("alice").await.is_none());
    assert!(get("bob").await.is_some());
    assert_only_reachable(&world, &alice).await;
    assert_only_reachable(&world, &bob).await;
}

fn disk_store(disk: &ModelDisk) -> Option<Arc<DiskStore>> {
    let mut options = DiskOptions::new("/data");
    options.inline_below_bytes = 20;
    options.cache_bytes = 1 << 20;
    options.free_floor = FreeFloor::Bytes(0);
    DiskStore::open_on(options, Arc::new(disk.clone()))
        .ok()
        .map(Arc::new)
}

/// REL-8 g: the machine stops at every flush of a collection. Nothing that is needed is gone, and the next
/// collection finishes the work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_8_g_a_collection_that_is_killed_anywhere_does_no_harm() {
    let clock = Arc::new(ManualClock::at(NOW));
    let disk = ModelDisk::default();
    let world = World::on(disk_store(&disk).unwrap(), clock.clone()).await;
    let (alice, _, _) = with_garbage(&world).await;
    world.server.node.close().await.unwrap();
    let folder = world.into_folder();
    let mut stops = 0;
    for n in 1.. {
        // A disk of its own for each run: everything so far is flushed, so no crash state differs.
        let disk = disk.crash(0);
        let store = disk_store(&disk).unwrap();
        let world = World::reopened(store, clock.clone(), folder.clone()).await;
        disk.plan(Plan {
            stop_after_flushes: Some(n),
            ..Plan::default()
        });
        let options = CollectOptions {
            now: true,
            ..CollectOptions::default()
        };
        let _ = world.collector.collect_garbage(&options, &|_| ()).await;
        let has_stopped = disk.has_stopped();
        drop(world);
        for seed in 0..4 {
            let disk = disk.crash(seed);
            let store = disk_store(&disk).unwrap();
            let world = World::reopened(store, clock.clone(), folder.clone()).await;
            assert_complete(&world, &alice).await;
            world.collect_now().await;
            assert_only_reachable(&world, &alice).await;
        }
        if !has_stopped {
            break;
        }
        stops += 1;
    }
    assert!(stops >= 4, "{stops} flushes are too few for a collection");
}

#[tokio::test(start_paused = true)]
async fn rel_8_h_a_clock_that_leaps_ends_no_transaction() {
    for days in [2, -2] {
        let world = World::new().await;
        let (mut alice, _, _) = with_garbage(&world).await;
        world.collect_now().await;
        let (tree, blocks) = small_tree("upload", 4);
        let root = alice.root(&tree).await;
        alice.put(&world.server, "slow", &blocks).await;
        // The clock leaps; the machine's timer does not.
        world.clock.advance(days * 86_400_000);
        for _ in 0..3 {
            world.collect_now().await;
            world.wait(Duration::from_secs(600)).await;
        }
        alice.put(&world.server, "slow", &root.all_blocks()).await;
        let answer = alice.point(&world.server, &root.cid()).await;
        assert_eq!(answer.body, [1], "{days} days: {}", answer.message());
        alice.close(&world.server, "slow").await;
        world.settle().await;
        world.collect_now().await;
        assert_only_reachable(&world, &alice).await;
    }
}

/// Issue: readers of an old root are safe for the grace period.
#[tokio::test(start_paused = true)]
async fn a_replaced_root_stays_readable_for_the_grace_period() {
    let world = World::new().await;
    let (mut alice, old, _) = with_garbage(&world).await;
    let old_root = alice.root(&old).await.cid();
    let is_readable = async |cid: &Cid| {
        let block = world.store.block(&partition("alice"), cid).await.unwrap();
        block.is_some()
    };
    world.settle().await;
    // Replaced before the first collection: that one deletes nothing, a second one has to be a grace period later.
    world.collect().await;
    let report = world.collect().await;
    assert!(
        matches!(of(&report, "alice").outcome, Outcome::Waiting { .. }),
        "{report:?}"
    );
    assert!(of(&report, "alice").waiting.blocks > 0);
    assert!(is_readable(&old_root).await);
    world.wait(GRACE).await;
    // A root that is current now, and replaced a moment before the next collection.
    let current = alice.home.clone();
    let (tree, blocks) = small_tree("third", 2);
    alice.commit(&world.server, &tree, &blocks).await;
    // And one that came and went between two collections.
    let short = alice.home.clone();
    let (tree, blocks) = small_tree("fourth", 2);
    alice.commit(&world.server, &tree, &blocks).await;
    let report = world.collect().await;
    assert!(of(&report, "alice").deleted.blocks > 0);
    assert!(!is_readable(&old_root).await);
    for root in [&current, &short] {
        world.reachable("alice", std::slice::from_ref(root)).await;
    }
    world.settle().await;
    world.wait(GRACE).await;
    world.collect().await;
    assert!(!is_readable(&current).await && !is_readable(&short).await);
    assert_only_reachable(&world, &alice).await;
    assert_eq!(
        of(&world.collect().await, "alice").outcome,
        Outcome::Unchanged
    );
}
