//! Disks that are full, read-only or failing, under a whole node (REL-3, REL-4, REL-5; Spec: 40 §12.2, M3, M6, M7).

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use champ::Block;
use node::{
    Node,
    clock::ManualClock,
    store::{BlockStore as _, DiskOptions, DiskStore, FreeFloor, Store},
};
use pki::wire::block_group::BlockFormat;

use super::world::{Files, World, open, space};
use crate::{
    conformance::{
        account::{Account, update},
        harness::{Answer, NOW, TestNode, config},
    },
    store::model_disk::{ModelDisk, Plan},
};

/// What clients show for a full disk (Spec: 06 §4).
const FULL: &str = "Server disk full, please contact the operator of this server";

async fn put(node: &TestNode, account: &Account, n: u32, len: usize) -> Answer {
    let mut bytes = n.to_be_bytes().to_vec();
    bytes.resize(len, 0x5a);
    let blocks = [Bytes::from(bytes)];
    account
        .put(node, &account.home, BlockFormat::Raw, &blocks)
        .await
}

async fn log_in(node: &TestNode, account: &Account) {
    let answer = account.get_login(node, &account.login, NOW, "").await;
    assert_eq!(answer.status, 200, "{}", answer.message());
}

/// Signs up, makes trouble, and looks at what the node says to every kind of call.
async fn trouble(plan: Plan, text: &str, status: u16, recovers: bool) {
    let disk = ModelDisk::default();
    let open = || {
        let mut options = DiskOptions::new("/data");
        options.free_floor = FreeFloor::Bytes(0);
        DiskStore::open_on(options, Arc::new(disk.clone())).unwrap()
    };
    let store: Arc<dyn Store> = Arc::new(open());
    let clock = Arc::new(ManualClock::at(NOW));
    let settings = node::Config {
        clock: clock.clone(),
        ..config()
    };
    let node = Node::with_store(settings, store).await.unwrap();
    let node = TestNode::of(node, clock);
    let alice = Account::sign_up(&node, "alice", 7).await;
    for len in [1_000, 100_000] {
        assert_eq!(put(&node, &alice, 1, len).await.status, 200);
    }
    let root = alice.home_root().await.cid();
    let mut next = alice.home_root().await;
    next.data.tree = Some(champ::Cid::of_raw(&[1; 1_000]));
    alice.put_root(&node, &alice.home, &next).await;
    let pointer = alice.pointer(&node, &alice.home.writer()).await;

    disk.plan(plan);
    for n in 2..5 {
        for len in [1_000, 100_000] {
            let answer = put(&node, &alice, n, len).await;
            assert_eq!((answer.status, answer.message().as_str()), (status, text));
        }
        let write = update(&alice.home, Some(&root), Some(&next.cid()), Some(2));
        let answer = alice.set(&node, &write).await;
        assert_eq!((answer.status, answer.message().as_str()), (status, text));
        let data = alice.login_data(&alice.login, 9);
        let answer = alice.set_login(&node, &data).await;
        assert_eq!((answer.status, answer.message().as_str()), (status, text));
        // Reading goes on, and nobody is told that the password is wrong.
        log_in(&node, &alice).await;
        assert_eq!(alice.pointer(&node, &alice.home.writer()).await, pointer);
        let mut block = 1_u32.to_be_bytes().to_vec();
        block.resize(100_000, 0x5a);
        let cid = champ::Cid::of_raw(&block);
        assert_eq!(node.ok(&alice.get_target(&cid), "").await, block);
    }

    disk.plan(Plan::default());
    let node = if recovers {
        node
    } else {
        // After a failed flush nothing is acknowledged until the next start.
        assert_eq!(put(&node, &alice, 6, 1_000).await.status, 500);
        log_in(&node, &alice).await;
        let clock = node.clock.clone();
        drop(node);
        let settings = node::Config {
            clock: clock.clone(),
            ..config()
        };
        let node = loop {
            // Tasks of the first node may hold the store for a moment; the model has no lock.
            let store: Arc<dyn Store> = Arc::new(open());
            if let Ok(node) = Node::with_store(settings.clone(), store).await {
                break node;
            }
        };
        TestNode::of(node, clock)
    };
    // The file is opened for writing again after a pause that depends on how long that takes.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while put(&node, &alice, 7, 1_000).await.status != 200 {
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    for (n, len) in [(7, 1_000), (8, 100_000)] {
        let answer = put(&node, &alice, n, len).await;
        assert_eq!(answer.status, 200, "{}", answer.message());
    }
    log_in(&node, &alice).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_5_a_full_disk_is_told_apart_from_everything_else_and_recovers() {
    let full = Plan {
        full_from: Some(0),
        ..Plan::default()
    };
    trouble(full, FULL, 400, true).await;
}

/// The operator keeps space for others: above that nothing is stored, and everything that does not need space, or gives
/// some back, goes on.
#[tokio::test]
async fn wr_13_below_the_floor_of_free_space_only_new_blocks_are_refused() {
    let world = World::new().await;
    let mut alice = world.user("alice", 7, 3).await;
    let bob = world.user("bob", 8, 1).await;
    let old: Vec<_> = alice.fragments.iter().map(|b| b.cid().clone()).collect();
    alice.save(&world, 2).await;
    let world = World::above(world.stopped(), u64::MAX / 2).await;
    for len in [1_000, 100_000] {
        let answer = put(&world.node, &alice.account, 1, len).await;
        assert_eq!((answer.status, answer.message().as_str()), (400, FULL));
    }
    alice.assert_readable(&world).await;
    log_in(&world.node, &alice.account).await;
    let data = alice.account.login_data(&alice.account.login, 9);
    let answer = alice.account.set_login(&world.node, &data).await;
    assert_eq!(answer.status, 200, "{}", answer.message());
    // Space is given back, by a collection and by a pointer that is deleted.
    let everything = node::gc::CollectOptions {
        now: true,
        ..node::gc::CollectOptions::default()
    };
    let collected = world.node.node.collect_garbage(&everything, &|_| ());
    assert!(collected.await.unwrap().deleted.blocks >= 3);
    for cid in &old {
        let block = world.store.block(&space("alice"), cid).await.unwrap();
        assert!(block.is_none());
    }
    let home = &alice.account.home;
    let end = update(home, Some(&alice.root), None, Some(alice.version() + 1));
    let answer = alice.account.set(&world.node, &end).await;
    assert_eq!(answer.status, 200, "{}", answer.message());
    let collected = world.node.node.collect_garbage(&everything, &|_| ());
    assert!(collected.await.unwrap().deleted.blocks >= 3);
    // The floor is lowered, or others have made space.
    let world = World::at(world.stopped()).await;
    let answer = put(&world.node, &bob.account, 1, 100_000).await;
    assert_eq!(answer.status, 200, "{}", answer.message());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_5_a_disk_that_turned_read_only_goes_on_being_read() {
    let stuck = Plan {
        stuck: Some(ErrorKind::ReadOnlyFilesystem),
        ..Plan::default()
    };
    trouble(stuck, "Internal server error", 500, true).await;
}

/// A file system of the real kind, gone when the test is.
pub(crate) struct Mount(pub(crate) PathBuf);

impl Mount {
    /// Mounts; `None`, said loudly, where that is not possible.
    pub(crate) fn new(test: &str, at: &Path, arguments: &[&str]) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(arguments).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                eprintln!("SKIP {test}: cannot mount: {}", why.trim());
                None
            }
            Err(error) => {
                eprintln!("SKIP {test}: cannot mount: {error}");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Fills a file system to the last byte.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    for piece in [1 << 20, 4096, 1] {
        while file.write_all(&vec![1; piece]).is_ok() {}
    }
    path
}

/// Everything alice has put that nothing points to goes.
async fn collect(world: &World, alice: &Files) {
    let close = format!(
        "api/v0/transaction/close?arg=t1&owner={}",
        alice.account.owner()
    );
    world.node.ok(&close, "").await;
    let kept: Vec<_> = alice.fragments.iter().map(|b| b.cid().clone()).collect();
    let listed = world
        .store
        .list_blocks(&space("alice"), None, 10_000)
        .await
        .unwrap();
    let garbage: Vec<_> = listed
        .into_iter()
        .filter(|info| info.size_bytes > 500_000 && !kept.contains(&info.cid))
        .map(|info| (info.cid, info.generation))
        .collect();
    for some in garbage.chunks(1_000) {
        let deleted = world
            .store
            .delete_blocks(&space("alice"), some.to_vec())
            .await;
        assert_eq!(deleted.unwrap().kept, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_5_a_real_disk_that_is_full_to_the_last_byte() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let name = "rel_5_a_real_disk_that_is_full_to_the_last_byte";
    let tmpfs = ["-t", "tmpfs", "-o", "size=48m,mode=700", "tmpfs"];
    let Some(_mount) = Mount::new(name, &data, &tmpfs) else {
        return;
    };
    let floor = 8 << 20;
    let mut world = World::above(folder, floor).await;
    let mut alice = world.user("alice", 7, 3).await;
    for round in 0..2 {
        // Uploads until the floor.
        let mut stored = Vec::new();
        loop {
            let n = round * 1_000 + stored.len() as u32;
            let answer = put(&world.node, &alice.account, n, 1 << 20).await;
            if answer.status != 200 {
                assert_eq!(answer.message(), FULL);
                break;
            }
            stored.push(n);
            assert!(stored.len() < 100);
        }
        assert!(stored.len() > 20, "{}", stored.len());
        log_in(&world.node, &alice.account).await;
        alice.assert_readable(&world).await;
        let data = alice.account.login_data(&alice.account.login, 3);
        let changed = alice.account.set_login(&world.node, &data).await;
        assert_eq!(changed.status, 200, "small writes go on above the floor");

        // Somebody else takes the rest.
        let filler = fill(&world.data());
        for n in 0..3 {
            let answer = put(&world.node, &alice.account, 50_000 + n, 1_000).await;
            assert_eq!(answer.message(), FULL);
            let changed = alice.account.set_login(&world.node, &data).await;
            assert!(changed.status == 200 || changed.message() == FULL);
        }
        log_in(&world.node, &alice.account).await;
        alice.assert_readable(&world).await;
        if round == 1 {
            // Killed and started again while there is not one byte.
            let folder = world.stopped();
            world = World::above(folder, floor).await;
            log_in(&world.node, &alice.account).await;
            alice.assert_readable(&world).await;
        }
        fs::remove_file(filler).unwrap();
        // No restart: deleting gives space back, and uploads go on.
        collect(&world, &alice).await;
        alice.save(&world, 3).await;
        alice.assert_readable(&world).await;
    }
    let report = world.check().await;
    assert_eq!(report.worst(), None, "{:#?}", report.findings);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_5_a_disk_without_inodes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let tmpfs = [
        "-t",
        "tmpfs",
        "-o",
        "size=64m,nr_inodes=40,mode=700",
        "tmpfs",
    ];
    let Some(_mount) = Mount::new("rel_5_a_disk_without_inodes", &data, &tmpfs) else {
        return;
    };
    let world = World::at(folder).await;
    let mut alice = world.user("alice", 7, 3).await;
    let mut stored = 0;
    while put(&world.node, &alice.account, stored, 600_000)
        .await
        .status
        == 200
    {
        stored += 1;
        assert!(stored < 50);
    }
    let answer = put(&world.node, &alice.account, 99, 600_000).await;
    assert_eq!(answer.message(), FULL);
    // Small blocks need no file.
    assert_eq!(
        put(&world.node, &alice.account, 99, 1_000).await.status,
        200
    );
    alice.assert_readable(&world).await;
    collect(&world, &alice).await;
    alice.save(&world, 3).await;
    assert_eq!(world.check().await.worst(), None);
}

const LIMITED: &str = "KASTRO_LIMITED_FOLDER";

/// Works under a limit of the size of files, until the database hits it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limited_child() {
    let Some(folder) = std::env::var_os(LIMITED) else {
        return;
    };
    let data = PathBuf::from(folder);
    let store = open(&data);
    let mut stored = 0_u64;
    let error = loop {
        let block = Block::raw(stored.to_be_bytes().repeat(6_000)).unwrap();
        match store.put_blocks(&space("alice"), vec![block], None).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 10_000);
    };
    assert!(
        matches!(error, node::store::StoreError::NoSpace { .. }),
        "{error:?}"
    );
    for n in 0..stored {
        let cid = champ::Cid::of_raw(&n.to_be_bytes().repeat(6_000));
        assert!(store.block(&space("alice"), &cid).await.unwrap().is_some());
    }
    println!("stored {stored}");
}

#[test]
fn rel_5_a_limit_of_the_size_of_files() {
    if std::env::var_os(LIMITED).is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "trap '' XFSZ; ulimit -f 12000; exec \"$@\"";
    let output = Command::new("bash")
        .args(["-c", script, "bash"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "upkeep::disk_trouble::limited_child",
            "--nocapture",
        ])
        .env(LIMITED, folder.path().join("data"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let stored = text.lines().find_map(|line| line.strip_prefix("stored "));
    let stored: u64 = stored.unwrap().parse().unwrap();
    assert!(stored > 20, "{stored}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open(&folder.path().join("data"));
        for n in 0..stored + 1 {
            let block = Block::raw(n.to_be_bytes().repeat(6_000)).unwrap();
            if n < stored {
                let read = store.block(&space("alice"), block.cid()).await.unwrap();
                assert_eq!(read.unwrap(), block);
            }
            // Without the limit it goes on.
            store
                .put_blocks(&space("alice"), vec![block], None)
                .await
                .unwrap();
        }
    });
}

/// Interrupted system calls are tried again; needs `strace` (M6).
#[test]
fn rel_3_interrupted_calls_change_nothing() {
    if std::env::var_os(LIMITED).is_some() {
        return;
    }
    let name = "rel_3_interrupted_calls_change_nothing";
    let works = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "true"])
        .output();
    if !works.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIP {name}: strace is not there or may not trace");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Not `read` and `write`: the runtime's wake-ups use them too.
    let calls = "pwrite64,pread64,fsync,fdatasync";
    let output = Command::new("timeout")
        .args(["120", "strace"])
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("inject={calls}:error=EINTR:when=5+7"))
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "upkeep::disk_trouble::interrupted_child",
            "--nocapture",
        ])
        .env(LIMITED, folder.path().join("data"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
}

#[tokio::test]
async fn interrupted_child() {
    let Some(folder) = std::env::var_os(LIMITED) else {
        return;
    };
    let store = open(&PathBuf::from(folder));
    for n in 0..20_u64 {
        let blocks = [10, 12_000].map(|times| Block::raw(n.to_be_bytes().repeat(times)).unwrap());
        store
            .put_blocks(&space("alice"), blocks.to_vec(), None)
            .await
            .unwrap();
        for block in blocks {
            let read = store.block(&space("alice"), block.cid()).await.unwrap();
            assert_eq!(read.unwrap(), block);
        }
    }
    store.close().await.unwrap();
}
