//! Keeping the links of an owner's blocks from one collection to the next.

use bytes::Bytes;
use pki::username::Username;

use super::{
    Abort,
    graph::{Graph, Node},
    links::{CHUNK_BYTES, ChunkWriter, records},
    pace::Pace,
};
use crate::{
    state::State,
    store::{Batch, Store, tables},
};

/// Chunks that are read at a time.
const PAGE_ROWS: usize = 8;
/// Small chunks that may gather before they are written together.
const MAX_EXTRA_CHUNKS: usize = 32;

/// The stored chunks of one owner.
#[derive(Debug)]
pub(super) struct LinkStore {
    name: Username,
    /// Chunks that were there before this collection.
    keys: Vec<Bytes>,
    /// Chunks that this collection has stored.
    added: Vec<Bytes>,
    /// Number of the next chunk.
    next: u32,
    bytes: usize,
    /// Records of blocks that are still there, and of others.
    live: u64,
    dead: u64,
    is_damaged: bool,
}

impl LinkStore {
    /// Of a user of whom nothing is stored yet.
    pub(super) fn new(name: &Username) -> Self {
        Self {
            name: name.clone(),
            keys: Vec::new(),
            added: Vec::new(),
            next: 0,
            bytes: 0,
            live: 0,
            dead: 0,
            is_damaged: false,
        }
    }

    /// Reads the chunks of a user into the graph.
    pub(super) async fn load(
        state: &State,
        name: &Username,
        graph: &mut Graph,
        pace: &mut Pace,
    ) -> Result<Self, Abort> {
        let prefix = prefix(name);
        let mut found = Self::new(name);
        let mut after: Option<Bytes> = None;
        loop {
            let page = state
                .store
                .scan(tables::GC_LINKS, &prefix, after.as_deref(), PAGE_ROWS)
                .await?;
            let Some((last, _)) = page.last() else {
                return Ok(found);
            };
            after = Some(last.clone());
            for (key, chunk) in page {
                found.add(key, &chunk, graph, pace).await;
            }
        }
    }

    async fn add(&mut self, key: Bytes, chunk: &[u8], graph: &mut Graph, pace: &mut Pace) {
        self.bytes += chunk.len();
        self.next = number(&self.name, &key).saturating_add(1);
        self.keys.push(key);
        let Some(records) = records(chunk) else {
            tracing::warn!("links kept for collections are damaged; the blocks will be read again");
            self.is_damaged = true;
            return;
        };
        for (at, (block, links)) in records.enumerate() {
            let is_live = graph
                .find(&block)
                .is_some_and(|node| graph.set_links(node, &links));
            match is_live {
                true => self.live += 1,
                false => self.dead += 1,
            }
            if at % 64 == 0 {
                pace.point().await;
            }
        }
    }

    /// Stores a chunk of what is being learnt, so that a first collection of many blocks does not gather all of it in
    /// memory. Should the collection end early, the next one knows that much more.
    pub(super) async fn append(&mut self, store: &dyn Store, chunk: Bytes) -> Result<(), Abort> {
        let mut key = prefix(&self.name);
        key.extend_from_slice(&self.next.to_be_bytes());
        let key = Bytes::from(key);
        let batch = Batch::new().put(tables::GC_LINKS, key.clone(), chunk);
        let _ = store.commit(batch).await?;
        self.next = self.next.saturating_add(1);
        self.added.push(key);
        Ok(())
    }

    /// Stores the rest of what was learnt, or everything anew when much of what is stored is of no use any more.
    pub(super) async fn save(
        mut self,
        store: &dyn Store,
        graph: &Graph,
        learnt: ChunkWriter,
        pace: &mut Pace,
    ) -> Result<(), Abort> {
        let few = self.bytes / CHUNK_BYTES + MAX_EXTRA_CHUNKS;
        let is_stale = self.is_damaged || self.dead > self.live + 1000 || self.keys.len() > few;
        if !is_stale {
            for chunk in learnt.finish() {
                self.append(store, chunk).await?;
            }
            return Ok(());
        }
        // Half of it written twice, or not at all, does no harm.
        let mut old = std::mem::take(&mut self.keys);
        old.append(&mut self.added);
        let mut writer = ChunkWriter::default();
        for node in graph.nodes().filter(|node| graph.is_marked(*node)) {
            if let Some((digest, links)) = record(graph, node) {
                writer.add(&digest, &links);
            }
            for chunk in writer.take_full() {
                self.append(store, chunk).await?;
            }
            pace.point().await;
        }
        for chunk in writer.finish() {
            self.append(store, chunk).await?;
        }
        for some in old.chunks(PAGE_ROWS) {
            let mut batch = Batch::new();
            for key in some {
                batch = batch.remove(tables::GC_LINKS, key.clone());
            }
            let _ = store.commit(batch).await?;
        }
        Ok(())
    }
}

fn record(graph: &Graph, node: Node) -> Option<([u8; 32], Vec<champ::Cid>)> {
    let count = graph.link_count(node)?;
    let links = (0..count).filter_map(|n| graph.cid(graph.link(node, n)?));
    let digest = *graph.cid(node)?.hash().sha2_256_digest()?;
    Some((digest, links.collect()))
}

fn prefix(name: &Username) -> Vec<u8> {
    let mut key = name.as_str().as_bytes().to_vec();
    key.push(0);
    key
}

fn number(name: &Username, key: &[u8]) -> u32 {
    let number = key.get(name.as_str().len() + 1..).unwrap_or_default();
    number.try_into().map_or(0, u32::from_be_bytes)
}
