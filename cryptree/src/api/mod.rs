//! Typed calls to a node: one method per endpoint, parameters typed, replies checked.
//!
//! Nothing a reply says is trusted beyond its form here; what must be verified against hashes and
//! signatures is verified by the callers. Spec: 05 to 10, client's side.

mod account;
mod blocks;
mod home;
mod links;
mod pointers;
mod refusal;
mod space;

pub use account::{LoginAnswer, SignupAnswer};
pub use blocks::{BlockFormat, TransactionId};
pub use pointers::PointerAnswer;
pub use space::{NodeVersion, Signups};

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rand_core::Rng as _;

use crate::{
    counters::Counters,
    environment::Environment,
    error::ClientError,
    transport::{ApiRequest, Transport, TransportError},
};

/// Attempts at a call that may be repeated without harm (Spec: 05 §9).
pub const MAX_ATTEMPTS: u32 = 7;

/// Attempts at a pointer write; the outcome of each lost answer is looked up in between.
pub const MAX_POINTER_ATTEMPTS: u32 = 3;

/// Whether a call whose answer was lost may simply be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Reading, or storing what is named by its own hash.
    Safe,
    /// The caller finds out what happened before it sends again.
    Never,
}

/// The calls of one node.
pub struct Api {
    transport: Arc<dyn Transport>,
    environment: Arc<dyn Environment>,
    counters: Arc<Counters>,
    max_attempts: u32,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// Calls through `transport`.
    pub fn new(transport: Arc<dyn Transport>, environment: Arc<dyn Environment>) -> Self {
        Self {
            transport,
            environment,
            counters: Arc::new(Counters::default()),
            max_attempts: MAX_ATTEMPTS,
        }
    }

    /// Makes at most this many attempts at a call instead of [`MAX_ATTEMPTS`].
    #[must_use]
    pub const fn with_attempts(mut self, max: u32) -> Self {
        self.max_attempts = max;
        self
    }

    /// Returns the running totals.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns the surroundings.
    pub fn environment(&self) -> &Arc<dyn Environment> {
        &self.environment
    }

    /// Makes a call and returns the body of a successful reply.
    pub(crate) async fn call(
        &self,
        request: ApiRequest,
        repeat: Repeat,
    ) -> Result<Bytes, ClientError> {
        let mut attempt = 1;
        loop {
            self.counters
                .call(request.body.as_ref().map_or(0, Bytes::len));
            let error = match self.transport.call(request.clone()).await {
                Ok(response) => {
                    self.counters.reply(response.body.len());
                    if response.status == 200 {
                        return Ok(response.body);
                    }
                    refusal::classify(&request, &response)
                }
                Err(error) => refusal::Failure::from(error),
            };
            if attempt >= self.max_attempts || !error.may_repeat(repeat) {
                return Err(error.into_error());
            }
            self.counters.retry();
            self.pause(attempt).await;
            attempt += 1;
        }
    }

    /// Waits before attempt `attempt + 1`: 2^(attempt-1) seconds and up to half of that (Spec: 05 §9).
    pub(crate) async fn pause(&self, attempt: u32) {
        let base = Duration::from_secs(1 << attempt.saturating_sub(1).min(8));
        self.environment.sleep(self.jittered(base)).await;
    }

    /// Adds up to half of `base` at random.
    pub(crate) fn jittered(&self, base: Duration) -> Duration {
        let share = f64::from(self.environment.random().next_u32()) / f64::from(u32::MAX);
        base + base.mul_f64(share / 2.0)
    }
}

impl refusal::Failure {
    fn may_repeat(&self, repeat: Repeat) -> bool {
        match self {
            // The node said that it did nothing yet.
            Self::Busy(_) => true,
            Self::Transport(TransportError::Unreachable(_)) => true,
            Self::Transport(TransportError::ReplyTooLarge { .. }) | Self::Final(_) => false,
            Self::Transport(_) => repeat == Repeat::Safe,
        }
    }
}
