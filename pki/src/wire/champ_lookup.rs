//! Server side champ lookups: `champ/get/bulk` (Spec: 06 §5.3).

use bytes::Bytes;
use champ::{
    access::BatWithId,
    cbor::{Fields, Map, Record, RecordError, Value},
    text,
};

use super::{Body, WireError, body::decode_bounded};

/// Most keys in one lookup.
pub const MAX_LOOKUP_KEYS: usize = 20;
/// Longest reply a client reads: 20 paths of champ nodes and 20 values.
pub const MAX_LOOKUP_REPLY_BYTES: usize = 32 << 20;
/// Most blocks in a reply.
pub const MAX_LOOKUP_REPLY_BLOCKS: usize = 4096;

/// One key to look up, and the token that opens the block its value links to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChampCap {
    /// The map key, which is its own hash.
    pub map_key: [u8; 32],
    /// Token of the value block; none for public blocks.
    pub bat: Option<BatWithId>,
}

impl Record for ChampCap {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert_some("b", self.bat.as_ref().map(Record::to_value));
        map.insert("m", &self.map_key);
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "champ cap")?;
        Ok(Self {
            bat: fields
                .optional("b")
                .map(BatWithId::from_value)
                .transpose()?,
            map_key: fields.required("m")?.into_array("m")?,
        })
    }
}

/// The `caps` parameter: at most [`MAX_LOOKUP_KEYS`] keys.
///
/// Clients send at least one; official servers answer an empty list with an empty list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChampCaps(Vec<ChampCap>);

impl ChampCaps {
    /// Checks the number of keys.
    ///
    /// # Errors
    /// [`WireError::TooManyCaps`].
    pub fn new(caps: Vec<ChampCap>) -> Result<Self, WireError> {
        if caps.len() > MAX_LOOKUP_KEYS {
            return Err(WireError::TooManyCaps(caps.len()));
        }
        Ok(Self(caps))
    }

    /// Returns the keys.
    pub fn as_slice(&self) -> &[ChampCap] {
        &self.0
    }

    /// Returns the parameter's value: multibase base58btc of the list.
    pub fn to_parameter(&self) -> String {
        text::to_multibase(&self.list().encode())
    }

    /// Parses the parameter's value.
    ///
    /// # Errors
    /// [`WireError::Text`], [`WireError::Record`], [`WireError::TooManyCaps`].
    pub fn from_parameter(parameter: &str) -> Result<Self, WireError> {
        let bytes = text::from_multibase(parameter).map_err(|_| WireError::Text("caps"))?;
        // 20 entries take less than 3 kB; larger lists are decoded so far that they can be counted.
        let list = decode_bounded(&bytes.into(), 16 << 10, 1 << 10)?.into_list("caps")?;
        if list.len() > MAX_LOOKUP_KEYS {
            return Err(WireError::TooManyCaps(list.len()));
        }
        Self::new(
            list.into_iter()
                .map(ChampCap::from_value)
                .collect::<Result<_, _>>()?,
        )
    }

    fn list(&self) -> Value {
        Value::List(self.0.iter().map(Record::to_value).collect())
    }
}

/// The reply: every block read on the way, each once, in any order. Nothing in it is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChampLookupReply(pub Vec<Bytes>);

impl Body for ChampLookupReply {
    const MAX_BYTES: usize = MAX_LOOKUP_REPLY_BYTES;

    fn to_body(&self) -> Vec<u8> {
        Value::List(self.0.iter().cloned().map(Value::Bytes).collect()).encode()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        let list = decode_bounded(body, Self::MAX_BYTES, MAX_LOOKUP_REPLY_BLOCKS + 1)?;
        let blocks = list.into_list("blocks")?;
        Ok(Self(
            blocks
                .into_iter()
                .map(|block| block.into_bytes("block"))
                .collect::<Result<_, _>>()?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(count: u8) -> Vec<ChampCap> {
        (0..count)
            .map(|i| ChampCap {
                map_key: [i; 32],
                bat: None,
            })
            .collect()
    }

    #[test]
    fn twenty_keys_are_the_limit() {
        for count in [0, 1, 20] {
            let list = ChampCaps::new(caps(count)).unwrap();
            let parameter = list.to_parameter();
            assert_eq!(ChampCaps::from_parameter(&parameter), Ok(list));
        }
        assert!(ChampCaps::new(caps(21)).is_err());
        let many = Value::List(caps(21).iter().map(Record::to_value).collect()).encode();
        let error = ChampCaps::from_parameter(&text::to_multibase(&many)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Too many caps in bulk champ get call! 21"
        );
    }

    #[test]
    fn malformed_parameters_are_refused() {
        for parameter in ["", "z", "q11", "z0", "zz", &text::to_multibase(&[0xa0])] {
            assert!(ChampCaps::from_parameter(parameter).is_err(), "{parameter}");
        }
        let short = Value::List(vec![Value::Map(Map::from_iter([("m", vec![0u8; 31])]))]);
        assert!(ChampCaps::from_parameter(&text::to_multibase(&short.encode())).is_err());
        let long = "z".repeat(40_000);
        assert!(ChampCaps::from_parameter(&long).is_err());
    }

    #[test]
    fn replies_are_lists_of_bytes() {
        let reply = ChampLookupReply(vec![Bytes::from_static(b"ab"), Bytes::new()]);
        assert_eq!(
            ChampLookupReply::from_body(&reply.to_body().into()),
            Ok(reply)
        );
        let bad = Value::List(vec![Value::Int(1)]).encode();
        assert!(ChampLookupReply::from_body(&bad.into()).is_err());
        let many = ChampLookupReply(vec![Bytes::new(); MAX_LOOKUP_REPLY_BLOCKS + 1]).to_body();
        assert!(ChampLookupReply::from_body(&many.into()).is_err());
    }
}
