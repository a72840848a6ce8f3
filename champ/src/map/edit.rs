//! Putting and removing (Spec: 03 §5.2, §5.3).
//!
//! Each operation first walks read-only, which loads the nodes and finds every reason to refuse; only then
//! does it change the tree, so a refused operation leaves no trace.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{TryStreamExt, stream::FuturesUnordered};

use super::{
    Champ, ChampError, MAX_BUCKET, MAX_DEPTH,
    key_hash::Path,
    node::{ChampNode, Mapping, Slot, sort_bucket},
    tree::{Child, Place, present},
};
use crate::{block::BlockSource, cbor::Value, cid::Cid};

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// The value it must have now; null and none are the same.
    pub expected: Option<Value>,
    /// The value it gets; none removes it.
    pub value: Option<Value>,
}

impl Champ {
    /// Maps `key` to `value`.
    ///
    /// `expected` is the value that an existing mapping must have (none also stands for null); it is not
    /// looked at when the key is absent (Spec: 03 §5.2).
    ///
    /// # Errors
    /// [`ChampError::CompareAndSwap`], [`ChampError::NullValue`], [`ChampError::Collision`], and as
    /// [`Champ::get`]. The tree is unchanged then. Cancel safe.
    pub async fn put(
        &mut self,
        key: impl Into<Bytes>,
        expected: Option<&Value>,
        value: Value,
        source: &dyn BlockSource,
    ) -> Result<(), ChampError> {
        let key = key.into();
        if value == Value::Null {
            return Err(ChampError::NullValue);
        }
        let path = self.hash.path(&key);
        let mut split = None;
        match self.find(path, &key, source).await? {
            Place::Mapped(stored) => {
                if present(stored) != expected.and_then(present) {
                    return Err(ChampError::CompareAndSwap);
                }
                if *stored == value {
                    return Ok(());
                }
            }
            Place::Bucket { depth, bucket } if bucket.len() >= MAX_BUCKET => {
                let mut mappings = bucket.to_vec();
                mappings.push(Mapping {
                    key: key.clone(),
                    value: value.clone(),
                });
                split = Some(ChampNode::holding(mappings, depth + 1, self.hash)?);
            }
            Place::Bucket { .. } | Place::Vacant => {}
        }
        put_loaded(&mut self.root, path, Mapping { key, value }, split)
    }

    /// Removes the mapping of `key`, whose value must be `expected` (none also stands for null).
    ///
    /// A key whose slot is empty is no error; a key that is absent from the bucket of its slot is
    /// (Spec: 03 §5.3). [`Champ::remove_all`] ignores absent keys.
    ///
    /// # Errors
    /// [`ChampError::CompareAndSwap`], and as [`Champ::get`]. The tree is unchanged then. Cancel safe.
    pub async fn remove(
        &mut self,
        key: &[u8],
        expected: Option<&Value>,
        source: &dyn BlockSource,
    ) -> Result<(), ChampError> {
        let path = self.hash.path(key);
        match self.find(path, key, source).await? {
            Place::Mapped(stored) if present(stored) == expected.and_then(present) => {}
            Place::Mapped(_) | Place::Bucket { .. } => return Err(ChampError::CompareAndSwap),
            Place::Vacant => return Ok(()),
        }
        remove_loaded(&mut self.root, path, key, 0)
    }

    /// Removes the mappings of `keys`, whatever their values; absent keys are ignored.
    ///
    /// # Errors
    /// As [`Champ::get`]; keys before the failing one are gone then.
    pub async fn remove_all<K: AsRef<[u8]>>(
        &mut self,
        keys: &[K],
        source: &dyn BlockSource,
    ) -> Result<(), ChampError> {
        self.load(keys, source).await?;
        for key in keys {
            let key = key.as_ref();
            let path = self.hash.path(key);
            if let Place::Mapped(_) = self.find(path, key, source).await? {
                remove_loaded(&mut self.root, path, key, 0)?;
            }
        }
        Ok(())
    }

