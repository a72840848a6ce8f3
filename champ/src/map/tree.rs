//! The working tree: loading, reading, writing out (Spec: 03 §5.1, §5.4).

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use super::{
    MAX_DEPTH,
    key_hash::{KeyHash, Path},
    node::{ChampNode, Mapping, NodeError, Slot},
};
use crate::{
    access::{BatId, BatWithId},
    block::{Block, BlockError, BlockSource, SourceError},
    cbor::Value,
    cid::{Cid, Codec},
};

/// A CHAMP being read or changed.
///
/// Cloning is cheap and gives an independent snapshot: the nodes are shared until one side changes them.
/// A node that has been read stays in memory until [`Champ::forget`].
#[derive(Clone)]
pub struct Champ {
    pub(super) hash: KeyHash,
    pub(super) root: Child,
    pub(super) root_token: Option<BatWithId>,
}

/// Why a tree could not be read or changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ChampError {
    /// The source has no such node: the answer is unknown, never "absent".
    #[error("champ node {0} is missing")]
    Missing(Cid),
    /// A block that is not a node.
    #[error("champ node {cid} is malformed")]
    Malformed {
        /// The block.
        cid: Cid,
        /// Why it is refused.
        source: NodeError,
    },
    /// A node below the deepest level.
    #[error("champ node {0} is deeper than {MAX_DEPTH} levels")]
    TooDeep(Cid),
    /// The source failed or refused.
    #[error("champ node could not be read")]
    Source(#[from] SourceError),
    /// The source answered with another block than the one asked for.
    #[error("source answered with another block than {0}")]
    WrongBlock(Cid),
    /// The stored value is not the expected one.
    #[error("champ value is not the expected one")]
    CompareAndSwap,
    /// Five or more keys share all slots down to the last level.
    #[error("hash collision")]
    Collision,
    /// A put of null: absence is written by removing (Spec: 03 §6).
    #[error("null can not be put into a champ")]
    NullValue,
    /// A changed node is larger than a block may be.
    #[error("champ node is too large for a block")]
    TooLarge(#[from] BlockError),
    /// More nodes than the call may visit.
    #[error("more than {max} champ nodes to visit")]
    TooManyNodes {
        /// The limit.
        max: usize,
    },
    /// Two trees that should be compared place their keys by different hashes.
    #[error("champs use different key hashes")]
    KeyHash,
    /// A node was to be encoded before its children.
    #[error("champ node has an unwritten child")]
    Unfinished,
}

/// A child link: the block it was read from or written to, the node once it is in memory, or both.
#[derive(Debug, Clone)]
pub(super) struct Child {
    /// The block that holds `node`, or held it before it was changed.
    stored: Option<Cid>,
    node: OnceLock<Arc<ChampNode>>,
    changed: bool,
}

impl Child {
    /// A node that is known by its CID only.
    pub(super) const fn at(cid: Cid) -> Self {
        Self {
            stored: Some(cid),
            node: OnceLock::new(),
            changed: false,
        }
    }

    /// A node that has never been written.
    pub(super) fn new(node: ChampNode) -> Self {
        Self {
            stored: None,
            node: OnceLock::from(Arc::new(node)),
            changed: true,
        }
    }

    /// Returns the CID of the block that holds exactly this subtree.
    pub(super) const fn cid(&self) -> Option<&Cid> {
        match &self.stored {
            Some(cid) if !self.changed => Some(cid),
            _ => None,
        }
    }

    pub(super) fn loaded(&self) -> Option<&Arc<ChampNode>> {
        self.node.get()
    }

    /// Returns the node for changing; it must have been loaded.
    pub(super) fn edit(&mut self) -> Option<&mut ChampNode> {
        let node = self.node.get_mut()?;
        self.changed = true;
        Some(Arc::make_mut(node))
    }

    /// Returns the node, reading it when it is not in memory, and keeps it.
    pub(super) async fn load_kept(
        &self,
        depth: usize,
        token: Option<&BatWithId>,
        source: &dyn BlockSource,
    ) -> Result<&Arc<ChampNode>, ChampError> {
        if self.node.get().is_none() {
            let node = self.load(depth, token, source).await?;
            // Whoever came first read the same bytes.
            return Ok(self.node.get_or_init(|| node));
        }
        self.node.get().ok_or(ChampError::Unfinished)
    }

    /// Returns the node, reading it when it is not in memory, without keeping it.
    pub(super) async fn load(
        &self,
        depth: usize,
        token: Option<&BatWithId>,
        source: &dyn BlockSource,
    ) -> Result<Arc<ChampNode>, ChampError> {
        if let Some(node) = self.node.get() {
            return Ok(node.clone());
        }
        let cid = self.stored.as_ref().ok_or(ChampError::Unfinished)?;
        if depth >= MAX_DEPTH {
            return Err(ChampError::TooDeep(cid.clone()));
        }
        let block = read_block(cid, token, source)
            .await?
            .ok_or_else(|| ChampError::Missing(cid.clone()))?;
        decode_node(&block).map(Arc::new)
    }

    /// Writes changed nodes below and this one; children come before their parents.
    fn finish(&mut self, is_root: bool, out: &mut Vec<Block>) -> Result<Cid, ChampError> {
        if let Some(cid) = self.cid() {
            return Ok(cid.clone());
        }
        let node = self.finish_children(out)?;
        let block = Block::cbor(node.encode(is_root)?)?;
        let cid = block.cid().clone();
        // A change that was taken back needs no block.
        if self.stored.as_ref() != Some(&cid) {
            out.push(block);
        }
        self.stored = Some(cid.clone());
        self.changed = false;
        Ok(cid)
    }

    /// Writes changed nodes below this one.
    pub(super) fn finish_children(
        &mut self,
        out: &mut Vec<Block>,
    ) -> Result<&ChampNode, ChampError> {
        let node = self.node.get_mut().ok_or(ChampError::Unfinished)?;
        let unwritten = |child: &Self| child.cid().is_none();
        if node.children().any(unwritten) {
            for slot in &mut Arc::make_mut(node).slots {
                if let Slot::Child(child) = slot {
                    child.finish(false, out)?;
                }
            }
        }
        Ok(node)
    }

    /// Drops nodes that can be read again.
    fn forget(&mut self) {
        if self.cid().is_some() {
            self.node = OnceLock::new();
        } else if let Some(node) = self.node.get_mut() {
            for slot in &mut Arc::make_mut(node).slots {
                if let Slot::Child(child) = slot {
                    child.forget();
                }
            }
        }
    }
}

/// Where the walk for a key ends.
pub(super) enum Place<'a> {
    /// The key is mapped.
    Mapped(&'a Value),
    /// The bucket of its slot does not hold the key.
    Bucket { depth: usize, bucket: &'a [Mapping] },
    /// Its slot is empty.
    Vacant,
}

impl Champ {
    /// Makes an empty tree.
    pub fn empty() -> Self {
        Self::with_root(Child::new(ChampNode::default()))
    }

    /// Makes an empty tree whose root is protected by the owner's mirror BAT (Spec: 03 §5.4).
    pub fn empty_private(mirror: BatId) -> Self {
        Self::with_root(Child::new(ChampNode {
            bat: Some(mirror),
            ..ChampNode::default()
        }))
    }

    /// Makes the tree with this root; nothing is read yet.
    pub const fn at(root: Cid) -> Self {
        Self::with_root(Child::at(root))
    }

    pub(super) const fn with_root(root: Child) -> Self {
        Self {
            hash: KeyHash::Identity,
            root,
            root_token: None,
        }
    }

    /// Places keys by `hash` instead of the keys themselves. To be called before the first put.
    #[must_use]
    pub fn hashed_by(mut self, hash: KeyHash) -> Self {
        self.hash = hash;
        self
    }

    /// Reads a protected root with `token`; children are always read without one.
    #[must_use]
    pub fn with_root_token(mut self, token: BatWithId) -> Self {
        self.root_token = Some(token);
        self
    }

    /// Returns how keys are placed.
    pub const fn key_hash(&self) -> KeyHash {
        self.hash
    }

    /// Returns the root CID when nothing has changed since it was read or written.
    pub const fn root(&self) -> Option<&Cid> {
        self.root.cid()
    }

    /// Returns the value of `key`; null is read as absent (Spec: 03 §6). One block per level that is not
    /// in memory.
    ///
    /// # Errors
    /// [`ChampError::Missing`] when a node on the way is missing, and every way a node can be refused.
    ///
    /// Cancel safe: nodes already read are kept.
    pub async fn get(
        &self,
        key: &[u8],
        source: &dyn BlockSource,
    ) -> Result<Option<Value>, ChampError> {
        let place = self.find(self.hash.path(key), key, source).await?;
        Ok(match place {
            Place::Mapped(value) => present(value).cloned(),
            _ => None,
        })
    }

    /// Returns the mirror BAT id of the root.
    ///
    /// # Errors
    /// As [`Champ::get`].
    pub async fn mirror_bat(&self, source: &dyn BlockSource) -> Result<Option<BatId>, ChampError> {
        Ok(self.load_root(source).await?.bat.clone())
    }

    /// Puts the owner's mirror BAT id on the root, which makes the root block private.
    ///
    /// # Errors
    /// As [`Champ::get`].
    pub async fn set_mirror_bat(
        &mut self,
        mirror: BatId,
        source: &dyn BlockSource,
    ) -> Result<(), ChampError> {
        if self.load_root(source).await?.bat.as_ref() != Some(&mirror) {
            self.root.edit().ok_or(ChampError::Unfinished)?.bat = Some(mirror);
        }
        Ok(())
    }

    /// Encodes what has changed: the root CID, and the blocks that are new and reachable from it, children
    /// before parents. The tree stays usable; finishing again returns no blocks.
    ///
    /// # Errors
    /// [`ChampError::TooLarge`] when inline values make a node larger than a block; the tree keeps its
    /// changes.
    pub fn finish(&mut self) -> Result<(Cid, Vec<Block>), ChampError> {
        let mut blocks = Vec::new();
        let root = self.root.finish(true, &mut blocks)?;
        Ok((root, blocks))
    }

    /// Drops all nodes that can be read again; changed ones stay.
    pub fn forget(&mut self) {
        self.root.forget();
    }

    pub(super) async fn load_root(
        &self,
        source: &dyn BlockSource,
    ) -> Result<&Arc<ChampNode>, ChampError> {
        self.root
            .load_kept(0, self.root_token.as_ref(), source)
            .await
    }

    /// Walks to the place of a key and keeps the nodes on the way.
    pub(super) async fn find(
        &self,
        path: Path,
        key: &[u8],
        source: &dyn BlockSource,
    ) -> Result<Place<'_>, ChampError> {
        let mut node = self.load_root(source).await?;
        let mut depth = 0;
        loop {
            match node.slots.get(path.slot(depth)) {
                Some(Slot::Bucket(bucket)) => {
                    let found = bucket.iter().find(|mapping| mapping.key == key);
                    return Ok(match found {
                        Some(mapping) => Place::Mapped(&mapping.value),
                        None => Place::Bucket { depth, bucket },
                    });
                }
                Some(Slot::Child(child)) => {
                    depth += 1;
                    node = child.load_kept(depth, None, source).await?;
                }
                _ => return Ok(Place::Vacant),
            }
        }
    }
}

impl Default for Champ {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Champ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Champ")
            .field("root", &self.root.stored)
            .field("changed", &self.root.changed)
            .field("key_hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// Returns the value unless it is null, which means "no value" (Spec: 03 §6).
pub(super) fn present(value: &Value) -> Option<&Value> {
    (*value != Value::Null).then_some(value)
}

/// Reads one block, from the CID itself when that holds it.
pub(super) async fn read_block(
    cid: &Cid,
    token: Option<&BatWithId>,
    source: &dyn BlockSource,
) -> Result<Option<Block>, ChampError> {
    if let Some(block) = Block::inline(cid) {
        return Ok(Some(block));
    }
    match source.block(cid, token).await? {
        Some(block) if block.cid() != cid => Err(ChampError::WrongBlock(cid.clone())),
        block => Ok(block),
    }
}

pub(super) fn decode_node(block: &Block) -> Result<ChampNode, ChampError> {
    let node = match block.cid().codec() {
        Codec::DagCbor => ChampNode::decode(block.bytes()),
        _ => Err(NodeError::NotCbor),
    };
    node.map_err(|source| ChampError::Malformed {
        cid: block.cid().clone(),
        source,
    })
}
