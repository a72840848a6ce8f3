//! The schema: made on first use, moved forward by newer versions of this program, never back.

use tokio_postgres::Client;

use super::{PostgresOptions, fault::unreachable};
use crate::store::StoreError;

/// The migrations in order; the number of those applied is the version of the schema. Never change one that was
/// released: a process of the version before may be running on the same data set.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001_rows_and_blocks.sql")];

/// Newest version of the schema that this program knows.
pub(super) const VERSION: u32 = 1;
const _: () = assert!(MIGRATIONS.len() == VERSION as usize);

/// Brings the schema to [`VERSION`]; of several processes that start together one does the work.
pub(super) async fn migrate(
    client: &mut Client,
    options: &PostgresOptions,
    lock_space: i32,
) -> Result<(), StoreError> {
    let schema = options.schema_name();
    if options.require_fsync {
        let row = client
            .query_one("SHOW fsync", &[])
            .await
            .map_err(unreachable)?;
        if row.get::<_, &str>(0) != "on" {
            return Err(StoreError::NotDurable);
        }
    }
    let transaction = client.transaction().await.map_err(unreachable)?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1, -2)", &[&lock_space])
        .await
        .map_err(unreachable)?;
    let exists = transaction
        .query_opt("SELECT FROM pg_namespace WHERE nspname = $1", &[&schema])
        .await
        .map_err(unreachable)?
        .is_some();
    if !exists {
        transaction
            .batch_execute(&format!("CREATE SCHEMA {schema}"))
            .await
            .map_err(unreachable)?;
    }
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS schema_version (version int PRIMARY KEY, \
             applied timestamptz NOT NULL DEFAULT now())",
        )
        .await
        .map_err(unreachable)?;
    let found: i32 = transaction
        .query_one("SELECT coalesce(max(version), 0) FROM schema_version", &[])
        .await
        .map_err(unreachable)?
        .get(0);
    let found = u32::try_from(found).map_err(|_| StoreError::DamagedRow { row: "version" })?;
    if found > VERSION {
        return Err(StoreError::NewerFormat {
            found,
            supported: VERSION,
        });
    }
    for (version, sql) in (1..).zip(MIGRATIONS).skip(found as usize) {
        transaction.batch_execute(sql).await.map_err(unreachable)?;
        transaction
            .execute(
                "INSERT INTO schema_version (version) VALUES ($1)",
                &[&version],
            )
            .await
            .map_err(unreachable)?;
        tracing::info!(version, "database schema moved forward");
    }
    transaction.commit().await.map_err(unreachable)
}
