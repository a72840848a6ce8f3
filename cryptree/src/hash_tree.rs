//! The content hash tree of a file (Spec: 20 §8).
//!
//! Whoever may write a file writes this too, and other clients leave stale ones behind: it is a hint that
//! saves transfers, never evidence.

use bytes::Bytes;
use champ::cbor::{Fields, Map, Record, RecordError, Value};
use sha2::{Digest, Sha256};

/// Hashes in one list.
pub const LIST_HASHES: usize = 1024;
/// Levels that are stored.
const LEVELS: usize = 3;
/// Most hash lists of one level that are read: 1,048,577 chunks (5 TiB) have 1,025.
const MAX_LISTS: usize = LIST_HASHES * LIST_HASHES;

/// SHA-256 of plaintext, or of lists of such hashes.
pub type ContentHash = [u8; 32];

/// Up to 1,024 hashes: `{"h": bytes}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashList(Bytes);

impl HashList {
    /// Returns hash number `index`.
    pub fn get(&self, index: usize) -> Option<ContentHash> {
        self.0.chunks_exact(32).nth(index)?.try_into().ok()
    }

    /// Returns the number of hashes.
    pub const fn len(&self) -> usize {
        self.0.len() / 32
    }

    /// Returns true when there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the concatenated hashes.
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl Record for HashList {
    fn to_value(&self) -> Value {
        Value::Map(Map::from_iter([("h", self.0.clone())]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let bytes = Fields::of(value, "hash list")?
            .required("h")?
            .into_bytes("h")?;
        if bytes.len() % 32 != 0 || bytes.len() > LIST_HASHES * 32 {
            return Err(RecordError::WrongLength {
                field: "h",
                actual: bytes.len(),
            });
        }
        Ok(Self(bytes))
    }
}

/// What chunk `i` carries: the root and the lists on the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashBranch {
    /// Hash of the whole content.
    pub root: ContentHash,
    /// Lists of level 1, 2, 3; a level is absent when no lower one is.
    levels: [Option<HashList>; LEVELS],
}

impl HashBranch {
    /// Returns the list of chunk hashes around this chunk.
    pub fn chunk_hashes(&self) -> Option<&HashList> {
        self.level(1)
    }

    /// Returns the list of level 1, 2 or 3.
    pub fn level(&self, level: usize) -> Option<&HashList> {
        self.levels.get(level.checked_sub(1)?)?.as_ref()
    }
}

impl Record for HashBranch {
    fn to_value(&self) -> Value {
        let mut map = Map::from_iter([("r", root_value(&self.root))]);
        for (key, list) in BRANCH_KEYS.into_iter().zip(&self.levels) {
            map.insert_some(key, list.as_ref().map(Record::to_value));
        }
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "tree hash")?;
        let root = root_from(fields.required("r")?)?;
        let mut list = |key| fields.optional(key).map(HashList::from_value).transpose();
        let [l1, l2, l3] = BRANCH_KEYS;
        let levels = [list(l1)?, list(l2)?, list(l3)?];
        match &levels {
            [None, Some(_), _] => Err(RecordError::Missing(l1)),
            [_, None, Some(_)] => Err(RecordError::Missing(l2)),
            _ => Ok(Self { root, levels }),
        }
    }
}

/// The whole tree: in upload records and local caches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashTree {
    root: ContentHash,
    levels: [Vec<HashList>; LEVELS],
}

impl HashTree {
    /// Returns the hash of the whole content.
    pub const fn root(&self) -> &ContentHash {
        &self.root
    }

    /// Returns the lists of level 1, 2 or 3; none for other levels.
    pub fn level(&self, level: usize) -> &[HashList] {
        level
            .checked_sub(1)
            .and_then(|i| self.levels.get(i))
            .map_or(&[], Vec::as_slice)
    }

    /// Returns the hash of chunk `index`.
    pub fn chunk_hash(&self, index: usize) -> Option<ContentHash> {
        let list = self.level(1).get(index / LIST_HASHES)?;
        list.get(index % LIST_HASHES)
    }

    /// Returns what chunk `index` carries: it is written to chunks 0, 1024, 2048, ...
    pub fn branch(&self, index: usize) -> HashBranch {
        let mut position = index;
        let levels = self.levels.each_ref().map(|lists| {
            position /= LIST_HASHES;
            lists.get(position).cloned()
        });
        HashBranch {
            root: self.root,
            levels,
        }
    }
}

