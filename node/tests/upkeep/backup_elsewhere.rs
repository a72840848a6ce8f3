//! Backup of nodes whose data is in a bucket, in a database, or in both, and restores from one kind of store into
//! another (REL-12).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use node::{
    BlockPlace, Config, MetadataPlace, Node,
    backup::{
        BackupError, BackupOptions, BackupOutcome, RestoreOptions, backup, restore, restore_as,
        verify,
    },
    check::{CheckOptions, check},
    clock::ManualClock,
    store::{
        Clock, DiskOptions, DiskStore, FreeFloor, MetaEngine, PostgresOptions, PostgresStore,
        Store,
        s3::{S3Blocks, S3Options},
    },
};
use tempfile::TempDir;

use super::world::{Files, Folder, World, space};
use crate::{
    conformance::harness::{NOW, TestNode, config},
    servers::{postgres, s3},
};

const NOW_SECONDS: i64 = NOW / 1000;

/// Where a node keeps its metadata and its blocks.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) rows: Option<PostgresOptions>,
    pub(super) bucket: Option<S3Options>,
}

impl Place {
    /// The kinds of places that are not the folder of one machine; none when the servers are not installed.
    fn kinds() -> Vec<Self> {
        let (Some(bucket), Some(database)) = (s3::server(), postgres::shared()) else {
            return Vec::new();
        };
        let bucket = || Some(bucket.options(&s3::S3Server::fresh_prefix()));
        let rows = || Some(database.new_data_set());
        let place = |rows, bucket| Self { rows, bucket };
        vec![
            place(rows(), bucket()),
            place(None, bucket()),
            place(rows(), None),
        ]
    }

    fn is_shared(&self) -> bool {
        self.rows.is_some()
    }

    fn config(&self, data: &Path) -> Config {
        let mut config = Config {
            data: Some(data.to_owned()),
            free_floor: FreeFloor::Bytes(0),
            ..config()
        };
        // A node with a key of its own: it must come back.
        config.server_ids = Vec::new();
        if let Some(rows) = &self.rows {
            config.metadata = MetadataPlace::Postgres(Box::new(rows.clone()));
        }
        if let Some(bucket) = &self.bucket {
            config.blocks = BlockPlace::S3(Box::new(bucket.clone()));
        }
        config
    }

    async fn open(&self, data: &Path) -> Arc<dyn Store> {
        let clock: Clock = Arc::new(std::time::SystemTime::now);
        let meta: Arc<dyn MetaEngine>;
        match &self.rows {
            Some(rows) => {
                let store = Arc::new(PostgresStore::open(rows.clone()).await.unwrap());
                if self.bucket.is_none() {
                    return store;
                }
                meta = store;
            }
            None => {
                let mut options = DiskOptions::new(data.join("store"));
                options.free_floor = FreeFloor::Bytes(0);
                let store = Arc::new(DiskStore::open(options).unwrap());
                if self.bucket.is_none() {
                    return store;
                }
                meta = store;
            }
        }
        let bucket = self.bucket.as_ref().unwrap();
        let blocks = S3Blocks::open(bucket, meta.as_ref(), None, clock.clone()).await;
        Arc::new(blocks.unwrap().with_metadata(meta, clock))
    }
}

/// A node somewhere.
pub(super) struct Elsewhere {
    folder: Folder,
    pub(super) store: Arc<dyn Store>,
    pub(super) node: TestNode,
}

impl Elsewhere {
    async fn at(place: &Place) -> Self {
        Self::on(place, tempfile::tempdir().unwrap()).await
    }

