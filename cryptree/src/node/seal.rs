//! Making nodes, and new versions of nodes (Spec: 20 §3.2, §3.6).

use champ::{Block, access::BatId};
use rand_core::CryptoRng;

use super::{
    BASE_PADDING_BYTES, BasePart, CryptreeNode, Layout, NodeError, OpenNode, PARENT_PADDING_BYTES,
    ParentPart,
};
use crate::{
    ciphertext::{FragmentedPaddedCipherText, PaddedCipherText, SealedFragments},
    crypto::SymmetricKey,
    directory::ChildList,
};

/// What a new node consists of, apart from its data.
#[derive(Debug, Clone)]
pub struct NodeParts<'a> {
    /// How it is built.
    pub layout: Layout,
    /// Read base key.
    pub r_base: &'a SymmetricKey,
    /// Base part.
    pub base: &'a BasePart,
    /// Parent part.
    pub parent: &'a ParentPart,
    /// Who may fetch the block: the inline id of the node's own token, then the owner's mirror id.
    pub bats: Vec<BatId>,
}

/// A node and the fragment blocks that must be stored before it.
#[derive(Debug, Clone)]
pub struct SealedNode {
    /// The node.
    pub node: CryptreeNode,
    /// Fragment blocks of its data, in order.
    pub fragments: Vec<Block>,
}

impl CryptreeNode {
    /// Seals a node around data that is sealed already.
    ///
    /// # Errors
    /// [`NodeError::SharedKey`] when the second key equals the read base key.
    pub fn seal(
        parts: NodeParts<'_>,
        data: SealedFragments,
        rng: &mut dyn CryptoRng,
    ) -> Result<SealedNode, NodeError> {
        let NodeParts {
            layout,
            r_base,
            base,
            parent,
            bats,
        } = parts;
        if base.second_key.bytes() == r_base.bytes() {
            return Err(NodeError::SharedKey);
        }
        let parent_key = match layout {
            Layout::File => r_base,
            Layout::Directory => &base.second_key,
        };
        let node = Self {
            bats,
            base: PaddedCipherText::seal(r_base, base, BASE_PADDING_BYTES, rng),
            parent: PaddedCipherText::seal(parent_key, parent, PARENT_PADDING_BYTES, rng),
            data: data.record,
        };
        Ok(SealedNode {
            node,
            fragments: data.blocks,
        })
    }

    /// Seals a directory page.
    ///
    /// # Errors
    /// [`NodeError::SharedKey`], [`NodeError::Seal`].
    pub fn seal_page(
        parts: NodeParts<'_>,
        children: &ChildList,
        rng: &mut dyn CryptoRng,
    ) -> Result<SealedNode, NodeError> {
        let data = FragmentedPaddedCipherText::seal_record(
            parts.r_base,
            children,
            mirror(&parts.bats),
            rng,
        )?;
        Self::seal(parts, data, rng)
    }

    /// Seals a file chunk.
    ///
    /// # Errors
    /// [`NodeError::SharedKey`], [`NodeError::Seal`].
    pub fn seal_chunk(
        parts: NodeParts<'_>,
        content: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<SealedNode, NodeError> {
        let data = FragmentedPaddedCipherText::seal_bytes(
            &parts.base.second_key,
            content,
            mirror(&parts.bats),
            rng,
        )?;
        Self::seal(parts, data, rng)
    }
}

impl OpenNode {
    /// Returns the node with another parent part; the other parts keep their bytes.
    pub fn with_parent(&self, parent: &ParentPart, rng: &mut dyn CryptoRng) -> CryptreeNode {
        CryptreeNode {
            parent: PaddedCipherText::seal(self.parent_key(), parent, PARENT_PADDING_BYTES, rng),
            ..self.node().clone()
        }
    }

    /// Returns the node with another base part under the same keys; the other parts keep their bytes.
    ///
    /// # Errors
    /// [`NodeError::PathOnly`]; [`NodeError::SharedKey`] when the second key would change: that takes a new
    /// node.
    pub fn with_base(
        &self,
        base: &BasePart,
        rng: &mut dyn CryptoRng,
    ) -> Result<CryptreeNode, NodeError> {
        if base.second_key != self.base_part()?.second_key {
            return Err(NodeError::SharedKey);
        }
        Ok(CryptreeNode {
            base: PaddedCipherText::seal(self.r_base()?, base, BASE_PADDING_BYTES, rng),
            ..self.node().clone()
        })
    }

    /// Returns the page with another child list; the other parts keep their bytes.
    ///
    /// # Errors
    /// [`NodeError::WrongKind`] for a file, [`NodeError::PathOnly`], [`NodeError::Seal`].
    pub fn with_children(
        &self,
        children: &ChildList,
        rng: &mut dyn CryptoRng,
    ) -> Result<SealedNode, NodeError> {
        if self.layout() != Layout::Directory {
            return Err(NodeError::WrongKind);
        }
        let mirror = self.node().mirror_id();
        let data = FragmentedPaddedCipherText::seal_record(self.r_base()?, children, mirror, rng)?;
        Ok(self.with_sealed(data))
    }

    /// Returns the chunk with other content under the same data key, which must not be dirty; the other
    /// parts keep their bytes.
    ///
    /// # Errors
    /// [`NodeError::WrongKind`] for a directory node, [`NodeError::DirtyKey`] when the data key must be
    /// replaced first, [`NodeError::PathOnly`], [`NodeError::Seal`].
    pub fn with_content(
        &self,
        content: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<SealedNode, NodeError> {
        if self.layout() != Layout::File {
            return Err(NodeError::WrongKind);
        }
        let data_key = &self.base_part()?.second_key;
        if data_key.is_dirty() {
            return Err(NodeError::DirtyKey);
        }
        let mirror = self.node().mirror_id();
        let data = FragmentedPaddedCipherText::seal_bytes(data_key, content, mirror, rng)?;
        Ok(self.with_sealed(data))
    }

    fn with_sealed(&self, data: SealedFragments) -> SealedNode {
        SealedNode {
            node: self.node().with_data(data.record),
            fragments: data.blocks,
        }
    }
}

fn mirror(bats: &[BatId]) -> Option<&BatId> {
    match bats {
        [_, .., mirror] => Some(mirror),
        _ => None,
    }
}
