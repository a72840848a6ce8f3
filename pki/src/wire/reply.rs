//! Replies that are a single value (Spec: 05 §6).

use bytes::Bytes;
use champ::{
    access::BatWithId,
    cbor::{Record, RecordError, Value},
};

use super::{Body, WireError, body::decode_bounded, body::record_body};

/// Longest reply that is a single value.
pub const MAX_VALUE_BYTES: usize = 1 << 10;
/// Longest host name in the reply of `link-host`, with port.
pub const MAX_HOST_BYTES: usize = 260;
/// Longest transaction id.
pub const MAX_TRANSACTION_CHARS: usize = 64;
/// Most mirror tokens of one user (Spec: 09 §5).
pub const MAX_MIRROR_BATS: usize = 20;

/// Most mirror tokens that are read: official servers have no limit.
const MAX_READ_MIRROR_BATS: usize = 1024;

/// One byte, `00` or `01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteBoolean(pub bool);

impl Body for ByteBoolean {
    const MAX_BYTES: usize = MAX_VALUE_BYTES;

    fn to_body(&self) -> Vec<u8> {
        vec![u8::from(self.0)]
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        match body.as_ref() {
            [byte] => Ok(Self(*byte != 0)),
            _ => Err(WireError::Text("boolean")),
        }
    }
}

/// A CBOR boolean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CborBoolean(pub bool);

impl Body for CborBoolean {
    const MAX_BYTES: usize = MAX_VALUE_BYTES;

    fn to_body(&self) -> Vec<u8> {
        Value::Bool(self.0).encode()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        let value = decode_bounded(body, Self::MAX_BYTES, 1)?;
        Ok(Self(value.into_bool("boolean")?))
    }
}

/// An amount of space in bytes: the reply of `usage` and `quota`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceBytes(pub i64);

impl Body for SpaceBytes {
    const MAX_BYTES: usize = MAX_VALUE_BYTES;

    fn to_body(&self) -> Vec<u8> {
        Value::Int(self.0).encode()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        let value = decode_bounded(body, Self::MAX_BYTES, 1)?;
        Ok(Self(value.into_int("bytes")?))
    }
}

/// A transaction id: at most [`MAX_TRANSACTION_CHARS`] of `[0-9a-zA-Z-]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(String);

impl TransactionId {
    /// Returns the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for TransactionId {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Self, WireError> {
        let legal = (1..=MAX_TRANSACTION_CHARS).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        match legal {
            true => Ok(Self(text.to_owned())),
            false => Err(WireError::Text("transaction id")),
        }
    }
}

impl Body for TransactionId {
    const MAX_BYTES: usize = MAX_TRANSACTION_CHARS;

    fn to_body(&self) -> Vec<u8> {
        self.0.clone().into_bytes()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        std::str::from_utf8(body)
            .map_err(|_| WireError::Text("transaction id"))?
            .parse()
    }
}

/// The reply of `transaction/close`: `1`, also for ids that were never opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionClosed(pub bool);

impl Body for TransactionClosed {
    const MAX_BYTES: usize = MAX_VALUE_BYTES;

    fn to_body(&self) -> Vec<u8> {
        vec![if self.0 { b'1' } else { b'0' }]
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        match body.as_ref() {
            b"1" => Ok(Self(true)),
            b"0" => Ok(Self(false)),
            _ => Err(WireError::Text("transaction reply")),
        }
    }
}

/// The reply of `link-host`: `host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkHost(String);

impl LinkHost {
    /// Returns host and port.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for LinkHost {
    type Err = WireError;

    /// Accepts letters, digits and `.-:[]`: what cannot change the meaning of a URL it is put into.
    fn from_str(text: &str) -> Result<Self, WireError> {
        let legal = (1..=MAX_HOST_BYTES).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
        match legal {
            true => Ok(Self(text.to_owned())),
            false => Err(WireError::Text("link host")),
        }
    }
}

impl Body for LinkHost {
    const MAX_BYTES: usize = MAX_HOST_BYTES;

    fn to_body(&self) -> Vec<u8> {
        self.0.clone().into_bytes()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        std::str::from_utf8(body)
            .map_err(|_| WireError::Text("link host"))?
            .parse()
    }
}

/// The reply of `getUserBats`: mirror tokens, oldest first; the newest is the current one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MirrorBats(pub Vec<BatWithId>);

impl Record for MirrorBats {
    fn to_value(&self) -> Value {
        Value::List(self.0.iter().map(Record::to_value).collect())
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let list = value.into_list("mirror tokens")?;
        if list.len() > MAX_READ_MIRROR_BATS {
            return Err(RecordError::OutOfRange {
                field: "mirror tokens",
            });
        }
        list.into_iter()
            .map(BatWithId::from_value)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

record_body! {
    MirrorBats: 256 << 10, 8 * MAX_READ_MIRROR_BATS;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<B: Body + PartialEq + std::fmt::Debug>(value: B, bytes: &[u8]) {
        assert_eq!(value.to_body(), bytes);
        assert_eq!(B::from_body(&Bytes::copy_from_slice(bytes)), Ok(value));
    }

    #[test]
    fn single_values_round_trip() {
        round_trip(ByteBoolean(true), &[1]);
        round_trip(ByteBoolean(false), &[0]);
        round_trip(CborBoolean(true), &[0xf5]);
        round_trip(SpaceBytes(0), &[0]);
        round_trip(TransactionClosed(true), b"1");
        round_trip(TransactionClosed(false), b"0");
        round_trip(MirrorBats::default(), &[0x80]);
        round_trip("a-1".parse::<TransactionId>().unwrap(), b"a-1");
        round_trip(
            "localhost:8000".parse::<LinkHost>().unwrap(),
            b"localhost:8000",
        );
        assert!(ByteBoolean::from_body(&Bytes::new()).is_err());
        assert!(CborBoolean::from_body(&Bytes::from_static(&[1])).is_err());
        assert!(SpaceBytes::from_body(&Bytes::from_static(&[0xf5])).is_err());
        assert!(TransactionClosed::from_body(&Bytes::from_static(b"2")).is_err());
    }

    #[test]
    fn ids_and_hosts_are_plain() {
        let long = "a".repeat(65);
        for bad in ["", "a b", "a/b", "é", long.as_str()] {
            assert!(bad.parse::<TransactionId>().is_err(), "{bad}");
        }
        for bad in ["", "a/b", "a b", "user@host", "a?b", "a#b", "a\n"] {
            assert!(bad.parse::<LinkHost>().is_err(), "{bad}");
        }
        assert!("[::1]:8000".parse::<LinkHost>().is_ok());
    }
}
