//! The interface to blocks: one partition per user, protected by transactions (Spec: 06 §4, 12 §2).

use std::{fmt, sync::Arc, time::SystemTime};

use champ::{Block, Cid};

use super::{Misuse, StoreError};

/// Most blocks in one put (Spec: 06 §4.2).
pub const MAX_PUT_BLOCKS: usize = 10_000;
/// Most candidates in one deletion (Spec: 12 §4.2).
pub const MAX_DELETE_BLOCKS: usize = 1_000;
/// Most entries of one page of [`BlockStore::list_blocks`].
pub const MAX_LIST_BLOCKS: usize = 10_000;

/// The name of one user's block space.
///
/// 1 to 120 characters of `a-z`, `A-Z`, `0-9`, `-`, `_`. The node decides what it holds; equal blocks of two
/// partitions are two blocks for access, usage and deletion.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(Arc<str>);

/// The id of a transaction, as clients write it: 1 to 64 characters of `0-9a-zA-Z-` (Spec: 06 §4.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(Arc<str>);

/// Text that cannot be a [`Partition`] or a [`TransactionId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Empty, or longer than the limit in characters.
    #[error("{actual} characters, 1 to {max} are allowed")]
    Length {
        /// Length in bytes.
        actual: usize,
        /// Longest legal length.
        max: usize,
    },
    /// A character outside the allowed set.
    #[error("character not allowed")]
    Character,
}

impl Partition {
    /// Longest name in characters.
    pub const MAX_CHARS: usize = 120;

    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn new(name: &str) -> Result<Self, NameError> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        checked_name(name, Self::MAX_CHARS, allowed).map(Self)
    }

    /// Names the partition of the user with this identity key hash.
    ///
    /// # Errors
    /// [`NameError::Length`] for an identity hash of a key longer than any signing key.
    pub fn of_key(identity: &Cid) -> Result<Self, NameError> {
        Self::new(&identity.storage_key())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TransactionId {
    /// Longest id in characters.
    pub const MAX_CHARS: usize = 64;

    /// Checks an id.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn new(id: &str) -> Result<Self, NameError> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        checked_name(id, Self::MAX_CHARS, allowed).map(Self)
    }

    /// Returns the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn checked_name(text: &str, max: usize, allowed: fn(u8) -> bool) -> Result<Arc<str>, NameError> {
    if text.is_empty() || text.len() > max {
        return Err(NameError::Length {
            actual: text.len(),
            max,
        });
    }
    if !text.bytes().all(allowed) {
        return Err(NameError::Character);
    }
    Ok(text.into())
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partition({})", self.0)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransactionId({})", self.0)
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Counts the puts of one block: a put of a block that is there already moves it on, so that a collector that
/// decided on older knowledge cannot delete what a client has just put again (Spec: 12 §4.2, re-put race).
///
/// Generations of one store grow: a put has a higher one than every put that resolved before it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub(crate) u64);

/// What a listing tells about a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockInfo {
    /// Name.
    pub cid: Cid,
    /// Size in bytes.
    pub size_bytes: u32,
    /// Generation at the time of the listing.
    pub generation: Generation,
}

/// What one partition holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// Number of blocks.
    pub blocks: u64,
    /// Sum of their sizes in bytes.
    pub bytes: u64,
}

/// What a deletion did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deleted {
    /// What is gone.
    pub removed: BlockCounts,
    /// Candidates that stay because they were put again since they were listed, or stand in an open
    /// transaction now.
    pub kept: u64,
}

