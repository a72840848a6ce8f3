//! What one group commit does to the tables: many operations, one database transaction.
//!
//! * [`operation`][]: what is asked and answered;
//! * [`blocks`][]: the rows of blocks.

mod blocks;
mod operation;

use std::collections::BTreeMap;

use champ::Cid;
use redb::{ReadableTable, Table as Rows, WriteTransaction};

use super::{
    fault::database_fault,
    files::BlockFiles,
    layout::{
        BlockFile, INDEX, INLINE, IndexRow, META, PartitionNumber, PartitionRow, Place,
        QuarantineRow, RUN, SequenceRow, TransactionRow, decode_partition_count, index_key,
        meta_key, partition_count_key, partition_key, quarantine_key, run_of, sequence_key,
        transaction_prefix, transactions_prefix,
    },
    log::{Changes, Target},
    protected::Protected,
    upkeep::count,
};
use crate::store::{Batch, CommitOutcome, Partition, StoreError, archive::Holds};

pub(super) use blocks::block_size;
pub(super) use operation::{Answer, Entry, Operation, Put};

/// The open tables of a group.
pub(super) struct Group<'t> {
    meta: Rows<'t, &'static [u8], &'static [u8]>,
    index: Rows<'t, &'static [u8], &'static [u8]>,
    inline: Rows<'t, u64, &'static [u8]>,
    files: &'t BlockFiles,
    holds: &'t Holds,
    /// Rows of partitions that the group has touched, written once at its end.
    partitions: BTreeMap<Partition, PartitionRow>,
    /// Everything that was changed, for the log.
    changes: &'t mut Changes,
    protected: &'t mut Protected,
}

