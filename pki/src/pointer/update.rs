//! The update and its signed form (Spec: 04 §1).

use bytes::Bytes;
use champ::{
    Cid,
    cbor::{Record, RecordError, Value},
};

use crate::keys::{PublicSigningKey, SecretSigningKey, SignatureError};

/// Longest signed update that official servers store: two 36-byte CIDs and a sequence below 2^32.
pub const OFFICIAL_MAX_SIGNED_BYTES: usize = 147;
/// Longest signed update that is accepted here: two 36-byte CIDs and any sequence (Spec: 04 §1).
pub const MAX_SIGNED_BYTES: usize = 150;

/// Why bytes are not a pointer of the expected writer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PointerError {
    /// Longer than [`MAX_SIGNED_BYTES`].
    #[error("pointer update of {actual} bytes is too big")]
    TooBig {
        /// Length in bytes.
        actual: usize,
    },
    /// Not signed by the writer.
    #[error("pointer update is not signed by its writer")]
    Signature(#[from] SignatureError),
    /// Original and updated are the same.
    #[error("pointer update changes nothing")]
    Unchanged,
    /// The signed message is no canonical update.
    #[error("pointer update is malformed")]
    Malformed(#[source] RecordError),
    /// The sequence cannot go on.
    #[error("pointer sequence is exhausted")]
    SequenceExhausted,
}

impl PointerError {
    /// Returns the text existing clients know (Spec: 07 §3).
    pub fn wire_text(&self) -> String {
        match self {
            Self::TooBig { actual } => format!("Pointer update too big! {actual}"),
            Self::Unchanged => "Tried to create a CAS pair with original == target!".to_owned(),
            other => other.to_string(),
        }
    }
}

/// What a pointer was, what it shall be, and in which order: `[original, updated, sequence]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointerUpdate {
    original: Option<Cid>,
    updated: Option<Cid>,
    sequence: Option<i64>,
}

impl PointerUpdate {
    /// Makes an update; `updated` of none deletes, `sequence` of none is legacy and never written.
    ///
    /// # Errors
    /// [`PointerError::Unchanged`] when both targets are equal.
    pub fn try_new(
        original: Option<Cid>,
        updated: Option<Cid>,
        sequence: Option<i64>,
    ) -> Result<Self, PointerError> {
        if original == updated {
            return Err(PointerError::Unchanged);
        }
        Ok(Self {
            original,
            updated,
            sequence,
        })
    }

    /// Makes the update that follows `current`: its target becomes the original, its sequence is
    /// counted up; the first one has sequence 1, and so has the one after a legacy update.
    ///
    /// # Errors
    /// [`PointerError::Unchanged`], [`PointerError::SequenceExhausted`].
    pub fn next(current: Option<&Self>, updated: Option<Cid>) -> Result<Self, PointerError> {
        let sequence = current
            .and_then(|current| current.sequence)
            .unwrap_or(0)
            .checked_add(1)
            .ok_or(PointerError::SequenceExhausted)?;
        let original = current.and_then(|current| current.updated.clone());
        Self::try_new(original, updated, Some(sequence))
    }

    /// Returns the CID the pointer had before; none when there was no pointer or a deletion.
    pub const fn original(&self) -> Option<&Cid> {
        self.original.as_ref()
    }

    /// Returns the CID the pointer has now; none for a deletion.
    pub const fn updated(&self) -> Option<&Cid> {
        self.updated.as_ref()
    }

    /// Returns the sequence; none for legacy updates.
    pub const fn sequence(&self) -> Option<i64> {
        self.sequence
    }

    /// Returns true when this deletes the pointer.
    pub const fn is_deletion(&self) -> bool {
        self.updated.is_none()
    }

    fn read(value: Value) -> Result<Self, PointerError> {
        let mut items = value
            .into_list("pointer update")
            .map_err(PointerError::Malformed)?
            .into_iter();
        let mut target = |field| {
            let item = items.next().ok_or(RecordError::Missing(field));
            item.and_then(|item| item.into_maybe_cid(field))
                .map_err(PointerError::Malformed)
        };
        let (original, updated) = (target("original")?, target("updated")?);
        let sequence = items
            .next()
            .map(|item| item.into_int("sequence"))
            .transpose()
            .map_err(PointerError::Malformed)?;
        Self::try_new(original, updated, sequence)
    }
}

impl Record for PointerUpdate {
    fn to_value(&self) -> Value {
        let target = |cid: &Option<Cid>| {
            cid.as_ref()
                .map_or(Value::Null, |cid| Value::from(cid.to_bytes()))
        };
        let mut items = vec![target(&self.original), target(&self.updated)];
        items.extend(self.sequence.map(Value::Int));
        Value::List(items)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        Self::read(value).map_err(|error| match error {
            PointerError::Malformed(source) => source,
            _ => RecordError::OutOfRange { field: "updated" },
        })
    }
}

