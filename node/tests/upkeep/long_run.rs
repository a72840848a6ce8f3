//! A node at work for long, in a process of its own: nothing grows but what users keep (REL-19), and the memory it
//! ever takes fits into a small container (DOS-16).
//!
//! `KASTRO_LONG_RUN_ROUNDS=5000 cargo test --release -p node --test main long_run -- --nocapture` runs the long version.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use bytes::Bytes;
use node::gc::CollectOptions;
use pki::wire::block_group::BlockFormat;

use super::world::{Files, World};

/// Folder of the child that does the work.
const FOLDER: &str = "KASTRO_LONG_RUN";
/// Rounds of each of the three phases.
const ROUNDS: &str = "KASTRO_LONG_RUN_ROUNDS";
const USERS: [(&str, u8); 2] = [("alice", 7), ("bob", 8)];
/// Uploads at the same time, and the bytes of each.
const UPLOADS: u32 = 24;
const UPLOAD_BYTES: usize = 1 << 20;
/// What a small container has.
const CONTAINER_KIB: u64 = 256 << 10;

/// What the child takes of its machine.
#[derive(Debug, Clone, Copy)]
struct Taken {
    /// Memory now, and the most there ever was.
    resident_kib: u64,
    most_kib: u64,
    descriptors: u64,
    threads: u64,
    files: u64,
    file_bytes: u64,
    log_bytes: u64,
    /// What users keep.
    live_blocks: u64,
    live_bytes: u64,
}

impl Taken {
    async fn now(world: &World) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let (mut files, mut file_bytes) = (0, 0);
        let mut open = vec![world.data()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let Ok(metadata) = entry.metadata() else {
                    continue;
                };
                if metadata.is_dir() {
                    open.push(entry.path());
                } else {
                    files += 1;
                    file_bytes += metadata.len();
                }
            }
        }
        let (mut live_blocks, mut live_bytes) = (0, 0);
        for partition in node::store::BlockStore::partitions(&*world.store, None, 100)
            .await
            .unwrap()
        {
            let counts = node::store::BlockStore::block_counts(&*world.store, &partition);
            let counts = counts.await.unwrap();
            live_blocks += counts.blocks;
            live_bytes += counts.bytes;
        }
        let log = fs::metadata(world.data().join("store/meta.log"));
        Self {
            resident_kib: field("VmRSS:"),
            most_kib: field("VmHWM:"),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count() as u64,
            threads: field("Threads:"),
            files,
            file_bytes,
            log_bytes: log.map_or(0, |log| log.len()),
            live_blocks,
            live_bytes,
        }
    }

    fn to_line(self) -> String {
        format!(
            "taken {} {} {} {} {} {} {} {} {}",
            self.resident_kib,
            self.most_kib,
            self.descriptors,
            self.threads,
            self.files,
            self.file_bytes,
            self.log_bytes,
            self.live_blocks,
            self.live_bytes
        )
    }

    fn of_line(line: &str) -> Self {
        let mut numbers = line.split(' ').skip(1).map(|n| n.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        Self {
            resident_kib: next(),
            most_kib: next(),
            descriptors: next(),
            threads: next(),
            files: next(),
            file_bytes: next(),
            log_bytes: next(),
            live_blocks: next(),
            live_bytes: next(),
        }
    }
}

/// Replaces what the users have, again and again, with a collection now and then.
async fn churn(world: &World, users: &mut [Files], rounds: u32) {
    for round in 0..rounds {
        for files in users.iter_mut() {
            files.save(world, 3).await;
            let content = files.version() as u8;
            let data = files.account.login_data(&files.account.login, content);
            let _ = files.account.set_login(&world.node, &data).await;
        }
        if round % 5 == 4 || round + 1 == rounds {
            let everything = CollectOptions {
                now: true,
                ..CollectOptions::default()
            };
            let collected = world.node.node.collect_garbage(&everything, &|_| ());
            let report = collected.await.unwrap();
            assert_eq!(report.alarms, 0);
        }
    }
}

/// Many uploads at the same time; nothing will point to them.
async fn burst(world: &World, files: &Files) {
    let uploads = (0..UPLOADS).map(|n| async move {
        let mut bytes = n.to_be_bytes().to_vec();
        bytes.resize(UPLOAD_BYTES, 0x5a);
        let account = &files.account;
        let blocks = [Bytes::from(bytes)];
        let answer = account
            .put(&world.node, &account.home, BlockFormat::Raw, &blocks)
            .await;
        // Refused when too much is on its way: also an answer.
        assert!([200, 429, 503].contains(&answer.status), "{answer:?}");
    });
    futures_util::future::join_all(uploads).await;
    let close = format!(
        "api/v0/transaction/close?arg=t1&owner={}",
        files.account.owner()
    );
    world.node.ok(&close, "").await;
}

/// The child.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_run_child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let rounds = std::env::var(ROUNDS).map_or(20, |rounds| rounds.parse().unwrap());
    let world = World::on(
        Path::new(&folder),
        std::sync::Arc::new(node::store::disk::SystemDisk),
    )
    .await;
    let mut users = Vec::new();
    for (name, seed) in USERS {
        users.push(world.user(name, seed, 3).await);
    }
    for _ in 0..3 {
        burst(&world, &users[0]).await;
        churn(&world, &mut users, rounds).await;
        println!("{}", Taken::now(&world).await.to_line());
    }
}

/// Runs the child, and returns what it took after each phase.
fn phases() -> Vec<Taken> {
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "upkeep::long_run::long_run_child", "--nocapture"])
        .env(FOLDER, folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&run.stdout);
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{out}\n{error}");
    // The test harness may print in front of a line.
    let lines = out
        .lines()
        .filter_map(|line| Some(&line[line.find("taken ")?..]));
    let phases: Vec<_> = lines.map(Taken::of_line).collect();
    assert_eq!(phases.len(), 3, "{out}");
    for phase in &phases {
        println!("{phase:?}");
    }
    phases
}

#[test]
fn rel_19_and_dos_16_a_node_at_work_takes_no_more_with_time_and_fits_into_256_mib() {
    if std::env::var_os(FOLDER).is_some() {
        return;
    }
    let phases = phases();
    let (second, third) = (phases[1], phases[2]);
    assert_eq!(second.live_blocks, third.live_blocks, "{phases:?}");
    assert_eq!(second.files, third.files, "{phases:?}");
    // The first phase fills caches; after it, another one like it changes nothing but noise.
    let slack = |before: u64, more: u64| before + before / 4 + more;
    assert!(
        third.descriptors <= slack(second.descriptors, 4),
        "{phases:?}"
    );
    assert!(third.threads <= slack(second.threads, 16), "{phases:?}");
    assert!(
        third.resident_kib <= slack(second.resident_kib, 16 << 10),
        "{phases:?}"
    );
    assert!(
        third.file_bytes <= slack(second.file_bytes, 4 << 20),
        "{phases:?}"
    );
    for phase in &phases {
        // A log is emptied when it has a few megabytes; a database of these few rows is small.
        assert!(phase.log_bytes < 32 << 20, "{phases:?}");
        assert!(
            phase.file_bytes < phase.live_bytes + (64 << 20),
            "{phases:?}"
        );
        assert!(phase.most_kib < CONTAINER_KIB, "{phases:?}");
    }
}
