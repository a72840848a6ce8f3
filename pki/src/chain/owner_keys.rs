//! Keys of claim owners, for chains that name some of them by block (Spec: 10 §3).

use std::collections::HashMap;

use champ::{Block, BlockSource, cbor::RecordError};

use super::ClaimChain;
use crate::keys::{Owner, PublicKeyHash, PublicSigningKey};

/// Keys that were fetched beforehand; keys inside their hash need not be in here.
///
/// Keeps the rules of chains free of I/O: whoever can read blocks calls [`OwnerKeys::gather`] first.
#[derive(Debug, Clone, Default)]
pub struct OwnerKeys {
    fetched: HashMap<PublicKeyHash, PublicSigningKey>,
}

impl OwnerKeys {
    /// Knows no key but those inside their hash.
    pub fn inline_only() -> Self {
        Self::default()
    }

    /// Adds the key that `hash` names.
    ///
    /// # Errors
    /// [`RecordError`] when the block is not the one named or holds no signing key.
    pub fn insert(&mut self, hash: &PublicKeyHash, block: &Block) -> Result<(), RecordError> {
        let key = hash.key_in(block)?;
        self.fetched.insert(hash.clone(), key);
        Ok(())
    }

    /// Returns the key hashes of a chain that have to be fetched, each as a block of that owner.
    pub fn missing<'a>(&self, chain: &'a ClaimChain) -> impl Iterator<Item = &'a Owner> {
        chain
            .links()
            .iter()
            .map(|link| &link.owner)
            .filter(|owner| self.resolve(owner).is_none())
    }

    /// Fetches what is [missing](Self::missing); a key that cannot be had leaves its claim invalid.
    ///
    /// Dropping the future is safe.
    pub async fn gather(&mut self, chain: &ClaimChain, blocks: &dyn BlockSource) {
        let missing: Vec<_> = self.missing(chain).cloned().collect();
        for owner in missing {
            if let Ok(key) = owner.hash().resolve(blocks).await {
                self.fetched.insert(owner.0, key);
            }
        }
    }

    /// Returns the key of a claim's owner.
    pub fn resolve(&self, owner: &Owner) -> Option<PublicSigningKey> {
        owner
            .hash()
            .inline_key()
            .or_else(|| self.fetched.get(owner.hash()).cloned())
    }
}
