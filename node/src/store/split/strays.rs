//! Bytes that no row knows: a process died between storing them and committing their row.
//!
//! They are removed like any others, with a row that says so first. A put that meets that row waits, and one that began
//! before fails to commit and stores its bytes again: whoever is right, no live row is left without bytes.
//!
//! Spec: 12 §4.4, 40 REL-1.

use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use champ::Cid;
use futures_util::TryStreamExt as _;

use super::{
    Inner,
    bytes::ListedBytes,
    index::{Change, is_past},
    row::{Row, State},
};
use crate::store::{MAX_DELETE_BLOCKS, Orphans, Partition, StoreError};

/// Younger bytes may be of a put under way, and the clock of the place may be off: much longer than any put takes.
pub(super) const SAFE_AGE: Duration = Duration::from_secs(24 * 60 * 60);

impl Inner {
    /// Finds bytes that are old and that no row knows, and removes them if asked to.
    pub(super) async fn strays(&self, remove: bool) -> Result<Orphans, StoreError> {
        let mut found = Orphans::default();
        let mut objects = self.bytes.list();
        let mut page = Vec::new();
        loop {
            let next = objects.try_next().await?;
            let is_end = next.is_none();
            page.extend(next.filter(|object| self.is_old(object)));
            if is_end || page.len() >= MAX_DELETE_BLOCKS {
                for (partition, objects) in by_partition(std::mem::take(&mut page)) {
                    self.judge(&partition, objects, remove, &mut found).await?;
                }
            }
            if is_end {
                return Ok(found);
            }
        }
    }

    fn is_old(&self, object: &ListedBytes) -> bool {
        let modified = object.modified.duration_since(UNIX_EPOCH);
        let modified = modified.map_or(0, |since| since.as_secs());
        is_past(self.index.seconds(), modified, SAFE_AGE)
    }

    async fn judge(
        &self,
        partition: &Partition,
        objects: Vec<(Cid, u64)>,
        remove: bool,
        found: &mut Orphans,
    ) -> Result<(), StoreError> {
        let cids = objects.iter().map(|(cid, _)| cid);
        let rows = self.index.rows(partition, cids).await?;
        let unknown: Vec<_> = objects
            .into_iter()
            .zip(rows)
            .filter(|(_, row)| row.is_none())
            .map(|(object, _)| object)
            .collect();
        for (_, size) in &unknown {
            found.found.blocks += 1;
            found.found.bytes = found.found.bytes.saturating_add(*size);
        }
        if !remove || unknown.is_empty() {
            return Ok(());
        }
        // The row of a stray that was met by a put meanwhile is no longer absent: one by one, the others go.
        let changes: Vec<_> = unknown
            .into_iter()
            .map(|(cid, size)| self.removal(cid, size))
            .collect();
        if self.index.change(partition, &changes, None).await? {
            found.removed += changes.len() as u64;
            return self.finish_deletions(partition, changes).await;
        }
        for change in changes {
            let change = vec![change];
            if self.index.change(partition, &change, None).await? {
                found.removed += 1;
                self.finish_deletions(partition, change).await?;
            }
        }
        Ok(())
    }

    /// Returns the change that begins the removal of bytes without a row.
    fn removal(&self, cid: Cid, size: u64) -> Change {
        Change {
            cid,
            old: None,
            new: Some(Row {
                state: State::Deleting,
                generation: self.index.next_generation(None),
                since: self.index.seconds(),
                size_bytes: u32::try_from(size).unwrap_or(u32::MAX),
                ids: None,
            }),
        }
    }
}

fn by_partition(objects: Vec<ListedBytes>) -> BTreeMap<Partition, Vec<(Cid, u64)>> {
    let mut all: BTreeMap<Partition, Vec<_>> = BTreeMap::new();
    for object in objects {
        let of_partition = all.entry(object.partition).or_default();
        of_partition.push((object.cid, object.size_bytes));
    }
    all
}
