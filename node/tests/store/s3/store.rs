//! The store over a bucket: the contract, what start-up checks, what a bucket looks like from outside.

use std::{sync::Arc, time::SystemTime};

use node::store::{
    BlockStore, Clock, MemoryStore, MetaEngine, MetaStore as _, Partition, PostgresStore, Store,
    StoreError,
    s3::{S3Blocks, S3Credentials, S3Key, S3Options},
    split::SplitStore,
};

use crate::servers::s3::{BUCKET, KEY_ID, S3Server, server};
use crate::store::contract::{alice, check, raw, transaction};

pub(crate) fn system_clock() -> Clock {
    Arc::new(SystemTime::now)
}

/// Opens a bucket with metadata in memory.
pub(crate) async fn open(options: &S3Options) -> SplitStore {
    let meta: Arc<dyn MetaEngine> = Arc::new(MemoryStore::new());
    let blocks = S3Blocks::open(options, meta.as_ref(), None, system_clock())
        .await
        .unwrap();
    blocks.with_metadata(meta, system_clock())
}

async fn refusal(options: &S3Options, meta: &Arc<dyn MetaEngine>) -> String {
    match S3Blocks::open(options, meta.as_ref(), None, system_clock()).await {
        Err(error @ StoreError::Unusable { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn s3_store_keeps_the_contract() {
    let Some(server) = server() else { return };
    check(async |clock| {
        let meta: Arc<dyn MetaEngine> = Arc::new(MemoryStore::new());
        let options = server.options(&S3Server::fresh_prefix());
        let blocks = S3Blocks::open(&options, meta.as_ref(), None, clock.clone())
            .await
            .unwrap();
        Arc::new(blocks.with_metadata(meta, clock)) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test]
async fn s3_store_with_a_cache_keeps_the_contract() {
    let Some(server) = server() else { return };
    let folder = tempfile::tempdir().unwrap();
    check(async |clock| {
        let meta: Arc<dyn MetaEngine> = Arc::new(MemoryStore::new());
        let prefix = S3Server::fresh_prefix();
        let mut options = server.options(&prefix);
        options.cache_bytes = 300_000;
        let cache = Some(folder.path().join(prefix));
        let blocks = S3Blocks::open(&options, meta.as_ref(), cache, clock.clone())
            .await
            .unwrap();
        Arc::new(blocks.with_metadata(meta, clock)) as Arc<dyn Store>
    })
    .await;
}

/// The arrangement of several machines: rows in PostgreSQL, bytes in a bucket, nothing on any disk of a node.
#[tokio::test]
async fn s3_store_with_postgresql_keeps_the_contract() {
    let Some(server) = server() else { return };
    let Some(database) = crate::servers::postgres::shared() else {
        return;
    };
    check(async |clock| {
        let mut rows = database.new_data_set();
        rows.clock = clock.clone();
        let meta: Arc<dyn MetaEngine> = Arc::new(PostgresStore::open(rows).await.unwrap());
        let options = server.options(&S3Server::fresh_prefix());
        let blocks = S3Blocks::open(&options, meta.as_ref(), None, clock.clone())
            .await
            .unwrap();
        let store = blocks.with_metadata(meta, clock);
        assert!(store.is_shared());
        Arc::new(store) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test]
async fn nodes_with_connections_of_their_own_share_rows_and_bucket() {
    let Some(server) = server() else { return };
    let Some(database) = crate::servers::postgres::shared() else {
        return;
    };
    let rows = database.new_data_set();
    let options = server.options(&S3Server::fresh_prefix());
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let meta: Arc<dyn MetaEngine> = Arc::new(PostgresStore::open(rows.clone()).await.unwrap());
        let blocks = S3Blocks::open(&options, meta.as_ref(), None, system_clock())
            .await
            .unwrap();
        nodes.push(blocks.with_metadata(meta, system_clock()));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..24_u64 {
        let store = nodes[(n % 2) as usize].clone();
        tasks.spawn(async move {
            let blocks = vec![raw(n, 100), raw(1_000 + n / 8, 200)];
            store.put_blocks(&alice(), blocks, None).await.unwrap();
            // One node deletes while the other one writes the same.
            let listed = store.list_blocks(&alice(), None, 1000).await.unwrap();
            let shared = listed
                .into_iter()
                .filter(|info| info.size_bytes == 200)
                .map(|info| (info.cid, info.generation))
                .collect();
            store.delete_blocks(&alice(), shared).await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let listed = nodes[0].list_blocks(&alice(), None, 1000).await.unwrap();
    let counts = nodes[1].block_counts(&alice()).await.unwrap();
    assert_eq!(counts.blocks, listed.len() as u64);
    for info in listed {
        let found = nodes[1].block(&alice(), &info.cid).await.unwrap();
        assert!(found.is_some());
    }
}

#[tokio::test]
async fn objects_have_the_names_that_other_software_gives_them() {
    let Some(server) = server() else { return };
    let prefix = S3Server::fresh_prefix();
    let store = open(&server.options(&prefix)).await;
    let user = Partition::new("u-alice").unwrap();
    let block = raw(1, 100);
    store
        .put_blocks(&user, vec![block.clone()], None)
        .await
        .unwrap();
    let name = format!("{prefix}/alice/{}", block.cid().storage_key());
    assert_eq!(&std::fs::read(server.file(&name)).unwrap(), block.bytes());
    let listed = store.list_blocks(&user, None, 9).await.unwrap();
    let all = listed
        .into_iter()
        .map(|info| (info.cid, info.generation))
        .collect();
    assert_eq!(
        store
            .delete_blocks(&user, all)
            .await
            .unwrap()
            .removed
            .blocks,
        1
    );
    assert!(!server.file(&name).exists());
}

#[tokio::test]
async fn a_thousand_blocks_go_in_one_request() {
    let Some(server) = server() else { return };
    let proxy = super::proxy::Proxy::start(server.address).await;
    let options = server.options_at(proxy.address, &S3Server::fresh_prefix());
    let store = open(&options).await;
    let blocks: Vec<_> = (0..1000).map(|n| raw(n, 16)).collect();
    store.put_blocks(&alice(), blocks, None).await.unwrap();
    let listed = store.list_blocks(&alice(), None, 1000).await.unwrap();
    let all = listed
        .into_iter()
        .map(|info| (info.cid, info.generation))
        .collect();
    let before = proxy.requests();
    let gone = store.delete_blocks(&alice(), all).await.unwrap();
    assert_eq!(gone.removed.blocks, 1000);
    assert_eq!(proxy.requests() - before, 1);
    assert_eq!(store.block_counts(&alice()).await.unwrap().blocks, 0);
}

#[tokio::test]
async fn rel_6_a_damaged_object_is_never_served_and_heals() {
    let Some(server) = server() else { return };
    let prefix = S3Server::fresh_prefix();
    let store = open(&server.options(&prefix)).await;
    let (block, other) = (raw(1, 5000), raw(2, 5000));
    let both = vec![block.clone(), other.clone()];
    store.put_blocks(&alice(), both, None).await.unwrap();
    let file = |key: String| server.file(&format!("{prefix}/p.alice/{key}"));
    let path = file(block.cid().storage_key());
    let mut flipped = block.bytes().to_vec();
    flipped[4999] ^= 1;
    let swapped = std::fs::read(file(other.cid().storage_key())).unwrap();
    let too_long = vec![0; (2 << 20) + 5];
    for bad in [
        flipped,
        block.bytes()[..4000].to_vec(),
        Vec::new(),
        swapped,
        too_long,
    ] {
        std::fs::write(&path, bad).unwrap();
        assert!(matches!(
            store.block(&alice(), block.cid()).await,
            Err(StoreError::Damaged(cid)) if cid == *block.cid()
        ));
    }
    std::fs::remove_file(&path).unwrap();
    // Missing is damage, never absence: a collector must not take it for the end of a tree.
    assert!(matches!(
        store.block(&alice(), block.cid()).await,
        Err(StoreError::Damaged(_))
    ));
    store
        .put_blocks(&alice(), vec![block.clone()], None)
        .await
        .unwrap();
    assert_eq!(
        store.block(&alice(), block.cid()).await.unwrap().unwrap(),
        block
    );
}

#[tokio::test]
async fn what_is_wrong_with_the_settings_is_said_at_start() {
    let Some(server) = server() else { return };
    let meta: Arc<dyn MetaEngine> = Arc::new(MemoryStore::new());
    let good = server.options(&S3Server::fresh_prefix());
    let key = |id: &str, secret: &str| {
        S3Credentials::Key(S3Key {
            id: id.into(),
            secret: secret.into(),
            session: None,
        })
    };
    let mut options = good.clone();
    options.credentials = key(KEY_ID, "wrong-and-unmentionable");
    let text = refusal(&options, &meta).await;
    assert!(
        text.contains("the secret of the access key is wrong"),
        "{text}"
    );
    assert!(!text.contains("unmentionable"));
    options.credentials = key("NOBODY", "x");
    let text = refusal(&options, &meta).await;
    assert!(text.contains("access key"), "{text}");
    options = good.clone();
    // Nobody listens there: it was free a moment ago, and port 1 is nobody's.
    options.endpoint = Some("http://127.0.0.1:1".into());
    let text = refusal(&options, &meta).await;
    assert!(text.contains("gives no answer"), "{text}");
    // Nothing of this has claimed anything.
    drop(open(&good).await);
}

#[tokio::test]
async fn answers_that_no_server_here_gives_are_understood_too() {
    let Some(server) = server() else { return };
    let meta: Arc<dyn MetaEngine> = Arc::new(MemoryStore::new());
    for (status, code, words) in [
        (403, "RequestTimeTooSkewed", "set the time"),
        (403, "InvalidAccessKeyId", "does not know the access key"),
        (403, "AccessDenied", "s3:PutObject"),
        (404, "NoSuchBucket", "there is no bucket blocks"),
        (400, "AuthorizationHeaderMalformed", "another region"),
        (301, "PermanentRedirect", "region"),
        (400, "ExpiredToken", "session"),
        (418, "Teapot", "418 Teapot"),
    ] {
        let proxy = super::proxy::Proxy::start(server.address).await;
        proxy.always("PUT", super::proxy::Fault::Refuse(status, code));
        let options = server.options_at(proxy.address, &S3Server::fresh_prefix());
        let text = refusal(&options, &meta).await;
        assert!(text.contains(words), "{code}: {text}");
    }
}

#[tokio::test]
async fn two_data_sets_never_share_a_prefix() {
    let Some(server) = server() else { return };
    let options = server.options(&S3Server::fresh_prefix());
    let mine: Arc<dyn MetaEngine> = Arc::new(MemoryStore::new());
    let open = async |options: &S3Options, meta: &Arc<dyn MetaEngine>| {
        S3Blocks::open(options, meta.as_ref(), None, system_clock())
            .await
            .map(drop)
    };
    open(&options, &mine).await.unwrap();
    open(&options, &mine).await.unwrap();
    let other: Arc<dyn MetaEngine> = Arc::new(MemoryStore::new());
    for _ in 0..2 {
        let text = refusal(&options, &other).await;
        assert!(text.contains("another data set"), "{text}");
    }
    // The other data set is free to go elsewhere ...
    let elsewhere = server.options(&S3Server::fresh_prefix());
    open(&elsewhere, &other).await.unwrap();
    // ... and a node that is pointed at an empty prefix does not take its blocks for deleted ones.
    let empty = server.options(&S3Server::fresh_prefix());
    let text = refusal(&empty, &mine).await;
    assert!(
        text.contains("does not hold the blocks of this node"),
        "{text}"
    );
    assert_eq!(BUCKET, options.bucket);
}

#[tokio::test]
async fn several_nodes_over_one_data_set_see_each_other() {
    let Some(server) = server() else { return };
    let meta: Arc<dyn MetaEngine> = Arc::new(MemoryStore::new());
    let options = server.options(&S3Server::fresh_prefix());
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let blocks = S3Blocks::open(&options, meta.as_ref(), None, system_clock())
            .await
            .unwrap();
        nodes.push(blocks.with_metadata(meta.clone(), system_clock()));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64_u64 {
        let store = nodes[(n % 2) as usize].clone();
        tasks.spawn(async move {
            // Every second block is everybody's.
            let blocks = vec![raw(n, 100), raw(1_000 + n / 8, 200)];
            let id = transaction(&format!("t{n}"));
            store.put_blocks(&alice(), blocks, Some(&id)).await.unwrap();
        });
    }
    tasks.join_all().await;
    for node in &nodes {
        let counts = node.block_counts(&alice()).await.unwrap();
        assert_eq!((counts.blocks, counts.bytes), (72, 64 * 100 + 8 * 200));
        for n in 0..64 {
            assert!(
                node.block(&alice(), raw(n, 100).cid())
                    .await
                    .unwrap()
                    .is_some()
            );
        }
    }
}

/// A process that dies between storing an object and committing its row leaves the object behind.
#[tokio::test]
async fn objects_that_no_row_knows_are_found_and_removed_when_they_are_old() {
    let Some(server) = server() else { return };
    let prefix = S3Server::fresh_prefix();
    let store = open(&server.options(&prefix)).await;
    let (live, stray, young, foreign) = (raw(1, 100), raw(2, 200), raw(3, 300), raw(4, 400));
    store
        .put_blocks(&alice(), vec![live.clone()], None)
        .await
        .unwrap();
    let folder = server.file(&format!("{prefix}/p.alice"));
    let leave = |name: &str, block: &champ::Block, days: u64| {
        let path = folder.join(name);
        std::fs::write(&path, block.bytes()).unwrap();
        let then = SystemTime::now() - std::time::Duration::from_secs(days * 86_400);
        std::fs::File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_modified(then))
            .unwrap();
        path
    };
    let old = leave(&stray.cid().storage_key(), &stray, 2);
    let fresh = leave(&young.cid().storage_key(), &young, 0);
    let other = leave("not-a-block", &foreign, 2);
    leave(&live.cid().storage_key(), &live, 2);
    let found = store.strays(false).await.unwrap();
    assert_eq!((found.found.blocks, found.found.bytes), (1, 200));
    assert!(old.exists());
    let swept = store.strays(true).await.unwrap();
    assert_eq!(swept.removed, 1);
    assert!(!old.exists() && fresh.exists() && other.exists());
    let read = store.block(&alice(), live.cid()).await.unwrap();
    assert_eq!(read, Some(live));
    store
        .put_blocks(&alice(), vec![stray.clone()], None)
        .await
        .unwrap();
    assert_eq!(
        store.block(&alice(), stray.cid()).await.unwrap(),
        Some(stray)
    );
}
