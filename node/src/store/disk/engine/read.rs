//! Reading: rows, and blocks that are verified.

use std::sync::Arc;

use bytes::Bytes;
use champ::{Block, Cid};
use redb::ReadTransaction;

use super::{
    super::{
        fault::database_fault,
        layout::{
            BlockFile, INDEX, INLINE, IndexRow, META, PartitionNumber, PartitionRow, Place,
            index_key, partition_key,
        },
    },
    Engine, Found, blocking,
};
use crate::store::{Partition, StoreError};

impl Engine {
    /// Runs `work` on a snapshot of the database.
    pub(in crate::store::disk) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.database.read(work)
    }

    /// Returns the committed state of this moment, for as long as the caller keeps it.
    pub(in crate::store::disk) fn snapshot(&self) -> Result<ReadTransaction, StoreError> {
        self.database.snapshot()
    }

    /// Returns the row of a partition.
    pub(in crate::store::disk) fn partition(
        &self,
        name: &Partition,
    ) -> Result<Option<PartitionRow>, StoreError> {
        self.read(|transaction| partition_row(transaction, name))
    }

    /// Looks a block up, with its bytes when they are in the database.
    pub(in crate::store::disk) fn look_up(
        &self,
        name: &Partition,
        cid: &Cid,
    ) -> Result<Option<Found>, StoreError> {
        self.read(|transaction| match partition_row(transaction, name)? {
            Some(row) => find(transaction, row.number, cid),
            None => Ok(None),
        })
    }

    pub(super) fn find(
        &self,
        partition: PartitionNumber,
        cid: &Cid,
    ) -> Result<Option<Found>, StoreError> {
        self.read(|transaction| find(transaction, partition, cid))
    }

    /// Returns the bytes of a block that was found; `None` when its copy is missing. Blocking for files.
    pub(in crate::store::disk) fn load(
        &self,
        cid: &Cid,
        found: Found,
    ) -> Result<Option<Bytes>, StoreError> {
        match found.row.place {
            Place::Inline(_) => Ok(found.inline),
            Place::File(sequence) => self.files.read(&BlockFile {
                cid: cid.clone(),
                partition: found.partition,
                sequence,
            }),
        }
    }

    /// Reads and verifies a block that was found.
    pub(in crate::store::disk) async fn verified(
        self: &Arc<Self>,
        cid: &Cid,
        found: Found,
    ) -> Result<Option<Block>, StoreError> {
        if let Place::Inline(_) = found.row.place {
            let bytes = found.inline.ok_or_else(|| report_damage(cid))?;
            return verify(cid, bytes).map(Some);
        }
        let (engine, cid) = (self.clone(), cid.clone());
        blocking(move || engine.read_file(&cid, found)).await
    }

    /// Reads and verifies a block file. A file that is missing may have been deleted, or replaced by a good copy,
    /// since its row was read: only if the row still says so the block is damaged.
    fn read_file(&self, cid: &Cid, mut found: Found) -> Result<Option<Block>, StoreError> {
        loop {
            let (partition, place) = (found.partition, found.row.place);
            if let Some(bytes) = self.load(cid, found)? {
                return verify(cid, bytes).map(Some);
            }
            match self.find(partition, cid)? {
                None => return Ok(None),
                Some(again) if again.row.place == place => return Err(report_damage(cid)),
                Some(again) => found = again,
            }
        }
    }
}

fn partition_row(
    transaction: &ReadTransaction,
    name: &Partition,
) -> Result<Option<PartitionRow>, StoreError> {
    let meta = transaction.open_table(META).map_err(database_fault)?;
    let row = meta
        .get(partition_key(name.as_str()).as_slice())
        .map_err(database_fault)?;
    row.map(|row| PartitionRow::decode(row.value())).transpose()
}

fn find(
    transaction: &ReadTransaction,
    partition: PartitionNumber,
    cid: &Cid,
) -> Result<Option<Found>, StoreError> {
    let index = transaction.open_table(INDEX).map_err(database_fault)?;
    let key = index_key(partition, &cid.to_bytes());
    let Some(row) = index.get(key.as_slice()).map_err(database_fault)? else {
        return Ok(None);
    };
    let row = IndexRow::decode(row.value())?;
    let inline = match row.place {
        Place::Inline(location) => {
            let inline = transaction.open_table(INLINE).map_err(database_fault)?;
            let bytes = inline.get(location).map_err(database_fault)?;
            bytes.map(|bytes| Bytes::copy_from_slice(bytes.value()))
        }
        Place::File(_) => None,
    };
    Ok(Some(Found {
        partition,
        row,
        inline,
    }))
}

fn verify(cid: &Cid, bytes: Bytes) -> Result<Block, StoreError> {
    Block::verified(cid.clone(), bytes).map_err(|_| report_damage(cid))
}

fn report_damage(cid: &Cid) -> StoreError {
    tracing::error!(%cid, "a stored block is damaged");
    StoreError::Damaged(cid.clone())
}
