//! Storing blocks: bytes first, then rows that say so.

use std::time::Instant;

use champ::{Block, Cid};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    DELETION_LEASE, DELETION_WAIT, Inner, MAX_ATTEMPTS, MAX_PUT_TIME, PARALLEL_TRANSFERS,
    index::{Change, distinct, is_past},
    row::{Row, State},
};
use crate::store::{Partition, StoreError, TransactionId};

/// A block on its way.
struct Item {
    block: Block,
    /// The row before its bytes were stored.
    old: Option<Row>,
    is_stored: bool,
}

impl Inner {
    pub(super) async fn put(
        &self,
        partition: &Partition,
        blocks: Vec<Block>,
        transaction: Option<&TransactionId>,
    ) -> Result<(), StoreError> {
        if blocks.is_empty() {
            return Ok(());
        }
        let blocks = distinct(blocks.into_iter().map(|block| (block.cid().clone(), block)));
        let cids: Vec<Cid> = blocks.iter().map(|(cid, _)| cid.clone()).collect();
        let mut began = Instant::now();
        let rows = self.quiet_rows(partition, &cids).await?;
        let mut items: Vec<Item> = blocks
            .into_iter()
            .zip(rows)
            .map(|((_, block), old)| Item {
                block,
                old,
                is_stored: false,
            })
            .collect();
        for _ in 0..MAX_ATTEMPTS {
            self.store_bytes(partition, &mut items).await?;
            let is_late = began.elapsed() > MAX_PUT_TIME;
            if !is_late {
                let changes: Vec<Change> = items.iter().map(|item| self.stored(item)).collect();
                if self.index.change(partition, &changes, transaction).await? {
                    return Ok(());
                }
            }
            let read = Instant::now();
            let rows = self.quiet_rows(partition, &cids).await?;
            for (item, row) in items.iter_mut().zip(rows) {
                let is_unchanged = item.old == row && !is_late;
                // Whoever made the row live stored the same bytes after everything that was deleted before.
                let is_live = row.as_ref().is_some_and(Row::is_live);
                item.is_stored &= is_unchanged || is_live;
                item.old = row;
            }
            if is_late {
                began = read;
            }
        }
        Err(StoreError::Contended)
    }

    fn stored(&self, item: &Item) -> Change {
        let mut row = Row::of(&item.block);
        row.generation = self.index.next_generation(item.old.as_ref());
        row.since = self.index.seconds();
        Change {
            cid: item.block.cid().clone(),
            old: item.old.clone(),
            new: Some(row),
        }
    }

    async fn store_bytes(
        &self,
        partition: &Partition,
        items: &mut [Item],
    ) -> Result<(), StoreError> {
        let missing: Vec<_> = items
            .iter_mut()
            .filter(|item| !item.is_stored)
            .map(|item| self.store_item(partition, item))
            .collect();
        stream::iter(missing)
            .buffer_unordered(PARALLEL_TRANSFERS)
            .try_collect()
            .await
    }

    async fn store_item(&self, partition: &Partition, item: &mut Item) -> Result<(), StoreError> {
        self.bytes.put(partition, &item.block).await?;
        item.is_stored = true;
        Ok(())
    }

    /// Reads rows, after every deletion of one of them has ended.
    pub(super) async fn quiet_rows(
        &self,
        partition: &Partition,
        cids: &[Cid],
    ) -> Result<Vec<Option<Row>>, StoreError> {
        let began = Instant::now();
        let mut pause = std::time::Duration::from_millis(5);
        loop {
            let rows = self.index.rows(partition, cids.iter()).await?;
            let now = self.index.seconds();
            let is_quiet = rows
                .iter()
                .flatten()
                .all(|row| row.state != State::Deleting || is_past(now, row.since, DELETION_LEASE));
            if is_quiet {
                return Ok(rows);
            }
            if began.elapsed() > DELETION_WAIT {
                return Err(StoreError::Contended);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(std::time::Duration::from_millis(500));
        }
    }
}
