//! The writes of a sign-up, recorded instead of sent (Spec: 10 §7.2).

use bytes::Bytes;
use champ::{
    Cid,
    access::BatWithId,
    cbor::{Fields, Map, Record, RecordError, Value, decode_shared},
};

use super::{
    WireError, block_group::BlockFormat, login_data::LoginData, pointer_batch::PointerWrite,
};
use crate::keys::Writer;

/// Longest encoding inside a sign-up request (Spec: 10 §6).
pub const MAX_OP_LOG_BYTES: usize = 64 << 10;

/// A block write inside another record: sign-up and password change (Spec: 08 §1, 10 §7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockWrite {
    /// The block, never empty.
    pub block: Bytes,
    /// Raw or dag-cbor.
    pub format: BlockFormat,
    /// Attached signature over the SHA-256 digest, by the writer's key.
    pub signature: Bytes,
    /// Whose key signed.
    pub writer: Writer,
}

impl BlockWrite {
    /// Returns the CID of the block.
    pub fn cid(&self) -> Cid {
        self.format.cid(&self.block)
    }
}

impl Record for BlockWrite {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("b", self.block.clone());
        map.insert("r", self.format == BlockFormat::Raw);
        map.insert("s", self.signature.clone());
        map.insert("w", self.writer.to_value());
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "block write")?;
        let block = fields.required("b")?.into_bytes("b")?;
        if block.is_empty() {
            return Err(RecordError::WrongLength {
                field: "b",
                actual: 0,
            });
        }
        Ok(Self {
            block,
            format: match fields.required("r")?.into_bool("r")? {
                true => BlockFormat::Raw,
                false => BlockFormat::DagCbor,
            },
            signature: fields.required("s")?.into_bytes("s")?,
            writer: Record::from_value(fields.required("w")?)?,
        })
    }
}

/// One write, in execution order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Store a block.
    Block(BlockWrite),
    /// Set a pointer.
    Pointer(PointerWrite),
}

/// The first mirror access token of a new account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMirrorBat {
    /// The token with its id.
    pub bat: BatWithId,
    /// Signed request for path `peergos/v0/bats/addBat`, by the identity key.
    pub auth: Bytes,
}

/// The login data of a new account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLogin {
    /// The record, without a root change.
    pub data: LoginData,
    /// Detached signature by the identity key over the record's CBOR.
    pub auth: [u8; 64],
}

/// Everything a sign-up writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpLog {
    /// Block and pointer writes in execution order.
    pub ops: Vec<Op>,
    /// Mirror token, `b` and `a`.
    pub mirror_bat: Option<NewMirrorBat>,
    /// Login data, `login` and `loginAuth`; absent for legacy accounts.
    pub login: Option<NewLogin>,
}

impl OpLog {
    /// Decodes the item of a sign-up request; blocks share its memory.
    ///
    /// # Errors
    /// [`WireError::TooLarge`], [`WireError::Record`].
    pub fn decode_item(bytes: &Bytes) -> Result<Self, WireError> {
        if bytes.len() > MAX_OP_LOG_BYTES {
            return Err(WireError::TooLarge {
                max: MAX_OP_LOG_BYTES,
            });
        }
        Ok(Self::from_value(decode_shared(bytes)?)?)
    }

    /// Returns the sum of the block sizes in bytes: what quota counts.
    pub fn block_bytes(&self) -> usize {
        self.ops
            .iter()
            .map(|op| match op {
                Op::Block(write) => write.block.len(),
                Op::Pointer(_) => 0,
            })
            .sum()
    }
}

impl Record for Op {
    fn to_value(&self) -> Value {
        match self {
            Self::Block(write) => write.to_value(),
            Self::Pointer(write) => write.to_value(),
        }
    }

    /// An entry with key `r` is a block write.
    fn from_value(value: Value) -> Result<Self, RecordError> {
        let is_block = matches!(&value, Value::Map(map) if map.contains("r"));
        if is_block {
            BlockWrite::from_value(value).map(Self::Block)
        } else {
            PointerWrite::from_value(value).map(Self::Pointer)
        }
    }
}

