//! Blocks kept outside of memory, by whoever embeds the client: on disk, in a browser's database (Spec: 21 §2.2).
//!
//! Everything kept is as the node has it: encrypted. Nothing given back is believed before it was hashed again
//! (Spec: 40, INT-1).

use std::{fmt, sync::Arc};

use bytes::Bytes;
use champ::{Block, Cid};

/// A place where blocks outlive the session. Blocks never change, so what is kept is valid for ever.
///
/// Contract: both calls are quick, and neither fails: a keeper that cannot read or write says that it has nothing, and
/// drops what it cannot keep. It bounds its own size.
#[async_trait::async_trait]
pub trait BlockKeeper: Send + Sync {
    /// Returns the bytes of a block that was kept.
    async fn load(&self, cid: &Cid) -> Option<Bytes>;

    /// Keeps a block of at most 1 MiB and 100 bytes.
    async fn keep(&self, cid: &Cid, bytes: &Bytes);
}

/// The keeper of a client, if it has one.
#[derive(Clone, Default)]
pub(crate) struct Keeper(Option<Arc<dyn BlockKeeper>>);

impl Keeper {
    pub(crate) fn new(keeper: Arc<dyn BlockKeeper>) -> Self {
        Self(Some(keeper))
    }

    /// Returns a block that was kept and is still what its name says.
    pub(crate) async fn load(&self, cid: &Cid) -> Option<Block> {
        let bytes = self.0.as_ref()?.load(cid).await?;
        Block::verified(cid.clone(), bytes).ok()
    }

    pub(crate) async fn keep(&self, block: &Block) {
        if let Some(keeper) = &self.0 {
            keeper.keep(block.cid(), block.bytes()).await;
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}
