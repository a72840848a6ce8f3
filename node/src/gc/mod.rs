//! Garbage collection beside running writers: blocks that no pointer reaches are deleted.
//!
//! Each owner is collected alone, because equal blocks of two owners are two blocks. For one owner:
//!
//! 1. Protection by transactions older than a day is dropped.
//! 2. An owner whose pointers, blocks and transactions are as the last collection left them is skipped.
//! 3. All blocks are *listed*, each with the generation of its last put.
//! 4. Then the blocks of open *transactions* are read,
//! 5. then the *roots*: the pointers of all writers, by registration and by ownership, and their accounted roots.
//! 6. Everything below is *marked*. Links are remembered from collection to collection, so only blocks that are
//!    new are read, and raw blocks never.
//! 7. What is unmarked, old enough, and was not put again since 3 is *deleted*.
//!
//! Why nothing that is needed goes: a block that a pointer of step 5 reaches is marked. One that a later pointer reaches
//! was put after 3 (its generation has moved, so the store keeps it), or stood in a transaction at 4, or was reached by
//! an earlier pointer; and should a client break that rule, the hand-shake between [`sweep`] and [`admit`] decides,
//! in one commit, whether the pointer came first (the block stays) or the collection (the update is refused).
//! Anything that cannot be read while marking ends the collection of that owner with nothing deleted.
//!
//! *Old enough* is for readers of an old root: a block goes only when it was unneeded already at an earlier
//! collection, at least the grace period ago ([`CollectionConfig::grace`]).
//!
//! A crash anywhere leaves blocks that are garbage still or gone; nothing has to be repaired.
//!
//! Spec: 12 §2, §4, §8; 40, REL-8, REL-9, DOS-3, DOS-4. More in `docs/garbage-collection.md`.

mod admit;
mod graph;
mod lease;
mod link_store;
mod links;
mod mark;
mod owner;
mod pace;
mod report;
mod roots;
mod schedule;
mod state_row;
mod steady;
mod sweep;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use pki::username::Username;
use tokio::sync::{OwnedRwLockReadGuard, RwLock, RwLockWriteGuard};

pub(crate) use admit::{Step, admit, note_change};
pub use report::{
    Abort, Amount, CollectOptions, ListingProblem, Outcome, OwnerReport, Phase, Progress, Report,
};
pub(crate) use schedule::start;

use self::{
    lease::{Lease, Wish},
    owner::Collection,
    pace::Pace,
    steady::SteadyClock,
};
use crate::{
    directory::{User, name_of_partition, partition_of},
    error::Refusal,
    state::State,
    store::{Partition, StoreError},
};

/// Told where a collection is.
pub(crate) type ProgressSink<'a> = dyn Fn(&Progress) + Send + Sync + 'a;

/// An aborted collection is not tried again by itself for this long.
const RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Partitions of one page.
const PAGE_PARTITIONS: usize = 1000;

/// How garbage is collected.
#[derive(Debug, Clone)]
pub struct CollectionConfig {
    /// Time from one collection of everything to the next; zero for never. Default 12 hours.
    pub period: Duration,
    /// How long a replaced root stays readable at least. Default 1 hour.
    pub grace: Duration,
    /// Most of one processor core that a collection uses, in percent. Default 50.
    pub duty_percent: u8,
    /// An owner with this many bytes of garbage, as far as accounting can tell, is collected as soon as the grace
    /// period allows. Default 256 MiB.
    pub early_bytes: u64,
}

impl Default for CollectionConfig {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(12 * 3600),
            grace: Duration::from_secs(3600),
            duty_percent: 50,
            early_bytes: 256 << 20,
        }
    }
}

/// Why there was no collection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// One at a time, among all processes on the same data.
    #[error("a collection, or a backup of a shared data set, is running already")]
    Running,
    /// The chosen user has no blocks here.
    #[error("no user of that name has blocks here")]
    UnknownUser,
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// What collections of one node share.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    running: tokio::sync::Mutex<()>,
    wish: Wish,
    /// Owners whose blocks are being deleted.
    gates: Mutex<HashMap<Username, Arc<RwLock<()>>>>,
    steady: Mutex<SteadyClock>,
    /// Partitions whose last collection was aborted.
    aborted: Mutex<BTreeMap<String, AbortedOwner>>,
    last: Mutex<Option<Arc<Report>>>,
}

