//! One collector among all processes that share a data set (Spec: 12 §4.4).
//!
//! A store of one process needs none: its lock and the collector's own are enough. On a shared one it is a
//! [`crate::lease`], and every batch that is given up is conditional on it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Abort, CollectError};
use crate::{
    lease::{COLLECTION, COLLECTION_TERM, Held, Lease as Job},
    state::State,
    store::{Batch, StoreError},
};

/// The lease is renewed this often.
const RENEW_AFTER: Duration = Duration::from_secs(20);
/// Without renewal for this long nothing is deleted any more, well before somebody else may take over.
const DOUBTFUL_AFTER: Duration = Duration::from_secs(60);

/// This process's wish to collect.
#[derive(Debug)]
pub(super) struct Wish(Job);

impl Default for Wish {
    fn default() -> Self {
        Self(Job::new(COLLECTION, COLLECTION_TERM))
    }
}

/// The right to collect.
#[derive(Debug)]
pub(super) struct Lease(Option<(Held, Instant)>);

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
        let since = Instant::now();
        let held = state.collector.wish.0.try_acquire(&*state.store).await?;
        let held = held.ok_or(CollectError::Running)?;
        Ok(Self(Some((held, since))))
    }

    /// Renews the lease when it is time.
    pub(super) async fn renew(&mut self, state: &State) -> Result<(), Abort> {
        if let Some((held, since)) = &mut self.0
            && since.elapsed() >= RENEW_AFTER
        {
            let now = Instant::now();
            if !held.renew(&*state.store).await? {
                return Err(Abort::Busy);
            }
            *since = now;
        }
        Ok(())
    }

    /// Refuses to go on with a lease that somebody else may soon take.
    pub(super) fn check(&self) -> Result<(), Abort> {
        match &self.0 {
            Some((_, since)) if since.elapsed() >= DOUBTFUL_AFTER => Err(Abort::Busy),
            _ => Ok(()),
        }
    }

    /// Makes a batch conditional on the lease.
    pub(super) fn guard(&self, batch: Batch) -> Batch {
        match &self.0 {
            Some((held, _)) => held.guard(batch),
            None => batch,
        }
    }

    /// Gives the lease back.
    pub(super) async fn release(self, state: &State) -> Result<(), StoreError> {
        match self.0 {
            Some((held, _)) => held.release(&*state.store).await,
            None => Ok(()),
        }
    }
}
