//! The scrub finds damage at a bounded rate and goes on where it was (REL-14).
//!
//! 100,000 blocks, and what readers and writers notice of a pass at the default rate:
//! `cargo test --release -p node --test main rel_14_a_hundred -- --ignored --nocapture`

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use node::{
    check::{Next, Scrub, ScrubOptions},
    store::{BlockStore as _, MetaStore as _, Partition, tables},
};

use super::world::World;
use crate::store::contract::raw;

const DAY: i64 = 86_400;

fn options() -> ScrubOptions {
    ScrubOptions {
        bytes_per_second: 1 << 20,
        ..ScrubOptions::default()
    }
}

/// Changes a bit in the files of blocks; returns their names.
fn harm(data: &Path, blocks: &[&champ::Block]) -> Vec<String> {
    let runs = fs::read_dir(data.join("store/blocks")).unwrap();
    for file in runs.flat_map(|run| fs::read_dir(run.unwrap().path()).unwrap()) {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_harmed = |block: &&champ::Block| name.starts_with(&block.cid().storage_key());
        if blocks.iter().any(is_harmed) {
            let mut bytes = fs::read(&path).unwrap();
            bytes[5_000] ^= 0x80;
            fs::write(&path, bytes).unwrap();
        }
    }
    blocks.iter().map(|b| b.cid().to_string()).collect()
}

#[tokio::test]
async fn rel_14_scrub_reports_exactly_the_damaged_blocks_slowly_and_resumes() {
    let world = World::new().await;
    let store = &*world.store;
    let scrub = Scrub::default();
    // A new node waits before its first pass.
    let first = scrub.step(store, options(), 1_000, 0).await.unwrap();
    assert!(matches!(first, Next::After(wait) if wait > Duration::from_secs(60)));
    assert_eq!(scrub.state().unwrap().due_seconds, Some(1_000 + 25 * DAY));

    let space = Partition::new("w").unwrap();
    let blocks: Vec<_> = (0..700).map(|n| raw(n, 66_000)).collect();
    store
        .put_blocks(&space, blocks.clone(), None)
        .await
        .unwrap();
    let harmed = [&blocks[3], &blocks[77], &blocks[699]];
    let expected = harm(&world.data(), &harmed);

    let now = 1_000 + 40 * DAY;
    let mut scrub = scrub;
    let mut waited = Duration::ZERO;
    let mut steps = 0;
    while scrub.state().is_none_or(|state| state.last.is_none()) {
        match scrub.step(store, options(), now + steps, 7).await.unwrap() {
            Next::After(wait) => waited += wait,
            Next::Never => panic!("it scrubs"),
        }
        steps += 1;
        if steps % 20 == 0 {
            // Restarted: what is remembered is at most a few steps old.
            scrub = Scrub::default();
        }
        assert!(steps < 200, "a restart makes it begin anew");
    }
    let state = scrub.state().unwrap();
    let last = state.last.clone().unwrap();
    assert_eq!(last.damaged, 3);
    let mut found: Vec<_> = state
        .findings
        .iter()
        .filter_map(|f| f.cid.clone())
        .collect();
    let mut expected = expected;
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert!(last.blocks >= 700);
    // 46 MB at 1 MiB per second.
    assert!(
        waited >= Duration::from_millis(700 * 66_000 / 1_049),
        "{waited:?}"
    );
    assert!(state.due_seconds.unwrap() >= now + 24 * DAY);
    let row = world.store.get(tables::NODE, b"scrub").await.unwrap();
    assert!(row.is_some());

    // On demand, the next pass starts at once, and finds the same.
    scrub.start_now(store).await.unwrap();
    let before = state.last;
    loop {
        scrub.step(store, options(), now + 5_000, 7).await.unwrap();
        let state = scrub.state().unwrap();
        if state.last != before {
            assert_eq!(state.last.unwrap().damaged, 3);
            break;
        }
    }
    let never = ScrubOptions {
        period: Duration::ZERO,
        ..options()
    };
    assert_eq!(scrub.step(store, never, now, 0).await.unwrap(), Next::Never);
}

/// Reads and writes for a while; returns the time that 99 of 100 stay below.
async fn foreground(world: &World, salt: u64, how_long: Duration) -> Duration {
    let space = Partition::new("w").unwrap();
    let begun = Instant::now();
    let mut times = Vec::new();
    let mut n = 0;
    while begun.elapsed() < how_long {
        n += 1;
        let started = Instant::now();
        if n % 4 == 0 {
            let block = raw(1_000_000 * salt + n, 1_000);
            let put = world.store.put_blocks(&space, vec![block], None);
            put.await.unwrap();
        } else {
            let cid = raw(n * 7_919 % 100_000, 1_000).cid().clone();
            assert!(world.store.block(&space, &cid).await.unwrap().is_some());
        }
        times.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute; the command is at the top of the file"]
async fn rel_14_a_hundred_thousand_blocks_are_scrubbed_unnoticed() {
    let world = World::new().await;
    let space = Partition::new("w").unwrap();
    for first in (0..100_000).step_by(5_000) {
        let blocks = (first..first + 5_000).map(|n| raw(n, 1_000)).collect();
        world.store.put_blocks(&space, blocks, None).await.unwrap();
    }
    let large: Vec<_> = (200_000..200_100).map(|n| raw(n, 66_000)).collect();
    let put = world.store.put_blocks(&space, large.clone(), None);
    put.await.unwrap();
    let expected = harm(&world.data(), &[&large[1], &large[50], &large[99]]);
    let mut ratios = Vec::new();
    for round in 0..3_u64 {
        let alone = foreground(&world, 2 + 2 * round, Duration::from_secs(5)).await;
        let scrub = Arc::new(Scrub::default());
        scrub.start_now(&*world.store).await.unwrap();
        let (store, passing) = (world.store.clone(), scrub.clone());
        let pass = tokio::spawn(async move {
            let before = passing.remembered(&*store).await.unwrap().unwrap().last;
            while passing.state().is_none_or(|state| state.last == before) {
                let now = 1_000 + i64::try_from(round).unwrap() * 100 * DAY;
                let step = passing.step(&*store, ScrubOptions::default(), now, 7);
                match step.await.unwrap() {
                    Next::After(wait) => tokio::time::sleep(wait).await,
                    Next::Never => panic!("it scrubs"),
                }
            }
        });
        let beside = foreground(&world, 3 + 2 * round, Duration::from_secs(5)).await;
        pass.await.unwrap();
        let state = scrub.state().unwrap();
        let last = state.last.unwrap();
        assert!(last.blocks >= 100_100);
        assert_eq!(last.damaged, 3);
        let mut found: Vec<_> = state
            .findings
            .iter()
            .filter_map(|f| f.cid.clone())
            .collect();
        let mut expected = expected.clone();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        ratios.push(beside.as_secs_f64() / alone.as_secs_f64());
        println!("p99 alone {alone:?}, beside the scrub {beside:?}");
    }
    // Other work on the machine can spoil a round, not all of them.
    assert!(ratios.iter().any(|ratio| *ratio < 1.2), "{ratios:?}");
}
