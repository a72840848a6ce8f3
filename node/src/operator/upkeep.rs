//! Check, repair, scrub and backup of a node, running or not.

use std::{path::PathBuf, time::Duration};

use pki::username::Username;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Failed, FailedKind, Operation, Report, Unit, peer_id};
use crate::{
    backup::{self, BackupBlocks, BackupError, BackupOptions, BackupOutcome, BackupProgress},
    check::{
        self, BlockSupply, CheckOptions, Progress, RepairOptions, Repaired, Report as Findings,
        ScrubState,
    },
    mirror::PeerBlocks,
    node::Node,
    state::State,
    store::{Batch, Store, StoreError, tables},
};

/// Row of the node's own table that remembers a check that was broken off.
const CHECK_ROW: &[u8] = b"check";
/// Time between two notes of how far a check is.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// A check that was broken off longer ago begins anew.
const MAX_RESUME_SECONDS: i64 = 86_400;

/// Checks everything that is stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Check {
    /// Only the data of this user.
    pub user: Option<String>,
    /// Do not read every block.
    pub is_quick: bool,
    /// Begin anew, also when an earlier check was broken off.
    pub is_fresh: bool,
}

/// How far a check that was broken off had come.
#[derive(Serialize, Deserialize)]
struct Kept {
    user: Option<String>,
    is_quick: bool,
    at_seconds: i64,
    progress: Progress,
}

impl Operation for Check {
    const NAME: &'static str = "check";
    type Outcome = Findings;

    async fn run(self, node: &Node, report: &Report) -> Result<Findings, Failed> {
        let state = node.state();
        let options = CheckOptions {
            user: self.user.as_deref().map(user).transpose()?,
            is_quick: self.is_quick,
            resume: self.kept(state).await?,
        };
        if let Some(user) = &options.user
            && state.directory.chain(user.as_str()).await?.is_empty()
        {
            return Err(Failed::no_user(user.as_str()));
        }
        let (notes, mut noted) = mpsc::channel(1);
        let mut last = std::time::Instant::now();
        let mut told = |progress: &Progress| {
            tell(report, progress);
            if last.elapsed() >= SAVE_EVERY && notes.try_send(progress.clone()).is_ok() {
                last = std::time::Instant::now();
            }
            true
        };
        let work = check::check(&*state.store, &options, &mut told);
        tokio::pin!(work);
        let done = loop {
            tokio::select! {
                done = &mut work => break done?,
                Some(progress) = noted.recv() => self.keep(state, Some(progress)).await?,
            }
        };
        self.keep(state, None).await?;
        done.ok_or_else(|| Failed::new(FailedKind::Internal, "the check ended early"))
    }
}

impl Check {
    async fn kept(&self, state: &State) -> Result<Option<Progress>, Failed> {
        if self.is_fresh {
            return Ok(None);
        }
        let row = state.store.get(tables::NODE, CHECK_ROW).await?;
        let kept: Option<Kept> = row.and_then(|row| serde_json::from_slice(&row).ok());
        let now = state.clock.now_seconds();
        let fits = |kept: &Kept| {
            kept.user == self.user
                && kept.is_quick == self.is_quick
                && now.saturating_sub(kept.at_seconds) < MAX_RESUME_SECONDS
        };
        Ok(kept.filter(fits).map(|kept| kept.progress))
    }

