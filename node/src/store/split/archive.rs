//! Copying metadata and list of blocks; the bytes are read like any others.

use super::SplitStore;
use crate::store::{
    Archive, BlockStore as _, Hold, MAX_LIST_BLOCKS, Snapshot, SnapshotRow, StoreError, tables,
};

impl SplitStore {
    fn metadata(&self) -> Result<&dyn Archive, StoreError> {
        let archive = self.inner.index.meta.metadata_archive();
        // `archive()` of this store offers nothing then.
        archive.ok_or(StoreError::Closed)
    }
}

#[async_trait::async_trait]
impl Archive for SplitStore {
    async fn hold(&self) -> Result<Box<dyn Hold>, StoreError> {
        self.inner.check_open()?;
        self.inner.gate.hold(self.clone()).await
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.inner.check_open()?;
        let snapshot = self.metadata()?.snapshot().await?;
        // A pointer of the snapshot may lead to a block that a client has written directly and nobody has asked for.
        let mut after = None;
        loop {
            let page = self.partitions(after.as_ref(), MAX_LIST_BLOCKS).await?;
            let Some(last) = page.last() else {
                return Ok(Box::new(SplitSnapshot(snapshot)));
            };
            after = Some(last.clone());
            for partition in &page {
                self.inner.settle(partition).await?;
            }
        }
    }
}

/// The snapshot of the metadata without the index.
struct SplitSnapshot(Box<dyn Snapshot>);

#[async_trait::async_trait]
impl Snapshot for SplitSnapshot {
    async fn rows(&mut self) -> Result<Vec<SnapshotRow>, StoreError> {
        loop {
            let mut rows = self.0.rows().await?;
            let is_end = rows.is_empty();
            let is_index = |row: &SnapshotRow| {
                tables::OF_THE_STORE
                    .iter()
                    .any(|table| table.name() == row.table)
            };
            rows.retain(|row| !is_index(row));
            // A page of nothing else is not the end.
            if is_end || !rows.is_empty() {
                return Ok(rows);
            }
        }
    }
}
