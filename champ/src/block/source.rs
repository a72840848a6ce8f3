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
