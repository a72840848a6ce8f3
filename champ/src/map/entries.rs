//! Enumeration and size (Spec: 03 §5.5).

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::{
    Champ, ChampError, MAX_VISITED_NODES,
    node::{ChampNode, Mapping, Slot},
    tree::{Child, present},
};
use crate::{access::BatWithId, block::BlockSource, cbor::Value};

/// A walk over all mappings of a tree as it was when the walk began.
///
/// Depth first: the buckets of a node in slot order, then its children. Nodes are read as the walk reaches
/// them, the children of one node together, and dropped behind it: at most seven per level are in memory.
#[derive(Debug)]
pub struct Entries {
    root: Option<(Child, Option<BatWithId>)>,
    stack: Vec<Frame>,
    visited: usize,
    max_nodes: usize,
}

#[derive(Debug)]
struct Frame {
    node: Arc<ChampNode>,
    depth: usize,
    slot: usize,
    mapping: usize,
}

impl Champ {
    /// Starts a walk over all mappings.
    pub fn entries(&self) -> Entries {
        Entries {
            root: Some((self.root.clone(), self.root_token.clone())),
            stack: Vec::new(),
            visited: 0,
            max_nodes: MAX_VISITED_NODES,
        }
    }

    /// Counts the mappings, those with null values included.
    ///
    /// # Errors
    /// As [`Entries::next`].
    pub async fn count(&self, source: &dyn BlockSource) -> Result<u64, ChampError> {
        let mut entries = self.entries();
        let mut count = 0;
        while entries.next_mapping(source).await?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

impl Entries {
    /// Sets how many nodes the walk may visit, instead of [`MAX_VISITED_NODES`].
    #[must_use]
    pub const fn max_nodes(mut self, max: usize) -> Self {
        self.max_nodes = max;
        self
    }

    /// Returns the next mapping whose value is not null, none at the end.
    ///
    /// # Errors
    /// As [`Champ::get`], and [`ChampError::TooManyNodes`]. After an error of the source the same call may
    /// be made again. Cancel safe.
    pub async fn next(
        &mut self,
        source: &dyn BlockSource,
    ) -> Result<Option<(Bytes, Value)>, ChampError> {
        while let Some(Mapping { key, value }) = self.next_mapping(source).await? {
            if present(&value).is_some() {
                return Ok(Some((key, value)));
            }
        }
        Ok(None)
    }

    async fn next_mapping(
        &mut self,
        source: &dyn BlockSource,
    ) -> Result<Option<Mapping>, ChampError> {
        if let Some((root, token)) = &self.root {
            let node = root.load(0, token.as_ref(), source).await?;
            self.visit(1)?;
            self.root = None;
            self.stack.push(Frame::new(node, 0));
        }
        loop {
            let Some(frame) = self.stack.last_mut() else {
                return Ok(None);
            };
            if let Some(mapping) = frame.next() {
                return Ok(Some(mapping));
            }
            let depth = frame.depth + 1;
            let node = frame.node.clone();
            let loads = node.children().map(|child| child.load(depth, None, source));
            let children = try_join_all(loads).await?;
            self.visit(children.len())?;
            self.stack.pop();
            let frames = children.into_iter().rev();
            self.stack
                .extend(frames.map(|node| Frame::new(node, depth)));
        }
    }

    const fn visit(&mut self, nodes: usize) -> Result<(), ChampError> {
        self.visited += nodes;
        if self.visited > self.max_nodes {
            return Err(ChampError::TooManyNodes {
                max: self.max_nodes,
            });
        }
        Ok(())
    }
}

impl Frame {
    const fn new(node: Arc<ChampNode>, depth: usize) -> Self {
        Self {
            node,
            depth,
            slot: 0,
            mapping: 0,
        }
    }

    /// Returns the next mapping of the node's own buckets.
    fn next(&mut self) -> Option<Mapping> {
        while let Some(slot) = self.node.slots.get(self.slot) {
            if let Slot::Bucket(bucket) = slot
                && let Some(mapping) = bucket.get(self.mapping)
            {
                self.mapping += 1;
                return Some(mapping.clone());
            }
            self.slot += 1;
            self.mapping = 0;
        }
        None
    }
}