impl Record for OpLog {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert(
            "ops",
            self.ops.iter().map(Record::to_value).collect::<Vec<_>>(),
        );
        if let Some(mirror) = &self.mirror_bat {
            map.insert("a", mirror.auth.clone());
            map.insert("b", mirror.bat.to_value());
        }
        if let Some(login) = &self.login {
            map.insert("login", login.data.to_value());
            map.insert("loginAuth", &login.auth);
        }
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "op log")?;
        let ops = fields.required("ops")?.into_list("ops")?;
        let mirror_bat = match (fields.optional("b"), fields.optional("a")) {
            (None, None) => None,
            (Some(bat), Some(auth)) => Some(NewMirrorBat {
                bat: BatWithId::from_value(bat)?,
                auth: auth.into_bytes("a")?,
            }),
            (None, Some(_)) => return Err(RecordError::Missing("b")),
            (Some(_), None) => return Err(RecordError::Missing("a")),
        };
        let login = match (fields.optional("login"), fields.optional("loginAuth")) {
            (None, None) => None,
            (Some(data), Some(auth)) => Some(NewLogin {
                data: LoginData::from_value(data)?,
                auth: auth.into_array("loginAuth")?,
            }),
            (None, Some(_)) => return Err(RecordError::Missing("login")),
            (Some(_), None) => return Err(RecordError::Missing("loginAuth")),
        };
        Ok(Self {
            ops: ops
                .into_iter()
                .map(Op::from_value)
                .collect::<Result<_, _>>()?,
            mirror_bat,
            login,
        })
    }
}

#[cfg(test)]
mod tests {
    use champ::access::Bat;

    use super::*;
    use crate::keys::{PublicKeyHash, SecretSigningKey};

    fn writer() -> Writer {
        Writer(PublicKeyHash::of(
            &SecretSigningKey::from_seed(&[1; 32]).public(),
        ))
    }

    fn write(block: &'static [u8]) -> BlockWrite {
        BlockWrite {
            block: Bytes::from_static(block),
            format: BlockFormat::Raw,
            signature: Bytes::from_static(&[1; 96]),
            writer: writer(),
        }
    }

    fn without(log: &OpLog, field: &str) -> Result<OpLog, RecordError> {
        let Value::Map(mut map) = log.to_value() else {
            unreachable!()
        };
        map.remove(field).unwrap();
        OpLog::from_value(Value::Map(map))
    }

    #[test]
    fn empty_blocks_are_refused() {
        assert!(BlockWrite::from_value(write(b"x").to_value()).is_ok());
        assert_eq!(
            BlockWrite::from_value(write(b"").to_value()),
            Err(RecordError::WrongLength {
                field: "b",
                actual: 0
            })
        );
    }

    #[test]
    fn halves_of_pairs_are_refused() {
        let log = OpLog {
            ops: vec![Op::Block(write(b"x"))],
            mirror_bat: Some(NewMirrorBat {
                bat: Bat::from_secret([1; 32]).with_calculated_id(),
                auth: Bytes::from_static(b"auth"),
            }),
            login: Some(NewLogin {
                data: crate::wire::login_data::tests::login_data(),
                auth: [2; 64],
            }),
        };
        assert_eq!(OpLog::decode(&log.encode()), Ok(log.clone()));
        assert_eq!(log.block_bytes(), 1);
        for (field, missing) in [
            ("a", "a"),
            ("b", "b"),
            ("login", "login"),
            ("loginAuth", "loginAuth"),
            ("ops", "ops"),
        ] {
            assert_eq!(without(&log, field), Err(RecordError::Missing(missing)));
        }
    }

    #[test]
    fn the_kind_of_an_entry_is_its_key_r() {
        let pointer = PointerWrite {
            signed: Bytes::from_static(b"s"),
            writer: writer(),
        };
        for op in [Op::Block(write(b"x")), Op::Pointer(pointer)] {
            assert_eq!(Op::from_value(op.to_value()), Ok(op));
        }
        assert!(Op::from_value(Value::Null).is_err());
    }

    #[test]
    fn logs_are_bounded() {
        let large = Bytes::from(vec![0; MAX_OP_LOG_BYTES + 1]);
        assert_eq!(
            OpLog::decode_item(&large),
            Err(WireError::TooLarge {
                max: MAX_OP_LOG_BYTES
            })
        );
    }
}
