//! One collector among all processes that share a data set (Spec: 12 §4.4).
//!
//! A store of one process needs none: its lock and the collector's own are enough. On a shared one the lease is a row
//! that its holder renews; every batch that is given up is conditional on it.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Abort, CollectError};
use crate::{
    random::random,
    state::State,
    store::{Batch, StoreError, tables},
};

/// Row of the lease.
const KEY: &[u8] = b"gc lease";
/// Seconds after which a lease that was not renewed is free.
const LEASE_SECONDS: i64 = 120;
/// It is renewed this often.
const RENEW_AFTER: Duration = Duration::from_secs(20);
/// Without renewal for this long nothing is deleted any more, well before somebody else may take over.
const DOUBTFUL_AFTER: Duration = Duration::from_secs(60);

/// The right to collect.
#[derive(Debug)]
pub(super) struct Lease(Option<Held>);

#[derive(Debug)]
struct Held {
    row: Bytes,
    since: Instant,
}

impl Lease {
    /// The lease of who changes nothing.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Takes the lease.
    pub(super) async fn acquire(state: &State) -> Result<Self, CollectError> {
        if !state.store.is_shared() {
            return Ok(Self::none());
        }
        let before = state.store.get(tables::NODE, KEY).await?;
        if before.as_deref().is_some_and(|row| is_taken(state, row)) {
            return Err(CollectError::Running);
        }
        match replace(state, before).await? {
            Some(held) => Ok(Self(Some(held))),
            None => Err(CollectError::Running),
        }
    }

    /// Renews the lease when it is time.
    pub(super) async fn renew(&mut self, state: &State) -> Result<(), Abort> {
        if let Some(held) = &self.0
            && held.since.elapsed() >= RENEW_AFTER
        {
            let held = replace(state, Some(held.row.clone())).await?;
            self.0 = Some(held.ok_or(Abort::Busy)?);
        }
        Ok(())
    }

    /// Refuses to go on with a lease that somebody else may soon take.
    pub(super) fn check(&self) -> Result<(), Abort> {
        let is_doubtful = |held: &Held| held.since.elapsed() >= DOUBTFUL_AFTER;
        match self.0.as_ref().is_some_and(is_doubtful) {
            true => Err(Abort::Busy),
            false => Ok(()),
        }
    }

    /// Makes a batch conditional on the lease.
    pub(super) fn guard(&self, batch: Batch) -> Batch {
        match &self.0 {
            Some(held) => batch.expect(tables::NODE, KEY, Some(held.row.clone())),
            None => batch,
        }
    }

    /// Gives the lease back.
    pub(super) async fn release(self, state: &State) -> Result<(), StoreError> {
        if self.0.is_some() {
            let batch = self.guard(Batch::new()).remove(tables::NODE, KEY);
            let _ = state.store.commit(batch).await?;
        }
        Ok(())
    }
}

/// True when another process holds the lease.
fn is_taken(state: &State, row: &[u8]) -> bool {
    let Some((holder, rest)) = row.split_first_chunk::<16>() else {
        return false;
    };
    let Some((until, _)) = rest.split_first_chunk::<8>() else {
        return false;
    };
    let left = i64::from_be_bytes(*until).saturating_sub(state.clock.now_seconds());
    *holder != state.collector.id.0 && (1..=2 * LEASE_SECONDS).contains(&left)
}

/// Writes the lease over what is there; `None` when that has changed.
async fn replace(state: &State, before: Option<Bytes>) -> Result<Option<Held>, StoreError> {
    let since = Instant::now();
    let until = state.clock.now_seconds().saturating_add(LEASE_SECONDS);
    let row: Bytes = [
        &state.collector.id.0[..],
        &until.to_be_bytes(),
        &random::<8>(),
    ]
    .concat()
    .into();
    let batch = Batch::new()
        .expect(tables::NODE, KEY, before)
        .put(tables::NODE, KEY, row.clone());
    let outcome = state.store.commit(batch).await?;
    Ok(outcome.is_committed().then_some(Held { row, since }))
}