/// An owner whose last collection was aborted.
#[derive(Debug, Clone, Copy)]
struct AbortedOwner {
    at: tokio::time::Instant,
    alarm: bool,
}

/// Keeps updates of one owner waiting while a batch of the owner's blocks is given up.
struct Gate<'a> {
    collector: &'a Collector,
    name: Username,
    lock: Arc<RwLock<()>>,
}

impl Gate<'_> {
    async fn close(&self) -> RwLockWriteGuard<'_, ()> {
        self.lock.write().await
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        self.collector.gates.lock().remove(&self.name);
    }
}

impl fmt::Debug for Gate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Collector {
    /// Waits while a batch of this owner's blocks is given up, and keeps the next one waiting until the answer is
    /// dropped; costs nothing at other times. Only fairness depends on it: the conditions of the commits on both
    /// sides keep the data safe.
    pub(crate) async fn turn(&self, name: &Username) -> Option<OwnedRwLockReadGuard<()>> {
        let lock = self.gates.lock().get(name).cloned()?;
        Some(lock.read_owned().await)
    }

    fn gate(&self, name: &Username) -> Gate<'_> {
        let lock = Arc::new(RwLock::default());
        self.gates.lock().insert(name.clone(), Arc::clone(&lock));
        Gate {
            collector: self,
            name: name.clone(),
            lock,
        }
    }

    /// Returns how many owners have data that could not be read when their garbage was to be collected.
    pub(crate) fn alarms(&self) -> usize {
        let aborted = self.aborted.lock();
        aborted.values().filter(|owner| owner.alarm).count()
    }

    /// True when the collection of this owner was aborted a short while ago: nothing will have changed.
    fn was_aborted_lately(&self, partition: &Partition) -> bool {
        let aborted = self.aborted.lock();
        let owner = aborted.get(partition.as_str());
        owner.is_some_and(|owner| owner.at.elapsed() < RETRY_AFTER)
    }

    fn note(&self, report: &OwnerReport) {
        let mut aborted = self.aborted.lock();
        match report.outcome {
            Outcome::Aborted { alarm, .. } => {
                let at = tokio::time::Instant::now();
                aborted.insert(report.partition.clone(), AbortedOwner { at, alarm });
            }
            // Nothing was looked at.
            Outcome::Waiting { .. } => {}
            _ => {
                aborted.remove(&report.partition);
            }
        }
    }

    /// Returns the report of the last collection since the node was started.
    pub(crate) fn last(&self) -> Option<Arc<Report>> {
        self.last.lock().clone()
    }
}

/// Collects the blocks of all owners, or of one.
///
/// Dropping the future stops the collection at a safe place.
///
/// # Errors
/// [`CollectError`]. What goes wrong with one owner is in the report.
pub(crate) async fn collect(
    state: &State,
    options: &CollectOptions,
    progress: &ProgressSink<'_>,
) -> Result<Report, CollectError> {
    let _one = state
        .collector
        .running
        .try_lock()
        .map_err(|_| CollectError::Running)?;
    let started = Instant::now();
    let mut report = Report {
        began: state.clock.now_seconds(),
        dry_run: options.dry_run,
        ..Report::default()
    };
    let chosen = options.user.as_deref().map(chosen).transpose()?;
    let mut lease = match options.dry_run {
        true => Lease::none(),
        false => Lease::acquire(state).await?,
    };
    let mut pace = Pace::new(state.config.collection.duty_percent);
    let mut after: Option<Partition> = None;
    loop {
        let page = state
            .store
            .partitions(after.as_ref(), PAGE_PARTITIONS)
            .await?;
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        for partition in page {
            if chosen.as_ref().is_none_or(|chosen| *chosen == partition) {
                let owner =
                    owner(state, &partition, options, progress, &mut lease, &mut pace).await;
                if !options.dry_run {
                    state.collector.note(&owner);
                }
                report.add(owner);
            }
            pace.point().await;
        }
    }
    lease.release(state).await?;
    if chosen.is_some() && report.owners.is_empty() {
        return Err(CollectError::UnknownUser);
    }
    report.took = started.elapsed();
    tracing::info!(
        owners = report.owners.len(),
        blocks = report.seen.blocks,
        deleted = report.deleted.blocks,
        deleted_bytes = report.deleted.bytes,
        alarms = report.alarms,
        millis = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
        dry_run = report.dry_run,
        "collected garbage"
    );
    if !options.dry_run {
        *state.collector.last.lock() = Some(Arc::new(report.clone()));
    }
    Ok(report)
}

