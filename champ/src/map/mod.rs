//! The CHAMP: a merkle map whose root commits to its whole content (Spec: 03).
//!
//! [`Champ`] is a working tree: nodes are read from a [`BlockSource`](crate::BlockSource) when they are
//! needed, changed in memory, and encoded once, by [`Champ::finish`]. Invariant: after any sequence of
//! puts and removes on a canonical tree the shape is the canonical one of Spec: 03 §4, so the same
//! mappings always give the same root. Nodes that a change does not touch keep the bytes they had, even
//! when another writer left them in a shape of its own.
//!
//! ```
//! use champ::{Cid, MemoryBlocks, cbor::Value, map::Champ};
//!
//! # futures_util::FutureExt::now_or_never(async {
//! let mut stored = MemoryBlocks::new();
//! let mut champ = Champ::empty();
//! let value = Value::Link(Cid::of_cbor(b"\xa0"));
//! champ.put(vec![7; 32], None, value.clone(), &stored).await?;
//! let (root, blocks) = champ.finish()?;
//! stored.extend(blocks);
//!
//! let champ = Champ::at(root);
//! assert_eq!(champ.get(&[7; 32], &stored).await?, Some(value));
//! assert_eq!(champ.get(&[8; 32], &stored).await?, None);
//! # Ok::<(), champ::map::ChampError>(())
//! # }).unwrap().unwrap();
//! ```

mod diff;
mod edit;
mod entries;
mod inline;
mod key_hash;
mod lookup;
mod merge;
mod node;
mod tree;

pub use diff::{Difference, diff, diff_each};
pub use edit::Change;
pub use entries::Entries;
pub use key_hash::KeyHash;
pub use lookup::{LookupError, LookupKey, MAX_LOOKUP_BYTES, MAX_LOOKUP_KEYS, lookup_blocks};
pub use merge::{MergeError, merge};
pub use node::NodeError;
pub use tree::{Champ, ChampError};

/// Levels of a tree, depths 0 to 31 (Spec: 03 §1).
pub const MAX_DEPTH: usize = 32;
/// Mappings a bucket holds before it becomes a child (Spec: 03 §1).
pub const MAX_BUCKET: usize = 4;
/// Slots of a node: three bits of the key hash (Spec: 03 §1).
pub const SLOTS: usize = 8;
/// Nodes that one enumeration, diff or merge visits by default.
///
/// Thirty-two blocks are enough for a stranger to describe a tree of 8^31 nodes, all of them reached.
pub const MAX_VISITED_NODES: usize = 1 << 20;