/// A pointer update with its writer's signature, verified; the bytes are those received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPointer {
    bytes: Bytes,
    update: PointerUpdate,
}

impl SignedPointer {
    /// Signs an update.
    pub fn sign(update: PointerUpdate, key: &SecretSigningKey) -> Self {
        Self {
            bytes: key.sign_attached(&update.encode()).into(),
            update,
        }
    }

    /// Verifies an attached signature by `key` over exactly one canonical update.
    ///
    /// # Errors
    /// [`PointerError::TooBig`], [`PointerError::Signature`], [`PointerError::Malformed`],
    /// [`PointerError::Unchanged`], tested in this order (Spec: 07 §3, checks 5, 7 and 8).
    pub fn verify(key: &PublicSigningKey, bytes: impl Into<Bytes>) -> Result<Self, PointerError> {
        let bytes = bytes.into();
        if bytes.len() > MAX_SIGNED_BYTES {
            return Err(PointerError::TooBig {
                actual: bytes.len(),
            });
        }
        let message = key.verify_attached(&bytes)?;
        let value = champ::cbor::decode_canonical(message)
            .map_err(|source| PointerError::Malformed(source.into()))?;
        let update = PointerUpdate::read(value)?;
        // Without domain separation nothing but the exact record may pass: no fourth element.
        if update.encode() != message {
            return Err(PointerError::Malformed(RecordError::OutOfRange {
                field: "pointer update",
            }));
        }
        Ok(Self { bytes, update })
    }

    /// Returns what was signed.
    pub const fn update(&self) -> &PointerUpdate {
        &self.update
    }

    /// Returns the signed bytes as received: signature (64), then the update.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Takes the signed bytes.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(n: u8) -> Option<Cid> {
        Some(Cid::of_cbor(&[n]))
    }

    fn key() -> SecretSigningKey {
        SecretSigningKey::from_seed(&[7; 32])
    }

    #[test]
    fn each_update_counts_on() {
        let first = PointerUpdate::next(None, cid(1)).unwrap();
        assert_eq!((first.original(), first.sequence()), (None, Some(1)));
        let second = PointerUpdate::next(Some(&first), cid(2)).unwrap();
        assert_eq!(second.original(), first.updated());
        assert_eq!(second.sequence(), Some(2));
        let deletion = PointerUpdate::next(Some(&second), None).unwrap();
        assert!(deletion.is_deletion());
        let again = PointerUpdate::next(Some(&deletion), cid(1)).unwrap();
        assert_eq!((again.original(), again.sequence()), (None, Some(4)));
        let legacy = PointerUpdate::try_new(None, cid(1), None).unwrap();
        let after = PointerUpdate::next(Some(&legacy), cid(2)).unwrap();
        assert_eq!(after.sequence(), Some(1));

        assert_eq!(
            PointerUpdate::next(Some(&first), cid(1)),
            Err(PointerError::Unchanged)
        );
        assert_eq!(
            PointerUpdate::next(None, None),
            Err(PointerError::Unchanged)
        );
        let last = PointerUpdate::try_new(None, cid(1), Some(i64::MAX)).unwrap();
        assert_eq!(
            PointerUpdate::next(Some(&last), cid(2)),
            Err(PointerError::SequenceExhausted)
        );
    }

    #[test]
    fn only_the_exact_record_is_accepted() {
        let update = PointerUpdate::try_new(cid(1), cid(2), Some(5)).unwrap();
        let encoded = update.encode();
        let verify =
            |message: &[u8]| SignedPointer::verify(&key().public(), key().sign_attached(message));
        assert_eq!(verify(&encoded).unwrap().update(), &update);

        let mut trailing = encoded.clone();
        trailing.push(0);
        let mut four = encoded.clone();
        four[0] = 0x84;
        four.push(0x00);
        let mut long_head = encoded.clone();
        long_head.splice(encoded.len() - 1.., [0x18, 0x05]);
        for message in [trailing, four, long_head, Vec::new(), vec![0x05]] {
            assert!(matches!(verify(&message), Err(PointerError::Malformed(_))));
        }
    }

    #[test]
    fn size_comes_before_the_signature() {
        let refused = |length| SignedPointer::verify(&key().public(), vec![0; length]);
        assert_eq!(
            refused(151).unwrap_err().wire_text(),
            "Pointer update too big! 151"
        );
        assert_eq!(refused(150), Err(PointerError::Signature(SignatureError)));
        assert_eq!(refused(63), Err(PointerError::Signature(SignatureError)));
        assert_eq!(refused(0), Err(PointerError::Signature(SignatureError)));
        let both = Value::List(vec![Value::Null, Value::Null, Value::Int(1)]);
        let unchanged = key().sign_attached(&both.encode());
        assert_eq!(
            SignedPointer::verify(&key().public(), unchanged)
                .unwrap_err()
                .wire_text(),
            "Tried to create a CAS pair with original == target!"
        );
    }
}
