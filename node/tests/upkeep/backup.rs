//! Backup of a node at work and what a restore makes of it (REL-12, REL-13).

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use champ::Block;
use node::{
    BlockPlace, Config, MetadataPlace, Node, OpenError,
    backup::{
        BackupBlocks, BackupError, BackupOptions, BackupOutcome, RESTORING_FILE, RestoreOptions,
        RestoreOutcome, backup, restore, restore_as, restored, verify,
    },
    check::{RepairOptions, repair},
    store::{Archive as _, BlockStore as _, Store},
};
use tempfile::TempDir;

use super::world::{World, open, space};
use crate::conformance::{account::update, harness::NOW};

const NOW_SECONDS: i64 = NOW / 1000;

async fn back_up(world: &World, to: &Path) -> Result<BackupOutcome, BackupError> {
    back_up_keeping(world, to, None).await
}

async fn back_up_keeping(
    world: &World,
    to: &Path,
    keep: Option<usize>,
) -> Result<BackupOutcome, BackupError> {
    let options = BackupOptions {
        data: world.data(),
        to: to.to_owned(),
        keep,
        now_seconds: NOW_SECONDS,
    };
    backup(&*world.store, &options, &mut |_| true).await
}

fn restore_options(from: &Path, data: &Path) -> RestoreOptions {
    RestoreOptions {
        from: from.to_owned(),
        data: data.to_owned(),
        snapshot: None,
        now_seconds: NOW_SECONDS + 3 * 86_400,
    }
}

/// Restores into a new machine and starts a node on it.
async fn restored_world(from: &Path) -> (RestoreOutcome, World) {
    let folder = tempfile::tempdir().unwrap();
    let options = restore_options(from, &folder.path().join("data"));
    let outcome = restore(&options, &mut |_, _| true).await.unwrap();
    (outcome, World::at(folder).await)
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backup");
    (folder, path)
}

fn packs(to: &Path) -> Vec<PathBuf> {
    let packs = fs::read_dir(to.join("packs")).unwrap();
    let mut packs: Vec<_> = packs.map(|pack| pack.unwrap().path()).collect();
    packs.sort();
    packs
}

fn snapshots(to: &Path) -> Vec<String> {
    verify(to, &mut |_, _| true).unwrap().snapshots
}

#[tokio::test]
async fn rel_12_a_restore_on_another_machine_is_the_same_node() {
    let world = World::new().await;
    let alice = world.user("alice", 7, 4).await;
    let bob = world.user("bob", 8, 2).await;
    fs::create_dir(world.data().join("tls")).unwrap();
    fs::write(world.data().join("tls/account.json"), "a key").unwrap();
    let (_keep, to) = place();
    let made = back_up(&world, &to).await.unwrap();
    // Equal blocks of two users are kept once.
    assert!(made.copied_blocks < made.blocks && made.copied_blocks > made.blocks - 5);
    assert!(made.damaged.is_empty());
    assert!(made.copied_bytes > 6 * 70_000);

    let verified = verify(&to, &mut |_, _| true).unwrap();
    assert_eq!(verified.problems, Vec::<String>::new());
    assert_eq!(verified.snapshots, std::slice::from_ref(&made.name));
    assert_eq!(verified.newest_seconds, Some(NOW_SECONDS));

    let (outcome, copy) = restored_world(&to).await;
    assert_eq!((outcome.blocks, outcome.lost.len()), (made.blocks, 0));
    assert_eq!(outcome.age_seconds, 3 * 86_400);
    let known = restored(&*copy.store).await.unwrap().unwrap();
    assert_eq!(known.created_seconds, NOW_SECONDS);
    assert_eq!(restored(&*world.store).await.unwrap(), None);
    for name in [
        "names-owner.key",
        "names-writer.key",
        "second-factors.key",
        "tls/account.json",
    ] {
        let of = |world: &World| fs::read(world.data().join(name)).unwrap();
        assert_eq!(of(&copy), of(&world), "{name}");
    }
    for files in [&alice, &bob] {
        files.assert_readable(&copy).await;
        let home = files.account.home.writer();
        assert_eq!(
            files.account.pointer(&copy.node, &home).await,
            files.account.pointer(&world.node, &home).await
        );
        assert_eq!(
            files.account.usage(&copy.node, "").await,
            files.account.usage(&world.node, "").await
        );
    }
    assert_eq!(copy.check().await.total(), 0);
    // It goes on: nothing of the old one is in the way.
    let mut alice = alice;
    alice.save(&copy, 3).await;
    alice.assert_readable(&copy).await;
}

