//! The scrub finds damage at a bounded rate and goes on where it was (REL-14).

use std::{fs, time::Duration};

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
    let expected = [3, 77, 699].map(|n: usize| blocks[n].cid().to_string());
    let runs = fs::read_dir(world.data().join("store/blocks")).unwrap();
    for file in runs.flat_map(|run| fs::read_dir(run.unwrap().path()).unwrap()) {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let harmed = [3, 77, 699].map(|n: usize| blocks[n].cid().storage_key());
        if harmed.iter().any(|key| name.starts_with(key)) {
            let mut bytes = fs::read(&path).unwrap();
            bytes[5_000] ^= 0x80;
            fs::write(&path, bytes).unwrap();
        }
    }

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
    let mut expected = expected.to_vec();
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
