//! Limits on guessing and flooding, bounded (Spec: 08 §3.4, 09 §2, 22 §3).
//!
//! A node that is alone counts in memory. Nodes that share a store count what guards secrets in the store, because
//! whoever guesses may ask each of them in turn; what only protects a process from work is counted by each process.
//! What is counted in memory counts with steady time ([`crate::state::State::limit_seconds`]); a stored window that
//! lies in the future was begun before the clock was set back, and is none (Spec: 40 DOS-14).

use std::{collections::HashMap, fmt::Display, hash::Hash, net::IpAddr};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    error::Refusal,
    store::{Batch, CommitOutcome, MetaStore, StoreError, tables},
};

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

/// Attempts at counting an event that other events overtake; then it counts as one too many.
const MAX_ATTEMPTS: usize = 50;
/// Longest window of any limit, in seconds: older rows count for nothing.
const LONGEST_WINDOW_SECONDS: i64 = 86_400;

/// A limit that holds for all processes on one store together.
#[derive(Debug)]
pub(crate) struct Limit<K> {
    name: &'static str,
    counter: Counter<K>,
}

impl<K: Hash + Eq + Clone + Display + Send + Sync> Limit<K> {
    /// Allows `max` events per `window_seconds`; `name` is part of the stored rows.
    fn new(name: &'static str, max: u32, window_seconds: i64) -> Self {
        Self {
            name,
            counter: Counter::new(max, window_seconds),
        }
    }

    /// Returns true when the key has used up its window.
    pub(crate) async fn is_exhausted(
        &self,
        store: &dyn MetaStore,
        key: &K,
        now_seconds: i64,
    ) -> Result<bool, StoreError> {
        if !store.is_shared() {
            return Ok(self.counter.is_exhausted(key, now_seconds));
        }
        Ok(self.stored(store, key, now_seconds).await? >= self.counter.max)
    }

    /// Returns the number of events in the current window.
    pub(crate) async fn count(
        &self,
        store: &dyn MetaStore,
        key: &K,
        now_seconds: i64,
    ) -> Result<u32, StoreError> {
        if !store.is_shared() {
            return Ok(self.counter.count(key, now_seconds));
        }
        self.stored(store, key, now_seconds).await
    }

    async fn stored(
        &self,
        store: &dyn MetaStore,
        key: &K,
        now_seconds: i64,
    ) -> Result<u32, StoreError> {
        let row = store.get(tables::GUARDS, &self.row(key)).await?;
        Ok(self.window(row.as_deref(), now_seconds).1)
    }

    /// Counts an event; false when the window was used up before.
    pub(crate) async fn record(
        &self,
        store: &dyn MetaStore,
        key: &K,
        now_seconds: i64,
    ) -> Result<bool, StoreError> {
        if !store.is_shared() {
            return Ok(self.counter.record(key, now_seconds));
        }
        let row = self.row(key);
        let mut before = store.get(tables::GUARDS, &row).await?;
        for _ in 0..MAX_ATTEMPTS {
            let (start, count) = self.window(before.as_deref(), now_seconds);
            if count >= self.counter.max {
                return Ok(false);
            }
            let mut after = start.to_be_bytes().to_vec();
            after.extend_from_slice(&(count + 1).to_be_bytes());
            let batch = Batch::new()
                .expect(tables::GUARDS, row.clone(), before)
                .put(tables::GUARDS, row.clone(), after);
            match store.commit(batch).await? {
                CommitOutcome::Committed => return Ok(true),
                CommitOutcome::ConditionFailed { actual, .. } => before = actual,
            }
        }
        Ok(false)
    }

    /// Forgets a key.
    pub(crate) async fn reset(&self, store: &dyn MetaStore, key: &K) -> Result<(), StoreError> {
        if !store.is_shared() {
            self.counter.reset(key);
            return Ok(());
        }
        let row = self.row(key);
        if store.get(tables::GUARDS, &row).await?.is_some() {
            let batch = Batch::new().remove(tables::GUARDS, row);
            let _ = store.commit(batch).await?;
        }
        Ok(())
    }

    /// Returns the window that a row is about, or a new one: when it began, and the events in it.
    fn window(&self, row: Option<&[u8]>, now_seconds: i64) -> (i64, u32) {
        read_window(row)
            .filter(|(start, _)| {
                let age = now_seconds.saturating_sub(*start);
                age.saturating_abs() < self.counter.window_seconds
            })
            .unwrap_or((now_seconds, 0))
    }

