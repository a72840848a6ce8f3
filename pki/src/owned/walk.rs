//! Following ownership from root block to root block (Spec: 04 §5.3, 06 §4.3).

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    mem,
    sync::atomic::{AtomicUsize, Ordering},
};

use champ::{
    Block, BlockSource, Cid, SourceError,
    access::BatWithId,
    cbor::{Record, Value},
    map::{Champ, ChampError, Entries},
};
use futures_util::future::join_all;

use super::{OwnerProof, ProofError, owned_key_label};
use crate::{
    keys::{Owner, PublicKeyHash, ResolveError, Writer},
    writer_data::{RootError, WriterData},
};

/// Most writers one user may own; one per folder shared for writing is the normal use.
pub const MAX_OWNED_WRITERS: usize = 16_384;
/// Most blocks one walk reads: a root, a proof and a share of the champ nodes for each writer.
pub const MAX_WALK_BLOCKS: usize = 8 * MAX_OWNED_WRITERS;
/// Proofs that are read together.
const PROOFS_AT_ONCE: usize = 32;

/// Bounds of a walk over what strangers wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkLimits {
    /// Most writers to find.
    pub max_writers: usize,
    /// Most blocks to read.
    pub max_blocks: usize,
}

impl Default for WalkLimits {
    fn default() -> Self {
        Self {
            max_writers: MAX_OWNED_WRITERS,
            max_blocks: MAX_WALK_BLOCKS,
        }
    }
}

/// Where the walk learns to which root block a writer points.
///
/// Contract: the target comes from a pointer whose signature has been verified; none stands for no
/// pointer and for a deleted one. Dropping the future is safe.
#[async_trait::async_trait]
pub trait PointerSource: Send + Sync {
    /// Returns the target of the writer's committed pointer.
    async fn root(&self, writer: &Writer) -> Result<Option<Cid>, SourceError>;
}

/// Why a walk had to stop, or could not follow a branch.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OwnedError {
    /// A source failed; trying again may help.
    #[error("ownership could not be read")]
    Source(#[from] SourceError),
    /// More writers than allowed.
    #[error("more than {max} owned writers")]
    TooManyWriters {
        /// The limit.
        max: usize,
    },
    /// More blocks than allowed.
    #[error("more than {max} blocks of ownership")]
    TooManyBlocks {
        /// The limit.
        max: usize,
    },
    /// A block that ownership needs does not exist.
    #[error("block {0} of an ownership record is missing")]
    Missing(Cid),
    /// The owned key champ cannot be read.
    #[error("owned key champ is damaged")]
    Champ(#[source] ChampError),
    /// The pointer's target is no root block of the writer.
    #[error("root block cannot be used")]
    Root(#[from] RootError),
}

impl OwnedError {
    /// Returns true when the walk as a whole failed, false when one branch is damaged.
    const fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::Source(_) | Self::TooManyWriters { .. } | Self::TooManyBlocks { .. }
        )
    }
}

/// A writer whose owned keys could not all be read.
#[derive(Debug, Clone)]
pub struct Damage {
    /// Whose record is damaged.
    pub writer: Writer,
    /// The first thing that was wrong.
    pub error: OwnedError,
}

/// What a walk found.
#[derive(Debug, Clone, Default)]
pub struct Owned {
    /// The owned writers.
    pub writers: BTreeSet<Writer>,
    /// Writers below which something may be missing from `writers`. Nobody may conclude from a damaged
    /// record that a key is no longer owned.
    pub damage: Vec<Damage>,
}

/// Returns the writers with a valid proof in this root block: what a server registers at each pointer
/// commit.
///
/// Invalid proofs are left out. Dropping the future is safe.
///
/// # Errors
/// [`OwnedError::Source`], [`OwnedError::TooManyWriters`], [`OwnedError::TooManyBlocks`]. Missing or
/// malformed blocks are reported in [`Owned::damage`].
pub async fn directly_owned(
    data: &WriterData,
    blocks: &dyn BlockSource,
    limits: WalkLimits,
) -> Result<Owned, OwnedError> {
    let budget = Budget::new(blocks, limits.max_blocks);
    let mut owned = Owned::default();
    let found = gather(data, &budget, limits.max_writers, &mut owned.writers).await;
    if let Err(error) = budget.settle(found) {
        if error.is_fatal() {
            return Err(error);
        }
        owned.damage.push(Damage {
            writer: data.controller.clone(),
            error,
        });
    }
    Ok(owned)
}

