//! One owner's blocks, the links between them, and which of them are needed: compact and without any input or
//! output.
//!
//! A block takes 44 bytes and one bit, a link four bytes, so that a million blocks fit into about 50 MB. Blocks
//! are found by binary search in the order in which the store lists them.

use champ::{Cid, Codec, cid::Multihash};

use crate::store::{BlockInfo, Generation};

/// Most blocks of one codec: numbers of nodes have 31 bits.
const MAX_NODES: usize = (1 << 31) - 2;
/// Most words of link lists that are kept (128 MiB). Blocks beyond are read when the marking comes to them.
const MAX_LINK_WORDS: usize = 32 << 20;
/// Set in the number of a raw block.
const RAW: u32 = 1 << 31;
/// The links of this block are not known.
const UNKNOWN: u32 = u32::MAX;

/// A listed block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node(u32);

impl Node {
    /// Returns true for blocks that can have links.
    pub(super) const fn has_links(self) -> bool {
        self.0 & RAW == 0
    }

    fn index(self) -> usize {
        usize::try_from(self.0 & !RAW).unwrap_or(usize::MAX)
    }
}

/// The listing of a store was not what its contract says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ListingError {
    /// Not in ascending order, or a name twice.
    #[error("the store lists blocks in disorder")]
    Order,
    /// More blocks than the graph can number.
    #[error("too many blocks of one owner")]
    TooMany,
    /// A name that no stored block can have.
    #[error("the store lists a name that is no block's")]
    Name,
}

/// Blocks of one codec, in ascending order of digests.
#[derive(Debug, Default)]
struct Column {
    digests: Vec<[u8; 32]>,
    generations: Vec<Generation>,
    sizes: Vec<u32>,
    marks: Vec<u64>,
}

impl Column {
    fn push(&mut self, digest: [u8; 32], info: &BlockInfo) -> Result<(), ListingError> {
        if self.digests.last().is_some_and(|last| *last >= digest) {
            return Err(ListingError::Order);
        }
        if self.digests.len() >= MAX_NODES {
            return Err(ListingError::TooMany);
        }
        if self.digests.len().is_multiple_of(64) {
            self.marks.push(0);
        }
        self.digests.push(digest);
        self.generations.push(info.generation);
        self.sizes.push(info.size_bytes);
        Ok(())
    }

    fn find(&self, digest: &[u8; 32]) -> Option<u32> {
        let at = self.digests.binary_search(digest).ok()?;
        u32::try_from(at).ok()
    }

    fn is_marked(&self, index: usize) -> bool {
        let word = self.marks.get(index / 64).copied().unwrap_or(u64::MAX);
        word >> (index % 64) & 1 == 1
    }

    /// Marks a block; false when it was marked already.
    fn mark(&mut self, index: usize) -> bool {
        let bit = 1 << (index % 64);
        match self.marks.get_mut(index / 64) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }
}

/// A listed block that nothing needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) cid: Cid,
    pub(super) generation: Generation,
    pub(super) size_bytes: u32,
}

/// The blocks of one owner.
#[derive(Debug, Default)]
pub(super) struct Graph {
    cbor: Column,
    raw: Column,
    /// For each cbor block where its link list starts in `links`, or [`UNKNOWN`].
    first: Vec<u32>,
    /// Link lists: their length, then the numbers of the blocks.
    links: Vec<u32>,
    bytes: u64,
}

impl Graph {
    /// Adds the next block of the listing.
    pub(super) fn push(&mut self, info: &BlockInfo) -> Result<(), ListingError> {
        let digest = *info
            .cid
            .hash()
            .sha2_256_digest()
            .ok_or(ListingError::Name)?;
        match info.cid.codec() {
            Codec::DagCbor => {
                self.cbor.push(digest, info)?;
                self.first.push(UNKNOWN);
            }
            Codec::Raw => self.raw.push(digest, info)?,
            _ => return Err(ListingError::Name),
        }
        self.bytes = self.bytes.saturating_add(info.size_bytes.into());
        Ok(())
    }

