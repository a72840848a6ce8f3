//! Messages to another user (Spec: 02 §5.3).

use bytes::Bytes;
use champ::cbor::{Fields, Map, Record, RecordError, Value};
use pki::boxing::PublicBoxingKey;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::{OpenError, first_record};
use crate::crypto::{BoxError, SecretBoxingKey};

/// A box over the CBOR of a secret, with or without zeros after it: a byte string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsymmetricCipherText(Bytes);

impl AsymmetricCipherText {
    /// Seals a secret from `sender` to `recipient`.
    ///
    /// # Errors
    /// [`BoxError`].
    pub fn seal(
        secret: &impl Record,
        sender: &SecretBoxingKey,
        recipient: &PublicBoxingKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, BoxError> {
        Self::seal_padded(secret, 1, sender, recipient, rng)
    }

    /// Seals a secret, padded with zeros to a multiple of `block_bytes`, which its use fixes.
    ///
    /// # Errors
    /// [`BoxError`].
    pub fn seal_padded(
        secret: &impl Record,
        block_bytes: usize,
        sender: &SecretBoxingKey,
        recipient: &PublicBoxingKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, BoxError> {
        let mut message = Zeroizing::new(secret.encode());
        let padded = message.len().next_multiple_of(block_bytes.max(1));
        let mut whole = Zeroizing::new(Vec::with_capacity(padded));
        whole.append(&mut message);
        whole.resize(padded, 0);
        Ok(Self(sender.seal(&whole, recipient, rng)?.into()))
    }

    /// Opens a secret that `sender` sealed to `recipient`; padding after it is ignored.
    ///
    /// # Errors
    /// [`OpenError::Refused`] and [`OpenError::Content`].
    pub fn open<R: Record>(
        &self,
        recipient: &SecretBoxingKey,
        sender: &PublicBoxingKey,
    ) -> Result<R, OpenError> {
        let mut message = recipient.open(&self.0, sender)?;
        first_record(std::mem::take(&mut *message))
    }
}

impl Record for AsymmetricCipherText {
    fn to_value(&self) -> Value {
        Value::Bytes(self.0.clone())
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        value.into_bytes("asymmetric cipher text").map(Self)
    }
}

/// An asymmetric cipher text with the key of its sender: `{"c", "k"}`.
///
/// Anyone can name any sender whose secret key he has; who that is must be found out elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcedCipherText {
    /// The sender's key.
    pub sender: PublicBoxingKey,
    /// The message.
    pub cipher_text: AsymmetricCipherText,
}

impl SourcedCipherText {
    /// Opens the secret that was sealed to `recipient`.
    ///
    /// # Errors
    /// [`OpenError::Refused`] and [`OpenError::Content`].
    pub fn open<R: Record>(&self, recipient: &SecretBoxingKey) -> Result<R, OpenError> {
        self.cipher_text.open(recipient, &self.sender)
    }
}

impl Record for SourcedCipherText {
    fn to_value(&self) -> Value {
        Value::Map(Map::from_iter([
            ("c", self.cipher_text.to_value()),
            ("k", self.sender.to_value()),
        ]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "sourced cipher text")?;
        Ok(Self {
            cipher_text: AsymmetricCipherText::from_value(fields.required("c")?)?,
            sender: PublicBoxingKey::from_value(fields.required("k")?)?,
        })
    }
}