/// Returns all writers of a user, the identity key included.
///
/// Dropping the future is safe.
///
/// # Errors
/// As [`OwnershipWalk::next`].
pub async fn owned_by_user(
    owner: &Owner,
    pointers: &dyn PointerSource,
    blocks: &dyn BlockSource,
    limits: WalkLimits,
) -> Result<Owned, OwnedError> {
    let mut walk = OwnershipWalk::new(owner, pointers, blocks, limits);
    let mut owned = Owned::default();
    while let Some(writer) = walk.next().await? {
        owned.writers.insert(writer);
    }
    owned.damage = walk.damage;
    Ok(owned)
}

/// A walk from an identity key over everything it owns, breadth first, each writer once.
pub struct OwnershipWalk<'a> {
    pointers: &'a dyn PointerSource,
    blocks: Budget<'a>,
    max_writers: usize,
    queue: VecDeque<Writer>,
    seen: HashSet<Writer>,
    damage: Vec<Damage>,
}

impl<'a> OwnershipWalk<'a> {
    /// Starts at the identity key.
    pub fn new(
        owner: &Owner,
        pointers: &'a dyn PointerSource,
        blocks: &'a dyn BlockSource,
        limits: WalkLimits,
    ) -> Self {
        let identity = owner.as_writer();
        Self {
            pointers,
            blocks: Budget::new(blocks, limits.max_blocks),
            max_writers: limits.max_writers,
            queue: VecDeque::from([identity.clone()]),
            seen: HashSet::from([identity]),
            damage: Vec::new(),
        }
    }

    /// Returns the next writer, after reading what it owns; the identity key comes first.
    ///
    /// A writer without pointer, or with a record that cannot be read, ends its branch. Cancel safe: the
    /// same writer is read again.
    ///
    /// # Errors
    /// [`OwnedError::Source`], [`OwnedError::TooManyWriters`], [`OwnedError::TooManyBlocks`].
    pub async fn next(&mut self) -> Result<Option<Writer>, OwnedError> {
        let Some(writer) = self.queue.front().cloned() else {
            return Ok(None);
        };
        let mut children = BTreeSet::new();
        let found = self.expand(&writer, &mut children).await;
        if let Err(error) = self.blocks.settle(found) {
            if error.is_fatal() {
                return Err(error);
            }
            let writer = writer.clone();
            self.damage.push(Damage { writer, error });
        }
        for child in children {
            if !self.seen.contains(&child) {
                if self.seen.len() >= self.max_writers {
                    let max = self.max_writers;
                    return Err(OwnedError::TooManyWriters { max });
                }
                self.seen.insert(child.clone());
                self.queue.push_back(child);
            }
        }
        self.queue.pop_front();
        Ok(Some(writer))
    }

    /// Walks until `writer` is found or the tree ends; what was walked already counts.
    ///
    /// # Errors
    /// As [`OwnershipWalk::next`].
    pub async fn finds(&mut self, writer: &Writer) -> Result<bool, OwnedError> {
        loop {
            if self.seen.contains(writer) {
                return Ok(true);
            }
            if self.next().await?.is_none() {
                return Ok(false);
            }
        }
    }

    /// Returns the records that could not be read so far.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    async fn expand(
        &self,
        writer: &Writer,
        children: &mut BTreeSet<Writer>,
    ) -> Result<(), OwnedError> {
        let Some(root) = self.pointers.root(writer).await? else {
            return Ok(());
        };
        let block = read(&root, &self.blocks).await?;
        let data = WriterData::in_block(&block, writer)?;
        gather(&data, &self.blocks, self.max_writers, children).await
    }
}

impl std::fmt::Debug for OwnershipWalk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnershipWalk")
            .field("found", &self.seen.len())
            .field("waiting", &self.queue.len())
            .field("damage", &self.damage)
            .finish_non_exhaustive()
    }
}

/// Adds the valid direct proofs of a root block to `out`; the first damage is returned at the end.
async fn gather(
    data: &WriterData,
    blocks: &Budget<'_>,
    max_writers: usize,
    out: &mut BTreeSet<Writer>,
) -> Result<(), OwnedError> {
    let parent = data.controller.hash();
    let mut damage = Ok(());
    let mut accept = |result: Result<Option<Writer>, OwnedError>| {
        match result {
            Ok(Some(writer)) => {
                out.insert(writer);
                if out.len() > max_writers {
                    return Err(OwnedError::TooManyWriters { max: max_writers });
                }
            }
            Ok(None) => {}
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => damage = mem::replace(&mut damage, Ok(())).and(Err(error)),
        }
        Ok(())
    };
    for proof in data.named.values() {
        accept(verified(proof, parent, blocks).await)?;
    }
    if let Some(root) = &data.owned {
        let mut entries = Champ::at(root.clone())
            .entries()
            .max_nodes(blocks.remaining());
        loop {
            let (batch, ended) = batch(&mut entries, blocks).await;
            let proofs = batch
                .iter()
                .map(|(label, value)| listed(label, value, parent, blocks));
            for result in join_all(proofs).await {
                accept(result)?;
            }
            match ended {
                None => {}
                Some(Ok(())) => break,
                Some(Err(error)) => {
                    accept(Err(error))?;
                    break;
                }
            }
        }
    }
    damage
}

