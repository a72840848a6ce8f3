//! Torture: a child process writes, SIGKILL ends it at a random moment, and everything it had acknowledged must be
//! there (REL-1, M1).
//!
//! `KASTRO_KILL_ROUNDS=2000 cargo test --release -p node --test main kill -- --nocapture` runs the long version.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use champ::Block;
use node::store::{
    Batch, BlockStore, DiskOptions, DiskStore, FreeFloor, MetaStore, Partition, tables,
};

use super::{contract::transaction, model_disk::Dice};

const FOLDER: &str = "KASTRO_KILL_FOLDER";
const ROUNDS: &str = "KASTRO_KILL_ROUNDS";
const WRITERS: u64 = 8;
/// Each writer deletes its block of this many steps ago.
const KEPT: u64 = 4;

fn open(folder: &Path) -> DiskStore {
    let mut options = DiskOptions::new(folder);
    options.free_floor = FreeFloor::Bytes(0);
    DiskStore::open(options).unwrap()
}

fn partition(writer: u64) -> Partition {
    Partition::new(&format!("w{writer}")).unwrap()
}

/// The blocks that a writer stores in one step: a large and a small one, of sizes that depend on the step.
fn blocks(writer: u64, step: u64) -> Vec<Block> {
    let mut dice = Dice(writer << 32 | step);
    let lens = [65_536 + dice.roll(200_000), 1 + dice.roll(9_000)];
    lens.into_iter()
        .map(|len| {
            let seed = dice.roll(u64::MAX).to_be_bytes();
            let bytes: Vec<u8> = seed.into_iter().cycle().take(len as usize).collect();
            Block::raw(bytes).unwrap()
        })
        .collect()
}

/// One writer: blocks, then the pointer to them, then the acknowledgement on standard output; old blocks are
/// deleted.
async fn write(store: Arc<DiskStore>, writer: u64) {
    let name = partition(writer);
    let key = writer.to_be_bytes().to_vec();
    let last = store.get(tables::POINTERS, &key).await.unwrap();
    let mut step = last.as_ref().map_or(0, |last| number(last));
    let mut pointer = last;
    loop {
        step += 1;
        let id = transaction(&format!("{step}"));
        store
            .put_blocks(&name, blocks(writer, step), Some(&id))
            .await
            .unwrap();
        let value = step.to_be_bytes().to_vec();
        let batch = Batch::new()
            .expect(tables::POINTERS, key.clone(), pointer)
            .put(tables::POINTERS, key.clone(), value.clone());
        assert!(store.commit(batch).await.unwrap().is_committed());
        pointer = Some(value.into());
        let line = format!("acknowledged {writer} {step}\n");
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        store.close_transaction(&name, &id).await.unwrap();
        if let Some(old) = step.checked_sub(KEPT).filter(|old| *old > 0) {
            let old = blocks(writer, old);
            let listed = store.list_blocks(&name, None, 1000).await.unwrap();
            let old = listed
                .into_iter()
                .filter(|info| old.iter().any(|b| *b.cid() == info.cid));
            let old = old.map(|info| (info.cid, info.generation)).collect();
            store.delete_blocks(&name, old).await.unwrap();
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

/// The victim; runs until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let store = Arc::new(open(folder.as_ref()));
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        tasks.spawn(write(store.clone(), writer));
    }
    tasks.join_all().await;
}

/// Runs the victim for a while, kills it, and returns the last step each writer had acknowledged.
fn run_and_kill(folder: &Path, run: Duration) -> Vec<u64> {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::kill::victim",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = vec![0; WRITERS as usize];
    let output = BufReader::new(victim.stdout.take().unwrap());
    let (lines, received) = std::sync::mpsc::sync_channel(1 << 16);
    let reader = std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                break;
            }
        }
    });
    // The time runs from the first acknowledgement, so that every round writes something.
    let mut end = None;
    let mut note = |line: String| {
        let mut words = line.split(' ');
        if words.next() == Some("acknowledged") {
            let writer: usize = words.next().unwrap().parse().unwrap();
            acknowledged[writer] = words.next().unwrap().parse().unwrap();
            return true;
        }
        false
    };
    let patience = Duration::from_secs(60);
    loop {
        let left = end.map_or(patience, |end: Instant| {
            end.saturating_duration_since(Instant::now())
        });
        match received.recv_timeout(left) {
            Ok(line) => {
                if note(line) && end.is_none() {
                    end = Some(Instant::now() + run);
                }
            }
            Err(_) => break,
        }
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    received.iter().for_each(|line| {
        note(line);
    });
    reader.join().unwrap();
    acknowledged
}

async fn verify(folder: &Path, acknowledged: &[u64]) {
    let store = open(folder);
    let mut large = 0;
    for writer in 0..WRITERS {
        let name = partition(writer);
        let pointer = store
            .get(tables::POINTERS, &writer.to_be_bytes())
            .await
            .unwrap();
        let pointer = pointer.map_or(0, |pointer| number(&pointer));
        let least = acknowledged[writer as usize];
        assert!(
            pointer >= least,
            "writer {writer} is at {pointer}, {least} was acknowledged"
        );
        for step in pointer.saturating_sub(KEPT - 2).max(1)..=pointer {
            for block in blocks(writer, step) {
                let found = store.block(&name, block.cid()).await.unwrap();
                assert_eq!(found.as_ref(), Some(&block), "writer {writer} step {step}");
            }
        }
        for info in store.list_blocks(&name, None, 1000).await.unwrap() {
            assert!(store.block(&name, &info.cid).await.unwrap().is_some());
            large += u64::from(info.size_bytes >= 65_536);
        }
    }
    // Start-up has removed what no row names, and finished the deletions.
    let runs = std::fs::read_dir(folder.join("blocks")).unwrap();
    let files = runs.map(|run| std::fs::read_dir(run.unwrap().path()).unwrap().count() as u64);
    assert_eq!(files.sum::<u64>(), large);
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    if std::env::var_os(FOLDER).is_some() {
        return;
    }
    let rounds = std::env::var(ROUNDS).map_or(5, |rounds| rounds.parse().unwrap());
    let root = tempfile::tempdir().unwrap();
    let mut dice = Dice(u64::from(std::process::id()));
    let mut steps = 0;
    for _ in 0..rounds {
        let acknowledged = run_and_kill(root.path(), Duration::from_millis(dice.roll(150)));
        verify(root.path(), &acknowledged).await;
        steps = acknowledged.iter().sum();
    }
    assert!(steps > 0);
}
