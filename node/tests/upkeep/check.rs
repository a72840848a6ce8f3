//! `check` finds exactly what is wrong, says whose it is, and changes nothing; `repair` puts it right.

use std::{collections::BTreeMap, fs};

use champ::{Block, Cid};
use node::{
    check::{
        BlockSupply, CheckOptions, Finding, Kind, RepairOptions, Report, Severity, SupplyError,
        check, repair,
    },
    store::{Batch, BlockStore as _, MetaStore as _, StoreError, tables},
};

use super::world::{Files, World, space};

fn kinds(report: &Report) -> BTreeMap<Kind, u64> {
    report.counts.clone()
}

fn cids(report: &Report, kind: Kind) -> Vec<String> {
    let mut cids: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| finding.kind == kind)
        .filter_map(|finding| finding.cid.clone())
        .collect();
    cids.sort();
    cids
}

fn texts(blocks: &[&Block]) -> Vec<String> {
    let mut texts: Vec<_> = blocks.iter().map(|block| block.cid().to_string()).collect();
    texts.sort();
    texts
}

async fn world() -> (World, Files, Files) {
    let world = World::new().await;
    let mut alice = world.user("alice", 7, 4).await;
    let bob = world.user("bob", 8, 2).await;
    alice.save(&world, 4).await;
    (world, alice, bob)
}

#[tokio::test]
async fn a_sound_store_has_no_findings() {
    let (world, alice, _) = world().await;
    for is_quick in [false, true] {
        let report = world
            .check_with(CheckOptions {
                is_quick,
                ..CheckOptions::default()
            })
            .await;
        assert_eq!(report.findings, []);
        assert_eq!(report.worst(), None);
        assert_eq!(report.is_hashed, !is_quick);
        // peergos, alice, bob; two writers each.
        assert_eq!((report.partitions, report.pointers), (3, 6));
        assert!(report.bytes > 10 * 70_000 && report.blocks > 14);
    }
    let only = CheckOptions {
        user: Some(alice.account.name.parse().unwrap()),
        ..CheckOptions::default()
    };
    let report = world.check_with(only).await;
    assert_eq!((report.partitions, report.pointers), (1, 2));
}

/// One bit, cut short, gone, a page of something else.
#[tokio::test]
async fn rel_6_check_lists_exactly_what_is_damaged_and_whose_it_is() {
    let (world, alice, bob) = world().await;
    let file = |n: usize| world.file("alice", &alice.fragments[n]);
    let mut bytes = fs::read(file(0)).unwrap();
    bytes[33_333] ^= 1;
    fs::write(file(0), bytes).unwrap();
    fs::write(file(1), &alice.fragments[1].bytes()[..69_000]).unwrap();
    fs::remove_file(file(2)).unwrap();
    // A page of it is something else.
    let bobs = world.file("bob", &bob.fragments[0]);
    let mut other = fs::read(&bobs).unwrap();
    other[4096..8192].fill(0xee);
    fs::write(&bobs, other).unwrap();

    let before = fs::read_dir(world.data().join("store")).unwrap().count();
    let report = world.check().await;
    assert_eq!(
        fs::read_dir(world.data().join("store")).unwrap().count(),
        before
    );
    assert_eq!(report.worst(), Some(Severity::Damage));
    let damaged = texts(&[&alice.fragments[0], &bob.fragments[0]]);
    assert_eq!(cids(&report, Kind::DamagedBlock), damaged);
    let cut = texts(&[&alice.fragments[1]]);
    assert_eq!(cids(&report, Kind::WrongLength), cut);
    let gone = texts(&[&alice.fragments[2]]);
    assert_eq!(cids(&report, Kind::MissingCopy), gone);
    // The links: all four, with the writer whose files they are.
    let lost = texts(&[
        &alice.fragments[0],
        &alice.fragments[1],
        &alice.fragments[2],
        &bob.fragments[0],
    ]);
    assert_eq!(cids(&report, Kind::DamagedLink), lost);
    assert_eq!(report.total(), 8);
    let mut affected = report.affected.clone();
    affected.sort_by(|a, b| a.user.cmp(&b.user));
    let facts: Vec<_> = affected
        .iter()
        .map(|a| (a.user.as_str(), a.damaged, a.missing, a.is_root_lost))
        .collect();
    assert_eq!(facts, [("alice", 3, 0, false), ("bob", 1, 0, false)]);
    assert_eq!(affected[0].writer, alice.account.home.writer().to_string());
    assert_eq!(affected[0].root, alice.root.to_string());

    let of_bob = CheckOptions {
        user: Some("bob".parse().unwrap()),
        ..CheckOptions::default()
    };
    assert_eq!(world.check_with(of_bob).await.total(), 2);
    // Without reading: what can be seen from outside.
    let quick = CheckOptions {
        is_quick: true,
        ..CheckOptions::default()
    };
    let quick = world.check_with(quick).await;
    let expected = [
        (Kind::MissingCopy, 1),
        (Kind::WrongLength, 1),
        (Kind::DamagedLink, 2),
    ];
    assert_eq!(kinds(&quick), expected.into());
}

