//! Collecting garbage when the operator wants it (Spec: 12 §4).

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Failed, FailedKind, Operation, Report, Unit};
use crate::{
    gc::{self, CollectError, CollectOptions, Phase, Progress},
    node::Node,
};

/// Progress is told this often.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Deletes blocks that nothing needs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CollectGarbage {
    /// Only the blocks of this user.
    #[serde(default)]
    pub user: Option<String>,
    /// Find out, change nothing.
    #[serde(default)]
    pub is_dry_run: bool,
    /// Delete also what became garbage a moment ago.
    #[serde(default)]
    pub now: bool,
}

impl Operation for CollectGarbage {
    const NAME: &'static str = "gc";
    type Outcome = gc::Report;

    async fn run(self, node: &Node, report: &Report) -> Result<gc::Report, Failed> {
        let options = CollectOptions {
            user: self.user.clone(),
            dry_run: self.is_dry_run,
            now: self.now,
            all: false,
        };
        let last = Mutex::new(None::<Instant>);
        let tell = |progress: &Progress| {
            let mut last = last.lock();
            if last.is_some_and(|last| last.elapsed() < TELL_EVERY) {
                return;
            }
            *last = Some(Instant::now());
            let (stage, what) = match progress.phase {
                Phase::Listing => ("listing blocks of ", &progress.partition),
                Phase::Marking => ("following pointers of ", &progress.partition),
                Phase::Deleting => ("deleting blocks of ", &progress.partition),
            };
            let stage = format!("{stage}{}", what.trim_start_matches("u-"));
            report.progress(&stage, progress.done, progress.total, Unit::Items);
        };
        let collected = node.collect_garbage(&options, &tell).await;
        collected.map_err(|error| match error {
            CollectError::Running => Failed::of(FailedKind::Conflict, &error),
            CollectError::UnknownUser => Failed::no_user(self.user.as_deref().unwrap_or("")),
            CollectError::Store(error) => error.into(),
        })
    }
}
