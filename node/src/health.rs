//! Is the node well? (Spec: 40 DOS-13, REL-14.)
//!
//! For the admin listener only: on the main listener there is nothing at this name.

use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    state::State,
    store::{Batch, tables},
    workers::{Phase, WorkerStatus},
};

/// Oldest answer to "can the store be written" that is given again, so that asking often costs no disk writes.
const PROBE_AGE: Duration = Duration::from_secs(10);
/// Longest wait for that answer.
const PROBE_TIME: Duration = Duration::from_secs(10);
/// A failure of this machine counts as current for this long.
const RECENT: Duration = Duration::from_secs(600);

/// How well a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// Everything works.
    Ok,
    /// Requests are served, and somebody should look: a worker fails, or a call failed on this machine lately.
    Degraded,
    /// Nothing can be stored.
    Failing,
}

/// The health page.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The sum of it.
    pub status: Status,
    /// Version of the program.
    pub version: &'static str,
    /// Server id of the node.
    pub id: String,
    /// Seconds since the node started.
    pub uptime_seconds: u64,
    /// The store.
    pub store: StoreHealth,
    /// Open connections.
    pub connections: usize,
    /// Requests at work.
    pub requests: usize,
    /// Background workers.
    pub workers: Vec<WorkerStatus>,
    /// Owners with data that could not be read when their garbage was to be collected.
    pub unreadable_owners: usize,
    /// The last call that failed on this machine.
    pub last_error: Option<LastError>,
}

/// The state of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreHealth {
    /// True when a write just succeeded.
    pub writable: bool,
    /// Why not.
    pub error: Option<String>,
    /// Bytes free on the file system of the data folder; `None` for a node in memory.
    pub free_bytes: Option<u64>,
    /// Size of that file system.
    pub total_bytes: Option<u64>,
}

/// A failure of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LastError {
    /// What went wrong.
    pub text: String,
    /// Seconds since then.
    pub seconds_ago: u64,
}

/// The last answer to "can the store be written".
#[derive(Debug, Default)]
pub(crate) struct Probe(Mutex<Option<(Instant, Result<(), String>)>>);

/// Examines a node.
pub(crate) async fn examine(state: &State) -> Health {
    let probe = probe(state).await;
    let workers = state.workers.list();
    let last_error = state.metrics.last_error();
    let is_recent = last_error.as_ref().is_some_and(|(_, age)| *age < RECENT);
    let has_failed_worker = workers.iter().any(|worker| worker.phase == Phase::Failed);
    let unreadable_owners = state.collector.alarms();
    let status = match probe {
        Err(_) => Status::Failing,
        Ok(()) if is_recent || has_failed_worker || unreadable_owners > 0 => Status::Degraded,
        Ok(()) => Status::Ok,
    };
    let space = state
        .config
        .data
        .as_deref()
        .and_then(|folder| rustix::fs::statvfs(folder).ok());
    Health {
        status,
        version: env!("CARGO_PKG_VERSION"),
        id: state.identity.current().to_string(),
        uptime_seconds: state.metrics.uptime().as_secs(),
        store: StoreHealth {
            writable: probe.is_ok(),
            error: probe.err(),
            free_bytes: space
                .as_ref()
                .map(|space| space.f_bavail.saturating_mul(space.f_frsize)),
            total_bytes: space
                .as_ref()
                .map(|space| space.f_blocks.saturating_mul(space.f_frsize)),
        },
        connections: state.admission.connections(),
        requests: state.admission.requests(),
        workers,
        unreadable_owners,
        last_error: last_error.map(|(text, age)| LastError {
            text,
            seconds_ago: age.as_secs(),
        }),
    }
}

/// Writes a row, unless that was done just now.
async fn probe(state: &State) -> Result<(), String> {
    if let Some((at, outcome)) = &*state.probe.0.lock()
        && at.elapsed() < PROBE_AGE
    {
        return outcome.clone();
    }
    let now = state.clock.now_millis().to_be_bytes();
    let batch = Batch::new().put(tables::NODE, &b"probe"[..], Bytes::copy_from_slice(&now));
    let outcome = match tokio::time::timeout(PROBE_TIME, state.store.commit(batch)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(crate::error::chain(&error)),
        Err(_) => Err("the store does not answer".to_owned()),
    };
    *state.probe.0.lock() = Some((Instant::now(), outcome.clone()));
    outcome
}
