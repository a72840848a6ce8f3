//! Signed pointer updates in requests: `setPointers`, sign-up, password change (Spec: 07 §1, 08 §1).

use bytes::Bytes;
use champ::cbor::{Fields, Map, Record, RecordError, Value};

use super::body::record_body;
use crate::keys::Writer;

/// Longest body of `setPointer`.
pub const MAX_SET_POINTER_BYTES: usize = 1024;
/// Longest body of `setPointers`.
pub const MAX_BATCH_BYTES: usize = 1 << 20;
/// Most updates in one `setPointers`.
pub const MAX_BATCH_UPDATES: usize = 1000;

/// One signed update and the writer whose pointer it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointerWrite {
    /// Attached signature and the update's CBOR, exactly as signed.
    pub signed: Bytes,
    /// Whose pointer.
    pub writer: Writer,
}

impl Record for PointerWrite {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("s", self.signed.clone());
        map.insert("w", self.writer.to_value());
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "pointer write")?;
        Ok(Self {
            signed: fields.required("s")?.into_bytes("s")?,
            writer: Writer::from_value(fields.required("w")?)?,
        })
    }
}

/// Updates that are applied all or none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PointerBatch(Vec<PointerWrite>);

impl PointerBatch {
    /// Collects updates.
    ///
    /// # Errors
    /// [`RecordError::OutOfRange`] for more than [`MAX_BATCH_UPDATES`], or one writer twice.
    pub fn new(updates: Vec<PointerWrite>) -> Result<Self, RecordError> {
        let mut writers: Vec<_> = updates.iter().map(|update| &update.writer).collect();
        writers.sort_unstable();
        let repeated = writers
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a == b));
        if repeated || updates.len() > MAX_BATCH_UPDATES {
            return Err(RecordError::OutOfRange { field: "p" });
        }
        Ok(Self(updates))
    }

    /// Returns the updates in order.
    pub fn as_slice(&self) -> &[PointerWrite] {
        &self.0
    }
}

impl Record for PointerBatch {
    fn to_value(&self) -> Value {
        let list: Vec<_> = self.0.iter().map(Record::to_value).collect();
        Value::Map(Map::from_iter([("p", list)]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let list = Fields::of(value, "pointer batch")?
            .required("p")?
            .into_list("p")?;
        if list.len() > MAX_BATCH_UPDATES {
            return Err(RecordError::OutOfRange { field: "p" });
        }
        Self::new(
            list.into_iter()
                .map(PointerWrite::from_value)
                .collect::<Result<_, _>>()?,
        )
    }
}

record_body! {
    // Per update: a map, two keys, two values, and the bytes inside the link.
    PointerBatch: MAX_BATCH_BYTES, 8 * MAX_BATCH_UPDATES + 64;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        keys::{PublicKeyHash, PublicSigningKey},
        wire::{Body, WireError},
    };

    fn update(number: u32) -> PointerWrite {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        PointerWrite {
            signed: Bytes::from_static(b"signed"),
            writer: Writer(PublicKeyHash::of(&PublicSigningKey::from_bytes(key))),
        }
    }

    fn sent(updates: &[PointerWrite]) -> Result<PointerBatch, WireError> {
        let list: Vec<_> = updates.iter().map(Record::to_value).collect();
        let body = Value::Map(Map::from_iter([("p", list)])).encode();
        PointerBatch::from_body(&body.into())
    }

    #[test]
    fn one_writer_has_one_update() {
        let updates = [update(1), update(2), update(1)];
        assert!(PointerBatch::new(updates.to_vec()).is_err());
        assert!(sent(&updates).is_err());
        assert_eq!(
            sent(&updates[..2]),
            Ok(PointerBatch::new(updates[..2].to_vec()).unwrap())
        );
    }

    #[test]
    fn batches_are_bounded() {
        let updates: Vec<_> = (0..=1000).map(update).collect();
        assert!(sent(&updates).is_err());
        assert_eq!(sent(&updates[1..]).unwrap().as_slice(), &updates[1..]);
        let large = Bytes::from(vec![0; MAX_BATCH_BYTES + 1]);
        assert!(matches!(
            PointerBatch::from_body(&large),
            Err(WireError::TooLarge { .. })
        ));
    }

    #[test]
    fn malformed_batches_are_refused() {
        let one = |map: Map| Value::Map(Map::from_iter([("p", vec![Value::Map(map)])])).encode();
        for body in [
            Value::List(Vec::new()).encode(),
            Value::Map(Map::new()).encode(),
            one(Map::from_iter([("s", vec![1u8])])),
            one(Map::from_iter([("w", update(1).writer.to_value())])),
            one(Map::from_iter([
                ("s", Value::from(vec![1u8])),
                ("w", Value::from(vec![1u8])),
            ])),
        ] {
            assert!(PointerBatch::from_body(&body.into()).is_err());
        }
    }
}