/// What was written after the backup is gone from the node, not from who wrote it: the node says how old it is, refuses
/// to build on what it does not have, and takes it again.
#[tokio::test]
async fn rel_13_after_an_old_backup_the_node_says_so_and_clients_upload_again() {
    let world = World::new().await;
    let mut alice = world.user("alice", 7, 2).await;
    let (_keep, to) = place();
    back_up(&world, &to).await.unwrap();
    let old_root = alice.root.clone();
    alice.save(&world, 3).await;
    let (outcome, copy) = restored_world(&to).await;
    assert_eq!(outcome.age_seconds, 3 * 86_400);
    let known = restored(&*copy.store).await.unwrap().unwrap();
    assert_eq!(known.created_seconds, NOW_SECONDS);
    assert_eq!(known.restored_seconds, NOW_SECONDS + 3 * 86_400);

    // A device that has seen the newer version goes on from there and is refused.
    let account = &alice.account;
    let served = account.pointer(&copy.node, &account.home.writer()).await;
    let newest = account.pointer(&world.node, &account.home.writer()).await;
    assert_ne!(served, newest);
    let next = alice.version() + 1;
    let home = &account.home;
    let onward = update(home, Some(&alice.root), Some(&old_root), Some(next));
    let refused = account.set(&copy.node, &onward).await;
    assert_ne!((refused.status, refused.body.as_slice()), (200, &[1][..]));
    assert_eq!(account.pointer(&copy.node, &home.writer()).await, served);
    // It uploads what it has, from the version that the node knows to one above all it has seen.
    for n in 0..alice.fragments.len() {
        alice.put_again(&copy, n).await;
    }
    let mut root = account.home_root().await;
    root.data.tree = Some(alice.tree.cid().clone());
    root.blocks.push(alice.tree.clone());
    account.put_root(&copy.node, home, &root).await;
    let again = update(home, Some(&old_root), Some(&root.cid()), Some(next));
    let answer = account.set(&copy.node, &again).await;
    assert_eq!((answer.status, answer.body), (200, vec![1]));
    alice.assert_readable(&copy).await;
    assert_eq!(copy.check().await.total(), 0);
}

/// From a disk to a bucket and a database: the node goes on with the data it had.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_12_a_backup_of_a_disk_is_restored_into_a_bucket_and_a_database() {
    use crate::{
        conformance::harness::{TestNode, config},
        servers::{postgres, s3},
    };
    let (Some(bucket), Some(database)) = (s3::server(), postgres::shared()) else {
        return;
    };
    let world = World::new().await;
    let alice = world.user("alice", 7, 4).await;
    let (_keep, to) = place();
    let made = back_up(&world, &to).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        data: Some(folder.path().join("data")),
        metadata: MetadataPlace::Postgres(Box::new(database.new_data_set())),
        blocks: BlockPlace::S3(Box::new(bucket.options(&s3::S3Server::fresh_prefix()))),
        ..config()
    };
    let options = restore_options(&to, &folder.path().join("data"));
    let outcome = restore_as(&options, &config, &mut |_, _| true)
        .await
        .unwrap();
    assert_eq!((outcome.blocks, outcome.lost.len()), (made.blocks, 0));
    // A second one would mix two nodes.
    let other = tempfile::tempdir().unwrap();
    let options = restore_options(&to, &other.path().join("data"));
    let again = restore_as(&options, &config, &mut |_, _| true).await;
    assert!(
        matches!(again, Err(BackupError::StoreNotEmpty)),
        "{again:?}"
    );
    assert!(!other.path().join("data").join(RESTORING_FILE).exists());

    let node = TestNode::with(config).await;
    let home = alice.account.home.writer();
    assert_eq!(
        alice.account.pointer(&node, &home).await,
        alice.account.pointer(&world.node, &home).await
    );
    assert_eq!(
        alice.account.usage(&node, "").await,
        alice.account.usage(&world.node, "").await
    );
    node.node.close().await.unwrap();
}

