//! Records: maps and lists with known fields (Spec: 01 §1.7).

use bytes::Bytes;

use super::{DecodeError, Map, Value, decode, decode_shared};
use crate::cid::{Cid, CidError};

/// A value that is well-formed CBOR but not the expected record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Not CBOR of the profile.
    #[error("record is not valid cbor")]
    Cbor(#[from] DecodeError),
    /// A required field or list element is missing.
    #[error("record field `{0}` is missing")]
    Missing(&'static str),
    /// A field has the wrong type.
    #[error("record field `{field}` is a {found}, not a {expected}")]
    WrongKind {
        /// Field name.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A byte string of the wrong length.
    #[error("record field `{field}` has {actual} bytes")]
    WrongLength {
        /// Field name.
        field: &'static str,
        /// Length found, in bytes.
        actual: usize,
    },
    /// A type code, version or value that readers must refuse.
    #[error("record field `{field}` is out of range")]
    OutOfRange {
        /// Field name.
        field: &'static str,
    },
    /// A byte string that should hold a CID and does not.
    #[error("record field `{field}` does not hold a cid")]
    Cid {
        /// Field name.
        field: &'static str,
        /// Why.
        source: CidError,
    },
}

/// A structure with a fixed CBOR form.
pub trait Record: Sized {
    /// Returns the canonical value.
    fn to_value(&self) -> Value;

    /// Reads the record out of a decoded value; unknown map keys and extra list elements are ignored.
    ///
    /// # Errors
    /// Any [`RecordError`].
    fn from_value(value: Value) -> Result<Self, RecordError>;

    /// Returns the canonical bytes.
    fn encode(&self) -> Vec<u8> {
        self.to_value().encode()
    }

    /// Decodes leniently; the input must be used up.
    ///
    /// # Errors
    /// Any [`RecordError`].
    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        Self::from_value(decode(bytes)?)
    }

    /// Decodes like [`Record::decode`], sharing the memory of `bytes`.
    ///
    /// # Errors
    /// Any [`RecordError`].
    fn decode_shared(bytes: &Bytes) -> Result<Self, RecordError> {
        Self::from_value(decode_shared(bytes)?)
    }
}

impl Value {
    fn wrong(&self, field: &'static str, expected: &'static str) -> RecordError {
        RecordError::WrongKind {
            field,
            expected,
            found: self.kind(),
        }
    }

    /// Returns the integer, or an error that names `field`.
    pub fn into_int(self, field: &'static str) -> Result<i64, RecordError> {
        match self {
            Self::Int(n) => Ok(n),
            other => Err(other.wrong(field, "integer")),
        }
    }

    /// Returns the byte string.
    pub fn into_bytes(self, field: &'static str) -> Result<Bytes, RecordError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(other.wrong(field, "byte string")),
        }
    }

    /// Returns a byte string of exactly `N` bytes.
    pub fn into_array<const N: usize>(self, field: &'static str) -> Result<[u8; N], RecordError> {
        let bytes = self.into_bytes(field)?;
        <[u8; N]>::try_from(bytes.as_ref()).map_err(|_| RecordError::WrongLength {
            field,
            actual: bytes.len(),
        })
    }

    /// Returns the text.
    pub fn into_text(self, field: &'static str) -> Result<String, RecordError> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(other.wrong(field, "text")),
        }
    }

    /// Returns the list.
    pub fn into_list(self, field: &'static str) -> Result<Vec<Self>, RecordError> {
        match self {
            Self::List(items) => Ok(items),
            other => Err(other.wrong(field, "list")),
        }
    }

    /// Returns the map.
    pub fn into_map(self, field: &'static str) -> Result<Map, RecordError> {
        match self {
            Self::Map(map) => Ok(map),
            other => Err(other.wrong(field, "map")),
        }
    }

    /// Returns the link's target.
    pub fn into_link(self, field: &'static str) -> Result<Cid, RecordError> {
        match self {
            Self::Link(cid) => Ok(cid),
            other => Err(other.wrong(field, "link")),
        }
    }

    /// Returns the boolean.
    pub fn into_bool(self, field: &'static str) -> Result<bool, RecordError> {
        match self {
            Self::Bool(b) => Ok(b),
            other => Err(other.wrong(field, "boolean")),
        }
    }

    /// Returns the CID inside a plain byte string (not a link).
    pub fn into_cid_bytes(self, field: &'static str) -> Result<Cid, RecordError> {
        Cid::decode(&self.into_bytes(field)?).map_err(|source| RecordError::Cid { field, source })
    }

    /// Returns a "maybe CID": null, or a byte string holding a CID (Spec: 01 §3.5).
    pub fn into_maybe_cid(self, field: &'static str) -> Result<Option<Cid>, RecordError> {
        match self {
            Self::Null => Ok(None),
            other => other.into_cid_bytes(field).map(Some),
        }
    }
}

/// Takes the fields of a record out of a map, by name.
#[derive(Debug, Clone)]
pub struct Fields {
    map: Map,
    // A hostile map has many keys, a record few fields: taking one must not move all the others.
    taken: Vec<&'static str>,
}

impl Fields {
    /// Starts with a value that must be a map; `record` names it in the error.
    ///
    /// # Errors
    /// [`RecordError::WrongKind`].
    pub fn of(value: Value, record: &'static str) -> Result<Self, RecordError> {
        Ok(Self {
            map: value.into_map(record)?,
            taken: Vec::new(),
        })
    }

    /// Takes a field that may be absent.
    pub fn optional(&mut self, field: &'static str) -> Option<Value> {
        if self.taken.contains(&field) {
            return None;
        }
        let value = self.map.take(field)?;
        self.taken.push(field);
        Some(value)
    }

    /// Takes a field that must be there.
    ///
    /// # Errors
    /// [`RecordError::Missing`].
    pub fn required(&mut self, field: &'static str) -> Result<Value, RecordError> {
        self.optional(field).ok_or(RecordError::Missing(field))
    }

    /// Takes a boolean whose absence means false.
    ///
    /// # Errors
    /// [`RecordError::WrongKind`].
    pub fn flag(&mut self, field: &'static str) -> Result<bool, RecordError> {
        self.optional(field)
            .map_or(Ok(false), |value| value.into_bool(field))
    }

    /// Returns what was not taken: keys this version does not know, to be preserved on rewriting.
    pub fn rest(self) -> Map {
        self.map.without(&self.taken)
    }
}