#[tokio::test]
async fn rel_6_a_lost_root_and_what_nobody_ever_sent_are_told_apart() {
    let (world, alice, bob) = world().await;
    let gone = |cid: Cid, user: &'static str| {
        let store = world.store.clone();
        async move {
            let listed = store.list_blocks(&space(user), None, 1000).await.unwrap();
            let generation = listed
                .iter()
                .find(|info| info.cid == cid)
                .unwrap()
                .generation;
            let space = space(user);
            let deleted = store.delete_blocks(&space, vec![(cid, generation)]);
            assert_eq!(deleted.await.unwrap().removed.blocks, 1);
        }
    };
    gone(alice.root.clone(), "alice").await;
    gone(bob.fragments[1].cid().clone(), "bob").await;
    let report = world.check().await;
    assert_eq!(kinds(&report), [(Kind::MissingBlock, 2)].into());
    let of = |user: &str| report.affected.iter().find(|a| a.user == user).unwrap();
    assert!(of("alice").is_root_lost);
    assert!(!of("bob").is_root_lost);
    let finding = |user: &str| {
        let of_user = |f: &&Finding| f.user.as_deref() == Some(user);
        report.findings.iter().find(of_user).unwrap()
    };
    assert_eq!(finding("bob").parent, Some(bob.tree.cid().to_string()));
    assert_eq!(finding("alice").parent, None);
}

#[tokio::test]
async fn rel_7_forged_pointers_and_rows_that_are_off_are_found() {
    let (world, alice, bob) = world().await;
    let key = alice.account.home.writer().cid().to_bytes();
    let mut pointer = world
        .store
        .get(tables::POINTERS, &key)
        .await
        .unwrap()
        .unwrap()
        .to_vec();
    pointer[80] ^= 1;
    let set = async |batch: Batch| {
        assert!(world.store.commit(batch).await.unwrap().is_committed());
    };
    set(Batch::new().put(tables::POINTERS, key, pointer)).await;
    set(Batch::new().put(tables::POINTERS, "rubbish", "x")).await;
    set(Batch::new().put(tables::CHAINS, "carol", "rubbish")).await;
    let writer = bob.account.home.writer().cid().to_bytes();
    let mut row = world
        .store
        .get(tables::WRITERS, &writer)
        .await
        .unwrap()
        .unwrap()
        .to_vec();
    // The counted bytes are the last integer of the row: change its lowest byte.
    let at = row.windows(2).position(|pair| pair == b"as").unwrap() + 2;
    row[at + 1] ^= 1;
    set(Batch::new().put(tables::WRITERS, writer, row)).await;
    let report = world.check().await;
    let expected = [
        (Kind::BadPointer, 2),
        (Kind::BadRow, 1),
        (Kind::WrongUsage, 2),
    ];
    assert_eq!(kinds(&report), expected.into(), "{:#?}", report.findings);
}

