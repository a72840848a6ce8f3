//! Trees whose root node stands inside another record: large published folders (Spec: 03 §2, 04 §7).

use super::{Champ, ChampError, NodeError, node::ChampNode, tree::Child};
use crate::{
    block::Block,
    cbor::{RecordError, Value, decode},
};

impl Champ {
    /// Makes the tree with this root node; only nodes below it are blocks.
    ///
    /// # Errors
    /// [`NodeError`] when the value is no node list.
    pub fn inline(root: Value) -> Result<Self, NodeError> {
        ChampNode::from_list(root).map(|node| Self::with_root(Child::new(node)))
    }

    /// Encodes what has changed: the root node as a value, and the new blocks below it.
    ///
    /// # Errors
    /// [`ChampError::TooLarge`]; and [`ChampError::Unfinished`] when the root was never read.
    pub fn finish_inline(&mut self) -> Result<(Value, Vec<Block>), ChampError> {
        let mut blocks = Vec::new();
        let bytes = self.root.finish_children(&mut blocks)?.encode(false)?;
        // Decoding what was just encoded only fails for values that no block could hold either.
        let root = decode(&bytes).map_err(|error| ChampError::Malformed {
            cid: crate::Cid::of_cbor(&bytes),
            source: RecordError::from(error).into(),
        })?;
        Ok((root, blocks))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::{block::MemoryBlocks, map::KeyHash};

    #[test]
    fn an_inline_tree_holds_the_same_as_one_of_blocks() {
        async {
            let mut stored = MemoryBlocks::new();
            let mut inline = Champ::empty().hashed_by(KeyHash::Sha256);
            let mut tree = Champ::empty().hashed_by(KeyHash::Sha256);
            for n in 0..100u8 {
                let value = Value::Int(n.into());
                inline.put(vec![n], None, value.clone(), &stored).await?;
                tree.put(vec![n], None, value, &stored).await?;
            }
            let (root, blocks) = inline.finish_inline()?;
            let (cid, all) = tree.finish()?;
            // The same nodes but for the root, which is a value instead of a block.
            assert_eq!(Block::cbor(root.encode())?.cid(), &cid);
            assert_eq!(all.len(), blocks.len() + 1);
            stored.extend(blocks);
            let read = Champ::inline(root).unwrap().hashed_by(KeyHash::Sha256);
            for n in 0..100u8 {
                assert_eq!(read.get(&[n], &stored).await?, Some(Value::Int(n.into())));
            }
            assert_eq!(read.get(b"no", &stored).await?, None);
            Ok::<(), ChampError>(())
        }
        .now_or_never()
        .unwrap()
        .unwrap();
    }

    #[test]
    fn what_is_no_node_list_is_refused() {
        for bad in [
            Value::Null,
            Value::Int(1),
            Value::List(vec![]),
            Value::Map(crate::cbor::Map::new()),
        ] {
            assert!(Champ::inline(bad).is_err());
        }
    }
}
