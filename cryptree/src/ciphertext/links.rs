//! Keys sealed under other keys (Spec: 02 §7.3; 20 §2.4, §6.1).

use champ::cbor::{Record, RecordError, Value};
use pki::keys::SecretKeyWithHash;
use rand_core::CryptoRng;

use super::{CipherText, OpenError};
use crate::crypto::SymmetricKey;

/// A symmetric key sealed under another: whoever has the first key has the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymmetricLink(CipherText);

impl SymmetricLink {
    /// Seals `target` under `source`.
    pub fn seal(source: &SymmetricKey, target: &SymmetricKey, rng: &mut dyn CryptoRng) -> Self {
        Self(CipherText::seal(source, target, rng))
    }

    /// Returns the target.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, source: &SymmetricKey) -> Result<SymmetricKey, OpenError> {
        self.0.open(source)
    }
}

impl Record for SymmetricLink {
    fn to_value(&self) -> Value {
        self.0.to_value()
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        CipherText::from_value(value).map(Self)
    }
}

/// The secret signing key of a writing space, sealed under the write base key of its top item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerLink(CipherText);

impl SignerLink {
    /// Seals `signer` under `w_base`.
    pub fn seal(
        w_base: &SymmetricKey,
        signer: &SecretKeyWithHash,
        rng: &mut dyn CryptoRng,
    ) -> Self {
        Self(CipherText::seal(w_base, signer, rng))
    }

    /// Returns the signer; that it belongs to the writer of the capability is for the caller to check.
    ///
    /// # Errors
    /// [`OpenError`]; a secret key that does not belong to its hash is [`OpenError::Content`].
    pub fn open(&self, w_base: &SymmetricKey) -> Result<SecretKeyWithHash, OpenError> {
        self.0.open(w_base)
    }
}

impl Record for SignerLink {
    fn to_value(&self) -> Value {
        self.0.to_value()
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        CipherText::from_value(value).map(Self)
    }
}
