//! A network and a service that misbehave (REL-8, P2P-2, Spec: 12 §4.4).

use std::time::{Duration, Instant};

use node::store::{BlockStore, StoreError, s3::S3Options};

use super::{
    proxy::{Fault, Proxy},
    store::open,
};
use crate::servers::s3::{S3Server, server};
use crate::store::contract::{alice, raw};

async fn setting() -> Option<(Proxy, S3Options)> {
    let server = server()?;
    let proxy = Proxy::start(server.address).await;
    let mut options = server.options_at(proxy.address, &S3Server::fresh_prefix());
    options.request_timeout = Duration::from_millis(500);
    Some((proxy, options))
}

#[tokio::test]
async fn busy_answers_are_tried_again_with_growing_pauses() {
    let Some((proxy, mut options)) = setting().await else {
        return;
    };
    options.first_retry_delay = Duration::from_millis(40);
    let store = open(&options).await;
    for (status, code) in [
        (503, "SlowDown"),
        (502, "BadGateway"),
        (429, "TooManyRequests"),
        (500, "InternalError"),
    ] {
        proxy.next("PUT", Fault::Refuse(status, code));
    }
    let began = Instant::now();
    let block = raw(1, 3000);
    store
        .put_blocks(&alice(), vec![block.clone()], None)
        .await
        .unwrap();
    // Four pauses of at least the first one.
    assert!(began.elapsed() >= Duration::from_millis(160));
    proxy.next("GET", Fault::Refuse(503, "SlowDown"));
    assert_eq!(
        store.block(&alice(), block.cid()).await.unwrap().unwrap(),
        block
    );
    proxy.next("POST", Fault::Refuse(503, "SlowDown"));
    let listed = store.list_blocks(&alice(), None, 9).await.unwrap();
    let all = vec![(listed[0].cid.clone(), listed[0].generation)];
    assert_eq!(
        store
            .delete_blocks(&alice(), all)
            .await
            .unwrap()
            .removed
            .blocks,
        1
    );
}

#[tokio::test]
async fn a_storm_without_end_is_a_failure_and_leaves_nothing_half_done() {
    let Some((proxy, mut options)) = setting().await else {
        return;
    };
    options.max_retries = 3;
    let store = open(&options).await;
    let (old, new) = (raw(1, 3000), raw(2, 3000));
    store
        .put_blocks(&alice(), vec![old.clone()], None)
        .await
        .unwrap();
    for method in ["PUT", "GET", "POST", "DELETE"] {
        proxy.always(method, Fault::Refuse(503, "SlowDown"));
    }
    let put = store.put_blocks(&alice(), vec![new.clone()], None).await;
    assert!(matches!(put, Err(StoreError::Objects { .. })), "{put:?}");
    assert_eq!(store.block(&alice(), new.cid()).await.unwrap(), None);
    // Not readable now is neither absent nor damaged.
    let read = store.block(&alice(), old.cid()).await;
    assert!(matches!(read, Err(StoreError::Objects { .. })), "{read:?}");
    proxy.heal();
    assert_eq!(
        store.block(&alice(), old.cid()).await.unwrap().unwrap(),
        old
    );
    store.put_blocks(&alice(), vec![new], None).await.unwrap();
}

#[tokio::test]
async fn requests_that_hang_are_given_up_and_repeated() {
    let Some((proxy, options)) = setting().await else {
        return;
    };
    let store = open(&options).await;
    let block = raw(1, 70_000);
    proxy.next("PUT", Fault::Hang);
    store
        .put_blocks(&alice(), vec![block.clone()], None)
        .await
        .unwrap();
    proxy.next("GET", Fault::Hang);
    assert_eq!(
        store.block(&alice(), block.cid()).await.unwrap().unwrap(),
        block
    );
    proxy.next("PUT", Fault::LoseAnswer(500));
    store.put_blocks(&alice(), vec![block], None).await.unwrap();
}

