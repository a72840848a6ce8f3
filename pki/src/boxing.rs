//! Public boxing keys: what an identity publishes so that others can write to it (Spec: 02 §5).
//!
//! Only the public records and their hashes live here. Whatever seals or opens is in `cryptree`, which a
//! server cannot reach. Invariant: a hybrid key has passed the FIPS 203 modulus check.

use std::fmt;

use champ::{
    Block, BlockError,
    cbor::{Fields, Map, Record, RecordError, Value},
    text,
};

use crate::{
    keys::PublicKeyHash,
    list::{elements, variant},
};

/// Length of a FIPS 203 ML-KEM-1024 encapsulation key.
pub const ENCAPSULATION_KEY_BYTES: usize = 1568;
/// Bytes of the encapsulation key that hold 12-bit coefficients; the last 32 are the matrix seed.
const COEFFICIENT_BYTES: usize = ENCAPSULATION_KEY_BYTES - 32;
/// The ML-KEM modulus q.
const MODULUS: u16 = 3329;

const CURVE25519: i64 = 1;
const HYBRID: i64 = 2;

/// A public key that messages can be sealed to.
#[derive(Clone, PartialEq, Eq)]
pub enum PublicBoxingKey {
    /// X25519 alone: legacy accounts and ephemeral senders.
    Curve25519(CurvePublicKey),
    /// X25519 and ML-KEM-1024: every new account.
    Hybrid(HybridPublicKey),
}

/// A 32-byte X25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CurvePublicKey([u8; 32]);

/// An X25519 key and an ML-KEM-1024 encapsulation key.
#[derive(Clone, PartialEq, Eq)]
pub struct HybridPublicKey {
    curve: CurvePublicKey,
    encapsulation: Box<[u8; ENCAPSULATION_KEY_BYTES]>,
}

impl CurvePublicKey {
    /// Wraps the 32 bytes of RFC 7748.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl HybridPublicKey {
    /// Pairs the halves after the FIPS 203 §7.2 modulus check.
    ///
    /// # Errors
    /// [`RecordError::OutOfRange`] when a coefficient is not below 3329.
    pub fn try_new(
        curve: CurvePublicKey,
        encapsulation: Box<[u8; ENCAPSULATION_KEY_BYTES]>,
    ) -> Result<Self, RecordError> {
        // Each three bytes hold two little-endian 12-bit coefficients.
        let (coefficients, _) = encapsulation.split_at(COEFFICIENT_BYTES);
        let (triples, _) = coefficients.as_chunks::<3>();
        let reduced = triples.iter().all(|[a, b, c]| {
            let low = u16::from(*a) | u16::from(*b & 0x0f) << 8;
            let high = u16::from(*b) >> 4 | u16::from(*c) << 4;
            low < MODULUS && high < MODULUS
        });
        if reduced {
            Ok(Self {
                curve,
                encapsulation,
            })
        } else {
            Err(RecordError::OutOfRange { field: "p" })
        }
    }

    /// Returns the X25519 half.
    pub const fn curve(&self) -> &CurvePublicKey {
        &self.curve
    }

    /// Returns the ML-KEM-1024 encapsulation key.
    pub const fn encapsulation(&self) -> &[u8; ENCAPSULATION_KEY_BYTES] {
        &self.encapsulation
    }
}

impl PublicBoxingKey {
    /// Returns the X25519 key, which both kinds have.
    pub const fn curve(&self) -> &CurvePublicKey {
        match self {
            Self::Curve25519(curve) => curve,
            Self::Hybrid(hybrid) => hybrid.curve(),
        }
    }

    /// Names the key: identity for Curve25519, sha2-256 of [`PublicBoxingKey::block`] for hybrid.
    pub fn hash(&self) -> PublicKeyHash {
        PublicKeyHash::of_encoded(&self.encode())
    }

    /// Returns the block that must be stored for [`PublicBoxingKey::hash`] to resolve; none for
    /// Curve25519, whose hash holds the key.
    ///
    /// # Errors
    /// Never in practice: a key is far smaller than a block may be.
    pub fn block(&self) -> Result<Option<Block>, BlockError> {
        match self {
            Self::Curve25519(_) => Ok(None),
            Self::Hybrid(_) => Block::cbor(self.encode()).map(Some),
        }
    }

    /// Returns the key inside an identity hash.
    pub fn inline(hash: &PublicKeyHash) -> Option<Self> {
        Self::decode(hash.cid().identity_content()?).ok()
    }

