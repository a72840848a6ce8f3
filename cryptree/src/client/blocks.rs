//! Verified blocks of one owner: from memory, else from a keeper, else from the node (Spec: 21 §2.1).

use std::sync::Arc;

use champ::{
    Block, BlockSource, Cid, MemoryBlocks, SourceError,
    access::{Bat, BatWithId},
    cbor::Value,
    map::Champ,
};
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use pki::{
    keys::Owner,
    wire::champ_lookup::{ChampCap, MAX_LOOKUP_KEYS},
};

use super::{cache::BlockCache, keeper::Keeper};
use crate::{
    api::Api,
    error::{ClientError, Misbehavior},
};

/// Lookups in flight at once.
const LOOKUPS_IN_FLIGHT: usize = 4;

/// The blocks of one owner as their node serves them, every one checked against its CID.
#[derive(Debug, Clone)]
pub(crate) struct OwnerBlocks {
    pub(crate) api: Arc<Api>,
    pub(crate) cache: Arc<BlockCache>,
    pub(crate) keeper: Keeper,
    pub(crate) owner: Owner,
}

/// A tree entry to look up: its key, and the token that opens the block it leads to.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) map_key: [u8; 32],
    pub(crate) bat: Option<Bat>,
}

type Found = Result<Vec<Option<Block>>, ClientError>;

impl OwnerBlocks {
    /// Returns a block without asking the node.
    pub(crate) async fn known(&self, cid: &Cid) -> Option<Block> {
        if let Some(block) = Block::inline(cid).or_else(|| self.cache.get(cid)) {
            return Some(block);
        }
        let block = self.keeper.load(cid).await?;
        self.cache.insert(block.clone());
        Some(block)
    }

    /// Keeps a block that will be read again.
    pub(crate) async fn remember(&self, block: Block) {
        self.keeper.keep(&block).await;
        self.cache.insert(block);
    }

    /// Returns a block that a verified parent links to.
    ///
    /// # Errors
    /// [`Misbehavior::BlockWithheld`] when the node says that it has no such block.
    pub(crate) async fn required(
        &self,
        cid: &Cid,
        token: Option<&BatWithId>,
    ) -> Result<Block, ClientError> {
        if let Some(block) = self.known(cid).await {
            return Ok(block);
        }
        let block = self
            .api
            .block(&self.owner, cid, token)
            .await?
            .ok_or_else(|| Misbehavior::BlockWithheld { cid: cid.clone() })?;
        self.remember(block.clone()).await;
        Ok(block)
    }

    /// Looks up entries of the tree under `root`, in order; `None` where the tree proves absence.
    ///
    /// Bulk lookups of at most 20 keys; the reply is only a bag of blocks for a walk of our own, and what it
    /// lacks is fetched one by one. A missing trie node is an error, never absence (Spec: 03 §5.1).
    pub(crate) async fn lookup(
        &self,
        root: &Cid,
        wanted: &[Wanted],
    ) -> Result<Vec<Option<Block>>, ClientError> {
        let lookups: Vec<BoxFuture<'_, Found>> = wanted
            .chunks(MAX_LOOKUP_KEYS)
            .map(|batch| self.lookup_batch(root, batch).boxed())
            .collect();
        let batches: Vec<Vec<Option<Block>>> = stream::iter(lookups)
            .buffered(LOOKUPS_IN_FLIGHT)
            .try_collect()
            .await?;
        Ok(batches.into_iter().flatten().collect())
    }

    async fn lookup_batch(&self, root: &Cid, wanted: &[Wanted]) -> Found {
        let mut known = Vec::with_capacity(wanted.len());
        for one in wanted {
            known.push(self.walk_cached(root, one).await);
        }
        let missing: Vec<ChampCap> = wanted
            .iter()
            .zip(&known)
            .filter(|(_, found)| found.is_none())
            .map(|(one, _)| ChampCap {
                map_key: one.map_key,
                bat: one.bat.as_ref().map(Bat::with_calculated_id),
            })
            .collect();
        let bag = if missing.is_empty() {
            MemoryBlocks::new()
        } else {
            self.fetch_bag(root, missing).await?
        };
        let source = Overlay {
            bag: &bag,
            rest: self,
        };
        let mut found = Vec::with_capacity(wanted.len());
        for (one, known) in wanted.iter().zip(known) {
            found.push(match known {
                Some(answer) => answer,
                None => self.walk(root, one, &source).await?,
            });
        }
        Ok(found)
    }

