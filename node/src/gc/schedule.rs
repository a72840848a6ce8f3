//! When garbage is collected without anybody asking.

use std::{sync::Arc, time::Duration};

use champ::cbor::Record as _;

use super::{CollectError, CollectOptions, Report, collect, state_row::StateRow};
use crate::{
    directory::name_of_partition,
    state::State,
    store::{Partition, StoreError, tables},
    usage,
    workers::{Run, WorkerError},
};

/// How often it is looked whether something is due.
const LOOK: Duration = Duration::from_secs(60);
/// Partitions of one page.
const PAGE_PARTITIONS: usize = 1000;

/// Starts the background worker.
pub(crate) fn start(state: &Arc<State>) {
    if state.config.collection.period.is_zero() {
        return;
    }
    // The node's workers live in its state: a handle here would keep both alive for ever.
    let weak = Arc::downgrade(state);
    state.workers.every("garbage collection", LOOK, move |run| {
        let weak = weak.clone();
        async move {
            match weak.upgrade() {
                Some(state) => round(&state, &run).await,
                None => Ok(()),
            }
        }
    });
}

/// Collects what is due.
async fn round(state: &State, run: &Run) -> Result<(), WorkerError> {
    let mut sum = Report::default();
    for user in due(state).await? {
        let options = CollectOptions {
            user: Some(user),
            ..CollectOptions::default()
        };
        let collected = tokio::select! {
            collected = collect(state, &options, &|_| ()) => collected,
            () = run.stopping() => return Ok(()),
        };
        match collected {
            Ok(report) => report.owners.into_iter().for_each(|owner| sum.add(owner)),
            Err(CollectError::UnknownUser | CollectError::Running) => {}
            Err(CollectError::Store(error)) => return Err(error.into()),
        }
    }
    if !sum.owners.is_empty() {
        run.note(format!(
            "{} owners, {} blocks with {} bytes deleted, {} owners with unreadable data",
            sum.owners.len(),
            sum.deleted.blocks,
            sum.deleted.bytes,
            sum.alarms
        ));
    }
    Ok(())
}

/// Returns the users whose garbage is due.
async fn due(state: &State) -> Result<Vec<String>, StoreError> {
    let mut due = Vec::new();
    let mut after: Option<Partition> = None;
    loop {
        let page = state
            .store
            .partitions(after.as_ref(), PAGE_PARTITIONS)
            .await?;
        let Some(last) = page.last() else {
            return Ok(due);
        };
        after = Some(last.clone());
        for partition in page {
            if let Some(name) = name_of_partition(&partition)
                && is_due(state, &partition, name.as_str()).await?
            {
                due.push(name.as_str().to_owned());
            }
        }
    }
}

async fn is_due(state: &State, partition: &Partition, name: &str) -> Result<bool, StoreError> {
    if state.collector.was_aborted_lately(partition) {
        return Ok(false);
    }
    let stored = state.store.block_counts(partition).await?;
    if stored.blocks == 0 {
        return Ok(false);
    }
    let row = state.store.get(tables::GC_STATES, name.as_bytes()).await?;
    let Some(row) = row.and_then(|row| StateRow::decode(&row).ok()) else {
        return Ok(true);
    };
    let config = &state.config.collection;
    let since = state.clock.now_seconds().saturating_sub(row.finished);
    let passed = |wait: Duration| i64::try_from(wait.as_secs()).is_ok_and(|wait| since >= wait);
    // Set back, the clock tells nothing.
    if since < 0 || passed(config.period) {
        return Ok(true);
    }
    if !passed(config.grace) {
        return Ok(false);
    }
    if row.waiting.blocks > 0 {
        return Ok(true);
    }
    let counted = state.store.get(tables::USAGE, name.as_bytes()).await?;
    let counted = counted.and_then(|row| usage::stored_total(&row).ok());
    let counted = counted.unwrap_or_default();
    Ok(stored.bytes.saturating_sub(counted) >= config.early_bytes)
}
