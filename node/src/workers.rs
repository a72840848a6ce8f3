//! Background workers: started by name, restarted when they fail or panic, stopped together (Spec: 40 DOS-13).
//!
//! A worker is a function that makes a future; every call of it is one *run*. A run that ends well ends the worker
//! (or, for [`Workers::every`], waits for the next turn); a run that fails or panics is reported and started again
//! after a wait that doubles each time. So one bad block or one bug in the garbage collector never takes the
//! service down, and never goes unnoticed: [`Workers::list`] is part of the health page.
//!
//! Invariant: after [`Workers::stop`] no worker runs any more.

use std::{
    any::Any, collections::BTreeMap, fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{sync::watch, task::JoinSet, time::Instant};

use crate::error::chain;

/// Wait before the first restart; doubles with each failure in a row.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait before a restart.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// A run that lasted this long counts as healthy: the next failure waits [`FIRST_WAIT`] again.
const HEALTHY_AFTER: Duration = Duration::from_secs(600);
/// Longest error or note that is kept, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// Why a run failed. Its text reaches the log and the health page: no secrets, names or tokens in it.
pub type WorkerError = Box<dyn std::error::Error + Send + Sync>;

/// The background workers of one node. Clones are handles to the same set.
#[derive(Clone)]
pub struct Workers {
    inner: Arc<Inner>,
}

struct Inner {
    stop: watch::Sender<bool>,
    board: Board,
    tasks: Mutex<JoinSet<()>>,
}

/// What is known of every worker, by name.
type Board = Arc<Mutex<BTreeMap<&'static str, Entry>>>;

/// What a run is given: the signal to stop, and a place to say how far it is.
#[derive(Clone)]
pub struct Run {
    name: &'static str,
    stop: watch::Receiver<bool>,
    board: Board,
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Phase {
    /// A run is under way.
    Running,
    /// Waits for its next turn.
    Idle,
    /// Failed, and waits before it is started again.
    Failed,
    /// Ended for good.
    Done,
}

/// One worker, as shown on the health page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Its name, fixed in the code.
    pub name: &'static str,
    /// What it is doing.
    pub phase: Phase,
    /// Whole seconds since it began to do so.
    pub seconds: u64,
    /// Runs begun since the node started.
    pub runs: u64,
    /// Runs that failed, panics included.
    pub failures: u64,
    /// Runs that panicked.
    pub panics: u64,
    /// Why the last failed run failed; `None` after a run that ended well.
    pub last_error: Option<String>,
    /// What the worker last said about itself.
    pub note: Option<String>,
}

struct Entry {
    phase: Phase,
    since: Instant,
    runs: u64,
    failures: u64,
    panics: u64,
    last_error: Option<String>,
    note: Option<String>,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                stop: watch::Sender::new(false),
                board: Board::default(),
                tasks: Mutex::new(JoinSet::new()),
            }),
        }
    }
}