#[tokio::test]
async fn rel_12_only_what_is_new_is_copied_and_old_snapshots_stay() {
    let world = World::new().await;
    let mut alice = world.user("alice", 7, 4).await;
    let (_keep, to) = place();
    let first = back_up(&world, &to).await.unwrap();
    let again = back_up(&world, &to).await.unwrap();
    assert_eq!((again.copied_blocks, again.blocks), (0, first.blocks));
    assert_eq!(packs(&to).len(), 1);
    let old = alice.fragments.clone();
    alice.save(&world, 2).await;
    let third = back_up(&world, &to).await.unwrap();
    assert!((2..6).contains(&third.copied_blocks), "{third:?}");
    assert_eq!(snapshots(&to).len(), 3);

    let folder = tempfile::tempdir().unwrap();
    let mut options = restore_options(&to, &folder.path().join("data"));
    options.snapshot = Some(first.name.clone());
    restore(&options, &mut |_, _| true).await.unwrap();
    let store = open(&options.data);
    let alices = space("alice");
    assert!(store.block(&alices, old[0].cid()).await.unwrap().is_some());
    let new = alice.fragments[0].cid();
    assert!(store.block(&alices, new).await.unwrap().is_none());
    store.close().await.unwrap();
    options.snapshot = Some("yesterday".to_owned());
    options.data = folder.path().join("other");
    let unknown = restore(&options, &mut |_, _| true).await;
    assert!(matches!(unknown, Err(BackupError::NoSnapshot(_))));
}

#[tokio::test]
async fn old_snapshots_are_let_go_with_the_space_only_they_needed() {
    let world = World::new().await;
    let mut alice = world.user("alice", 7, 8).await;
    let (_keep, to) = place();
    back_up(&world, &to).await.unwrap();
    for _ in 0..3 {
        let old: Vec<_> = alice.fragments.iter().map(|b| b.cid().clone()).collect();
        alice.save(&world, 8).await;
        delete(&world, &old).await;
        let made = back_up_keeping(&world, &to, Some(2)).await.unwrap();
        assert!(made.removed.len() <= 1);
    }
    let verified = verify(&to, &mut |_, _| true).unwrap();
    assert_eq!((verified.snapshots.len(), verified.problem_count), (2, 0));
    // Two versions of eight blocks, not four.
    assert!(verified.bytes < 20 * 70_000, "{} bytes", verified.bytes);
    let (outcome, copy) = restored_world(&to).await;
    assert!(outcome.lost.is_empty());
    alice.assert_readable(&copy).await;
}

async fn delete(world: &World, cids: &[champ::Cid]) {
    let listed = world
        .store
        .list_blocks(&space("alice"), None, 1000)
        .await
        .unwrap();
    let garbage = listed.into_iter().filter(|info| cids.contains(&info.cid));
    let garbage = garbage.map(|info| (info.cid, info.generation)).collect();
    world
        .store
        .delete_blocks(&space("alice"), garbage)
        .await
        .unwrap();
}

/// Writers and a collector that deletes all it may run beside the backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_12_under_load_a_snapshot_holds_everything_its_pointers_lead_to() {
    let world = Arc::new(World::new().await);
    let mut alice = world.user("alice", 7, 6).await;
    let (_keep, to) = place();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let busy = world.clone();
    let writer = tokio::spawn(async move {
        let mut rounds = 0;
        while stopped.try_recv().is_err() {
            let old: Vec<_> = alice.fragments.iter().map(|b| b.cid().clone()).collect();
            alice.save(&busy, 6).await;
            // Deletes the version before at once: only a hold can save it for a snapshot that names it.
            delete(&busy, &old).await;
            rounds += 1;
        }
        (alice, rounds)
    });
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(back_up(&world, &to).await.unwrap());
    }
    stop.send(()).unwrap();
    let (alice, rounds) = writer.await.unwrap();
    assert!(rounds > 0);
    assert!(
        made.iter().all(|outcome| outcome.damaged.is_empty()),
        "{made:?}"
    );
    for outcome in made {
        let folder = tempfile::tempdir().unwrap();
        let mut options = restore_options(&to, &folder.path().join("data"));
        options.snapshot = Some(outcome.name);
        let back = restore(&options, &mut |_, _| true).await.unwrap();
        assert!(back.lost.is_empty());
        let copy = World::at(folder).await;
        let report = copy.check().await;
        assert_eq!(report.worst(), None, "{:#?}", report.findings);
    }
    alice.assert_readable(&world).await;
    // The hold is over: deletions work again.
    let cids: Vec<_> = alice.fragments.iter().map(|b| b.cid().clone()).collect();
    delete(&world, &cids).await;
    let left = world.store.block(&space("alice"), &cids[0]).await.unwrap();
    assert!(left.is_none());
}

