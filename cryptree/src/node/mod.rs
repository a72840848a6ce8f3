//! The cryptree node: the encrypted record behind every chunk of a file and page of a directory
//! (Spec: 20 §3).
//!
//! Three parts under two or three keys: the base part leads down (to data or children) and on (to the next
//! node), the parent part leads up and tells the properties, the data part is the content. Rewriting one
//! part keeps the bytes of the others.

mod open;
mod parts;
mod seal;

pub use open::{Layout, OpenNode};
pub use parts::{BasePart, ParentPart};
pub use seal::{NodeParts, SealedNode};

use champ::{
    Block, BlockError,
    access::BatId,
    cbor::{Fields, Map, Record, RecordError, Value, decode_canonical},
};

use crate::ciphertext::{FragmentedPaddedCipherText, OpenError, PaddedCipherText, SealError};

/// Most access token ids of a node; writers make 0, 1 or 2.
const MAX_BATS: usize = 16;
/// Padding of the base part, in bytes.
const BASE_PADDING_BYTES: usize = 64;
/// Padding of the parent part, in bytes.
const PARENT_PADDING_BYTES: usize = 16;
/// The only version.
const VERSION: i64 = 1;

/// A node as it is stored: all that a server sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CryptreeNode {
    bats: Vec<BatId>,
    base: PaddedCipherText,
    parent: PaddedCipherText,
    data: FragmentedPaddedCipherText,
}

/// Why a node cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The block is not a node.
    #[error("block is not a cryptree node")]
    Malformed(#[from] RecordError),
    /// The capability does not open the node, or a part is damaged.
    #[error("can not read node")]
    CanNotRead(#[source] OpenError),
    /// The capability is good for the path only, not for content.
    #[error("capability gives no access to content")]
    PathOnly,
    /// A chunk of a file that is a directory node, or a directory page that is not.
    #[error("node is not of the expected kind")]
    WrongKind,
    /// A link node with other than one child.
    #[error("link node has {children} children")]
    LinkTargets {
        /// Children found.
        children: usize,
    },
    /// The signer behind a signer link does not belong to the writer.
    #[error("signer does not belong to the writer of the capability")]
    ForeignSigner,
    /// No write key in the capability.
    #[error("capability is read-only")]
    ReadOnly,
    /// The second key equals the read base key: official readers fail on such nodes.
    #[error("keys of a node must differ")]
    SharedKey,
    /// The data key is dirty: readers who lost access still have it, so nothing new is sealed under it.
    #[error("data key must be replaced before writing")]
    DirtyKey,
    /// The content does not fit.
    #[error("content can not be sealed")]
    Seal(#[from] SealError),
    /// The node does not fit a block.
    #[error("node does not fit a block")]
    Block(#[from] BlockError),
}

impl CryptreeNode {
    /// Decodes the block of a node: canonical CBOR, version 1.
    ///
    /// # Errors
    /// [`NodeError::Malformed`].
    pub fn of_block(block: &Block) -> Result<Self, NodeError> {
        let value = decode_canonical(block.bytes()).map_err(RecordError::from)?;
        Ok(Self::from_value(value)?)
    }

    /// Returns the block.
    ///
    /// # Errors
    /// [`NodeError::Block`] when it is too large.
    pub fn to_block(&self) -> Result<Block, NodeError> {
        Ok(Block::cbor(self.encode())?)
    }

    /// Returns the ids of the tokens with which the block may be fetched.
    pub fn bats(&self) -> &[BatId] {
        &self.bats
    }

    /// Returns the owner's mirror token id: the last of at least two.
    pub fn mirror_id(&self) -> Option<&BatId> {
        match self.bats.as_slice() {
            [_, .., mirror] => Some(mirror),
            _ => None,
        }
    }

    /// Returns the data part; its fragments must be fetched before it is opened.
    pub const fn data(&self) -> &FragmentedPaddedCipherText {
        &self.data
    }

    /// Returns the node with another data part.
    #[must_use]
    pub fn with_data(&self, data: FragmentedPaddedCipherText) -> Self {
        Self {
            data,
            ..self.clone()
        }
    }
}

impl Record for CryptreeNode {
    fn to_value(&self) -> Value {
        let mut map = Map::from_iter([
            ("v", Value::Int(VERSION)),
            ("b", self.base.to_value()),
            ("p", self.parent.to_value()),
            ("d", self.data.to_value()),
        ]);
        let bats: Vec<Value> = self.bats.iter().map(Record::to_value).collect();
        map.insert_some("bats", (!bats.is_empty()).then_some(bats));
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "cryptree node")?;
        if fields.required("v")?.into_int("v")? != VERSION {
            return Err(RecordError::OutOfRange { field: "v" });
        }
        let bats = fields
            .optional("bats")
            .map_or(Ok(Vec::new()), |v| v.into_list("bats"))?;
        if bats.len() > MAX_BATS {
            return Err(RecordError::OutOfRange { field: "bats" });
        }
        Ok(Self {
            bats: bats
                .into_iter()
                .map(BatId::from_value)
                .collect::<Result<_, _>>()?,
            base: PaddedCipherText::from_value(fields.required("b")?)?,
            parent: PaddedCipherText::from_value(fields.required("p")?)?,
            data: FragmentedPaddedCipherText::from_value(fields.required("d")?)?,
        })
    }
}

#[cfg(test)]
mod tests;
