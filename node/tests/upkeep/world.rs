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
    store::{DiskOptions, DiskStore, FreeFloor, Partition, Store, disk::Disk, tables},
};
use pki::{pointer::SignedPointer, wire::block_group::BlockFormat};
use tempfile::TempDir;

use crate::conformance::{
    account::{Account, cbor_block, update},
    harness::{NOW, TestNode, config},
};

pub(crate) struct World {
    /// Removed with the world, unless somebody else owns it.
    pub(crate) folder: Folder,
    pub(crate) store: Arc<DiskStore>,
    pub(crate) node: TestNode,
}

/// The folder that holds `data`.
pub(crate) enum Folder {
    Ours(TempDir),
    Theirs(PathBuf),
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Ours(folder) => folder.path(),
            Self::Theirs(path) => path,
        }
    }
}

impl From<PathBuf> for Folder {
    fn from(folder: PathBuf) -> Self {
        Self::Theirs(folder)
    }
}

impl From<TempDir> for Folder {
    fn from(folder: TempDir) -> Self {
        Self::Ours(folder)
    }
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
    open_above(data, 0)
}

/// Opens a store that leaves this many bytes free.
pub(crate) fn open_above(data: &Path, floor_bytes: u64) -> DiskStore {
    let mut options = DiskOptions::new(data.join("store"));
    options.free_floor = FreeFloor::Bytes(floor_bytes);
    DiskStore::open(options).unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap()).await
    }

    /// Starts a node on whatever is in `folder`.
    pub(crate) async fn at(folder: impl Into<Folder>) -> Self {
        Self::above(folder, 0).await
    }

    /// The same, leaving this many bytes free.
    pub(crate) async fn above(folder: impl Into<Folder>, floor_bytes: u64) -> Self {
        let folder = folder.into();
        let data = folder.path().join("data");
        fs::create_dir_all(&data).unwrap();
        Self::with(folder, open_above(&data, floor_bytes)).await
    }

    /// The same in a folder of somebody else, over this disk.
    pub(crate) async fn on(folder: &Path, disk: Arc<dyn Disk>) -> Self {
        let data = folder.join("data");
        fs::create_dir_all(&data).unwrap();
        let mut options = DiskOptions::new(data.join("store"));
        options.free_floor = FreeFloor::Bytes(0);
        let store = DiskStore::open_on(options, disk).unwrap();
        Self::with(Folder::Theirs(folder.to_owned()), store).await
    }

    async fn with(folder: Folder, store: DiskStore) -> Self {
        let data = folder.path().join("data");
        let store = Arc::new(store);
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

    /// Ends the process, as far as a test can.
    pub(crate) fn stopped(self) -> Folder {
        let Self {
            folder,
            store,
            node,
        } = self;
        drop((store, node));
        folder
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

    pub(crate) async fn user(&self, name: &str, seed: u8, fragments: u8) -> Files {
        Files::sign_up(&self.node, name, seed, fragments).await
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

/// The blocks of a version.
fn version(name: &str, version: i64, fragments: u8) -> (Vec<Block>, Block) {
    let fragments: Vec<_> = (0..fragments)
        .map(|n| Block::raw(content(name, version, n)).unwrap())
        .collect();
    let cids: Vec<_> = fragments.iter().map(|block| block.cid().clone()).collect();
    let tree = cbor_block(&format!("version {version}"), &cids);
    (fragments, tree)
}

impl Files {
    /// Returns the version that the pointer leads to: 1 after the sign-up.
    pub(crate) fn version(&self) -> i64 {
        self.sequence
    }

    /// Finds out what a user has stored; `None` for one who is not signed up.
    pub(crate) async fn resume(world: &World, name: &str, seed: u8) -> Option<Self> {
        Self::resume_in(&*world.store, name, seed).await
    }

    pub(crate) async fn resume_in(store: &dyn Store, name: &str, seed: u8) -> Option<Self> {
        let account = Account::new(name, seed);
        let key = account.home.writer().cid().to_bytes();
        let signed = store.get(tables::POINTERS, &key).await.unwrap()?;
        let pointer = SignedPointer::verify(&account.home.secret().public(), signed).unwrap();
        let root = pointer.update().updated().unwrap().clone();
        let sequence = pointer.update().sequence().unwrap();
        let mut files = Self {
            account,
            fragments: Vec::new(),
            tree: cbor_block("nothing", &[]),
            root: root.clone(),
            sequence,
        };
        // One of the numbers of fragments that tests use: the root tells which.
        for count in (0..10).filter(|_| sequence > 1) {
            let (fragments, tree) = version(name, sequence, count);
            let mut made = files.account.home_root().await;
            made.data.tree = Some(tree.cid().clone());
            if made.cid() == root {
                (files.fragments, files.tree) = (fragments, tree);
                return Some(files);
            }
        }
        assert_eq!(sequence, 1, "{name} points to something of nobody's");
        Some(files)
    }

    /// Signs a user up and stores `fragments` blocks below the home pointer.
    pub(crate) async fn sign_up(node: &TestNode, name: &str, seed: u8, fragments: u8) -> Self {
        let account = Account::sign_up(node, name, seed).await;
        let root = account.home_root().await.cid();
        let mut files = Self {
            account,
            fragments: Vec::new(),
            tree: cbor_block("nothing", &[]),
            root,
            sequence: 1,
        };
        files.save_at(node, fragments).await;
        files
    }

    /// Stores a new version with this many fragments and points to it.
    pub(crate) async fn save(&mut self, world: &World, fragments: u8) {
        self.save_at(&world.node, fragments).await;
    }

    pub(crate) async fn save_at(&mut self, node: &TestNode, fragments: u8) {
        let account = &self.account;
        let number = self.sequence + 1;
        let (fragments, tree) = version(&account.name, number, fragments);
        let raw: Vec<_> = fragments.iter().map(|b| b.bytes().clone()).collect();
        let answer = account
            .put(node, &account.home, BlockFormat::Raw, &raw)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.message());
        let mut root = account.home_root().await;
        root.data.tree = Some(tree.cid().clone());
        root.blocks.push(tree.clone());
        account.put_root(node, &account.home, &root).await;
        let write = update(
            &account.home,
            Some(&self.root),
            Some(&root.cid()),
            Some(number),
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
        self.sequence = number;
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
        self.assert_readable_at(&world.node).await;
    }

    pub(crate) async fn assert_readable_at(&self, node: &TestNode) {
        let pointer = self.account.home.writer();
        assert!(!self.account.pointer(node, &pointer).await.is_empty());
        for block in self.fragments.iter().chain([&self.tree]) {
            let target = self.account.get_target(block.cid());
            assert_eq!(node.ok(&target, "").await, block.bytes().as_ref());
        }
    }
}
