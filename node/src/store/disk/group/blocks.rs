//! Rows of blocks: stored, deleted, let go by a transaction.

use champ::{Block, Cid};
use redb::ReadableTable;

use super::{
    super::{
        fault::database_fault,
        layout::{
            BlockFile, IndexRow, PartitionNumber, Place, TransactionRow, index_key, quarantine_key,
            transaction_key,
        },
        log::Target,
    },
    Group,
    operation::{Answer, Entry, Put},
};
use crate::store::{Deleted, Generation, Partition, StoreError};

impl Group<'_> {
    pub(super) fn put(&mut self, put: &Put) -> Result<Answer, StoreError> {
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

    pub(super) fn delete(
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

    pub(super) fn remove_transactions(
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

    pub(super) fn remove_inline(&mut self, location: u64) -> Result<(), StoreError> {
        self.inline.remove(location).map_err(database_fault)?;
        self.changes.unset(Target::Inline, &location.to_be_bytes());
        Ok(())
    }
}

/// Returns the size of a block in bytes; blocks are far below 4 GiB.
pub(in crate::store::disk) fn block_size(block: &Block) -> u32 {
    u32::try_from(block.bytes().len()).unwrap_or(u32::MAX)
}
