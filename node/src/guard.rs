//! Limits on guessing and flooding, kept in memory and bounded (Spec: 08 §3.4, 09 §2, 22 §3).

use std::{collections::HashMap, hash::Hash, net::IpAddr};

use parking_lot::Mutex;

use crate::error::Refusal;

/// Most keys one counter remembers; the least recently started window goes first.
const MAX_KEYS: usize = 50_000;

/// Counts events per key in fixed windows.
#[derive(Debug)]
pub(crate) struct Counter<K> {
    windows: Mutex<HashMap<K, (i64, u32)>>,
    window_seconds: i64,
    max: u32,
}

impl<K: Hash + Eq + Clone> Counter<K> {
    /// Allows `max` events per `window_seconds`.
    pub(crate) fn new(max: u32, window_seconds: i64) -> Self {
        Self {
            windows: Mutex::default(),
            window_seconds,
            max,
        }
    }

    /// Returns true when the key has used up its window.
    pub(crate) fn is_exhausted(&self, key: &K, now_seconds: i64) -> bool {
        self.windows.lock().get(key).is_some_and(|(start, count)| {
            now_seconds.saturating_sub(*start) < self.window_seconds && *count >= self.max
        })
    }

    /// Returns the number of events in the current window.
    pub(crate) fn count(&self, key: &K, now_seconds: i64) -> u32 {
        self.windows.lock().get(key).map_or(0, |(start, count)| {
            if now_seconds.saturating_sub(*start) < self.window_seconds {
                *count
            } else {
                0
            }
        })
    }

    /// Counts an event; false when the window was used up before.
    pub(crate) fn record(&self, key: &K, now_seconds: i64) -> bool {
        let mut windows = self.windows.lock();
        if windows.len() >= MAX_KEYS && !windows.contains_key(key) {
            let window = self.window_seconds;
            windows.retain(|_, (start, _)| now_seconds.saturating_sub(*start) < window);
            if windows.len() >= MAX_KEYS {
                let oldest = windows
                    .iter()
                    .min_by_key(|(_, (start, _))| *start)
                    .map(|(key, _)| key.clone());
                if let Some(oldest) = oldest {
                    windows.remove(&oldest);
                }
            }
        }
        let (start, count) = windows.entry(key.clone()).or_insert((now_seconds, 0));
        if now_seconds.saturating_sub(*start) >= self.window_seconds {
            (*start, *count) = (now_seconds, 0);
        }
        if *count >= self.max {
            return false;
        }
        *count += 1;
        true
    }

    /// Forgets a key.
    pub(crate) fn reset(&self, key: &K) {
        self.windows.lock().remove(key);
    }
}

/// The limits of a node.
#[derive(Debug)]
pub(crate) struct Guards {
    /// Failed log-ins per user, and the time before which the next one is not looked at.
    failed_logins: Counter<String>,
    /// Failed log-ins per source address.
    failed_sources: Counter<IpAddr>,
    /// Wrong second factor codes per user, in a short and a long window.
    wrong_codes: Counter<String>,
    wrong_codes_daily: Counter<String>,
    /// Writes of login data per user.
    pub(crate) login_writes: Counter<String>,
    /// Waiting list entries per source address.
    pub(crate) waiting_list: Counter<IpAddr>,
    /// Follow requests per source address.
    pub(crate) follow_requests: Counter<IpAddr>,
    /// Secret link misses per owner.
    pub(crate) link_misses: Counter<String>,
    /// Transactions started per source address.
    pub(crate) transactions: Counter<IpAddr>,
    /// Links to published files per source address: each reads blocks of an owner whom the caller chose.
    pub(crate) public_files: Counter<IpAddr>,
    /// Permits to read blocks from the object store per user.
    pub(crate) direct_reads: Counter<String>,
}

/// Failures of one user that are answered at once.
const FREE_FAILURES: u32 = 10;