    /// Returns the number of blocks.
    pub(super) fn len(&self) -> usize {
        self.cbor.digests.len() + self.raw.digests.len()
    }

    /// Returns the sum of their sizes.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the newest generation of the listing.
    pub(super) fn newest(&self) -> Option<Generation> {
        let all = self.cbor.generations.iter().chain(&self.raw.generations);
        all.max().copied()
    }

    /// Finds a block of the listing.
    pub(super) fn find(&self, cid: &Cid) -> Option<Node> {
        let digest = cid.hash().sha2_256_digest()?;
        match cid.codec() {
            Codec::DagCbor => self.cbor.find(digest).map(Node),
            Codec::Raw => self.raw.find(digest).map(|at| Node(at | RAW)),
            _ => None,
        }
    }

    /// Returns the name of a block.
    pub(super) fn cid(&self, node: Node) -> Option<Cid> {
        let (column, codec) = match node.has_links() {
            true => (&self.cbor, Codec::DagCbor),
            false => (&self.raw, Codec::Raw),
        };
        let digest = column.digests.get(node.index())?;
        Some(Cid::v1(codec, Multihash::from_sha2_256(*digest)))
    }

    /// Returns the generation of a block.
    pub(super) fn generation(&self, node: Node) -> Option<Generation> {
        let column = match node.has_links() {
            true => &self.cbor,
            false => &self.raw,
        };
        column.generations.get(node.index()).copied()
    }

    /// Returns the size of a block in bytes.
    pub(super) fn size_bytes(&self, node: Node) -> u32 {
        let column = match node.has_links() {
            true => &self.cbor,
            false => &self.raw,
        };
        column.sizes.get(node.index()).copied().unwrap_or(0)
    }

    /// Keeps the links of a cbor block, each once. False when they cannot be kept: one of them is not in the
    /// listing, or there are too many in all.
    pub(super) fn set_links(&mut self, node: Node, links: &[Cid]) -> bool {
        let mut found = Vec::with_capacity(links.len());
        for link in links {
            let Some(link) = self.find(link) else {
                return false;
            };
            found.push(link.0);
        }
        found.sort_unstable();
        found.dedup();
        let (Ok(count), Ok(start)) = (u32::try_from(found.len()), u32::try_from(self.links.len()))
        else {
            return false;
        };
        if self.links.len() + found.len() >= MAX_LINK_WORDS {
            return false;
        }
        let Some(first) = self
            .first
            .get_mut(node.index())
            .filter(|_| node.has_links())
        else {
            return false;
        };
        *first = start;
        self.links.push(count);
        self.links.extend(found);
        true
    }

    /// Returns how many links of a block are known, which [`Graph::link`] returns one by one; `None` when they
    /// have to be read from the block.
    pub(super) fn link_count(&self, node: Node) -> Option<usize> {
        let start = self.start(node)?;
        let count = self.links.get(start)?;
        usize::try_from(*count).ok()
    }

    /// Returns the n-th known link of a block.
    pub(super) fn link(&self, node: Node, n: usize) -> Option<Node> {
        self.links.get(self.start(node)? + 1 + n).copied().map(Node)
    }

    fn start(&self, node: Node) -> Option<usize> {
        let start = *self.first.get(node.index()).filter(|_| node.has_links())?;
        (start != UNKNOWN)
            .then(|| usize::try_from(start).ok())
            .flatten()
    }

    /// Marks a block as needed; false when it was marked already.
    pub(super) fn mark(&mut self, node: Node) -> bool {
        match node.has_links() {
            true => self.cbor.mark(node.index()),
            false => self.raw.mark(node.index()),
        }
    }

    /// Returns true when a block is needed.
    pub(super) fn is_marked(&self, node: Node) -> bool {
        match node.has_links() {
            true => self.cbor.is_marked(node.index()),
            false => self.raw.is_marked(node.index()),
        }
    }

