//! Direct transfers between clients and an object store (Spec: 06 §9).

use std::fmt;

use bytes::Bytes;
use champ::{
    Cid,
    access::{BatId, BatWithId},
    cbor::{Fields, Map, Record, RecordError, Value},
};

use super::{Body, WireError, body::decode_bounded, body::record_body};

/// Most blocks in one authorization call, for reading or writing.
pub const MAX_AUTHORIZED_BLOCKS: usize = 50;
/// Longest request or reply of the authorization calls.
pub const MAX_AUTHORIZE_BYTES: usize = 256 << 10;
/// Most access token ids of one block.
const MAX_IDS_PER_BLOCK: usize = 8;
/// Most headers of one presigned request.
const MAX_HEADERS: usize = 32;

/// The reply of `blockstore/props`: which transfers a node offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockStoreProperties {
    /// Raw blocks may be written directly.
    pub direct_writes: bool,
    /// Raw blocks may be read directly with presigned requests.
    pub authorized_reads: bool,
    /// All blocks may be read without token at `public_read_url`.
    pub public_reads: bool,
    /// Base of public reads.
    pub public_read_url: Option<String>,
    /// Base of authorized access, ends in `/`.
    pub authorized_url: Option<String>,
}

impl Record for BlockStoreProperties {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert_some("b", self.public_read_url.as_deref());
        map.insert("w", self.direct_writes);
        map.insert("ar", self.authorized_reads);
        map.insert_some("ba", self.authorized_url.as_deref());
        map.insert("pr", self.public_reads);
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "block store properties")?;
        let mut text = |field: &'static str| {
            fields
                .optional(field)
                .map(|value| value.into_text(field))
                .transpose()
        };
        let (public_read_url, authorized_url) = (text("b")?, text("ba")?);
        Ok(Self {
            direct_writes: fields.required("w")?.into_bool("w")?,
            authorized_reads: fields.required("ar")?.into_bool("ar")?,
            public_reads: fields.required("pr")?.into_bool("pr")?,
            public_read_url,
            authorized_url,
        })
    }
}

/// A request to the object store that the node has signed: whoever holds it can make it.
#[derive(Clone, PartialEq, Eq)]
pub struct PresignedRequest {
    /// Where.
    pub url: String,
    /// Headers to send, in the order of their encoding.
    pub headers: Vec<(String, String)>,
}

impl fmt::Debug for PresignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresignedRequest(..)")
    }
}

impl Record for PresignedRequest {
    fn to_value(&self) -> Value {
        let headers: Map = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let mut map = Map::new();
        map.insert("b", self.url.as_str());
        map.insert("h", headers);
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "presigned request")?;
        let headers = fields.required("h")?.into_map("h")?;
        if headers.len() > MAX_HEADERS {
            return Err(RecordError::OutOfRange { field: "h" });
        }
        Ok(Self {
            url: fields.required("b")?.into_text("b")?,
            headers: headers
                .into_iter()
                .map(|(name, value)| Ok((name, value.into_text("h")?)))
                .collect::<Result<_, RecordError>>()?,
        })
    }
}

/// The reply of both calls, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PresignedRequests(pub Vec<PresignedRequest>);

impl Record for PresignedRequests {
    fn to_value(&self) -> Value {
        Value::List(self.0.iter().map(Record::to_value).collect())
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let list = value.into_list("presigned requests")?;
        if list.len() > MAX_AUTHORIZED_BLOCKS {
            return Err(RecordError::OutOfRange {
                field: "presigned requests",
            });
        }
        list.into_iter()
            .map(PresignedRequest::from_value)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// One block to read directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockReadCap {
    /// Which block.
    pub cid: Cid,
    /// Token that opens it.
    pub bat: Option<BatWithId>,
}

impl Record for BlockReadCap {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert_some("b", self.bat.as_ref().map(Record::to_value));
        map.insert("h", self.cid.to_bytes());
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "block read cap")?;
        Ok(Self {
            cid: fields.required("h")?.into_cid_bytes("h")?,
            bat: fields
                .optional("b")
                .map(BatWithId::from_value)
                .transpose()?,
        })
    }
}

/// The body of `blockstore/auth-reads`: at most [`MAX_AUTHORIZED_BLOCKS`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadAuthRequest(Vec<BlockReadCap>);

impl ReadAuthRequest {
    /// Collects blocks.
    ///
    /// # Errors
    /// [`WireError::TooManyReads`].
    pub fn new(caps: Vec<BlockReadCap>) -> Result<Self, WireError> {
        if caps.len() > MAX_AUTHORIZED_BLOCKS {
            return Err(WireError::TooManyReads);
        }
        Ok(Self(caps))
    }

    /// Returns the blocks.
    pub fn as_slice(&self) -> &[BlockReadCap] {
        &self.0
    }
}

impl Body for ReadAuthRequest {
    const MAX_BYTES: usize = MAX_AUTHORIZE_BYTES;

    fn to_body(&self) -> Vec<u8> {
        Value::List(self.0.iter().map(Record::to_value).collect()).encode()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        let list = decode_bounded(body, Self::MAX_BYTES, 16 << 10)?.into_list("reads")?;
        if list.len() > MAX_AUTHORIZED_BLOCKS {
            return Err(WireError::TooManyReads);
        }
        Self::new(
            list.into_iter()
                .map(BlockReadCap::from_value)
                .collect::<Result<_, _>>()?,
        )
    }
}

/// One block to write directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockWriteAuth {
    /// Size in bytes, as claimed.
    pub size_bytes: u32,
    /// Attached signature over the digest.
    pub signature: Bytes,
    /// Ids in the block's prefix, as claimed.
    pub bat_ids: Vec<BatId>,
}

