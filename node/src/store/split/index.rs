//! The index of blocks, over any [`MetaStore`]: every change is one batch whose conditions name what was read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use champ::Cid;

use super::row::{
    COUNT_SHARDS, Count, Row, State, count_key, count_partition, decode_cids, encode_cids,
    index_cid, index_key, partition_prefix, transaction_key, transaction_prefix, transaction_time,
};
use crate::{
    random::random,
    store::{
        Batch, BlockCounts, BlockInfo, Clock, CommitOutcome, MAX_LIST_BLOCKS, MAX_SCAN_ROWS,
        MetaEngine, Partition, StoreError, TransactionId, tables,
    },
};

/// Rows removed in one batch.
const REMOVAL_ROWS: usize = 1_000;
/// Time between two passes over the whole index of a partition.
const PASS_PERIOD: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The index, and the time it goes by.
pub(super) struct Index {
    pub(super) meta: Arc<dyn MetaEngine>,
    pub(super) clock: Clock,
    shard: AtomicU8,
}

/// One row as it was read, and what shall stand in its place.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) cid: Cid,
    pub(super) old: Option<Row>,
    /// `None` removes the row.
    pub(super) new: Option<Row>,
}

impl Index {
    pub(super) fn new(meta: Arc<dyn MetaEngine>, clock: Clock) -> Self {
        // Two processes start at different shards, so that they seldom meet.
        let [start] = random::<1>();
        Self {
            meta,
            clock,
            shard: AtomicU8::new(start),
        }
    }

    pub(super) fn seconds(&self) -> u64 {
        seconds((self.clock)())
    }

