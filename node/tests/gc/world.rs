//! A node, a second one on the same store, and users who upload by hand.
//!
//! Clients act through the second node: nothing but the store is shared with the one that collects, as with two
//! processes on one data set, so what keeps the data safe is in the store's commits and in no lock.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use champ::{Block, Cid, Codec, cbor::scan_block_lenient};
use node::{
    Config, Node,
    clock::{Clock as _, ManualClock},
    gc::{CollectOptions, CollectionConfig, Outcome, OwnerReport, Report},
    store::{MemoryStore, Partition, Store, tables},
};
use pki::{
    keys::SecretKeyWithHash,
    wire::{
        Body as _,
        block_group::{BlockFormat, BlockGroup},
    },
};

use super::hooked::{Hook, Hooked};
use crate::conformance::{
    account::{Account, Root, owning, sign_block, update},
    harness::{Answer, NOW, TestNode, config},
};

pub(crate) struct World {
    pub(crate) store: Arc<Hooked>,
    pub(crate) clock: Arc<ManualClock>,
    /// Collects.
    pub(crate) collector: Node,
    /// Serves clients.
    pub(crate) server: TestNode,
    folder: Arc<tempfile::TempDir>,
}

/// Longest time that a replaced root stays readable.
pub(crate) const GRACE: Duration = Duration::from_secs(3600);