impl Workers {
    /// Starts a worker that runs until it returns `Ok`, and again after every failure.
    ///
    /// `work` is called once per run. A worker that keeps the node alive (an `Arc` of its state) is fine as long as
    /// somebody calls [`Self::stop`]. Does nothing after [`Self::stop`].
    pub fn spawn<W, F>(&self, name: &'static str, work: W)
    where
        W: FnMut(Run) -> F + Send + 'static,
        F: Future<Output = Result<(), WorkerError>> + Send + 'static,
    {
        self.start(name, None, work);
    }

    /// Starts a worker whose runs begin `interval` after the end of the run before; the first begins `interval`
    /// after this call.
    pub fn every<W, F>(&self, name: &'static str, interval: Duration, work: W)
    where
        W: FnMut(Run) -> F + Send + 'static,
        F: Future<Output = Result<(), WorkerError>> + Send + 'static,
    {
        self.start(name, Some(interval), work);
    }

    fn start<W, F>(&self, name: &'static str, interval: Option<Duration>, work: W)
    where
        W: FnMut(Run) -> F + Send + 'static,
        F: Future<Output = Result<(), WorkerError>> + Send + 'static,
    {
        let mut tasks = self.inner.tasks.lock();
        if *self.inner.stop.borrow() {
            return;
        }
        let run = Run {
            name,
            stop: self.inner.stop.subscribe(),
            board: Arc::clone(&self.inner.board),
        };
        run.board.lock().insert(name, Entry::new());
        tasks.spawn(supervise(run, interval, work));
    }

    /// Returns every worker ever started, by name.
    pub fn list(&self) -> Vec<WorkerStatus> {
        let now = Instant::now();
        let board = self.inner.board.lock();
        board
            .iter()
            .map(|(name, entry)| WorkerStatus {
                name,
                phase: entry.phase,
                seconds: now.saturating_duration_since(entry.since).as_secs(),
                runs: entry.runs,
                failures: entry.failures,
                panics: entry.panics,
                last_error: entry.last_error.clone(),
                note: entry.note.clone(),
            })
            .collect()
    }

    /// Tells all workers to stop, waits for them up to `grace`, and cuts off the rest.
    ///
    /// Dropping the future midway leaves the signal given; call it again to wait.
    pub async fn stop(&self, grace: Duration) {
        self.inner.stop.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock());
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, ended).await.is_err() {
            tracing::warn!(
                workers = tasks.len(),
                "cutting off workers that did not stop"
            );
            tasks.shutdown().await;
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

impl Run {
    /// Returns true when the worker should return at its next safe point.
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Resolves when the worker should stop. Dropping it is safe.
    pub async fn stopping(&self) {
        // An error means that the set of workers is gone, which is the same order.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }

    /// Waits; returns false at once when the worker should stop instead.
    pub async fn pause(&self, time: Duration) -> bool {
        tokio::select! {
            () = self.stopping() => false,
            () = tokio::time::sleep(time) => !self.is_stopping(),
        }
    }

    /// Says on the health page how far the worker is, for example `12000 of 90000 blocks`.
    pub fn note(&self, text: impl Into<String>) {
        self.update(|entry| entry.note = Some(cut(text.into())));
    }

    fn update(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.board.lock().get_mut(self.name) {
            change(entry);
        }
    }

    fn enter(&self, phase: Phase) {
        self.update(|entry| {
            entry.phase = phase;
            entry.since = Instant::now();
        });
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Entry {
    fn new() -> Self {
        Self {
            phase: Phase::Idle,
            since: Instant::now(),
            runs: 0,
            failures: 0,
            panics: 0,
            last_error: None,
            note: None,
        }
    }
}

async fn supervise<W, F>(run: Run, interval: Option<Duration>, mut work: W)
where
    W: FnMut(Run) -> F + Send + 'static,
    F: Future<Output = Result<(), WorkerError>> + Send + 'static,
{
    let mut wait = FIRST_WAIT;
    let mut is_first = true;
    loop {
        if let Some(interval) = interval
            && std::mem::take(&mut is_first)
            && !run.pause(interval).await
        {
            break;
        }
        if run.is_stopping() {
            break;
        }
        run.enter(Phase::Running);
        run.update(|entry| entry.runs += 1);
        let begun = Instant::now();
        // The call itself may panic too, so it is made inside the future that is watched.
        let outcome = AssertUnwindSafe(async { work(run.clone()).await })
            .catch_unwind()
            .await;
        let (is_panic, text) = match outcome {
            Ok(Ok(())) => {
                run.update(|entry| entry.last_error = None);
                wait = FIRST_WAIT;
                let Some(interval) = interval else { break };
                run.enter(Phase::Idle);
                if run.pause(interval).await {
                    continue;
                }
                break;
            }
            Ok(Err(error)) => (false, cut(chain(error.as_ref()))),
            Err(payload) => (true, cut(panic_text(payload.as_ref()))),
        };
        if begun.elapsed() >= HEALTHY_AFTER {
            wait = FIRST_WAIT;
        }
        tracing::error!(
            worker = run.name,
            panicked = is_panic,
            error = %text,
            restart_seconds = wait.as_secs(),
            "a background worker failed"
        );
        run.update(|entry| {
            entry.failures += 1;
            entry.panics += u64::from(is_panic);
            entry.last_error = Some(text);
        });
        run.enter(Phase::Failed);
        if !run.pause(wait).await {
            break;
        }
        wait = MAX_WAIT.min(wait * 2);
    }
    run.enter(Phase::Done);
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("no message"))
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn status(workers: &Workers) -> WorkerStatus {
        workers.list().remove(0)
    }

    #[tokio::test(start_paused = true)]
    async fn dos_13_a_worker_that_panics_is_restarted_and_reported() {
        let workers = Workers::default();
        let runs = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&runs);
        workers.spawn("gc", move |run| {
            let turn = counted.fetch_add(1, Ordering::SeqCst);
            assert!(turn != 1, "panics before it has a future");
            async move {
                match turn {
                    0 => panic!("a bug"),
                    2 => Err("no disk".into()),
                    _ => {
                        run.note("at work");
                        run.stopping().await;
                        Ok(())
                    }
                }
            }
        });
        let begun = Instant::now();
        while runs.load(Ordering::SeqCst) < 4 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // 1 + 2 + 4 seconds of waiting.
        assert_eq!(begun.elapsed().as_secs(), 7);
        let seen = status(&workers);
        assert_eq!((seen.name, seen.phase), ("gc", Phase::Running));
        assert_eq!((seen.runs, seen.failures, seen.panics), (4, 3, 2));
        assert_eq!(seen.last_error.as_deref(), Some("no disk"));
        assert_eq!(seen.note.as_deref(), Some("at work"));
        workers.stop(Duration::from_secs(1)).await;
        assert_eq!(status(&workers).phase, Phase::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_between_restarts_doubles_up_to_five_minutes() {
        let workers = Workers::default();
        let starts = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&starts);
        workers.spawn("scrub", move |_| {
            noted.lock().push(Instant::now());
            async { Err("again".into()) }
        });
        tokio::time::sleep(Duration::from_secs(2000)).await;
        let starts = starts.lock().clone();
        let waits: Vec<u64> = starts
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs())
            .collect();
        assert_eq!(waits[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(waits[10..].iter().all(|wait| *wait == 300));
        workers.stop(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn regular_work_keeps_its_interval_and_clears_its_error() {
        let workers = Workers::default();
        let runs = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&runs);
        workers.every("expiry", Duration::from_secs(60), move |_| {
            let turn = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                if turn == 0 {
                    Err("once".into())
                } else {
                    Ok(())
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(60_500)).await;
        assert_eq!(status(&workers).phase, Phase::Failed);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let seen = status(&workers);
        assert_eq!(
            (seen.phase, seen.runs, seen.last_error),
            (Phase::Idle, 2, None)
        );
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        workers.stop(Duration::ZERO).await;
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_cuts_off_who_does_not_listen_and_admits_no_more() {
        let workers = Workers::default();
        workers.spawn("deaf", |_| async { std::future::pending().await });
        tokio::task::yield_now().await;
        workers.stop(Duration::from_secs(5)).await;
        workers.spawn("late", |_| async { Ok(()) });
        assert_eq!(workers.list().len(), 1);
    }
}
