//! One vertex of the tree: its form in memory and as a block (Spec: 03 §3).

use bytes::Bytes;

use super::{
    MAX_BUCKET, MAX_DEPTH, SLOTS,
    key_hash::KeyHash,
    tree::{ChampError, Child},
};
use crate::{
    access::BatId,
    cbor::{self, Fields, Record, RecordError, Value},
};

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) key: Bytes,
    pub(super) value: Value,
}

/// What a slot of a node holds.
#[derive(Debug, Clone, Default)]
pub(super) enum Slot {
    #[default]
    Empty,
    Bucket(Vec<Mapping>),
    Child(Box<Child>),
}

/// A node, one level of the tree.
#[derive(Debug, Clone, Default)]
pub(super) struct ChampNode {
    /// The owner's mirror BAT; written on roots only.
    pub(super) bat: Option<BatId>,
    pub(super) slots: [Slot; SLOTS],
}

/// Block bytes that are not a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Not CBOR, not a list or map, or elements of the wrong type.
    #[error("not a champ node")]
    Record(#[from] RecordError),
    /// A bitmap with bits above slot 7.
    #[error("bitmap has bits above slot 7")]
    Bitmap,
    /// A slot that is set in both bitmaps.
    #[error("a slot holds both a bucket and a child")]
    SlotInBoth,
    /// The number of contents is not the number of slots that are set.
    #[error("{actual} contents for {expected} slots")]
    ContentCount {
        /// Slots set in both bitmaps.
        expected: usize,
        /// Contents found.
        actual: usize,
    },
    /// A bucket stands where a child link should, or the other way round.
    #[error("contents do not follow the bitmaps")]
    ContentOrder,
    /// A content that is neither list nor link.
    #[error("contents hold something that is neither bucket nor child link")]
    ContentKind,
    /// A key without a value.
    #[error("bucket has an odd number of elements")]
    OddBucket,
    /// A key that occurs twice in one bucket.
    #[error("bucket holds a key twice")]
    DuplicateKey,
    /// More than one BAT id on a node.
    #[error("node carries {0} access token ids")]
    TooManyBats(usize),
    /// A child link that does not name a dag-cbor block.
    #[error("child link does not name a dag-cbor block")]
    NotCbor,
}

impl ChampNode {
    /// Builds the canonical node at `depth` that holds `mappings` (Spec: 03 §4).
    ///
    /// # Errors
    /// [`ChampError::Collision`] when five or more of them share all slots down to the last level.
    pub(super) fn holding(
        mappings: Vec<Mapping>,
        depth: usize,
        hash: KeyHash,
    ) -> Result<Self, ChampError> {
        if depth >= MAX_DEPTH {
            return Err(ChampError::Collision);
        }
        let mut groups: [Vec<Mapping>; SLOTS] = Default::default();
        for mapping in mappings {
            if let Some(group) = groups.get_mut(hash.path(&mapping.key).slot(depth)) {
                group.push(mapping);
            }
        }
        let mut node = Self::default();
        for (slot, mut group) in node.slots.iter_mut().zip(groups) {
            *slot = match group.len() {
                0 => Slot::Empty,
                1..=MAX_BUCKET => {
                    sort_bucket(&mut group);
                    Slot::Bucket(group)
                }
                _ => Slot::Child(Box::new(Child::new(Self::holding(group, depth + 1, hash)?))),
            };
        }
        Ok(node)
    }

    /// Returns all mappings, sorted, when the subtree is known to fit into one bucket.
    ///
    /// A child counts as more than a bucket without being looked at: so it is in every canonical tree, and
    /// in another writer's tree an untouched child stays as it is.
    pub(super) fn as_bucket(&self) -> Option<Vec<Mapping>> {
        let mut count = 0;
        for slot in &self.slots {
            match slot {
                Slot::Empty => {}
                Slot::Bucket(bucket) => count += bucket.len(),
                Slot::Child(_) => return None,
            }
        }
        if count > MAX_BUCKET {
            return None;
        }
        let mut all: Vec<Mapping> = Vec::with_capacity(count);
        for slot in &self.slots {
            if let Slot::Bucket(bucket) = slot {
                all.extend(bucket.iter().cloned());
            }
        }
        sort_bucket(&mut all);
        Some(all)
    }