    async fn keep(&self, state: &State, progress: Option<Progress>) -> Result<(), Failed> {
        let batch = match progress {
            None => Batch::new().remove(tables::NODE, CHECK_ROW),
            Some(progress) => {
                let kept = Kept {
                    user: self.user.clone(),
                    is_quick: self.is_quick,
                    at_seconds: state.clock.now_seconds(),
                    progress,
                };
                let row = serde_json::to_vec(&kept).unwrap_or_default();
                Batch::new().put(tables::NODE, CHECK_ROW, row)
            }
        };
        match state.store.commit(batch).await {
            Ok(_) => Ok(()),
            // A full disk is a good moment for a check; it only cannot be resumed.
            Err(StoreError::NoSpace { .. } | StoreError::Halted) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn user(name: &str) -> Result<Username, Failed> {
    Username::parse(name).map_err(|_| Failed::no_user(name))
}

fn tell(report: &Report, progress: &Progress) {
    if progress.position.is_end {
        let (done, stage) = (progress.report.pointers, "following pointers");
        report.progress(stage, done, None, Unit::Items);
    } else {
        let (done, total) = (progress.report.bytes, Some(progress.expected_bytes));
        report.progress("reading blocks", done, total, Unit::Bytes);
    }
}

/// Checks everything and puts right what can be.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Repair {
    /// Only the data of this user.
    pub user: Option<String>,
    /// Change nothing.
    pub is_dry_run: bool,
    /// A backup that may have good copies.
    pub backup: Option<PathBuf>,
    /// Ask other nodes: the home of each user who is mirrored here.
    #[serde(default)]
    pub from_home: bool,
    /// Ask this node, which mirrors the users of this one.
    #[serde(default)]
    pub from_mirror: Option<String>,
}

/// What a repair found and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairOutcome {
    /// What was wrong.
    pub found: Findings,
    /// What was done about it.
    pub repaired: Repaired,
}

impl Operation for Repair {
    const NAME: &'static str = "repair";
    type Outcome = RepairOutcome;

    async fn run(self, node: &Node, report: &Report) -> Result<RepairOutcome, Failed> {
        let state = node.state();
        let supply = match self.backup.clone() {
            None => None,
            Some(path) => Some(
                tokio::task::spawn_blocking(move || BackupBlocks::open(&path))
                    .await
                    .map_err(|error| Failed::of(FailedKind::Internal, &error))??,
            ),
        };
        let options = CheckOptions {
            user: self.user.as_deref().map(user).transpose()?,
            ..CheckOptions::default()
        };
        let mut told = |progress: &Progress| {
            tell(report, progress);
            true
        };
        let found = check::check(&*state.store, &options, &mut told).await?;
        let found = found.unwrap_or_default();
        report.progress("repairing", 0, Some(found.total()), Unit::Items);
        let mirror = self.from_mirror.as_deref().map(peer_id).transpose()?;
        let peers = (self.from_home || mirror.is_some()).then(|| PeerBlocks::new(state, mirror));
        let supply: Option<&dyn BlockSupply> = match (&supply, &peers) {
            (Some(backup), _) => Some(backup),
            (None, Some(peers)) => Some(peers),
            (None, None) => None,
        };
        let options = RepairOptions {
            is_dry_run: self.is_dry_run,
            supply,
        };
        let repaired = check::repair(&*state.store, &found, options).await?;
        Ok(RepairOutcome { found, repaired })
    }
}

/// Looks after the database file of the store. Every other call waits meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Database {
    /// Give free pages back to the file system.
    Compact,
    /// Verify every page.
    Verify,
}

/// What became of the database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFile {
    /// Its length in bytes before.
    pub before_bytes: u64,
    /// Its length in bytes now.
    pub after_bytes: u64,
}

impl Operation for Database {
    const NAME: &'static str = "database";
    type Outcome = Option<DatabaseFile>;

    async fn run(self, node: &Node, _report: &Report) -> Result<Option<DatabaseFile>, Failed> {
        let store: &dyn Store = &*node.state().store;
        let upkeep = store.upkeep().ok_or_else(|| {
            Failed::new(
                FailedKind::NotAllowed,
                "this node's store has no database file of its own",
            )
        })?;
        if self == Self::Verify {
            return match upkeep.verify_pages().await {
                Ok(()) => Ok(None),
                Err(error @ StoreError::Database(_)) => {
                    Err(Failed::of(FailedKind::Damaged, &error).help(
                        "blocks in files are not affected; make a backup now if that still works, \
                         and restore it, or the newest one, into a new folder",
                    ))
                }
                Err(error) => Err(error.into()),
            };
        }
        match upkeep.compact().await {
            Ok((before_bytes, after_bytes)) => Ok(Some(DatabaseFile {
                before_bytes,
                after_bytes,
            })),
            Err(StoreError::Busy) => Err(Failed::new(
                FailedKind::Conflict,
                "a backup is reading the database",
            )
            .help("try again when it is done")),
            Err(error) => Err(error.into()),
        }
    }
}

