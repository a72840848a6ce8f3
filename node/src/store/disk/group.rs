//! What one group commit does to the tables: many operations, one database transaction.

use std::collections::BTreeMap;

use champ::{Block, Cid};
use redb::{ReadableTable, Table as Rows, WriteTransaction};

use super::{
    fault::database_fault,
    files::BlockFiles,
    layout::{
        BlockFile, INDEX, INLINE, IndexRow, META, PartitionNumber, PartitionRow, Place,
        QuarantineRow, RUN, SequenceRow, TransactionRow, decode_partition_count, index_key,
        meta_key, partition_count_key, partition_key, quarantine_key, run_of, sequence_key,
        transaction_key, transaction_prefix, transactions_prefix,
    },
    log::{Changes, Target},
    protected::Protected,
    upkeep::count,
};
use crate::store::{
    Batch, BlockCounts, CommitOutcome, Deleted, Generation, Partition, StoreError, TransactionId,
    archive::Holds,
};

/// One operation of the writer.
#[derive(Debug)]
pub(super) enum Operation {
    /// A batch of metadata.
    Commit(Batch),
    /// Look up the number of a partition, or give it one.
    Number(Partition),
    /// Blocks whose files are written.
    Put(Put),
    /// Blocks to be deleted if they are as they were listed.
    Delete(Partition, Vec<(Cid, Generation)>),
    /// End of a transaction.
    Close(Partition, TransactionId),
    /// Drop protection older than this, in seconds since 1970.
    Expire(Partition, u64),
    /// Record that the damaged copy in this place is given up.
    Quarantine(PartitionNumber, Cid, QuarantineRow),
    /// Count the blocks of a partition anew.
    Recount(Partition),
    /// Wait for everything before.
    Nothing,
}

/// Blocks of one put.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) partition: Partition,
    pub(super) entries: Vec<Entry>,
    /// The transaction, and the time in seconds since 1970.
    pub(super) transaction: Option<(TransactionId, u64)>,
}

/// One block of a put.
#[derive(Debug)]
pub(super) enum Entry {
    /// Goes into the database.
    Inline(Block),
    /// Has a new file.
    File {
        file: BlockFile,
        size_bytes: u32,
        /// The damaged copy that it takes the place of.
        replaces: Option<Place>,
    },
    /// Has a copy that has been compared with the block.
    Present { cid: Cid, place: Place },
}

