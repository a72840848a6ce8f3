//! Follow requests as servers see them: sealed, from nobody (Spec: 22 §2.2, §3).

use bytes::Bytes;
use champ::cbor::{Fields, Map, Record, RecordError, Value, decode_canonical};

use super::{Body, WireError, body::decode_bounded, stream::limited};
use crate::boxing::PublicBoxingKey;

/// Longest sealed request, in bytes.
pub const MAX_FOLLOW_REQUEST_BYTES: usize = 4096;
/// Longest body of `removeFollowRequest`: a signature and a stored request.
pub const MAX_REMOVE_BYTES: usize = MAX_FOLLOW_REQUEST_BYTES + 64;
/// Most pending requests of one user.
pub const MAX_PENDING_REQUESTS: usize = 101;
/// Longest reply of `getFollowRequests`, without its length.
pub const MAX_FOLLOW_REQUESTS_BYTES: usize = 1 << 20;

/// Shortest cipher text that can hold anything.
const MIN_CIPHER_BYTES: usize = 32;

/// A sealed follow request: `{"f": bytes, "k": public boxing key}`, checked so far that every reader can
/// parse it.
///
/// Official servers store any bytes, and one malformed body then makes the whole inbox unreadable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowRequest {
    cipher: Bytes,
    sender_key: PublicBoxingKey,
}

impl FollowRequest {
    /// Returns the asymmetric cipher text.
    pub const fn cipher(&self) -> &Bytes {
        &self.cipher
    }

    /// Returns the one-time public boxing key of the sender.
    pub const fn sender_key(&self) -> &PublicBoxingKey {
        &self.sender_key
    }
}

impl Record for FollowRequest {
    fn to_value(&self) -> Value {
        Value::Map(Map::from_iter([
            ("f", Value::Bytes(self.cipher.clone())),
            ("k", self.sender_key.to_value()),
        ]))
    }

    /// Unlike other records this one has exactly its keys.
    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "follow request")?;
        let cipher = fields.required("f")?.into_bytes("f")?;
        let key = fields.required("k")?;
        if cipher.len() < MIN_CIPHER_BYTES {
            return Err(RecordError::WrongLength {
                field: "f",
                actual: cipher.len(),
            });
        }
        let sender_key = PublicBoxingKey::from_value(key.clone())?;
        if sender_key.to_value() != key || !fields.rest().is_empty() {
            return Err(RecordError::OutOfRange {
                field: "follow request",
            });
        }
        Ok(Self { cipher, sender_key })
    }
}

impl Body for FollowRequest {
    const MAX_BYTES: usize = MAX_FOLLOW_REQUEST_BYTES;

    fn to_body(&self) -> Vec<u8> {
        self.encode()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        if body.len() > Self::MAX_BYTES {
            return Err(WireError::TooLarge {
                max: Self::MAX_BYTES,
            });
        }
        Ok(Self::from_value(decode_canonical(body)?)?)
    }
}

/// The reply of `getFollowRequests`: 4 bytes of length, then the list in order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FollowRequests(pub Vec<FollowRequest>);

impl Body for FollowRequests {
    const MAX_BYTES: usize = MAX_FOLLOW_REQUESTS_BYTES + 4;

    fn to_body(&self) -> Vec<u8> {
        let list = Value::List(self.0.iter().map(Record::to_value).collect());
        champ::data_stream::Writer::new()
            .bytes(&list.encode())
            .finish()
    }

    /// Entries that are no follow requests are left out: anybody can store them on an official server.
    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        let mut reader = limited(body, Self::MAX_BYTES)?;
        let list = body.slice_ref(reader.bytes(MAX_FOLLOW_REQUESTS_BYTES)?);
        let list = decode_bounded(&list, MAX_FOLLOW_REQUESTS_BYTES, 16 << 10)?;
        Ok(Self(
            list.into_list("follow requests")?
                .into_iter()
                .filter_map(|value| FollowRequest::from_value(value).ok())
                .collect(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(length: usize) -> Value {
        Value::List(vec![Value::Int(1), Value::from(vec![1; length])])
    }

    fn hybrid(length: usize) -> Value {
        let kem = Map::from_iter([("p", vec![1; length])]);
        let parts = Map::from_iter([("c", curve(32)), ("m", Value::Map(kem))]);
        Value::List(vec![Value::Int(2), Value::Map(parts)])
    }

    fn request(cipher: usize, key: Value) -> Map {
        Map::from_iter([("f", Value::from(vec![2; cipher])), ("k", key)])
    }

    fn read(map: Map) -> Result<FollowRequest, WireError> {
        FollowRequest::from_body(&Value::Map(map).encode().into())
    }

    #[test]
    fn both_key_types_pass() {
        for (cipher, key, length) in [(552, curve(32), 596), (2211, hybrid(1568), 3836)] {
            let request = read(request(cipher, key)).unwrap();
            assert_eq!(request.to_body().len(), length);
        }
    }

    #[test]
    fn nothing_else_can_be_stored() {
        let mut extra = request(552, curve(32));
        extra.insert("x", 1);
        let nested = Value::List(vec![Value::Int(2), hybrid(1568)]);
        for map in [
            Map::new(),
            extra,
            request(31, curve(32)),
            request(552, curve(31)),
            request(552, hybrid(1567)),
            request(552, nested),
            request(552, Value::Null),
            request(4000, curve(32))
                .into_iter()
                .chain([("k2".into(), Value::Null)])
                .collect(),
        ] {
            assert!(read(map).is_err());
        }
        assert!(FollowRequest::from_body(&Bytes::from_static(b"junk")).is_err());
        let large = read(request(4090, curve(32)));
        assert_eq!(
            large.unwrap_err().to_string(),
            "Input exceeds maximum size of 4096 bytes"
        );
        // Lenient CBOR, but not canonical: `k` before `f`.
        let (f, k) = (Value::from(vec![2; 40]).encode(), curve(32).encode());
        let swapped = [&[0xa2, 0x61, b'k'][..], &k, &[0x61, b'f'], &f].concat();
        assert!(FollowRequest::from_body(&swapped.into()).is_err());
    }

    #[test]
    fn an_empty_inbox_has_five_bytes() {
        assert_eq!(FollowRequests::default().to_body(), [0, 0, 0, 1, 0x80]);
    }

    #[test]
    fn one_bad_entry_does_not_spoil_the_inbox() {
        let good = read(request(552, curve(32))).unwrap();
        let list = Value::List(vec![Value::Int(1), good.to_value(), Value::Map(Map::new())]);
        let body = champ::data_stream::Writer::new().bytes(&list.encode());
        assert_eq!(
            FollowRequests::from_body(&body.finish().into()),
            Ok(FollowRequests(vec![good]))
        );
    }
}