    /// Starts a node on whatever is there.
    pub(super) async fn on(place: &Place, folder: impl Into<Folder>) -> Self {
        let folder = folder.into();
        let data = folder.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        let store = place.open(&data).await;
        let clock = Arc::new(ManualClock::at(NOW));
        let mut config = place.config(&data);
        config.clock = clock.clone();
        let node = Node::with_store(config, store.clone()).await.unwrap();
        Self {
            folder,
            store,
            node: TestNode::of(node, clock),
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    async fn back_up(&self, to: &Path) -> Result<BackupOutcome, BackupError> {
        let options = BackupOptions {
            data: self.data(),
            to: to.to_owned(),
            keep: None,
            now_seconds: NOW_SECONDS,
        };
        backup(&*self.store, &options, &mut |_| true).await
    }

    pub(super) async fn assert_sound(&self) {
        let done = check(&*self.store, &CheckOptions::default(), &mut |_| true).await;
        let report = done.unwrap().unwrap();
        assert_eq!(report.total(), 0, "{:#?}", report.findings);
    }
}

fn options(from: &Path, data: &Path, snapshot: Option<String>) -> RestoreOptions {
    RestoreOptions {
        from: from.to_owned(),
        data: data.to_owned(),
        snapshot,
        now_seconds: NOW_SECONDS + 60,
    }
}

fn backup_folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backup");
    (folder, path)
}

/// From a bucket and a database to a disk, and from the disk into an unused bucket and database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_12_a_backup_of_any_kind_of_store_is_restored_into_any_other() {
    for (from, into) in Place::kinds().into_iter().zip(Place::kinds()) {
        let world = Elsewhere::at(&from).await;
        let mut alice = Files::sign_up(&world.node, "alice", 7, 3).await;
        let bob = Files::sign_up(&world.node, "bob", 8, 2).await;
        let (_keep, to) = backup_folder();
        let first = world.back_up(&to).await.unwrap();
        assert_eq!(first.damaged, Vec::new(), "{from:?}");
        let again = world.back_up(&to).await.unwrap();
        assert_eq!((again.copied_blocks, again.blocks), (0, first.blocks));
        alice.save_at(&world.node, 2).await;
        let third = world.back_up(&to).await.unwrap();
        assert!((2..6).contains(&third.copied_blocks), "{third:?}");
        let verified = verify(&to, &mut |_, _| true).unwrap();
        assert_eq!((verified.problem_count, verified.snapshots.len()), (0, 3));

        // The hold is over: another collection may begin.
        let options_of_gc = node::gc::CollectOptions::default();
        let collected = world.node.node.collect_garbage(&options_of_gc, &|_| ());
        collected.await.unwrap();

        let disk = tempfile::tempdir().unwrap();
        let outcome = restore(
            &options(&to, &disk.path().join("data"), None),
            &mut |_, _| true,
        )
        .await
        .unwrap();
        assert_eq!((outcome.blocks, outcome.lost.len()), (third.blocks, 0));
        let here = Place {
            rows: None,
            bucket: None,
        };
        let mut on_disk = here.config(&disk.path().join("data"));
        on_disk.clock = Arc::new(ManualClock::at(NOW));
        // With the same key, wherever it was kept before.
        let node = Node::open(on_disk).await.unwrap();
        assert_eq!(node.id(), world.node.node.id(), "{from:?}");
        node.close().await.unwrap();
        drop(node);
        let copy = Elsewhere::on(&here, disk).await;
        for files in [&alice, &bob] {
            files.assert_readable_at(&copy.node).await;
            let usage = files.account.usage(&copy.node, "").await;
            assert_eq!(usage, files.account.usage(&world.node, "").await);
        }
        copy.assert_sound().await;
        alice.save_at(&copy.node, 4).await;

        let (_keep, back) = backup_folder();
        let made = BackupOptions {
            data: copy.data(),
            to: back.clone(),
            keep: None,
            now_seconds: NOW_SECONDS,
        };
        backup(&*copy.store, &made, &mut |_| true).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let config = into.config(&data);
        let outcome = restore_as(&options(&back, &data, None), &config, &mut |_, _| true).await;
        assert_eq!(outcome.unwrap().lost, Vec::new());
        let world = Elsewhere::on(&into, folder).await;
        alice.assert_readable_at(&world.node).await;
        bob.assert_readable_at(&world.node).await;
        world.assert_sound().await;
        alice.save_at(&world.node, 1).await;
        world.node.node.close().await.unwrap();
    }
}

/// A writer and a collector that deletes all it may run beside the backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_12_under_load_a_snapshot_of_any_kind_of_store_is_complete() {
    for place in Place::kinds() {
        let world = Arc::new(Elsewhere::at(&place).await);
        let mut alice = Files::sign_up(&world.node, "alice", 7, 3).await;
        let (_keep, to) = backup_folder();
        let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
        let busy = world.clone();
        let writer = tokio::spawn(async move {
            while stopped.try_recv().is_err() {
                let old: Vec<_> = alice.fragments.iter().map(|b| b.cid().clone()).collect();
                alice.save_at(&busy.node, 3).await;
                let listed = busy.store.list_blocks(&space("alice"), None, 1000).await;
                let garbage = listed.unwrap().into_iter();
                let garbage = garbage.filter(|info| old.contains(&info.cid));
                let garbage = garbage.map(|info| (info.cid, info.generation)).collect();
                let deleted = busy.store.delete_blocks(&space("alice"), garbage).await;
                deleted.unwrap();
            }
            alice
        });
        let mut made = Vec::new();
        for _ in 0..2 {
            made.push(world.back_up(&to).await.unwrap());
        }
        stop.send(()).unwrap();
        let alice = writer.await.unwrap();
        for outcome in made {
            assert_eq!(outcome.damaged, Vec::new(), "{place:?}");
            let disk = tempfile::tempdir().unwrap();
            let options = options(&to, &disk.path().join("data"), Some(outcome.name));
            let back = restore(&options, &mut |_, _| true).await.unwrap();
            assert_eq!(back.lost, Vec::new());
            let report = World::at(disk).await.check().await;
            assert_eq!(report.worst(), None, "{:#?}", report.findings);
        }
        alice.assert_readable_at(&world.node).await;
    }
}

/// Nodes of one data set: while one of them makes a backup, none of them deletes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_12_other_nodes_of_the_data_set_do_not_collect_beside_a_backup() {
    for place in Place::kinds() {
        if !place.is_shared() {
            continue;
        }
        let world = Elsewhere::at(&place).await;
        let other = Elsewhere::at(&place).await;
        let _alice = Files::sign_up(&world.node, "alice", 7, 2).await;
        let hold = world.store.archive().unwrap().hold().await.unwrap();
        let collect = async || {
            let everything = node::gc::CollectOptions {
                now: true,
                ..Default::default()
            };
            other.node.node.collect_garbage(&everything, &|_| ()).await
        };
        let refused = collect().await;
        assert!(
            matches!(refused, Err(node::gc::CollectError::Running)),
            "{refused:?}"
        );
        assert!(hold.is_kept());
        hold.end().await;
        collect().await.unwrap();
    }
}
