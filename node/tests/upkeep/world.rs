//! A node on real files, and users whose pointers lead to blocks of every kind.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use champ::{Block, Cid};
use node::{
    Config, Node,
    check::{CheckOptions, Report, check},
    clock::ManualClock,
    store::{DiskOptions, DiskStore, FreeFloor, Partition, Store},
};
use pki::wire::block_group::BlockFormat;
use tempfile::TempDir;

use crate::conformance::{
    account::{Account, cbor_block, update},
    harness::{NOW, TestNode, config},
};

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) store: Arc<DiskStore>,
    pub(crate) node: TestNode,
}

/// What one user has stored.
pub(crate) struct Files {
    pub(crate) account: Account,
    /// Raw blocks, each in a file of its own.
    pub(crate) fragments: Vec<Block>,
    /// The block that links to all of them.
    pub(crate) tree: Block,
    pub(crate) root: Cid,
    sequence: i64,
}

pub(crate) fn open(data: &Path) -> DiskStore {
    let mut options = DiskOptions::new(data.join("store"));
    options.free_floor = FreeFloor::Bytes(0);
    DiskStore::open(options).unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap()).await
    }

    /// Starts a node on whatever is in `folder`.
    pub(crate) async fn at(folder: TempDir) -> Self {
        let data = folder.path().join("data");
        fs::create_dir_all(&data).unwrap();
        let store = Arc::new(open(&data));
        let clock = Arc::new(ManualClock::at(NOW));
        let config = Config {
            data: Some(data),
            clock: clock.clone(),
            free_floor: FreeFloor::Bytes(0),
            ..config()
        };
        let shared: Arc<dyn Store> = store.clone();
        let node = Node::with_store(config, shared).await.unwrap();
        Self {
            folder,
            store,
            node: TestNode::of(node, clock),
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Closes everything and starts again.
    pub(crate) async fn restarted(self) -> Self {
        self.node.node.close().await.unwrap();
        let Self {
            folder,
            store,
            node,
        } = self;
        drop((store, node));
        Self::at(folder).await
    }

    /// Signs a user up and stores `fragments` blocks below the home pointer.
    pub(crate) async fn user(&self, name: &str, seed: u8, fragments: u8) -> Files {
        let account = Account::sign_up(&self.node, name, seed).await;
        let root = account.home_root().await.cid();
        let mut files = Files {
            account,
            fragments: Vec::new(),
            tree: cbor_block("nothing", &[]),
            root,
            sequence: 1,
        };
        files.save(self, fragments).await;
        files
    }

    pub(crate) async fn check(&self) -> Report {
        self.check_with(CheckOptions::default()).await
    }

    pub(crate) async fn check_with(&self, options: CheckOptions) -> Report {
        let done = check(&*self.store, &options, &mut |_| true).await;
        done.unwrap().unwrap()
    }

    /// The file of a large block.
    pub(crate) fn file(&self, user: &str, block: &Block) -> PathBuf {
        let number = match user {
            "peergos" => 0,
            "alice" => 1,
            _ => 2,
        };
        let start = format!("{}-{number:08x}-", block.cid().storage_key());
        let runs = fs::read_dir(self.data().join("store/blocks")).unwrap();
        let mut files = runs.flat_map(|run| fs::read_dir(run.unwrap().path()).unwrap());
        let is_it = |name: &std::ffi::OsStr| name.to_str().unwrap().starts_with(&start);
        let found = files.find(|file| is_it(&file.as_ref().unwrap().file_name()));
        found.expect("the block has a file").unwrap().path()
    }
}

pub(crate) fn space(user: &str) -> Partition {
    Partition::new(&format!("u-{user}")).unwrap()
}

/// The content of a fragment, different for each user, version and number.
fn content(name: &str, version: i64, n: u8) -> Bytes {
    let mut bytes = format!("{name} {version} {n} ").into_bytes();
    // No access prefix is in front, so the first byte must be none of a prefix.
    bytes.resize(70_000 + usize::from(n), n);
    bytes.into()
}

impl Files {
    /// Stores a new version with this many fragments and points to it.
    pub(crate) async fn save(&mut self, world: &World, fragments: u8) {
        let (node, account) = (&world.node, &self.account);
        let version = self.sequence + 1;
        let raw: Vec<_> = (0..fragments)
            .map(|n| content(&account.name, version, n))
            .collect();
        let answer = account
            .put(node, &account.home, BlockFormat::Raw, &raw)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.message());
        let fragments: Vec<_> = raw.into_iter().map(|b| Block::raw(b).unwrap()).collect();
        let cids: Vec<_> = fragments.iter().map(|block| block.cid().clone()).collect();
        let tree = cbor_block(&format!("version {version}"), &cids);
        let mut root = account.home_root().await;
        root.data.tree = Some(tree.cid().clone());
        root.blocks.push(tree.clone());
        account.put_root(node, &account.home, &root).await;
        let write = update(
            &account.home,
            Some(&self.root),
            Some(&root.cid()),
            Some(version),
        );
        let answer = account.set(node, &write).await;
        assert_eq!((answer.status, answer.body), (200, vec![1]));
        // Usage is worked out behind the answer; asking for it waits.
        account.usage(node, "").await;
        let close = format!("api/v0/transaction/close?arg=t1&owner={}", account.owner());
        node.ok(&close, "").await;
        self.root = root.cid();
        self.fragments = fragments;
        self.tree = tree;
        self.sequence = version;
    }

    /// Uploads a fragment again, as a client would.
    pub(crate) async fn put_again(&self, world: &World, n: usize) {
        let bytes = self.fragments[n].bytes().clone();
        let account = &self.account;
        let answer = account
            .put(&world.node, &account.home, BlockFormat::Raw, &[bytes])
            .await;
        assert_eq!(answer.status, 200, "{}", answer.message());
    }

    /// Asserts that everything the user's pointer leads to can be read.
    pub(crate) async fn assert_readable(&self, world: &World) {
        let pointer = self.account.home.writer();
        assert!(!self.account.pointer(&world.node, &pointer).await.is_empty());
        for block in self.fragments.iter().chain([&self.tree]) {
            let target = self.account.get_target(block.cid());
            assert_eq!(world.node.ok(&target, "").await, block.bytes().as_ref());
        }
    }
}
