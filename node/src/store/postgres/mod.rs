//! Metadata in PostgreSQL, so that several nodes serve one data set; blocks too, for small ones.
//!
//! A batch is one call of a server-side function: one round trip, one transaction, one flush, which concurrent
//! transactions share. It holds a lock on each of its keys until it is committed, so batches behave as if one ran
//! after the other; see `migrations/`. Every other operation is one statement as well, so a request that is
//! canceled never leaves a transaction open.
//!
//! A connection that breaks during a write leaves open whether it happened: [`StoreError::Undecided`], never a false
//! success. Reads are tried once more.
//!
//! Spec: 40 §11.

mod archive;
mod blocks;
mod fault;
mod meta;
mod migrate;
mod options;
mod pool;
mod statements;
mod tls;

pub use options::{AddressError, PostgresOptions};
pub use tls::CertificateError;

use std::{fmt, sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use tokio_postgres::{
    Row,
    types::{FromSql, ToSql},
};

use self::{
    fault::{Fault, fault},
    pool::Pool,
    tls::Tls,
};
use super::{Archive, Clock, Store, StoreError, archive::DeletionGate};

/// Attempts at a statement that the server rolled back because of others.
const MAX_ATTEMPTS: usize = 5;
/// What a statement may take beyond the time-out that the server keeps, before the connection is given up.
const GRACE: Duration = Duration::from_secs(15);

/// A store in a PostgreSQL database. Clones share everything.
#[derive(Clone)]
pub struct PostgresStore {
    pool: Arc<Pool>,
    lock_space: i32,
    answer_within: Duration,
    clock: Clock,
    gate: Arc<DeletionGate>,
}

impl PostgresStore {
    /// Connects, makes or migrates the schema, and checks that the server keeps what it acknowledges.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::NotDurable`], [`StoreError::NewerFormat`].
    pub async fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        let tls = match options.is_encrypted() {
            true => Some(
                Tls::new(options.ca_file.as_deref())
                    .map_err(|error| StoreError::Unreachable(Arc::new(error)))?,
            ),
            false => None,
        };
        // Data sets of one database do not wait for each other.
        let lock_space = meta::first_number(&Sha256::digest(options.schema_name()));
        let pool = Pool::new(&options, tls);
        let mut first = pool.take().await?;
        migrate::migrate(&mut first.connection().client, &options, lock_space).await?;
        first.give_back();
        Ok(Self {
            pool,
            lock_space,
            answer_within: options.statement_timeout + GRACE,
            clock: options.clock,
            gate: Arc::default(),
        })
    }

    /// Runs a statement that changes nothing; tried again when the connection broke.
    async fn read(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        for _ in 1..MAX_ATTEMPTS {
            match self.run(sql, values).await? {
                Ok(rows) => return Ok(rows),
                Err(Fault::Failed(error)) => return Err(error),
                Err(Fault::Lost(error) | Fault::Collision(error)) => {
                    tracing::debug!(%error, "database read failed, trying again");
                }
            }
        }
        match self.run(sql, values).await? {
            Ok(rows) => Ok(rows),
            Err(Fault::Failed(error)) => Err(error),
            Err(Fault::Lost(error) | Fault::Collision(error)) => Err(fault::unreachable(error)),
        }
    }

    /// Runs a statement that is one transaction of its own.
    async fn write(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        for _ in 0..MAX_ATTEMPTS {
            match self.run(sql, values).await? {
                Ok(rows) => return Ok(rows),
                Err(Fault::Failed(error)) => return Err(error),
                Err(Fault::Lost(error)) => {
                    tracing::warn!(%error, "database connection lost during a write");
                    return Err(StoreError::Undecided(Arc::new(error)));
                }
                Err(Fault::Collision(error)) => {
                    tracing::debug!(%error, "database write collided, trying again");
                }
            }
        }
        Err(StoreError::Busy)
    }

    async fn run(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Result<Vec<Row>, Fault>, StoreError> {
        let mut pooled = self.pool.take().await?;
        let Some(prepared) = self.answer(pooled.connection().statement(sql)).await else {
            return Err(StoreError::Busy);
        };
        let statement = match prepared {
            Ok(statement) => statement,
            // Nothing has been asked yet, so a connection that died unnoticed does no harm.
            Err(error) if error.is_closed() => return Ok(Err(Fault::Collision(error))),
            Err(error) => return Ok(Err(fault(error))),
        };
        let answer = self
            .answer(pooled.connection().client.query(&statement, values))
            .await;
        match answer {
            Some(Ok(rows)) => {
                pooled.give_back();
                Ok(Ok(rows))
            }
            Some(Err(error)) => {
                let fault = fault(error);
                if !matches!(fault, Fault::Lost(_)) {
                    pooled.give_back();
                }
                Ok(Err(fault))
            }
            None => Err(StoreError::Undecided(Arc::new(std::io::Error::from(
                std::io::ErrorKind::TimedOut,
            )))),
        }
    }

    /// Waits for an answer; `None` when the server does not even keep its own time-out.
    async fn answer<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.answer_within, answer).await.ok()
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl Store for PostgresStore {
    async fn close(&self) -> Result<(), StoreError> {
        self.pool.close();
        Ok(())
    }

    fn archive(&self) -> Option<&dyn Archive> {
        Some(self)
    }
}

/// Reads a column of an answer.
fn column<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column)
        .map_err(|error| StoreError::Database(Arc::new(error)))
}
