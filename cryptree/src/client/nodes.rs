//! Nodes as the operations use them: opened with a capability, made, and made anew (Spec: 20 §3, §4, §7).

use std::sync::Arc;

use bytes::Bytes;
use champ::{
    Block, Cid,
    access::{Bat, BatId},
};
use pki::keys::SecretKeyWithHash;
use rand_core::CryptoRng;

use crate::{
    capability::{AbsoluteCapability, ChildEntry, MapKey, RelativeCapability},
    ciphertext::Fragment,
    crypto::SymmetricKey,
    directory::{ChildList, ItemKeys, NewPage},
    error::ClientError,
    file::NewChunk,
    node::{CryptreeNode, Layout, NodeError, OpenNode, ParentPart, SealedNode},
    properties::FileProperties,
};

/// A node fetched and opened.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    /// What opened it; its location is the node's.
    pub(crate) capability: AbsoluteCapability,
    /// The block it was read from: what a write must find in the tree.
    pub(crate) cid: Cid,
    pub(crate) properties: FileProperties,
    open: Arc<OpenNode>,
}

/// A node to be put into the tree.
#[derive(Debug, Clone)]
pub(crate) struct NewNode {
    pub(crate) key: MapKey,
    pub(crate) block: Block,
    pub(crate) fragments: Vec<Block>,
}

