//! What a collection leaves for the next one.

use std::collections::BTreeSet;

use bytes::Bytes;
use champ::{
    Cid,
    cbor::{Fields, Map, Record, RecordError, Value},
};

use crate::store::{BlockCounts, Generation};

/// The state of one owner after a collection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct StateRow {
    /// When it ended, seconds since 1970.
    pub(super) finished: i64,
    /// The moment before which a block must have been unneeded to be deleted.
    pub(super) baseline: Baseline,
    /// Pointer epoch and content of the partition at the end: while both are the same there is nothing to do.
    pub(super) epoch: Option<Bytes>,
    /// Blocks in the partition at the end.
    pub(super) left: BlockCounts,
    /// Blocks that nothing needs and that stay for now.
    pub(super) waiting: BlockCounts,
    /// Since when the identity's pointer is deleted.
    pub(super) deleted_since: Option<i64>,
}

/// A moment at which the roots and the newest block were recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Baseline {
    /// Seconds since 1970.
    pub(super) at: i64,
    /// Blocks put after this generation are younger than the moment.
    pub(super) newest: Generation,
    /// The pointers' targets at the moment.
    pub(super) targets: BTreeSet<Cid>,
}

impl Record for StateRow {
    fn to_value(&self) -> Value {
        let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let mut map = Map::new();
        map.insert("at", self.baseline.at);
        map.insert("b", int(self.left.blocks));
        map.insert("c", int(self.left.bytes));
        map.insert_some("e", self.epoch.clone());
        map.insert("f", self.finished);
        map.insert("n", self.baseline.newest.0.to_be_bytes().to_vec());
        let targets = self.baseline.targets.iter();
        map.insert("r", targets.map(Value::from).collect::<Vec<_>>());
        map.insert_some("s", self.deleted_since);
        map.insert("w", int(self.waiting.blocks));
        map.insert("x", int(self.waiting.bytes));
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "collection state")?;
        let mut count = |field: &'static str| {
            let n = fields.required(field)?.into_int(field)?;
            u64::try_from(n).map_err(|_| RecordError::OutOfRange { field })
        };
        let left = BlockCounts {
            blocks: count("b")?,
            bytes: count("c")?,
        };
        let waiting = BlockCounts {
            blocks: count("w")?,
            bytes: count("x")?,
        };
        let targets = fields.required("r")?.into_list("r")?;
        let targets = targets.into_iter().map(|target| target.into_link("r"));
        Ok(Self {
            finished: fields.required("f")?.into_int("f")?,
            baseline: Baseline {
                at: fields.required("at")?.into_int("at")?,
                newest: Generation(u64::from_be_bytes(fields.required("n")?.into_array("n")?)),
                targets: targets.collect::<Result<_, _>>()?,
            },
            epoch: fields
                .optional("e")
                .map(|value| value.into_bytes("e"))
                .transpose()?,
            left,
            waiting,
            deleted_since: fields
                .optional("s")
                .map(|value| value.into_int("s"))
                .transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_encoding() {
        let mut row = StateRow {
            finished: 5,
            baseline: Baseline {
                at: -3,
                newest: Generation(u64::MAX),
                targets: BTreeSet::from([Cid::of_cbor(b"a"), Cid::of_cbor(b"b")]),
            },
            epoch: Some(Bytes::from_static(b"epoch")),
            left: BlockCounts {
                blocks: 1,
                bytes: 2,
            },
            waiting: BlockCounts {
                blocks: 3,
                bytes: 4,
            },
            deleted_since: Some(9),
        };
        assert_eq!(StateRow::decode(&row.encode()).unwrap(), row);
        row = StateRow::default();
        assert_eq!(StateRow::decode(&row.encode()).unwrap(), row);
        assert!(StateRow::decode(b"\xa0").is_err());
    }
}
