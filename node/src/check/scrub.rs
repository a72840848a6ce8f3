//! The scrub: every stored block is read and hashed again and again, slowly, so that a bad disk is found out while
//! there are still good copies elsewhere (Spec: 40 REL-14).
//!
//! One pass goes through all blocks at a bounded rate and remembers after every page how far it is, so a restart
//! goes on where it was. Passes start a period apart, give or take a sixth of it: nodes that were set up together
//! do not keep their disks busy together.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{
    Finding,
    blocks::{self, Depth, Position},
};
use crate::{
    mirror,
    random::random,
    state::State,
    store::{Batch, Store, StoreError, tables},
    workers::WorkerError,
};

/// Row of the node's own table that remembers the scrub.
const ROW: &[u8] = b"scrub";
/// Damaged blocks that are remembered by name.
const MAX_REMEMBERED: usize = 1_000;
/// Blocks read in one step: the rate is kept from step to step, and a foreground read never waits for more.
const STEP_BLOCKS: usize = 32;
/// Steps between two writes of the position.
const STEPS_PER_SAVE: u64 = 16;
/// Longest wait between two looks at the clock.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// How to scrub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Time from the start of one pass to the start of the next; zero never scrubs.
    pub period: Duration,
    /// Most bytes read per second.
    pub bytes_per_second: u64,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(30 * 86_400),
            bytes_per_second: 8 << 20,
        }
    }
}

/// The result of a finished pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubResult {
    /// When it ended, seconds since 1970.
    pub finished_seconds: i64,
    /// Blocks read.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that were damaged.
    pub damaged: u64,
    /// Those of them that other nodes had good copies of.
    #[serde(default)]
    pub healed: u64,
}

/// What is known of the scrub; kept over restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubState {
    /// When the next pass starts, seconds since 1970; `None` while one is under way.
    pub due_seconds: Option<i64>,
    /// When the pass under way started.
    pub started_seconds: i64,
    /// How far it is.
    pub position: Position,
    /// Blocks read in it.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks found damaged in it.
    pub damaged: u64,
    /// Those of them that other nodes had good copies of.
    #[serde(default)]
    pub healed: u64,
    /// The others, at most a thousand.
    pub findings: Vec<Finding>,
    /// The last pass that came to its end.
    pub last: Option<ScrubResult>,
}

/// The scrub of one store.
#[derive(Debug, Default)]
pub struct Scrub {
    state: Mutex<Option<ScrubState>>,
    /// Ends a wait: there is something new to do.
    wake: Notify,
}

/// What to do after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait this long, then step again.
    After(Duration),
    /// Never step again.
    Never,
}

impl Scrub {
    /// Returns what is known; `None` before the first step.
    pub fn state(&self) -> Option<ScrubState> {
        self.state.lock().clone()
    }

    /// Returns what is known, also by a node that has not scrubbed since it was started.
    ///
    /// # Errors
    /// Failures of the disk.
    pub async fn remembered(&self, store: &dyn Store) -> Result<Option<ScrubState>, StoreError> {
        if let Some(state) = self.state() {
            return Ok(Some(state));
        }
        let row = store.get(tables::NODE, ROW).await?;
        Ok(row.and_then(|row| serde_json::from_slice(&row).ok()))
    }

