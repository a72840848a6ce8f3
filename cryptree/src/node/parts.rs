//! What the base part and the parent part hold (Spec: 20 §3.3, §3.4).

use champ::cbor::{Fields, Map, Record, RecordError, Value};

use crate::{
    capability::RelativeCapability, ciphertext::SignerLink, crypto::SymmetricKey,
    properties::FileProperties,
};

/// The base part: keys to what is below, and the way to the next node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasePart {
    /// Parent key of a directory, data key of a file; never the read base key.
    pub second_key: SymmetricKey,
    /// Where the next chunk or page is, or would be.
    pub next: RelativeCapability,
    /// The writing space's signing key; only on the first node of its top item.
    pub signer: Option<SignerLink>,
}

impl Record for BasePart {
    fn to_value(&self) -> Value {
        let mut map = Map::from_iter([
            ("k", self.second_key.to_value()),
            ("n", self.next.to_value()),
        ]);
        map.insert_some("w", self.signer.as_ref().map(Record::to_value));
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "base part")?;
        Ok(Self {
            second_key: SymmetricKey::from_value(fields.required("k")?)?,
            next: RelativeCapability::from_value(fields.required("n")?)?,
            signer: fields
                .optional("w")
                .map(SignerLink::from_value)
                .transpose()?,
        })
    }
}

/// The parent part: the way up, and the properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentPart {
    /// The containing directory, with its parent key; absent for a home directory and unreliable on later
    /// chunks and pages.
    pub parent: Option<RelativeCapability>,
    /// The properties.
    pub properties: FileProperties,
}

impl Record for ParentPart {
    fn to_value(&self) -> Value {
        let mut map = Map::from_iter([("s", self.properties.to_value())]);
        map.insert_some("p", self.parent.as_ref().map(Record::to_value));
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "parent part")?;
        Ok(Self {
            parent: fields
                .optional("p")
                .map(RelativeCapability::from_value)
                .transpose()?,
            properties: FileProperties::from_value(fields.required("s")?)?,
        })
    }
}
