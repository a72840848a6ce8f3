//! Where nodes are, and where a view of a file system starts (Spec: 20 §2.6).

use std::fmt;

use champ::{
    cbor::{Fields, Map, Record, RecordError, Value},
    text,
};
use pki::keys::{Owner, Writer};
use rand_core::CryptoRng;

use super::AbsoluteCapability;

/// The 32-byte key of a node in its writer's CHAMP.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapKey([u8; 32]);

impl MapKey {
    /// Wraps 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Draws a fresh key.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Returns the bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell two apart in a log, not enough to look one up.
        let [a, b, c, ..] = self.0;
        write!(f, "MapKey({}..)", text::to_hex(&[a, b, c]))
    }
}

impl Record for MapKey {
    fn to_value(&self) -> Value {
        Value::from(&self.0)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        value.into_array("map key").map(Self)
    }
}

/// The identity of a node: `[owner, writer, map key]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// Whose space it is in.
    pub owner: Owner,
    /// Whose CHAMP it is in.
    pub writer: Writer,
    /// Its key there.
    pub map_key: MapKey,
}

impl Record for Location {
    fn to_value(&self) -> Value {
        Value::List(vec![
            self.owner.to_value(),
            self.writer.to_value(),
            self.map_key.to_value(),
        ])
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut items = value.into_list("location")?.into_iter();
        let mut next = || items.next().ok_or(RecordError::Missing("location"));
        Ok(Self {
            owner: Owner::from_value(next()?)?,
            writer: Writer::from_value(next()?)?,
            map_key: MapKey::from_value(next()?)?,
        })
    }
}

/// A capability and the name of the user whose file system it opens: `{"c", "n"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryPoint {
    /// What it opens.
    pub capability: AbsoluteCapability,
    /// User name of the owner, as the record's writer knew it.
    pub owner_name: String,
}

impl Record for EntryPoint {
    fn to_value(&self) -> Value {
        Value::Map(Map::from_iter([
            ("c", self.capability.to_value()),
            ("n", Value::from(self.owner_name.as_str())),
        ]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "entry point")?;
        Ok(Self {
            capability: AbsoluteCapability::from_value(fields.required("c")?)?,
            owner_name: fields.required("n")?.into_text("n")?,
        })
    }
}
