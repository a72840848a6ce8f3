//! Leases: of several processes on one data set, one at a time does a job (Spec: 12 §4, 40 DOS-13).
//!
//! A lease is two rows. *Fence* says who holds it and for the how manieth time; *beat* changes as long as the holder
//! lives. Whoever wants a lease that is held watches both: when neither changed for its whole term, measured with
//! the watcher's own monotonic clock, the holder is taken for dead. So the clocks of the processes need not agree.
//!
//! A holder that was only slow does no harm: [`Held::guard`] makes a batch fail once the lease has gone to somebody
//! else, and the token, which only ever grows, tells the jobs of two holders apart.

use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    random::random,
    store::{Batch, MetaStore, StoreError, tables},
};

/// The job of collecting garbage. A backup of a shared data set takes it too, so that nothing is collected meanwhile.
pub(crate) const COLLECTION: &str = "gc";
/// How long a collector or a backup may be silent before another takes over.
pub(crate) const COLLECTION_TERM: Duration = Duration::from_secs(120);

/// The wish to hold a lease. One per process and job; keep it between attempts, because it remembers what it saw.
///
/// It tells this process from others, not its tasks from each other: do not try while a [`Held`] of it is in use. One
/// that was dropped unreleased, because the job failed or was stopped, is taken again at once.
#[derive(Debug)]
pub struct Lease {
    name: &'static str,
    term: Duration,
    holder: [u8; 16],
    seen: Mutex<Option<Seen>>,
}

#[derive(Debug)]
struct Seen {
    fence: Option<Bytes>,
    beat: Option<Bytes>,
    since: Instant,
}

/// A lease that is held.
#[derive(Debug)]
pub struct Held {
    name: &'static str,
    fence: Bytes,
    token: u64,
    beat: u64,
}

impl Lease {
    /// Names a job; `term` is how long a holder may be silent. A holder calls [`Held::renew`] at least three times
    /// in that time.
    pub fn new(name: &'static str, term: Duration) -> Self {
        Self {
            name,
            term,
            holder: random(),
            seen: Mutex::default(),
        }
    }

    /// Takes the lease if it is free, was ours, or its holder is silent. On a store that no other process can use, it
    /// always is.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn try_acquire(&self, store: &dyn MetaStore) -> Result<Option<Held>, StoreError> {
        let fence = store.get(tables::LEASES, &fence_key(self.name)).await?;
        let beat = store.get(tables::LEASES, &beat_key(self.name)).await?;
        let is_ours = fence.as_deref().is_some_and(|f| f.ends_with(&self.holder));
        let is_free = beat.is_none() || is_ours || !store.is_shared();
        if !is_free && !self.is_silent(&fence, &beat) {
            return Ok(None);
        }
        let token = fence.as_deref().map_or(0, number).saturating_add(1);
        let mut mine = token.to_be_bytes().to_vec();
        mine.extend_from_slice(&self.holder);
        let mine = Bytes::from(mine);
        let batch = Batch::new()
            .expect(tables::LEASES, fence_key(self.name), fence)
            .expect(tables::LEASES, beat_key(self.name), beat)
            .put(tables::LEASES, fence_key(self.name), mine.clone())
            .put(
                tables::LEASES,
                beat_key(self.name),
                0_u64.to_be_bytes().to_vec(),
            );
        if !store.commit(batch).await?.is_committed() {
            return Ok(None);
        }
        *self.seen.lock() = None;
        Ok(Some(Held {
            name: self.name,
            fence: mine,
            token,
            beat: 0,
        }))
    }

    fn is_silent(&self, fence: &Option<Bytes>, beat: &Option<Bytes>) -> bool {
        let mut seen = self.seen.lock();
        match seen.as_ref() {
            Some(seen) if seen.fence == *fence && seen.beat == *beat => {
                seen.since.elapsed() >= self.term
            }
            _ => {
                *seen = Some(Seen {
                    fence: fence.clone(),
                    beat: beat.clone(),
                    since: Instant::now(),
                });
                false
            }
        }
    }
}

impl Held {
    /// Returns the number of this holding: larger than that of every earlier one.
    pub const fn token(&self) -> u64 {
        self.token
    }

