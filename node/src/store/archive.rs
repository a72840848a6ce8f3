//! Copying a store while it is in use: its metadata as of one moment, and blocks that stay while they are copied.
//!
//! A copy is made in this order: *hold* everything, take the *snapshot*, then list the blocks. A pointer of the
//! snapshot was committed after the blocks it leads to, and from the hold on none of them is deleted, so the list has
//! them all. It may have more, put since then: to whoever restores the copy they are garbage.
//!
//! A hold of a store of one process keeps its deletions waiting. Where several processes share a data set it is also
//! the lease of the collector: as long as the copy goes on, nobody else collects.
//!
//! Spec: 12 §4.4, 40 REL-12.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{RwLock, RwLockReadGuard, oneshot},
    task::JoinHandle,
    time::Instant,
};

use super::{MetaStore, Partition, StoreError};
use crate::lease::{COLLECTION, COLLECTION_TERM, Held as HeldLease, Lease};

/// Bytes of rows of one page of a [`Snapshot`], but for the last row.
pub(crate) const MAX_PAGE_BYTES: usize = 4 << 20;
/// Rows of one page of a [`Snapshot`].
pub(crate) const MAX_PAGE_ROWS: usize = 4_096;
/// A hold on a shared data set is renewed this often.
const RENEW_AFTER: Duration = Duration::from_secs(20);
/// Without renewal for this long it counts as lost, well before somebody else may take it.
const DOUBTFUL_AFTER: Duration = Duration::from_secs(60);
/// How long a hold waits for the collection of another process.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Time between two attempts.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A store that can be copied while it is in use.
#[async_trait::async_trait]
pub trait Archive: Send + Sync {
    /// Holds all partitions. When the future resolves, no deletion that was decided before is under way.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when another process goes on collecting for long, and failures of the store.
    async fn hold(&self) -> Result<Box<dyn Hold>, StoreError>;

    /// Takes a snapshot of all metadata but that which only says where blocks are. What clients have written
    /// past this node before is listed as a block when the future has resolved.
    ///
    /// # Errors
    /// Failures of the store.
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;
}

/// Keeps every block where it is: as long as it lives, deletions in held partitions keep their candidates.
///
/// Blocks may be put meanwhile.
#[async_trait::async_trait]
pub trait Hold: Send + Sync {
    /// Lets deletions go on in one partition, where that is possible.
    fn release(&self, partition: &Partition);

    /// Returns false when it was lost, because this process could not reach the data set for too long.
    fn is_kept(&self) -> bool {
        true
    }

    /// Lets go of everything at once; dropping it does the same a little later.
    async fn end(self: Box<Self>) {}
}

/// A row of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRow {
    /// Name of the table.
    pub table: String,
    /// Key.
    pub key: Bytes,
    /// Value.
    pub value: Bytes,
}

/// The committed metadata of one moment.
#[async_trait::async_trait]
pub trait Snapshot: Send {
    /// Returns the next rows, by table and key; none at the end. A page is about 4 MiB, or one large row.
    ///
    /// # Errors
    /// Failures of the store.
    async fn rows(&mut self) -> Result<Vec<SnapshotRow>, StoreError>;
}

/// The holds that are alive in this process.
///
/// A hold names what it has released, so that partitions made after it began are held too.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<Vec<Arc<Held>>>);

/// One hold: everything but what it has released.
#[derive(Debug, Default)]
pub(super) struct Held {
    released: Mutex<BTreeSet<Partition>>,
}

impl Held {
    pub(super) fn release(&self, partition: &Partition) {
        self.released.lock().insert(partition.clone());
    }
}

impl Holds {
    /// Returns true when blocks of a partition must stay.
    pub(super) fn is_held(&self, partition: &Partition) -> bool {
        let holds = self.0.lock();
        holds
            .iter()
            .any(|hold| !hold.released.lock().contains(partition))
    }

    pub(super) fn add(&self) -> Arc<Held> {
        let held = Arc::new(Held::default());
        self.0.lock().push(held.clone());
        held
    }

    pub(super) fn remove(&self, held: &Arc<Held>) {
        self.0.lock().retain(|other| !Arc::ptr_eq(other, held));
    }
}

/// Lets deletions begin, one process's for itself, unless a hold forbids them.
#[derive(Debug, Default)]
pub(super) struct DeletionGate {
    holds: Holds,
    begun: RwLock<()>,
}

impl DeletionGate {
    /// Returns what to keep until a deletion in this partition has been decided; `None` when all blocks must stay.
    pub(super) async fn enter(&self, partition: &Partition) -> Option<RwLockReadGuard<'_, ()>> {
        let guard = self.begun.read().await;
        (!self.holds.is_held(partition)).then_some(guard)
    }

    /// Holds all partitions, in this process and, if the data set is shared, in all others.
    pub(super) async fn hold<S>(self: &Arc<Self>, store: S) -> Result<Box<dyn Hold>, StoreError>
    where
        S: MetaStore + 'static,
    {
        let shared = match store.is_shared() {
            true => Some(SharedHold::take(store).await?),
            false => None,
        };
        let hold = GateHold {
            held: self.holds.add(),
            gate: self.clone(),
            shared,
        };
        // Behind this, deletions that looked before are decided.
        drop(self.begun.write().await);
        Ok(Box::new(hold))
    }
}

