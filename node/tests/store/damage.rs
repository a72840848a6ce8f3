//! Damage to the database and its log (REL-7), and its upkeep: clear words, nothing lost, space given back.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use node::store::{
    Archive as _, Batch, BlockStore as _, DiskOptions, DiskStore, FreeFloor, MetaStore as _,
    Store as _, StoreError, Upkeep as _, tables,
};

use super::contract::{alice, raw};

fn open(folder: &Path) -> Result<DiskStore, StoreError> {
    let mut options = DiskOptions::new(folder);
    options.free_floor = FreeFloor::Bytes(0);
    DiskStore::open(options)
}

async fn write(store: &DiskStore, n: u64) {
    let batch = Batch::new().put(tables::POINTERS, n.to_be_bytes().to_vec(), vec![1; 300]);
    assert!(store.commit(batch).await.unwrap().is_committed());
}

/// Returns every file below a folder, but for the lock.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("lock") {
                found.push((path.clone(), fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// A folder in which a process was killed: `records` commits are only in the log.
async fn killed(records: u64) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).unwrap();
    let blocks = vec![raw(1, 100_000), raw(2, 500)];
    store.put_blocks(&alice(), blocks, None).await.unwrap();
    store.close().await.unwrap();
    let store = open(root.path()).unwrap();
    for n in 0..records {
        write(&store, n).await;
    }
    let copy = tempfile::tempdir().unwrap();
    for (path, bytes) in files(root.path()) {
        let to = copy.path().join(path.strip_prefix(root.path()).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, bytes).unwrap();
    }
    copy
}

fn flip(file: &Path, at: u64, len: usize) {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    file.write_all_at(&bytes, at).unwrap();
}

#[tokio::test]
async fn rel_7_a_damaged_header_or_log_is_refused_and_nothing_is_touched() {
    // Magic number; both commit slots; a record in the middle of the log.
    for (name, at, len) in [
        ("meta.redb", 0, 8),
        ("meta.redb", 64, 256),
        ("meta.log", 4096, 8),
    ] {
        let folder = killed(5).await;
        flip(&folder.path().join(name), at, len);
        let before = files(folder.path());
        let error = open(folder.path()).unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::Database(_) | StoreError::DamagedRow { row: "log" }
            ),
            "{name} at {at}: {error:?}"
        );
        let after = files(folder.path());
        let paths = |files: &[(PathBuf, Vec<u8>)]| -> Vec<PathBuf> {
            files.iter().map(|(path, _)| path.clone()).collect()
        };
        assert_eq!(paths(&before), paths(&after));
        for ((path, before), (_, after)) in before.iter().zip(&after) {
            if !path.ends_with("meta.redb") {
                assert_eq!(before, after, "{}", path.display());
            }
        }
        // The bytes are what they were, so whoever puts them right has everything.
        flip(&folder.path().join(name), at, len);
        let store = open(folder.path()).unwrap();
        for n in 0..5_u64 {
            let row = store.get(tables::POINTERS, &n.to_be_bytes()).await.unwrap();
            assert!(row.is_some());
        }
        assert!(
            store
                .block(&alice(), raw(1, 100_000).cid())
                .await
                .unwrap()
                .is_some()
        );
    }
}

#[tokio::test]
async fn rel_7_the_torn_end_of_the_log_is_no_damage() {
    let folder = killed(5).await;
    flip(&folder.path().join("meta.log"), 4 * 4096 + 40, 4);
    let store = open(folder.path()).unwrap();
    for n in 0..5_u64 {
        let row = store.get(tables::POINTERS, &n.to_be_bytes()).await.unwrap();
        assert_eq!(row.is_some(), n < 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_7_damaged_pages_in_the_middle_are_found_and_never_taken_for_data() {
    let folder = killed(0).await;
    {
        let store = open(folder.path()).unwrap();
        let blocks: Vec<_> = (10..400).map(|n| raw(n, 4_000)).collect();
        store.put_blocks(&alice(), blocks, None).await.unwrap();
        store.verify_pages().await.unwrap();
        store.close().await.unwrap();
    }
    let database = folder.path().join("meta.redb");
    let len = fs::metadata(&database).unwrap().len();
    let mut found = 0;
    for at in (4096 * 16..len - 4096).step_by(4096 * 37) {
        let folder = {
            let copy = tempfile::tempdir().unwrap();
            for (path, bytes) in files(folder.path()) {
                let to = copy.path().join(path.strip_prefix(folder.path()).unwrap());
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::write(to, bytes).unwrap();
            }
            copy
        };
        flip(&folder.path().join("meta.redb"), at + 1_000, 64);
        // A page that nobody uses may be damaged without harm.
        let path = folder.path().to_owned();
        let opened = tokio::task::spawn_blocking(move || open(&path))
            .await
            .unwrap();
        let Ok(store) = opened else {
            found += 1;
            continue;
        };
        let store = std::sync::Arc::new(store);
        for n in 10..400 {
            let (store, block) = (store.clone(), raw(n, 4_000));
            let read = tokio::spawn(async move {
                let read = store.block(&alice(), block.cid()).await;
                read.ok().flatten().is_none_or(|read| read == block)
            });
            // Nothing that is not what was stored; a page that cannot be understood fails the call at most.
            assert!(read.await.unwrap_or(true));
        }
        found += u32::from(store.verify_pages().await.is_err());
    }
    assert!(found > 3, "{found}");
}

#[tokio::test]
async fn what_deletions_free_in_the_database_is_given_back() {
    let folder = killed(3).await;
    let store = open(folder.path()).unwrap();
    let blocks: Vec<_> = (10..1_000).map(|n| raw(n, 4_000)).collect();
    store.put_blocks(&alice(), blocks, None).await.unwrap();
    let listed = store.list_blocks(&alice(), None, 10_000).await.unwrap();
    let small = listed.into_iter().filter(|info| info.size_bytes == 4_000);
    let small = small.map(|info| (info.cid, info.generation)).collect();
    let deleted = store.delete_blocks(&alice(), small).await.unwrap();
    assert_eq!(deleted.removed.blocks, 990);
    let snapshot = store.snapshot().await.unwrap();
    assert!(matches!(store.compact().await, Err(StoreError::Busy)));
    drop(snapshot);
    let (before, after) = store.compact().await.unwrap();
    assert!(before > 4_000_000 && after < 1_000_000, "{before} {after}");
    assert_eq!(
        fs::metadata(folder.path().join("meta.redb")).unwrap().len(),
        after
    );
    // Everything goes on, also after a kill.
    write(&store, 7).await;
    let rows = store.scan(tables::POINTERS, b"", None, 100).await.unwrap();
    assert_eq!(rows.len(), 4);
    assert!(
        store
            .block(&alice(), raw(2, 500).cid())
            .await
            .unwrap()
            .is_some()
    );
    store.close().await.unwrap();
    let store = open(folder.path()).unwrap();
    let rows = store.scan(tables::POINTERS, b"", None, 100).await.unwrap();
    assert_eq!(rows.len(), 4);
}
