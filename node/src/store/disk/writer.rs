//! The writer thread: merges whatever waits into one transaction and one flush (group commit).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    database::{DatabaseCell, Flush},
    fault::io_fault,
    files::BlockFiles,
    group::{Answer, Group, Operation},
    layout::BlockFile,
    protected::Protected,
};
use crate::store::{StoreError, archive::Holds};

/// Most operations in one group.
const MAX_GROUP_JOBS: usize = 512;
/// Most bytes that one group writes into the database, unless a single operation is larger.
const MAX_GROUP_BYTES: usize = 8 << 20;
/// After this long without work the database is settled, which empties the log.
const QUIET: Duration = Duration::from_secs(2);
/// Places in the queue; the budget of the engine keeps it from filling up.
pub(super) const QUEUE_JOBS: usize = 1024;

/// An operation and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) operation: Operation,
    pub(super) reply: oneshot::Sender<Result<Answer, Failure>>,
}

/// Why an operation failed.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// Before anything reached the database: it has not happened.
    Before(StoreError),
    /// While the database worked on it: it may have happened.
    Undecided(StoreError),
}

enum Message {
    Job(Job),
    /// Files that have been removed: their notes can go.
    Removed(Vec<BlockFile>),
}

/// The handle of the writer thread; dropping it drains the queue and joins the thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Mutex<Option<SyncSender<Message>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts the thread; `removed` are files that were found removed at start.
    pub(super) fn start(
        database: Arc<DatabaseCell>,
        files: Arc<BlockFiles>,
        holds: Arc<Holds>,
        removed: Vec<BlockFile>,
    ) -> Result<Self, StoreError> {
        let (queue, jobs) = sync_channel(QUEUE_JOBS * 2);
        let worker = Worker {
            database,
            files,
            holds,
            removed,
            protected: Protected::default(),
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || worker.run(&jobs))
            .map_err(|error| io_fault("start", "writer thread".as_ref(), error))?;
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues a job; the permits bound how many there are, so there is always room.
    pub(super) fn submit(&self, job: Job) -> Result<(), StoreError> {
        let queue = self.queue.lock();
        let queue = queue.as_ref().ok_or(StoreError::Closed)?;
        queue
            .try_send(Message::Job(job))
            .map_err(|_| StoreError::Closed)
    }

    /// Says that files have been removed. When it gets lost, the next start finds out.
    pub(super) fn removed(&self, files: Vec<BlockFile>) {
        if let Some(queue) = self.queue.lock().as_ref() {
            let _ = queue.try_send(Message::Removed(files));
        }
    }

    /// Finishes everything that is queued and ends the thread.
    pub(super) fn stop(&self) {
        drop(self.queue.lock().take());
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the writer thread panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Worker {
    database: Arc<DatabaseCell>,
    files: Arc<BlockFiles>,
    holds: Arc<Holds>,
    removed: Vec<BlockFile>,
    protected: Protected,
}

impl Worker {
    fn run(mut self, queue: &Receiver<Message>) {
        let mut is_settled = false;
        loop {
            let first = if is_settled {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(QUIET)
            };
            match first {
                Ok(first) => {
                    let jobs = self.gather(first, queue);
                    self.commit(jobs);
                    is_settled = false;
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.settle();
                    is_settled = true;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.settle();
                    return;
                }
            }
        }
    }

    /// Takes what waits behind `first`, up to the limits of a group.
    fn gather(&mut self, first: Message, queue: &Receiver<Message>) -> Vec<Job> {
        let mut jobs = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Job(job) => {
                    bytes += job.operation.database_bytes();
                    jobs.push(job);
                }
                Message::Removed(files) => self.removed.extend(files),
            }
            let has_room = jobs.len() < MAX_GROUP_JOBS && bytes < MAX_GROUP_BYTES;
            next = if has_room {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        jobs
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let jobs = self.sync_runs(jobs);
        if jobs.is_empty() {
            return;
        }
        if let Err(error) = self.database.check_writable() {
            for job in jobs {
                job.finish(Err(Failure::Before(error.clone())));
            }
            return;
        }
        match self.transact(&jobs, Flush::Log) {
            Ok(answers) => {
                for (job, answer) in jobs.into_iter().zip(answers) {
                    job.finish(Ok(answer));
                }
            }
            // One operation tripped over a damaged row: the others need not suffer.
            Err(StoreError::DamagedRow { .. }) if jobs.len() > 1 => {
                for job in jobs {
                    self.commit(vec![job]);
                }
            }
            Err(error) => {
                for job in jobs {
                    job.finish(Err(Failure::Undecided(error.clone())));
                }
            }
        }
    }

    /// Flushes the folders with new files, each once; jobs whose folder fails are answered and left out.
    fn sync_runs(&self, jobs: Vec<Job>) -> Vec<Job> {
        let mut runs = BTreeMap::new();
        let mut ready = Vec::with_capacity(jobs.len());
        for job in jobs {
            let outcome = job.operation.runs().try_for_each(|run| {
                let sync = || self.files.sync_run(run);
                runs.entry(run).or_insert_with(sync).clone()
            });
            match outcome {
                Ok(()) => ready.push(job),
                Err(error) => job.finish(Err(Failure::Before(error))),
            }
        }
        ready
    }

    fn transact(&mut self, jobs: &[Job], flush: Flush) -> Result<Vec<Answer>, StoreError> {
        let (files, holds) = (&self.files, &self.holds);
        let (removed, protected) = (&self.removed, &mut self.protected);
        let answers = self.database.write(flush, |transaction, changes| {
            let mut group = Group::open(transaction, files, holds, changes, protected)?;
            group.forget(removed)?;
            let operations = jobs.iter().map(|job| group.apply(&job.operation));
            let answers = operations.collect::<Result<_, _>>()?;
            group.finish()?;
            Ok(answers)
        });
        match answers {
            Ok(answers) => {
                self.removed.clear();
                self.protected.trim();
                Ok(answers)
            }
            Err(error) => {
                self.protected.forget();
                Err(error)
            }
        }
    }

    fn settle(&mut self) {
        if self.removed.is_empty() && self.database.is_settled() {
            return;
        }
        if let Err(error) = self.transact(&[], Flush::Settle) {
            tracing::warn!(%error, "cannot settle the database; the log keeps what is not in it");
        }
    }
}

impl Job {
    fn finish(self, result: Result<Answer, Failure>) {
        // Nobody may be waiting any more.
        let _ = self.reply.send(result);
    }
}

impl Failure {
    /// Returns the error for the caller.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Before(error) | Self::Undecided(error) => error,
        }
    }
}
