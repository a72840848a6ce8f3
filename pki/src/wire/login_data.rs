//! Login data: the envelope in which the home server keeps a user's keys (Spec: 08 §1).

use bytes::Bytes;
use champ::cbor::{Fields, Map, Record, RecordError, Value};

use super::{
    Body, WireError,
    body::{decode_bounded, record_body},
    op_log::BlockWrite,
    pointer_batch::PointerWrite,
    second_factor::MultiFactorRequest,
};
use crate::{keys::PublicSigningKey, username::Username};

/// Longest body of `setLogin`.
pub const MAX_LOGIN_DATA_BYTES: usize = 16_384;
/// Longest reply of `getLogin` a client reads.
pub const MAX_LOGIN_RESPONSE_BYTES: usize = 64 << 10;

/// A cipher text that this crate only carries: `[nonce, cipher]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpaqueCipherText {
    /// Nonce.
    pub nonce: [u8; 24],
    /// Tag and cipher text.
    pub cipher: Bytes,
}

impl Record for OpaqueCipherText {
    fn to_value(&self) -> Value {
        Value::List(vec![
            Value::from(&self.nonce),
            Value::Bytes(self.cipher.clone()),
        ])
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut items = value.into_list("cipher text")?.into_iter();
        let mut next = || items.next().ok_or(RecordError::Missing("cipher text"));
        Ok(Self {
            nonce: next()?.into_array("cipher text")?,
            cipher: next()?.into_bytes("cipher text")?,
        })
    }
}

/// The new identity root block and the pointer to it: what a password change publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootChange {
    /// The root block with the new salt.
    pub block: BlockWrite,
    /// The identity's pointer update.
    pub pointer: PointerWrite,
}

/// What `setLogin` uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginData {
    /// Whose.
    pub username: Username,
    /// The encrypted keys; opaque to the server.
    pub record: OpaqueCipherText,
    /// Who may fetch it: the login public key.
    pub reader: PublicSigningKey,
    /// Present when the password change also publishes a new salt. The keys count only together.
    pub root_change: Option<RootChange>,
}

impl Record for LoginData {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        if let Some(change) = &self.root_change {
            map.insert("b", change.block.to_value());
            map.insert("p", change.pointer.to_value());
        }
        map.insert("e", self.record.to_value());
        map.insert("r", self.reader.to_value());
        map.insert("u", self.username.as_str());
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "login data")?;
        let block = fields
            .optional("b")
            .map(BlockWrite::from_value)
            .transpose()?;
        let pointer = fields
            .optional("p")
            .map(PointerWrite::from_value)
            .transpose()?;
        Ok(Self {
            username: username_field(fields.required("u")?, "u")?,
            record: OpaqueCipherText::from_value(fields.required("e")?)?,
            reader: PublicSigningKey::from_value(fields.required("r")?)?,
            root_change: block
                .zip(pointer)
                .map(|(block, pointer)| RootChange { block, pointer }),
        })
    }
}

/// Reads a user name inside a record.
pub(super) fn username_field(value: Value, field: &'static str) -> Result<Username, RecordError> {
    Username::parse(&value.into_text(field)?).map_err(|_| RecordError::OutOfRange { field })
}

impl Body for LoginData {
    const MAX_BYTES: usize = MAX_LOGIN_DATA_BYTES;

    fn to_body(&self) -> Vec<u8> {
        self.encode()
    }

    /// The body must equal its re-encoding: that is what the identity signs (Spec: 08 §2).
    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        let data = Self::from_value(decode_bounded(body, Self::MAX_BYTES, 256)?)?;
        if data.encode() != body.as_ref() {
            return Err(WireError::Text("login data: not canonical"));
        }
        Ok(data)
    }
}

/// The reply of `getLogin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginResponse {
    /// The login record.
    Record(OpaqueCipherText),
    /// A second factor is needed first.
    SecondFactor(MultiFactorRequest),
}

impl Record for LoginResponse {
    fn to_value(&self) -> Value {
        let (done, content) = match self {
            Self::Record(record) => (true, record.to_value()),
            Self::SecondFactor(request) => (false, request.to_value()),
        };
        let mut map = Map::new();
        map.insert("a", done);
        map.insert("r", content);
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "login response")?;
        let content = fields.required("r")?;
        Ok(match fields.required("a")?.into_bool("a")? {
            true => Self::Record(OpaqueCipherText::from_value(content)?),
            false => Self::SecondFactor(MultiFactorRequest::from_value(content)?),
        })
    }
}

record_body! {
    LoginResponse: MAX_LOGIN_RESPONSE_BYTES, 4096;
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::keys::SecretSigningKey;

    pub(crate) fn login_data() -> LoginData {
        LoginData {
            username: Username::parse("alice").unwrap(),
            record: OpaqueCipherText {
                nonce: [1; 24],
                cipher: Bytes::from_static(b"cipher"),
            },
            reader: SecretSigningKey::from_seed(&[1; 32]).public(),
            root_change: None,
        }
    }

    fn with(field: &str, value: Value) -> Bytes {
        let Value::Map(mut map) = login_data().to_value() else {
            unreachable!()
        };
        map.insert(field, value);
        Value::Map(map).encode().into()
    }

    #[test]
    fn the_body_must_equal_its_encoding() {
        let body = Bytes::from(login_data().to_body());
        assert_eq!(LoginData::from_body(&body), Ok(login_data()));
        // An unknown key, and half of a root change: dropped on re-encoding.
        let writer = crate::keys::Writer(crate::keys::PublicKeyHash::of(&login_data().reader));
        let pointer = PointerWrite {
            signed: Bytes::from_static(b"s"),
            writer,
        };
        for body in [with("x", Value::Null), with("p", pointer.to_value())] {
            assert_eq!(
                LoginData::from_body(&body),
                Err(WireError::Text("login data: not canonical"))
            );
        }
    }

    #[test]
    fn login_data_is_bounded() {
        let large = LoginData {
            record: OpaqueCipherText {
                nonce: [1; 24],
                cipher: vec![0; MAX_LOGIN_DATA_BYTES].into(),
            },
            ..login_data()
        };
        assert_eq!(
            LoginData::from_body(&large.to_body().into())
                .unwrap_err()
                .to_string(),
            "Input exceeds maximum size of 16384 bytes"
        );
    }

    #[test]
    fn malformed_login_data_is_refused() {
        let name = |name: &str| with("u", Value::from(name));
        for body in [
            name(""),
            name("al ice"),
            name(&"x".repeat(65)),
            with("u", Value::Null),
            with(
                "r",
                Value::List(vec![Value::Int(2), Value::from(vec![1; 32])]),
            ),
            with("e", Value::List(vec![Value::from(vec![1; 24])])),
            with(
                "e",
                Value::List(vec![Value::from(vec![1; 23]), Value::from(vec![1; 4])]),
            ),
        ] {
            assert!(matches!(
                LoginData::from_body(&body),
                Err(WireError::Record(_))
            ));
        }
    }

    #[test]
    fn replies_say_which_kind_they_are() {
        let reply = LoginResponse::Record(login_data().record);
        let Value::Map(mut map) = reply.to_value() else {
            unreachable!()
        };
        assert_eq!(LoginResponse::decode(&reply.encode()), Ok(reply));
        map.insert("a", false);
        assert!(LoginResponse::from_value(Value::Map(map)).is_err());
    }
}
