//! Copying a data set while nodes use it: one read-only transaction sees one moment.

use bytes::Bytes;
use tokio_postgres::types::ToSql;

use super::{
    PostgresStore, column, fault::unreachable, meta::bytes_of, pool::Connection, statements,
};
use crate::store::{
    Archive, Hold, Snapshot, SnapshotRow, StoreError,
    archive::{MAX_PAGE_BYTES, MAX_PAGE_ROWS},
};

/// The first query decides which moment the transaction sees. It may be idle for as long as rows are written elsewhere.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; \
    SET LOCAL idle_in_transaction_session_timeout TO 0; \
    SELECT tab FROM entry ORDER BY tab, key LIMIT 1";

#[async_trait::async_trait]
impl Archive for PostgresStore {
    async fn hold(&self) -> Result<Box<dyn Hold>, StoreError> {
        self.gate.hold(self.clone()).await
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        // A connection of its own: requests do not wait for a backup.
        let connection = self.pool.separate().await?;
        connection
            .client
            .batch_execute(BEGIN)
            .await
            .map_err(unreachable)?;
        Ok(Box::new(PostgresSnapshot {
            connection,
            table: String::new(),
            after: None,
        }))
    }
}

/// The transaction ends with its connection.
struct PostgresSnapshot {
    connection: Connection,
    /// The table that is being read; all before it are done.
    table: String,
    /// The last key that was read in it; `None` at its end.
    after: Option<Bytes>,
}

impl PostgresSnapshot {
    async fn query(
        &mut self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let statement = self.connection.statement(sql).await.map_err(unreachable)?;
        let rows = self.connection.client.query(&statement, values).await;
        rows.map_err(unreachable)
    }
}

#[async_trait::async_trait]
impl Snapshot for PostgresSnapshot {
    async fn rows(&mut self) -> Result<Vec<SnapshotRow>, StoreError> {
        let most_rows = i64::try_from(MAX_PAGE_ROWS).unwrap_or(i64::MAX);
        let most_bytes = i64::try_from(MAX_PAGE_BYTES).unwrap_or(i64::MAX);
        loop {
            let start = match &self.after {
                Some(after) => [after.as_ref(), &[0]].concat(),
                None => {
                    let last = self.table.clone();
                    let next = self.query(statements::NEXT_TABLE, &[&last]).await?;
                    let Some(next) = next.first() else {
                        return Ok(Vec::new());
                    };
                    self.table = column(next, 0)?;
                    Vec::new()
                }
            };
            let table = self.table.clone();
            let page = self
                .query(statements::SCAN, &[&table, &start, &most_rows, &most_bytes])
                .await?;
            let mut rows = Vec::with_capacity(page.len());
            for row in &page {
                rows.push(SnapshotRow {
                    table: table.clone(),
                    key: bytes_of(row, 0)?,
                    value: bytes_of(row, 1)?,
                });
            }
            self.after = rows.last().map(|row| row.key.clone());
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
    }
}