/// Shows how the scrub is doing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ShowScrub {
    /// Start a pass now instead of when it is due.
    pub start_now: bool,
}

/// How the scrub is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubShown {
    /// What is known; `None` before the node has served for the first time.
    pub state: Option<ScrubState>,
    /// Seconds from the start of one pass to the next; 0 when there are none.
    pub period_seconds: u64,
    /// Bytes read per second at most.
    pub bytes_per_second: u64,
}

impl Operation for ShowScrub {
    const NAME: &'static str = "scrub";
    type Outcome = ScrubShown;

    async fn run(self, node: &Node, _report: &Report) -> Result<ScrubShown, Failed> {
        let state = node.state();
        let store: &dyn Store = &*state.store;
        if self.start_now {
            state.scrub.start_now(store).await?;
        }
        Ok(ScrubShown {
            state: state.scrub.remembered(store).await?,
            period_seconds: state.config.scrub.period.as_secs(),
            bytes_per_second: state.config.scrub.bytes_per_second,
        })
    }
}

/// Makes a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Backup {
    /// The folder, as an absolute path.
    pub to: PathBuf,
    /// Snapshots to keep.
    pub keep: Option<usize>,
}

impl Operation for Backup {
    const NAME: &'static str = "backup";
    type Outcome = BackupOutcome;

    async fn run(self, node: &Node, report: &Report) -> Result<BackupOutcome, Failed> {
        let state = node.state();
        let data = state.config.data.clone();
        let data = data.ok_or_else(|| {
            Failed::new(FailedKind::Refused, "this node keeps everything in memory")
        })?;
        let options = BackupOptions {
            data,
            to: self.to,
            keep: self.keep,
            now_seconds: state.clock.now_seconds(),
        };
        let mut told = |progress: &BackupProgress| {
            let (done, total) = (progress.bytes, Some(progress.all_bytes));
            report.progress("copying blocks", done, total, Unit::Bytes);
            true
        };
        let done = backup::backup(&*state.store, &options, &mut told).await?;
        tracing::info!(
            snapshot = done.name,
            bytes = done.copied_bytes,
            "backup is complete"
        );
        Ok(done)
    }
}

impl From<BackupError> for Failed {
    fn from(error: BackupError) -> Self {
        use BackupError as E;
        let kind = match &error {
            _ if error.is_full() => FailedKind::NoSpace,
            E::Store(_) | E::HoldLost | E::Stopped => FailedKind::Internal,
            E::Unsupported
            | E::Inside(_)
            | E::NotABackup(_)
            | E::NotEmpty(_)
            | E::StoreNotEmpty => FailedKind::NotAllowed,
            E::NewerFormat { .. } => FailedKind::Refused,
            E::NoSnapshot(_) => FailedKind::NotFound,
            E::Damaged { .. } => FailedKind::Damaged,
            E::InUse(_) => FailedKind::Conflict,
            E::Io { .. } => FailedKind::Local,
        };
        let failed = Self::of(kind, &error);
        match error {
            E::HoldLost => failed.help("run the command again: it goes on with what was copied"),
            E::Store(StoreError::Busy) => failed.help(
                "another node of this data set is collecting garbage; try again when it is done",
            ),
            E::NotABackup(_) => {
                failed.help("name an empty folder, or one that `kastro backup` made")
            }
            E::Inside(_) => failed.help("a backup belongs on another disk, or at least elsewhere"),
            E::NotEmpty(_) => failed.help("name a folder that does not exist yet"),
            E::StoreNotEmpty => {
                failed.help("name an empty database or schema, and an unused prefix")
            }
            _ if kind == FailedKind::NoSpace => failed
                .help("what was copied stays; make space and run the command again to continue"),
            _ => failed,
        }
    }
}