/// Reads up to [`PROOFS_AT_ONCE`] entries, and whether and how the champ ended.
async fn batch(
    entries: &mut Entries,
    blocks: &Budget<'_>,
) -> (Vec<(bytes::Bytes, Value)>, Option<Result<(), OwnedError>>) {
    let mut batch = Vec::new();
    while batch.len() < PROOFS_AT_ONCE {
        match entries.next(blocks).await {
            Ok(Some(entry)) => batch.push(entry),
            Ok(None) => return (batch, Some(Ok(()))),
            Err(error) => return (batch, Some(Err(champ_error(error, blocks)))),
        }
    }
    (batch, None)
}

fn champ_error(error: ChampError, blocks: &Budget<'_>) -> OwnedError {
    match error {
        ChampError::Source(source) => OwnedError::Source(source),
        ChampError::Missing(cid) => OwnedError::Missing(cid),
        ChampError::TooManyNodes { .. } => OwnedError::TooManyBlocks { max: blocks.max },
        error => OwnedError::Champ(error),
    }
}

/// Reads the proof a champ entry links to and verifies it; none when it proves nothing.
async fn listed(
    label: &[u8],
    value: &Value,
    parent: &PublicKeyHash,
    blocks: &Budget<'_>,
) -> Result<Option<Writer>, OwnedError> {
    let Value::Link(cid) = value else {
        return Ok(None);
    };
    let block = read(cid, blocks).await?;
    let Ok(proof) = OwnerProof::decode_shared(block.bytes()) else {
        return Ok(None);
    };
    if owned_key_label(proof.owned()) != label {
        return Ok(None);
    }
    verified(&proof, parent, blocks).await
}

async fn verified(
    proof: &OwnerProof,
    parent: &PublicKeyHash,
    blocks: &Budget<'_>,
) -> Result<Option<Writer>, OwnedError> {
    match proof.verify(parent, blocks).await {
        Ok(()) => Ok(Some(Writer(proof.owned().clone()))),
        Err(ProofError::Key(ResolveError::Source { source, .. })) => Err(source.into()),
        Err(ProofError::Key(ResolveError::NotFound(hash))) => {
            Err(OwnedError::Missing(hash.cid().clone()))
        }
        Err(_) => Ok(None),
    }
}

async fn read(cid: &Cid, blocks: &Budget<'_>) -> Result<Block, OwnedError> {
    if let Some(block) = Block::inline(cid) {
        return Ok(block);
    }
    let block = blocks.block(cid, None).await?;
    block.ok_or_else(|| OwnedError::Missing(cid.clone()))
}

/// A block source that refuses after a number of reads.
struct Budget<'a> {
    blocks: &'a dyn BlockSource,
    max: usize,
    used: AtomicUsize,
}

impl<'a> Budget<'a> {
    const fn new(blocks: &'a dyn BlockSource, max: usize) -> Self {
        Self {
            blocks,
            max,
            used: AtomicUsize::new(0),
        }
    }

    fn remaining(&self) -> usize {
        self.max.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Says what really happened when a read was refused for the limit.
    fn settle(&self, result: Result<(), OwnedError>) -> Result<(), OwnedError> {
        if self.used.load(Ordering::Relaxed) > self.max {
            return Err(OwnedError::TooManyBlocks { max: self.max });
        }
        result
    }
}

#[async_trait::async_trait]
impl BlockSource for Budget<'_> {
    async fn block(
        &self,
        cid: &Cid,
        token: Option<&BatWithId>,
    ) -> Result<Option<Block>, SourceError> {
        if self.used.fetch_add(1, Ordering::Relaxed) >= self.max {
            return Err(SourceError::Rejected {
                cid: cid.clone(),
                reason: "too many blocks in one walk".to_owned(),
            });
        }
        self.blocks.block(cid, token).await
    }
}