    /// Visits the children in slot order.
    pub(super) fn children(&self) -> impl Iterator<Item = &Child> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Child(child) => Some(&**child),
            _ => None,
        })
    }

    /// Decodes a node; shape that is merely not canonical is tolerated.
    ///
    /// Keys and values share the memory of `bytes`.
    pub(super) fn decode(bytes: &Bytes) -> Result<Self, NodeError> {
        match cbor::decode_shared(bytes).map_err(RecordError::from)? {
            Value::Map(map) => {
                let mut fields = Fields::of(Value::Map(map), "champ node")?;
                let mut node = Self::from_list(fields.required("d")?)?;
                if let Some(bats) = fields.optional("bats") {
                    let mut bats = bats.into_list("bats")?;
                    if bats.len() > 1 {
                        return Err(NodeError::TooManyBats(bats.len()));
                    }
                    node.bat = bats.pop().map(BatId::from_value).transpose()?;
                }
                Ok(node)
            }
            list => Self::from_list(list),
        }
    }

    /// Reads the list form, as it also stands inside other records (Spec: 04 §7).
    pub(super) fn from_list(value: Value) -> Result<Self, NodeError> {
        let mut elements = value.into_list("champ node")?.into_iter();
        let mut element = |field| elements.next().ok_or(RecordError::Missing(field));
        let data = bitmap(element("dataMap")?.into_bytes("dataMap")?)?;
        let links = bitmap(element("nodeMap")?.into_bytes("nodeMap")?)?;
        let contents = element("contents")?.into_list("contents")?;
        if data & links != 0 {
            return Err(NodeError::SlotInBoth);
        }
        let expected = (data | links).count_ones() as usize;
        if contents.len() != expected {
            return Err(NodeError::ContentCount {
                expected,
                actual: contents.len(),
            });
        }
        let mut contents = contents.into_iter();
        let mut node = Self::default();
        // Buckets in ascending slot order, then links in descending slot order.
        for (i, slot) in node.slots.iter_mut().enumerate() {
            if data >> i & 1 == 1 {
                *slot = match contents.next() {
                    Some(Value::List(items)) => Slot::Bucket(bucket(items)?),
                    Some(Value::Link(_)) => return Err(NodeError::ContentOrder),
                    _ => return Err(NodeError::ContentKind),
                };
            }
        }
        for (i, slot) in node.slots.iter_mut().enumerate().rev() {
            if links >> i & 1 == 1 {
                *slot = match contents.next() {
                    Some(Value::Link(cid)) => Slot::Child(Box::new(Child::at(cid))),
                    Some(Value::List(_)) => return Err(NodeError::ContentOrder),
                    _ => return Err(NodeError::ContentKind),
                };
            }
        }
        Ok(node)
    }

    /// Returns the block bytes; every child must have its CID.
    pub(super) fn encode(&self, is_root: bool) -> Result<Vec<u8>, ChampError> {
        let mut out = Vec::with_capacity(512);
        let bat = self.bat.as_ref().filter(|_| is_root);
        if bat.is_some() {
            cbor::write_map_head(2, &mut out);
            cbor::write_text("d", &mut out);
        }
        self.write_list(&mut out)?;
        if let Some(bat) = bat {
            cbor::write_text("bats", &mut out);
            Value::List(vec![bat.to_value()]).write(&mut out);
        }
        Ok(out)
    }

    fn write_list(&self, out: &mut Vec<u8>) -> Result<(), ChampError> {
        let (mut data, mut links) = (0u8, 0u8);
        for (i, slot) in self.slots.iter().enumerate() {
            match slot {
                Slot::Empty => {}
                Slot::Bucket(_) => data |= 1 << i,
                Slot::Child(_) => links |= 1 << i,
            }
        }
        cbor::write_list_head(3, out);
        for map in [data, links] {
            // No trailing zero bytes: an empty map has no bytes at all.
            cbor::write_bytes_head(usize::from(map != 0), out);
            if map != 0 {
                out.push(map);
            }
        }
        cbor::write_list_head((data | links).count_ones() as usize, out);
        for slot in &self.slots {
            if let Slot::Bucket(bucket) = slot {
                cbor::write_list_head(2 * bucket.len(), out);
                for Mapping { key, value } in bucket {
                    cbor::write_bytes_head(key.len(), out);
                    out.extend_from_slice(key);
                    value.write(out);
                }
            }
        }
        for child in self.slots.iter().rev() {
            if let Slot::Child(child) = child {
                Value::write_link(child.cid().ok_or(ChampError::Unfinished)?, out);
            }
        }
        Ok(())
    }
}