/// What an operation came to.
#[derive(Debug)]
pub(super) enum Answer {
    Batch(CommitOutcome),
    Number(PartitionNumber),
    /// Stored; these files of the put are not needed, and these older ones no more.
    Stored {
        unneeded: Vec<BlockFile>,
        retired: Vec<BlockFile>,
    },
    /// A copy that the put relied on is gone: nothing was done, plan again.
    Stale,
    /// Deleted; these files are to be removed.
    Deleted(Deleted, Vec<BlockFile>),
    /// What was believed and what is so.
    Recounted(BlockCounts, BlockCounts),
    Done,
}

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

    fn put(&mut self, put: &Put) -> Result<Answer, StoreError> {
        let number = self.partition_or_new(&put.partition)?.number;
        for entry in &put.entries {
            if let Entry::Present { cid, place } = entry {
                let row = self.index_row(&index_key(number, &cid.to_bytes()))?;
                if row.is_none_or(|row| row.place != *place) {
                    return Ok(Answer::Stale);
                }
            }
        }
        let generation = Generation(self.files.number());
        let mut cids = Vec::with_capacity(put.entries.len());
        let (mut unneeded, mut retired) = (Vec::new(), Vec::new());
        for entry in &put.entries {
            let (cid, size_bytes) = match entry {
                Entry::Inline(block) => (block.cid(), block_size(block)),
                Entry::File {
                    file, size_bytes, ..
                } => (&file.cid, *size_bytes),
                Entry::Present { cid, .. } => (cid, 0),
            };
            let cid_bytes = cid.to_bytes();
            let key = index_key(number, &cid_bytes);
            let old = self.index_row(&key)?;
            let place = match (entry, old) {
                (Entry::Inline(block), _) => self.put_inline(block, old)?,
                (Entry::File { file, replaces, .. }, Some(old)) if *replaces != Some(old.place) => {
                    // Somebody else stored the same block meanwhile; one copy is enough.
                    unneeded.push(file.clone());
                    old.place
                }
                (Entry::File { file, .. }, _) => Place::File(file.sequence),
                (Entry::Present { place, .. }, _) => *place,
            };
            let size_bytes = old.map_or(size_bytes, |old| old.size_bytes);
            match old {
                None => {
                    let row = self.partition_or_new(&put.partition)?;
                    row.counts.blocks += 1;
                    row.counts.bytes += u64::from(size_bytes);
                }
                Some(old) if old.place != place => {
                    self.unset(&quarantine_key(number, &cid_bytes))?;
                    retired.extend(self.retire(cid, number, old.place)?);
                }
                Some(_) => {}
            }
            let row = IndexRow {
                place,
                size_bytes,
                generation,
            };
            let row = row.encode();
            self.index
                .insert(key.as_slice(), row.as_slice())
                .map_err(database_fault)?;
            self.changes.set(Target::Index, &key, &row);
            cids.push(cid_bytes);
        }
        if let Some((id, at_seconds)) = &put.transaction {
            let key = transaction_key(number, id, generation.0);
            self.protected.add(number, &cids);
            let row = TransactionRow {
                at_seconds: *at_seconds,
                cids,
            };
            self.set(&key, &row.encode())?;
        }
        Ok(Answer::Stored { unneeded, retired })
    }

    /// Stores a small block unless a good copy is there.
    fn put_inline(&mut self, block: &Block, old: Option<IndexRow>) -> Result<Place, StoreError> {
        if let Some(IndexRow {
            place: Place::Inline(location),
            ..
        }) = old
        {
            let stored = self.inline.get(location).map_err(database_fault)?;
            if stored.is_some_and(|stored| stored.value() == &block.bytes()[..]) {
                return Ok(Place::Inline(location));
            }
        }
        let location = self.files.number();
        self.inline
            .insert(location, &block.bytes()[..])
            .map_err(database_fault)?;
        let key = location.to_be_bytes();
        self.changes.set(Target::Inline, &key, block.bytes());
        Ok(Place::Inline(location))
    }

    fn delete(
        &mut self,
        name: &Partition,
        candidates: &[(Cid, Generation)],
    ) -> Result<Answer, StoreError> {
        let mut deleted = Deleted::default();
        let mut files = Vec::new();
        let Some(partition) = self.partition(name)? else {
            return Ok(Answer::Deleted(deleted, files));
        };
        let number = partition.number;
        if self.holds.is_held(name) {
            deleted.kept = candidates.len() as u64;
            return Ok(Answer::Deleted(deleted, files));
        }
        self.protected.load(number, &self.meta)?;
        for (cid, generation) in candidates {
            let cid_bytes = cid.to_bytes();
            let key = index_key(number, &cid_bytes);
            let Some(row) = self.index_row(&key)? else {
                continue;
            };
            if row.generation != *generation || self.protected.contains(&cid_bytes) {
                deleted.kept += 1;
                continue;
            }
            self.index.remove(key.as_slice()).map_err(database_fault)?;
            self.changes.unset(Target::Index, &key);
            self.unset(&quarantine_key(number, &cid_bytes))?;
            files.extend(self.retire(cid, number, row.place)?);
            deleted.removed.blocks += 1;
            deleted.removed.bytes += u64::from(row.size_bytes);
        }
        let counts = &mut self.partition_or_new(name)?.counts;
        counts.blocks = counts.blocks.saturating_sub(deleted.removed.blocks);
        counts.bytes = counts.bytes.saturating_sub(deleted.removed.bytes);
        Ok(Answer::Deleted(deleted, files))
    }

    /// Gives up a copy of a block; for a file, notes that it is to be removed.
    fn retire(
        &mut self,
        cid: &Cid,
        partition: PartitionNumber,
        place: Place,
    ) -> Result<Option<BlockFile>, StoreError> {
        match place {
            Place::Inline(location) => {
                self.remove_inline(location)?;
                Ok(None)
            }
            Place::File(sequence) => {
                let cid = cid.clone();
                let file = BlockFile {
                    cid,
                    partition,
                    sequence,
                };
                self.set(&file.unlink_key(), &[])?;
                Ok(Some(file))
            }
        }
    }

    fn remove_transactions(
        &mut self,
        number: PartitionNumber,
        prefix: &[u8],
        ended: impl Fn(&TransactionRow) -> bool,
    ) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        for row in self.meta.range(prefix..).map_err(database_fault)? {
            let (key, row) = row.map_err(database_fault)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            let row = TransactionRow::decode(row.value())?;
            if ended(&row) {
                self.protected.remove(number, &row.cids);
                keys.push(key.value().to_vec());
            }
        }
        keys.iter().try_for_each(|key| self.unset(key))
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

    fn remove_inline(&mut self, location: u64) -> Result<(), StoreError> {
        self.inline.remove(location).map_err(database_fault)?;
        self.changes.unset(Target::Inline, &location.to_be_bytes());
        Ok(())
    }
}

impl Operation {
    /// Returns the runs whose folders must be flushed before the operation is committed.
    pub(super) fn runs(&self) -> impl Iterator<Item = u64> {
        let entries = match self {
            Self::Put(put) => put.entries.as_slice(),
            _ => &[],
        };
        entries.iter().filter_map(|entry| match entry {
            Entry::File { file, .. } => Some(run_of(file.sequence)),
            _ => None,
        })
    }

    /// Returns roughly how many bytes the operation writes into the database.
    pub(super) fn database_bytes(&self) -> usize {
        match self {
            Self::Commit(batch) => {
                let writes = batch.writes().iter();
                writes
                    .map(|w| w.key.len() + w.value.as_ref().map_or(0, bytes::Bytes::len))
                    .sum()
            }
            Self::Put(put) => {
                let entries = put.entries.iter();
                entries
                    .map(|entry| match entry {
                        Entry::Inline(block) => block.bytes().len() + 100,
                        _ => 100,
                    })
                    .sum()
            }
            Self::Delete(_, candidates) => candidates.len() * 100,
            _ => 100,
        }
    }
}

/// Returns the size of a block in bytes; blocks are far below 4 GiB.
pub(super) fn block_size(block: &Block) -> u32 {
    u32::try_from(block.bytes().len()).unwrap_or(u32::MAX)
}
