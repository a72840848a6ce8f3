//! Curve25519 boxes (Spec: 02 §5.1).

use std::fmt;

use champ::cbor::{Record, RecordError, Value};
use crypto_box::{PublicKey, SalsaBox, SecretKey, aead::AeadInPlace};
use pki::boxing::CurvePublicKey;
use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::{BoxError, CannotOpen, Nonce, secretbox::TAG_BYTES};

/// Tag and nonce around the cipher text, in bytes.
pub(super) const BOX_OVERHEAD_BYTES: usize = TAG_BYTES + NONCE_BYTES;

/// A 32-byte X25519 secret, kept as drawn; wiped when dropped.
#[derive(Clone, ZeroizeOnDrop)]
pub struct CurveSecretKey([u8; 32]);

impl CurveSecretKey {
    /// Wraps 32 secret bytes, not clamped.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Draws a fresh key.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Returns the public key.
    pub fn public(&self) -> CurvePublicKey {
        CurvePublicKey::from_bytes(x25519_dalek::PublicKey::from(&self.agreement()).to_bytes())
    }

    /// Returns `tag || cipher text || nonce`, which `recipient` can open knowing this key's public half.
    ///
    /// # Errors
    /// [`BoxError::WeakKey`] for a public key with which everybody would share the secret.
    pub fn seal(
        &self,
        message: &[u8],
        recipient: &CurvePublicKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, BoxError> {
        let shared = self.shared_box(recipient).ok_or(BoxError::WeakKey)?;
        let nonce = Nonce::random(rng);
        let mut sealed = Vec::with_capacity(BOX_OVERHEAD_BYTES + message.len());
        sealed.extend_from_slice(&[0; TAG_BYTES]);
        sealed.extend_from_slice(message);
        if let Some((tag, message)) = sealed.split_first_chunk_mut::<TAG_BYTES>() {
            *tag = shared
                .encrypt_in_place_detached(nonce.bytes().into(), &[], message)
                .map_err(|_| BoxError::TooLong)?
                .into();
        }
        sealed.extend_from_slice(nonce.bytes());
        Ok(sealed)
    }

    /// Opens what `sender` sealed to this key.
    ///
    /// # Errors
    /// [`CannotOpen`]: less than 40 bytes, a tag that does not fit, or a degenerate sender key.
    pub fn open(
        &self,
        sealed: &[u8],
        sender: &CurvePublicKey,
    ) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        let (sealed, nonce) = sealed.split_last_chunk::<NONCE_BYTES>().ok_or(CannotOpen)?;
        let (tag, cipher) = sealed.split_first_chunk::<TAG_BYTES>().ok_or(CannotOpen)?;
        let shared = self.shared_box(sender).ok_or(CannotOpen)?;
        let mut message = Zeroizing::new(cipher.to_vec());
        shared
            .decrypt_in_place_detached(nonce.into(), &[], &mut message, tag.into())
            .map_err(|_| CannotOpen)?;
        Ok(message)
    }

    /// Returns the box of both keys, unless their agreement is all zero: `crypto_box` does not check it.
    fn shared_box(&self, public: &CurvePublicKey) -> Option<SalsaBox> {
        let public = *public.as_bytes();
        let contributory = self
            .agreement()
            .diffie_hellman(&public.into())
            .was_contributory();
        contributory.then(|| SalsaBox::new(&PublicKey::from(public), &SecretKey::from(self.0)))
    }

    fn agreement(&self) -> StaticSecret {
        StaticSecret::from(self.0)
    }

    pub(super) fn to_content(&self) -> Value {
        Value::from(&self.0)
    }

    pub(super) fn from_content(value: Value) -> Result<Self, RecordError> {
        value.into_array("secret boxing key").map(Self)
    }
}

impl fmt::Debug for CurveSecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CurveSecretKey(..)")
    }
}

impl Record for CurveSecretKey {
    fn to_value(&self) -> Value {
        Value::List(vec![
            Value::Int(super::boxing::CURVE25519),
            self.to_content(),
        ])
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let content = super::boxing::content_of(value, super::boxing::CURVE25519)?;
        Self::from_content(content)
    }
}

const NONCE_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    #[test]
    fn keys_with_which_everybody_shares_the_secret_are_refused() {
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        let key = CurveSecretKey::random(rng);
        let mut one = [0; 32];
        one[0] = 1;
        for weak in [[0; 32], one].map(CurvePublicKey::from_bytes) {
            assert_eq!(key.seal(b"m", &weak, rng), Err(BoxError::WeakKey));
            assert!(key.open(&[0; 60], &weak).is_err());
        }
    }

    #[test]
    fn short_cipher_text_does_not_open() {
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        let (ours, theirs) = (CurveSecretKey::random(rng), CurveSecretKey::random(rng));
        for length in 0..BOX_OVERHEAD_BYTES {
            assert!(ours.open(&vec![0; length], &theirs.public()).is_err());
        }
        let sealed = theirs.seal(b"", &ours.public(), rng).unwrap();
        assert_eq!(sealed.len(), BOX_OVERHEAD_BYTES);
        assert!(ours.open(&sealed, &theirs.public()).unwrap().is_empty());
    }

    #[test]
    fn debug_shows_nothing() {
        let key = CurveSecretKey::from_bytes([0xab; 32]);
        assert_eq!(format!("{key:?}"), "CurveSecretKey(..)");
    }
}