/// Blocks, each under the partition it was stored for.
///
/// Contract:
/// * A put is on stable storage, readable, and recorded under its transaction before its future resolves; the
///   three happen in one step, so no collector ever sees a block of a put without its protection.
///   A put is all or nothing for readers. Dropping its future leaves open whether it happens.
/// * A block is found only in the partition and under the exact CID (codec included) that it was put with.
/// * Bytes are checked against the CID on every read: [`StoreError::Damaged`] instead of wrong bytes.
/// * A put of an existing block succeeds, moves its generation on, and heals it when the stored copy is damaged.
/// * Deletion is decided in the same step that records it: never a block whose generation moved on, never one in
///   an open transaction. Space is given back before the future resolves.
#[async_trait::async_trait]
pub trait BlockStore: Send + Sync {
    /// Stores blocks.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] below the floor of free space, [`StoreError::Misuse`] for empty blocks, identity
    /// CIDs and more than [`MAX_PUT_BLOCKS`], and failures of the disk.
    async fn put_blocks(
        &self,
        partition: &Partition,
        blocks: Vec<Block>,
        transaction: Option<&TransactionId>,
    ) -> Result<(), StoreError>;

    /// Reads a block; `None` when the partition does not have it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], and failures of the disk.
    async fn block(&self, partition: &Partition, cid: &Cid) -> Result<Option<Block>, StoreError>;

    /// Returns the size of a block in bytes without reading it; `None` when it is absent.
    ///
    /// # Errors
    /// Failures of the disk.
    async fn block_size(&self, partition: &Partition, cid: &Cid)
    -> Result<Option<u32>, StoreError>;

    /// Lists a partition in ascending order of binary CIDs, strictly after `after`; at most `limit` and at most
    /// [`MAX_LIST_BLOCKS`] entries. Fewer than that means the end.
    ///
    /// # Errors
    /// Failures of the disk.
    async fn list_blocks(
        &self,
        partition: &Partition,
        after: Option<&Cid>,
        limit: usize,
    ) -> Result<Vec<BlockInfo>, StoreError>;

    /// Deletes listed blocks that are still as they were listed and in no open transaction.
    ///
    /// # Errors
    /// [`StoreError::Misuse`] for more than [`MAX_DELETE_BLOCKS`], and failures of the disk.
    async fn delete_blocks(
        &self,
        partition: &Partition,
        candidates: Vec<(Cid, Generation)>,
    ) -> Result<Deleted, StoreError>;

    /// Returns what a partition holds; zero for an unknown one.
    ///
    /// # Errors
    /// Failures of the disk.
    async fn block_counts(&self, partition: &Partition) -> Result<BlockCounts, StoreError>;

    /// Lists the partitions that ever held a block, in byte order of names, strictly after `after`, at most
    /// `limit`.
    ///
    /// # Errors
    /// Failures of the disk.
    async fn partitions(
        &self,
        after: Option<&Partition>,
        limit: usize,
    ) -> Result<Vec<Partition>, StoreError>;

    /// Ends a transaction of a partition; unknown ids and repetitions are no error.
    ///
    /// # Errors
    /// Failures of the disk.
    async fn close_transaction(
        &self,
        partition: &Partition,
        transaction: &TransactionId,
    ) -> Result<(), StoreError>;

    /// Drops the protection of puts made before `before`, whatever their transaction (Spec: 12 §2: the age is that
    /// of the put, so writing goes on protecting).
    ///
    /// # Errors
    /// Failures of the disk.
    async fn expire_transactions(
        &self,
        partition: &Partition,
        before: SystemTime,
    ) -> Result<(), StoreError>;

    /// Returns the blocks that stand in open transactions of a partition, in no particular order, without
    /// repetitions.
    ///
    /// # Errors
    /// Failures of the disk.
    async fn protected_blocks(&self, partition: &Partition) -> Result<Vec<Cid>, StoreError>;
}

/// Checks what every engine refuses to store.
pub(crate) fn check_put(blocks: &[Block]) -> Result<(), Misuse> {
    if blocks.len() > MAX_PUT_BLOCKS {
        return Err(Misuse::TooManyRows(blocks.len()));
    }
    for block in blocks {
        if block.cid().identity_content().is_some() {
            return Err(Misuse::IdentityBlock);
        }
        if block.bytes().is_empty() {
            return Err(Misuse::EmptyBlock);
        }
    }
    Ok(())
}