impl Record for HashTree {
    fn to_value(&self) -> Value {
        let mut map = Map::from_iter([("r", root_value(&self.root))]);
        for (key, lists) in TREE_KEYS.into_iter().zip(&self.levels) {
            map.insert(key, lists.iter().map(Record::to_value).collect::<Vec<_>>());
        }
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "hash tree")?;
        let root = root_from(fields.required("r")?)?;
        let mut lists = |key| {
            let list = fields
                .optional(key)
                .map_or(Ok(Vec::new()), |v| v.into_list(key))?;
            if list.len() > MAX_LISTS {
                return Err(RecordError::OutOfRange { field: key });
            }
            list.into_iter().map(HashList::from_value).collect()
        };
        let [l1, l2, l3] = TREE_KEYS;
        Ok(Self {
            root,
            levels: [lists(l1)?, lists(l2)?, lists(l3)?],
        })
    }
}

/// Builds the tree from the hashes of the chunks as they are read; holds 32 bytes per chunk.
#[derive(Debug, Clone, Default)]
pub struct HashTreeBuilder {
    leaves: Vec<u8>,
}

impl HashTreeBuilder {
    /// Starts a file.
    pub const fn new() -> Self {
        Self { leaves: Vec::new() }
    }

    /// Adds the next chunk by its plaintext. An empty file has one empty chunk.
    pub fn push_chunk(&mut self, plaintext: &[u8]) -> ContentHash {
        let hash = Sha256::digest(plaintext).into();
        self.push_hash(&hash);
        hash
    }

    /// Adds the next chunk by its hash.
    pub fn push_hash(&mut self, hash: &ContentHash) {
        self.leaves.extend_from_slice(hash);
    }

    /// Returns the tree; a builder without chunks is an empty file.
    pub fn finish(mut self) -> HashTree {
        if self.leaves.is_empty() {
            self.push_chunk(&[]);
        }
        let mut hashes = Bytes::from(self.leaves);
        let mut levels: [Vec<HashList>; LEVELS] = Default::default();
        let mut stored = levels.iter_mut();
        loop {
            let lists: Vec<HashList> = hashes
                .chunks(LIST_HASHES * 32)
                .map(|group| HashList(hashes.slice_ref(group)))
                .collect();
            let root = match lists.as_slice() {
                [only] => Some(Sha256::digest(Value::List(vec![only.to_value()]).encode()).into()),
                _ => None,
            };
            hashes = lists
                .iter()
                .flat_map(|list| Sha256::digest(list.encode()))
                .collect();
            // A fourth level may be needed to find the root of a file above 5 PiB; it is not stored.
            if let Some(level) = stored.next() {
                *level = lists;
            }
            if let Some(root) = root {
                return HashTree { root, levels };
            }
        }
    }
}

fn root_value(root: &ContentHash) -> Value {
    Value::Map(Map::from_iter([("h", root)]))
}

fn root_from(value: Value) -> Result<ContentHash, RecordError> {
    Fields::of(value, "root hash")?
        .required("h")?
        .into_array("h")
}

const BRANCH_KEYS: [&str; LEVELS] = ["l1", "l2", "l3"];
const TREE_KEYS: [&str; LEVELS] = ["ll1", "ll2", "ll3"];

#[cfg(test)]
mod tests {
    use super::*;

    fn record(keys: &[&str], list: Value) -> Value {
        let mut map = Map::from_iter([("r", root_value(&[1; 32]))]);
        for key in keys {
            map.insert(*key, list.clone());
        }
        Value::Map(map)
    }

    #[test]
    fn branches_without_a_lower_level_are_rejected() {
        let list = || HashList(vec![0; 32].into()).to_value();
        for bad in [&["l2"][..], &["l1", "l3"], &["l3"], &["l2", "l3"]] {
            assert!(HashBranch::from_value(record(bad, list())).is_err());
        }
        for good in [&[][..], &["l1"], &["l1", "l2"], &["l1", "l2", "l3"]] {
            assert!(HashBranch::from_value(record(good, list())).is_ok());
        }
    }

    #[test]
    fn lists_of_odd_or_excessive_length_are_rejected() {
        for length in [31, 33, 32 * LIST_HASHES + 32] {
            let list = Value::Map(Map::from_iter([("h", vec![0; length])]));
            assert!(HashBranch::from_value(record(&["l1"], list)).is_err());
        }
    }

    #[test]
    fn builder_without_chunks_is_the_empty_file() {
        let mut one = HashTreeBuilder::new();
        one.push_chunk(&[]);
        assert_eq!(HashTreeBuilder::new().finish(), one.finish());
    }
}
