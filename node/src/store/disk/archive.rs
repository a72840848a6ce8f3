//! Copying the data folder while it is in use.

use std::sync::Arc;

use bytes::Bytes;
use redb::ReadTransaction;

use super::{
    DiskStore,
    engine::{Engine, blocking},
    fault::database_fault,
    group::Operation,
    layout::{META, meta_table},
};
use crate::store::{
    Archive, Hold, Partition, Snapshot, SnapshotRow, StoreError,
    archive::{Held, MAX_PAGE_BYTES, MAX_PAGE_ROWS},
};

struct DiskHold {
    engine: Arc<Engine>,
    held: Arc<Held>,
}

impl Hold for DiskHold {
    fn release(&self, partition: &Partition) {
        self.held.release(partition);
    }
}

impl Drop for DiskHold {
    fn drop(&mut self) {
        self.engine.holds.remove(&self.held);
    }
}

#[async_trait::async_trait]
impl Archive for DiskStore {
    async fn hold(&self) -> Result<Box<dyn Hold>, StoreError> {
        let hold = DiskHold {
            engine: self.engine.clone(),
            held: self.engine.holds.add(),
        };
        // The writer thread works one group at a time: behind this, earlier deletions are over.
        self.engine.operate(Operation::Nothing).await?;
        Ok(Box::new(hold))
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(DiskSnapshot {
            transaction: Some(self.engine.snapshot()?),
            after: Vec::new(),
        }))
    }
}

/// A read transaction, which keeps the pages of its moment.
struct DiskSnapshot {
    /// Absent while a page is read, and after a failure.
    transaction: Option<ReadTransaction>,
    /// The last key that was read.
    after: Vec<u8>,
}

#[async_trait::async_trait]
impl Snapshot for DiskSnapshot {
    async fn rows(&mut self) -> Result<Vec<SnapshotRow>, StoreError> {
        let transaction = self.transaction.take().ok_or(StoreError::Closed)?;
        let after = std::mem::take(&mut self.after);
        let (rows, after, transaction) = blocking(move || {
            let (rows, after) = page(&transaction, after)?;
            Ok((rows, after, transaction))
        })
        .await?;
        (self.transaction, self.after) = (Some(transaction), after);
        Ok(rows)
    }
}

/// Reads rows behind a key; returns the key to go on behind.
fn page(
    transaction: &ReadTransaction,
    mut after: Vec<u8>,
) -> Result<(Vec<SnapshotRow>, Vec<u8>), StoreError> {
    let meta = transaction.open_table(META).map_err(database_fault)?;
    let mut rows = Vec::new();
    let mut bytes = 0;
    let start = after.clone();
    for entry in meta.range(start.as_slice()..).map_err(database_fault)? {
        let (key, value) = entry.map_err(database_fault)?;
        if key.value() == start.as_slice() {
            continue;
        }
        if let Some((table, key)) = meta_table(key.value())? {
            let value = value.value();
            bytes += key.len() + value.len();
            rows.push(SnapshotRow {
                table: table.to_owned(),
                key: Bytes::copy_from_slice(key),
                value: Bytes::copy_from_slice(value),
            });
        }
        after = key.value().to_vec();
        if rows.len() >= MAX_PAGE_ROWS || bytes >= MAX_PAGE_BYTES {
            break;
        }
    }
    Ok((rows, after))
}