impl Default for Guards {
    fn default() -> Self {
        Self {
            failed_logins: Counter::new(1000, 900),
            failed_sources: Counter::new(100, 3600),
            wrong_codes: Counter::new(5, 900),
            wrong_codes_daily: Counter::new(100, 86_400),
            login_writes: Counter::new(20, 3600),
            waiting_list: Counter::new(10, 3600),
            // An inbox of 100 takes one source five minutes to fill.
            follow_requests: Counter::new(20, 60),
            link_misses: Counter::new(10, 1),
            transactions: Counter::new(10_000, 60),
            public_files: Counter::new(120, 60),
            direct_reads: Counter::new(100_000, 60),
        }
    }
}

impl Guards {
    /// Refuses a log-in attempt of a source that failed too often.
    pub(crate) fn admit_login(
        &self,
        address: Option<IpAddr>,
        now_seconds: i64,
    ) -> Result<(), Refusal> {
        match address {
            Some(address)
                if !address.is_loopback()
                    && self.failed_sources.is_exhausted(&address, now_seconds) =>
            {
                Err(Refusal::RateLimit(
                    "Too many failed logins from this address",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Counts a failed log-in and returns how long its answer is held back, in seconds.
    ///
    /// A right answer is never held back: the owner of an account under attack can always log in.
    pub(crate) fn login_failed(
        &self,
        user: &str,
        address: Option<IpAddr>,
        now_seconds: i64,
    ) -> u64 {
        let user = user.to_owned();
        self.failed_logins.record(&user, now_seconds);
        if let Some(address) = address {
            self.failed_sources.record(&address, now_seconds);
        }
        let failures = self.failed_logins.count(&user, now_seconds);
        match failures.checked_sub(FREE_FAILURES + 1) {
            None => 0,
            Some(over) => 60.min(1u64 << over.min(6)),
        }
    }

    /// Forgets the failures of a user who logged in.
    pub(crate) fn login_succeeded(&self, user: &str) {
        self.failed_logins.reset(&user.to_owned());
    }

    /// Refuses a second factor code of a user with too many wrong ones.
    pub(crate) fn admit_code(&self, user: &str, now_seconds: i64) -> Result<(), Refusal> {
        let user = user.to_owned();
        if self.wrong_codes.is_exhausted(&user, now_seconds)
            || self.wrong_codes_daily.is_exhausted(&user, now_seconds)
        {
            return Err(Refusal::RateLimit("Too many wrong codes"));
        }
        Ok(())
    }

    /// Counts a wrong second factor code.
    pub(crate) fn wrong_code(&self, user: &str, now_seconds: i64) {
        let user = user.to_owned();
        self.wrong_codes.record(&user, now_seconds);
        self.wrong_codes_daily.record(&user, now_seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_fills_up_and_starts_again() {
        let counter = Counter::new(2, 10);
        assert!(counter.record(&"a", 100));
        assert!(counter.record(&"a", 105));
        assert!(!counter.record(&"a", 109));
        assert!(counter.is_exhausted(&"a", 109));
        assert!(!counter.is_exhausted(&"b", 109));
        assert!(counter.record(&"a", 110));
    }

    #[test]
    fn dos_12_counters_are_bounded() {
        let counter = Counter::new(1, 1000);
        for key in 0..=MAX_KEYS {
            counter.record(&key, 0);
        }
        assert_eq!(counter.windows.lock().len(), MAX_KEYS);
    }

    #[test]
    fn log_1_failures_are_held_back_longer_and_longer_but_never_for_good() {
        let guards = Guards::default();
        let delays: Vec<_> = (0..20)
            .map(|_| guards.login_failed("alice", None, 0))
            .collect();
        assert!(delays[..10].iter().all(|delay| *delay == 0));
        assert_eq!(delays[10..17], [1, 2, 4, 8, 16, 32, 60]);
        assert_eq!(delays[19], 60);
        guards.login_succeeded("alice");
        assert_eq!(guards.login_failed("alice", None, 0), 0);
    }

    #[test]
    fn log_4_codes_are_refused_after_five_wrong_ones() {
        let guards = Guards::default();
        for _ in 0..5 {
            guards.admit_code("alice", 0).unwrap();
            guards.wrong_code("alice", 0);
        }
        assert!(guards.admit_code("alice", 0).is_err());
        assert!(guards.admit_code("alice", 900).is_ok());
        assert!(guards.admit_code("bob", 0).is_ok());
    }
}