/// Sorts mappings as a bucket holds them: shorter key first, then unsigned bytewise.
pub(super) fn sort_bucket(bucket: &mut [Mapping]) {
    bucket.sort_by(|a, b| compare(&a.key, &b.key));
}

fn compare(a: &Bytes, b: &Bytes) -> std::cmp::Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Reads a bitmap of at most 8 slots; trailing zero bytes are not canonical and tolerated.
fn bitmap(bytes: Bytes) -> Result<u8, NodeError> {
    let (low, high) = bytes.split_first().unwrap_or((&0, &[]));
    if high.iter().any(|byte| *byte != 0) {
        return Err(NodeError::Bitmap);
    }
    Ok(*low)
}

fn bucket(items: Vec<Value>) -> Result<Vec<Mapping>, NodeError> {
    if !items.len().is_multiple_of(2) {
        return Err(NodeError::OddBucket);
    }
    let mut mappings = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        mappings.push(Mapping {
            key: key.into_bytes("champ key")?,
            value,
        });
    }
    let ascending = mappings
        .iter()
        .zip(mappings.iter().skip(1))
        .all(|(a, b)| compare(&a.key, &b.key).is_lt());
    if !ascending {
        // Another writer's order is kept; only a key that stands twice is refused.
        let mut keys: Vec<&Bytes> = mappings.iter().map(|mapping| &mapping.key).collect();
        keys.sort_unstable();
        if keys.iter().zip(keys.iter().skip(1)).any(|(a, b)| a == b) {
            return Err(NodeError::DuplicateKey);
        }
    }
    Ok(mappings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cbor::Map, cid::Cid};

    fn list(items: impl IntoIterator<Item = Value>) -> Value {
        items.into_iter().collect::<Vec<Value>>().into()
    }

    fn bytes(bytes: &[u8]) -> Value {
        Value::from(bytes)
    }

    fn child() -> Value {
        Value::Link(Cid::of_cbor(b""))
    }

    fn decode(data: &[u8], links: &[u8], contents: Vec<Value>) -> Result<ChampNode, NodeError> {
        let node = list([bytes(data), bytes(links), list(contents)]);
        ChampNode::decode(&node.encode().into())
    }

    fn reason(result: Result<ChampNode, NodeError>) -> NodeError {
        result.unwrap_err()
    }

    #[test]
    fn a_list_shorter_than_three_is_refused() {
        for node in [list([]), list([bytes(&[])]), list([bytes(&[]), bytes(&[])])] {
            let error = reason(ChampNode::decode(&node.encode().into()));
            assert!(matches!(error, NodeError::Record(RecordError::Missing(_))));
        }
    }

    #[test]
    fn elements_beyond_the_third_are_ignored() {
        let node = list([bytes(&[]), bytes(&[]), list([]), Value::Int(1)]);
        assert!(ChampNode::decode(&node.encode().into()).is_ok());
    }

    #[test]
    fn bitmaps_that_are_not_byte_strings_are_refused() {
        for (data, links) in [(Value::Int(1), bytes(&[])), (bytes(&[]), Value::Null)] {
            let node = list([data, links, list([])]);
            let error = reason(ChampNode::decode(&node.encode().into()));
            assert!(matches!(
                error,
                NodeError::Record(RecordError::WrongKind { .. })
            ));
        }
    }

    #[test]
    fn bits_above_slot_7_are_refused_and_trailing_zero_bytes_are_not() {
        assert_eq!(
            reason(decode(&[0, 1], &[], vec![list([])])),
            NodeError::Bitmap
        );
        assert_eq!(
            reason(decode(&[], &[0, 0, 8], vec![child()])),
            NodeError::Bitmap
        );
        assert!(decode(&[1, 0], &[0], vec![list([])]).is_ok());
    }

    #[test]
    fn a_slot_in_both_bitmaps_is_refused() {
        let contents = vec![list([]), child()];
        assert_eq!(reason(decode(&[4], &[4], contents)), NodeError::SlotInBoth);
    }

    #[test]
    fn a_number_of_contents_other_than_the_number_of_bits_is_refused() {
        for contents in [vec![], vec![list([])], vec![list([]), child(), child()]] {
            let actual = contents.len();
            let expected = NodeError::ContentCount {
                expected: 2,
                actual,
            };
            assert_eq!(reason(decode(&[1], &[2], contents)), expected);
        }
    }

    #[test]
    fn contents_that_are_neither_list_nor_link_are_refused() {
        assert_eq!(
            reason(decode(&[1], &[], vec![Value::Int(1)])),
            NodeError::ContentKind
        );
        assert_eq!(
            reason(decode(&[], &[1], vec![bytes(b"")])),
            NodeError::ContentKind
        );
    }

    #[test]
    fn a_bucket_and_a_link_in_each_others_place_are_refused() {
        assert_eq!(
            reason(decode(&[1], &[], vec![child()])),
            NodeError::ContentOrder
        );
        assert_eq!(
            reason(decode(&[], &[1], vec![list([])])),
            NodeError::ContentOrder
        );
    }

    #[test]
    fn a_bucket_with_an_odd_number_of_elements_is_refused() {
        let bucket = list([bytes(b"k"), Value::Null, bytes(b"l")]);
        assert_eq!(
            reason(decode(&[1], &[], vec![bucket])),
            NodeError::OddBucket
        );
    }

    #[test]
    fn keys_that_are_not_byte_strings_are_refused() {
        let bucket = list([Value::from("k"), Value::Null]);
        let error = reason(decode(&[1], &[], vec![bucket]));
        assert!(matches!(
            error,
            NodeError::Record(RecordError::WrongKind { .. })
        ));
    }

    #[test]
    fn a_key_twice_in_one_bucket_is_refused_wherever_it_stands() {
        for keys in [[b"a", b"a", b"b"], [b"b", b"a", b"b"]] {
            let bucket = list(keys.into_iter().flat_map(|key| [bytes(key), Value::Int(1)]));
            assert_eq!(
                reason(decode(&[1], &[], vec![bucket])),
                NodeError::DuplicateKey
            );
        }
    }

    #[test]
    fn unsorted_empty_and_oversized_buckets_are_tolerated_and_written_as_they_were() {
        let unsorted = list([bytes(b"b"), Value::Int(1), bytes(b"a"), Value::Int(2)]);
        let large = list((0..9u8).flat_map(|i| [bytes(&[i]), Value::Null]));
        let node = list([bytes(&[7]), bytes(&[]), list([unsorted, list([]), large])]).encode();
        let decoded = ChampNode::decode(&node.clone().into()).unwrap();
        assert_eq!(decoded.encode(true).unwrap(), node);
    }

    #[test]
    fn buckets_ascend_and_child_links_descend_by_slot() {
        let [a, b] = [b"a", b"b"].map(|content| Value::Link(Cid::of_cbor(content)));
        let bucket = |key| list([bytes(key), Value::Int(1)]);
        let contents = list([bucket(b"x"), bucket(b"y"), b.clone(), a.clone()]);
        let node = list([bytes(&[0b1010]), bytes(&[0b0101]), contents]).encode();
        let decoded = ChampNode::decode(&node.clone().into()).unwrap();
        let children: Vec<Value> = decoded
            .children()
            .map(|child| Value::Link(child.cid().unwrap().clone()))
            .collect();
        assert_eq!(children, [a, b]);
        assert_eq!(decoded.encode(false).unwrap(), node);
    }

    #[test]
    fn the_map_form_is_accepted_for_any_node_and_written_for_roots_only() {
        let id = BatId::new(Cid::of_raw(b"mirror"));
        let node = list([bytes(&[]), bytes(&[]), list([])]);
        let wrapped = |bats: Vec<Value>| {
            Value::Map(Map::from_iter([("d", node.clone()), ("bats", list(bats))])).encode()
        };
        let bytes = wrapped(vec![id.to_value()]);
        let decoded = ChampNode::decode(&bytes.clone().into()).unwrap();
        assert_eq!(decoded.bat.as_ref(), Some(&id));
        assert_eq!(decoded.encode(true).unwrap(), bytes);
        assert_eq!(decoded.encode(false).unwrap(), node.encode());
        let two = wrapped(vec![id.to_value(), id.to_value()]);
        assert_eq!(
            reason(ChampNode::decode(&two.into())),
            NodeError::TooManyBats(2)
        );
        let no_list = Value::Map(Map::from_iter([("bats", list([]))])).encode();
        assert!(ChampNode::decode(&no_list.into()).is_err());
    }
}