    /// Makes several changes, all or none of them; changes of one key in the order given. Missing nodes are
    /// read together first.
    ///
    /// # Errors
    /// As [`Champ::put`] and [`Champ::remove`]. The tree is unchanged then. Cancel safe.
    pub async fn apply(
        &mut self,
        mut changes: Vec<Change>,
        source: &dyn BlockSource,
    ) -> Result<(), ChampError> {
        let keys: Vec<&Bytes> = changes.iter().map(|change| &change.key).collect();
        self.load(&keys, source).await?;
        drop(keys);
        // Changes that are close in the tree one after the other: the nodes stay in the processor's cache.
        changes.sort_by_cached_key(|change| self.hash.path(&change.key).tree_order());
        let mut changed = self.clone();
        for change in changes {
            let expected = change.expected.as_ref();
            match change.value {
                Some(value) => changed.put(change.key, expected, value, source).await?,
                None => changed.remove(&change.key, expected, source).await?,
            }
        }
        *self = changed;
        Ok(())
    }

    /// Reads the nodes on the way to `keys` level by level, several at a time, and keeps them.
    ///
    /// # Errors
    /// As [`Champ::get`]. Cancel safe.
    pub async fn load<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        source: &dyn BlockSource,
    ) -> Result<(), ChampError> {
        let root = self.load_root(source).await?;
        let mut walks: Vec<(Path, &ChampNode)> = keys
            .iter()
            .map(|key| (self.hash.path(key.as_ref()), &**root))
            .collect();
        for depth in 0..MAX_DEPTH {
            let next: Vec<(Path, &Child)> = walks
                .iter()
                .filter_map(|(path, node)| match node.slots.get(path.slot(depth)) {
                    Some(Slot::Child(child)) => Some((*path, &**child)),
                    _ => None,
                })
                .collect();
            if next.is_empty() {
                break;
            }
            let missing: BTreeMap<&Cid, &Child> = next
                .iter()
                .filter(|(_, child)| child.loaded().is_none())
                .filter_map(|(_, child)| Some((child.cid()?, *child)))
                .collect();
            let mut waiting = missing.into_values();
            let mut reading = FuturesUnordered::new();
            loop {
                let room = CONCURRENT_READS - reading.len();
                for child in waiting.by_ref().take(room) {
                    reading.push(child.load_kept(depth + 1, None, source));
                }
                if reading.try_next().await?.is_none() {
                    break;
                }
            }
            walks = next
                .into_iter()
                .filter_map(|(path, child)| Some((path, &**child.loaded()?)))
                .collect();
        }
        Ok(())
    }
}

/// Puts along a path that has been loaded; `split` replaces the bucket that has become too small.
fn put_loaded(
    root: &mut Child,
    path: Path,
    mapping: Mapping,
    split: Option<ChampNode>,
) -> Result<(), ChampError> {
    let mut child = root;
    for depth in 0..MAX_DEPTH {
        let node = child.edit().ok_or(ChampError::Unfinished)?;
        let slot = node
            .slots
            .get_mut(path.slot(depth))
            .ok_or(ChampError::Unfinished)?;
        match slot {
            Slot::Child(next) => child = next,
            Slot::Empty => {
                *slot = Slot::Bucket(vec![mapping]);
                return Ok(());
            }
            Slot::Bucket(bucket) => {
                if let Some(found) = bucket.iter_mut().find(|found| found.key == mapping.key) {
                    found.value = mapping.value;
                } else if let Some(split) = split {
                    *slot = Slot::Child(Box::new(Child::new(split)));
                } else {
                    bucket.push(mapping);
                    sort_bucket(bucket);
                }
                return Ok(());
            }
        }
    }
    Err(ChampError::Collision)
}

/// Removes along a path that has been loaded, and turns children that fit into a bucket into one.
///
/// "Fit" is four mappings or fewer: exactly four in a canonical tree, fewer only where another writer left
/// a child that should never have been one.
fn remove_loaded(
    child: &mut Child,
    path: Path,
    key: &[u8],
    depth: usize,
) -> Result<(), ChampError> {
    let node = child.edit().ok_or(ChampError::Unfinished)?;
    let slot = node
        .slots
        .get_mut(path.slot(depth))
        .ok_or(ChampError::Unfinished)?;
    match slot {
        Slot::Empty => {}
        Slot::Bucket(bucket) => {
            bucket.retain(|mapping| mapping.key != key);
            if bucket.is_empty() {
                *slot = Slot::Empty;
            }
        }
        Slot::Child(next) => {
            remove_loaded(next, path, key, depth + 1)?;
            if let Some(bucket) = next.loaded().and_then(|node| node.as_bucket()) {
                *slot = if bucket.is_empty() {
                    Slot::Empty
                } else {
                    Slot::Bucket(bucket)
                };
            }
        }
    }
    Ok(())
}

/// Nodes read at the same time.
const CONCURRENT_READS: usize = 16;
