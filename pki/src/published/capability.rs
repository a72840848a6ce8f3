//! Capabilities as they stand in a published tree: read, passed on, never used here (Spec: 04 §7, 13 §8, 20 §2.3).

use champ::{
    access::Bat,
    cbor::{Fields, Map, Record, RecordError, Value},
    text,
};

use crate::keys::{Owner, Writer};

/// Longest record of a read key that is passed on; the known kind takes 37 bytes.
const MAX_KEY_BYTES: usize = 64;

/// A capability to read an item; its key is opaque.
#[derive(Clone, PartialEq, Eq)]
pub struct PublishedCapability {
    /// Identity of the account that pays for the data.
    pub owner: Owner,
    /// Key whose CHAMP holds the item.
    pub writer: Writer,
    /// Where in that CHAMP.
    pub map_key: [u8; 32],
    /// Token for the item's first block.
    pub bat: Option<Bat>,
    /// Record of the read key.
    key: Value,
}

impl PublishedCapability {
    /// Returns the link text: four parts, to read only.
    pub fn link_text(&self) -> String {
        let mut node = self.map_key.to_vec();
        if let Some(bat) = &self.bat {
            node.extend_from_slice(&bat.encode());
        }
        let parts = [
            self.owner.encode(),
            self.writer.encode(),
            node,
            self.key.encode(),
        ]
        .map(|part| text::to_base58(&part));
        format!("#{}", parts.join("/"))
    }
}

impl std::fmt::Debug for PublishedCapability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishedCapability")
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}

impl Record for PublishedCapability {
    fn to_value(&self) -> Value {
        let mut map = Map::from_iter([
            ("k", self.key.clone()),
            ("m", Value::from(&self.map_key)),
            ("o", self.owner.to_value()),
            ("w", self.writer.to_value()),
        ]);
        map.insert_some("a", self.bat.as_ref().map(Record::to_value));
        Value::Map(map)
    }

    /// Reads an absolute capability; a write key in it is dropped.
    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "published capability")?;
        let key = Value::List(fields.required("k")?.into_list("k")?);
        if key.encode().len() > MAX_KEY_BYTES {
            return Err(RecordError::OutOfRange { field: "k" });
        }
        Ok(Self {
            owner: Owner::from_value(fields.required("o")?)?,
            writer: Writer::from_value(fields.required("w")?)?,
            map_key: fields.required("m")?.into_array("m")?,
            bat: fields.optional("a").map(Bat::from_value).transpose()?,
            key,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::keys::{PublicKeyHash, PublicSigningKey};

    pub(in crate::published) fn capability(n: u8) -> PublishedCapability {
        let key = PublicKeyHash::of(&PublicSigningKey::from_bytes([n; 32]));
        PublishedCapability {
            owner: Owner(key.clone()),
            writer: Writer(key),
            map_key: [n; 32],
            bat: Some(Bat::from_secret([n; 32])),
            key: Value::List(vec![
                Value::Int(1),
                Value::from(&[n; 32]),
                Value::Bool(false),
            ]),
        }
    }

    #[test]
    fn write_keys_are_dropped_and_large_keys_refused() {
        let read = capability(1);
        let with = |field: &str, value: Value| {
            let Value::Map(mut map) = read.to_value() else {
                panic!("a map");
            };
            map.insert(field, value);
            PublishedCapability::from_value(Value::Map(map))
        };
        let writable = with("b", read.key.clone()).unwrap();
        assert_eq!(writable, read);
        assert_eq!(writable.encode(), read.encode());
        assert_eq!(writable.link_text().matches('/').count(), 3);
        for (field, bad) in [
            ("k", Value::from(&[0; 32])),
            ("k", Value::List(vec![Value::from(&[0; 64])])),
            ("m", Value::from(vec![0u8; 31])),
            ("o", Value::Null),
            ("w", Value::Int(1)),
            ("a", Value::Int(1)),
        ] {
            assert!(with(field, bad).is_err(), "{field}");
        }
        assert!(!format!("{read:?}").contains("0101"));
    }
}
