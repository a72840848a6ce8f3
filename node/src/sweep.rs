//! What one of several processes on a data set does for all of them, now and then: it settles updates whose process
//! died before it had done so, and forgets counts and challenges that have run out.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use champ::Cid;

use crate::{
    challenges,
    error::Refusal,
    guard,
    lease::Lease,
    state::State,
    store::{Batch, MAX_SCAN_ROWS, Table, tables},
    workers::WorkerError,
    writers,
};

/// Time between two sweeps of one process.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long a process may be silent in a sweep before another one starts its own.
const TERM: Duration = Duration::from_secs(120);
/// Rows removed in one batch.
const MAX_REMOVED: usize = 1000;
/// Rows of one table that are kept; a flood makes the node forget some of them.
const MAX_KEPT: usize = 200_000;

/// Starts the worker.
pub(crate) fn start(state: &Arc<State>) {
    let lease = Arc::new(Lease::new("sweep", TERM));
    let seen = Arc::new(tokio::sync::Mutex::new(HashMap::new()));
    // The node owns its workers, so a worker must not keep the node alive.
    let node = Arc::downgrade(state);
    state.workers.every("sweep", INTERVAL, move |_| {
        let (node, lease, seen) = (node.clone(), Arc::clone(&lease), Arc::clone(&seen));
        async move {
            let Some(state) = node.upgrade() else {
                return Ok(());
            };
            let Some(mut held) = lease.try_acquire(&*state.store).await? else {
                return Ok(());
            };
            let mut seen = seen.lock().await;
            settle_left_over(&state, &mut seen).await?;
            let now = state.clock.now_millis();
            forget(&state, tables::CHALLENGES, |row| {
                challenges::is_stored_stale(row, now)
            })
            .await?;
            if held.renew(&*state.store).await? {
                let now = now.div_euclid(1000);
                forget(&state, tables::GUARDS, |row| {
                    guard::is_stored_stale(row, now)
                })
                .await?;
            }
            held.release(&*state.store).await?;
            Ok::<(), WorkerError>(())
        }
    });
}

/// Settles what was left unsettled since the sweep before, which is long after its process would have done so.
async fn settle_left_over(
    state: &Arc<State>,
    seen: &mut HashMap<Bytes, Bytes>,
) -> Result<(), Refusal> {
    let mut now = HashMap::new();
    let mut after: Option<Bytes> = None;
    loop {
        let page = state
            .store
            .scan(tables::UNSETTLED, b"", after.as_deref(), 1000)
            .await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (key, mark) in page {
            let is_left_over = seen.get(&key) == Some(&mark);
            if is_left_over
                && let Some(writer) = Cid::decode(&key)
                    .ok()
                    .and_then(|cid| writers::writer_of(cid).ok())
                && let Some((_, row)) = writers::read_row(state, &writer).await?
            {
                tracing::info!(
                    user = row.user.as_str(),
                    "settling what another process left"
                );
                let user = state.directory.named(row.user.as_str()).await?;
                state.usage.settle_left_over(state, &user, writer).await?;
            }
            if now.len() < MAX_SCAN_ROWS {
                now.insert(key, mark);
            }
        }
    }
    *seen = now;
    Ok(())
}

/// Removes the rows of a table that are stale, and the first ones of too many.
async fn forget(
    state: &State,
    table: Table,
    is_stale: impl Fn(&[u8]) -> bool,
) -> Result<(), Refusal> {
    let mut after: Option<Bytes> = None;
    let mut kept = 0_usize;
    loop {
        let page = state
            .store
            .scan(table, b"", after.as_deref(), MAX_REMOVED)
            .await?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        let mut batch = Batch::new();
        for (key, value) in page {
            if is_stale(&value) || kept >= MAX_KEPT {
                // Only what has not been counted on since.
                batch = batch
                    .expect(table, key.clone(), Some(value))
                    .remove(table, key);
            } else {
                kept += 1;
            }
        }
        if !batch.is_empty() {
            // If one of the rows has changed, the next sweep removes the others.
            let _ = state.store.commit(batch).await?;
        }
    }
}
