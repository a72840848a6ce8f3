//! Look-ups of names and keys (Spec: 10 §6).

use bytes::Bytes;
use champ::{
    cbor::Record,
    data_stream::{MAX_STRING_BYTES, Reader, Writer},
};

use super::{
    Body, WireError,
    body::{decode_bounded, record_body},
    stream::limited,
};
use crate::{chain::ClaimChain, keys::PublicKeyHash};

/// Longest body of `getUsername`.
pub const MAX_KEY_REQUEST_BYTES: usize = 1 << 20;
/// Longest list of names that is read, after decompression.
pub const MAX_USERNAMES_BYTES: usize = 16 << 20;

macro_rules! one_string {
    ($(#[$doc:meta] $name:ident)*) => {$(
        #[$doc]
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(pub String);

        impl Body for $name {
            const MAX_BYTES: usize = 4 * MAX_STRING_BYTES;

            fn to_body(&self) -> Vec<u8> {
                Writer::new().string(&self.0).finish()
            }

            fn from_body(body: &Bytes) -> Result<Self, WireError> {
                let name = limited(body, Self::MAX_BYTES)?.string(MAX_STRING_BYTES)?;
                Ok(Self(name.to_owned()))
            }
        }
    )*};
}

one_string! {
    /// The body of `getChain` and `getPublicKey`: a name, which may be one that nobody can have.
    NameRequest
    /// The reply of `getUsername`. Not a proof: the name's chain has to contain the key.
    UsernameReply
}

record_body! {
    // The reply of `getChain`, not length prefixed.
    ClaimChain: super::signup::MAX_LINKS_BYTES, super::signup::MAX_LINKS_VALUES;
}

/// The reply of `getPublicKey`: the last holder's key hash. Not to be trusted without the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKeyReply(pub Option<PublicKeyHash>);

impl Body for PublicKeyReply {
    const MAX_BYTES: usize = 8 << 10;

    fn to_body(&self) -> Vec<u8> {
        match &self.0 {
            Some(hash) => Writer::new().boolean(true).bytes(&hash.encode()),
            None => Writer::new().boolean(false),
        }
        .finish()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        let mut reader = limited(body, Self::MAX_BYTES)?;
        Ok(Self(match reader.boolean()? {
            true => Some(read_hash(&mut reader, Self::MAX_BYTES)?),
            false => None,
        }))
    }
}

/// The body of `getUsername`: an identity key hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRequest(pub PublicKeyHash);

impl Body for KeyRequest {
    const MAX_BYTES: usize = MAX_KEY_REQUEST_BYTES + 4;

    fn to_body(&self) -> Vec<u8> {
        Writer::new().bytes(&self.0.encode()).finish()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        let mut reader = limited(body, Self::MAX_BYTES)?;
        Ok(Self(read_hash(&mut reader, MAX_KEY_REQUEST_BYTES)?))
    }
}

fn read_hash(reader: &mut Reader<'_>, max: usize) -> Result<PublicKeyHash, WireError> {
    // A link: one value, and the bytes inside it.
    let link = Bytes::copy_from_slice(reader.bytes(max)?);
    Ok(PublicKeyHash::from_value(decode_bounded(&link, max, 2)?)?)
}

/// The reply of `getUsernamesGzip`, uncompressed: a JSON array.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usernames(pub Vec<String>);

impl Body for Usernames {
    const MAX_BYTES: usize = MAX_USERNAMES_BYTES;

    fn to_body(&self) -> Vec<u8> {
        serde_json::Value::from(self.0.clone())
            .to_string()
            .into_bytes()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        if body.len() > Self::MAX_BYTES {
            return Err(WireError::TooLarge {
                max: Self::MAX_BYTES,
            });
        }
        serde_json::from_slice(body)
            .map(Self)
            .map_err(|_| WireError::Text("list of names"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_json() {
        let names = Usernames(vec!["alice".into(), "a\"b".into()]);
        assert_eq!(names.to_body(), br#"["alice","a\"b"]"#);
        assert_eq!(Usernames::from_body(&names.to_body().into()), Ok(names));
        for bad in ["", "{}", "[1]", "[\"a\"", "[\"a\"]x"] {
            assert!(Usernames::from_body(&Bytes::from(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn requests_are_limited() {
        let name = |length: usize| Writer::new().string(&"x".repeat(length)).finish();
        assert!(NameRequest::from_body(&name(MAX_STRING_BYTES).into()).is_ok());
        assert!(NameRequest::from_body(&name(MAX_STRING_BYTES + 1).into()).is_err());
        assert!(UsernameReply::from_body(&name(MAX_STRING_BYTES + 1).into()).is_err());
        let large = Bytes::from(vec![0; KeyRequest::MAX_BYTES + 1]);
        assert!(matches!(
            KeyRequest::from_body(&large),
            Err(WireError::TooLarge { .. })
        ));
        // A raw block is no key.
        let raw = champ::cbor::Value::Link(champ::Cid::of_raw(b"x")).encode();
        let body = Writer::new().bytes(&raw).finish();
        assert!(KeyRequest::from_body(&body.into()).is_err());
        assert!(PublicKeyReply::from_body(&Bytes::new()).is_err());
    }
}
