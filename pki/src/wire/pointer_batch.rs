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
