//! The rows and the list of blocks of one moment.

use std::path::PathBuf;

use champ::Cid;

use super::{
    super::{error::BackupError, manifest::Content, rows::RowWriter},
    blocking,
};
use crate::store::{Archive, MAX_LIST_BLOCKS, Partition, Store, Table, tables};

/// Tables that belong to running processes and not to the data.
const TRANSIENT: [Table; 1] = [tables::LEASES];

/// Writes all rows of one moment.
pub(super) async fn write_metadata(
    archive: &dyn Archive,
    path: PathBuf,
) -> Result<Content, BackupError> {
    let mut snapshot = archive.snapshot().await?;
    let file = path.clone();
    let mut writer = blocking(move || RowWriter::create(&file)).await?;
    loop {
        let rows = snapshot.rows().await?;
        if rows.is_empty() {
            return blocking(move || writer.finish()).await;
        }
        let file = path.clone();
        writer = blocking(move || {
            let is_data = |table: &str| TRANSIENT.iter().all(|other| other.name() != table);
            for row in rows.iter().filter(|row| is_data(&row.table)) {
                let written = writer.metadata(&row.table, &row.key, &row.value);
                written.map_err(BackupError::io("write", &file))?;
            }
            Ok(writer)
        })
        .await?;
    }
}

/// Writes the names of all blocks, and returns the sum of their sizes too.
pub(super) async fn write_list(
    store: &dyn Store,
    path: PathBuf,
) -> Result<(Content, u64), BackupError> {
    let file = path.clone();
    let mut writer = blocking(move || RowWriter::create(&file)).await?;
    let mut bytes = 0;
    let mut last: Option<Partition> = None;
    loop {
        let partitions = store.partitions(last.as_ref(), MAX_LIST_BLOCKS).await?;
        if partitions.is_empty() {
            return Ok((blocking(move || writer.finish()).await?, bytes));
        }
        last = partitions.last().cloned();
        for partition in partitions {
            let mut after: Option<Cid> = None;
            loop {
                let page = store
                    .list_blocks(&partition, after.as_ref(), MAX_LIST_BLOCKS)
                    .await?;
                let Some(end) = page.last() else { break };
                after = Some(end.cid.clone());
                let (file, partition) = (path.clone(), partition.clone());
                (writer, bytes) = blocking(move || {
                    for info in page {
                        bytes += u64::from(info.size_bytes);
                        let written = writer.block(&partition, &info.cid, info.size_bytes);
                        written.map_err(BackupError::io("write", &file))?;
                    }
                    Ok((writer, bytes))
                })
                .await?;
            }
        }
    }
}
