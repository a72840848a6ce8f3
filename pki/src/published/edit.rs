//! Publishing and withdrawing (Spec: 04 §7).

use champ::{
    Block, BlockError, BlockSource, Cid, MemoryBlocks, Overlay,
    cbor::{Record, Value},
    map::{Champ, ChampError, KeyHash},
};

use super::{
    Child, Directory, Inode, LookupFailure, MAX_SMALL_DIRECTORY, PublicRoot, PublishedCapability,
    PublishedPath,
    lookup::{child, directory, read_root},
};

/// A changed published tree.
#[derive(Debug, Clone)]
pub struct Rewritten {
    /// The block for the `public` field of the identity's root block.
    pub public: Cid,
    /// Blocks to upload; intermediate ones that nothing links to are not among them.
    pub blocks: Vec<Block>,
}

/// Why nothing was published or withdrawn.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The home folder cannot be published.
    #[error("the home folder cannot be published")]
    Home,
    /// An ancestor is published, which covers the path already.
    #[error("a folder above is published already")]
    Covered,
    /// The path is not published.
    #[error("the path is not published")]
    NotPublished,
    /// The tree as it is cannot be read.
    #[error(transparent)]
    Tree(#[from] LookupFailure),
    /// The changed tree does not fit into blocks.
    #[error("the published tree is too large for a block")]
    TooLarge(#[from] BlockError),
}

impl From<ChampError> for PublishError {
    fn from(error: ChampError) -> Self {
        Self::Tree(error.into())
    }
}

/// The tree while it is changed.
struct Draft<'a> {
    count: u64,
    directories: Champ,
    blocks: Overlay<&'a dyn BlockSource>,
}

/// Puts a capability at `path`; `public` is the present tree, if there is one.
///
/// # Errors
/// [`PublishError`].
pub async fn publish(
    public: Option<&Cid>,
    path: &PublishedPath,
    capability: PublishedCapability,
    blocks: &dyn BlockSource,
) -> Result<Rewritten, PublishError> {
    let [parents @ .., name] = path.elements() else {
        return Err(PublishError::Home);
    };
    if parents.is_empty() {
        return Err(PublishError::Home);
    }
    let mut draft = Draft::open(public, blocks).await?;
    let mut at = Inode::root();
    let mut current = match draft.directory(&at).await? {
        Some(directory) => directory,
        None => draft.make_directory(&at).await?,
    };
    for parent in parents {
        let next = match child(&current, parent, &draft.blocks).await? {
            Some(known) => {
                current = match draft.directory(&known.inode).await? {
                    Some(directory) => directory,
                    None if known.capability.is_some() => return Err(PublishError::Covered),
                    None => draft.make_directory(&known.inode).await?,
                };
                known.inode
            }
            None => {
                let inode = Inode::new(draft.count, parent.clone());
                let added = Child {
                    inode: inode.clone(),
                    capability: None,
                };
                let made = draft.make_directory(&inode).await?;
                draft.put_child(&at, current, added).await?;
                current = made;
                inode
            }
        };
        at = next;
    }
    let inode = match child(&current, name, &draft.blocks).await? {
        Some(known) => known.inode,
        None => Inode::new(draft.count, name.clone()),
    };
    let published = Child {
        inode,
        capability: Some(capability),
    };
    draft.put_child(&at, current, published).await?;
    draft.finish()
}

/// Takes the capability at `path` away, and the directories above that held nothing else.
///
/// # Errors
/// [`PublishError`].
pub async fn unpublish(
    public: &Cid,
    path: &PublishedPath,
    blocks: &dyn BlockSource,
) -> Result<Rewritten, PublishError> {
    let mut draft = Draft::open(Some(public), blocks).await?;
    let mut way: Vec<(Inode, Directory, Child)> = Vec::new();
    let mut at = Inode::root();
    for name in path.elements() {
        let current = draft.directory(&at).await?;
        let current = current.ok_or(PublishError::NotPublished)?;
        let found = child(&current, name, &draft.blocks).await?;
        let found = found.ok_or(PublishError::NotPublished)?;
        let next = found.inode.clone();
        way.push((at, current, found));
        at = next;
    }
    if !matches!(way.last(), Some((_, _, found)) if found.capability.is_some()) {
        return Err(PublishError::NotPublished);
    }
    while let Some((inode, current, removed)) = way.pop() {
        if draft.remove_child(&inode, current, &removed).await? {
            break;
        }
    }
    draft.finish()
}

impl<'a> Draft<'a> {
    async fn open(public: Option<&Cid>, blocks: &'a dyn BlockSource) -> Result<Self, PublishError> {
        let (count, directories) = match public {
            Some(public) => {
                let root = read_root(public, blocks).await?;
                (root.inode_count, Champ::at(root.directories))
            }
            None => (0, Champ::empty()),
        };
        Ok(Self {
            count,
            directories: directories.hashed_by(KeyHash::Sha256),
            blocks: Overlay::new(MemoryBlocks::new(), blocks),
        })
    }

