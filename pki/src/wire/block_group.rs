//! Bulk block upload: `block/put/bulk` (Spec: 06 §4.2).

use bytes::Bytes;
use champ::{
    Cid, Codec,
    cbor::{Fields, RecordError, Value, write_bytes_head},
};

use super::{Body, WireError, body::decode_bounded};

/// Longest body: several times the 1.4 MB that official clients need (Spec: 06 §4.2).
pub const MAX_GROUP_BYTES: usize = 4 << 20;
/// Most blocks in one call.
pub const MAX_GROUP_BLOCKS: usize = 10_000;
/// Most block bytes an official client puts into one call.
pub const CLIENT_GROUP_BYTES: usize = (1 << 20) + 100;
/// Most dag-cbor blocks an official client puts into one call.
pub const CLIENT_GROUP_CBOR_BLOCKS: usize = 1000;
/// Most raw blocks an official client puts into one call.
pub const CLIENT_GROUP_RAW_BLOCKS: usize = 50;

/// Blocks of one writer and one format, each with its write authorization.
///
/// Blocks share the memory of the request body they came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockGroup {
    blocks: Vec<Bytes>,
    signatures: Vec<Bytes>,
}

impl BlockGroup {
    /// Pairs blocks with attached signatures over their SHA-256 digests (96 bytes each).
    ///
    /// # Errors
    /// [`WireError::UnequalGroup`], and [`WireError::TooMany`] above [`MAX_GROUP_BLOCKS`].
    pub fn new(blocks: Vec<Bytes>, signatures: Vec<Bytes>) -> Result<Self, WireError> {
        if blocks.len() != signatures.len() {
            return Err(WireError::UnequalGroup {
                blocks: blocks.len(),
                signatures: signatures.len(),
            });
        }
        if blocks.len() > MAX_GROUP_BLOCKS {
            return Err(WireError::TooMany {
                what: "blocks",
                actual: blocks.len(),
                max: MAX_GROUP_BLOCKS,
            });
        }
        Ok(Self { blocks, signatures })
    }

    /// Returns the blocks.
    pub fn blocks(&self) -> &[Bytes] {
        &self.blocks
    }

    /// Returns the number of blocks.
    pub const fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Returns true for a group without blocks, which is legal and does nothing.
    pub const fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Returns the sum of the block sizes in bytes: what quota counts.
    pub fn block_bytes(&self) -> usize {
        self.blocks.iter().map(Bytes::len).sum()
    }

    /// Visits each block with its attached signature.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Bytes, &Bytes)> {
        self.blocks.iter().zip(&self.signatures)
    }
}

impl Body for BlockGroup {
    const MAX_BYTES: usize = MAX_GROUP_BYTES;

    fn to_body(&self) -> Vec<u8> {
        // Written by hand: blocks are copied once, into a buffer of the right size.
        let payload: usize = self.iter().map(|(b, s)| b.len() + s.len() + 10).sum();
        let mut out = Vec::with_capacity(payload + 20);
        out.push(0xa2);
        for (key, items) in [(b'b', &self.blocks), (b's', &self.signatures)] {
            out.extend_from_slice(&[0x61, key]);
            write_list_head(items.len(), &mut out);
            for item in items {
                write_bytes_head(item.len(), &mut out);
                out.extend_from_slice(item);
            }
        }
        out
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        // Two lists, their keys and the map around them.
        let value = decode_bounded(body, Self::MAX_BYTES, 2 * MAX_GROUP_BLOCKS + 64)?;
        let mut fields = Fields::of(value, "block group")?;
        Self::new(
            byte_strings(fields.required("b")?, "b")?,
            byte_strings(fields.required("s")?, "s")?,
        )
    }
}

fn byte_strings(value: Value, field: &'static str) -> Result<Vec<Bytes>, RecordError> {
    value
        .into_list(field)?
        .into_iter()
        .map(|item| item.into_bytes(field))
        .collect()
}

/// Appends the head of a list: that of a byte string with another major type.
fn write_list_head(count: usize, out: &mut Vec<u8>) {
    let at = out.len();
    write_bytes_head(count, out);
    if let Some(initial) = out.get_mut(at) {
        *initial = (*initial & 31) | 0x80;
    }
}

/// The format of the blocks of one call: the `format` parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockFormat {
    /// Opaque bytes.
    Raw,
    /// One CBOR value.
    DagCbor,
}

impl BlockFormat {
    /// Reads the parameter: anything but `raw` is dag-cbor.
    pub fn from_parameter(text: &str) -> Self {
        match text {
            "raw" => Self::Raw,
            _ => Self::DagCbor,
        }
    }