#[tokio::test]
async fn orphans_are_found_and_only_they_are_removed() {
    let (world, alice, _) = world().await;
    let file = world.file("alice", &alice.fragments[0]);
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    let (rest, _) = name.rsplit_once('-').unwrap();
    let orphan = file.with_file_name(format!("{rest}-{:016x}", 0));
    fs::write(&orphan, b"left over").unwrap();
    let foreign = file.with_file_name("README");
    fs::write(&foreign, b"not ours").unwrap();
    let report = world.check().await;
    assert_eq!(kinds(&report), [(Kind::OrphanFiles, 1)].into());
    assert_eq!(report.worst(), Some(Severity::Untidy));
    assert_eq!(report.findings[0].note, "1 files of 9 bytes");

    let dry = RepairOptions {
        is_dry_run: true,
        ..RepairOptions::default()
    };
    assert_eq!(
        repair(&*world.store, &report, dry)
            .await
            .unwrap()
            .orphans_removed,
        1
    );
    assert!(orphan.exists());
    let done = repair(&*world.store, &report, RepairOptions::default()).await;
    assert_eq!(done.unwrap().orphans_removed, 1);
    assert!(!orphan.exists() && file.exists() && foreign.exists());
    assert_eq!(world.check().await.total(), 0);
}

/// Rows of the index are gone, the files are not: their names say what they hold, and their hashes whether that is so.
#[tokio::test]
async fn rel_7_rows_of_the_index_that_are_lost_are_made_again_from_the_files() {
    let (world, alice, _) = world().await;
    let copies: Vec<_> = [(0, 0), (1, 1)]
        .into_iter()
        .map(|(fragment, number)| {
            let file = world.file("alice", &alice.fragments[fragment]);
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let (rest, _) = name.rsplit_once('-').unwrap();
            (
                file.with_file_name(format!("{rest}-{number:016x}")),
                fs::read(&file).unwrap(),
            )
        })
        .collect();
    for block in &alice.fragments[..2] {
        let listed = world.store.list_blocks(&space("alice"), None, 1000).await;
        let listed = listed.unwrap();
        let found = listed.iter().find(|info| info.cid == *block.cid()).unwrap();
        let gone = vec![(found.cid.clone(), found.generation)];
        let deleted = world.store.delete_blocks(&space("alice"), gone).await;
        assert_eq!(deleted.unwrap().removed.blocks, 1);
    }
    for (path, bytes) in &copies {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    // One of them was damaged as well.
    fs::write(&copies[1].0, vec![9; 70_000]).unwrap();
    let report = world.check().await;
    let expected = [(Kind::MissingBlock, 2), (Kind::OrphanFiles, 1)];
    assert_eq!(kinds(&report), expected.into());
    let dry = RepairOptions {
        is_dry_run: true,
        ..RepairOptions::default()
    };
    for (options, is_there) in [(dry, true), (RepairOptions::default(), false)] {
        let done = repair(&*world.store, &report, options).await.unwrap();
        let lost = ("alice".to_owned(), alice.fragments[1].cid().to_string());
        assert_eq!((done.healed, done.lost), (1, vec![lost]));
        assert!(done.orphans_removed > 0);
        assert_eq!(copies[0].0.exists(), is_there);
    }
    let space = space("alice");
    let found = world.store.block(&space, alice.fragments[0].cid()).await;
    assert_eq!(found.unwrap().as_ref(), Some(&alice.fragments[0]));
    assert_eq!(
        kinds(&world.check().await),
        [(Kind::MissingBlock, 1)].into()
    );
}

#[tokio::test]
async fn rel_6_quarantine_keeps_the_evidence_and_a_new_upload_heals() {
    let (world, alice, _) = world().await;
    let file = world.file("alice", &alice.fragments[0]);
    fs::write(&file, vec![9; 70_000]).unwrap();
    let report = world.check().await;
    let dry = RepairOptions {
        is_dry_run: true,
        ..RepairOptions::default()
    };
    let would = repair(&*world.store, &report, dry).await.unwrap();
    assert_eq!(
        (would.quarantined, would.healed, would.lost.len()),
        (1, 0, 1)
    );
    assert!(file.exists());

    let done = repair(&*world.store, &report, RepairOptions::default())
        .await
        .unwrap();
    assert_eq!((done.quarantined, done.healed, done.lost.len()), (1, 0, 1));
    let aside = world.data().join("store/quarantine");
    let aside: Vec<_> = fs::read_dir(aside)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(aside.len(), 1);
    assert_eq!(fs::read(&aside[0]).unwrap(), vec![9; 70_000]);
    assert!(!file.exists());
    // Not silently absent, also after a restart.
    let world = world.restarted().await;
    let cid = alice.fragments[0].cid();
    let read = world.store.block(&space("alice"), cid).await;
    assert!(matches!(read, Err(StoreError::Damaged(_))));
    let report = world.check().await;
    assert_eq!(report.quarantined, 1);
    assert_eq!(
        kinds(&report),
        [(Kind::MissingCopy, 1), (Kind::DamagedLink, 1)].into()
    );

    alice.put_again(&world, 0).await;
    let report = world.check().await;
    assert_eq!((report.total(), report.quarantined), (0, 0));
    alice.assert_readable(&world).await;
}

#[tokio::test]
async fn rel_6_small_blocks_are_quarantined_and_heal_too() {
    let (world, alice, _) = world().await;
    // Damage inside the database cannot be made by hand: pages have checksums. Another limit between database
    // and files puts the tree block into a file, which can be damaged.
    world.node.node.close().await.unwrap();
    let World {
        folder,
        store,
        node,
    } = world;
    drop((store, node));
    let data = folder.path().join("data/store");
    let mut options = node::store::DiskOptions::new(&data);
    options.free_floor = node::store::FreeFloor::Bytes(0);
    options.inline_below_bytes = 1;
    let store = node::store::DiskStore::open(options).unwrap();
    use node::store::{Quarantine, Store as _, Upkeep as _};
    let block = Block::raw(vec![1; 100]).unwrap();
    store
        .put_blocks(&space("alice"), vec![block.clone()], None)
        .await
        .unwrap();
    let quarantine = store
        .quarantine(&space("alice"), block.cid())
        .await
        .unwrap();
    assert_eq!(quarantine, Quarantine::Sound);
    let nothing = Cid::of_raw(b"nothing");
    let quarantine = store.quarantine(&space("alice"), &nothing).await.unwrap();
    assert_eq!(quarantine, Quarantine::Absent);
    store.close().await.unwrap();
    drop(store);
    let world = World::at(folder).await;
    let file = world.file("alice", &block);
    fs::write(&file, b"short").unwrap();
    let quarantine = world
        .store
        .quarantine(&space("alice"), block.cid())
        .await
        .unwrap();
    assert_eq!(quarantine, Quarantine::Moved);
    let again = world
        .store
        .quarantine(&space("alice"), block.cid())
        .await
        .unwrap();
    assert_eq!(again, Quarantine::Recorded);
    assert_eq!(world.store.quarantined(None).await.unwrap().len(), 1);
    // It heals into the database.
    world
        .store
        .put_blocks(&space("alice"), vec![block.clone()], None)
        .await
        .unwrap();
    assert!(world.store.quarantined(None).await.unwrap().is_empty());
    let read = world
        .store
        .block(&space("alice"), block.cid())
        .await
        .unwrap();
    assert_eq!(read.unwrap(), block);
    drop(alice);
}

/// A place with copies of some blocks.
struct Copies(Vec<Block>);

#[async_trait::async_trait]
impl BlockSupply for Copies {
    async fn block(&self, user: &str, cid: &Cid) -> Result<Option<Block>, SupplyError> {
        assert_eq!(user, "alice");
        Ok(self.0.iter().find(|block| block.cid() == cid).cloned())
    }
}

#[tokio::test]
async fn rel_6_good_copies_come_from_elsewhere_with_everything_below_them() {
    let (world, alice, _) = world().await;
    // The tree is gone with all it links to but one, which is damaged.
    let listed = world
        .store
        .list_blocks(&space("alice"), None, 1000)
        .await
        .unwrap();
    let lost: Vec<_> = alice.fragments[1..].iter().chain([&alice.tree]).collect();
    let gone = listed
        .into_iter()
        .filter(|info| lost.iter().any(|b| *b.cid() == info.cid));
    let gone = gone.map(|info| (info.cid, info.generation)).collect();
    world
        .store
        .delete_blocks(&space("alice"), gone)
        .await
        .unwrap();
    fs::write(world.file("alice", &alice.fragments[0]), b"?").unwrap();

    let report = world.check().await;
    assert_eq!(
        kinds(&report),
        [(Kind::WrongLength, 1), (Kind::MissingBlock, 1)].into()
    );
    let mut copies = alice.fragments.clone();
    copies.push(alice.tree.clone());
    let supply = Copies(copies);
    let options = RepairOptions {
        supply: Some(&supply),
        ..RepairOptions::default()
    };
    let done = repair(&*world.store, &report, options).await.unwrap();
    assert_eq!((done.healed, done.lost.len()), (5, 0));
    assert_eq!(world.check().await.total(), 0);
    alice.assert_readable(&world).await;
}

#[tokio::test]
async fn a_check_that_was_stopped_goes_on_where_it_was() {
    let (world, alice, _) = world().await;
    fs::write(world.file("alice", &alice.fragments[0]), b"?").unwrap();
    let whole = world.check().await;
    let mut resume = None;
    let mut rounds = 0;
    let report = loop {
        rounds += 1;
        let options = CheckOptions {
            resume: resume.take(),
            ..CheckOptions::default()
        };
        let mut last = None;
        let mut told = |progress: &node::check::Progress| {
            assert!(progress.expected_blocks >= progress.report.blocks);
            last = Some(progress.clone());
            // Pages of blocks one by one; the pointers are quick.
            progress.position.is_end
        };
        let ended = check(&*world.store, &options, &mut told).await.unwrap();
        if let Some(report) = ended {
            break report;
        }
        resume = last.map(|p| serde_json::from_str(&serde_json::to_string(&p).unwrap()).unwrap());
    };
    assert!(rounds > 3, "{rounds}");
    assert_eq!(report, whole);
}

/// What is written and deleted while a check runs is never reported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_beside_writers_reports_nothing() {
    let (world, mut alice, _) = world().await;
    let store = world.store.clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let checker = tokio::spawn(async move {
        let mut checks = 0;
        while stopped.try_recv().is_err() {
            let report = check(&*store, &CheckOptions::default(), &mut |_| true).await;
            let report = report.unwrap().unwrap();
            assert_eq!(report.findings, []);
            checks += 1;
        }
        checks
    });
    for _ in 0..12 {
        let old: Vec<_> = alice.fragments.iter().map(|b| b.cid().clone()).collect();
        alice.save(&world, 4).await;
        let listed = world
            .store
            .list_blocks(&space("alice"), None, 1000)
            .await
            .unwrap();
        let garbage = listed.into_iter().filter(|info| old.contains(&info.cid));
        let garbage = garbage.map(|info| (info.cid, info.generation)).collect();
        world
            .store
            .delete_blocks(&space("alice"), garbage)
            .await
            .unwrap();
    }
    stop.send(()).unwrap();
    assert!(checker.await.unwrap() > 0);
}
