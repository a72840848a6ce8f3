//! What differs between two trees, without reading what they share (Spec: 03 §7).

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::{
    Champ, ChampError, MAX_DEPTH, MAX_VISITED_NODES, SLOTS,
    key_hash::KeyHash,
    node::{ChampNode, Mapping, Slot},
    tree::{Child, present},
};
use crate::{block::BlockSource, cbor::Value};

/// A key whose value differs. Null counts as absent, so at least one side is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: Bytes,
    /// Its value in the first tree.
    pub before: Option<Value>,
    /// Its value in the second tree.
    pub after: Option<Value>,
}

/// Returns every key whose value differs. An absent tree is [`Champ::empty`].
///
/// # Errors
/// As [`diff_each`], with [`MAX_VISITED_NODES`].
pub async fn diff(
    before: &Champ,
    after: &Champ,
    source: &dyn BlockSource,
) -> Result<Vec<Difference>, ChampError> {
    let mut differences = Vec::new();
    diff_each(before, after, source, MAX_VISITED_NODES, |difference| {
        differences.push(difference);
    })
    .await?;
    Ok(differences)
}

/// Calls `each` for every key whose value differs, in no particular order, and reads at most `max_nodes`
/// nodes. Subtrees with the same CID are not read; nodes are not kept.
///
/// # Errors
/// [`ChampError::KeyHash`] when the trees place keys differently, [`ChampError::TooManyNodes`], and as
/// [`Champ::get`].
pub async fn diff_each(
    before: &Champ,
    after: &Champ,
    source: &dyn BlockSource,
    max_nodes: usize,
    mut each: impl FnMut(Difference) + Send,
) -> Result<(), ChampError> {
    let hash = before.hash;
    if hash != after.hash {
        return Err(ChampError::KeyHash);
    }
    if same(&before.root, &after.root) {
        return Ok(());
    }
    let mut visited = 2;
    let root = Pair {
        before: Side::Node(
            before
                .root
                .load(0, before.root_token.as_ref(), source)
                .await?,
        ),
        after: Side::Node(
            after
                .root
                .load(0, after.root_token.as_ref(), source)
                .await?,
        ),
        depth: 0,
    };
    let mut stack = vec![root];
    while let Some(Pair {
        before,
        after,
        depth,
    }) = stack.pop()
    {
        if depth >= MAX_DEPTH {
            return Err(ChampError::Collision);
        }
        // All eight slots are looked at: mappings inherited from a bucket may be in any of them.
        let mut below = Vec::new();
        for (left, right) in before
            .slots(depth, hash)
            .into_iter()
            .zip(after.slots(depth, hash))
        {
            match (left, right) {
                (Slot::Child(left), Slot::Child(right)) if same(&left, &right) => {}
                (left @ Slot::Child(_), right) | (left, right @ Slot::Child(_)) => {
                    below.push((left, right));
                }
                (left, right) => compare(mappings(left), mappings(right), &mut each),
            }
        }
        let child = |slot: &Slot| matches!(slot, Slot::Child(_));
        visited += below
            .iter()
            .map(|(l, r)| usize::from(child(l)) + usize::from(child(r)))
            .sum::<usize>();
        if visited > max_nodes {
            return Err(ChampError::TooManyNodes { max: max_nodes });
        }
        let pairs = below.into_iter().map(async |(left, right)| {
            Ok::<_, ChampError>(Pair {
                before: Side::read(left, depth + 1, source).await?,
                after: Side::read(right, depth + 1, source).await?,
                depth: depth + 1,
            })
        });
        stack.extend(try_join_all(pairs).await?);
    }
    Ok(())
}

/// Two subtrees at the same place.
struct Pair {
    before: Side,
    after: Side,
    depth: usize,
}

/// One side of a pair: a node, or the mappings of a bucket further up.
enum Side {
    Node(Arc<ChampNode>),
    Inherited(Vec<Mapping>),
}

impl Side {
    async fn read(slot: Slot, depth: usize, source: &dyn BlockSource) -> Result<Self, ChampError> {
        Ok(match slot {
            Slot::Child(child) => Self::Node(child.load(depth, None, source).await?),
            slot => Self::Inherited(mappings(slot)),
        })
    }

    fn slots(self, depth: usize, hash: KeyHash) -> [Slot; SLOTS] {
        match self {
            Self::Node(node) => node.slots.clone(),
            Self::Inherited(mappings) => {
                let mut slots: [Slot; SLOTS] = Default::default();
                for mapping in mappings {
                    match slots.get_mut(hash.path(&mapping.key).slot(depth)) {
                        Some(Slot::Bucket(bucket)) => bucket.push(mapping),
                        Some(slot) => *slot = Slot::Bucket(vec![mapping]),
                        None => {}
                    }
                }
                slots
            }
        }
    }
}

fn mappings(slot: Slot) -> Vec<Mapping> {
    match slot {
        Slot::Bucket(bucket) => bucket,
        _ => Vec::new(),
    }
}

fn same(left: &Child, right: &Child) -> bool {
    match (left.cid(), right.cid(), left.loaded(), right.loaded()) {
        (Some(left), Some(right), ..) => left == right,
        (.., Some(left), Some(right)) => Arc::ptr_eq(left, right),
        _ => false,
    }
}

fn compare(before: Vec<Mapping>, after: Vec<Mapping>, each: &mut impl FnMut(Difference)) {
    let mut after: BTreeMap<Bytes, Value> = after
        .into_iter()
        .map(|mapping| (mapping.key, mapping.value))
        .collect();
    let mut report = |key, before: Option<Value>, after: Option<Value>| {
        let before = before.filter(|value| present(value).is_some());
        let after = after.filter(|value| present(value).is_some());
        if before != after {
            each(Difference { key, before, after });
        }
    };
    for Mapping { key, value } in before {
        let other = after.remove(&key);
        report(key, Some(value), other);
    }
    for (key, value) in after {
        report(key, None, Some(value));
    }
}