    /// Returns a generation that no earlier state of the row had: rows that are gone are never younger than
    /// the clock.
    pub(super) fn next_generation(&self, old: Option<&Row>) -> u64 {
        let micros = (self.clock)()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros());
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        micros.max(old.map_or(1, |old| old.generation.saturating_add(1)))
    }

    pub(super) async fn row(
        &self,
        partition: &Partition,
        cid: &Cid,
    ) -> Result<Option<Row>, StoreError> {
        let row = self
            .meta
            .get(tables::BLOCK_INDEX, &index_key(partition, cid))
            .await?;
        row.as_deref().map(Row::decode).transpose()
    }

    pub(super) async fn rows(
        &self,
        partition: &Partition,
        cids: impl Iterator<Item = &Cid>,
    ) -> Result<Vec<Option<Row>>, StoreError> {
        let keys: Vec<Bytes> = cids.map(|cid| index_key(partition, cid)).collect();
        let rows = self.meta.get_many(tables::BLOCK_INDEX, &keys).await?;
        rows.iter()
            .map(|row| row.as_deref().map(Row::decode).transpose())
            .collect()
    }

    /// Applies changes if every row still is what it was, and records them under a transaction.
    ///
    /// Returns false when a row has changed since it was read; then nothing happened.
    pub(super) async fn change(
        &self,
        partition: &Partition,
        changes: &[Change],
        transaction: Option<&TransactionId>,
    ) -> Result<bool, StoreError> {
        let delta = changes.iter().fold(Count::default(), |sum, change| {
            sum.plus(live(change.new.as_ref()))
                .minus(live(change.old.as_ref()))
        });
        let mut batch = Batch::new();
        for change in changes {
            let key = index_key(partition, &change.cid);
            batch = batch.expect(
                tables::BLOCK_INDEX,
                key.clone(),
                change.old.as_ref().map(Row::encode),
            );
            batch = match &change.new {
                Some(row) => batch.put(tables::BLOCK_INDEX, key.clone(), row.encode()),
                None => batch.remove(tables::BLOCK_INDEX, key.clone()),
            };
            batch = match (is_restless(&change.old), is_restless(&change.new)) {
                (false, true) => batch.put(tables::BLOCK_RESTLESS, key, Bytes::new()),
                (true, false) => batch.remove(tables::BLOCK_RESTLESS, key),
                _ => batch,
            };
        }
        if let Some(transaction) = transaction {
            let key = transaction_key(partition, transaction, self.seconds(), random());
            let cids = encode_cids(changes.iter().map(|change| &change.cid));
            batch = batch.put(tables::BLOCK_TRANSACTIONS, key, cids);
        }
        self.commit_counted(partition, batch, delta).await
    }

    /// Commits a batch together with a change of the counts; returns false when a condition of the batch fails.
    async fn commit_counted(
        &self,
        partition: &Partition,
        batch: Batch,
        delta: Count,
    ) -> Result<bool, StoreError> {
        // A row for the partition is left even by a put of nothing new.
        loop {
            let shard = self.shard.fetch_add(1, Ordering::Relaxed) % COUNT_SHARDS;
            let key = count_key(partition, shard);
            let old = self.meta.get(tables::BLOCK_COUNTS, &key).await?;
            let count = match &old {
                Some(old) => Count::decode(old)?,
                None => Count::default(),
            };
            let mut counted = Batch::new();
            let is_counted = delta != Count::default();
            if is_counted {
                counted = counted.expect(tables::BLOCK_COUNTS, key.clone(), old).put(
                    tables::BLOCK_COUNTS,
                    key,
                    count.plus(delta).encode(),
                );
            }
            counted.append(batch.clone());
            match self.meta.commit(counted).await? {
                CommitOutcome::Committed => return Ok(true),
                // Somebody else counted in this shard; that says nothing about the rows.
                CommitOutcome::ConditionFailed { index: 0, .. } if is_counted => {}
                CommitOutcome::ConditionFailed { .. } => return Ok(false),
            }
        }
    }

    pub(super) async fn list(
        &self,
        partition: &Partition,
        after: Option<&Cid>,
        limit: usize,
    ) -> Result<Vec<BlockInfo>, StoreError> {
        let limit = limit.min(MAX_LIST_BLOCKS);
        let mut blocks = Vec::new();
        let mut after = after.cloned();
        while blocks.len() < limit {
            let page = self
                .page(partition, after.as_ref(), limit - blocks.len())
                .await?;
            let Some((last, _)) = page.last() else {
                break;
            };
            after = Some(last.clone());
            blocks.extend(
                page.into_iter()
                    .filter(|(_, row)| row.is_live())
                    .map(|(cid, row)| BlockInfo {
                        generation: row.generation(),
                        size_bytes: row.size_bytes,
                        cid,
                    }),
            );
        }
        Ok(blocks)
    }

    /// Returns rows of a partition in the order of their CIDs, whatever their state.
    pub(super) async fn page(
        &self,
        partition: &Partition,
        after: Option<&Cid>,
        limit: usize,
    ) -> Result<Vec<(Cid, Row)>, StoreError> {
        let prefix = partition_prefix(partition);
        let after = after.map(|cid| index_key(partition, cid));
        let rows = self
            .meta
            .scan(tables::BLOCK_INDEX, &prefix, after.as_deref(), limit)
            .await?;
        rows.iter()
            .map(|(key, row)| Ok((index_cid(partition, key)?, Row::decode(row)?)))
            .collect()
    }

    /// Returns some of the rows of blocks that are not stored, and where to go on; their table is short.
    pub(super) async fn restless(
        &self,
        partition: &Partition,
        after: Option<&Bytes>,
        limit: usize,
    ) -> Result<(Vec<(Cid, Row)>, Option<Bytes>), StoreError> {
        let prefix = partition_prefix(partition);
        // Without a CID, the key is that of the last pass.
        let after = after.map_or(prefix.as_slice(), AsRef::as_ref);
        let scanned = self
            .meta
            .scan(tables::BLOCK_RESTLESS, &prefix, Some(after), limit)
            .await?;
        let cids = scanned
            .iter()
            .map(|(key, _)| index_cid(partition, key))
            .collect::<Result<Vec<_>, _>>()?;
        let rows = self.rows(partition, cids.iter()).await?;
        let page = cids.into_iter().zip(rows);
        let page = page.filter_map(|(cid, row)| row.map(|row| (cid, row)));
        Ok((page.collect(), scanned.last().map(|(key, _)| key.clone())))
    }

    /// Returns true when the whole index of a partition has not been passed over for long, or ever: a version before
    /// this one may have left rows that the short table does not name.
    pub(super) async fn wants_pass(&self, partition: &Partition) -> Result<bool, StoreError> {
        let key = partition_prefix(partition);
        let row = self.meta.get(tables::BLOCK_RESTLESS, &key).await?;
        let last = row.as_deref().and_then(|row| row.try_into().ok());
        let last = last.map_or(0, u64::from_be_bytes);
        Ok(is_past(self.seconds(), last, PASS_PERIOD))
    }

    /// Notes that the whole index of a partition has been passed over.
    pub(super) async fn passed(&self, partition: &Partition) -> Result<(), StoreError> {
        let now = self.seconds().to_be_bytes().to_vec();
        let batch = Batch::new().put(tables::BLOCK_RESTLESS, partition_prefix(partition), now);
        self.meta.commit(batch).await.map(drop)
    }

    /// Puts rows into the short table unless they have changed.
    pub(super) async fn name_restless(
        &self,
        partition: &Partition,
        rows: &[(Cid, Row)],
    ) -> Result<(), StoreError> {
        for (cid, row) in rows {
            let key = index_key(partition, cid);
            let batch = Batch::new()
                .expect(tables::BLOCK_INDEX, key.clone(), Some(row.encode()))
                .put(tables::BLOCK_RESTLESS, key, Bytes::new());
            // Changed since: by somebody who keeps that table.
            let _ = self.meta.commit(batch).await?;
        }
        Ok(())
    }

    pub(super) async fn counts(&self, partition: &Partition) -> Result<BlockCounts, StoreError> {
        let prefix = partition_prefix(partition);
        let rows = self
            .meta
            .scan(tables::BLOCK_COUNTS, &prefix, None, MAX_SCAN_ROWS)
            .await?;
        let mut sum = Count::default();
        for (_, row) in &rows {
            sum = sum.plus(Count::decode(row)?);
        }
        Ok(sum.into())
    }

    pub(super) async fn partitions(
        &self,
        after: Option<&Partition>,
        limit: usize,
    ) -> Result<Vec<Partition>, StoreError> {
        let mut names: Vec<Partition> = Vec::new();
        // The last key that any shard of a partition can have.
        let past = |partition: &Partition| count_key(partition, u8::MAX);
        let mut after = after.map(past);
        while names.len() < limit {
            let rows = self
                .meta
                .scan(tables::BLOCK_COUNTS, b"", after.as_deref(), 1)
                .await?;
            let Some((key, _)) = rows.first() else {
                break;
            };
            let partition = count_partition(key)?;
            after = Some(past(&partition));
            names.push(partition);
        }
        Ok(names)
    }

    /// Returns the blocks in open transactions with the time of the last put that protects them.
    pub(super) async fn protected(
        &self,
        partition: &Partition,
    ) -> Result<BTreeSet<Cid>, StoreError> {
        let mut cids = BTreeSet::new();
        self.each_transaction(&partition_prefix(partition), |_, row| {
            cids.extend(decode_cids(row)?);
            Ok(())
        })
        .await?;
        Ok(cids)
    }

    pub(super) async fn close(
        &self,
        partition: &Partition,
        transaction: &TransactionId,
    ) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        self.each_transaction(&transaction_prefix(partition, transaction), |key, _| {
            keys.push(key.clone());
            Ok(())
        })
        .await?;
        self.remove_transactions(keys).await
    }

    pub(super) async fn expire(
        &self,
        partition: &Partition,
        before: SystemTime,
    ) -> Result<(), StoreError> {
        let before = seconds(before);
        let mut keys = Vec::new();
        self.each_transaction(&partition_prefix(partition), |key, _| {
            if transaction_time(key)? < before {
                keys.push(key.clone());
            }
            Ok(())
        })
        .await?;
        self.remove_transactions(keys).await
    }

    async fn each_transaction(
        &self,
        prefix: &[u8],
        mut visit: impl FnMut(&Bytes, &Bytes) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut after: Option<Bytes> = None;
        loop {
            let rows = self
                .meta
                .scan(
                    tables::BLOCK_TRANSACTIONS,
                    prefix,
                    after.as_deref(),
                    MAX_SCAN_ROWS,
                )
                .await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            for (key, row) in &rows {
                visit(key, row)?;
            }
        }
    }

    async fn remove_transactions(&self, keys: Vec<Bytes>) -> Result<(), StoreError> {
        for keys in keys.chunks(REMOVAL_ROWS) {
            let mut batch = Batch::new();
            for key in keys {
                batch = batch.remove(tables::BLOCK_TRANSACTIONS, key.clone());
            }
            let _ = self.meta.commit(batch).await?;
        }
        Ok(())
    }
}

/// Pairs what is to be changed with the rows that were read for it; the last of several changes of one CID wins.
pub(super) fn distinct<T>(items: impl Iterator<Item = (Cid, T)>) -> Vec<(Cid, T)> {
    let map: BTreeMap<Cid, T> = items.collect();
    map.into_iter().collect()
}

/// Returns true when `duration` has passed since `since`, or the clock went back.
pub(super) fn is_past(now: u64, since: u64, duration: Duration) -> bool {
    now.saturating_sub(since) > duration.as_secs()
}

fn is_restless(row: &Option<Row>) -> bool {
    row.as_ref().is_some_and(|row| !row.is_live())
}

fn live(row: Option<&Row>) -> Count {
    match row {
        Some(row) if row.state == State::Live => Count::of(row.size_bytes),
        _ => Count::default(),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
