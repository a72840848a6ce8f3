//! The collection of one owner, step by step (Spec: 12 §4.2).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, UNIX_EPOCH},
};

use champ::{Cid, cbor::Record as _};

use super::{
    Abort, Amount, CollectOptions, Gate, Outcome, OwnerReport, Phase, Progress, ProgressSink,
    lease::Lease,
    link_store::LinkStore,
    mark::{Gaps, Marker},
    pace::Pace,
    roots::{self, Roots},
    state_row::{Baseline, StateRow},
    sweep::{self, Age, Sweep, clear_doomed, deletable},
};
use crate::{
    directory::User,
    state::State,
    store::{Batch, BlockCounts, Generation, tables},
    usage,
};

/// Rows of transactions protect for this long (Spec: 12 §2).
const TRANSACTION_SECONDS: i64 = 86_400;
/// A deleted identity's other writers are kept for this long (Spec: 12 §8).
const DELETED_IDENTITY_SECONDS: i64 = 30 * 86_400;
/// Pointers that are retired in one commit.
const RETIRED_AT_ONCE: usize = 1000;

/// The collection of one owner's blocks.
pub(super) struct Collection<'a> {
    pub(super) state: &'a State,
    pub(super) user: &'a User,
    pub(super) options: &'a CollectOptions,
    /// Now, seconds since 1970.
    pub(super) wall: i64,
    /// Now as far as the age of transactions is concerned.
    pub(super) steady: i64,
    pub(super) progress: &'a ProgressSink<'a>,
    pub(super) report: OwnerReport,
}

