//! Virtual time and seeded randomness.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use cryptree::Environment;
use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, Rng as _, SeedableRng};

pub(crate) struct TestSurroundings {
    millis: AtomicU64,
    seeds: Mutex<ChaCha20Rng>,
}

impl TestSurroundings {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            // 2026-11-21, near the times in the vectors.
            millis: AtomicU64::new(1_795_280_000_000),
            seeds: Mutex::new(ChaCha20Rng::seed_from_u64(seed)),
        }
    }

    /// The same, so many days later.
    pub(crate) fn later(seed: u64, days: u64) -> Self {
        let later = Self::new(seed);
        later.millis.fetch_add(days * 86_400_000, Ordering::Relaxed);
        later
    }
}

#[async_trait::async_trait]
impl Environment for TestSurroundings {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }

    async fn sleep(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).unwrap();
        self.millis.fetch_add(millis, Ordering::Relaxed);
        // Whoever waits longer lets the others do more.
        for _ in 0..(millis / 8).clamp(1, 100) {
            tokio::task::yield_now().await;
        }
    }

    fn random(&self) -> Box<dyn CryptoRng + Send> {
        let mut seed = [0; 32];
        self.seeds.lock().unwrap().fill_bytes(&mut seed);
        Box::new(ChaCha20Rng::from_seed(seed))
    }
}
