//! Deleting blocks: the rows say so first, then the bytes go.

use champ::Cid;

use super::{
    DELETION_LEASE, Inner, MAX_ATTEMPTS,
    index::{Change, distinct, is_past},
    row::{Row, State},
};
use crate::store::{BlockCounts, Deleted, Generation, Partition, StoreError};

impl Inner {
    pub(super) async fn delete(
        &self,
        partition: &Partition,
        candidates: Vec<(Cid, Generation)>,
    ) -> Result<Deleted, StoreError> {
        let candidates = distinct(candidates.into_iter());
        // Until the rows say so; what is marked then goes, also under a hold that began later.
        let Some(begun) = self.gate.enter(partition).await else {
            return Ok(Deleted {
                kept: candidates.len() as u64,
                ..Deleted::default()
            });
        };
        for _ in 0..MAX_ATTEMPTS {
            let rows = self
                .index
                .rows(partition, candidates.iter().map(|(cid, _)| cid))
                .await?;
            // After the rows: a put since then moves them on, one before them stands here.
            let protected = self.index.protected(partition).await?;
            let mut deleted = Deleted::default();
            let mut removed = BlockCounts::default();
            let mut changes = Vec::new();
            for ((cid, generation), row) in candidates.iter().zip(rows) {
                let Some(row) = row.filter(Row::is_live) else {
                    continue;
                };
                if row.generation() != *generation || protected.contains(cid) {
                    deleted.kept += 1;
                    continue;
                }
                removed.blocks += 1;
                removed.bytes += u64::from(row.size_bytes);
                changes.push(self.deletion(cid, row));
            }
            deleted.removed = removed;
            if changes.is_empty() {
                return Ok(deleted);
            }
            if self.index.change(partition, &changes, None).await? {
                drop(begun);
                self.finish_deletions(partition, changes).await?;
                return Ok(deleted);
            }
        }
        Err(StoreError::Contended)
    }

    /// Returns the change that begins a deletion.
    pub(super) fn deletion(&self, cid: &Cid, row: Row) -> Change {
        let new = Row {
            state: State::Deleting,
            generation: self.index.next_generation(Some(&row)),
            since: self.index.seconds(),
            ids: None,
            ..row
        };
        Change {
            cid: cid.clone(),
            old: Some(row),
            new: Some(new),
        }
    }

    /// Removes the bytes of rows that this process has turned into `deleting`.
    pub(super) async fn finish_deletions(
        &self,
        partition: &Partition,
        begun: Vec<Change>,
    ) -> Result<(), StoreError> {
        // What took so long to get here belongs to whoever took it over.
        let now = self.index.seconds();
        let begun: Vec<(Cid, Row)> = begun
            .into_iter()
            .filter_map(|change| Some((change.cid, change.new?)))
            .filter(|(_, row)| !is_past(now, row.since, DELETION_LEASE / 2))
            .collect();
        let cids: Vec<Cid> = begun.iter().map(|(cid, _)| cid.clone()).collect();
        let results = self.bytes.remove(partition, &cids).await;
        let mut failure = Ok(());
        let mut changes = Vec::with_capacity(begun.len());
        for ((cid, row), result) in begun.into_iter().zip(results) {
            match result {
                Ok(()) => changes.push(Change {
                    new: Some(Row {
                        state: State::Deleted,
                        since: self.index.seconds(),
                        ..row.clone()
                    }),
                    old: Some(row),
                    cid,
                }),
                // The row stays `deleting`, and a later collection tries again.
                Err(error) => failure = Err(error),
            }
        }
        if !self.index.change(partition, &changes, None).await? {
            for change in changes {
                self.index.change(partition, &[change], None).await?;
            }
        }
        failure
    }
}
