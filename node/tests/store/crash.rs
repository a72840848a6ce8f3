//! Crashes and faults on the model of a disk: nothing acknowledged is lost, every operation happens as a whole
//! or not at all, no row names a missing block (REL-1 to REL-5).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    sync::Arc,
};

use champ::{Block, Cid};
use node::store::{
    Batch, BlockStore, DiskOptions, DiskStore, FreeFloor, MetaStore, Store, StoreError, tables,
};

use super::{
    contract::{alice, raw, transaction},
    model_disk::{Dice, ModelDisk, Plan},
};

/// One operation.
#[derive(Debug, Clone)]
enum Step {
    /// Put blocks under a transaction.
    Put(Vec<Block>, &'static str),
    /// Point a row to a block, if the row is absent or points to something else.
    Point(&'static str, Cid),
    /// End a transaction.
    Close(&'static str),
    /// Delete blocks.
    Delete(Vec<Cid>),
}

/// All that can be seen of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    blocks: BTreeMap<Cid, u32>,
    pointers: BTreeMap<Vec<u8>, Vec<u8>>,
    transactions: BTreeMap<&'static str, BTreeSet<Cid>>,
}

impl Seen {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Put(blocks, id) => {
                for block in blocks {
                    self.blocks
                        .insert(block.cid().clone(), block.bytes().len() as u32);
                    self.transactions
                        .entry(id)
                        .or_default()
                        .insert(block.cid().clone());
                }
            }
            Step::Point(key, cid) => {
                self.pointers
                    .insert(key.as_bytes().to_vec(), cid.to_bytes());
            }
            Step::Close(id) => {
                self.transactions.remove(id);
            }
            Step::Delete(cids) => {
                let protected = self.protected();
                self.blocks
                    .retain(|cid, _| !cids.contains(cid) || protected.contains(cid));
            }
        }
    }

    fn protected(&self) -> BTreeSet<Cid> {
        self.transactions.values().flatten().cloned().collect()
    }
}

/// A history with every kind of operation: small and large blocks, several in one put, re-puts, deletions.
fn history() -> Vec<Step> {
    let small = |n| raw(n, 300);
    let large = |n| raw(n, 2_000);
    let cid = |block: Block| block.cid().clone();
    vec![
        Step::Put(vec![small(1)], "a"),
        Step::Put(vec![large(2), small(3), large(4)], "a"),
        Step::Point("w", cid(large(2))),
        Step::Put(vec![large(2)], "b"),
        Step::Close("a"),
        Step::Delete(vec![cid(large(2)), cid(large(4)), cid(small(1))]),
        Step::Put(vec![large(5), large(6), small(1)], "c"),
        Step::Point("w", cid(large(6))),
        Step::Close("b"),
        Step::Close("c"),
        Step::Delete(vec![cid(large(2)), cid(large(5))]),
        Step::Put(vec![large(5)], "d"),
        Step::Point("v", cid(large(5))),
    ]
}

fn options() -> DiskOptions {
    let mut options = DiskOptions::new("/data");
    // Small "large" blocks keep the model quick.
    options.inline_below_bytes = 1_000;
    options.free_floor = FreeFloor::Bytes(0);
    options
}

fn open(disk: &ModelDisk) -> Result<DiskStore, StoreError> {
    DiskStore::open_on(options(), Arc::new(disk.clone()))
}

async fn run(store: &DiskStore, step: &Step) -> Result<(), StoreError> {
    match step {
        Step::Put(blocks, id) => {
            store
                .put_blocks(&alice(), blocks.clone(), Some(&transaction(id)))
                .await
        }
        Step::Point(key, cid) => {
            let batch = Batch::new().put(tables::POINTERS, *key, cid.to_bytes());
            store
                .commit(batch)
                .await
                .map(|outcome| assert!(outcome.is_committed()))
        }
        Step::Close(id) => store.close_transaction(&alice(), &transaction(id)).await,
        Step::Delete(cids) => {
            let listed = store.list_blocks(&alice(), None, 100).await?;
            let listed = listed.into_iter().filter(|info| cids.contains(&info.cid));
            let candidates = listed.map(|info| (info.cid, info.generation)).collect();
            store.delete_blocks(&alice(), candidates).await.map(drop)
        }
    }
}

