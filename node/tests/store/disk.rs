//! The disk engine on a real folder: contract, reopening, damage, locks, permissions.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use champ::{Block, Cid};
use node::store::{
    Batch, BlockStore, DiskOptions, DiskStore, FreeFloor, MetaStore, Store, StoreError,
    disk::{Disk as _, SystemDisk},
    tables,
};

use super::contract::{alice, bob, check, raw, transaction};

fn options(folder: &Path) -> DiskOptions {
    let mut options = DiskOptions::new(folder);
    options.free_floor = FreeFloor::Bytes(0);
    options
}

fn open(folder: &Path) -> DiskStore {
    DiskStore::open(options(folder)).unwrap()
}

/// Returns the files of large blocks.
fn block_files(folder: &Path) -> Vec<PathBuf> {
    let runs = fs::read_dir(folder.join("blocks")).unwrap();
    let files = runs.flat_map(|run| fs::read_dir(run.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_store_keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    check(async |clock| {
        count.set(count.get() + 1);
        let mut options = options(&root.path().join(count.get().to_string()));
        options.clock = clock;
        Arc::new(DiskStore::open(options).unwrap()) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test]
async fn everything_is_there_after_reopening_also_without_a_close() {
    let root = tempfile::tempdir().unwrap();
    let blocks = [raw(1, 10), raw(2, 5_000), raw(3, 65_536), raw(4, 1 << 20)];
    for round in 0..4_u8 {
        let store = open(root.path());
        for block in &blocks[..usize::from(round)] {
            assert_eq!(
                store.block(&alice(), block.cid()).await.unwrap().as_ref(),
                Some(block)
            );
            let size = store
                .block_size(&alice(), block.cid())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(size as usize, block.bytes().len());
        }
        let rows = store.scan(tables::NODE, b"", None, 10).await.unwrap();
        assert_eq!(rows.len(), usize::from(round));
        let block = blocks[usize::from(round)].clone();
        store
            .put_blocks(&alice(), vec![block], Some(&transaction("t")))
            .await
            .unwrap();
        assert_eq!(
            store.protected_blocks(&alice()).await.unwrap().len(),
            usize::from(round) + 1
        );
        let batch = Batch::new().put(tables::NODE, vec![round], "v");
        assert!(store.commit(batch).await.unwrap().is_committed());
        if round % 2 == 0 {
            store.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn deleting_removes_files_and_empty_runs() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let blocks: Vec<_> = (0..5).map(|n| raw(n, 70_000)).collect();
    store
        .put_blocks(&alice(), blocks.clone(), None)
        .await
        .unwrap();
    store
        .put_blocks(&bob(), blocks.clone(), None)
        .await
        .unwrap();
    assert_eq!(block_files(root.path()).len(), 10);
    let listed = store.list_blocks(&alice(), None, 10).await.unwrap();
    let all = listed
        .into_iter()
        .map(|info| (info.cid, info.generation))
        .collect();
    assert_eq!(
        store
            .delete_blocks(&alice(), all)
            .await
            .unwrap()
            .removed
            .blocks,
        5
    );
    assert_eq!(block_files(root.path()).len(), 5);
    for block in blocks {
        assert!(store.block(&bob(), block.cid()).await.unwrap().is_some());
        assert!(store.block(&alice(), block.cid()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_block_is_stored_once_however_often_it_is_put() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(open(root.path()));
    let block = raw(1, 100_000);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (store, block) = (store.clone(), block.clone());
        tasks.spawn(async move {
            store
                .put_blocks(&alice(), vec![block.clone(), block], None)
                .await
                .unwrap();
        });
    }
    tasks.join_all().await;
    assert_eq!(block_files(root.path()).len(), 1);
    assert_eq!(store.block_counts(&alice()).await.unwrap().blocks, 1);
}

/// REL-6.
#[tokio::test]
async fn damaged_blocks_are_never_served_and_heal_when_put_again() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let (block, other) = (raw(1, 100_000), raw(2, 100_000));
    let harms: [fn(&Path, &Block); 6] = [
        |path, _| {
            let mut bytes = fs::read(path).unwrap();
            bytes[50_000] ^= 1;
            fs::write(path, bytes).unwrap();
        },
        |path, _| {
            fs::OpenOptions::new()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(99_999)
                .unwrap()
        },
        |path, _| fs::write(path, []).unwrap(),
        |path, other| fs::write(path, other.bytes()).unwrap(),
        |path, _| fs::write(path, vec![7; 3 << 20]).unwrap(),
        |path, _| fs::remove_file(path).unwrap(),
    ];
    for harm in harms {
        store
            .put_blocks(&alice(), vec![block.clone()], None)
            .await
            .unwrap();
        let files = block_files(root.path());
        assert_eq!(files.len(), 1);
        harm(&files[0], &other);
        let read = store.block(&alice(), block.cid()).await;
        assert!(matches!(read, Err(StoreError::Damaged(cid)) if cid == *block.cid()));
        store
            .put_blocks(&alice(), vec![block.clone()], None)
            .await
            .unwrap();
        let read = store.block(&alice(), block.cid()).await.unwrap();
        assert_eq!(read.as_ref(), Some(&block));
        assert_eq!(
            block_files(root.path()).len(),
            1,
            "the damaged copy is gone"
        );
        assert_eq!(store.block_counts(&alice()).await.unwrap().bytes, 100_000);
    }
}

/// REL-22.
#[tokio::test]
async fn a_folder_in_use_is_refused_with_the_process_id() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    match DiskStore::open(options(root.path())) {
        Err(error @ StoreError::InUse { .. }) => {
            let pid = format!("(process {})", std::process::id());
            assert!(error.to_string().ends_with(&pid), "{error}");
        }
        other => panic!("{other:?}"),
    }
    store.close().await.unwrap();
    open(root.path());
}

#[tokio::test]
async fn folders_that_cannot_be_right_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    store
        .put_blocks(&alice(), vec![raw(1, 100_000)], None)
        .await
        .unwrap();
    store.close().await.unwrap();
    drop(store);
    let reason = |root: &Path| DiskStore::open(options(root)).unwrap_err();

    let format = root.path().join("format");
    fs::write(&format, "kastro store 3\n").unwrap();
    let newer = StoreError::NewerFormat {
        found: 3,
        supported: 2,
    };
    assert_eq!(reason(root.path()).to_string(), newer.to_string());
    fs::write(&format, "?").unwrap();
    assert!(matches!(reason(root.path()), StoreError::BadFolder { .. }));
    fs::remove_file(&format).unwrap();
    assert!(matches!(reason(root.path()), StoreError::BadFolder { .. }));
    fs::write(&format, "kastro store 2\n").unwrap();
    let saved = root.path().join("saved");
    for name in ["meta.redb", "meta.log"] {
        let file = root.path().join(name);
        fs::rename(&file, &saved).unwrap();
        assert!(matches!(reason(root.path()), StoreError::BadFolder { .. }));
        assert!(!file.exists());
        fs::rename(&saved, &file).unwrap();
    }
    let store = open(root.path());
    assert_eq!(store.block_counts(&alice()).await.unwrap().blocks, 1);
}

#[tokio::test]
async fn start_removes_leftovers_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let block = raw(1, 100_000);
    store
        .put_blocks(&alice(), vec![block.clone()], None)
        .await
        .unwrap();
    store.close().await.unwrap();
    drop(store);
    let file = block_files(root.path()).remove(0);
    let name = file.file_name().unwrap().to_str().unwrap();
    let (rest, _) = name.rsplit_once('-').unwrap();
    let leftover = file.with_file_name(format!("{rest}-{:016x}", 1_000));
    fs::copy(&file, &leftover).unwrap();
    let later = root.path().join("blocks/00000009");
    fs::create_dir(&later).unwrap();
    fs::copy(&file, later.join(format!("{rest}-{:016x}", 9_999))).unwrap();
    let foreign = later.join("README");
    fs::write(&foreign, "not ours").unwrap();

    let store = open(root.path());
    assert!(!leftover.exists());
    let mut left = block_files(root.path());
    left.sort();
    assert_eq!(left, [file, foreign]);
    assert_eq!(
        store.block(&alice(), block.cid()).await.unwrap().unwrap(),
        block
    );
}

#[tokio::test]
async fn only_the_owner_may_look_into_the_folder() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("deep/data");
    let store = open(&data);
    store
        .put_blocks(&alice(), vec![raw(1, 100_000)], None)
        .await
        .unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for name in ["lock", "format", "meta.redb"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
    let file = block_files(&data).remove(0);
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    assert_eq!(mode(&data.join("blocks")), 0o700);
}

#[tokio::test]
async fn wr_13_what_a_deletion_stores_may_use_half_of_what_is_kept_free() {
    let root = tempfile::tempdir().unwrap();
    let free = SystemDisk.space(root.path()).unwrap().free_bytes;
    let mut options = options(root.path());
    options.free_floor = FreeFloor::Bytes(free + free / 2);
    let store = DiskStore::open(options).unwrap();
    let small = vec![raw(1, 1_000), raw(2, 60_000)];
    store.put_blocks(&alice(), small, None).await.unwrap();
    let mixed = vec![raw(3, 1_000), raw(4, 100_000)];
    let refused = store.put_blocks(&alice(), mixed, None).await;
    assert!(matches!(refused, Err(StoreError::NoSpace { .. })));
}

#[tokio::test]
async fn below_the_floor_blocks_are_refused_and_all_else_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let block = raw(1, 100_000);
    store
        .put_blocks(&alice(), vec![block.clone()], None)
        .await
        .unwrap();
    store.close().await.unwrap();
    let mut full = options(root.path());
    full.free_floor = FreeFloor::Bytes(u64::MAX);
    let store = DiskStore::open(full).unwrap();
    for (len, floor) in [(10, u64::MAX / 2), (100_000, u64::MAX)] {
        let put = store.put_blocks(&alice(), vec![raw(2, len)], None).await;
        assert!(
            matches!(put, Err(StoreError::NoSpace { floor_bytes, .. }) if floor_bytes == floor)
        );
    }
    let batch = Batch::new().put(tables::POINTERS, "k", "v");
    assert!(store.commit(batch).await.unwrap().is_committed());
    assert!(store.block(&alice(), block.cid()).await.unwrap().is_some());
    let listed = store.list_blocks(&alice(), None, 9).await.unwrap();
    let all = listed
        .into_iter()
        .map(|info| (info.cid, info.generation))
        .collect();
    assert_eq!(
        store
            .delete_blocks(&alice(), all)
            .await
            .unwrap()
            .removed
            .blocks,
        1
    );
    assert_eq!(FreeFloor::Default.bytes(10 << 30), 1 << 30);
    assert_eq!(FreeFloor::Default.bytes(100 << 30), 2 << 30);
}

#[tokio::test]
async fn the_limit_between_database_and_files_may_change() {
    let root = tempfile::tempdir().unwrap();
    let blocks: Vec<_> = [100, 50_000, 70_000]
        .into_iter()
        .map(|len| raw(1, len))
        .collect();
    for limit in [64 << 10, 10, 1 << 20, 64 << 10] {
        let mut options = options(root.path());
        options.inline_below_bytes = limit;
        let store = DiskStore::open(options).unwrap();
        store
            .put_blocks(&alice(), blocks.clone(), None)
            .await
            .unwrap();
        for block in &blocks {
            let read = store.block(&alice(), block.cid()).await.unwrap();
            assert_eq!(read.as_ref(), Some(block));
        }
        let counts = store.block_counts(&alice()).await.unwrap();
        assert_eq!((counts.blocks, counts.bytes), (3, 120_100));
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_put_goes_on_when_its_future_is_dropped() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let block = raw(1, 1 << 20);
    {
        let alice = alice();
        let mut put = store.put_blocks(&alice, vec![block.clone()], None);
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        let _ = put.as_mut().poll(&mut context);
    }
    // Closing waits for all accepted writes.
    store.close().await.unwrap();
    drop(store);
    let store = open(root.path());
    assert_eq!(
        store.block(&alice(), block.cid()).await.unwrap().unwrap(),
        block
    );
    assert_eq!(
        store.block(&alice(), &Cid::of_raw(b"x")).await.unwrap(),
        None
    );
}
