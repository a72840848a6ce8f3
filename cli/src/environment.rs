//! Clock, timer, randomness and spare processors for the client, on tokio.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use cryptree::Environment;
use rand_core::{CryptoRng, UnwrapErr};

/// The surroundings of a client that runs on tokio.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioEnvironment;

#[async_trait]
impl Environment for TokioEnvironment {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn random(&self) -> Box<dyn CryptoRng + Send> {
        Box::new(UnwrapErr(getrandom::SysRng))
    }

    async fn compute(&self, work: Box<dyn FnOnce() + Send>) {
        // A join error means the work panicked or the runtime is closing; the caller sees that no result is there.
        let _ = tokio::task::spawn_blocking(work).await;
    }
}
