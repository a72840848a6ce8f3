//! Symmetric keys and nonces (Spec: 02 §2, §7.1).

use std::fmt;

use champ::cbor::{Record, RecordError, Value};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

/// A 32-byte XSalsa20-Poly1305 key and whether it must be replaced at the next write.
///
/// Wiped when dropped; compared in constant time, including the mark.
#[derive(Clone, ZeroizeOnDrop)]
pub struct SymmetricKey {
    bytes: [u8; 32],
    #[zeroize(skip)]
    dirty: bool,
}

impl SymmetricKey {
    /// Wraps 32 secret bytes as a key that is not dirty.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self {
            bytes,
            dirty: false,
        }
    }

    /// Draws a fresh key.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self::from_bytes(bytes)
    }

    /// Returns the 32 secret bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Returns true when content must not be written under this key any more (lazy revocation).
    pub const fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Returns the same key marked for replacement.
    #[must_use]
    pub fn as_dirty(&self) -> Self {
        Self {
            bytes: self.bytes,
            dirty: true,
        }
    }
}

impl PartialEq for SymmetricKey {
    fn eq(&self, other: &Self) -> bool {
        bool::from(self.bytes.ct_eq(&other.bytes)) && self.dirty == other.dirty
    }
}

impl Eq for SymmetricKey {}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricKey(..)")
    }
}

impl Record for SymmetricKey {
    fn to_value(&self) -> Value {
        Value::List(vec![
            Value::Int(XSALSA20_POLY1305),
            Value::from(&self.bytes),
            Value::Bool(self.dirty),
        ])
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut items = value.into_list("symmetric key")?.into_iter();
        let mut next = || items.next().ok_or(RecordError::Missing("symmetric key"));
        if next()?.into_int("symmetric key")? != XSALSA20_POLY1305 {
            return Err(RecordError::OutOfRange {
                field: "symmetric key",
            });
        }
        let bytes = next()?.into_array("symmetric key")?;
        // Written always; one client reads its absence as false.
        let dirty = items.next().map_or(Ok(false), |v| v.into_bool("dirty"))?;
        Ok(Self { bytes, dirty })
    }
}

/// 24 bytes that must never be used twice with one key; drawn at random for every encryption.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Nonce([u8; 24]);

impl Nonce {
    /// Draws a fresh nonce.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = [0; 24];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Wraps a nonce that came with a cipher text.
    pub const fn received(bytes: [u8; 24]) -> Self {
        Self(bytes)
    }

    /// Returns the 24 bytes.
    pub const fn bytes(&self) -> &[u8; 24] {
        &self.0
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(..)")
    }
}

/// Type code of the only symmetric cipher.
const XSALSA20_POLY1305: i64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_record_keeps_the_mark() {
        let key = SymmetricKey::from_bytes([1; 32]);
        assert_eq!(SymmetricKey::decode(&key.encode()).unwrap(), key);
        let dirty = key.as_dirty();
        assert_ne!(dirty, key);
        assert!(SymmetricKey::decode(&dirty.encode()).unwrap().is_dirty());
    }

    #[test]
    fn missing_mark_reads_as_clean() {
        let short = Value::List(vec![Value::Int(1), Value::from(&[1; 32])]);
        let key = SymmetricKey::from_value(short).unwrap();
        assert_eq!(key, SymmetricKey::from_bytes([1; 32]));
    }

    #[test]
    fn other_types_and_lengths_are_rejected() {
        let list = |code: i64, bytes: &[u8]| {
            Value::List(vec![code.into(), bytes.into(), Value::Bool(false)])
        };
        for value in [
            list(0, &[1; 32]),
            list(2, &[1; 32]),
            list(1, &[1; 31]),
            list(1, &[1; 33]),
            Value::List(vec![Value::Int(1)]),
            Value::List(vec![]),
            Value::List(vec![Value::Int(1), Value::from(&[1; 32]), Value::Int(0)]),
            Value::Null,
        ] {
            assert!(SymmetricKey::from_value(value).is_err());
        }
    }

    #[test]
    fn debug_shows_nothing() {
        let key = SymmetricKey::from_bytes([0xab; 32]);
        assert_eq!(format!("{key:?}"), "SymmetricKey(..)");
    }
}
