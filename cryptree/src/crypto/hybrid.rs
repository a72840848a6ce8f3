//! Hybrid boxes: Curve25519 and ML-KEM-1024, safe while one of them is (Spec: 02 §5.2).

use std::fmt;

use champ::cbor::{Fields, Map, Record, RecordError, Value};
// Secret keys are stored expanded on this network; the seed is not kept, so only this form exists.
#[expect(
    deprecated,
    reason = "the wire format holds expanded decapsulation keys"
)]
use ml_kem::{
    Decapsulate, Encapsulate, ExpandedKeyEncoding, KeyExport, ml_kem_1024::DecapsulationKey,
    ml_kem_1024::EncapsulationKey,
};
use pki::boxing::{ENCAPSULATION_KEY_BYTES, HybridPublicKey};
use rand_core::CryptoRng;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::{
    BoxError, CannotOpen, CurveSecretKey, Nonce, SymmetricKey, boxing, curve::BOX_OVERHEAD_BYTES,
    derive_key, secretbox,
};

/// Length of an expanded FIPS 203 ML-KEM-1024 decapsulation key.
const DECAPSULATION_KEY_BYTES: usize = 3168;
/// Length of an ML-KEM-1024 cipher text.
const KEM_CIPHER_BYTES: usize = 1568;

/// An X25519 secret and an ML-KEM-1024 decapsulation key; wiped when dropped.
///
/// The decapsulation key has been checked: its public half and the hash of that belong to it.
#[derive(Clone, ZeroizeOnDrop)]
pub struct HybridSecretKey {
    curve: CurveSecretKey,
    decapsulation: Box<[u8; DECAPSULATION_KEY_BYTES]>,
}

