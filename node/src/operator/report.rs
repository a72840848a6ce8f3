//! What an operation says while it runs: progress, which may be lost, and items, which may not.

use std::future::Future;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use super::Failed;

/// Events that wait for their reader; then items wait too and progress is dropped.
const MAX_WAITING: usize = 64;

/// How far an operation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, for people: `reading blocks of alice`.
    pub stage: String,
    /// Units done in this stage.
    pub done: u64,
    /// Units there are, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// What is counted.
    pub unit: Unit,
}

/// What progress counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: blocks, users, rows.
    Items,
}

/// Something an operation says before its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// How far it is; replaces what was said before.
    Progress(Progress),
    /// One of many results; its form belongs to the operation.
    Item(Value),
}

/// One line of a streamed answer: any number of the first two, then one of the last two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// How far it is.
    Progress(Progress),
    /// One of many results.
    Item(Value),
    /// The end: it is done.
    Result(Value),
    /// The end: it is not.
    Failed(Failed),
}

impl From<Event> for Line {
    fn from(event: Event) -> Self {
        match event {
            Event::Progress(progress) => Self::Progress(progress),
            Event::Item(item) => Self::Item(item),
        }
    }
}

/// Where an operation reports to.
#[derive(Debug, Clone)]
pub struct Report(mpsc::Sender<Event>);

impl Report {
    /// Makes a report and what reads it.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Self(sender), receiver)
    }

    /// Makes a report that nobody reads: for work that runs on its own.
    pub fn silent() -> Self {
        Self::channel().0
    }

    /// Tells how far the work is; cheap, and dropped when the reader is slow.
    pub fn progress(&self, stage: &str, done: u64, total: Option<u64>, unit: Unit) {
        if self.0.capacity() == 0 || self.0.is_closed() {
            return;
        }
        let _ = self.0.try_send(Event::Progress(Progress {
            stage: stage.to_owned(),
            done,
            total,
            unit,
        }));
    }

    /// Tells one of many results; waits for a slow reader.
    pub async fn item(&self, item: &impl Serialize) {
        if let Ok(item) = serde_json::to_value(item) {
            // Whoever went away wants no more.
            let _ = self.0.send(Event::Item(item)).await;
        }
    }
}

/// Runs an operation to its end and hands every event to `on_event` as it comes.
///
/// # Errors
/// The operation's, and what `on_event` returns, which cancels the operation.
pub async fn follow<T, E>(
    work: impl Future<Output = T>,
    mut events: mpsc::Receiver<Event>,
    mut on_event: impl FnMut(Event) -> Result<(), E>,
) -> Result<T, E> {
    tokio::pin!(work);
    let outcome = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => on_event(event)?,
            outcome = &mut work => break outcome,
        }
    };
    while let Ok(event) = events.try_recv() {
        on_event(event)?;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn no_item_is_lost_and_progress_never_waits() {
        let (report, events) = Report::channel();
        let work = async {
            for number in 0..1000_u64 {
                report.progress("counting", number, Some(1000), Unit::Items);
                report.item(&number).await;
            }
            "done"
        };
        let mut items = 0_u64;
        let outcome = follow(work, events, |event| {
            if let Event::Item(item) = event {
                assert_eq!(item, items);
                items += 1;
            }
            Ok::<_, Infallible>(())
        });
        assert_eq!(outcome.await, Ok("done"));
        assert_eq!(items, 1000);
    }

    #[tokio::test]
    async fn a_reader_that_has_enough_ends_the_work() {
        let (report, events) = Report::channel();
        let work = async {
            loop {
                report.item(&1).await;
            }
        };
        let ended: Result<(), _> = follow(work, events, |_| Err("enough")).await;
        assert_eq!(ended, Err("enough"));
    }

    #[tokio::test]
    async fn a_report_that_nobody_reads_holds_nothing_up() {
        let report = Report::silent();
        for number in 0..1000 {
            report.progress("x", number, None, Unit::Bytes);
            report.item(&number).await;
        }
    }
}