pub(crate) fn node_config(folder: &std::path::Path, clock: Arc<ManualClock>) -> Config {
    Config {
        data: Some(folder.to_owned()),
        clock,
        collection: CollectionConfig {
            period: Duration::ZERO,
            grace: GRACE,
            duty_percent: 100,
            ..CollectionConfig::default()
        },
        ..config()
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let told = clock.clone();
        let store = MemoryStore::with_clock(Arc::new(move || {
            UNIX_EPOCH + Duration::from_millis(told.now_millis() as u64)
        }));
        Self::on(Arc::new(store), clock).await
    }

    pub(crate) async fn on(store: Arc<dyn Store>, clock: Arc<ManualClock>) -> Self {
        Self::reopened(store, clock, Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// Opens nodes with the keys of earlier ones.
    pub(crate) async fn reopened(
        store: Arc<dyn Store>,
        clock: Arc<ManualClock>,
        folder: Arc<tempfile::TempDir>,
    ) -> Self {
        let store = Hooked::new(store);
        let config = node_config(folder.path(), clock.clone());
        let collector = Node::with_store(config.clone(), store.clone())
            .await
            .unwrap();
        let server = TestNode::of(
            Node::with_store(config, store.clone()).await.unwrap(),
            clock.clone(),
        );
        Self {
            store,
            clock,
            collector,
            server,
            folder,
        }
    }

    /// Drops the nodes and keeps their keys.
    pub(crate) fn into_folder(self) -> Arc<tempfile::TempDir> {
        self.folder
    }

    /// Lets time pass for clocks and timers alike.
    pub(crate) async fn wait(&self, time: Duration) {
        self.clock.advance(time.as_millis() as i64);
        tokio::time::advance(time).await;
    }

    pub(crate) async fn collect_with(&self, options: CollectOptions) -> Report {
        self.collector
            .collect_garbage(&options, &|_| ())
            .await
            .unwrap()
    }

    /// Collects at once, without regard for readers of old roots.
    pub(crate) async fn collect_now(&self) -> Report {
        let now = CollectOptions {
            now: true,
            ..CollectOptions::default()
        };
        self.collect_with(now).await
    }

    /// Collects as the schedule does.
    pub(crate) async fn collect(&self) -> Report {
        self.collect_with(CollectOptions::default()).await
    }

    /// Waits until everything that was committed is accounted: until then the old trees are needed as well.
    pub(crate) async fn settle(&self) {
        for _ in 0..10_000 {
            let rows = self.store.inner.scan(tables::UNSETTLED, b"", None, 1);
            if rows.await.unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("updates are not accounted");
    }

    pub(crate) fn set_hook(&self, hook: Option<Hook>) {
        self.store.set_hook(hook);
    }

    /// A handle for hooks.
    pub(crate) fn client(&self) -> TestNode {
        TestNode::of(self.server.node.clone(), self.clock.clone())
    }

    pub(crate) async fn stored(&self, user: &str) -> BTreeSet<Cid> {
        let space = partition(user);
        let blocks = self.store.inner.list_blocks(&space, None, 10_000);
        blocks.await.unwrap().into_iter().map(|b| b.cid).collect()
    }

    /// Returns everything reachable from `roots`; all of it must be readable.
    pub(crate) async fn reachable(&self, user: &str, roots: &[Cid]) -> BTreeSet<Cid> {
        let mut found = BTreeSet::new();
        let mut open = roots.to_vec();
        while let Some(cid) = open.pop() {
            if cid.identity_content().is_some() || !found.insert(cid.clone()) {
                continue;
            }
            let block = self
                .store
                .inner
                .block(&partition(user), &cid)
                .await
                .unwrap();
            let block = block.unwrap_or_else(|| panic!("{cid} of {user} is lost"));
            if cid.codec() == Codec::DagCbor {
                open.extend(scan_block_lenient(block.bytes()).unwrap().links);
            }
        }
        found
    }
}

pub(crate) fn partition(user: &str) -> Partition {
    Partition::new(&format!("u-{user}")).unwrap()
}

pub(crate) fn of<'a>(report: &'a Report, user: &str) -> &'a OwnerReport {
    let owner = report
        .owners
        .iter()
        .find(|o| o.user.as_deref() == Some(user));
    owner.unwrap_or_else(|| panic!("{user} is not in {report:?}"))
}

pub(crate) fn assert_collected(report: &Report, user: &str) {
    assert_eq!(of(report, user).outcome, Outcome::Collected);
}

/// A user with one writer, whose tree the test decides.
#[derive(Clone)]
pub(crate) struct Uploader {
    pub(crate) account: Arc<Account>,
    pub(crate) home: Cid,
    pub(crate) sequence: i64,
}

impl Uploader {
    pub(crate) async fn sign_up(node: &TestNode, name: &str, seed: u8) -> Self {
        let account = Account::sign_up(node, name, seed).await;
        let home = account.home_root().await.cid();
        Self {
            account: Arc::new(account),
            home,
            sequence: 1,
        }
    }

    pub(crate) fn key(&self) -> &SecretKeyWithHash {
        &self.account.home
    }

    pub(crate) fn name(&self) -> &str {
        &self.account.name
    }

    /// The roots of all pointers.
    pub(crate) async fn roots(&self) -> Vec<Cid> {
        vec![self.account.identity_root().await.cid(), self.home.clone()]
    }

    /// A root block of the home writer with this tree.
    pub(crate) async fn root(&self, tree: &Cid) -> Root {
        let mut root = owning(self.key(), &[]).await;
        root.data.tree = Some(tree.clone());
        root
    }

    /// Uploads blocks under a transaction.
    pub(crate) async fn put(&self, node: &TestNode, transaction: &str, blocks: &[Block]) {
        for (format, codec) in [
            (BlockFormat::DagCbor, Codec::DagCbor),
            (BlockFormat::Raw, Codec::Raw),
        ] {
            let some: Vec<_> = blocks.iter().filter(|b| b.cid().codec() == codec).collect();
            if some.is_empty() {
                continue;
            }
            let bytes: Vec<Bytes> = some.iter().map(|b| b.bytes().clone()).collect();
            let signatures = some
                .iter()
                .map(|b| sign_block(self.key(), b.cid()))
                .collect();
            let group = BlockGroup::new(bytes, signatures).unwrap();
            let target = format!(
                "api/v0/block/put/bulk?format={}&owner={}&transaction={transaction}&writer={}",
                format.as_str(),
                self.account.owner(),
                self.key().writer(),
            );
            node.ok(&target, group.to_body()).await;
        }
    }

    pub(crate) async fn close(&self, node: &TestNode, transaction: &str) {
        let owner = self.account.owner();
        let target = format!("api/v0/transaction/close?arg={transaction}&owner={owner}");
        node.ok(&target, "").await;
    }

    /// Points to a root; notes it when it is accepted.
    pub(crate) async fn point(&mut self, node: &TestNode, root: &Cid) -> Answer {
        let write = update(
            self.key(),
            Some(&self.home),
            Some(root),
            Some(self.sequence + 1),
        );
        let answer = self.account.set(node, &write).await;
        if answer.status == 200 && answer.body == [1] {
            self.home = root.clone();
            self.sequence += 1;
        }
        answer
    }

    /// Does what every client does: upload under a transaction, point, close.
    pub(crate) async fn commit(&mut self, node: &TestNode, tree: &Cid, blocks: &[Block]) -> Answer {
        let root = self.root(tree).await;
        let transaction = format!("commit-{}", self.sequence);
        let mut all = blocks.to_vec();
        all.extend(root.all_blocks());
        self.put(node, &transaction, &all).await;
        let answer = self.point(node, &root.cid()).await;
        self.close(node, &transaction).await;
        answer
    }
}

/// Raw blocks and a cbor block that links to them.
pub(crate) fn small_tree(seed: &str, leaves: u8) -> (Cid, Vec<Block>) {
    let mut blocks: Vec<_> = (0..leaves)
        .map(|n| Block::raw(format!("leaf {n} of {seed}").into_bytes()).unwrap())
        .collect();
    let links: Vec<_> = blocks.iter().map(|b| b.cid().clone()).collect();
    let middle = crate::conformance::account::cbor_block(&format!("middle {seed}"), &links);
    let top =
        crate::conformance::account::cbor_block(&format!("top {seed}"), &[middle.cid().clone()]);
    let tree = top.cid().clone();
    blocks.extend([middle, top]);
    (tree, blocks)
}
