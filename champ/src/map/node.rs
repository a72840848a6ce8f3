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

    fn from_list(value: Value) -> Result<Self, NodeError> {
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
