//! Opening a node (Spec: 20 §3.5, §3.7).

use bytes::Bytes;
use champ::Block;
use pki::keys::SecretKeyWithHash;

use super::{BasePart, CryptreeNode, NodeError, ParentPart};
use crate::{
    capability::{AbsoluteCapability, RelativeCapability},
    crypto::SymmetricKey,
    directory::ChildList,
    properties::FileProperties,
};

/// How a node is built; a link node to a file is built like a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The parent key is the read base key; data under a data key.
    File,
    /// The parent key is of its own; children under the read base key.
    Directory,
}

/// A node and what one key opens of it.
#[derive(Debug, Clone)]
pub struct OpenNode {
    node: CryptreeNode,
    key: SymmetricKey,
    layout: Layout,
    parent_key: SymmetricKey,
    parent: ParentPart,
    base: Option<BasePart>,
}

impl CryptreeNode {
    /// Opens the node with the read base key, or with its parent key for path and properties only.
    ///
    /// # Errors
    /// [`NodeError::CanNotRead`] when `key` is neither, or what it opens is malformed.
    pub fn open(self, key: &SymmetricKey) -> Result<OpenNode, NodeError> {
        let can_not_read = NodeError::CanNotRead;
        if let Ok(parent) = self.parent.open::<ParentPart>(key) {
            // The key of a file, or the parent key of a directory (which does not open the base part).
            let base = self.base.open::<BasePart>(key).ok();
            let layout = match (&base, parent.properties.is_directory) {
                (_, true) => Layout::Directory,
                (Some(_), false) => Layout::File,
                // A damaged file, or a link node to a file seen from below.
                (None, false) => Layout::Directory,
            };
            return Ok(OpenNode {
                key: key.clone(),
                layout,
                parent_key: key.clone(),
                parent,
                base,
                node: self,
            });
        }
        let base: BasePart = self.base.open(key).map_err(can_not_read)?;
        let parent = self.parent.open(&base.second_key).map_err(can_not_read)?;
        Ok(OpenNode {
            key: key.clone(),
            layout: Layout::Directory,
            parent_key: base.second_key.clone(),
            parent,
            base: Some(base),
            node: self,
        })
    }
}

impl OpenNode {
    /// Returns the node as it is stored.
    pub const fn node(&self) -> &CryptreeNode {
        &self.node
    }

    /// Returns how the node is built.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Returns the properties.
    pub const fn properties(&self) -> &FileProperties {
        &self.parent.properties
    }

    /// Returns the parent part.
    pub const fn parent_part(&self) -> &ParentPart {
        &self.parent
    }

    /// Returns the link to the containing directory.
    pub const fn parent_link(&self) -> Option<&RelativeCapability> {
        self.parent.parent.as_ref()
    }

    /// Returns the key under which the parent part is sealed; children's parent links hold it.
    pub const fn parent_key(&self) -> &SymmetricKey {
        &self.parent_key
    }

    /// Returns the read base key.
    ///
    /// # Errors
    /// [`NodeError::PathOnly`] when the node was opened with its parent key.
    pub fn r_base(&self) -> Result<&SymmetricKey, NodeError> {
        self.base
            .as_ref()
            .map(|_| &self.key)
            .ok_or(NodeError::PathOnly)
    }

    /// Returns the base part.
    ///
    /// # Errors
    /// [`NodeError::PathOnly`] when the node was opened with its parent key.
    pub fn base_part(&self) -> Result<&BasePart, NodeError> {
        self.base.as_ref().ok_or(NodeError::PathOnly)
    }

    /// Opens the child list; `blocks` are the fragments of [`CryptreeNode::data`].
    ///
    /// # Errors
    /// [`NodeError::WrongKind`] for a file, [`NodeError::PathOnly`], [`NodeError::CanNotRead`].
    pub fn children(&self, blocks: &[Block]) -> Result<ChildList, NodeError> {
        if self.layout != Layout::Directory {
            return Err(NodeError::WrongKind);
        }
        self.node
            .data
            .open_record(self.r_base()?, blocks)
            .map_err(NodeError::CanNotRead)
    }

    /// Opens the data of a file chunk as stored; `blocks` are the fragments of [`CryptreeNode::data`].
    ///
    /// Cut or fill it with [`fit_chunk`](crate::chunk_chain::fit_chunk).
    ///
    /// # Errors
    /// [`NodeError::WrongKind`] for a directory node, [`NodeError::PathOnly`], [`NodeError::CanNotRead`].
    pub fn file_data(&self, blocks: &[Block]) -> Result<Bytes, NodeError> {
        if self.base.is_some() && self.layout != Layout::File {
            return Err(NodeError::WrongKind);
        }
        self.node
            .data
            .open_bytes(&self.base_part()?.second_key, blocks)
            .map_err(NodeError::CanNotRead)
    }

    /// Returns the signing key of the writing space, when this node holds it.
    ///
    /// `None` means: use the signer of the nearest ancestor in the same writing space.
    ///
    /// # Errors
    /// [`NodeError::ReadOnly`] when `capability` has no write key, [`NodeError::ForeignSigner`] when what is
    /// sealed here is not the key of the capability's writer, [`NodeError::CanNotRead`].
    pub fn signer(
        &self,
        capability: &AbsoluteCapability,
    ) -> Result<Option<SecretKeyWithHash>, NodeError> {
        let Some(link) = &self.base_part()?.signer else {
            return Ok(None);
        };
        let w_base = capability.w_base.as_ref().ok_or(NodeError::ReadOnly)?;
        let signer = link.open(w_base).map_err(NodeError::CanNotRead)?;
        let ours = signer.writer() == capability.writer
            && capability.writer.hash().names(&signer.secret().public());
        if ours {
            Ok(Some(signer))
        } else {
            Err(NodeError::ForeignSigner)
        }
    }
}