/// Looks at everything; every block that is listed must be readable, and counted.
async fn look(store: &DiskStore) -> Result<(Seen, BTreeSet<Cid>), StoreError> {
    let mut seen = Seen::default();
    let mut bytes = 0;
    for info in store.list_blocks(&alice(), None, 100).await? {
        assert!(store.block(&alice(), &info.cid).await?.is_some());
        bytes += u64::from(info.size_bytes);
        seen.blocks.insert(info.cid, info.size_bytes);
    }
    let counts = store.block_counts(&alice()).await?;
    assert_eq!(
        (counts.blocks, counts.bytes),
        (seen.blocks.len() as u64, bytes)
    );
    for (key, cid) in store.scan(tables::POINTERS, b"", None, 100).await? {
        seen.pointers.insert(key.to_vec(), cid.to_vec());
    }
    let protected = store
        .protected_blocks(&alice())
        .await?
        .into_iter()
        .collect();
    Ok((seen, protected))
}

/// Checks that what is seen is one of the states that may be.
async fn check(store: &DiskStore, may_be: &[Seen]) -> Result<(), String> {
    let (seen, protected) = look(store).await.map_err(|error| format!("{error:?}"))?;
    let fits = |state: &&Seen| {
        state.blocks == seen.blocks
            && state.pointers == seen.pointers
            && state.protected() == protected
    };
    if may_be.iter().find(fits).is_some() {
        return Ok(());
    }
    Err(format!(
        "found {seen:?}\nprotected {protected:?}\ninstead of {may_be:?}"
    ))
}

/// Runs the history and returns the states that the store may be in: after an operation that failed, it may have
/// happened or not.
async fn play(store: &DiskStore, disk: &ModelDisk) -> Vec<Seen> {
    let mut may_be = vec![Seen::default()];
    for step in history() {
        let result = run(store, &step).await;
        let mut after = may_be.clone();
        after.iter_mut().for_each(|state| state.apply(&step));
        match result {
            Ok(()) => may_be = after,
            Err(_) => may_be.extend(after),
        }
        may_be.dedup();
        if disk.has_stopped() {
            break;
        }
    }
    may_be
}

/// Stops after every n-th flush, crashes with several seeds, and reopens; returns how many stops there were.
async fn stop_after_every_flush(broken: Plan, seeds: u64) -> Result<u64, String> {
    for n in 0.. {
        let disk = ModelDisk::default();
        let plan = Plan {
            stop_after_flushes: (n > 0).then_some(n),
            ..broken
        };
        disk.plan(plan);
        let (may_be, made) = match open(&disk) {
            Ok(store) => (play(&store, &disk).await, true),
            Err(_) => (vec![Seen::default()], false),
        };
        let stopped = disk.has_stopped();
        for seed in 0..seeds {
            let disk = disk.crash(n * 1_000 + seed);
            // The first start after the crash is cut short too, at a random flush.
            let mut dice = Dice(seed);
            disk.plan(Plan {
                stop_after_flushes: Some(dice.roll(12) + 1),
                ..broken
            });
            drop(open(&disk));
            let disk = disk.crash(seed);
            disk.plan(Plan::default());
            let store = open(&disk).map_err(|error| format!("stop {n} seed {seed}: {error:?}"))?;
            check(&store, &may_be)
                .await
                .map_err(|e| format!("stop {n} seed {seed}: {e}"))?;
            no_leftovers(&store, &disk).await?;
            let put = Step::Put(vec![raw(99, 2_000), raw(98, 10)], "z");
            run(&store, &put)
                .await
                .map_err(|error| format!("{error:?}"))?;
        }
        if n > 0 && !stopped {
            assert!(made);
            return Ok(n);
        }
    }
    unreachable!()
}