#[tokio::test]
async fn a_vanished_bucket_is_an_error_and_not_a_thousand_damaged_blocks() {
    let Some((proxy, options)) = setting().await else {
        return;
    };
    let store = open(&options).await;
    let block = raw(1, 100);
    store
        .put_blocks(&alice(), vec![block.clone()], None)
        .await
        .unwrap();
    proxy.next("GET", Fault::Refuse(404, "NoSuchBucket"));
    let read = store.block(&alice(), block.cid()).await;
    assert!(matches!(read, Err(StoreError::Objects { .. })), "{read:?}");
    proxy.next("GET", Fault::Refuse(403, "AccessDenied"));
    let read = store.block(&alice(), block.cid()).await;
    assert!(matches!(read, Err(StoreError::Objects { .. })), "{read:?}");
}

#[tokio::test]
async fn stores_without_bulk_deletion_get_single_ones() {
    let Some((proxy, options)) = setting().await else {
        return;
    };
    let store = open(&options).await;
    let blocks: Vec<_> = (0..5).map(|n| raw(n, 50)).collect();
    store
        .put_blocks(&alice(), blocks.clone(), None)
        .await
        .unwrap();
    proxy.always("POST", Fault::Refuse(501, "NotImplemented"));
    let listed = store.list_blocks(&alice(), None, 9).await.unwrap();
    let all = listed
        .into_iter()
        .map(|info| (info.cid, info.generation))
        .collect();
    let gone = store.delete_blocks(&alice(), all).await.unwrap();
    assert_eq!(gone.removed.blocks, 5);
    for block in &blocks {
        assert_eq!(store.block(&alice(), block.cid()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_failed_deletion_is_finished_later_and_never_hurts_a_new_put() {
    let Some((proxy, mut options)) = setting().await else {
        return;
    };
    options.max_retries = 1;
    let server = server().unwrap();
    let hand = crate::store::contract::Hand::default();
    hand.advance(1_800_000_000);
    let meta: std::sync::Arc<dyn node::store::MetaEngine> =
        std::sync::Arc::new(node::store::MemoryStore::new());
    let store = node::store::s3::S3Blocks::open(&options, meta.as_ref(), None, hand.clock())
        .await
        .unwrap()
        .with_metadata(meta, hand.clock());
    let block = raw(1, 100);
    store
        .put_blocks(&alice(), vec![block.clone()], None)
        .await
        .unwrap();
    let listed = store.list_blocks(&alice(), None, 9).await.unwrap();
    let all = vec![(listed[0].cid.clone(), listed[0].generation)];
    proxy.always("POST", Fault::Refuse(503, "SlowDown"));
    assert!(store.delete_blocks(&alice(), all).await.is_err());
    // Gone for readers, though its bytes are still there.
    assert_eq!(store.block(&alice(), block.cid()).await.unwrap(), None);
    assert_eq!(store.block_counts(&alice()).await.unwrap().blocks, 0);
    let name = format!("{}/p.alice/{}", options.prefix, block.cid().storage_key());
    assert!(server.file(&name).exists());
    proxy.heal();
    // Nobody takes a deletion over before its lease has ended.
    store
        .expire_transactions(&alice(), hand.now())
        .await
        .unwrap();
    assert!(server.file(&name).exists());
    hand.advance(30 * 60);
    store
        .expire_transactions(&alice(), hand.now())
        .await
        .unwrap();
    assert!(!server.file(&name).exists());
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
async fn p2p_2_redirects_to_other_hosts_are_not_followed() {
    let Some((proxy, options)) = setting().await else {
        return;
    };
    let store = open(&options).await;
    let block = raw(1, 100);
    store
        .put_blocks(&alice(), vec![block.clone()], None)
        .await
        .unwrap();
    let elsewhere = Proxy::start(server().unwrap().address).await;
    for method in ["GET", "PUT", "POST", "DELETE"] {
        let location = format!("http://{}/stolen", elsewhere.address);
        proxy.always(method, Fault::Redirect(location));
    }
    assert!(store.block(&alice(), block.cid()).await.is_err());
    let put = store.put_blocks(&alice(), vec![raw(2, 10)], None).await;
    assert!(put.is_err());
    let listed = store.list_blocks(&alice(), None, 9).await.unwrap();
    let all = vec![(listed[0].cid.clone(), listed[0].generation)];
    assert!(store.delete_blocks(&alice(), all).await.is_err());
    assert_eq!(elsewhere.requests(), 0);
}
