//! What a failed statement means to the caller.

use std::sync::Arc;

use tokio_postgres::error::SqlState;

use crate::store::StoreError;

/// What can be done about a failed statement.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection is gone before an answer: whether the statement took effect is unknown.
    Lost(tokio_postgres::Error),
    /// Rolled back because of what others do at the same time; the same statement may succeed now.
    Collision(tokio_postgres::Error),
    /// Rolled back.
    Failed(StoreError),
}

/// Sorts the error of a statement.
pub(super) fn fault(error: tokio_postgres::Error) -> Fault {
    let Some(state) = error.code() else {
        return Fault::Lost(error);
    };
    let state = state.clone();
    if state == SqlState::T_R_SERIALIZATION_FAILURE || state == SqlState::T_R_DEADLOCK_DETECTED {
        return Fault::Collision(error);
    }
    if state == SqlState::LOCK_NOT_AVAILABLE
        || state == SqlState::QUERY_CANCELED
        || state == SqlState::OUT_OF_MEMORY
        || state == SqlState::TOO_MANY_CONNECTIONS
    {
        tracing::warn!(%error, "the database is too busy");
        return Fault::Failed(StoreError::Busy);
    }
    if state == SqlState::DISK_FULL {
        return Fault::Failed(StoreError::NoSpace {
            free_bytes: 0,
            floor_bytes: 0,
        });
    }
    // The server goes down, or has become one that only reads: another connection may lead to another server.
    let class = state.code().get(..2).unwrap_or_default();
    let is_leaving = class == "08"
        || state == SqlState::ADMIN_SHUTDOWN
        || state == SqlState::CRASH_SHUTDOWN
        || state == SqlState::CANNOT_CONNECT_NOW
        || state == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT;
    if is_leaving {
        return Fault::Lost(error);
    }
    Fault::Failed(StoreError::Database(Arc::new(error)))
}

/// Makes the error of a server that cannot be reached; nothing has been asked of it.
pub(super) fn unreachable(error: tokio_postgres::Error) -> StoreError {
    StoreError::Unreachable(Arc::new(error))
}