impl<'t> Group<'t> {
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        files: &'t BlockFiles,
        holds: &'t Holds,
        changes: &'t mut Changes,
        protected: &'t mut Protected,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            meta: transaction.open_table(META).map_err(database_fault)?,
            index: transaction.open_table(INDEX).map_err(database_fault)?,
            inline: transaction.open_table(INLINE).map_err(database_fault)?,
            files,
            holds,
            partitions: BTreeMap::new(),
            changes,
            protected,
        })
    }

    /// Applies one operation. After an error the transaction must be abandoned.
    pub(super) fn apply(&mut self, operation: &Operation) -> Result<Answer, StoreError> {
        match operation {
            Operation::Commit(batch) => self.commit(batch).map(Answer::Batch),
            Operation::Number(name) => self
                .partition_or_new(name)
                .map(|row| Answer::Number(row.number)),
            Operation::Put(put) => self.put(put),
            Operation::Delete(name, candidates) => self.delete(name, candidates),
            Operation::Close(name, id) => {
                if let Some(partition) = self.partition(name)? {
                    let prefix = transaction_prefix(partition.number, id);
                    // The id is length-prefixed in the key, so no longer id shares the prefix.
                    self.remove_transactions(partition.number, &prefix, |_| true)?;
                }
                Ok(Answer::Done)
            }
            Operation::Expire(name, before) => {
                if let Some(partition) = self.partition(name)? {
                    let prefix = transactions_prefix(partition.number);
                    let is_over = |row: &TransactionRow| row.at_seconds < *before;
                    self.remove_transactions(partition.number, &prefix, is_over)?;
                }
                Ok(Answer::Done)
            }
            Operation::Quarantine(number, cid, row) => self.quarantine(*number, cid, row),
            Operation::Recount(name) => self.recount(name),
            Operation::Nothing => Ok(Answer::Done),
        }
    }

    /// Gives up a damaged copy unless the block has a new one. Its index row stays, so that the block goes on
    /// being missed.
    fn quarantine(
        &mut self,
        number: PartitionNumber,
        cid: &Cid,
        row: &QuarantineRow,
    ) -> Result<Answer, StoreError> {
        let cid = cid.to_bytes();
        let index = self.index_row(&index_key(number, &cid))?;
        if index.is_none_or(|index| index.place != row.place) {
            return Ok(Answer::Stale);
        }
        if let Place::Inline(location) = row.place {
            self.remove_inline(location)?;
        }
        self.set(&quarantine_key(number, &cid), &row.encode())?;
        Ok(Answer::Done)
    }

    fn recount(&mut self, name: &Partition) -> Result<Answer, StoreError> {
        let Some(row) = self.partition(name)? else {
            return Ok(Answer::Recounted(Default::default(), Default::default()));
        };
        let counts = count(&self.index, row.number)?;
        self.partition_or_new(name)?.counts = counts;
        Ok(Answer::Recounted(row.counts, counts))
    }

    /// Drops the notes of files that have been removed.
    pub(super) fn forget(&mut self, removed: &[BlockFile]) -> Result<(), StoreError> {
        removed
            .iter()
            .try_for_each(|file| self.unset(&file.unlink_key()))
    }

    /// Writes what the group has gathered.
    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        for (name, row) in std::mem::take(&mut self.partitions) {
            let key = partition_key(name.as_str());
            let row = row.encode();
            if self.value(&key)?.as_deref() != Some(&row[..]) {
                self.set(&key, &row)?;
            }
        }
        let stored = self.value(&sequence_key())?;
        let stored = stored.as_deref().map(SequenceRow::decode).transpose()?;
        let (next, lowest_run) = self.files.position();
        let reserved = stored.map_or(0, |row| row.reserved);
        // Written only when a run is used up: the start-up sweep looks at whole runs anyway.
        if next > reserved {
            let reserved = (run_of(next) + 1) * RUN;
            self.set(
                &sequence_key(),
                &SequenceRow {
                    reserved,
                    lowest_run,
                }
                .encode(),
            )?;
        }
        Ok(())
    }

    fn commit(&mut self, batch: &Batch) -> Result<CommitOutcome, StoreError> {
        for (index, condition) in batch.conditions().iter().enumerate() {
            let actual = self.value(&meta_key(condition.table, &condition.key))?;
            if actual.as_deref() != condition.expected.as_deref() {
                let actual = actual.map(Into::into);
                return Ok(CommitOutcome::ConditionFailed { index, actual });
            }
        }
        for write in batch.writes() {
            let key = meta_key(write.table, &write.key);
            match &write.value {
                Some(value) => self.set(&key, value)?,
                None => self.unset(&key)?,
            }
        }
        Ok(CommitOutcome::Committed)
    }

    fn partition(&mut self, name: &Partition) -> Result<Option<PartitionRow>, StoreError> {
        if let Some(row) = self.partitions.get(name) {
            return Ok(Some(*row));
        }
        let row = self.value(&partition_key(name.as_str()))?;
        row.as_deref().map(PartitionRow::decode).transpose()
    }

    fn partition_or_new(&mut self, name: &Partition) -> Result<&mut PartitionRow, StoreError> {
        let row = match self.partition(name)? {
            Some(row) => row,
            None => {
                let key = partition_count_key();
                let count = self.value(&key)?;
                let count = count.as_deref().map_or(Ok(0), decode_partition_count)?;
                let next = count.checked_add(1).ok_or(StoreError::DamagedRow {
                    row: "partition count",
                })?;
                self.set(&key, &next.to_be_bytes())?;
                PartitionRow {
                    number: PartitionNumber(count),
                    counts: Default::default(),
                }
            }
        };
        Ok(self.partitions.entry(name.clone()).or_insert(row))
    }

    fn index_row(&self, key: &[u8]) -> Result<Option<IndexRow>, StoreError> {
        let row = self.index.get(key).map_err(database_fault)?;
        row.map(|row| IndexRow::decode(row.value())).transpose()
    }

    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.meta.get(key).map_err(database_fault)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.meta.insert(key, value).map_err(database_fault)?;
        self.changes.set(Target::Meta, key, value);
        Ok(())
    }

    fn unset(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let was_there = self.meta.remove(key).map_err(database_fault)?.is_some();
        if was_there {
            self.changes.unset(Target::Meta, key);
        }
        Ok(())
    }
}
