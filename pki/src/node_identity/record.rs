//! What a node signs about its id.

use bytes::Bytes;
use champ::{
    Multihash,
    cbor::{Fields, Map, Record, RecordError, Value},
};

use super::key_of_id;
use crate::keys::SignatureError;

/// Longest record, in bytes, with what travels around the signed part.
pub const MAX_RECORD_BYTES: usize = 10 << 10;

/// Precedes what is signed.
const SIGNED_PREFIX: &[u8] = b"ipns-signature:";
/// Longest key that is its own id.
const MAX_KEY_BYTES: usize = 42;

/// Returns the bytes that a signature of a record is over.
pub fn signed_bytes(data: &[u8]) -> Vec<u8> {
    [SIGNED_PREFIX, data].concat()
}

/// Whether an id is in use, and what follows it (Spec: 11 §2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The next identity, if one was chosen.
    pub next: Option<Multihash>,
    /// True when the node has moved on to it.
    pub is_rotated: bool,
    /// Kept, not used.
    pub pointer: Option<Bytes>,
    /// Grows with each record.
    pub sequence: i64,
}

impl Resolution {
    /// Returns what a first record says: in use, nothing follows.
    pub const fn first() -> Self {
        Self {
            next: None,
            is_rotated: false,
            pointer: None,
            sequence: 1,
        }
    }

    /// Returns true when `update` may take the place of this one.
    pub fn allows(&self, update: &Self) -> bool {
        update.sequence > self.sequence
            && (update.is_rotated || !self.is_rotated)
            && (self.next.is_none() || update.next == self.next)
    }

    /// Returns the same with the next sequence number.
    #[must_use]
    pub fn renewed(&self) -> Self {
        Self {
            sequence: self.sequence.saturating_add(1),
            ..self.clone()
        }
    }
}

/// Reads a bare id: of a key's hash, or the key itself.
fn bare_id(bytes: &[u8]) -> Option<Multihash> {
    let (hash, rest) = Multihash::read(bytes).ok()?;
    let is_id = match hash.identity_content() {
        Some(key) => key.len() <= MAX_KEY_BYTES,
        None => hash.sha2_256_digest().is_some(),
    };
    (is_id && rest.is_empty()).then_some(hash)
}

impl Record for Resolution {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        let next = self.next.as_ref().map(Multihash::to_bytes);
        map.insert_some("h", next.map(Bytes::from));
        map.insert_some("m", self.is_rotated.then_some(true));
        map.insert_some("p", self.pointer.clone());
        map.insert("s", self.sequence);
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "resolution record")?;
        let bytes = |value: Option<Value>, field| value.map(|v| v.into_bytes(field)).transpose();
        let next = bytes(fields.optional("h"), "h")?
            .map(|next| bare_id(&next).ok_or(RecordError::OutOfRange { field: "h" }))
            .transpose()?;
        Ok(Self {
            next,
            is_rotated: fields.flag("m")?,
            pointer: bytes(fields.optional("p"), "p")?,
            sequence: fields.required("s")?.into_int("s")?,
        })
    }
}

/// The signed part of a record (Spec: 11 §2.2).
///
/// Read from both layouts, written in the present one only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// What the record points to, in the sense of IPNS; in the older layout the resolution record.
    pub value: Bytes,
    /// Expiry as text.
    pub validity: Bytes,
    /// That of the resolution record, where both are honest.
    pub sequence: i64,
    /// Time to live in nanoseconds.
    pub ttl: i64,
    /// What it is about.
    pub resolution: Resolution,
}

impl Announcement {
    /// Checks a signature over `data` with the Ed25519 key that `id` is, and reads what was signed.
    ///
    /// The expiry is not looked at: where a node has moved to stays true (Spec: 11 §2.1).
    ///
    /// # Errors
    /// [`SignatureError`], also for ids of other keys and for signed bytes that are no record.
    pub fn verify(id: &Multihash, data: &[u8], signature: &[u8]) -> Result<Self, SignatureError> {
        if data.len() > MAX_RECORD_BYTES {
            return Err(SignatureError);
        }
        let key = key_of_id(id).ok_or(SignatureError)?;
        key.verify_detached(&signed_bytes(data), signature)?;
        Self::decode(data).map_err(|_| SignatureError)
    }
}