impl NewNode {
    fn sealed(key: MapKey, sealed: SealedNode) -> Result<Self, ClientError> {
        Ok(Self {
            key,
            block: sealed.node.to_block()?,
            fragments: sealed.fragments,
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        let fragments: usize = self.fragments.iter().map(|b| b.bytes().len()).sum();
        self.block.bytes().len() + fragments
    }
}

impl Opened {
    /// Decodes and opens a verified block.
    ///
    /// # Errors
    /// [`ClientError::CannotRead`].
    pub(crate) fn open(
        block: &Block,
        capability: &AbsoluteCapability,
    ) -> Result<Self, ClientError> {
        let open = CryptreeNode::of_block(block)?.open(&capability.r_base)?;
        // A key that opens the way up only gives no children and no content.
        open.r_base()?;
        Ok(Self {
            capability: capability.clone(),
            cid: block.cid().clone(),
            properties: open.properties().clone(),
            open: Arc::new(open),
        })
    }

    pub(crate) fn is_directory_layout(&self) -> bool {
        self.open.layout() == Layout::Directory
    }

    /// Returns the fragments of the data part.
    pub(crate) fn fragments(&self) -> &[Fragment] {
        self.open.node().data().fragments()
    }

    /// Returns where the next page or chunk is or would be, as the node says.
    pub(crate) fn next(&self) -> (MapKey, Option<Bat>) {
        match self.open.base_part() {
            Ok(base) => (base.next.map_key, base.next.bat.clone()),
            // Opening made sure that the base part is there.
            Err(_) => (self.capability.map_key, None),
        }
    }

    /// Returns the mirror token id that new blocks beside this one should carry.
    pub(crate) fn mirror(&self) -> Option<&BatId> {
        self.open.node().mirror_id()
    }

    pub(crate) fn parent_link(&self) -> Option<&RelativeCapability> {
        self.open.parent_link()
    }

    /// Returns the signing key behind the node's own signer link.
    ///
    /// # Errors
    /// [`ClientError::CannotRead`] when what is there does not belong to the capability's writer.
    pub(crate) fn signer(&self) -> Result<Option<SecretKeyWithHash>, ClientError> {
        if !self.capability.is_writable() {
            return Ok(None);
        }
        Ok(self.open.signer(&self.capability)?)
    }

    /// Returns true when the node itself holds the signing key of its writing space.
    pub(crate) fn starts_space(&self) -> bool {
        self.open
            .base_part()
            .is_ok_and(|base| base.signer.is_some())
    }

    pub(crate) fn children(&self, fragments: &[Block]) -> Result<ChildList, ClientError> {
        Ok(self.open.children(fragments)?)
    }

    pub(crate) fn content(&self, fragments: &[Block]) -> Result<Bytes, ClientError> {
        Ok(self.open.file_data(fragments)?)
    }

    /// Returns the link that nodes below carry to find the way up.
    pub(crate) fn link_from_below(&self, child_writer: &pki::keys::Writer) -> RelativeCapability {
        let capability = &self.capability;
        let mut link = RelativeCapability::read_only(
            capability.map_key,
            capability.bat.clone(),
            self.open.parent_key().clone(),
        );
        link.writer = (*child_writer != capability.writer).then(|| capability.writer.clone());
        link
    }

    /// Returns the node with another child list.
    pub(crate) fn with_children(
        &self,
        children: &ChildList,
        rng: &mut dyn CryptoRng,
    ) -> Result<NewNode, ClientError> {
        let sealed = self.open.with_children(children, rng)?;
        NewNode::sealed(self.capability.map_key, sealed)
    }

    /// Returns the node with other properties, and another way up when `parent` is given.
    pub(crate) fn with_properties(
        &self,
        properties: FileProperties,
        parent: Option<RelativeCapability>,
        rng: &mut dyn CryptoRng,
    ) -> Result<NewNode, ClientError> {
        let part = ParentPart {
            parent: parent.or_else(|| self.parent_link().cloned()),
            properties,
        };
        Ok(NewNode {
            key: self.capability.map_key,
            block: self.open.with_parent(&part, rng).to_block()?,
            fragments: Vec::new(),
        })
    }

    /// Returns the key of a file's content.
    pub(crate) fn data_key(&self) -> Result<SymmetricKey, ClientError> {
        Ok(self.open.base_part()?.second_key.clone())
    }

    /// Returns the chunk with other content and properties, under the same keys and at the same place.
    pub(crate) fn with_content(
        &self,
        content: &[u8],
        properties: FileProperties,
        rng: &mut dyn CryptoRng,
    ) -> Result<NewNode, ClientError> {
        let sealed = self.open.with_content(content, rng)?;
        let part = ParentPart {
            parent: self.parent_link().cloned(),
            properties,
        };
        let data = sealed.node.data().clone();
        let node = self.open.with_parent(&part, rng).with_data(data);
        let fragments = sealed.fragments;
        NewNode::sealed(self.capability.map_key, SealedNode { node, fragments })
    }

    /// Returns the chunk around the same sealed content, at another place and under other outer keys. The data key of
    /// `chunk` must be the one the content is sealed under.
    pub(crate) fn moved(
        &self,
        chunk: NewChunk<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<NewNode, ClientError> {
        let key = chunk.place.map_key;
        let data = self.open.node().data().clone();
        NewNode::sealed(key, chunk.seal_around(data, rng)?)
    }

    /// Returns the page after this last one, for children that found no room. `self` is any page of the folder.
    pub(crate) fn continuation(
        &self,
        first: &Self,
        children: &ChildList,
        rng: &mut dyn CryptoRng,
    ) -> Result<NewNode, ClientError> {
        let capability = &first.capability;
        let unused = || SymmetricKey::random(rng);
        let w_base = capability.w_base.clone().unwrap_or_else(unused);
        let base = self.open.base_part()?;
        let mut keys = ItemKeys::continuation(&capability.r_base, &w_base, base, rng);
        keys.second_key = first.open.parent_key().clone();
        let page = NewPage {
            keys: &keys,
            properties: FileProperties::continuation_page(),
            parent: first.parent_link().cloned(),
            signer: None,
            mirror: self.mirror(),
        };
        NewNode::sealed(keys.map_key, page.seal(children, rng)?)
    }
}

/// Seals the first page of a new directory.
///
/// `up` is the folder it is in; `signer` is sealed into it when it starts a writing space.
pub(crate) fn new_directory(
    keys: &ItemKeys,
    properties: FileProperties,
    up: Option<RelativeCapability>,
    signer: Option<&SecretKeyWithHash>,
    mirror: Option<&BatId>,
    children: &ChildList,
    rng: &mut dyn CryptoRng,
) -> Result<NewNode, ClientError> {
    let page = NewPage {
        keys,
        properties,
        parent: up,
        signer,
        mirror,
    };
    NewNode::sealed(keys.map_key, page.seal(children, rng)?)
}

/// Seals one chunk of a file.
pub(crate) fn new_chunk(
    chunk: NewChunk<'_>,
    content: &[u8],
    rng: &mut dyn CryptoRng,
) -> Result<NewNode, ClientError> {
    let key = chunk.place.map_key;
    NewNode::sealed(key, chunk.seal(content, rng)?)
}

/// Makes the entry of `target` in the folder `folder`.
pub(crate) fn entry(
    folder: &AbsoluteCapability,
    target: &AbsoluteCapability,
    properties: &FileProperties,
    rng: &mut dyn CryptoRng,
) -> Result<ChildEntry, ClientError> {
    let capability = RelativeCapability::between(folder, target, rng)
        .map_err(|_| ClientError::Internal("a child entry could not be made"))?;
    Ok(ChildEntry {
        name: properties.name.clone(),
        is_directory: Some(properties.is_directory),
        mime_type: Some(properties.mime_type.clone()),
        created_epoch_seconds: Some(properties.created.epoch_seconds()),
        capability,
        unknown: champ::cbor::Map::new(),
    })
}

impl From<NodeError> for ClientError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::ReadOnly => Self::ReadOnly {
                path: "this item".to_owned(),
            },
            NodeError::Seal(_) | NodeError::Block(_) | NodeError::SharedKey => {
                Self::Internal("a node could not be sealed")
            }
            _ => Self::cannot_read("a file or folder"),
        }
    }
}
