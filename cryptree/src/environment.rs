//! What a client needs from its surroundings besides a node: a clock, a timer, randomness, spare processors.
//!
//! Handed in so that this crate does no I/O of its own, compiles for wasm32, and tests run on virtual time
//! with seeded randomness.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rand_core::CryptoRng;

/// The surroundings of a client.
///
/// Contract: `now` is wall clock time; `random` draws from the operating system's generator (or, in tests,
/// from a seed) and fails by panicking rather than by returning weak bytes; `compute` runs the work exactly
/// once, before it resolves, unless the future is dropped.
#[async_trait::async_trait]
pub trait Environment: Send + Sync {
    /// Returns the wall clock time, used for signed times and modification times.
    fn now(&self) -> SystemTime;

    /// Resolves after `duration`.
    async fn sleep(&self, duration: Duration);

    /// Returns a cryptographic random generator.
    fn random(&self) -> Box<dyn CryptoRng + Send>;

    /// Runs work that keeps a processor busy for milliseconds: sealing a chunk, deriving a login key.
    ///
    /// Runs it in place by default; an executor with a thread pool should hand it over there.
    async fn compute(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

/// Work handed to [`Environment::compute`] that did not run to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("background work was abandoned")]
pub struct Abandoned;

/// Runs `work` on the environment's processors and returns its result.
pub(crate) async fn computed<T: Send + 'static>(
    environment: &dyn Environment,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Abandoned> {
    let slot = Arc::new(Mutex::new(None));
    let result = Arc::clone(&slot);
    environment
        .compute(Box::new(move || {
            let value = work();
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        }))
        .await;
    let value = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    value.ok_or(Abandoned)
}

impl fmt::Debug for dyn Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}
