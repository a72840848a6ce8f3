//! Walking the published tree (Spec: 04 §7, 13 §8).

use std::sync::atomic::{AtomicUsize, Ordering};

use champ::{
    Block, BlockSource, Cid, SourceError,
    access::BatWithId,
    cbor::{Record, RecordError},
    map::{Champ, ChampError, KeyHash},
};

use super::{Child, Directory, Inode, PublicRoot, PublishedCapability, PublishedPath};

/// Most blocks that one look-up reads, however the owner built the tree.
const MAX_BLOCKS: usize = 512;

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The first published item on the path.
    pub capability: PublishedCapability,
    /// Number of the path's elements that lead to it; the rest lies below it.
    pub depth: usize,
}

/// Why a published tree cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LookupFailure {
    /// The block source failed.
    #[error("published files cannot be read")]
    Source(#[from] SourceError),
    /// A block of the tree is not there.
    #[error("block {0} of the published tree is missing")]
    Missing(Cid),
    /// The tree's champ is damaged.
    #[error("published tree is damaged")]
    Champ(#[source] ChampError),
    /// A record of the tree is malformed.
    #[error("published tree is malformed")]
    Record(#[from] RecordError),
}

impl From<ChampError> for LookupFailure {
    fn from(error: ChampError) -> Self {
        match error {
            ChampError::Source(error) => Self::Source(error),
            ChampError::Missing(cid) => Self::Missing(cid),
            other => Self::Champ(other),
        }
    }
}

/// Walks from the block that a root block's `public` field names; `None` when nothing on the path is published.
///
/// Reads without tokens, a bounded number of blocks. Dropping the future is safe.
///
/// # Errors
/// [`LookupFailure`].
pub async fn find(
    public: &Cid,
    path: &PublishedPath,
    blocks: &dyn BlockSource,
) -> Result<Option<Published>, LookupFailure> {
    let blocks = Bounded {
        inner: blocks,
        left: AtomicUsize::new(MAX_BLOCKS),
    };
    let root = read_root(public, &blocks).await?;
    let directories = Champ::at(root.directories).hashed_by(KeyHash::Sha256);
    let mut at = Inode::root();
    for (depth, name) in path.elements().iter().enumerate() {
        let Some(directory) = directory(&directories, &at, &blocks).await? else {
            return Ok(None);
        };
        let Some(child) = child(&directory, name, &blocks).await? else {
            return Ok(None);
        };
        if let Some(capability) = child.capability {
            return Ok(Some(Published {
                capability,
                depth: depth + 1,
            }));
        }
        at = child.inode;
    }
    Ok(None)
}

pub(super) async fn read_root(
    public: &Cid,
    blocks: &dyn BlockSource,
) -> Result<PublicRoot, LookupFailure> {
    let block = blocks
        .block(public, None)
        .await?
        .ok_or_else(|| LookupFailure::Missing(public.clone()))?;
    Ok(PublicRoot::decode_shared(block.bytes())?)
}

pub(super) async fn directory(
    directories: &Champ,
    inode: &Inode,
    blocks: &dyn BlockSource,
) -> Result<Option<Directory>, LookupFailure> {
    let value = directories.get(&inode.encode(), blocks).await?;
    Ok(value.map(Directory::from_value).transpose()?)
}

pub(super) async fn child(
    directory: &Directory,
    name: &str,
    blocks: &dyn BlockSource,
) -> Result<Option<Child>, LookupFailure> {
    let child = match directory {
        Directory::Small(children) => {
            return Ok(children
                .iter()
                .find(|child| child.inode.name() == name)
                .cloned());
        }
        Directory::Big(champ) => champ.get(name.as_bytes(), blocks).await?,
    };
    let child = child.map(Child::from_value).transpose()?;
    // A champ says by its key under which name the child stands.
    match child {
        Some(child) if child.inode.name() != name => {
            Err(RecordError::OutOfRange { field: "n" }.into())
        }
        child => Ok(child),
    }
}

/// A source that gives out after so many blocks.
struct Bounded<'a> {
    inner: &'a dyn BlockSource,
    left: AtomicUsize,
}

#[async_trait::async_trait]
impl BlockSource for Bounded<'_> {
    async fn block(
        &self,
        cid: &Cid,
        token: Option<&BatWithId>,
    ) -> Result<Option<Block>, SourceError> {
        let took = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        if took.is_err() {
            return Err(SourceError::Rejected {
                cid: cid.clone(),
                reason: format!("more than {MAX_BLOCKS} blocks of a published tree"),
            });
        }
        self.inner.block(cid, token).await
    }
}
