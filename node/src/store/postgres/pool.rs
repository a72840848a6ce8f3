//! Connections: a bounded number, made when needed, replaced when they break.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::{Client, NoTls, Statement, error::SqlState};

use super::{PostgresOptions, fault::unreachable, tls::Tls};
use crate::store::StoreError;

/// First wait before a connection is tried again, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The connections of one store.
pub(super) struct Pool {
    config: tokio_postgres::Config,
    tls: Option<Tls>,
    setup: String,
    wait: Duration,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
    is_closed: AtomicBool,
}

/// One connection with the statements prepared on it.
pub(super) struct Connection {
    pub(super) client: Client,
    statements: HashMap<&'static str, Statement>,
}

impl Connection {
    /// Returns a prepared statement.
    pub(super) async fn statement(
        &mut self,
        sql: &'static str,
    ) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }
}

/// A connection in use. One that is dropped before [`Pooled::give_back`], because its request was canceled or
/// failed, is closed instead of being used again: what it still waits for would delay the next request.
pub(super) struct Pooled<'a> {
    pool: &'a Pool,
    connection: Connection,
    _permit: SemaphorePermit<'a>,
}

impl Pooled<'_> {
    pub(super) const fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Makes the connection available to others.
    pub(super) fn give_back(self) {
        if !self.connection.client.is_closed() && !self.pool.is_closed.load(Ordering::Acquire) {
            self.pool.idle.lock().push(self.connection);
        }
    }
}

impl Pool {
    pub(super) fn new(options: &PostgresOptions, tls: Option<Tls>) -> Arc<Self> {
        let millis = |time: Duration| time.as_millis().max(1);
        // Conditions and look-ups go by keys, whatever the planner thinks of a table it has not measured yet.
        let setup = format!(
            "SET search_path TO {schema}; \
             SET statement_timeout TO {statement}; SET lock_timeout TO {lock}; \
             SET idle_in_transaction_session_timeout TO {statement}; \
             SET default_transaction_isolation TO 'read committed'; \
             SET enable_seqscan TO off; SET enable_hashjoin TO off; SET enable_mergejoin TO off; \
             SET enable_bitmapscan TO off; SET plan_cache_mode TO force_generic_plan; SET jit TO off; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')",
            schema = options.schema_name(),
            statement = millis(options.statement_timeout),
            lock = millis(options.lock_timeout),
        );
        Arc::new(Self {
            config: options.connect_config(),
            tls,
            setup,
            wait: options.wait,
            permits: Semaphore::new(options.connections.max(1)),
            idle: Mutex::default(),
            is_closed: AtomicBool::new(false),
        })
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when all are in use for too long, [`StoreError::Unreachable`] when none can be made,
    /// [`StoreError::Closed`].
    pub(super) async fn take(&self) -> Result<Pooled<'_>, StoreError> {
        let permit = match tokio::time::timeout(self.wait, self.permits.acquire()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(StoreError::Closed),
            Err(_) => return Err(StoreError::Busy),
        };
        if self.is_closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        let connection = match self.idle_connection() {
            Some(connection) => connection,
            None => self.connect_patiently().await?,
        };
        Ok(Pooled {
            pool: self,
            connection,
            _permit: permit,
        })
    }

    /// Makes a connection that is none of the pool's: it ends when it is dropped.
    ///
    /// # Errors
    /// As [`Pool::take`].
    pub(super) async fn separate(&self) -> Result<Connection, StoreError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        self.connect_patiently().await
    }

    fn idle_connection(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        while let Some(connection) = idle.pop() {
            if !connection.client.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    /// Closes the connections that are not in use now; the others follow.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.permits.close();
        self.idle.lock().clear();
    }

    async fn connect_patiently(&self) -> Result<Connection, StoreError> {
        let deadline = Instant::now() + self.wait;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.connect().await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            if self.is_closed.load(Ordering::Acquire) {
                return Err(StoreError::Closed);
            }
            if is_final(&error) || Instant::now() + pause > deadline {
                return Err(unreachable(error));
            }
            tracing::debug!(%error, "database connection failed, trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self) -> Result<Connection, tokio_postgres::Error> {
        let client = match &self.tls {
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                spawn(connection);
                client
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                spawn(connection);
                client
            }
        };
        client.batch_execute(&self.setup).await?;
        Ok(Connection {
            client,
            statements: HashMap::new(),
        })
    }
}

fn spawn(connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "database connection ended");
        }
    });
}

/// Returns true for what waiting does not mend: wrong password, no such database, no permission.
fn is_final(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|state| {
        let starting = [
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
        ];
        !starting.contains(state)
    })
}