impl HybridSecretKey {
    /// Draws a fresh key.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        let curve = CurveSecretKey::random(rng);
        let mut seed = Zeroizing::new([0; 64]);
        rng.fill_bytes(seed.as_mut_slice());
        Self::from_seeds(curve, &seed)
    }

    /// Makes the key of a FIPS 203 seed, d then z, which is not stored.
    pub fn from_seeds(curve: CurveSecretKey, seed: &[u8; 64]) -> Self {
        #[expect(
            deprecated,
            reason = "the wire format holds expanded decapsulation keys"
        )]
        let expanded = DecapsulationKey::from_seed((*seed).into()).to_expanded_bytes();
        Self {
            curve,
            decapsulation: Box::new(expanded.into()),
        }
    }

    /// Returns the X25519 half.
    pub const fn curve(&self) -> &CurveSecretKey {
        &self.curve
    }

    /// Returns the public key.
    pub fn public(&self) -> Result<HybridPublicKey, RecordError> {
        let encapsulation = self.kem()?.encapsulation_key().to_bytes();
        let encapsulation = <[u8; ENCAPSULATION_KEY_BYTES]>::from(encapsulation);
        HybridPublicKey::try_new(self.curve.public(), Box::new(encapsulation))
    }

    /// Returns the encoding of a hybrid cipher text to `recipient`.
    ///
    /// # Errors
    /// [`BoxError::WeakKey`] for a degenerate half of the recipient's key.
    pub fn seal(
        &self,
        message: &[u8],
        recipient: &HybridPublicKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, BoxError> {
        let mut k1 = Zeroizing::new([0; 32]);
        rng.fill_bytes(k1.as_mut_slice());
        // The constructor repeats the modulus check.
        let kem = EncapsulationKey::new(recipient.encapsulation().into())
            .map_err(|_| BoxError::WeakKey)?;
        let (encapsulated, k2) = kem.encapsulate_with_rng(rng);
        let k2 = Zeroizing::new(<[u8; 32]>::from(k2));
        let boxed = self.curve.seal(k1.as_slice(), recipient.curve(), rng)?;
        let nonce = Nonce::random(rng);
        let inner = secretbox::seal(&combined(&k1, &k2), &nonce, message);
        let encapsulated = <[u8; KEM_CIPHER_BYTES]>::from(encapsulated);
        let map = Map::from_iter([
            ("c", Value::from(boxed)),
            ("i", Value::from(inner)),
            ("m", Value::from(encapsulated.as_slice())),
            ("n", Value::from(nonce.bytes())),
        ]);
        Ok(Value::Map(map).encode())
    }

    /// Opens a hybrid cipher text from `sender`, whose ML-KEM key takes no part.
    ///
    /// # Errors
    /// [`CannotOpen`], without a hint which part was wrong.
    pub fn open(
        &self,
        sealed: &[u8],
        sender: &HybridPublicKey,
    ) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        let parts = HybridCipherText::decode(sealed).map_err(|_| CannotOpen)?;
        let k1 = self.curve.open(&parts.boxed, sender.curve())?;
        let k1 = Zeroizing::new(<[u8; 32]>::try_from(k1.as_slice()).map_err(|_| CannotOpen)?);
        let kem = self.kem().map_err(|_| CannotOpen)?;
        // A wrong cipher text gives a wrong key (implicit rejection), which the last step notices.
        let k2 = kem.decapsulate(parts.encapsulated.as_ref().into());
        let k2 = Zeroizing::new(<[u8; 32]>::from(k2));
        secretbox::open(&combined(&k1, &k2), &parts.nonce, &parts.inner).map(Zeroizing::new)
    }

    /// Returns what the key encapsulation alone gives, for vectors.
    #[cfg(test)]
    pub(super) fn decapsulate(&self, encapsulated: &[u8; KEM_CIPHER_BYTES]) -> [u8; 32] {
        self.kem().unwrap().decapsulate(encapsulated.into()).into()
    }

    fn kem(&self) -> Result<DecapsulationKey, RecordError> {
        #[expect(
            deprecated,
            reason = "the wire format holds expanded decapsulation keys"
        )]
        DecapsulationKey::from_expanded_bytes(self.decapsulation.as_ref().into())
            .map_err(|_| RecordError::OutOfRange { field: "s" })
    }

    pub(super) fn to_content(&self) -> Value {
        let kem = Map::from_iter([("s", self.decapsulation.as_slice())]);
        Value::Map(Map::from_iter([
            ("c", self.curve.to_value()),
            ("m", Value::Map(kem)),
        ]))
    }

    pub(super) fn from_content(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "secret boxing key")?;
        let key = Self {
            curve: CurveSecretKey::from_value(fields.required("c")?)?,
            decapsulation: Box::new(
                Fields::of(fields.required("m")?, "m")?
                    .required("s")?
                    .into_array("s")?,
            ),
        };
        key.kem()?;
        Ok(key)
    }
}

impl fmt::Debug for HybridSecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HybridSecretKey(..)")
    }
}

impl Record for HybridSecretKey {
    fn to_value(&self) -> Value {
        Value::List(vec![Value::Int(boxing::HYBRID), self.to_content()])
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        Self::from_content(boxing::content_of(value, boxing::HYBRID)?)
    }
}

struct HybridCipherText {
    boxed: [u8; 32 + BOX_OVERHEAD_BYTES],
    inner: bytes::Bytes,
    encapsulated: Box<[u8; KEM_CIPHER_BYTES]>,
    nonce: Nonce,
}

impl HybridCipherText {
    fn decode(sealed: &[u8]) -> Result<Self, RecordError> {
        let mut fields = Fields::of(champ::cbor::decode(sealed)?, "hybrid cipher text")?;
        Ok(Self {
            boxed: fields.required("c")?.into_array("c")?,
            inner: fields.required("i")?.into_bytes("i")?,
            encapsulated: Box::new(fields.required("m")?.into_array("m")?),
            nonce: Nonce::received(fields.required("n")?.into_array("n")?),
        })
    }
}

fn combined(k1: &[u8; 32], k2: &[u8; 32]) -> SymmetricKey {
    let mut material = Zeroizing::new([0; 64]);
    for (to, from) in material.iter_mut().zip(k1.iter().chain(k2)) {
        *to = *from;
    }
    derive_key(material.as_slice())
}

#[cfg(test)]
mod tests;