    async fn directory(&self, inode: &Inode) -> Result<Option<Directory>, PublishError> {
        Ok(directory(&self.directories, inode, &self.blocks).await?)
    }

    async fn make_directory(&mut self, inode: &Inode) -> Result<Directory, PublishError> {
        self.store(inode, Directory::small_value(&[])).await?;
        self.count += 1;
        Ok(Directory::Small(Vec::new()))
    }

    async fn store(&mut self, inode: &Inode, record: Value) -> Result<(), PublishError> {
        let key = inode.encode();
        let before = self.directories.get(&key, &self.blocks).await?;
        self.directories
            .put(key, before.as_ref(), record, &self.blocks)
            .await?;
        Ok(())
    }

    /// Replaces the child of that name, or adds it.
    async fn put_child(
        &mut self,
        inode: &Inode,
        directory: Directory,
        added: Child,
    ) -> Result<(), PublishError> {
        let record = match directory {
            Directory::Small(mut children) => {
                let known = children
                    .iter_mut()
                    .find(|child| child.inode.name() == added.inode.name());
                match known {
                    Some(known) => *known = added,
                    None => children.push(added),
                }
                if children.len() <= MAX_SMALL_DIRECTORY {
                    Directory::small_value(&children)
                } else {
                    let mut champ = Champ::empty().hashed_by(KeyHash::Sha256);
                    for child in children {
                        put_in(&mut champ, &child, &self.blocks).await?;
                    }
                    self.inline(champ)?
                }
            }
            Directory::Big(mut champ) => {
                put_in(&mut champ, &added, &self.blocks).await?;
                self.inline(champ)?
            }
        };
        self.store(inode, record).await
    }

    /// Removes a child; true when the directory has others.
    async fn remove_child(
        &mut self,
        inode: &Inode,
        directory: Directory,
        removed: &Child,
    ) -> Result<bool, PublishError> {
        let name = removed.inode.name();
        let (record, has_more) = match directory {
            Directory::Small(mut children) => {
                children.retain(|child| child.inode.name() != name);
                (Directory::small_value(&children), !children.is_empty())
            }
            Directory::Big(mut champ) => {
                champ.remove_all(&[name.as_bytes()], &self.blocks).await?;
                let has_more = champ.entries().next(&self.blocks).await?.is_some();
                (self.inline(champ)?, has_more)
            }
        };
        self.store(inode, record).await?;
        Ok(has_more)
    }

    fn inline(&mut self, mut champ: Champ) -> Result<Value, PublishError> {
        let (record, blocks) = champ.finish_inline()?;
        self.blocks.new.extend(blocks);
        Ok(record)
    }

    fn finish(mut self) -> Result<Rewritten, PublishError> {
        let (directories, mut blocks) = self.directories.finish()?;
        let root = PublicRoot {
            inode_count: self.count,
            directories,
        };
        let root = Block::cbor(root.encode())?;
        let public = root.cid().clone();
        blocks.extend(self.blocks.new.iter().cloned());
        blocks.push(root);
        Ok(Rewritten { public, blocks })
    }
}