    /// Reads the key out of the block that `hash` names.
    ///
    /// # Errors
    /// [`RecordError::OutOfRange`] when `block` is another block, else any [`RecordError`].
    pub fn in_block(hash: &PublicKeyHash, block: &Block) -> Result<Self, RecordError> {
        if block.cid() != hash.cid() {
            return Err(RecordError::OutOfRange {
                field: "boxing key",
            });
        }
        Self::decode(block.bytes())
    }
}

impl fmt::Debug for CurvePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CurvePublicKey({})", text::to_hex(&self.0))
    }
}

impl fmt::Debug for HybridPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HybridPublicKey")
            .field("curve", &self.curve)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PublicBoxingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Curve25519(curve) => curve.fmt(f),
            Self::Hybrid(hybrid) => hybrid.fmt(f),
        }
    }
}

impl Record for CurvePublicKey {
    fn to_value(&self) -> Value {
        Value::List(vec![Value::Int(CURVE25519), Value::from(&self.0)])
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        variant(value, CURVE25519, "boxing key")?
            .into_array("boxing key")
            .map(Self)
    }
}

impl Record for PublicBoxingKey {
    fn to_value(&self) -> Value {
        match self {
            Self::Curve25519(curve) => curve.to_value(),
            Self::Hybrid(hybrid) => {
                let kem = Map::from_iter([("p", Value::from(hybrid.encapsulation.as_slice()))]);
                let parts =
                    Map::from_iter([("c", hybrid.curve.to_value()), ("m", Value::Map(kem))]);
                Value::List(vec![Value::Int(HYBRID), Value::Map(parts)])
            }
        }
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let [code, content] = elements(value, "boxing key")?;
        match code.into_int("boxing key")? {
            CURVE25519 => {
                let bytes = content.into_array("boxing key")?;
                Ok(Self::Curve25519(CurvePublicKey(bytes)))
            }
            HYBRID => {
                let mut parts = Fields::of(content, "boxing key")?;
                let curve = CurvePublicKey::from_value(parts.required("c")?)?;
                let mut kem = Fields::of(parts.required("m")?, "m")?;
                let bytes = kem.required("p")?.into_bytes("p")?;
                let encapsulation = Box::<[u8]>::from(bytes.as_ref()).try_into().map_err(|_| {
                    RecordError::WrongLength {
                        field: "p",
                        actual: bytes.len(),
                    }
                })?;
                HybridPublicKey::try_new(curve, encapsulation).map(Self::Hybrid)
            }
            _ => Err(RecordError::OutOfRange {
                field: "boxing key",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreduced_encapsulation_key_is_refused() {
        let curve = CurvePublicKey::from_bytes([1; 32]);
        let mut key = Box::new([0; ENCAPSULATION_KEY_BYTES]);
        assert!(HybridPublicKey::try_new(curve, key.clone()).is_ok());
        // 3328 = 0xd00 is the largest coefficient, 3329 the first refused one; low then high of a pair.
        for (at, bytes, fits) in [
            (0, [0x00, 0x0d, 0x00], true),
            (0, [0x01, 0x0d, 0x00], false),
            (1533, [0x00, 0x00, 0xd0], true),
            (1533, [0x00, 0x10, 0xd0], false),
        ] {
            key.fill(0);
            key[at..at + 3].copy_from_slice(&bytes);
            assert_eq!(HybridPublicKey::try_new(curve, key.clone()).is_ok(), fits);
        }
        key.fill(0);
        key[COEFFICIENT_BYTES..].fill(0xff);
        assert!(
            HybridPublicKey::try_new(curve, key).is_ok(),
            "the seed is free"
        );
    }

    #[test]
    fn wrong_codes_lengths_and_nesting_are_refused() {
        let list = |code: i64, content: Value| Value::List(vec![Value::Int(code), content]);
        let bytes = |n: usize| Value::from(vec![0; n]);
        let hybrid = |c: Value, m: usize| {
            let kem = Value::Map(Map::from_iter([("p", bytes(m))]));
            list(2, Value::Map(Map::from_iter([("c", c), ("m", kem)])))
        };
        let good = hybrid(list(1, bytes(32)), 1568);
        assert!(PublicBoxingKey::from_value(good.clone()).is_ok());
        for bad in [
            list(0, bytes(32)),
            list(3, bytes(32)),
            list(1, bytes(31)),
            list(1, bytes(33)),
            list(2, bytes(32)),
            hybrid(list(1, bytes(32)), 1567),
            hybrid(list(1, bytes(32)), 1569),
            hybrid(list(2, bytes(32)), 1568),
            hybrid(good, 1568),
            Value::List(vec![]),
            Value::Null,
        ] {
            assert!(PublicBoxingKey::from_value(bad).is_err());
        }
    }
}