    /// Adds the condition that the lease is still held.
    #[must_use]
    pub fn guard(&self, batch: Batch) -> Batch {
        batch.expect(
            tables::LEASES,
            fence_key(self.name),
            Some(self.fence.clone()),
        )
    }

    /// Shows that the holder lives; false when the lease has gone to somebody else, and the job has to stop.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn renew(&mut self, store: &dyn MetaStore) -> Result<bool, StoreError> {
        self.beat = self.beat.wrapping_add(1);
        let batch = self.guard(Batch::new()).put(
            tables::LEASES,
            beat_key(self.name),
            self.beat.to_be_bytes().to_vec(),
        );
        Ok(store.commit(batch).await?.is_committed())
    }

    /// Gives the lease back, so that nobody has to wait for the end of its term.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn release(self, store: &dyn MetaStore) -> Result<(), StoreError> {
        // The fence stays: tokens go on growing.
        let batch = self
            .guard(Batch::new())
            .remove(tables::LEASES, beat_key(self.name));
        store.commit(batch).await.map(drop)
    }
}

fn fence_key(name: &str) -> Vec<u8> {
    [b"fence ", name.as_bytes()].concat()
}

fn beat_key(name: &str) -> Vec<u8> {
    [b"beat ", name.as_bytes()].concat()
}

fn number(row: &[u8]) -> u64 {
    row.first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, SharedMemory};

    const LONG: Duration = Duration::from_secs(1000);

    #[tokio::test]
    async fn one_holds_and_the_others_wait_for_its_release() {
        let store = SharedMemory::default();
        let (a, b) = (Lease::new("job", LONG), Lease::new("job", LONG));
        let held = a.try_acquire(&store).await.unwrap().unwrap();
        assert!(b.try_acquire(&store).await.unwrap().is_none());
        assert!(b.try_acquire(&store).await.unwrap().is_none());
        let other = Lease::new("other job", LONG);
        assert!(other.try_acquire(&store).await.unwrap().is_some());
        let token = held.token();
        held.release(&store).await.unwrap();
        let held = b.try_acquire(&store).await.unwrap().unwrap();
        assert!(held.token() > token);
    }

    #[tokio::test]
    async fn a_silent_holder_loses_its_lease_and_can_do_nothing_more_with_it() {
        let store = SharedMemory::default();
        let (a, b) = (
            Lease::new("job", Duration::ZERO),
            Lease::new("job", Duration::ZERO),
        );
        let mut old = a.try_acquire(&store).await.unwrap().unwrap();
        // One look to see it, another to see that nothing moved.
        assert!(b.try_acquire(&store).await.unwrap().is_none());
        assert!(old.renew(&store).await.unwrap());
        assert!(b.try_acquire(&store).await.unwrap().is_none());
        let new = b.try_acquire(&store).await.unwrap().unwrap();
        assert!(new.token() > old.token());
        assert!(!old.renew(&store).await.unwrap());
        let write = old.guard(Batch::new()).put(tables::NODE, "k", "late");
        assert!(!store.commit(write).await.unwrap().is_committed());
        old.release(&store).await.unwrap();
        let write = new.guard(Batch::new()).put(tables::NODE, "k", "new");
        assert!(store.commit(write).await.unwrap().is_committed());
    }

    #[tokio::test]
    async fn a_lease_that_was_dropped_unreleased_is_taken_again_by_its_own_process() {
        let store = SharedMemory::default();
        let (a, b) = (Lease::new("job", LONG), Lease::new("job", LONG));
        let dropped = a.try_acquire(&store).await.unwrap().unwrap();
        assert!(b.try_acquire(&store).await.unwrap().is_none());
        let again = a.try_acquire(&store).await.unwrap().unwrap();
        assert!(again.token() > dropped.token());
    }

    #[tokio::test]
    async fn a_process_that_is_alone_takes_over_what_a_crash_left() {
        let store = MemoryStore::new();
        let crashed = Lease::new("job", LONG);
        let first = crashed.try_acquire(&store).await.unwrap().unwrap();
        let second = Lease::new("job", LONG).try_acquire(&store).await.unwrap();
        assert!(second.unwrap().token() > first.token());
    }
}
