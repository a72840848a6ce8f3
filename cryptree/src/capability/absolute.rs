//! Absolute capabilities (Spec: 20 §2.1, §2.2).

use champ::{
    access::Bat,
    cbor::{Fields, Map, Record, RecordError, Value},
};
use pki::keys::{Owner, PublicKeyHash, Writer};

use super::{Location, MapKey};
use crate::crypto::SymmetricKey;

/// Everything that is needed to open a node, wherever the holder is.
///
/// Equality covers all parts, including whether it is writable and whether keys are dirty. The keys in it
/// are secrets: its debug output names only places.
#[derive(Clone, PartialEq, Eq)]
pub struct AbsoluteCapability {
    /// Identity of the account that pays for the data.
    pub owner: Owner,
    /// Key whose CHAMP holds the node.
    pub writer: Writer,
    /// CHAMP key of the first node.
    pub map_key: MapKey,
    /// Token for the first node's block; absent only for legacy data.
    pub bat: Option<Bat>,
    /// Opens the node for reading.
    pub r_base: SymmetricKey,
    /// Opens the links to write keys and to the signing key.
    pub w_base: Option<SymmetricKey>,
}

impl AbsoluteCapability {
    /// Returns the place holder that opens nothing.
    pub const fn null() -> Self {
        Self {
            owner: Owner(PublicKeyHash::placeholder()),
            writer: Writer(PublicKeyHash::placeholder()),
            map_key: MapKey::from_bytes([0; 32]),
            bat: None,
            r_base: SymmetricKey::from_bytes([0; 32]),
            w_base: None,
        }
    }

    /// Returns true for the place holder.
    pub fn is_null(&self) -> bool {
        self.writer.hash().is_placeholder()
    }

    /// Returns true when it carries a write base key.
    pub const fn is_writable(&self) -> bool {
        self.w_base.is_some()
    }

    /// Returns the same without write access: what is safe to hand to a reader.
    #[must_use]
    pub fn read_only(&self) -> Self {
        Self {
            w_base: None,
            ..self.clone()
        }
    }

    /// Returns which node it opens.
    pub fn location(&self) -> Location {
        Location {
            owner: self.owner.clone(),
            writer: self.writer.clone(),
            map_key: self.map_key,
        }
    }

    /// Returns the capability of another node of the same item: same keys, another place.
    #[must_use]
    pub fn at(&self, map_key: MapKey, bat: Option<Bat>) -> Self {
        Self {
            map_key,
            bat,
            ..self.clone()
        }
    }
}

impl std::fmt::Debug for AbsoluteCapability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AbsoluteCapability")
            .field("writer", &self.writer)
            .field("map_key", &self.map_key)
            .field("writable", &self.is_writable())
            .finish_non_exhaustive()
    }
}

impl Record for AbsoluteCapability {
    fn to_value(&self) -> Value {
        let mut map = Map::from_iter([
            ("k", self.r_base.to_value()),
            ("m", self.map_key.to_value()),
            ("o", self.owner.to_value()),
            ("w", self.writer.to_value()),
        ]);
        map.insert_some("a", self.bat.as_ref().map(Record::to_value));
        map.insert_some("b", self.w_base.as_ref().map(Record::to_value));
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "capability")?;
        Ok(Self {
            owner: Owner::from_value(fields.required("o")?)?,
            writer: Writer::from_value(fields.required("w")?)?,
            map_key: MapKey::from_value(fields.required("m")?)?,
            bat: fields.optional("a").map(Bat::from_value).transpose()?,
            r_base: SymmetricKey::from_value(fields.required("k")?)?,
            w_base: fields
                .optional("b")
                .map(SymmetricKey::from_value)
                .transpose()?,
        })
    }
}