    /// Reads the next few blocks if a pass is due or under way, and says when to come back. `dice` is a random
    /// number: it spreads the starts of passes.
    ///
    /// Dropping the future is safe: these blocks are read again.
    ///
    /// # Errors
    /// Failures of the disk that are not those of a single block.
    pub async fn step(
        &self,
        store: &dyn Store,
        options: ScrubOptions,
        now_seconds: i64,
        dice: u64,
    ) -> Result<Next, StoreError> {
        if options.period.is_zero() {
            return Ok(Next::Never);
        }
        let mut state = self.loaded(store, options, now_seconds, dice).await?;
        if let Some(due) = state.due_seconds {
            if now_seconds < due {
                let left = Duration::from_secs(due.abs_diff(now_seconds));
                *self.state.lock() = Some(state);
                return Ok(Next::After(left.min(MAX_WAIT)));
            }
            state = ScrubState {
                started_seconds: now_seconds,
                last: state.last,
                ..ScrubState::default()
            };
            tracing::info!("scrub: a pass over all blocks starts");
        }
        let page = blocks::page(store, None, Depth::Bytes, &state.position, STEP_BLOCKS).await?;
        let is_new_space = state.position.partition != page.position.partition;
        state.position = page.position;
        state.blocks += page.blocks;
        state.bytes += page.bytes;
        let has_findings = !page.findings.is_empty();
        for finding in page.findings {
            tracing::error!(
                kind = finding.kind.words(),
                user = finding.user.as_deref().unwrap_or_default(),
                cid = finding.cid.as_deref().unwrap_or_default(),
                "scrub: nodes with copies are asked; `kastro repair` looks elsewhere"
            );
            state.damaged += 1;
            if state.findings.len() < MAX_REMEMBERED {
                state.findings.push(finding);
            }
        }
        let is_end = state.position.is_end;
        if is_end {
            state.last = Some(ScrubResult {
                finished_seconds: now_seconds,
                blocks: state.blocks,
                bytes: state.bytes,
                damaged: state.damaged,
                healed: state.healed,
            });
            let next = spread(options.period, dice);
            state.due_seconds = Some(state.started_seconds.saturating_add(next).max(now_seconds));
            tracing::info!(
                blocks = state.blocks,
                bytes = state.bytes,
                damaged = state.damaged,
                "scrub: the pass is complete"
            );
        }
        let steps = state.blocks / STEP_BLOCKS as u64;
        if is_end || has_findings || is_new_space || steps.is_multiple_of(STEPS_PER_SAVE) {
            save(store, &state).await?;
        }
        *self.state.lock() = Some(state);
        let rate = options.bytes_per_second.max(1);
        let millis = page.bytes.saturating_mul(1000) / rate;
        Ok(Next::After(Duration::from_millis(millis)))
    }

    async fn loaded(
        &self,
        store: &dyn Store,
        options: ScrubOptions,
        now_seconds: i64,
        dice: u64,
    ) -> Result<ScrubState, StoreError> {
        if let Some(state) = self.remembered(store).await? {
            return Ok(state);
        }
        // A new node has nothing to scrub yet.
        let state = ScrubState {
            due_seconds: Some(now_seconds.saturating_add(spread(options.period, dice))),
            ..ScrubState::default()
        };
        save(store, &state).await?;
        Ok(state)
    }