impl Record for Announcement {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("TTL", self.ttl);
        map.insert("Value", self.value.clone());
        map.insert("Sequence", self.sequence);
        map.insert("Validity", self.validity.clone());
        map.insert("_peergos_rr", self.resolution.to_value());
        map.insert("ValidityType", 0_i64);
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "identity record")?;
        let value = fields.required("Value")?.into_bytes("Value")?;
        let kind = fields.required("ValidityType")?.into_int("ValidityType")?;
        if kind != 0 {
            return Err(RecordError::OutOfRange {
                field: "ValidityType",
            });
        }
        let resolution = match fields.optional("_peergos_rr") {
            Some(resolution) => Resolution::from_value(resolution)?,
            // Older records are the value themselves.
            None => Resolution::decode(&value)?,
        };
        Ok(Self {
            validity: fields.required("Validity")?.into_bytes("Validity")?,
            sequence: fields.required("Sequence")?.into_int("Sequence")?,
            ttl: fields.required("TTL")?.into_int("TTL")?,
            value,
            resolution,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{keys::SecretSigningKey, node_identity::id_of_key};

    fn announcement() -> Announcement {
        let next = SecretSigningKey::from_seed(&[2; 32]).public();
        Announcement {
            value: Bytes::from_static(b"/ipfs/bafkqaaa"),
            validity: Bytes::from_static(b"2099-01-02T03:04:05.000000000Z"),
            sequence: 3,
            ttl: 1,
            resolution: Resolution {
                next: Some(id_of_key(&next).hash().clone()),
                is_rotated: true,
                pointer: None,
                sequence: 3,
            },
        }
    }

    #[test]
    fn p2p_8_only_the_key_that_an_id_is_speaks_for_it() {
        let key = SecretSigningKey::from_seed(&[1; 32]);
        let id = id_of_key(&key.public());
        let verify =
            |data: &[u8], signature: &[u8]| Announcement::verify(id.hash(), data, signature);
        let data = announcement().encode();
        let sign = |data: &[u8]| key.sign_detached(&signed_bytes(data));
        assert_eq!(verify(&data, &sign(&data)), Ok(announcement()));
        // Another key, bytes changed, no prefix, no signature.
        let other = SecretSigningKey::from_seed(&[3; 32]);
        assert!(verify(&data, &other.sign_detached(&signed_bytes(&data))).is_err());
        let mut changed = data.clone();
        changed[10] ^= 1;
        assert!(verify(&changed, &sign(&data)).is_err());
        assert!(verify(&data, &key.sign_detached(&data)).is_err());
        assert!(verify(&data, &[]).is_err());
        // Signed, and no record; or a longer one than anybody reads.
        assert!(verify(b"x", &sign(b"x")).is_err());
        let mut long = announcement();
        long.resolution.pointer = Some(vec![0; MAX_RECORD_BYTES].into());
        let long = long.encode();
        assert!(verify(&long, &sign(&long)).is_err());
        // The hash of a key is none to check with.
        let rsa = Multihash::sha2_256(b"an RSA key");
        assert!(Announcement::verify(&rsa, &data, &sign(&data)).is_err());
    }

    #[test]
    fn malformed_records_are_refused() {
        let refused = |change: fn(&mut Map) -> Option<Value>| {
            let Value::Map(mut map) = announcement().to_value() else {
                unreachable!()
            };
            change(&mut map);
            Announcement::decode(&Value::Map(map).encode()).is_err()
        };
        assert!(!refused(|_| None));
        assert!(refused(|map| map.insert("ValidityType", 1_i64)));
        assert!(refused(|map| map.insert("_peergos_rr", 1_i64)));
        assert!(refused(|map| map.insert("Sequence", "1")));
        assert!(refused(|map| map.insert("Validity", 1_i64)));
        let next = |bytes: &[u8]| {
            let mut map = Map::new();
            map.insert("h", Bytes::copy_from_slice(bytes));
            map.insert("s", 1_i64);
            Resolution::decode(&Value::Map(map).encode()).map(|resolution| resolution.next)
        };
        let id = announcement().resolution.next.unwrap().to_bytes();
        assert!(next(&id).unwrap().is_some());
        assert!(next(&Multihash::sha2_256(b"an RSA key").to_bytes()).is_ok());
        for bad in [
            &[][..],
            &[id.as_slice(), &[0]].concat(),
            &[[0, 43].as_slice(), &[7; 43]].concat(),
            &[[0x1e, 32].as_slice(), &[7; 32]].concat(),
        ] {
            assert!(next(bad).is_err(), "{bad:?}");
        }
    }
}