/// No file that no row names; removals are not flushed, so files that came back are not counted.
async fn no_leftovers(store: &DiskStore, disk: &ModelDisk) -> Result<(), String> {
    let (seen, _) = look(store).await.map_err(|error| format!("{error:?}"))?;
    let known: BTreeSet<_> = history()
        .into_iter()
        .flat_map(|step| match step {
            Step::Put(blocks, _) => blocks,
            _ => Vec::new(),
        })
        .map(|block| block.cid().storage_key())
        .collect();
    let large = seen.blocks.values().filter(|size| **size >= 1_000).count();
    let files = disk
        .files()
        .into_iter()
        .filter(|path| path.starts_with("/data/blocks"));
    let files: Vec<_> = files.collect();
    for path in &files {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(known.contains(name.split('-').next().unwrap()));
    }
    if files.len() < large {
        return Err(format!("{large} blocks in {} files", files.len()));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_2_a_stop_after_any_flush_loses_nothing_acknowledged() {
    let stops = stop_after_every_flush(Plan::default(), 4).await.unwrap();
    assert!(stops > 30, "{stops} flushes are too few for this history");
}

/// Writers that share their flushes: each has its own rows, so that what it may find again is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_among_concurrent_writers_loses_nothing_acknowledged() {
    const WRITERS: u64 = 6;
    const STEPS: u64 = 5;
    let block =
        |writer: u64, step: u64| raw(writer * 100 + step, 500 + 1_000 * (step as usize % 2));
    for n in 1.. {
        let disk = ModelDisk::default();
        let store = Arc::new(open(&disk).unwrap());
        disk.plan(Plan {
            stop_after_flushes: Some(n),
            ..Plan::default()
        });
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let store = store.clone();
            tasks.spawn(async move {
                let key = writer.to_be_bytes().to_vec();
                for step in 1..=STEPS {
                    let block = block(writer, step);
                    let Ok(()) = store.put_blocks(&alice(), vec![block.clone()], None).await else {
                        return step - 1;
                    };
                    let cid = block.cid().to_bytes();
                    let batch = Batch::new().put(tables::POINTERS, key.clone(), cid);
                    let Ok(outcome) = store.commit(batch).await else {
                        return step - 1;
                    };
                    assert!(outcome.is_committed());
                }
                STEPS
            });
        }
        let mut acknowledged = Vec::new();
        while let Some(last) = tasks.join_next_with_id().await {
            acknowledged.push(last.unwrap());
        }
        // Ids of tasks grow in the order of spawning.
        acknowledged.sort_by_key(|(id, _)| id.to_string().parse::<u64>().unwrap());
        let stopped = disk.has_stopped();
        for seed in 0..4 {
            let store = open(&disk.crash(seed)).unwrap();
            look(&store).await.unwrap();
            for (writer, (_, acknowledged)) in (0..).zip(&acknowledged) {
                let found = store
                    .get(tables::POINTERS, &u64::to_be_bytes(writer))
                    .await
                    .unwrap();
                let is_at =
                    |step: &u64| found.as_deref() == Some(&*block(writer, *step).cid().to_bytes());
                let at = (1..=STEPS).find(is_at).unwrap_or(0);
                assert!(
                    at >= *acknowledged,
                    "stop {n} seed {seed}: {at} after {acknowledged}"
                );
                for step in 1..=at {
                    let cid = block(writer, step).cid().clone();
                    assert!(store.block(&alice(), &cid).await.unwrap().is_some());
                }
            }
        }
        if !stopped {
            assert!(n > 5);
            return;
        }
    }
}

/// The tests above must be able to fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_2_an_engine_that_does_not_flush_is_found_out() {
    let folders = Plan {
        skip_folder_flushes: true,
        ..Plan::default()
    };
    assert!(stop_after_every_flush(folders, 4).await.is_err());
    let files = Plan {
        skip_file_flushes: true,
        ..Plan::default()
    };
    assert!(stop_after_every_flush(files, 4).await.is_err());
}

