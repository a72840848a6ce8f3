//! Finishing what was left open: blocks that clients wrote directly, deletions that broke off, rows that are old.

use champ::{Cid, Codec, MAX_BLOCK_BYTES, access::split_raw};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    BlockHead, DELETED_ROW_LIFE, DELETION_LEASE, EXPECTATION_LIFE, Inner, MAX_ATTEMPTS,
    PARALLEL_TRANSFERS,
    index::{Change, is_past},
    row::{Row, State},
};
use crate::store::{MAX_DELETE_BLOCKS, Partition, StoreError};

/// Rows read at a time.
const PAGE_ROWS: usize = 1_000;

impl Inner {
    /// Looks whether an expected block has been written, and makes it a stored one.
    ///
    /// Size and access ids are taken from the stored bytes; what a client claimed about them decides nothing
    /// (Spec: 06 §9.3). The hash is checked with every read, as of any block.
    pub(super) async fn arrived(
        &self,
        partition: &Partition,
        cid: &Cid,
        row: Row,
    ) -> Result<Option<Row>, StoreError> {
        let mut row = row;
        for _ in 0..MAX_ATTEMPTS {
            let Some(head) = self.bytes.head(partition, cid).await? else {
                return Ok(None);
            };
            let Some(described) = described(cid, &head, &row) else {
                tracing::warn!(
                    %partition, %cid, claimed_bytes = row.size_bytes, stored_bytes = head.size_bytes,
                    "a directly written block is not what was announced; it is not used"
                );
                return Ok(None);
            };
            let new = Row {
                generation: self.index.next_generation(Some(&row)),
                since: self.index.seconds(),
                ..described
            };
            let change = Change {
                cid: cid.clone(),
                old: Some(row),
                new: Some(new.clone()),
            };
            if self.index.change(partition, &[change], None).await? {
                return Ok(Some(new));
            }
            match self.index.row(partition, cid).await? {
                Some(now) if now.is_live() => return Ok(Some(now)),
                Some(now) if now.state == State::Expected => row = now,
                _ => return Ok(None),
            }
        }
        Err(StoreError::Contended)
    }

    /// Brings the rows of one partition to rest.
    pub(super) async fn settle(&self, partition: &Partition) -> Result<(), StoreError> {
        let protected = self.index.protected(partition).await?;
        if self.index.wants_pass(partition).await? {
            let mut after: Option<Cid> = None;
            loop {
                let page = self
                    .index
                    .page(partition, after.as_ref(), PAGE_ROWS.min(MAX_DELETE_BLOCKS))
                    .await?;
                let Some((last, _)) = page.last() else {
                    break;
                };
                after = Some(last.clone());
                let restless: Vec<_> = page.into_iter().filter(|(_, row)| !row.is_live()).collect();
                self.index.name_restless(partition, &restless).await?;
            }
            self.index.passed(partition).await?;
        }
        let mut after = None;
        loop {
            let (page, last) = self
                .index
                .restless(partition, after.as_ref(), PAGE_ROWS.min(MAX_DELETE_BLOCKS))
                .await?;
            if last.is_none() {
                return Ok(());
            }
            after = last;
            let now = self.index.seconds();
            let (mut again, mut forgotten, mut expected) = (Vec::new(), Vec::new(), Vec::new());
            for (cid, row) in page {
                match row.state {
                    State::Deleting if is_past(now, row.since, DELETION_LEASE) => {
                        again.push(self.deletion(&cid, row));
                    }
                    State::Deleted if is_past(now, row.since, DELETED_ROW_LIFE) => {
                        forgotten.push((cid, row));
                    }
                    State::Expected => expected.push((cid, row)),
                    _ => {}
                }
            }
            self.look_for(partition, expected, &protected, now).await?;
            for (cid, row) in forgotten {
                self.forget(partition, cid, row).await?;
            }
            // One by one if somebody else is at it too.
            if !again.is_empty() && self.index.change(partition, &again, None).await? {
                self.finish_deletions(partition, again).await?;
            }
        }
    }

    async fn look_for(
        &self,
        partition: &Partition,
        expected: Vec<(Cid, Row)>,
        protected: &std::collections::BTreeSet<Cid>,
        now: u64,
    ) -> Result<(), StoreError> {
        let looks: Vec<_> = expected
            .into_iter()
            .map(|(cid, row)| {
                let is_over =
                    is_past(now, row.since, EXPECTATION_LIFE) && !protected.contains(&cid);
                self.look_for_one(partition, cid, row, is_over)
            })
            .collect();
        stream::iter(looks)
            .buffer_unordered(PARALLEL_TRANSFERS)
            .try_collect()
            .await
    }

    async fn look_for_one(
        &self,
        partition: &Partition,
        cid: Cid,
        row: Row,
        is_over: bool,
    ) -> Result<(), StoreError> {
        let found = self.arrived(partition, &cid, row.clone()).await?;
        if found.is_some() || !is_over {
            return Ok(());
        }
        // The permit has ended, so what is not there now does not come; what is there and is not what was
        // announced goes with the row.
        let begun = vec![self.deletion(&cid, row)];
        if self.index.change(partition, &begun, None).await? {
            self.finish_deletions(partition, begun).await?;
        }
        Ok(())
    }

    async fn forget(&self, partition: &Partition, cid: Cid, row: Row) -> Result<(), StoreError> {
        let change = Change {
            cid,
            old: Some(row),
            new: None,
        };
        self.index
            .change(partition, &[change], None)
            .await
            .map(drop)
    }
}

/// Describes a block from its stored beginning; `None` when it is not what the client announced.
fn described(cid: &Cid, head: &BlockHead, claimed: &Row) -> Option<Row> {
    let size_bytes = u32::try_from(head.size_bytes).ok()?;
    let is_legal = (1..=MAX_BLOCK_BYTES as u64).contains(&head.size_bytes);
    if !is_legal || size_bytes != claimed.size_bytes || cid.codec() != Codec::Raw {
        return None;
    }
    let (ids, _) = split_raw(&head.head).ok()?;
    if claimed.ids.as_ref() != Some(&ids) {
        return None;
    }
    Some(Row {
        state: State::Live,
        size_bytes,
        ids: Some(ids),
        ..claimed.clone()
    })
}
