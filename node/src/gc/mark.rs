//! Marking: everything reachable from the roots, each block once, without recursion (Spec: 12 §4.2 step 6).

use std::collections::HashSet;

use champ::{Block, Cid, Codec, block::is_block_cid, cbor::scan_block_lenient};
use futures_util::future::join_all;

use super::{
    Abort,
    graph::{Graph, Node},
    link_store::LinkStore,
    links::ChunkWriter,
    pace::Pace,
};
use crate::store::{BlockCounts, Partition, Store, StoreError};

/// Blocks that are read at the same time: matters where blocks are far away.
const READS_AT_ONCE: usize = 32;
/// Known links that are followed before giving way is considered.
const STEPS: usize = 4096;
/// Most blocks that may be put while a collection runs and reached by it.
const MAX_FRESH: usize = 1 << 20;

/// What to do about a block below a root that is not there or cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gaps {
    /// Stop: nobody knows what it links to.
    Refuse,
    /// Go on without it: the root is kept as a courtesy only.
    Allow,
}

/// Marks blocks of one owner.
pub(super) struct Marker<'a> {
    store: &'a dyn Store,
    partition: &'a Partition,
    pub(super) graph: Graph,
    /// Blocks that are reachable and not in the listing: put since.
    fresh: HashSet<Cid>,
    /// Links that were read from blocks and are not stored yet: at most a chunk.
    pub(super) learnt: ChunkWriter,
    /// Where links are kept; `None`: nowhere.
    pub(super) links: Option<LinkStore>,
    /// Blocks that were read.
    pub(super) read: u64,
    /// Blocks of the listing that are marked.
    pub(super) marked: BlockCounts,
    has_gaps: bool,
    stack: Vec<Node>,
    unread: Vec<Cid>,
}