    /// Returns all blocks, raw ones first, which is the order of the listing.
    pub(super) fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        let count = |column: &Column| u32::try_from(column.digests.len()).unwrap_or(RAW - 2);
        let raw = (0..count(&self.raw)).map(|at| Node(at | RAW));
        raw.chain((0..count(&self.cbor)).map(Node))
    }

    /// Returns a block as the sweep needs it.
    pub(super) fn candidate(&self, node: Node) -> Option<Candidate> {
        Some(Candidate {
            cid: self.cid(node)?,
            generation: self.generation(node)?,
            size_bytes: self.size_bytes(node),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(cid: Cid, generation: u64) -> BlockInfo {
        BlockInfo {
            cid,
            size_bytes: 10,
            generation: Generation(generation),
        }
    }

    fn listing(raw: u8, cbor: u8) -> Vec<BlockInfo> {
        let mut all: Vec<_> = (0..raw)
            .map(|n| info(Cid::of_raw(&[n]), n.into()))
            .chain((0..cbor).map(|n| info(Cid::of_cbor(&[n]), n.into())))
            .collect();
        all.sort_by_key(|info| info.cid.to_bytes());
        all
    }

    fn graph(raw: u8, cbor: u8) -> Graph {
        let mut graph = Graph::default();
        for info in listing(raw, cbor) {
            graph.push(&info).unwrap();
        }
        graph
    }

    #[test]
    fn every_listed_block_is_found_and_no_other() {
        let graph = graph(200, 100);
        assert_eq!((graph.len(), graph.bytes()), (300, 3000));
        for info in listing(200, 100) {
            let node = graph.find(&info.cid).unwrap();
            assert_eq!(graph.cid(node).unwrap(), info.cid);
            assert_eq!(graph.generation(node).unwrap(), info.generation);
            assert_eq!(node.has_links(), info.cid.codec() == Codec::DagCbor);
        }
        assert_eq!(graph.find(&Cid::of_raw(&[200])), None);
        // The same digest under the other codec is another block.
        assert_eq!(graph.find(&Cid::of_cbor(&[150])), None);
        assert_eq!(graph.nodes().count(), 300);
    }

    #[test]
    fn disorder_and_repetition_are_refused() {
        let mut all = listing(3, 0);
        all.swap(0, 1);
        let mut graph = Graph::default();
        graph.push(&all[0]).unwrap();
        assert_eq!(graph.push(&all[1]), Err(ListingError::Order));
        assert_eq!(graph.push(&all[0]), Err(ListingError::Order));
    }

    #[test]
    fn links_are_kept_once_each_and_only_if_all_are_listed() {
        let mut graph = graph(3, 3);
        let node = graph.find(&Cid::of_cbor(&[0])).unwrap();
        assert_eq!(graph.link_count(node), None);
        let absent = [Cid::of_raw(&[0]), Cid::of_raw(&[9])];
        assert!(!graph.set_links(node, &absent));
        assert_eq!(graph.link_count(node), None);
        let twice = [Cid::of_raw(&[0]), Cid::of_cbor(&[1]), Cid::of_raw(&[0])];
        assert!(graph.set_links(node, &twice));
        assert_eq!(graph.link_count(node), Some(2));
        let links: Vec<_> = (0..2)
            .map(|n| graph.cid(graph.link(node, n).unwrap()).unwrap())
            .collect();
        assert!(links.contains(&twice[0]) && links.contains(&twice[1]));
        let raw = graph.find(&Cid::of_raw(&[0])).unwrap();
        assert!(!graph.set_links(raw, &[]));
        assert_eq!(graph.link_count(raw), None);
    }

    #[test]
    fn a_mark_is_set_once() {
        let mut graph = graph(130, 5);
        let nodes: Vec<_> = graph.nodes().collect();
        for node in &nodes {
            assert!(!graph.is_marked(*node));
            assert!(graph.mark(*node));
            assert!(!graph.mark(*node));
            assert!(graph.is_marked(*node));
        }
    }
}