/// The right to delete blocks of a shared data set beside the collector's own work.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _running: tokio::sync::MutexGuard<'a, ()>,
    lease: Lease,
}

impl Turn<'_> {
    /// Takes the right; `None` on a store of one process, which keeps deletions and backups apart by itself.
    ///
    /// # Errors
    /// [`CollectError::Running`] while another process collects or makes a backup.
    pub(crate) async fn take(state: &State) -> Result<Option<Turn<'_>>, CollectError> {
        if !state.store.is_shared() {
            return Ok(None);
        }
        let running = state.collector.running.lock().await;
        let lease = Lease::acquire(state).await?;
        Ok(Some(Turn {
            _running: running,
            lease,
        }))
    }

    /// Shows that the job goes on; false when it has to stop.
    pub(crate) async fn renew(&mut self, state: &State) -> bool {
        self.lease.renew(state).await.is_ok() && self.lease.check().is_ok()
    }

    /// Gives the right back.
    ///
    /// # Errors
    /// Failures of the store.
    pub(crate) async fn release(self, state: &State) -> Result<(), StoreError> {
        self.lease.release(state).await
    }
}

fn chosen(name: &str) -> Result<Partition, CollectError> {
    Username::parse(name)
        .ok()
        .and_then(|name| partition_of(&name).ok())
        .ok_or(CollectError::UnknownUser)
}

async fn owner(
    state: &State,
    partition: &Partition,
    options: &CollectOptions,
    progress: &ProgressSink<'_>,
    lease: &mut Lease,
    pace: &mut Pace,
) -> OwnerReport {
    let name = name_of_partition(partition);
    let mut report = OwnerReport {
        partition: partition.as_str().to_owned(),
        user: name.as_ref().map(|name| name.as_str().to_owned()),
        outcome: Outcome::Unknown,
        seen: Amount::default(),
        needed: 0,
        in_transactions: 0,
        deleted: Amount::default(),
        waiting: Amount::default(),
        saved: 0,
        read: 0,
    };
    let user = match known(state, name).await {
        Ok(Some(user)) => user,
        Ok(None) => {
            let counts = state.store.block_counts(partition).await;
            report.seen = counts.unwrap_or_default().into();
            report.user = None;
            return report;
        }
        Err(error) => {
            report.outcome = aborted(partition, &error);
            return report;
        }
    };
    let wall = state.clock.now_seconds();
    let mut collection = Collection {
        state,
        user: &user,
        options,
        wall,
        steady: state.collector.steady.lock().seconds(wall),
        progress,
        report,
    };
    let gate = state.collector.gate(&user.name);
    let outcome = collection.run(&gate, lease, pace).await;
    let mut report = collection.report;
    report.outcome = outcome.unwrap_or_else(|error| aborted(partition, &error));
    report
}

/// Returns the user a partition belongs to; `None` when this node knows nobody of that name.
async fn known(state: &State, name: Option<Username>) -> Result<Option<Arc<User>>, Abort> {
    let Some(name) = name else { return Ok(None) };
    match state.directory.named(name.as_str()).await {
        Ok(user) => Ok(Some(user)),
        Err(Refusal::UnknownName) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn aborted(partition: &Partition, reason: &Abort) -> Outcome {
    let alarm = !reason.is_passing();
    if alarm {
        tracing::error!(%partition, %reason, "garbage of an owner is not collected");
    } else {
        tracing::info!(%partition, %reason, "the garbage of an owner has to wait");
    }
    Outcome::Aborted {
        reason: reason.to_string(),
        alarm,
    }
}
