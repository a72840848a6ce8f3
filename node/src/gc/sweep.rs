//! Deleting what is not needed, beside writers that go on (Spec: 12 §4.2 step 8, 40 §11.3 REL-8).
//!
//! Blocks go in small batches, each in two steps. First one commit gives the batch up: it writes the names into the
//! owner's `gc_doomed` row and changes the owner's `gc_sweeps` row, on condition that the owner's pointer epoch is the
//! one under which the roots were marked. From that commit on no pointer update that reaches one of these blocks is
//! admitted, unless they have been put again ([`super::admit`]). Only then the store deletes them, each on condition
//! that it was not put again since it was listed.
//!
//! If the epoch has moved, the new pointers are marked as well and the batch is made again from what is still
//! unneeded. So that this ends, updates of this one owner wait while a batch is given up (one commit).

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use champ::Cid;
use pki::username::Username;

use super::{
    Abort, Gate,
    graph::{Candidate, Graph, Node},
    lease::Lease,
    mark::{Gaps, Marker},
    pace::Pace,
    roots::{self, Roots},
};
use crate::{
    directory::User,
    error::Refusal,
    random::random,
    state::State,
    store::{Batch, BlockCounts, Deleted, Generation, Partition, StoreError, tables},
};

/// Blocks of one batch: the store's writer thread serves nobody else while it deletes them.
const BATCH_BLOCKS: usize = 128;
/// Attempts at giving up one batch while pointers move under it.
const MAX_ATTEMPTS: u32 = 32;

/// Which unmarked blocks may go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Age {
    /// All.
    Any,
    /// Those whose last put is not younger than this.
    UpTo(Generation),
    /// None.
    Nothing,
}

impl Age {
    fn allows(self, graph: &Graph, node: Node) -> bool {
        match self {
            Self::Any => true,
            Self::UpTo(newest) => graph.generation(node).is_some_and(|put| put <= newest),
            Self::Nothing => false,
        }
    }
}

/// Returns how much may be deleted.
pub(super) fn deletable(graph: &Graph, age: Age) -> BlockCounts {
    let mut counts = BlockCounts::default();
    for node in graph.nodes() {
        if !graph.is_marked(node) && age.allows(graph, node) {
            counts.blocks += 1;
            counts.bytes += u64::from(graph.size_bytes(node));
        }
    }
    counts
}

/// Deletes unmarked blocks of the listing.
pub(super) struct Sweep<'a> {
    pub(super) state: &'a State,
    pub(super) user: &'a User,
    pub(super) gate: &'a Gate<'a>,
    /// Not even pointers are roots any more.
    pub(super) is_removed: bool,
}

impl Sweep<'_> {
    /// Deletes everything unmarked that is old enough, and reports each batch to `done`.
    pub(super) async fn run(
        &self,
        marker: &mut Marker<'_>,
        roots: &mut Roots,
        age: Age,
        lease: &mut Lease,
        pace: &mut Pace,
        mut done: impl FnMut(&Deleted),
    ) -> Result<(), Abort> {
        let mut batch = Vec::with_capacity(BATCH_BLOCKS);
        for node in marker.graph.nodes() {
            if !marker.graph.is_marked(node) && age.allows(&marker.graph, node) {
                batch.push(node);
            }
            if batch.len() >= BATCH_BLOCKS {
                done(&self.batch(marker, roots, &mut batch, lease, pace).await?);
            }
            pace.point().await;
        }
        if !batch.is_empty() {
            done(&self.batch(marker, roots, &mut batch, lease, pace).await?);
        }
        self.clear().await
    }

    async fn batch(
        &self,
        marker: &mut Marker<'_>,
        roots: &mut Roots,
        batch: &mut Vec<Node>,
        lease: &mut Lease,
        pace: &mut Pace,
    ) -> Result<Deleted, Abort> {
        lease.renew(self.state).await?;
        let doomed = self.give_up(marker, roots, batch, lease, pace).await?;
        if doomed.is_empty() {
            return Ok(Deleted::default());
        }
        // Another process may have taken over while this one was asleep.
        lease.check()?;
        let blocks = doomed
            .into_iter()
            .map(|block| (block.cid, block.generation))
            .collect();
        let deleted = self.state.store.delete_blocks(&self.user.partition, blocks);
        Ok(deleted.await?)
    }

    /// Decides for good that a batch is not needed; what a pointer has come to reach meanwhile is left out.
    async fn give_up(
        &self,
        marker: &mut Marker<'_>,
        roots: &mut Roots,
        batch: &mut Vec<Node>,
        lease: &Lease,
        pace: &mut Pace,
    ) -> Result<Vec<Candidate>, Abort> {
        let key = self.user.name.as_str().as_bytes().to_vec();
        let _turn = self.gate.close().await;
        for _ in 0..MAX_ATTEMPTS {
            let epoch = self.state.store.get(tables::POINTER_EPOCHS, &key).await?;
            if epoch != roots.epoch {
                self.follow_pointers(marker, roots, pace).await?;
                continue;
            }
            batch.retain(|node| !marker.graph.is_marked(*node));
            let doomed: Vec<_> = batch
                .iter()
                .filter_map(|node| marker.graph.candidate(*node))
                .collect();
            if doomed.is_empty() {
                batch.clear();
                return Ok(doomed);
            }
            let commit = lease
                .guard(Batch::new())
                .expect(tables::POINTER_EPOCHS, key.clone(), epoch)
                .put(tables::GC_SWEEPS, key.clone(), random::<16>().to_vec())
                .put(tables::GC_DOOMED, key.clone(), encode_doomed(&doomed));
            if self.state.store.commit(commit).await?.is_committed() {
                batch.clear();
                return Ok(doomed);
            }
        }
        Err(Abort::Busy)
    }

    /// Marks what pointers that have changed since the roots were read have come to reach.
    async fn follow_pointers(
        &self,
        marker: &mut Marker<'_>,
        roots: &mut Roots,
        pace: &mut Pace,
    ) -> Result<(), Abort> {
        if self.is_removed || marker.has_gaps() {
            // A removed account has no pointers that could move; above a gap the marks tell nothing.
            return Err(Abort::Busy);
        }
        let now = roots::gather(self.state, self.user).await?;
        let before = roots.targets.union(&roots.accounted);
        let before: BTreeSet<_> = before.collect();
        for target in now.targets.union(&now.accounted) {
            if !before.contains(target) {
                marker.root(target, Gaps::Refuse, pace).await?;
            }
        }
        *roots = now;
        Ok(())
    }

    /// Forgets the last batch: its blocks are deleted or stay.
    async fn clear(&self) -> Result<(), Abort> {
        clear_doomed(self.state, &self.user.name).await
    }
}