async fn put_in(
    champ: &mut Champ,
    child: &Child,
    blocks: &dyn BlockSource,
) -> Result<(), PublishError> {
    let key = child.inode.name().as_bytes().to_vec();
    let before = champ.get(&key, blocks).await?;
    champ
        .put(key, before.as_ref(), child.to_value(), blocks)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::published::{capability::tests::capability, find};

    struct Tree {
        stored: MemoryBlocks,
        public: Option<Cid>,
    }

    impl Tree {
        fn new() -> Self {
            Self {
                stored: MemoryBlocks::new(),
                public: None,
            }
        }

        fn publish(&mut self, path: &str, n: u8) -> Result<(), PublishError> {
            let path = PublishedPath::parse(path).unwrap();
            let done = publish(self.public.as_ref(), &path, capability(n), &self.stored)
                .now_or_never()
                .unwrap()?;
            self.take(done);
            Ok(())
        }

        fn unpublish(&mut self, path: &str) -> Result<(), PublishError> {
            let path = PublishedPath::parse(path).unwrap();
            let public = self.public.clone().unwrap();
            let done = unpublish(&public, &path, &self.stored)
                .now_or_never()
                .unwrap()?;
            self.take(done);
            Ok(())
        }

        fn take(&mut self, done: Rewritten) {
            self.stored.extend(done.blocks);
            self.public = Some(done.public);
        }

        /// The capability's number, and how many elements lead to it.
        fn find(&self, path: &str) -> Option<(u8, usize)> {
            let path = PublishedPath::parse(path).unwrap();
            find(self.public.as_ref().unwrap(), &path, &self.stored)
                .now_or_never()
                .unwrap()
                .unwrap()
                .map(|found| (found.capability.map_key[0], found.depth))
        }

        fn count(&self) -> u64 {
            read_root(self.public.as_ref().unwrap(), &self.stored)
                .now_or_never()
                .unwrap()
                .unwrap()
                .inode_count
        }
    }

    #[test]
    fn the_first_published_element_of_a_path_counts() {
        let mut tree = Tree::new();
        tree.publish("/alice/docs/a", 1).unwrap();
        // Directories: root, alice, docs. The file's number is the count without adding to it.
        assert_eq!(tree.count(), 3);
        tree.publish("alice/b", 2).unwrap();
        assert_eq!(tree.find("alice/docs/a"), Some((1, 3)));
        assert_eq!(tree.find("alice/docs/a/below/it"), Some((1, 3)));
        assert_eq!(tree.find("alice/b/x"), Some((2, 2)));
        for absent in ["alice", "alice/docs", "alice/docs/c", "bob/b", "alice/c/d"] {
            assert_eq!(tree.find(absent), None, "{absent}");
        }
        // A published folder covers what is below, whatever else is published there.
        tree.publish("alice/docs", 3).unwrap();
        assert_eq!(tree.find("alice/docs/a"), Some((3, 2)));
        tree.publish("alice/docs/z", 4).unwrap();
        assert!(matches!(
            tree.publish("alice/b/below", 5),
            Err(PublishError::Covered)
        ));
        for home in ["alice", "/alice/"] {
            assert!(matches!(tree.publish(home, 1), Err(PublishError::Home)));
        }
        tree.publish("alice/b", 6).unwrap();
        assert_eq!(tree.find("alice/b"), Some((6, 2)));
    }

    #[test]
    fn withdrawing_leaves_no_empty_directories_on_the_way() {
        let mut tree = Tree::new();
        tree.publish("alice/a/b/c", 1).unwrap();
        tree.publish("alice/d", 2).unwrap();
        tree.unpublish("alice/a/b/c").unwrap();
        assert_eq!(tree.find("alice/a/b/c"), None);
        assert_eq!(tree.find("alice/d"), Some((2, 2)));
        for absent in ["alice/a/b/c", "alice/a", "alice", "bob"] {
            assert!(matches!(
                tree.unpublish(absent),
                Err(PublishError::NotPublished)
            ));
        }
        tree.unpublish("alice/d").unwrap();
        assert_eq!(tree.find("alice/d"), None);
        tree.publish("alice/a/b/c", 3).unwrap();
        assert_eq!(tree.find("alice/a/b/c"), Some((3, 4)));
    }

    #[test]
    fn a_directory_with_more_than_32_children_becomes_a_champ() {
        let mut tree = Tree::new();
        for n in 0..100 {
            tree.publish(&format!("alice/f{n}"), n).unwrap();
            for known in [0, n / 2, n] {
                assert_eq!(tree.find(&format!("alice/f{known}")), Some((known, 2)));
            }
        }
        assert_eq!(tree.find("alice/f100"), None);
        // A name that is there is replaced, in a champ too.
        tree.publish("alice/f7", 200).unwrap();
        assert_eq!(tree.find("alice/f7"), Some((200, 2)));
        for n in 0..100 {
            tree.unpublish(&format!("alice/f{n}")).unwrap();
            assert_eq!(tree.find(&format!("alice/f{n}")), None);
        }
        assert_eq!(tree.find("alice/x"), None);
    }

    #[test]
    fn a_damaged_tree_is_an_error_and_never_an_absence() {
        let mut tree = Tree::new();
        tree.publish("alice/a", 1).unwrap();
        let path = PublishedPath::parse("alice/a").unwrap();
        let cids: Vec<Cid> = tree
            .stored
            .iter()
            .map(|block| block.cid().clone())
            .collect();
        let public = tree.public.clone().unwrap();
        let mut failures = 0;
        for cid in cids {
            let mut less = tree.stored.clone();
            less.remove(&cid);
            let result = find(&public, &path, &less).now_or_never().unwrap();
            failures += usize::from(result.is_err());
            assert!(!matches!(result, Ok(None)));
        }
        assert!(failures >= 2);
        let other = Block::cbor(vec![0xa0]).unwrap();
        let mut bad = MemoryBlocks::new();
        bad.insert(other.clone());
        let result = find(other.cid(), &path, &bad).now_or_never().unwrap();
        assert!(matches!(result, Err(LookupFailure::Record(_))));
    }
}