/// The body of `blockstore/auth`: at most [`MAX_AUTHORIZED_BLOCKS`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteAuthRequest(Vec<BlockWriteAuth>);

impl WriteAuthRequest {
    /// Collects blocks.
    ///
    /// # Errors
    /// [`WireError::TooManyWrites`].
    pub fn new(blocks: Vec<BlockWriteAuth>) -> Result<Self, WireError> {
        if blocks.len() > MAX_AUTHORIZED_BLOCKS {
            return Err(WireError::TooManyWrites);
        }
        Ok(Self(blocks))
    }

    /// Returns the blocks.
    pub fn as_slice(&self) -> &[BlockWriteAuth] {
        &self.0
    }
}

impl Body for WriteAuthRequest {
    const MAX_BYTES: usize = MAX_AUTHORIZE_BYTES;

    fn to_body(&self) -> Vec<u8> {
        let list = |field: fn(&BlockWriteAuth) -> Value| -> Vec<Value> {
            self.0.iter().map(field).collect()
        };
        let mut map = Map::new();
        map.insert(
            "b",
            list(|block| Value::List(block.bat_ids.iter().map(Record::to_value).collect())),
        );
        map.insert("l", list(|block| Value::Int(block.size_bytes.into())));
        map.insert("s", list(|block| Value::Bytes(block.signature.clone())));
        Value::Map(map).encode()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        let value = decode_bounded(body, Self::MAX_BYTES, 16 << 10)?;
        let mut fields = Fields::of(value, "write authorization")?;
        let ids = fields.required("b")?.into_list("b")?;
        let sizes = fields.required("l")?.into_list("l")?;
        let signatures = fields.required("s")?.into_list("s")?;
        if ids.len() != signatures.len() || sizes.len() != signatures.len() {
            return Err(WireError::UnequalGroup {
                blocks: sizes.len(),
                signatures: signatures.len(),
            });
        }
        if sizes.len() > MAX_AUTHORIZED_BLOCKS {
            return Err(WireError::TooManyWrites);
        }
        let mut blocks = Vec::with_capacity(sizes.len());
        for ((ids, size), signature) in ids.into_iter().zip(sizes).zip(signatures) {
            let size = size.into_int("l")?;
            let ids = ids.into_list("b")?;
            if ids.len() > MAX_IDS_PER_BLOCK {
                return Err(RecordError::OutOfRange { field: "b" }.into());
            }
            blocks.push(BlockWriteAuth {
                size_bytes: u32::try_from(size)
                    .ok()
                    .filter(|size| i32::try_from(*size).is_ok())
                    .ok_or(WireError::BlockSize(size))?,
                signature: signature.into_bytes("s")?,
                bat_ids: ids
                    .into_iter()
                    .map(BatId::from_value)
                    .collect::<Result<_, _>>()?,
            });
        }
        Self::new(blocks)
    }
}

record_body! {
    BlockStoreProperties: 16 << 10, 64;
    PresignedRequests: MAX_AUTHORIZE_BYTES, 16 << 10;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(size: i64) -> Bytes {
        Value::Map(Map::from_iter([
            ("b", vec![Value::List(Vec::new())]),
            ("l", vec![Value::Int(size)]),
            ("s", vec![Value::Bytes(Bytes::new())]),
        ]))
        .encode()
        .into()
    }

    #[test]
    fn claimed_sizes_fit_31_bits() {
        assert!(WriteAuthRequest::from_body(&write(i64::from(i32::MAX))).is_ok());
        for size in [-1, 1 << 31, i64::MAX] {
            let error = WriteAuthRequest::from_body(&write(size)).unwrap_err();
            assert_eq!(error.to_string(), format!("Invalid block size: {size}"));
        }
    }

    #[test]
    fn fifty_blocks_are_the_limit() {
        let cap = BlockReadCap {
            cid: Cid::of_raw(b"x"),
            bat: None,
        };
        let reads = ReadAuthRequest::new(vec![cap.clone(); 50]).unwrap();
        assert_eq!(
            ReadAuthRequest::from_body(&reads.to_body().into()),
            Ok(reads)
        );
        assert_eq!(
            ReadAuthRequest::new(vec![cap.clone(); 51]),
            Err(WireError::TooManyReads)
        );
        let many = Value::List(vec![cap.to_value(); 51]).encode();
        assert_eq!(
            ReadAuthRequest::from_body(&many.into()),
            Err(WireError::TooManyReads)
        );
        let block = BlockWriteAuth {
            size_bytes: 1,
            signature: Bytes::new(),
            bat_ids: Vec::new(),
        };
        let writes = WriteAuthRequest::new(vec![block.clone(); 50]).unwrap();
        assert_eq!(
            WriteAuthRequest::from_body(&writes.to_body().into()),
            Ok(writes)
        );
        assert_eq!(
            WriteAuthRequest::new(vec![block; 51]),
            Err(WireError::TooManyWrites)
        );
    }

    #[test]
    fn all_three_booleans_are_required() {
        for missing in ["w", "ar", "pr"] {
            let Value::Map(mut map) = BlockStoreProperties::default().to_value() else {
                unreachable!()
            };
            map.remove(missing);
            assert_eq!(
                BlockStoreProperties::from_value(Value::Map(map)),
                Err(RecordError::Missing(missing))
            );
        }
    }

    #[test]
    fn presigned_requests_stay_out_of_logs() {
        let request = PresignedRequest {
            url: "https://secret".into(),
            headers: Vec::new(),
        };
        assert_eq!(format!("{request:?}"), "PresignedRequest(..)");
    }
}