/// Lets every changing operation fail once, in turn, until a run meets no fault.
async fn fail_every_change(kind: ErrorKind) {
    for n in 0.. {
        let disk = ModelDisk::default();
        drop(open(&disk).unwrap());
        disk.plan(Plan {
            fail_change: Some((n, kind)),
            ..Plan::default()
        });
        let Ok(store) = open(&disk) else {
            // Failed at start: the next start must work.
            open(&disk).unwrap();
            continue;
        };
        let may_be = play(&store, &disk).await;
        let context = format!("{kind:?} at change {n}");
        check(&store, &may_be)
            .await
            .map_err(|e| format!("{context}: {e}"))
            .unwrap();
        drop(store);
        let faultless = disk.changes() <= n;
        for seed in 0..2 {
            let disk = disk.crash(seed);
            let store = open(&disk).unwrap();
            check(&store, &may_be)
                .await
                .map_err(|e| format!("{context}, crash: {e}"))
                .unwrap();
            // The client's second attempt succeeds.
            let put = Step::Put(vec![raw(5, 2_000), raw(1, 300)], "z");
            run(&store, &put).await.unwrap();
        }
        if faultless {
            assert_eq!(may_be.len(), 1);
            assert!(n > 50, "{n} changes are too few for this history");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_3_an_io_error_anywhere_loses_nothing_acknowledged() {
    fail_every_change(ErrorKind::Other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_anywhere_loses_nothing_acknowledged() {
    fail_every_change(ErrorKind::StorageFull).await;
}

/// REL-5: full for a while, then space is back; the same process goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_survived_without_a_restart() {
    let mut refused = 0;
    for n in (0..120).step_by(7) {
        let disk = ModelDisk::default();
        let store = open(&disk).unwrap();
        disk.plan(Plan {
            full_from: Some(n),
            ..Plan::default()
        });
        let mut may_be = vec![Seen::default()];
        for step in history() {
            let mut after = may_be.clone();
            after.iter_mut().for_each(|state| state.apply(&step));
            match run(&store, &step).await {
                Ok(()) => may_be = after,
                Err(_) => {
                    may_be.extend(after);
                    refused += 1;
                }
            }
            may_be.dedup();
        }
        disk.plan(Plan::default());
        // The first call may still find the database closed by the fault; none after it.
        let _ = look(&store).await;
        check(&store, &may_be).await.unwrap();
        let put = Step::Put(vec![raw(50, 2_000), raw(51, 10)], "z");
        run(&store, &put).await.unwrap();
        may_be.iter_mut().for_each(|state| state.apply(&put));
        check(&store, &may_be).await.unwrap();
        drop(store);
        let store = open(&disk.crash(n)).unwrap();
        check(&store, &may_be).await.unwrap();
    }
    assert!(refused > 0);
}

/// REL-4: nothing is acknowledged on top of a flush that failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_4_after_a_failed_flush_writes_stop_and_reads_go_on() {
    let mut halts = 0;
    for n in 0..40 {
        let disk = ModelDisk::default();
        let store = open(&disk).unwrap();
        let first = Step::Put(vec![raw(1, 2_000)], "a");
        run(&store, &first).await.unwrap();
        disk.plan(Plan {
            fail_change: Some((n, ErrorKind::Other)),
            ..Plan::default()
        });
        let point = Step::Point("w", raw(1, 2_000).cid().clone());
        if run(&store, &point).await.is_ok() {
            break;
        }
        let _ = store.get(tables::POINTERS, b"w").await;
        let again = run(&store, &point).await;
        let block = store.block(&alice(), raw(1, 2_000).cid()).await.unwrap();
        assert_eq!(block.unwrap(), raw(1, 2_000));
        match again {
            Ok(()) => {}
            Err(StoreError::Halted) => halts += 1,
            Err(other) => panic!("{other:?}"),
        }
        drop(store);
        let store = open(&disk).unwrap();
        run(&store, &point).await.unwrap();
    }
    assert!(halts > 0);
}

/// The number of flushes does not grow with the number of writes that wait together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_writes_share_their_flushes() {
    let disk = ModelDisk::default();
    let store = Arc::new(open(&disk).unwrap());
    run(&store, &Step::Put(vec![raw(0, 10)], "a"))
        .await
        .unwrap();
    disk.plan(Plan::default());
    let blocks: Vec<_> = (1..=500).map(|n| raw(n, 100)).collect();
    store.put_blocks(&alice(), blocks, None).await.unwrap();
    assert_eq!(disk.flushes(), 1, "one put of many small blocks");
    store
        .put_blocks(&alice(), (1..=20).map(|n| raw(n, 2_000)).collect(), None)
        .await
        .unwrap();
    // Twenty files, the new run and its name, the database.
    assert!(disk.flushes() <= 1 + 20 + 2 + 1, "{}", disk.flushes());
    store.close().await.unwrap();
}
