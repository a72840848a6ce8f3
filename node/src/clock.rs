//! The time of day, handed in so that tests can choose it (Spec: 40 DOS-14).
//!
//! Signed windows and expiries are about the time of day. Limits count with [`Clock::steady_millis`], which goes on when
//! somebody sets the clock. Time-outs use the runtime's monotonic clock.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// The time of day at which this process first asked for steady time, and the timer's state then.
static BEGAN: LazyLock<(i64, Instant)> =
    LazyLock::new(|| (SystemClock.now_millis(), Instant::now()));

/// Tells the time of day.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Returns milliseconds since 1970 UTC.
    fn now_millis(&self) -> i64;

    /// Returns seconds since 1970 UTC.
    fn now_seconds(&self) -> i64 {
        self.now_millis().div_euclid(1000)
    }

    /// Returns milliseconds that began as those since 1970 UTC and go on with the machine's timer: setting the clock
    /// moves them neither on nor back.
    fn steady_millis(&self) -> i64 {
        let (began, timer) = *BEGAN;
        let passed = i64::try_from(timer.elapsed().as_millis()).unwrap_or(i64::MAX);
        began.saturating_add(passed)
    }

    /// Returns [`Clock::steady_millis`] in seconds.
    fn steady_seconds(&self) -> i64 {
        self.steady_millis().div_euclid(1000)
    }
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_millis(&self) -> i64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock {
    steady: AtomicI64,
    /// How far the time of day is ahead of it.
    ahead: AtomicI64,
}

impl ManualClock {
    /// Starts at a time in milliseconds since 1970 UTC.
    pub const fn at(millis: i64) -> Self {
        Self {
            steady: AtomicI64::new(millis),
            ahead: AtomicI64::new(0),
        }
    }

    /// Lets time pass, or go back, until the time of day is this.
    pub fn set(&self, millis: i64) {
        let steady = millis - self.ahead.load(Ordering::Relaxed);
        self.steady.store(steady, Ordering::Relaxed);
    }

    /// Lets time pass.
    pub fn advance(&self, millis: i64) {
        self.steady.fetch_add(millis, Ordering::Relaxed);
    }

    /// Changes the time of day without any time passing, as somebody does who sets the clock.
    pub fn jump(&self, millis: i64) {
        self.ahead.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_millis(&self) -> i64 {
        self.steady_millis() + self.ahead.load(Ordering::Relaxed)
    }

    fn steady_millis(&self) -> i64 {
        self.steady.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dos_14_steady_time_goes_on_when_the_clock_is_set() {
        let clock = ManualClock::at(1_000);
        clock.jump(86_400_000);
        assert_eq!(
            (clock.now_millis(), clock.steady_millis()),
            (86_401_000, 1_000)
        );
        clock.advance(5);
        clock.jump(-2 * 86_400_000);
        assert_eq!(
            (clock.now_millis(), clock.steady_millis()),
            (-86_398_995, 1_005)
        );
        let before = SystemClock.steady_millis();
        assert!(SystemClock.steady_millis() >= before);
        let apart = SystemClock.now_millis() - before;
        assert!(apart.abs() < 3_600_000, "{apart}");
    }
}