struct GateHold {
    gate: Arc<DeletionGate>,
    held: Arc<Held>,
    shared: Option<SharedHold>,
}

#[async_trait::async_trait]
impl Hold for GateHold {
    fn release(&self, partition: &Partition) {
        self.held.release(partition);
    }

    fn is_kept(&self) -> bool {
        self.shared.as_ref().is_none_or(SharedHold::is_kept)
    }

    async fn end(mut self: Box<Self>) {
        if let Some(shared) = self.shared.take() {
            shared.end().await;
        }
    }
}

impl Drop for GateHold {
    fn drop(&mut self) {
        self.gate.holds.remove(&self.held);
    }
}

/// The collector's lease, renewed by a task until it is let go.
struct SharedHold {
    is_lost: Arc<AtomicBool>,
    /// Dropped, it ends the task too.
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl SharedHold {
    async fn take<S: MetaStore + 'static>(store: S) -> Result<Self, StoreError> {
        let wish = Lease::new(COLLECTION, COLLECTION_TERM);
        let began = Instant::now();
        let held = loop {
            if let Some(held) = wish.try_acquire(&store).await? {
                break held;
            }
            if began.elapsed() > PATIENCE {
                return Err(StoreError::Busy);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        let is_lost = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(renew(store, held, stopped, is_lost.clone()));
        Ok(Self {
            is_lost,
            stop,
            task,
        })
    }

    fn is_kept(&self) -> bool {
        !self.is_lost.load(Ordering::Acquire)
    }

    async fn end(self) {
        drop(self.stop);
        let _ = self.task.await;
    }
}

async fn renew<S: MetaStore>(
    store: S,
    mut held: HeldLease,
    mut stopped: oneshot::Receiver<()>,
    is_lost: Arc<AtomicBool>,
) {
    let mut since = Instant::now();
    loop {
        tokio::select! {
            _ = &mut stopped => {
                // Unreleased, it ends with its term.
                if let Err(error) = held.release(&store).await {
                    tracing::debug!(%error, "the hold of a backup ends with its term");
                }
                return;
            }
            () = tokio::time::sleep(RENEW_AFTER) => {}
        }
        let now = Instant::now();
        match held.renew(&store).await {
            Ok(true) => since = now,
            Ok(false) => is_lost.store(true, Ordering::Release),
            Err(error) => tracing::warn!(%error, "cannot renew the hold of a backup"),
        }
        if since.elapsed() > DOUBTFUL_AFTER {
            is_lost.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SharedMemory;

    fn alice() -> Partition {
        Partition::new("u-alice").unwrap()
    }

    #[tokio::test]
    async fn a_hold_waits_for_deletions_that_began_and_keeps_others_out() {
        let gate = Arc::new(DeletionGate::default());
        let begun = gate.enter(&alice()).await.unwrap();
        let waiting = {
            let gate = gate.clone();
            tokio::spawn(async move { gate.hold(crate::store::MemoryStore::new()).await })
        };
        while !gate.holds.is_held(&alice()) {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        drop(begun);
        let hold = waiting.await.unwrap().unwrap();
        assert!(gate.enter(&alice()).await.is_none());
        hold.release(&alice());
        assert!(gate.enter(&alice()).await.is_some());
        let bob = Partition::new("u-bob").unwrap();
        assert!(gate.enter(&bob).await.is_none());
        hold.end().await;
        assert!(gate.enter(&bob).await.is_some());
    }

    #[tokio::test]
    async fn a_hold_of_a_shared_data_set_is_the_collectors_lease() {
        let store = SharedMemory::default();
        let gate = Arc::new(DeletionGate::default());
        let hold = gate.hold(store.clone()).await.unwrap();
        let collector = Lease::new(COLLECTION, COLLECTION_TERM);
        assert!(collector.try_acquire(&store).await.unwrap().is_none());
        assert!(hold.is_kept());
        hold.end().await;
        assert!(collector.try_acquire(&store).await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_that_somebody_else_has_taken_says_so() {
        let store = SharedMemory::default();
        let gate = Arc::new(DeletionGate::default());
        let hold = gate.hold(store.clone()).await.unwrap();
        let thief = Lease::new(COLLECTION, Duration::ZERO);
        assert!(thief.try_acquire(&store).await.unwrap().is_none());
        assert!(thief.try_acquire(&store).await.unwrap().is_some());
        tokio::time::sleep(RENEW_AFTER * 2).await;
        assert!(!hold.is_kept());
        hold.end().await;
    }
}
