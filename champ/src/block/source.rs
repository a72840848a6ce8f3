//! Where blocks come from.

use std::{collections::HashMap, sync::Arc};

use super::Block;
use crate::{access::BatWithId, cid::Cid};

/// Why a block could not be had, other than that it does not exist.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The source answered with bytes that are not the block, or refused.
    #[error("block {cid} was refused: {reason}")]
    Rejected {
        /// The block asked for.
        cid: Cid,
        /// What the source said.
        reason: String,
    },
    /// The source itself failed; asking again may help.
    #[error("block source failed")]
    Failed(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// A place to read verified blocks from.
///
/// Contract: a returned block carries the CID asked for (the type guarantees that its bytes match).
/// `Ok(None)` means the source knows that it has no such block; anything uncertain is an error. Identity
/// CIDs are never asked for: callers resolve them with [`Block::inline`]. Dropping the future is safe.
#[async_trait::async_trait]
pub trait BlockSource: Send + Sync {
    /// Reads one block; `token` opens it when it is protected.
    async fn block(
        &self,
        cid: &Cid,
        token: Option<&BatWithId>,
    ) -> Result<Option<Block>, SourceError>;
}

/// Blocks in memory: tests, staging of a commit, the index of a lookup reply.
#[derive(Debug, Clone, Default)]
pub struct MemoryBlocks {
    blocks: HashMap<Cid, Block>,
}

impl MemoryBlocks {
    /// Makes an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a block.
    pub fn insert(&mut self, block: Block) {
        self.blocks.insert(block.cid().clone(), block);
    }

    /// Returns a block.
    pub fn get(&self, cid: &Cid) -> Option<&Block> {
        self.blocks.get(cid)
    }

    /// Removes a block.
    pub fn remove(&mut self, cid: &Cid) -> Option<Block> {
        self.blocks.remove(cid)
    }

    /// Returns the number of blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Returns true when there are none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Visits all blocks in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Block> {
        self.blocks.values()
    }
}

impl Extend<Block> for MemoryBlocks {
    fn extend<T: IntoIterator<Item = Block>>(&mut self, blocks: T) {
        for block in blocks {
            self.insert(block);
        }
    }
}

#[async_trait::async_trait]
impl BlockSource for MemoryBlocks {
    async fn block(
        &self,
        cid: &Cid,
        _token: Option<&BatWithId>,
    ) -> Result<Option<Block>, SourceError> {
        Ok(self.get(cid).cloned())
    }
}

/// New blocks in front of those that are somewhere else: a change before it is stored.
#[derive(Debug, Clone, Default)]
pub struct Overlay<S> {
    /// What is new.
    pub new: MemoryBlocks,
    /// Where all other blocks are.
    pub below: S,
}

impl<S> Overlay<S> {
    /// Puts blocks in front of `below`.
    pub const fn new(new: MemoryBlocks, below: S) -> Self {
        Self { new, below }
    }
}

#[async_trait::async_trait]
impl<S: BlockSource> BlockSource for Overlay<S> {
    async fn block(
        &self,
        cid: &Cid,
        token: Option<&BatWithId>,
    ) -> Result<Option<Block>, SourceError> {
        match self.new.get(cid) {
            Some(block) => Ok(Some(block.clone())),
            None => self.below.block(cid, token).await,
        }
    }
}

#[async_trait::async_trait]
impl<S: BlockSource + ?Sized> BlockSource for &S {
    async fn block(
        &self,
        cid: &Cid,
        token: Option<&BatWithId>,
    ) -> Result<Option<Block>, SourceError> {
        (**self).block(cid, token).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn new_blocks_stand_in_front_of_old_ones() {
        let (old, new) = (
            Block::raw(&b"old"[..]).unwrap(),
            Block::raw(&b"new"[..]).unwrap(),
        );
        let (mut below, mut above) = (MemoryBlocks::new(), MemoryBlocks::new());
        below.insert(old.clone());
        above.insert(new.clone());
        let below: &dyn BlockSource = &below;
        let both = Overlay::new(above, below);
        for block in [&old, &new] {
            let found = both.block(block.cid(), None).now_or_never().unwrap();
            assert_eq!(found.unwrap().as_ref(), Some(block));
        }
        let absent = Cid::of_raw(b"absent");
        let found = both.block(&absent, None).now_or_never().unwrap();
        assert_eq!(found.unwrap(), None);
    }
}