impl Collection<'_> {
    /// Collects; what has been done before a failure is in `self.report`.
    pub(super) async fn run(
        &mut self,
        gate: &Gate<'_>,
        lease: &mut Lease,
        pace: &mut Pace,
    ) -> Result<Outcome, Abort> {
        let state = self.state;
        let partition = &self.user.partition;
        // An account that was removed leaves an empty space, and nothing that could be read about it.
        if state.store.block_counts(partition).await?.blocks == 0 {
            return Ok(Outcome::Unchanged);
        }
        let is_changing = !self.options.dry_run;
        let name = self.user.name.as_str().as_bytes();
        let removed = state.store.get(tables::REMOVED, name).await?;
        let is_removed = removed.is_some();
        lease.renew(self.state).await?;
        let prior = self.prior().await?;
        if is_changing {
            clear_doomed(state, &self.user.name).await?;
            self.expire().await?;
            self.retire_pointers(prior.as_ref()).await?;
        }
        let age = match self.age(prior.as_ref()).await? {
            Ok(age) => age,
            Err(outcome) => return Ok(outcome),
        };
        // Accounting still needs the old tree of an update it has not worked out.
        state.usage.catch_up(state, self.user).await?;
        // The order is what makes this safe: blocks that are put from the listing on are no candidates, and what a
        // transaction that ends after its blocks were read protected, a pointer that is read after that reaches.
        let graph = sweep::list(state, partition, pace, |n| self.tell(Phase::Listing, n)).await?;
        self.report.seen = Amount {
            blocks: graph.len() as u64,
            bytes: graph.bytes(),
        };
        let protected = state.store.protected_blocks(partition).await?;
        self.report.in_transactions = protected.len() as u64;
        let mut roots = match is_removed {
            true => self.no_roots().await?,
            false => roots::gather(state, self.user).await?,
        };
        let mut marker = Marker::new(&*state.store, partition, graph);
        let links = LinkStore::load(state, &self.user.name, &mut marker.graph, pace).await?;
        marker.links = is_changing.then_some(links);
        let next = self.next_baseline(&marker, &roots, &protected);
        let marked = self
            .mark(&mut marker, &roots, &protected, prior.as_ref(), pace)
            .await;
        self.report.read = marker.read;
        let needed = marked?;
        self.report.needed = needed.blocks;
        let garbage = deletable(&marker.graph, age);
        if !is_changing {
            self.report.deleted = garbage.into();
            self.count_waiting(needed);
            return Ok(Outcome::Collected);
        }
        let sweep = Sweep {
            state,
            user: self.user,
            gate,
            is_removed,
        };
        let done = AtomicU64::new(0);
        let (report, progress) = (&mut self.report, self.progress);
        let swept = sweep
            .run(&mut marker, &mut roots, age, lease, pace, |deleted| {
                report.deleted.add(deleted.removed.into());
                report.saved += deleted.kept;
                let done = done.fetch_add(deleted.removed.blocks, Ordering::Relaxed);
                progress(&Progress {
                    partition: report.partition.clone(),
                    phase: Phase::Deleting,
                    done: done + deleted.removed.blocks,
                    total: Some(garbage.blocks),
                });
            })
            .await;
        self.report.read = marker.read;
        self.count_waiting(needed);
        swept?;
        let Marker {
            graph,
            learnt,
            links,
            ..
        } = marker;
        if let Some(links) = links {
            links.save(&*state.store, &graph, learnt, pace).await?;
        }
        self.save(prior.as_ref(), next, &roots).await?;
        Ok(Outcome::Collected)
    }

    /// Counts what no pointer reaches and what stays for now.
    fn count_waiting(&mut self, needed: BlockCounts) {
        let (seen, deleted) = (self.report.seen, self.report.deleted);
        let rest = |seen: u64, deleted: u64, needed: u64| {
            seen.saturating_sub(deleted).saturating_sub(needed)
        };
        self.report.waiting = Amount {
            blocks: rest(seen.blocks, deleted.blocks, needed.blocks),
            bytes: rest(seen.bytes, deleted.bytes, needed.bytes),
        };
    }

    fn tell(&self, phase: Phase, done: usize) {
        (self.progress)(&Progress {
            partition: self.report.partition.clone(),
            phase,
            done: done as u64,
            total: None,
        });
    }

    async fn prior(&self) -> Result<Option<StateRow>, Abort> {
        let name = self.user.name.as_str().as_bytes();
        let row = self.state.store.get(tables::GC_STATES, name).await?;
        let row = row.as_deref().map(StateRow::decode).transpose();
        Ok(row.unwrap_or_else(|error| {
            tracing::warn!(%error, "the state of an earlier collection is damaged; starting anew");
            None
        }))
    }

    /// Drops the protection of puts that are too old.
    async fn expire(&self) -> Result<(), Abort> {
        let store = &self.state.store;
        let partition = &self.user.partition;
        // Most owners have no open transaction, and dropping nothing costs a commit.
        if store.protected_blocks(partition).await?.is_empty() {
            return Ok(());
        }
        let before = self.steady.saturating_sub(TRANSACTION_SECONDS);
        let before = Duration::from_secs(u64::try_from(before).unwrap_or(0));
        store
            .expire_transactions(partition, UNIX_EPOCH + before)
            .await?;
        Ok(())
    }

    /// Decides how young a block must be to stay although nothing needs it, or why there is nothing to do.
    async fn age(&mut self, prior: Option<&StateRow>) -> Result<Result<Age, Outcome>, Abort> {
        if self.options.now {
            return Ok(Ok(Age::Any));
        }
        let Some(prior) = prior else {
            return Ok(Ok(Age::Nothing));
        };
        if !self.options.all && self.is_unchanged(prior).await? {
            self.report.seen = prior.left.into();
            self.report.needed = prior.left.blocks;
            return Ok(Err(Outcome::Unchanged));
        }
        let passed = self.wall.saturating_sub(prior.baseline.at);
        let grace = i64::try_from(self.state.config.collection.grace.as_secs());
        let grace = grace.unwrap_or(i64::MAX);
        if passed >= grace {
            return Ok(Ok(Age::UpTo(prior.baseline.newest)));
        }
        // A clock that was set back must not put this off for ever.
        if passed < 0 || self.options.dry_run || self.options.all {
            return Ok(Ok(Age::Nothing));
        }
        self.report.seen = prior.left.into();
        self.report.waiting = prior.waiting.into();
        Ok(Err(Outcome::Waiting {
            seconds: grace.saturating_sub(passed),
        }))
    }

    /// True when the last collection left nothing to do, and nothing has happened since.
    async fn is_unchanged(&self, prior: &StateRow) -> Result<bool, Abort> {
        let store = &self.state.store;
        let partition = &self.user.partition;
        let name = self.user.name.as_str().as_bytes();
        let is_same = prior.waiting == BlockCounts::default()
            && store.block_counts(partition).await? == prior.left
            && store.get(tables::POINTER_EPOCHS, name).await? == prior.epoch
            && store.get(tables::REMOVED, name).await?.is_none();
        Ok(is_same && store.protected_blocks(partition).await?.is_empty())
    }

    async fn no_roots(&self) -> Result<Roots, Abort> {
        let name = self.user.name.as_str().as_bytes();
        Ok(Roots {
            epoch: self.state.store.get(tables::POINTER_EPOCHS, name).await?,
            ..Roots::default()
        })
    }

    /// Marks everything that must stay, and returns how much of it pointers reach.
    async fn mark(
        &self,
        marker: &mut Marker<'_>,
        roots: &Roots,
        protected: &[Cid],
        prior: Option<&StateRow>,
        pace: &mut Pace,
    ) -> Result<BlockCounts, Abort> {
        self.tell(Phase::Marking, 0);
        for target in &roots.targets {
            marker.root(target, Gaps::Refuse, pace).await?;
        }
        let needed = marker.marked;
        for target in &roots.accounted {
            marker.root(target, Gaps::Refuse, pace).await?;
        }
        // An upload under way may build on blocks that it has not put again.
        for cid in protected {
            marker.root(cid, Gaps::Allow, pace).await?;
        }
        // Somebody may still read what was current a moment ago.
        let recent = prior.filter(|_| !self.options.now);
        for target in recent.iter().flat_map(|prior| &prior.baseline.targets) {
            marker.root(target, Gaps::Allow, pace).await?;
        }
        Ok(needed)
    }

    /// Returns the moment that the next collection measures from: that of these roots.
    fn next_baseline(&self, marker: &Marker<'_>, roots: &Roots, protected: &[Cid]) -> Baseline {
        let graph = &marker.graph;
        let newest = graph.newest().unwrap_or_default();
        // What is in a transaction now may be committed, and replaced, before the next collection.
        let open = protected
            .iter()
            .filter_map(|cid| graph.generation(graph.find(cid)?));
        let newest = open.min().map_or(newest, |oldest| {
            Generation(oldest.0.saturating_sub(1)).min(newest)
        });
        Baseline {
            at: self.wall,
            newest,
            targets: roots.targets.clone(),
        }
    }

    async fn save(
        &self,
        prior: Option<&StateRow>,
        baseline: Baseline,
        roots: &Roots,
    ) -> Result<(), Abort> {
        let deleted_since = prior.and_then(|prior| prior.deleted_since);
        let row = StateRow {
            finished: self.wall,
            baseline,
            epoch: roots.epoch.clone(),
            left: BlockCounts {
                blocks: self
                    .report
                    .seen
                    .blocks
                    .saturating_sub(self.report.deleted.blocks),
                bytes: self
                    .report
                    .seen
                    .bytes
                    .saturating_sub(self.report.deleted.bytes),
            },
            waiting: BlockCounts {
                blocks: self.report.waiting.blocks,
                bytes: self.report.waiting.bytes,
            },
            deleted_since: roots
                .is_identity_deleted
                .then(|| deleted_since.unwrap_or(self.steady)),
        };
        let name = self.user.name.as_str().as_bytes().to_vec();
        let batch = Batch::new().put(tables::GC_STATES, name, row.encode());
        let _ = self.state.store.commit(batch).await?;
        Ok(())
    }

    /// Drops the pointers of a user who deleted the identity long ago, so that their blocks can go.
    async fn retire_pointers(&self, prior: Option<&StateRow>) -> Result<(), Abort> {
        let is_due = |since: i64| self.steady.saturating_sub(since) >= DELETED_IDENTITY_SECONDS;
        if !prior
            .and_then(|prior| prior.deleted_since)
            .is_some_and(is_due)
        {
            return Ok(());
        }
        let roots = roots::gather(self.state, self.user).await?;
        if !roots.is_identity_deleted {
            return Ok(());
        }
        let identity = self.user.identity.as_writer();
        let others: Vec<_> = roots
            .writers
            .iter()
            .filter_map(|(writer, stored)| Some((writer, stored.as_ref()?)))
            .filter(|(writer, _)| **writer != identity)
            .collect();
        for some in others.chunks(RETIRED_AT_ONCE) {
            let batch = super::note_change(Batch::new(), self.user.name.as_str());
            let writers: Vec<_> = some.iter().map(|(writer, _)| *writer).collect();
            let mut batch = usage::drop_writers(self.state, self.user, &writers, batch).await?;
            for (writer, stored) in some {
                let key = writer.cid().to_bytes();
                let mut kept = self.user.name.as_str().as_bytes().to_vec();
                kept.push(0);
                kept.extend_from_slice(&key);
                batch = batch
                    .expect(tables::POINTERS, key.clone(), Some((*stored).clone()))
                    .remove(tables::POINTERS, key)
                    .put(tables::RETIRED_POINTERS, kept, (*stored).clone());
            }
            if !self.state.store.commit(batch).await?.is_committed() {
                return Err(Abort::Busy);
            }
        }
        self.state.usage.forget_idle(self.user);
        if !others.is_empty() {
            tracing::info!(
                user = self.user.name.as_str(),
                writers = others.len(),
                "dropped the pointers of an account whose identity was deleted a month ago"
            );
        }
        Ok(())
    }
}