    fn row(&self, key: &K) -> Bytes {
        format!("{}\0{key}", self.name).into()
    }
}

fn read_window(row: Option<&[u8]>) -> Option<(i64, u32)> {
    let (start, count) = row?.split_first_chunk()?;
    let count = count.try_into().ok()?;
    Some((i64::from_be_bytes(*start), u32::from_be_bytes(count)))
}

/// Returns true for a stored count that holds nobody back any more.
pub(crate) fn is_stored_stale(row: &[u8], now_seconds: i64) -> bool {
    read_window(Some(row)).is_none_or(|(start, _)| {
        now_seconds.saturating_sub(start).saturating_abs() >= LONGEST_WINDOW_SECONDS
    })
}

/// The limits of a node.
#[derive(Debug)]
pub(crate) struct Guards {
    /// Failed log-ins per user, and the time before which the next one is not looked at.
    failed_logins: Limit<String>,
    /// Failed log-ins per source address.
    failed_sources: Limit<IpAddr>,
    /// Wrong second factor codes per user, in a short and a long window.
    wrong_codes: Limit<String>,
    wrong_codes_daily: Limit<String>,
    /// Writes of login data per user.
    pub(crate) login_writes: Limit<String>,
    /// Waiting list entries per source address.
    pub(crate) waiting_list: Limit<IpAddr>,
    /// Follow requests per source address.
    pub(crate) follow_requests: Limit<IpAddr>,
    /// Secret link misses per owner.
    pub(crate) link_misses: Limit<String>,
    /// Transactions started per source address; by each process alone, because starting one stores nothing.
    pub(crate) transactions: Counter<IpAddr>,
    /// Links to published files per source address: each reads blocks of an owner whom the caller chose.
    pub(crate) public_files: Counter<IpAddr>,
    /// Reads of blocks refused for a wrong or missing token, per source address (Spec: 40 BAT-9).
    pub(crate) refused_reads: Counter<IpAddr>,
    /// Questions for the size of a block per source address: they need no token (Spec: 40 BAT-7).
    pub(crate) block_stats: Counter<IpAddr>,
    /// Permits to read blocks from the object store per user.
    pub(crate) direct_reads: Counter<String>,
}

/// Failures of one user that are answered at once.
const FREE_FAILURES: u32 = 10;

impl Default for Guards {
    fn default() -> Self {
        Self {
            failed_logins: Limit::new("failed logins", 1000, 900),
            failed_sources: Limit::new("failed sources", 100, 3600),
            wrong_codes: Limit::new("wrong codes", 5, 900),
            wrong_codes_daily: Limit::new("wrong codes of a day", 100, LONGEST_WINDOW_SECONDS),
            login_writes: Limit::new("login writes", 20, 3600),
            waiting_list: Limit::new("waiting list", 10, 3600),
            // An inbox of 100 takes one source five minutes to fill.
            follow_requests: Limit::new("follow requests", 20, 60),
            link_misses: Limit::new("link misses", 10, 1),
            transactions: Counter::new(10_000, 60),
            public_files: Counter::new(120, 60),
            refused_reads: Counter::new(1_000, 60),
            block_stats: Counter::new(10_000, 60),
            direct_reads: Counter::new(100_000, 60),
        }
    }
}

impl Guards {
    /// Refuses a log-in attempt of a source that failed too often.
    pub(crate) async fn admit_login(
        &self,
        store: &dyn MetaStore,
        address: Option<IpAddr>,
        now_seconds: i64,
    ) -> Result<(), Refusal> {
        let Some(address) = address.filter(|address| !address.is_loopback()) else {
            return Ok(());
        };
        if self
            .failed_sources
            .is_exhausted(store, &address, now_seconds)
            .await?
        {
            return Err(Refusal::RateLimit(
                "Too many failed logins from this address",
            ));
        }
        Ok(())
    }

    /// Counts a failed log-in and returns how long its answer is held back, in seconds.
    ///
    /// A right answer is never held back: the owner of an account under attack can always log in.
    pub(crate) async fn login_failed(
        &self,
        store: &dyn MetaStore,
        user: &str,
        address: Option<IpAddr>,
        now_seconds: i64,
    ) -> Result<u64, Refusal> {
        let user = user.to_owned();
        self.failed_logins.record(store, &user, now_seconds).await?;
        if let Some(address) = address {
            self.failed_sources
                .record(store, &address, now_seconds)
                .await?;
        }
        let failures = self.failed_logins.count(store, &user, now_seconds).await?;
        Ok(match failures.checked_sub(FREE_FAILURES + 1) {
            None => 0,
            Some(over) => 60.min(1u64 << over.min(6)),
        })
    }