    /// Makes the next step start a pass at once.
    ///
    /// # Errors
    /// Failures of the disk.
    pub async fn start_now(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut state = self.remembered(store).await?.unwrap_or_default();
        if state.due_seconds.is_some() {
            state.due_seconds = Some(0);
        }
        save(store, &state).await?;
        *self.state.lock() = Some(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Looks again at once at what is damaged: somebody who may have good copies has been heard of.
    pub(crate) fn look_again(&self) {
        self.wake.notify_one();
    }

    /// Notes findings that are settled.
    async fn settle(&self, store: &dyn Store, settled: &[Finding]) -> Result<(), StoreError> {
        if settled.is_empty() {
            return Ok(());
        }
        let mut state = self.remembered(store).await?.unwrap_or_default();
        state.findings.retain(|finding| !settled.contains(finding));
        let count = settled.len() as u64;
        // A pass that is over has its own count.
        match &mut state.last {
            Some(last) if state.due_seconds.is_some() => last.healed += count,
            _ => state.healed += count,
        }
        save(store, &state).await?;
        *self.state.lock() = Some(state);
        Ok(())
    }
}

impl ScrubState {
    /// Returns one line for the health page.
    pub(crate) fn summary(&self, now_seconds: i64) -> String {
        let days = |seconds: i64| seconds.max(0) / 86_400;
        let last = match &self.last {
            None => "no pass is complete yet".to_owned(),
            Some(last) => format!(
                "last pass {} days ago: {} blocks, {} damaged",
                days(now_seconds.saturating_sub(last.finished_seconds)),
                last.blocks,
                last.damaged
            ),
        };
        match self.due_seconds {
            Some(due) => format!("next pass in {} days; {last}", days(due - now_seconds)),
            None => format!(
                "{} blocks read, {} damaged; {last}",
                self.blocks, self.damaged
            ),
        }
    }
}

/// Starts the worker that scrubs. Blocks in a store of somebody else are left to that one: reading all of them over
/// the network would cost more than it finds.
pub(crate) fn start(state: &Arc<State>) {
    if state.store.upkeep().is_none() {
        return;
    }
    let state = Arc::clone(state);
    let workers = state.workers.clone();
    workers.spawn("scrub", move |run| {
        let state = Arc::clone(&state);
        async move {
            let mut healing = Healing::default();
            loop {
                let now = state.clock.now_seconds();
                let dice = u64::from_be_bytes(random());
                let next = state
                    .scrub
                    .step(&*state.store, state.config.scrub, now, dice);
                let Next::After(wait) = next.await? else {
                    return Ok(());
                };
                tokio::select! {
                    done = healing.step(&state, now) => done?,
                    () = run.stopping() => return Ok(()),
                }
                if let Some(known) = state.scrub.state() {
                    run.note(known.summary(now));
                }
                tokio::select! {
                    goes_on = run.pause(wait.min(healing.wait())) => if !goes_on {
                        return Ok(());
                    },
                    () = state.scrub.wake.notified() => healing.is_due = true,
                }
            }
        }
    });
}

/// Wait before nodes are asked again for good copies that nobody had: the first, which doubles each time, and the last.
const ASK_AGAIN_SECONDS: (i64, i64) = (60, 3600);

/// When other nodes are asked for good copies of what is damaged.
#[derive(Default)]
struct Healing {
    /// Asked at once.
    is_due: bool,
    /// Findings that nobody could help with.
    known: usize,
    wait_seconds: i64,
    next_seconds: i64,
}

impl Healing {
    async fn step(&mut self, state: &Arc<State>, now: i64) -> Result<(), WorkerError> {
        let findings = state.scrub.state().map(|known| known.findings);
        let findings = findings.unwrap_or_default();
        let is_due = self.is_due || findings.len() > self.known || now >= self.next_seconds;
        if findings.is_empty() || !is_due {
            return Ok(());
        }
        let settled = mirror::heal(state, &findings).await?;
        state.scrub.settle(&*state.store, &settled).await?;
        let (first, last) = ASK_AGAIN_SECONDS;
        let wait_seconds = match settled.is_empty() {
            true => (self.wait_seconds * 2).clamp(first, last),
            false => first,
        };
        *self = Self {
            is_due: false,
            known: findings.len() - settled.len(),
            wait_seconds,
            next_seconds: now.saturating_add(wait_seconds),
        };
        Ok(())
    }

    /// Longest time until the next step.
    fn wait(&self) -> Duration {
        match self.known {
            0 => MAX_WAIT,
            _ => Duration::from_secs(self.wait_seconds.unsigned_abs()),
        }
    }
}

async fn save(store: &dyn Store, state: &ScrubState) -> Result<(), StoreError> {
    let row = serde_json::to_vec(state).unwrap_or_default();
    let batch = Batch::new().put(tables::NODE, ROW, row);
    let _ = store.commit(batch).await?;
    Ok(())
}

/// Returns the period in seconds, give or take a sixth.
fn spread(period: Duration, dice: u64) -> i64 {
    let seconds = period.as_secs();
    let range = seconds / 3;
    let low = seconds - range / 2;
    i64::try_from(low + dice % (range + 1)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rel_14_passes_are_spread_over_a_third_of_the_period() {
        let period = Duration::from_secs(30 * 86_400);
        let days = |dice| spread(period, dice) / 86_400;
        assert_eq!(days(0), 25);
        assert_eq!(days(10 * 86_400), 35);
        assert!((0..1000).all(|n| (25..=35).contains(&days(n * 7_919_113))));
        assert_eq!(spread(Duration::from_secs(1), 5), 1);
    }
}
