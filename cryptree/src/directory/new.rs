//! New items and pages (Spec: 20 §4.1, §4.2).

use champ::access::{Bat, BatId};
use pki::keys::{Owner, SecretKeyWithHash, Writer};
use rand_core::CryptoRng;

use super::ChildList;
use crate::{
    capability::{AbsoluteCapability, MapKey, RelativeCapability},
    ciphertext::SignerLink,
    crypto::SymmetricKey,
    node::{BasePart, CryptreeNode, Layout, NodeError, NodeParts, ParentPart, SealedNode},
    properties::FileProperties,
};

/// The secrets and place of a new file or directory, all freshly drawn, none ever used for another item.
#[derive(Debug, Clone)]
pub struct ItemKeys {
    /// Opens the node for reading.
    pub r_base: SymmetricKey,
    /// Opens links to write keys.
    pub w_base: SymmetricKey,
    /// Parent key of a directory, data key of a file.
    pub second_key: SymmetricKey,
    /// CHAMP key of the first node.
    pub map_key: MapKey,
    /// Token of the first node.
    pub bat: Bat,
}

impl ItemKeys {
    /// Draws fresh keys and a fresh place.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        Self {
            r_base: SymmetricKey::random(rng),
            w_base: SymmetricKey::random(rng),
            second_key: SymmetricKey::random(rng),
            map_key: MapKey::random(rng),
            bat: Bat::random(rng),
        }
    }

    /// Returns the writable capability.
    pub fn capability(&self, owner: Owner, writer: Writer) -> AbsoluteCapability {
        AbsoluteCapability {
            owner,
            writer,
            map_key: self.map_key,
            bat: Some(self.bat.clone()),
            r_base: self.r_base.clone(),
            w_base: Some(self.w_base.clone()),
        }
    }

    /// Returns the link that children in the same writing space hold to this directory: with its parent
    /// key, not its read base key.
    pub fn as_parent_link(&self) -> RelativeCapability {
        RelativeCapability::read_only(
            self.map_key,
            Some(self.bat.clone()),
            self.second_key.clone(),
        )
    }
}

/// Returns the token ids of a node: its own inline id, then the owner's mirror id.
pub fn page_bats(own: &Bat, mirror: Option<&BatId>) -> Vec<BatId> {
    let mut ids = vec![own.inline_id()];
    ids.extend(mirror.cloned());
    ids
}

/// A directory page to be made: the first, or a continuation.
#[derive(Debug, Clone)]
pub struct NewPage<'a> {
    /// Keys of the directory; on a continuation page its place is used for this page.
    pub keys: &'a ItemKeys,
    /// Properties; for a link node the target's with the link mark.
    pub properties: FileProperties,
    /// The containing directory; none for a home directory.
    pub parent: Option<RelativeCapability>,
    /// The writing space's signing key, when the directory is its top item.
    pub signer: Option<&'a SecretKeyWithHash>,
    /// The owner's mirror token id.
    pub mirror: Option<&'a BatId>,
}

impl NewPage<'_> {
    /// Seals the page; the place of the next page is drawn at random.
    ///
    /// # Errors
    /// [`NodeError::Seal`] for more children than fit, [`NodeError::SharedKey`].
    pub fn seal(
        self,
        children: &ChildList,
        rng: &mut dyn CryptoRng,
    ) -> Result<SealedNode, NodeError> {
        let keys = self.keys;
        let base = BasePart {
            second_key: keys.second_key.clone(),
            next: RelativeCapability::read_only(
                MapKey::random(rng),
                Some(Bat::random(rng)),
                keys.r_base.clone(),
            ),
            signer: self
                .signer
                .map(|signer| SignerLink::seal(&keys.w_base, signer, rng)),
        };
        let parent = ParentPart {
            parent: self.parent,
            properties: self.properties,
        };
        let parts = NodeParts {
            layout: Layout::Directory,
            r_base: &keys.r_base,
            base: &base,
            parent: &parent,
            bats: page_bats(&keys.bat, self.mirror),
        };
        CryptreeNode::seal_page(parts, children, rng)
    }
}

impl ItemKeys {
    /// Returns the keys for the page after one whose base part is `base`: same keys, its `next` place.
    ///
    /// A legacy page without a token for the next gets a fresh one.
    #[must_use]
    pub fn continuation(
        r_base: &SymmetricKey,
        w_base: &SymmetricKey,
        base: &BasePart,
        rng: &mut dyn CryptoRng,
    ) -> Self {
        Self {
            r_base: r_base.clone(),
            w_base: w_base.clone(),
            second_key: base.second_key.clone(),
            map_key: base.next.map_key,
            bat: base.next.bat.clone().unwrap_or_else(|| Bat::random(rng)),
        }
    }
}