/// Removes what a collection that was cut short left. What it gave up and did not delete is judged anew.
pub(super) async fn clear_doomed(state: &State, name: &Username) -> Result<(), Abort> {
    let key = name.as_str().as_bytes().to_vec();
    if state.store.get(tables::GC_DOOMED, &key).await?.is_some() {
        let batch = Batch::new().remove(tables::GC_DOOMED, key);
        let _ = state.store.commit(batch).await?;
    }
    Ok(())
}

/// Returns the blocks of a user that have been given up and may not be deleted yet.
pub(super) async fn doomed_blocks(state: &State, name: &Username) -> Result<HashSet<Cid>, Refusal> {
    let row = state
        .store
        .get(tables::GC_DOOMED, name.as_str().as_bytes())
        .await?;
    let Some(row) = row else {
        return Ok(HashSet::new());
    };
    decode_doomed(&row).ok_or_else(|| StoreError::DamagedRow { row: "doomed" }.into())
}

fn encode_doomed(blocks: &[Candidate]) -> Bytes {
    let mut out = Vec::with_capacity(blocks.len() * 37);
    for block in blocks {
        out.push(u8::try_from(block.cid.encoded_len()).unwrap_or(u8::MAX));
        block.cid.write(&mut out);
    }
    out.into()
}

fn decode_doomed(row: &[u8]) -> Option<HashSet<Cid>> {
    let mut rest = row;
    let mut blocks = HashSet::new();
    while let Some((len, after)) = rest.split_first() {
        let (cid, after) = after.split_at_checked(usize::from(*len))?;
        blocks.insert(Cid::decode(cid).ok()?);
        rest = after;
    }
    Some(blocks)
}

/// Lists a partition into a graph.
pub(super) async fn list(
    state: &State,
    partition: &Partition,
    pace: &mut Pace,
    mut progress: impl FnMut(usize),
) -> Result<Graph, Abort> {
    /// Entries of one page: listed in one go by a thread of the store.
    const PAGE: usize = 2000;
    let mut graph = Graph::default();
    let mut after: Option<Cid> = None;
    loop {
        let page = state
            .store
            .list_blocks(partition, after.as_ref(), PAGE)
            .await?;
        for info in &page {
            graph.push(info)?;
        }
        progress(graph.len());
        if page.len() < PAGE {
            return Ok(graph);
        }
        after = page.last().map(|info| info.cid.clone());
        pace.point().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doomed_rows_survive_encoding() {
        let block = |n: u8| Candidate {
            cid: Cid::of_raw(&[n]),
            generation: Generation(1),
            size_bytes: 1,
        };
        let row = encode_doomed(&[block(1), block(2)]);
        let expected = HashSet::from([block(1).cid, block(2).cid]);
        assert_eq!(decode_doomed(&row), Some(expected));
        assert_eq!(decode_doomed(b""), Some(HashSet::new()));
        assert_eq!(decode_doomed(&row[..row.len() - 1]), None);
    }
}