#[tokio::test]
async fn a_hold_keeps_blocks_until_their_space_is_released() {
    let world = World::new().await;
    let alice = world.user("alice", 7, 2).await;
    let cids: Vec<_> = alice.fragments.iter().map(|b| b.cid().clone()).collect();
    let is_there = async |n: usize| {
        let block = world.store.block(&space("alice"), &cids[n]).await.unwrap();
        block.is_some()
    };
    let hold = world.store.hold().await.unwrap();
    let second = world.store.hold().await.unwrap();
    delete(&world, &cids[..1]).await;
    assert!(is_there(0).await);
    hold.release(&space("bob"));
    hold.release(&space("alice"));
    delete(&world, &cids[..1]).await;
    assert!(is_there(0).await, "the second one holds on");
    drop(second);
    delete(&world, &cids[..1]).await;
    assert!(!is_there(0).await);
    drop(hold);
    delete(&world, &cids[1..]).await;
    assert!(!is_there(1).await);
}

#[tokio::test]
async fn a_backup_that_breaks_off_is_continued_and_harms_nothing() {
    let world = World::new().await;
    let mut alice = world.user("alice", 7, 2).await;
    let (_keep, to) = place();
    let first = back_up(&world, &to).await.unwrap();
    // More than one batch of blocks.
    let more: Vec<_> = (0..600_u32)
        .map(|n| Block::raw(n.to_be_bytes().repeat(300)).unwrap())
        .collect();
    world
        .store
        .put_blocks(&space("alice"), more, None)
        .await
        .unwrap();
    alice.save(&world, 3).await;
    let options = BackupOptions {
        data: world.data(),
        to: to.clone(),
        keep: None,
        now_seconds: NOW_SECONDS,
    };
    let mut turns = 0;
    let mut stop = |_: &_| {
        turns += 1;
        turns < 2
    };
    let stopped = backup(&*world.store, &options, &mut stop).await;
    assert!(matches!(stopped, Err(BackupError::Stopped)), "{stopped:?}");
    assert_eq!(snapshots(&to), std::slice::from_ref(&first.name));
    // As if the process had died: a torn pack and a torn snapshot.
    fs::write(to.join("packs/.new-0000000000000009"), "torn").unwrap();
    fs::create_dir(to.join("snapshots/.new-x")).unwrap();
    fs::write(to.join("snapshots/.new-x/metadata"), "torn").unwrap();
    let (_, copy) = restored_world(&to).await;
    drop(copy);

    let next = back_up(&world, &to).await.unwrap();
    assert!(
        next.copied_blocks > 0 && next.copied_blocks < 600,
        "{next:?}"
    );
    assert!(!to.join("snapshots/.new-x").exists());
    let verified = verify(&to, &mut |_, _| true).unwrap();
    assert_eq!((verified.problem_count, verified.snapshots.len()), (0, 2));
    let (_, copy) = restored_world(&to).await;
    alice.assert_readable(&copy).await;
}

#[tokio::test]
async fn a_restore_that_breaks_off_is_no_node_and_is_continued() {
    let world = World::new().await;
    let alice = world.user("alice", 7, 3).await;
    let (_keep, to) = place();
    back_up(&world, &to).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let options = restore_options(&to, &data);
    let mut turns = 0;
    let mut stop = |_, _| {
        turns += 1;
        turns < 2
    };
    let stopped = restore(&options, &mut stop).await;
    assert!(matches!(stopped, Err(BackupError::Stopped)));
    assert!(data.join(RESTORING_FILE).exists());
    let config = Config {
        data: Some(data.clone()),
        ..Config::default()
    };
    let refused = Node::open(config).await;
    assert!(matches!(refused, Err(OpenError::Restoring(_))));
    let outcome = restore(&options, &mut |_, _| true).await.unwrap();
    assert!(outcome.lost.is_empty());
    let copy = World::at(folder).await;
    alice.assert_readable(&copy).await;
    let again = restore(&options, &mut |_, _| true).await;
    assert!(matches!(again, Err(BackupError::NotEmpty(_))));
}

