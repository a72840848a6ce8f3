//! File chunks (Spec: 20 §7, 21 §9.2).

use champ::{
    Block,
    access::{Bat, BatId},
};
use pki::keys::SecretKeyWithHash;
use rand_core::CryptoRng;

use crate::{
    capability::RelativeCapability,
    chunk_chain::{ChunkPlace, StreamSecret},
    ciphertext::{FragmentedPaddedCipherText, SealedFragments, SignerLink},
    directory::{ItemKeys, page_bats},
    node::{BasePart, CryptreeNode, Layout, NodeError, NodeParts, ParentPart, SealedNode},
    properties::FileProperties,
};

/// A chunk to be made.
#[derive(Debug, Clone)]
pub struct NewChunk<'a> {
    /// Keys of the file.
    pub keys: &'a ItemKeys,
    /// Its stream secret.
    pub stream_secret: &'a StreamSecret,
    /// Where this chunk goes.
    pub place: &'a ChunkPlace,
    /// Properties, with the tree hash branch of this chunk if it carries one.
    pub properties: FileProperties,
    /// The containing directory.
    pub parent: Option<RelativeCapability>,
    /// The writing space's signing key: only on chunk 0 of a file that is its top item.
    pub signer: Option<&'a SecretKeyWithHash>,
    /// The owner's mirror token id.
    pub mirror: Option<&'a BatId>,
}

impl NewChunk<'_> {
    /// Seals up to 5 MiB of content.
    ///
    /// # Errors
    /// [`NodeError::Seal`] for too much content, [`NodeError::SharedKey`].
    pub fn seal(self, content: &[u8], rng: &mut dyn CryptoRng) -> Result<SealedNode, NodeError> {
        let data_key = &self.keys.second_key;
        let data = FragmentedPaddedCipherText::seal_bytes(data_key, content, self.mirror, rng)?;
        let sealed = self.seal_around(data.record, rng)?;
        Ok(SealedNode {
            fragments: data.blocks,
            ..sealed
        })
    }

    /// Seals a chunk around content that is sealed already, under the data key of the file. No fragments are returned.
    ///
    /// # Errors
    /// [`NodeError::SharedKey`].
    pub fn seal_around(
        self,
        data: FragmentedPaddedCipherText,
        rng: &mut dyn CryptoRng,
    ) -> Result<SealedNode, NodeError> {
        let keys = self.keys;
        let next = self.place.next(self.stream_secret);
        let base = BasePart {
            second_key: keys.second_key.clone(),
            next: RelativeCapability::read_only(next.map_key, next.bat, keys.r_base.clone()),
            signer: self
                .signer
                .map(|signer| SignerLink::seal(&keys.w_base, signer, rng)),
        };
        let parent = ParentPart {
            parent: self.parent,
            properties: self.properties,
        };
        let bats = |own: &Bat| page_bats(own, self.mirror);
        let parts = NodeParts {
            layout: Layout::File,
            r_base: &keys.r_base,
            base: &base,
            parent: &parent,
            bats: self.place.bat.as_ref().map(bats).unwrap_or_default(),
        };
        let data = SealedFragments {
            record: data,
            blocks: Vec::new(),
        };
        CryptreeNode::seal(parts, data, rng)
    }
}

impl SealedNode {
    /// Returns the block of the node.
    ///
    /// # Errors
    /// [`NodeError::Block`] when it is too large.
    pub fn block(&self) -> Result<Block, NodeError> {
        self.node.to_block()
    }
}
