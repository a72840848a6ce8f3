//! Nonce and secret box, with and without padding (Spec: 02 §7.3).

use bytes::Bytes;
use champ::cbor::{Record, RecordError, Value};
use pki::wire::login_data::OpaqueCipherText;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::{OpenError, first_record};
use crate::crypto::{Nonce, SymmetricKey, secretbox};

/// A secret box over exactly the CBOR of a secret: `[nonce, cipher]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CipherText {
    nonce: Nonce,
    cipher: Bytes,
}

impl CipherText {
    /// Seals a secret under a fresh nonce.
    pub fn seal(key: &SymmetricKey, secret: &impl Record, rng: &mut dyn CryptoRng) -> Self {
        Self::of_plaintext(key, &Zeroizing::new(secret.encode()), rng)
    }

    /// Opens and decodes the secret.
    ///
    /// # Errors
    /// [`OpenError::Refused`] and [`OpenError::Content`].
    pub fn open<R: Record>(&self, key: &SymmetricKey) -> Result<R, OpenError> {
        first_record(secretbox::open(key, &self.nonce, &self.cipher)?)
    }

    /// Makes the record of a nonce and a secret box that arrived in another record.
    pub const fn from_parts(nonce: Nonce, cipher: Bytes) -> Self {
        Self { nonce, cipher }
    }

    /// Returns the nonce.
    pub const fn nonce(&self) -> &Nonce {
        &self.nonce
    }

    /// Returns tag and cipher text.
    pub const fn cipher(&self) -> &Bytes {
        &self.cipher
    }

    fn of_plaintext(key: &SymmetricKey, plaintext: &[u8], rng: &mut dyn CryptoRng) -> Self {
        let nonce = Nonce::random(rng);
        Self {
            cipher: secretbox::seal(key, &nonce, plaintext).into(),
            nonce,
        }
    }
}

impl Record for CipherText {
    fn to_value(&self) -> Value {
        Value::List(vec![
            Value::from(self.nonce.bytes()),
            Value::Bytes(self.cipher.clone()),
        ])
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut items = value.into_list("cipher text")?.into_iter();
        let mut next = || items.next().ok_or(RecordError::Missing("cipher text"));
        Ok(Self {
            nonce: Nonce::received(next()?.into_array("nonce")?),
            cipher: next()?.into_bytes("cipher text")?,
        })
    }
}

/// What a server hands out without looking into it.
impl From<OpaqueCipherText> for CipherText {
    fn from(opaque: OpaqueCipherText) -> Self {
        Self::from_parts(Nonce::received(opaque.nonce), opaque.cipher)
    }
}

impl From<CipherText> for OpaqueCipherText {
    fn from(cipher_text: CipherText) -> Self {
        Self {
            nonce: *cipher_text.nonce.bytes(),
            cipher: cipher_text.cipher,
        }
    }
}

/// A secret box over the CBOR of a secret and zeros up to a multiple of a block size.
///
/// The block size is not recorded; each use fixes its own, and only writing needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaddedCipherText(CipherText);

impl PaddedCipherText {
    /// Seals a secret, padded to a multiple of `block_bytes`, under a fresh nonce.
    ///
    /// Nothing is added when the length is a multiple already.
    pub fn seal(
        key: &SymmetricKey,
        secret: &impl Record,
        block_bytes: usize,
        rng: &mut dyn CryptoRng,
    ) -> Self {
        let mut plaintext = Zeroizing::new(secret.encode());
        let padded = plaintext.len().next_multiple_of(block_bytes.max(1));
        // Growing in place would leave an unwiped copy behind.
        let mut whole = Zeroizing::new(Vec::with_capacity(padded));
        whole.append(&mut plaintext);
        whole.resize(padded, 0);
        Self(CipherText::of_plaintext(key, &whole, rng))
    }

    /// Returns nonce and secret box.
    pub const fn as_cipher_text(&self) -> &CipherText {
        &self.0
    }

    /// Opens and decodes the secret; the padding is authenticated but its content is ignored.
    ///
    /// # Errors
    /// [`OpenError::Refused`] and [`OpenError::Content`].
    pub fn open<R: Record>(&self, key: &SymmetricKey) -> Result<R, OpenError> {
        self.0.open(key)
    }
}

impl From<CipherText> for PaddedCipherText {
    fn from(cipher_text: CipherText) -> Self {
        Self(cipher_text)
    }
}

impl Record for PaddedCipherText {
    fn to_value(&self) -> Value {
        self.0.to_value()
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        CipherText::from_value(value).map(Self)
    }
}
