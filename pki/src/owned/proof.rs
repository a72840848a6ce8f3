//! Owner proofs (Spec: 04 §5.1).

use bytes::Bytes;
use champ::{
    BlockSource,
    cbor::{Fields, Map, Record, RecordError, Value},
};

use crate::keys::{
    PublicKeyHash, PublicSigningKey, ResolveError, SIGNATURE_BYTES, SecretKeyWithHash,
};

/// Longest signed statement that is read: a signature over a link to an inline key hash.
pub const MAX_PROOF_BYTES: usize = SIGNATURE_BYTES + 64;

/// A key's statement that it belongs to a parent: `{"o": link to the key, "p": attached signature}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerProof {
    owned: PublicKeyHash,
    signed_parent: Bytes,
}

/// A proof that proves nothing.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Signed by another key, or a statement about another parent.
    #[error("owner proof does not verify")]
    Invalid,
    /// The owned key could not be had from its hash.
    #[error("owner proof names a key that cannot be read")]
    Key(#[from] ResolveError),
}

impl OwnerProof {
    /// Makes the statement that `owned` belongs to `parent`.
    pub fn make(owned: &SecretKeyWithHash, parent: &PublicKeyHash) -> Self {
        Self {
            owned: owned.hash().clone(),
            signed_parent: owned.secret().sign_attached(&parent.encode()).into(),
        }
    }

    /// Returns the key that the proof says is owned; a claim until verified.
    pub const fn owned(&self) -> &PublicKeyHash {
        &self.owned
    }

    /// Returns the attached signature.
    pub const fn signed_parent(&self) -> &Bytes {
        &self.signed_parent
    }

    /// Verifies with a key that is already at hand.
    ///
    /// # Errors
    /// [`ProofError::Invalid`] when `key` is not the owned key, the signature is not its own, or the
    /// message is not exactly the link to `parent`.
    pub fn verify_with(
        &self,
        key: &PublicSigningKey,
        parent: &PublicKeyHash,
    ) -> Result<(), ProofError> {
        if !self.owned.names(key) || self.owned.is_placeholder() || parent.is_placeholder() {
            return Err(ProofError::Invalid);
        }
        let message = key
            .verify_attached(&self.signed_parent)
            .map_err(|_| ProofError::Invalid)?;
        if message == parent.encode() {
            Ok(())
        } else {
            Err(ProofError::Invalid)
        }
    }

    /// Verifies that the owned key belongs to `parent`; reads at most one block, the key.
    ///
    /// Dropping the future is safe.
    ///
    /// # Errors
    /// Any [`ProofError`].
    pub async fn verify(
        &self,
        parent: &PublicKeyHash,
        blocks: &dyn BlockSource,
    ) -> Result<(), ProofError> {
        let key = self.owned.resolve(blocks).await?;
        self.verify_with(&key, parent)
    }
}

impl Record for OwnerProof {
    fn to_value(&self) -> Value {
        Value::Map(Map::from_iter([
            ("o", self.owned.to_value()),
            ("p", Value::from(self.signed_parent.clone())),
        ]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "owner proof")?;
        let owned = PublicKeyHash::from_value(fields.required("o")?)?;
        let signed_parent = fields.required("p")?.into_bytes("p")?;
        if signed_parent.len() > MAX_PROOF_BYTES {
            return Err(RecordError::WrongLength {
                field: "p",
                actual: signed_parent.len(),
            });
        }
        Ok(Self {
            owned,
            signed_parent,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::keys::SecretSigningKey;

    fn key(n: u8) -> SecretKeyWithHash {
        SecretKeyWithHash::new(SecretSigningKey::from_seed(&[n; 32]))
    }

    fn verify(proof: &OwnerProof, parent: &PublicKeyHash) -> Result<(), ProofError> {
        let blocks = champ::MemoryBlocks::new();
        proof.verify(parent, &blocks).now_or_never().unwrap()
    }

    #[test]
    fn a_proof_is_by_the_owned_key_about_this_parent() {
        let (parent, child) = (key(1), key(2));
        let proof = OwnerProof::make(&child, parent.hash());
        assert_eq!(proof.signed_parent().len(), 109);
        assert!(verify(&proof, parent.hash()).is_ok());
        assert!(verify(&proof, key(3).hash()).is_err());
        assert!(verify(&proof, child.hash()).is_err());

        let forged = OwnerProof {
            owned: key(3).hash().clone(),
            signed_parent: proof.signed_parent.clone(),
        };
        assert!(verify(&forged, parent.hash()).is_err());
        // The parent cannot claim a key on its own.
        let claimed = OwnerProof {
            owned: child.hash().clone(),
            signed_parent: parent
                .secret()
                .sign_attached(&parent.hash().encode())
                .into(),
        };
        assert!(verify(&claimed, parent.hash()).is_err());
    }

    #[test]
    fn the_placeholder_is_nobody() {
        let nobody = PublicKeyHash::placeholder();
        let proof = OwnerProof::make(&key(2), &nobody);
        assert!(verify(&proof, &nobody).is_err());
        let owned = OwnerProof {
            owned: nobody,
            signed_parent: proof.signed_parent,
        };
        assert!(matches!(
            verify(&owned, key(1).hash()),
            Err(ProofError::Key(ResolveError::Placeholder))
        ));
    }

    #[test]
    fn oversized_statements_are_refused_when_read() {
        let record = |length| {
            OwnerProof::from_value(Value::Map(Map::from_iter([
                ("o", key(1).hash().to_value()),
                ("p", Value::from(vec![0; length])),
            ])))
        };
        assert!(record(MAX_PROOF_BYTES).is_ok());
        assert!(record(MAX_PROOF_BYTES + 1).is_err());
    }
}
