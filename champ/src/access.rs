//! Block access tokens inside blocks (Spec: 01 §5).
//!
//! A BAT is a 32-byte secret that authorises retrieval of one block; it never helps to decrypt.

use std::fmt;

use bytes::Bytes;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

use crate::{
    cbor::{self, Fields, Map, Record, RecordError, Value},
    cid::{Cid, Codec, HashCode, Multihash},
    text,
};

/// First bytes of a raw block that carries access tokens.
pub const RAW_PREFIX_MAGIC: [u8; 8] = [0x71, 0x1d, 0x10, 0xcf, 0x3d, 0x32, 0x2f, 0x2b];
/// Longest prefix a writer may make.
pub const MAX_PREFIX_BYTES: usize = 100;

/// A block access token.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Bat([u8; 32]);

impl Bat {
    /// Wraps a secret.
    pub const fn from_secret(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// Draws a fresh secret.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        Self(secret)
    }

    /// Returns the 32 secret bytes.
    pub const fn secret(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the text that keys request signatures: `z` and base58 of the secret.
    pub fn to_text(&self) -> String {
        text::to_multibase(&self.0)
    }

    /// Parses the secret string.
    ///
    /// # Errors
    /// [`RecordError::WrongLength`] when it does not hold 32 bytes.
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        let bytes = text::from_multibase(text).map_err(|_| RecordError::OutOfRange {
            field: "access token",
        })?;
        <[u8; 32]>::try_from(bytes.as_slice())
            .map(Self)
            .map_err(|_| RecordError::WrongLength {
                field: "access token",
                actual: bytes.len(),
            })
    }

    /// Returns the id with which a block carries its own secret.
    pub fn inline_id(&self) -> BatId {
        // 32 bytes are within the identity limit, so this is total.
        let hash = Multihash::identity(&self.0).unwrap_or_else(|_| Multihash::sha2_256(&self.0));
        BatId(Cid::v1(Codec::Raw, hash))
    }

    /// Returns the id that accompanies a block's own token: sha2-256 of the record's CBOR.
    pub fn calculated_id(&self) -> BatId {
        BatId(Cid::of_raw(&self.encode()))
    }

    /// Returns the id of a mirror token inside blocks: sha2-256 of the secret bytes.
    pub fn secret_hash_id(&self) -> BatId {
        BatId(Cid::of_raw(&self.0))
    }

    /// Pairs the token with its calculated id.
    pub fn with_calculated_id(&self) -> BatWithId {
        BatWithId {
            bat: self.clone(),
            id: self.calculated_id(),
        }
    }
}

impl PartialEq for Bat {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Bat {}

impl fmt::Debug for Bat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bat(..)")
    }
}

impl Record for Bat {
    fn to_value(&self) -> Value {
        Value::Map(Map::from_iter([("s", &self.0)]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        Fields::of(value, "access token")?
            .required("s")?
            .into_array("s")
            .map(Self)
    }
}

/// The id of a block access token: a raw CID, written as a byte string, never as a link.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatId(Cid);

impl BatId {
    /// Wraps a CID found where a BAT id stands.
    pub const fn new(cid: Cid) -> Self {
        Self(cid)
    }

    /// Returns the CID.
    pub const fn cid(&self) -> &Cid {
        &self.0
    }

    /// Returns the secret of an inline id.
    pub fn inline_secret(&self) -> Option<Bat> {
        let content = self.0.identity_content()?;
        <[u8; 32]>::try_from(content).ok().map(Bat)
    }

    /// Returns true for an id that carries its secret.
    pub fn is_inline(&self) -> bool {
        self.0.hash().code() == HashCode::Identity
    }
}

impl fmt::Debug for BatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An inline id is the secret itself.
        if self.is_inline() {
            f.write_str("BatId(inline)")
        } else {
            write!(f, "BatId({})", self.0)
        }
    }
}

impl Record for BatId {
    fn to_value(&self) -> Value {
        Value::from(self.0.to_bytes())
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        value.into_cid_bytes("access token id").map(Self)
    }
}

/// A token with its id: what requests and capabilities carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatWithId {
    /// The secret.
    pub bat: Bat,
    /// Its id; raw and never inline.
    pub id: BatId,
}

impl BatWithId {
    /// Returns the `bat` query parameter.
    pub fn to_text(&self) -> String {
        text::to_multibase(&self.encode())
    }

    /// Parses a `bat` query parameter.
    ///
    /// # Errors
    /// Any [`RecordError`].
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        let bytes =
            text::from_multibase(text).map_err(|_| RecordError::OutOfRange { field: "bat" })?;
        Self::decode(&bytes)
    }
}

impl Record for BatWithId {
    fn to_value(&self) -> Value {
        Value::Map(Map::from_iter([
            ("b", self.bat.to_value()),
            ("i", self.id.to_value()),
        ]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "access token with id")?;
        let bat = Bat::from_value(fields.required("b")?)?;
        let id = BatId::from_value(fields.required("i")?)?;
        if id.cid().codec() != Codec::Raw || id.is_inline() {
            return Err(RecordError::OutOfRange { field: "i" });
        }
        Ok(Self { bat, id })
    }
}

/// Returns the prefix of a raw block protected by `ids`; empty when there are none.
pub fn raw_prefix(ids: &[BatId]) -> Vec<u8> {
    if ids.is_empty() {
        return Vec::new();
    }
    let mut prefix = RAW_PREFIX_MAGIC.to_vec();
    Value::List(ids.iter().map(Record::to_value).collect()).write(&mut prefix);
    prefix
}

/// Splits a raw block into the ids that protect it and its data (Spec: 01 §5.3).
///
/// # Errors
/// Any [`RecordError`] when the magic is present but no list of ids follows.
pub fn split_raw(block: &Bytes) -> Result<(Vec<BatId>, Bytes), RecordError> {
    let Some(rest) = block.strip_prefix(RAW_PREFIX_MAGIC.as_slice()) else {
        return Ok((Vec::new(), block.clone()));
    };
    let (ids, used) = cbor::bat_ids_prefix(rest)?;
    Ok((ids, block.slice(RAW_PREFIX_MAGIC.len() + used..)))
}

/// Returns the ids that protect a dag-cbor block: its top level `bats` (Spec: 01 §5.4).
///
/// # Errors
/// Any [`RecordError`] when `bats` is not a list of ids.
pub fn cbor_block_ids(value: &Value) -> Result<Vec<BatId>, RecordError> {
    match value {
        Value::Map(map) => map.get("bats").cloned().map_or(Ok(Vec::new()), id_list),
        _ => Ok(Vec::new()),
    }
}

fn id_list(value: Value) -> Result<Vec<BatId>, RecordError> {
    value
        .into_list("bats")?
        .into_iter()
        .map(BatId::from_value)
        .collect()
}
