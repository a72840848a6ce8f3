//! Blocks: immutable bytes named by their hash (Spec: 01 §4).

mod source;

pub use source::{BlockSource, MemoryBlocks, Overlay, SourceError};

use bytes::Bytes;

use crate::cid::{Cid, Codec, HashCode};

/// Largest block: a 1 MiB fragment and its access prefix (Spec: 01 §4).
pub const MAX_BLOCK_BYTES: usize = (1 << 20) + 100;

/// A block whose bytes have been checked against its CID.
///
/// The only ways to make one are to hash bytes or to compare them with a CID, so whoever is handed a
/// `Block` may parse it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    cid: Cid,
    bytes: Bytes,
}

/// Bytes that cannot be a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The bytes do not hash to the CID they were said to have.
    #[error("block bytes do not match {0}")]
    HashMismatch(Cid),
    /// More than [`MAX_BLOCK_BYTES`].
    #[error("block of {actual} bytes is larger than {MAX_BLOCK_BYTES}")]
    TooLarge {
        /// Length in bytes.
        actual: usize,
    },
    /// A CID that names no fetchable block: wrong codec or a hash that is never trusted.
    #[error("{0} does not name a block")]
    NotABlock(Cid),
}

impl Block {
    /// Hashes `bytes` as a raw block.
    ///
    /// # Errors
    /// [`BlockError::TooLarge`].
    pub fn raw(bytes: impl Into<Bytes>) -> Result<Self, BlockError> {
        let bytes = limited(bytes.into())?;
        Ok(Self {
            cid: Cid::of_raw(&bytes),
            bytes,
        })
    }

    /// Hashes `bytes` as a dag-cbor block; that they are canonical CBOR is for the caller to know.
    ///
    /// # Errors
    /// [`BlockError::TooLarge`].
    pub fn cbor(bytes: impl Into<Bytes>) -> Result<Self, BlockError> {
        let bytes = limited(bytes.into())?;
        Ok(Self {
            cid: Cid::of_cbor(&bytes),
            bytes,
        })
    }

    /// Checks `bytes` against `cid`.
    ///
    /// # Errors
    /// [`BlockError::HashMismatch`], [`BlockError::TooLarge`], and [`BlockError::NotABlock`] for a CID that
    /// is not version 1 raw or dag-cbor under sha2-256 or identity.
    pub fn verified(cid: Cid, bytes: impl Into<Bytes>) -> Result<Self, BlockError> {
        if !is_block_cid(&cid) {
            return Err(BlockError::NotABlock(cid));
        }
        let bytes = limited(bytes.into())?;
        if !cid.matches(&bytes) {
            return Err(BlockError::HashMismatch(cid));
        }
        Ok(Self { cid, bytes })
    }

    /// Returns the block inside an identity CID (Spec: 01 §3.3).
    pub fn inline(cid: &Cid) -> Option<Self> {
        let content = cid.identity_content()?;
        is_block_cid(cid).then(|| Self {
            cid: cid.clone(),
            bytes: Bytes::copy_from_slice(content),
        })
    }

    /// Returns the CID.
    pub const fn cid(&self) -> &Cid {
        &self.cid
    }

    /// Returns the bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns CID and bytes.
    pub fn into_parts(self) -> (Cid, Bytes) {
        (self.cid, self.bytes)
    }
}

/// Returns true when `cid` can name a block: version 1, raw or dag-cbor, sha2-256 or identity.
pub fn is_block_cid(cid: &Cid) -> bool {
    matches!(cid.codec(), Codec::Raw | Codec::DagCbor)
        && matches!(cid.hash().code(), HashCode::Sha2_256 | HashCode::Identity)
}

fn limited(bytes: Bytes) -> Result<Bytes, BlockError> {
    if bytes.len() > MAX_BLOCK_BYTES {
        return Err(BlockError::TooLarge {
            actual: bytes.len(),
        });
    }
    Ok(bytes)
}