    /// Answers without the node; `None` when that is not possible.
    async fn walk_cached(&self, root: &Cid, wanted: &Wanted) -> Option<Option<Block>> {
        let source = KnownOnly(self);
        let value = Champ::at(root.clone())
            .get(&wanted.map_key, &source)
            .await
            .ok()?;
        match value {
            None => Some(None),
            Some(Value::Link(cid)) => Some(Some(self.known(&cid).await?)),
            Some(_) => None,
        }
    }

    async fn walk(
        &self,
        root: &Cid,
        wanted: &Wanted,
        source: &Overlay<'_>,
    ) -> Result<Option<Block>, ClientError> {
        let value = Champ::at(root.clone()).get(&wanted.map_key, source).await?;
        let cid = match value {
            None => return Ok(None),
            Some(Value::Link(cid)) => cid,
            Some(_) => return Err(ClientError::bad_record("tree entry")),
        };
        if let Some(block) = source.bag.get(&cid) {
            self.keeper.keep(block).await;
            return Ok(Some(block.clone()));
        }
        let token = wanted.bat.as_ref().map(Bat::with_calculated_id);
        self.required(&cid, token.as_ref()).await.map(Some)
    }

    /// Asks the node to walk; its refusal only means that we walk alone (Spec: 21 §2.1).
    async fn fetch_bag(
        &self,
        root: &Cid,
        keys: Vec<ChampCap>,
    ) -> Result<MemoryBlocks, ClientError> {
        let mut bag = MemoryBlocks::new();
        match self.api.lookup(&self.owner, root, keys).await {
            Ok(blocks) => {
                for bytes in blocks {
                    // Hashing names the block; one that nobody links to is never looked at.
                    if let Ok(block) = Block::cbor(bytes) {
                        bag.insert(block);
                    }
                }
                Ok(bag)
            }
            Err(ClientError::Refused { .. } | ClientError::Misbehavior(_)) => Ok(bag),
            Err(error) => Err(error),
        }
    }
}

#[async_trait::async_trait]
impl BlockSource for OwnerBlocks {
    async fn block(
        &self,
        cid: &Cid,
        token: Option<&BatWithId>,
    ) -> Result<Option<Block>, SourceError> {
        match self.required(cid, token).await {
            Ok(block) => Ok(Some(block)),
            Err(error) => Err(error.into()),
        }
    }
}

/// The blocks of a lookup reply, then whatever else there is. Trie nodes that were used are remembered.
struct Overlay<'a> {
    bag: &'a MemoryBlocks,
    rest: &'a OwnerBlocks,
}

#[async_trait::async_trait]
impl BlockSource for Overlay<'_> {
    async fn block(
        &self,
        cid: &Cid,
        token: Option<&BatWithId>,
    ) -> Result<Option<Block>, SourceError> {
        if let Some(block) = self.bag.get(cid) {
            self.rest.remember(block.clone()).await;
            return Ok(Some(block.clone()));
        }
        self.rest.block(cid, token).await
    }
}

/// What is known without the node.
struct KnownOnly<'a>(&'a OwnerBlocks);

#[async_trait::async_trait]
impl BlockSource for KnownOnly<'_> {
    async fn block(
        &self,
        cid: &Cid,
        _token: Option<&BatWithId>,
    ) -> Result<Option<Block>, SourceError> {
        Ok(self.0.known(cid).await)
    }
}

impl From<champ::map::ChampError> for ClientError {
    fn from(error: champ::map::ChampError) -> Self {
        use champ::map::ChampError as E;
        match error {
            E::Missing(cid) => Misbehavior::BlockWithheld { cid }.into(),
            E::Source(source) => source.into(),
            E::WrongBlock(cid) => Misbehavior::HashMismatch { cid }.into(),
            E::CompareAndSwap => Self::Conflict,
            E::Malformed { .. } | E::TooDeep(_) => Self::bad_record("champ node"),
            E::TooManyNodes { max } => Self::TooLarge {
                what: "a tree",
                max: max as u64,
            },
            _ => Self::Internal("a tree could not be changed"),
        }
    }
}
