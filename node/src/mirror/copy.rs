//! Copying a tree of blocks, new roots beside old ones (Spec: 12 §5.4).

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use champ::{
    Block, BlockSource, Cid, Codec, MemoryBlocks, SourceError, access::BatWithId,
    block::is_block_cid, cbor::scan_block_lenient,
};
use futures_util::{StreamExt as _, stream};

use super::{MirrorError, Remote};
use crate::{
    directory::User,
    state::State,
    store::{StoreError, TransactionId},
    usage::stored_quota,
};

/// Blocks that are asked for at a time.
const FETCHES_AT_ONCE: usize = 8;
/// Blocks that are looked at, fetched and stored together: at most 32 MiB in memory.
const STEP_BLOCKS: usize = 32;
/// What was fetched is stored when it is this much, so that whoever is stopped has that much to fetch again.
const PUT_BYTES: usize = 8 << 20;
/// Blocks of one tree that are looked at in one pass: the memory of which were, some 100 bytes each, is bounded.
const MAX_BLOCKS: usize = 10_000_000;

/// The copy of one owner's blocks, under one transaction that keeps collections away until pointers reach them.
pub(crate) struct Copying<'a> {
    state: &'a State,
    user: &'a User,
    remote: &'a Remote,
    transaction: TransactionId,
    quota: u64,
    /// Bytes here before, and those copied since.
    used: AtomicU64,
    /// Put also what is here, so that the transaction protects it.
    puts_all: AtomicBool,
}

impl<'a> Copying<'a> {
    /// Starts, or goes on with, a copy. `transaction` names it among those of this owner.
    pub(crate) async fn start(
        state: &'a State,
        user: &'a User,
        remote: &'a Remote,
        transaction: &str,
    ) -> Result<Self, MirrorError> {
        let quota = stored_quota(state, &user.name).await?.unwrap_or(0);
        let used = state.usage.confirmed(state, user).await?;
        Ok(Self {
            state,
            user,
            remote,
            transaction: TransactionId::new(transaction)
                .map_err(crate::error::Refusal::internal)?,
            quota,
            used: AtomicU64::new(used),
            puts_all: AtomicBool::new(false),
        })
    }

    /// Copies without a bound on space: for the public table of names.
    pub(crate) fn unbounded(
        state: &'a State,
        user: &'a User,
        remote: &'a Remote,
        transaction: &str,
    ) -> Result<Self, MirrorError> {
        Ok(Self {
            state,
            user,
            remote,
            transaction: TransactionId::new(transaction)
                .map_err(crate::error::Refusal::internal)?,
            quota: u64::MAX,
            used: AtomicU64::new(0),
            puts_all: AtomicBool::new(false),
        })
    }

