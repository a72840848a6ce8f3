//! What a store notes about blocks that clients write past the node (Spec: 06 §9.3, 12 §2, §4.4).

use std::sync::Arc;

use bytes::Bytes;
use champ::{Block, Cid};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use node::store::{
    AnnouncedBlock, BlockStore as _, DirectAccess as _, MemoryStore, MetaEngine, SignedRequest,
    Store as _, s3::S3Blocks, split::SplitStore,
};

use crate::servers::s3::{S3Server, server};
use crate::store::contract::{Hand, alice, raw, transaction};

struct Setting {
    store: SplitStore,
    hand: Hand,
}

impl Setting {
    async fn new() -> Option<Self> {
        let mut options = server()?.options(&S3Server::fresh_prefix());
        options.direct_access = true;
        let hand = Hand::default();
        // The server looks at the time of signatures.
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        hand.advance(now.as_secs());
        let meta: Arc<dyn MetaEngine> = Arc::new(MemoryStore::new());
        let blocks = S3Blocks::open(&options, meta.as_ref(), None, hand.clock())
            .await
            .unwrap();
        Some(Self {
            store: blocks.with_metadata(meta, hand.clock()),
            hand,
        })
    }

    async fn authorise(&self, blocks: &[Block], id: &str) -> Vec<SignedRequest> {
        let announced = blocks
            .iter()
            .map(|block| AnnouncedBlock {
                cid: block.cid().clone(),
                size_bytes: block.bytes().len() as u32,
                ids: Vec::new(),
            })
            .collect();
        self.store
            .authorise_writes(&alice(), announced, &transaction(id))
            .await
            .unwrap()
    }

    /// What a collector does that finds nothing reachable.
    async fn collect(&self) -> u64 {
        let day = std::time::Duration::from_secs(86_400);
        self.store
            .expire_transactions(&alice(), self.hand.now() - day)
            .await
            .unwrap();
        let listed = self.store.list_blocks(&alice(), None, 100).await.unwrap();
        let all = listed
            .into_iter()
            .map(|info| (info.cid, info.generation))
            .collect();
        let deleted = self.store.delete_blocks(&alice(), all).await.unwrap();
        deleted.removed.blocks
    }

    async fn protected(&self) -> Vec<Cid> {
        let mut cids = self.store.protected_blocks(&alice()).await.unwrap();
        cids.sort();
        cids
    }
}

async fn upload(request: &SignedRequest, block: &Block) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut http = http::Request::put(&request.url);
    for (name, value) in &request.headers {
        if !["Host", "Content-Length"].contains(&name.as_str()) {
            http = http.header(name, value);
        }
    }
    let http = http.body(Full::new(block.bytes().clone())).unwrap();
    assert_eq!(client.request(http).await.unwrap().status(), 200);
}

#[tokio::test]
async fn what_may_be_written_is_protected_before_it_is() {
    let Some(s) = Setting::new().await else {
        return;
    };
    assert!(s.store.direct().is_some());
    let (written, never, old) = (raw(1, 700), raw(2, 700), raw(3, 700));
    s.store
        .put_blocks(&alice(), vec![old.clone()], None)
        .await
        .unwrap();
    let listed = s.store.list_blocks(&alice(), None, 9).await.unwrap();
    let stale = vec![(listed[0].cid.clone(), listed[0].generation)];
    let blocks = [written.clone(), never.clone(), old.clone()];
    let requests = s.authorise(&blocks, "t").await;
    let mut all: Vec<Cid> = blocks.iter().map(|block| block.cid().clone()).collect();
    all.sort();
    assert_eq!(s.protected().await, all);
    // A collector that had listed the old one before keeps it, and nothing is counted that is not there.
    assert_eq!(
        s.store.delete_blocks(&alice(), stale).await.unwrap().kept,
        1
    );
    assert_eq!(s.store.block_counts(&alice()).await.unwrap().blocks, 1);
    assert_eq!(
        s.store.block_size(&alice(), written.cid()).await.unwrap(),
        None
    );

    upload(&requests[0], &written).await;
    assert_eq!(s.collect().await, 0);
    // The collector has seen it.
    assert_eq!(
        s.store.list_blocks(&alice(), None, 9).await.unwrap().len(),
        2
    );
    assert_eq!(s.store.block_counts(&alice()).await.unwrap().blocks, 2);
    assert_eq!(
        s.store.block(&alice(), written.cid()).await.unwrap(),
        Some(written.clone())
    );
    assert_eq!(
        s.store.block_size(&alice(), written.cid()).await.unwrap(),
        Some(700)
    );
    assert_eq!(s.store.block(&alice(), never.cid()).await.unwrap(), None);

    s.store
        .close_transaction(&alice(), &transaction("t"))
        .await
        .unwrap();
    assert_eq!(s.collect().await, 2);
    assert_eq!(s.store.block(&alice(), written.cid()).await.unwrap(), None);
    // The one that never came is forgotten when it cannot come any more ...
    s.hand.advance(2 * 3600);
    assert_eq!(s.collect().await, 0);
    // ... and may be announced again.
    assert_eq!(s.authorise(&[never], "u").await.len(), 1);
}

#[tokio::test]
async fn a_block_that_nobody_asked_about_is_found_by_the_collector() {
    let Some(s) = Setting::new().await else {
        return;
    };
    let block = raw(1, 700);
    let requests = s.authorise(std::slice::from_ref(&block), "t").await;
    upload(&requests[0], &block).await;
    assert!(
        s.store
            .list_blocks(&alice(), None, 9)
            .await
            .unwrap()
            .is_empty()
    );
    s.store
        .close_transaction(&alice(), &transaction("t"))
        .await
        .unwrap();
    // Its bytes do not stay for ever because no pointer was ever set to them.
    assert_eq!(s.collect().await, 1);
    assert_eq!(s.store.block(&alice(), block.cid()).await.unwrap(), None);
}

#[tokio::test]
async fn a_put_of_an_expected_block_stores_it() {
    let Some(s) = Setting::new().await else {
        return;
    };
    let block = raw(1, 700);
    s.authorise(std::slice::from_ref(&block), "t").await;
    s.store
        .put_blocks(&alice(), vec![block.clone()], None)
        .await
        .unwrap();
    assert_eq!(
        s.store.block(&alice(), block.cid()).await.unwrap(),
        Some(block)
    );
}