    /// Forgets the failures of a user who logged in.
    pub(crate) async fn login_succeeded(
        &self,
        store: &dyn MetaStore,
        user: &str,
    ) -> Result<(), Refusal> {
        Ok(self.failed_logins.reset(store, &user.to_owned()).await?)
    }

    /// Refuses a second factor code of a user with too many wrong ones.
    pub(crate) async fn admit_code(
        &self,
        store: &dyn MetaStore,
        user: &str,
        now_seconds: i64,
    ) -> Result<(), Refusal> {
        let user = user.to_owned();
        for limit in [&self.wrong_codes, &self.wrong_codes_daily] {
            if limit.is_exhausted(store, &user, now_seconds).await? {
                return Err(Refusal::RateLimit("Too many wrong codes"));
            }
        }
        Ok(())
    }

    /// Counts a wrong second factor code.
    pub(crate) async fn wrong_code(
        &self,
        store: &dyn MetaStore,
        user: &str,
        now_seconds: i64,
    ) -> Result<(), Refusal> {
        let user = user.to_owned();
        for limit in [&self.wrong_codes, &self.wrong_codes_daily] {
            limit.record(store, &user, now_seconds).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SharedMemory;

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

    #[tokio::test]
    async fn log_1_failures_are_held_back_longer_and_longer_but_never_for_good() {
        for store in stores() {
            let guards = Guards::default();
            let mut delays = Vec::new();
            for _ in 0..20 {
                let delay = guards.login_failed(&*store, "alice", None, 0).await;
                delays.push(delay.unwrap());
            }
            assert!(delays[..10].iter().all(|delay| *delay == 0));
            assert_eq!(delays[10..17], [1, 2, 4, 8, 16, 32, 60]);
            assert_eq!(delays[19], 60);
            guards.login_succeeded(&*store, "alice").await.unwrap();
            let delay = guards.login_failed(&*store, "alice", None, 0).await;
            assert_eq!(delay.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn log_4_codes_are_refused_after_five_wrong_ones() {
        for store in stores() {
            let guards = Guards::default();
            for _ in 0..5 {
                guards.admit_code(&*store, "alice", 0).await.unwrap();
                guards.wrong_code(&*store, "alice", 0).await.unwrap();
            }
            assert!(guards.admit_code(&*store, "alice", 0).await.is_err());
            assert!(guards.admit_code(&*store, "alice", 900).await.is_ok());
            assert!(guards.admit_code(&*store, "bob", 0).await.is_ok());
        }
    }

    #[tokio::test]
    async fn processes_on_one_store_count_together() {
        let store = SharedMemory::default();
        let (one, other) = (Guards::default(), Guards::default());
        for guards in [&one, &other, &one, &other, &one] {
            guards.admit_code(&store, "alice", 0).await.unwrap();
            guards.wrong_code(&store, "alice", 0).await.unwrap();
        }
        for guards in [&one, &other] {
            assert!(guards.admit_code(&store, "alice", 0).await.is_err());
        }
        let row = store
            .get(tables::GUARDS, b"wrong codes\0alice")
            .await
            .unwrap()
            .unwrap();
        assert!(!is_stored_stale(&row, 86_399));
        assert!(is_stored_stale(&row, 86_400));
    }

    #[tokio::test]
    async fn dos_14_a_stored_window_of_the_future_holds_nobody_back_for_long() {
        let store = SharedMemory::default();
        let guards = Guards::default();
        let now = 1_000_000;
        for _ in 0..5 {
            guards.wrong_code(&store, "alice", now).await.unwrap();
        }
        // A little back, the guesses still count; a day back, they would count for a day.
        assert!(guards.admit_code(&store, "alice", now - 10).await.is_err());
        let set_back = now - LONGEST_WINDOW_SECONDS;
        assert!(guards.admit_code(&store, "alice", set_back).await.is_ok());
        let row = store.get(tables::GUARDS, b"wrong codes\0alice").await;
        assert!(is_stored_stale(&row.unwrap().unwrap(), set_back));
    }

    fn stores() -> [Box<dyn MetaStore>; 2] {
        [
            Box::new(crate::store::MemoryStore::new()),
            Box::new(SharedMemory::default()),
        ]
    }
}