    /// Returns what is here of a block; a damaged copy counts as none, so it is fetched again and healed.
    async fn stored(&self, cid: &Cid) -> Result<Option<Block>, MirrorError> {
        match self.state.store.block(&self.user.partition, cid).await {
            Ok(block) => Ok(block),
            Err(StoreError::Damaged(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn fetch(&self, cid: &Cid) -> Result<Block, MirrorError> {
        let block = self.remote.block(cid).await?;
        let bytes = block.bytes().len() as u64;
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.quota {
            return Err(MirrorError::QuotaReached { quota: self.quota });
        }
        Ok(block)
    }

    /// Stores blocks.
    pub(crate) async fn put(&self, blocks: Vec<Block>) -> Result<(), MirrorError> {
        if !blocks.is_empty() {
            self.state
                .store
                .put_blocks(&self.user.partition, blocks, Some(&self.transaction))
                .await?;
        }
        Ok(())
    }

    /// Ends the protection of what was copied: pointers reach it now.
    pub(crate) async fn close(&self) -> Result<(), MirrorError> {
        let store = &self.state.store;
        store
            .close_transaction(&self.user.partition, &self.transaction)
            .await?;
        Ok(())
    }

    /// Makes everything below `new` be here. `old` is a root whose tree is complete: what both have is not looked at.
    ///
    /// What an earlier attempt left is found by its name and not fetched again, but not trusted to be complete.
    /// Dropping the future is safe.
    pub(crate) async fn tree(&self, old: Option<&Cid>, new: &Cid) -> Result<(), MirrorError> {
        let mut open = vec![(old.cloned(), new.clone())];
        let mut seen = HashSet::new();
        while !open.is_empty() {
            let from = open.len().saturating_sub(STEP_BLOCKS);
            let mut step = Vec::with_capacity(STEP_BLOCKS);
            for (old, new) in open.split_off(from) {
                let is_new = old.as_ref() != Some(&new)
                    && new.identity_content().is_none()
                    && is_block_cid(&new)
                    && seen.insert(new.clone());
                if is_new {
                    step.push((old, new));
                }
            }
            if seen.len() > MAX_BLOCKS {
                return Err(MirrorError::TooManyBlocks { max: MAX_BLOCKS });
            }
            self.step(step, &mut open).await?;
        }
        Ok(())
    }

    /// As [`Self::tree`], and takes what is here into the transaction: a collection may have given it up already.
    pub(crate) async fn tree_again(&self, old: Option<&Cid>, new: &Cid) -> Result<(), MirrorError> {
        self.puts_all.store(true, Ordering::Relaxed);
        let done = self.tree(old, new).await;
        self.puts_all.store(false, Ordering::Relaxed);
        done
    }

    async fn step(
        &self,
        step: Vec<(Option<Cid>, Cid)>,
        open: &mut Vec<(Option<Cid>, Cid)>,
    ) -> Result<(), MirrorError> {
        let puts_all = self.puts_all.load(Ordering::Relaxed);
        let mut looks = stream::iter(step)
            .map(async |(old, new)| {
                // Nothing is below a raw block, so knowing that it is here is enough.
                let is_leaf = new.codec() == Codec::Raw && !puts_all;
                let partition = &self.user.partition;
                if is_leaf
                    && self
                        .state
                        .store
                        .block_size(partition, &new)
                        .await?
                        .is_some()
                {
                    return Ok(None);
                }
                Ok::<_, MirrorError>(match self.stored(&new).await? {
                    Some(block) => Some((old, block, puts_all)),
                    None => Some((old, self.fetch(&new).await?, true)),
                })
            })
            .buffer_unordered(FETCHES_AT_ONCE);
        let mut had = Vec::new();
        let (mut new, mut new_bytes) = (Vec::new(), 0);
        let mut failure = None;
        while let Some(found) = looks.next().await {
            match found {
                Ok(None) => {}
                Ok(Some((old, block, is_new))) => {
                    if is_new {
                        new_bytes += block.bytes().len();
                        new.push(block.clone());
                    }
                    if new_bytes >= PUT_BYTES {
                        self.put(std::mem::take(&mut new)).await?;
                        new_bytes = 0;
                    }
                    had.push((old, block));
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        drop(looks);
        // What came is kept, also when the rest did not.
        self.put(new).await?;
        if let Some(error) = failure {
            return Err(error);
        }
        for (old, block) in had {
            if block.cid().codec() != Codec::DagCbor {
                continue;
            }
            let links = links(&block);
            let before = match old.filter(|old| old.codec() == Codec::DagCbor) {
                // The old tree is only a shortcut.
                Some(old) => self
                    .stored(&old)
                    .await?
                    .map_or_else(Vec::new, |b| self::links(&b)),
                None => Vec::new(),
            };
            let known: HashSet<&Cid> = before.iter().collect();
            let added: HashSet<&Cid> = links.iter().collect();
            let mut removed = before.iter().filter(|link| !added.contains(link));
            for link in links.iter().filter(|link| !known.contains(link)) {
                open.push((removed.next().cloned(), link.clone()));
            }
        }
        Ok(())
    }
}

fn links(block: &Block) -> Vec<Cid> {
    scan_block_lenient(block.bytes()).map_or_else(|_| Vec::new(), |scan| scan.links)
}

/// The blocks of an owner, from here or from the peer; what is fetched is kept.
pub(crate) struct Fetching<'a> {
    copying: &'a Copying<'a>,
    /// Fetched and not stored yet.
    fetched: parking_lot::Mutex<Fetched>,
}

#[derive(Default)]
struct Fetched {
    blocks: MemoryBlocks,
    bytes: usize,
}

impl<'a> Fetching<'a> {
    /// Reads blocks of the owner that `copying` copies.
    pub(crate) fn new(copying: &'a Copying<'a>) -> Self {
        Self {
            copying,
            fetched: parking_lot::Mutex::default(),
        }
    }

    /// Returns a block, from here or from the peer.
    pub(crate) async fn read(&self, cid: &Cid) -> Result<Block, MirrorError> {
        let waiting = self.fetched.lock().blocks.get(cid).cloned();
        if let Some(block) = waiting {
            return Ok(block);
        }
        if let Some(block) = self.copying.stored(cid).await? {
            return Ok(block);
        }
        let block = self.copying.fetch(cid).await?;
        let full = {
            let mut fetched = self.fetched.lock();
            fetched.bytes += block.bytes().len();
            fetched.blocks.insert(block.clone());
            let is_full = fetched.blocks.len() >= FLUSH_BLOCKS || fetched.bytes >= PUT_BYTES;
            is_full.then(|| std::mem::take(&mut *fetched))
        };
        if let Some(full) = full {
            let blocks = full.blocks.iter().cloned().collect();
            self.copying.put(blocks).await?;
        }
        Ok(block)
    }

    /// Stores what was fetched.
    pub(crate) async fn flush(&self) -> Result<(), MirrorError> {
        let fetched = std::mem::take(&mut *self.fetched.lock());
        let blocks = fetched.blocks.iter().cloned().collect();
        self.copying.put(blocks).await
    }
}

/// Fetched blocks that are stored together, unless they are long.
const FLUSH_BLOCKS: usize = 500;

#[async_trait::async_trait]
impl BlockSource for Fetching<'_> {
    async fn block(
        &self,
        cid: &Cid,
        _token: Option<&BatWithId>,
    ) -> Result<Option<Block>, SourceError> {
        match self.read(cid).await {
            Ok(block) => Ok(Some(block)),
            Err(MirrorError::Missing(_)) => Ok(None),
            Err(error) => Err(SourceError::Failed(Arc::new(error))),
        }
    }
}