#[tokio::test]
async fn damage_in_a_backup_is_found_reported_and_healed_by_the_next_one() {
    let world = World::new().await;
    let alice = world.user("alice", 7, 3).await;
    let (_keep, to) = place();
    back_up(&world, &to).await.unwrap();
    let pack = packs(&to).remove(0);
    let good = fs::read(&pack).unwrap();
    let mut bad = good.clone();
    let at = good
        .windows(8)
        .position(|w| w == &alice.fragments[1].bytes()[1_000..1_008])
        .unwrap_or(good.len() / 2);
    bad[at] ^= 1;
    fs::write(&pack, &bad).unwrap();
    let verified = verify(&to, &mut |_, _| true).unwrap();
    assert_eq!(verified.problem_count, 2, "{:?}", verified.problems);
    let folder = tempfile::tempdir().unwrap();
    let options = restore_options(&to, &folder.path().join("data"));
    let outcome = restore(&options, &mut |_, _| true).await.unwrap();
    assert_eq!(outcome.lost.len(), 1);

    // An index that cannot be read: the blocks count as absent and are copied again.
    let mut torn = good.clone();
    torn.truncate(good.len() - 10);
    fs::write(&pack, &torn).unwrap();
    let made = back_up(&world, &to).await.unwrap();
    assert!(made.copied_blocks > made.blocks - 5);
    let (outcome, copy) = restored_world(&to).await;
    assert!(outcome.lost.is_empty());
    alice.assert_readable(&copy).await;

    // Lists have checksums.
    let name = made.name;
    for list in [
        "metadata",
        "blocks",
        "files/names-owner.key",
        "manifest.json",
    ] {
        let path = to.join("snapshots").join(&name).join(list);
        let saved = fs::read(&path).unwrap();
        let mut bad = saved.clone();
        bad[0] ^= 0x20;
        fs::write(&path, bad).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let options = restore_options(&to, &folder.path().join("data"));
        let refused = restore(&options, &mut |_, _| true).await;
        assert!(
            matches!(refused, Err(BackupError::Damaged { .. })),
            "{list}"
        );
        fs::write(&path, saved).unwrap();
    }
}

#[tokio::test]
async fn rel_6_a_damaged_block_is_repaired_from_a_backup() {
    let world = World::new().await;
    let alice = world.user("alice", 7, 3).await;
    let (_keep, to) = place();
    back_up(&world, &to).await.unwrap();
    fs::write(world.file("alice", &alice.fragments[2]), b"?").unwrap();
    let made = back_up(&world, &to).await.unwrap();
    assert!(made.damaged.is_empty(), "the backup has it already");
    let report = world.check().await;
    let supply = BackupBlocks::open(&to).unwrap();
    let options = RepairOptions {
        supply: Some(&supply),
        ..RepairOptions::default()
    };
    let repaired = repair(&*world.store, &report, options).await.unwrap();
    assert_eq!((repaired.healed, repaired.lost.len()), (1, 0));
    assert_eq!(world.check().await.total(), 0);

    // Without an older backup it is reported, and everything else is in the new one.
    fs::write(world.file("alice", &alice.fragments[0]), b"?").unwrap();
    let (_keep, to) = place();
    let made = back_up(&world, &to).await.unwrap();
    let lost = [("alice".to_owned(), alice.fragments[0].cid().to_string())];
    assert_eq!(made.damaged, lost);
    let (outcome, _) = restored_world(&to).await;
    assert_eq!(outcome.lost, lost);
}

#[tokio::test]
async fn folders_that_cannot_be_right_are_refused() {
    let world = World::new().await;
    let (keep, to) = place();
    let inside = back_up(&world, &world.data().join("backup")).await;
    assert!(matches!(inside, Err(BackupError::Inside(_))));
    fs::write(keep.path().join("holiday.jpg"), "x").unwrap();
    let other = back_up(&world, keep.path()).await;
    assert!(matches!(other, Err(BackupError::NotABackup(_))));
    assert_eq!(fs::read_dir(keep.path()).unwrap().count(), 1);
    back_up(&world, &to).await.unwrap();
    fs::write(to.join("backup"), "kastro backup 2\n").unwrap();
    let newer = back_up(&world, &to).await;
    let is_newer = |result: &BackupError| {
        matches!(
            result,
            BackupError::NewerFormat {
                found: 2,
                supported: 1
            }
        )
    };
    assert!(newer.as_ref().is_err_and(is_newer));
    fs::write(to.join("backup"), "kastro backup 1\n").unwrap();
    let full = tempfile::tempdir().unwrap();
    fs::write(full.path().join("x"), "x").unwrap();
    let refused = restore(&restore_options(&to, full.path()), &mut |_, _| true).await;
    assert!(matches!(refused, Err(BackupError::NotEmpty(_))));
    let options = restore_options(full.path(), &keep.path().join("n"));
    let nothing = restore(&options, &mut |_, _| true).await;
    assert!(matches!(nothing, Err(BackupError::NotABackup(_))));
    let memory = node::store::MemoryStore::new();
    assert!(memory.archive().is_none());
}

/// Only the owner may look into a backup: the node's keys are in it.
#[tokio::test]
async fn backups_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new().await;
    let (_keep, to) = place();
    back_up(&world, &to).await.unwrap();
    let mut open = vec![to];
    while let Some(path) = open.pop() {
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(
            metadata.permissions().mode() & 0o077,
            0,
            "{}",
            path.display()
        );
        if metadata.is_dir() {
            open.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
}
