//! What a tree must be, written down a second time straight from the definition (Spec: 03 §4), and trees
//! in shapes that other writers might leave.

use std::collections::BTreeMap;

use champ::{Block, Cid, MemoryBlocks, cbor::Value, map::KeyHash};
use proptest::prelude::*;

/// The content of a tree.
pub type Model = BTreeMap<Vec<u8>, Value>;

/// Keys that share long prefixes, so that a few of them make deep trees, and none that share all of it.
pub fn any_key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => Just(0u8), 1 => 0u8..16, 1 => any::<u8>()];
    prop_oneof![
        // The last byte is not zero: at most two lengths of one path.
        30 => (proptest::collection::vec(byte, 0..4), 1u8.., 0usize..2).prop_map(
            |(first, last, zeros)| [first, vec![last], vec![0; zeros]].concat()
        ),
        20 => (0usize..12, 1u8..32).prop_map(|(zeros, last)| [vec![0; zeros], vec![last]].concat()),
        10 => any::<[u8; 32]>().prop_map(|key| key.to_vec()),
        1 => (0usize..3).prop_map(|zeros| vec![0; zeros]),
    ]
}

/// Keys of which five together need a level too many.
pub fn colliding_key() -> impl Strategy<Value = Vec<u8>> {
    any::<u8>().prop_map(|last| [vec![0; 12], vec![last]].concat())
}

pub fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => (0u8..20).prop_map(|i| crate::support::link_of(&i.to_string())),
        1 => (0i64..4).prop_map(Value::Int),
        1 => Just(Value::List(vec![Value::Null, Value::from("x")])),
    ]
}

pub fn any_hash() -> impl Strategy<Value = KeyHash> {
    prop_oneof![
        4 => Just(KeyHash::Identity),
        1 => Just(KeyHash::Sha256),
        1 => Just(KeyHash::Blake2b512),
    ]
}

fn slot(hash: &[u8], depth: usize) -> usize {
    (0..3)
        .map(|i| 3 * depth + i)
        .map(|bit| usize::from(hash.get(bit / 8).copied().unwrap_or(0) >> (bit % 8) & 1))
        .enumerate()
        .map(|(i, bit)| bit << i)
        .sum()
}

/// Draws the ways in which a shape departs from the canonical one.
pub trait Shape {
    /// A slot with this many mappings becomes a child.
    fn child(&mut self, mappings: usize) -> bool {
        mappings > 4
    }
    /// An empty slot gets an empty bucket.
    fn empty_bucket(&mut self) -> bool {
        false
    }
    /// The bucket is written in another order.
    fn unsorted(&mut self) -> bool {
        false
    }
}

/// The only shape a writer makes.
pub struct Canonical;

impl Shape for Canonical {}

/// Departs wherever a bit of the seed says so.
pub struct Odd(pub u64);

impl Odd {
    fn draw(&mut self) -> bool {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 & 3 == 0
    }
}

impl Shape for Odd {
    fn child(&mut self, mappings: usize) -> bool {
        if self.draw() {
            mappings <= 4
        } else {
            mappings > 4
        }
    }
    fn empty_bucket(&mut self) -> bool {
        self.draw()
    }
    fn unsorted(&mut self) -> bool {
        self.draw()
    }
}

/// Builds the node for `mappings` at `depth`; none when they would need a 33rd level.
pub fn build(
    mappings: &Model,
    hash: KeyHash,
    depth: usize,
    shape: &mut dyn Shape,
    stored: &mut MemoryBlocks,
) -> Option<Cid> {
    let (mut data, mut links) = (0u8, 0u8);
    let mut buckets = Vec::new();
    let mut children = Vec::new();
    for s in 0..8 {
        let group: Model = mappings
            .iter()
            .filter(|(key, _)| slot(&hash.hash(key), depth) == s)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if group.is_empty() {
            if shape.empty_bucket() {
                data |= 1 << s;
                buckets.push(Value::List(Vec::new()));
            }
            continue;
        }
        if shape.child(group.len()) && (depth < 31 || group.len() > 4) {
            if depth == 31 {
                return None;
            }
            links |= 1 << s;
            children.push(Value::Link(build(&group, hash, depth + 1, shape, stored)?));
            continue;
        }
        data |= 1 << s;
        let mut bucket: Vec<(Vec<u8>, Value)> = group.into_iter().collect();
        bucket.sort_by_key(|(key, _)| (key.len(), key.clone()));
        if shape.unsorted() {
            bucket.reverse();
        }
        let flat = bucket
            .into_iter()
            .flat_map(|(key, value)| [Value::from(key), value]);
        buckets.push(Value::List(flat.collect()));
    }
    children.reverse();
    buckets.extend(children);
    let map = |bits: u8| Value::from(if bits == 0 { Vec::new() } else { vec![bits] });
    let node = Value::List(vec![map(data), map(links), Value::List(buckets)]);
    let block = Block::cbor(node.encode()).unwrap();
    let cid = block.cid().clone();
    stored.insert(block);
    Some(cid)
}

/// The root that the canonical tree of `model` has.
pub fn canonical_root(model: &Model, hash: KeyHash) -> Option<Cid> {
    build(model, hash, 0, &mut Canonical, &mut MemoryBlocks::new())
}