    /// Returns the parameter's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::DagCbor => "dag-cbor",
        }
    }

    /// Returns the codec of the blocks' CIDs.
    pub const fn codec(self) -> Codec {
        match self {
            Self::Raw => Codec::Raw,
            Self::DagCbor => Codec::DagCbor,
        }
    }

    /// Returns the CID of a block of this format.
    pub fn cid(self, block: &[u8]) -> Cid {
        match self {
            Self::Raw => Cid::of_raw(block),
            Self::DagCbor => Cid::of_cbor(block),
        }
    }
}

#[cfg(test)]
mod tests {
    use champ::cbor::Map;
    use proptest::prelude::*;

    use super::*;

    fn group(blocks: &[&[u8]], signatures: &[&[u8]]) -> Result<BlockGroup, WireError> {
        let own = |items: &[&[u8]]| items.iter().map(|i| Bytes::copy_from_slice(i)).collect();
        BlockGroup::new(own(blocks), own(signatures))
    }

    fn body(map: Map) -> Bytes {
        Value::Map(map).encode().into()
    }

    #[test]
    fn lists_of_different_length_are_refused() {
        let error = group(&[b"a", b"b"], &[b"s"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Different number of of blocks and signatures! 2 != 1"
        );
        let sent = body(Map::from_iter([
            ("b", Value::List(vec![Value::from(vec![1u8]); 2])),
            ("s", Value::List(vec![Value::from(vec![1u8]); 1])),
        ]));
        assert_eq!(BlockGroup::from_body(&sent), Err(error));
    }

    #[test]
    fn an_empty_group_is_legal() {
        let empty = group(&[], &[]).unwrap();
        assert_eq!(empty.to_body(), [0xa2, 0x61, b'b', 0x80, 0x61, b's', 0x80]);
        assert_eq!(BlockGroup::from_body(&empty.to_body().into()), Ok(empty));
    }

    #[test]
    fn limits_come_before_allocation() {
        let large = Bytes::from(vec![0; MAX_GROUP_BYTES + 1]);
        assert_eq!(
            BlockGroup::from_body(&large),
            Err(WireError::TooLarge {
                max: MAX_GROUP_BYTES
            })
        );
        // Four million empty lists would need a quarter of a gigabyte.
        let mut bomb = vec![0xa1, 0x61, b'b', 0x9a, 0x00, 0x3f, 0xff, 0x00];
        bomb.resize(MAX_GROUP_BYTES, 0x80);
        assert!(matches!(
            BlockGroup::from_body(&bomb.into()),
            Err(WireError::TooManyValues { .. })
        ));
        let many = vec![Value::Bytes(Bytes::new()); MAX_GROUP_BLOCKS + 1];
        let sent = body(Map::from_iter([
            ("b", Value::List(many.clone())),
            ("s", Value::List(many)),
        ]));
        assert!(matches!(
            BlockGroup::from_body(&sent),
            Err(WireError::TooMany { .. })
        ));
    }

    #[test]
    fn malformed_groups_are_refused() {
        let bytes = Value::List(vec![Value::from(vec![1u8])]);
        for map in [
            Map::new(),
            Map::from_iter([("b", bytes.clone())]),
            Map::from_iter([("b", bytes.clone()), ("s", Value::Null)]),
            Map::from_iter([("b", Value::List(vec![Value::Int(1)])), ("s", bytes)]),
        ] {
            assert!(matches!(
                BlockGroup::from_body(&body(map)),
                Err(WireError::Record(_))
            ));
        }
        let mut trailing = group(&[], &[]).unwrap().to_body();
        trailing.push(0);
        assert!(BlockGroup::from_body(&trailing.into()).is_err());
    }

    #[test]
    fn blocks_share_the_body() {
        let sent = Bytes::from(group(&[&[7; 1000]], &[&[1; 96]]).unwrap().to_body());
        let received = BlockGroup::from_body(&sent).unwrap();
        let block = &received.blocks()[0];
        assert!(sent.as_ptr_range().contains(&block.as_ptr()));
        assert_eq!(received.block_bytes(), 1000);
    }

    proptest! {
        #[test]
        fn hand_written_encoding_is_canonical(
            sizes in prop::collection::vec(0usize..70_000, 0..30)
        ) {
            let blocks: Vec<Bytes> = sizes.iter().map(|n| vec![9; *n].into()).collect();
            let signatures: Vec<Bytes> = sizes.iter().map(|_| vec![1; 96].into()).collect();
            let list = |items: &[Bytes]| Value::List(items.iter().cloned().map(Value::from).collect());
            let map = Map::from_iter([("b", list(&blocks)), ("s", list(&signatures))]);
            let group = BlockGroup::new(blocks, signatures).unwrap();
            let sent = Bytes::from(group.to_body());
            prop_assert_eq!(&sent, &body(map));
            prop_assert_eq!(BlockGroup::from_body(&sent), Ok(group));
        }
    }
}