impl<'a> Marker<'a> {
    pub(super) fn new(store: &'a dyn Store, partition: &'a Partition, graph: Graph) -> Self {
        Self {
            store,
            partition,
            graph,
            fresh: HashSet::new(),
            learnt: ChunkWriter::default(),
            links: None,
            read: 0,
            marked: BlockCounts::default(),
            has_gaps: false,
            stack: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// True when something was left out under [`Gaps::Allow`]: what is marked may be incomplete below, so marking
    /// more roots with [`Gaps::Refuse`] could miss a gap.
    pub(super) const fn has_gaps(&self) -> bool {
        self.has_gaps
    }

    /// Marks everything reachable from `root`.
    pub(super) async fn root(
        &mut self,
        root: &Cid,
        gaps: Gaps,
        pace: &mut Pace,
    ) -> Result<(), Abort> {
        self.visit(root, gaps).await?;
        loop {
            let mut steps = 0;
            while let Some(node) = self.stack.pop() {
                self.follow(node);
                steps += 1;
                if steps % STEPS == 0 {
                    pace.point().await;
                }
                if self.unread.len() >= READS_AT_ONCE {
                    break;
                }
            }
            if self.unread.is_empty() {
                return Ok(());
            }
            self.read_links(gaps).await?;
            pace.point().await;
        }
    }

    /// Marks what a marked block is known to link to, or notes that it has to be read.
    fn follow(&mut self, node: Node) {
        let Some(count) = self.graph.link_count(node) else {
            self.unread.extend(self.graph.cid(node));
            return;
        };
        for n in 0..count {
            if let Some(link) = self.graph.link(node, n) {
                self.mark(link);
            }
        }
    }

    fn mark(&mut self, node: Node) {
        if !self.graph.mark(node) {
            return;
        }
        self.marked.blocks += 1;
        self.marked.bytes += u64::from(self.graph.size_bytes(node));
        if node.has_links() {
            self.stack.push(node);
        }
    }

    /// Marks a block by name; one that is not in the listing must have been put since.
    async fn visit(&mut self, cid: &Cid, gaps: Gaps) -> Result<(), Abort> {
        // Identity CIDs hold their content, other kinds name no block of a partition.
        if cid.identity_content().is_some() || !is_block_cid(cid) {
            return Ok(());
        }
        if let Some(node) = self.graph.find(cid) {
            self.mark(node);
            return Ok(());
        }
        if self.fresh.contains(cid) {
            return Ok(());
        }
        if self.fresh.len() >= MAX_FRESH {
            return Err(Abort::Busy);
        }
        self.fresh.insert(cid.clone());
        if cid.codec() == Codec::DagCbor {
            self.unread.push(cid.clone());
        } else if self.store.block_size(self.partition, cid).await?.is_none() {
            self.gap(Abort::Missing(cid.clone()), gaps)?;
        }
        Ok(())
    }

    fn gap(&mut self, reason: Abort, gaps: Gaps) -> Result<(), Abort> {
        match gaps {
            Gaps::Refuse => Err(reason),
            Gaps::Allow => {
                self.has_gaps = true;
                Ok(())
            }
        }
    }

    /// Reads the blocks whose links are not known.
    async fn read_links(&mut self, gaps: Gaps) -> Result<(), Abort> {
        let unread = std::mem::take(&mut self.unread);
        for some in unread.chunks(READS_AT_ONCE) {
            let reads = some.iter().map(|cid| self.store.block(self.partition, cid));
            let blocks = join_all(reads).await;
            for (cid, block) in some.iter().zip(blocks) {
                self.read += 1;
                match links_of(cid, block) {
                    Ok(links) => self.learn(cid, links, gaps).await?,
                    Err(reason) if reason.is_about_a_block() => self.gap(reason, gaps)?,
                    Err(reason) => return Err(reason),
                }
            }
            if let Some(store) = &mut self.links {
                for chunk in self.learnt.take_full() {
                    store.append(self.store, chunk).await?;
                }
            }
        }
        Ok(())
    }

    async fn learn(&mut self, cid: &Cid, links: Vec<Cid>, gaps: Gaps) -> Result<(), Abort> {
        let links: Vec<_> = links
            .into_iter()
            .filter(|link| link.identity_content().is_none() && is_block_cid(link))
            .collect();
        if let Some(node) = self.graph.find(cid)
            && self.graph.set_links(node, &links)
            && self.links.is_some()
            && let Some(digest) = cid.hash().sha2_256_digest()
        {
            self.learnt.add(digest, &links);
        }
        for link in &links {
            self.visit(link, gaps).await?;
        }
        Ok(())
    }
}

fn links_of(cid: &Cid, read: Result<Option<Block>, StoreError>) -> Result<Vec<Cid>, Abort> {
    match read {
        Ok(Some(block)) => scan_block_lenient(block.bytes())
            .map(|scan| scan.links)
            .map_err(|_| Abort::Malformed(cid.clone())),
        Ok(None) => Err(Abort::Missing(cid.clone())),
        Err(StoreError::Damaged(cid)) => Err(Abort::Damaged(cid)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use champ::cbor::Value;
    use pki::username::Username;

    use super::*;
    use crate::{
        gc::links::{CHUNK_BYTES, records},
        store::{BlockStore as _, MemoryStore, MetaStore as _, tables},
    };

    /// A cbor block that links to others.
    fn block(n: usize, links: &[Cid]) -> Block {
        let mut list = vec![Value::Int(n as i64)];
        list.extend(links.iter().cloned().map(Value::Link));
        Block::cbor(Value::List(list).encode()).unwrap()
    }

    /// What a first collection learns is stored as it goes: no more than a chunk is ever in memory.
    #[tokio::test]
    async fn what_is_learnt_is_not_gathered_in_memory() {
        const BLOCKS: usize = 12_000;
        let store = MemoryStore::new();
        let name = Username::parse("alice").unwrap();
        let partition = Partition::new("u-alice").unwrap();
        let leaves: Vec<_> = (0..BLOCKS).map(|n| block(n, &[])).collect();
        let cids: Vec<_> = leaves.iter().map(|leaf| leaf.cid().clone()).collect();
        let inner: Vec<_> = cids.chunks(100).map(|some| block(0, some)).collect();
        let of_inner: Vec<_> = inner.iter().map(|block| block.cid().clone()).collect();
        let root = block(1, &of_inner);
        let all: Vec<_> = leaves
            .into_iter()
            .chain(inner)
            .chain([root.clone()])
            .collect();
        for some in all.chunks(5_000) {
            store
                .put_blocks(&partition, some.to_vec(), None)
                .await
                .unwrap();
        }
        let mut graph = Graph::default();
        let mut after = None;
        loop {
            let page = store
                .list_blocks(&partition, after.as_ref(), 1_000)
                .await
                .unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.cid.clone());
            page.iter().for_each(|info| graph.push(info).unwrap());
        }
        let mut pace = Pace::new(100);
        let mut marker = Marker::new(&store, &partition, graph);
        marker.links = Some(LinkStore::new(&name));
        marker
            .root(root.cid(), Gaps::Refuse, &mut pace)
            .await
            .unwrap();
        assert_eq!(marker.marked.blocks, all.len() as u64);
        // About 37 bytes a block, 33 more for each link.
        assert!(marker.learnt.held_bytes() < CHUNK_BYTES);
        let Marker {
            graph,
            learnt,
            links,
            ..
        } = marker;
        let links = links.unwrap();
        links.save(&store, &graph, learnt, &mut pace).await.unwrap();
        let rows = store
            .scan(tables::GC_LINKS, b"alice", None, 100)
            .await
            .unwrap();
        assert!(rows.len() > 4, "{}", rows.len());
        let stored = rows
            .iter()
            .map(|(_, chunk)| records(chunk).unwrap().count());
        assert_eq!(stored.sum::<usize>(), all.len());
    }
}
