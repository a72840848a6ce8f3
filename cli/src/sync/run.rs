//! One plan after the other: read both sides, decide, do it, until nothing is left to do.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    time::SystemTime,
};

use cryptree::{
    ClientError,
    client::{Session, Versions},
};

use super::{
    apply::Apply,
    here,
    places::{Asked, Places, Sides, without_place},
    plan::{Direction, Plan, Rules, plan},
    report::{Report, tell},
    state::State,
    there,
    tree::{Hash, Known, Local, Remote, Trees, Version},
};
use crate::{
    exit::{Class, Failure},
    human,
    local::folder::{Folder, NameRules},
    output::Output,
    thumbnail::Thumbnailer,
};

/// What is to be kept the same, and how.
#[derive(Debug)]
pub struct Task {
    /// The local folder, absolute.
    pub local: PathBuf,
    /// Which names are the same to its disk.
    pub names: NameRules,
    /// The remote folder, without slash at the end.
    pub remote: String,
    /// Which side may be changed.
    pub direction: Direction,
    /// Only tell.
    pub is_dry: bool,
    /// Bytes that stay free on the local disk.
    pub keep_free: u64,
    /// Deleting everything is meant.
    pub may_delete_all: bool,
    /// Name of this machine.
    pub device: String,
    /// Makes the small pictures of what is sent.
    pub thumbnails: Thumbnailer,
}

/// What one run leaves to the next one of the same process.
#[derive(Debug, Default)]
pub struct Memory {
    /// The account's side, as long as nothing has changed in it.
    seen: Option<Seen>,
    /// Local names.
    places: Places,
    /// What the disk has said of names.
    asked: Asked,
}

impl Memory {
    /// Returns the local path of an item below `root`, as it was read last.
    #[must_use]
    pub fn local_path(&self, root: &Path, path: &str) -> PathBuf {
        self.places.below(root, path)
    }
}

/// The account's side as it was read last.
#[derive(Debug)]
struct Seen {
    versions: Versions,
    tree: BTreeMap<String, Remote>,
    excluded: Vec<String>,
}

/// Both sides as they were read.
struct Read {
    root: Folder,
    trees: Trees,
    local: BTreeMap<String, Local>,
}

impl Task {
    /// Makes both sides the same. `memory` is what an earlier call left there, and saves reading the account again when
    /// nothing has changed in it.
    ///
    /// # Errors
    ///
    /// When nothing, or nothing more, could be done; what failed for single items is in the report.
    pub async fn run(
        &self,
        session: &Session,
        state: &mut State,
        report: &mut Report,
        memory: &mut Memory,
        output: Output,
    ) -> Result<(), Failure> {
        let mut compared = HashMap::new();
        let mut failed = Vec::new();
        for round in 0..MAX_ROUNDS {
            let read = self.read(session, state, report, memory, (round, &compared));
            let mut read = read.await?;
            self.hash(&mut read.trees, &memory.places)?;
            let known_files = count_files(&read.trees.known);
            let rules = Rules {
                direction: self.direction,
                label: self.label(),
            };
            let planned = plan(read.trees, &rules);
            self.check_deletions(&planned, known_files)?;
            if self.is_dry {
                return planned
                    .actions
                    .iter()
                    .try_for_each(|action| tell(action, output));
            }
            for (path, known) in planned.adopted {
                state.agree(path, known)?;
            }
            for path in &planned.forgotten {
                if state.known().contains_key(path) {
                    state.forget(path)?;
                }
            }
            for copy in &planned.conflicts {
                report.conflict(copy);
            }
            if planned.actions.is_empty() {
                break;
            }
            report.expect(planned.actions.iter().map(super::plan::Action::bytes).sum());
            let failures_before = failed.len();
            let mut apply = Apply {
                session,
                root: &read.root,
                places: &mut memory.places,
                remote_root: &self.remote,
                state: &mut *state,
                report: &mut *report,
                local: &read.local,
                device: &self.device,
                thumbnails: &self.thumbnails,
                keep_free: self.keep_free,
                compared: &mut compared,
                failed: &mut failed,
                is_overtaken: false,
            };
            let done = Box::pin(apply.run(planned.actions)).await;
            let is_overtaken = apply.is_overtaken;
            // What was agreed is kept also after a failure.
            state.flush()?;
            done?;
            let is_stuck = failed.len() > failures_before && !is_overtaken;
            if (planned.is_final && !is_overtaken) || is_stuck {
                break;
            }
        }
        state.finish()
    }

    /// Returns true when somebody has changed something in the account since it was read.
    ///
    /// # Errors
    ///
    /// When the node cannot be asked.
    pub async fn is_changed_there(session: &Session, memory: &Memory) -> Result<bool, ClientError> {
        match &memory.seen {
            Some(seen) => Ok(!session.are_current(&seen.versions).await?),
            None => Ok(true),
        }
    }

    async fn read(
        &self,
        session: &Session,
        state: &State,
        report: &mut Report,
        memory: &mut Memory,
        (round, compared): (usize, &HashMap<String, (Version, Hash)>),
    ) -> Result<Read, Failure> {
        self.check_root(state)?;
        let root = Folder::with_rules(&self.local, self.names)
            .map_err(|error| Failure::local("open", &self.local, &error))?;
        if Self::is_changed_there(session, memory).await? {
            memory.seen = None;
            let there = there::read(session, &self.remote).await?;
            for (path, reason) in &there.notes {
                report.note(path, reason);
            }
            memory.seen = there.versions.map(|versions| Seen {
                versions,
                tree: there.tree,
                excluded: there.excluded,
            });
        }
        let (tree, mut excluded) = match &memory.seen {
            Some(seen) => (seen.tree.clone(), seen.excluded.clone()),
            None => (BTreeMap::new(), Vec::new()),
        };
        for (path, reason) in without_place(&self.local, &tree) {
            report.note(&path, reason);
            excluded.push(path);
        }
        memory.places = Places::default();
        let (known, places) = (state.known(), &mut memory.places);
        let here = tokio::task::block_in_place(|| here::read(&self.local, known, &tree, places))?;
        for (path, reason) in &here.notes {
            report.note(path, reason);
        }
        if self.direction.changes_local() {
            let sides = Sides {
                known,
                local: &here.tree,
                excluded: &here
                    .excluded
                    .iter()
                    .map(String::as_str)
                    .collect::<HashSet<_>>(),
                remote: &tree,
                leaves: round < PATIENT_ROUNDS,
            };
            let asked = &mut memory.asked;
            let settled = tokio::task::block_in_place(|| places.settle(&root, &sides, asked));
            for renamed in &settled.renamed {
                report.renamed(renamed);
            }
            for path in settled.without_place {
                report.note(&path, "the name that it would have here is taken");
                excluded.push(path);
            }
        }
        let mut trees = Trees {
            known: state.known().clone(),
            local: here.tree.clone(),
            remote: tree,
            ..Trees::default()
        };
        let ignored: Vec<String> = trees
            .remote
            .iter()
            .filter(|(path, remote)| {
                let is_folder = matches!(remote, Remote::Folder { .. });
                here.ignored.matches(path, is_folder)
            })
            .map(|(path, _)| path.clone())
            .collect();
        for path in here.excluded.iter().chain(&excluded).chain(&ignored) {
            trees.exclude(path);
        }
        for (path, (version, hash)) in compared {
            if let Some(Remote::File(file)) = trees.remote.get_mut(path)
                && file.version == Some(*version)
            {
                file.hash = Some(*hash);
                file.is_verified = true;
            }
        }
        Ok(Read {
            root,
            trees,
            local: here.tree,
        })
    }

    /// A folder that was there and is not is more likely a disk that is not mounted than a wish.
    fn check_root(&self, state: &State) -> Result<(), Failure> {
        match std::fs::metadata(&self.local) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(Failure::new(
                Class::Local,
                format!("{} is not a folder", self.local.display()),
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if self.is_dry || !state.known().is_empty() || self.direction == Direction::Up {
                    return Err(Failure::local("read", &self.local, &error)
                        .help("is its disk mounted? Nothing was changed"));
                }
                std::fs::create_dir(&self.local)
                    .map_err(|error| Failure::local("make the folder", &self.local, &error))
            }
            Err(error) => Err(Failure::local("read", &self.local, &error)),
        }
    }

    fn hash(&self, trees: &mut Trees, places: &Places) -> Result<(), Failure> {
        for path in trees.to_be_hashed() {
            let local = places.below(&self.local, &path);
            let hashed = tokio::task::block_in_place(|| here::hash(&local));
            match (hashed, trees.local.get_mut(&path)) {
                (Ok(found), Some(Local::File { hash, .. })) => *hash = Some(found),
                (Err(error), _) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Failure::local("read", &local, &error));
                }
                // Gone since it was listed; sending it will notice.
                _ => {}
            }
        }
        Ok(())
    }

    fn label(&self) -> String {
        let time = human::time(SystemTime::now());
        let day = time.get(..10).unwrap_or_default();
        match self.device.as_str() {
            "" => format!("conflict {day}"),
            device => format!("conflict {day} {device}"),
        }
    }

    fn check_deletions(&self, planned: &Plan, known_files: usize) -> Result<(), Failure> {
        if self.may_delete_all || self.is_dry {
            return Ok(());
        }
        let [here, there] = planned.deleted_files;
        for (deleted, place, cause) in [
            (here, "on this machine", "the folder in the account"),
            (there, "in the account", "the local folder"),
        ] {
            let is_everything = deleted > 0 && deleted >= known_files;
            let is_most = deleted >= MANY_FILES && deleted > known_files / 2;
            if is_everything || is_most {
                let failure = Failure::new(
                    Class::Unsafe,
                    format!("this would delete {deleted} of {known_files} files {place}"),
                );
                return Err(failure.help(format!(
                    "nothing was changed. Is {cause} what it should be (its disk mounted, nothing moved away)? \
                     --dry-run shows the plan, --allow-delete-all carries it out"
                )));
            }
        }
        Ok(())
    }
}

fn count_files(known: &BTreeMap<String, Known>) -> usize {
    let files = known
        .values()
        .filter(|known| matches!(known, Known::File { .. }));
    files.count()
}

/// Returns a name for this machine that fits into a file name.
#[must_use]
pub fn device_name(given: Option<&str>) -> String {
    let host = || {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
        name.or_else(|_| std::fs::read_to_string("/etc/hostname"))
            .unwrap_or_default()
    };
    let name = given.map_or_else(host, str::to_owned);
    name.trim()
        .chars()
        .filter(|c| !c.is_control() && !matches!(c, '/' | '\\' | '(' | ')' | ':'))
        .take(MAX_DEVICE_CHARS)
        .collect()
}

/// Returns the local folder as it is named in the state: absolute, with links followed as far as it exists.
///
/// # Errors
///
/// When the working folder is gone.
pub fn absolute_folder(local: &Path) -> Result<PathBuf, Failure> {
    if let Ok(found) = local.canonicalize() {
        return Ok(found);
    }
    let path = std::path::absolute(local).map_err(|e| Failure::local("resolve", local, &e))?;
    let above = path.parent().and_then(|above| above.canonicalize().ok());
    Ok(match (above, path.file_name()) {
        (Some(above), Some(name)) => above.join(name),
        _ => path,
    })
}

/// Plans that are made one after the other: what is still not done then is done by the next run.
const MAX_ROUNDS: usize = 8;
/// Plans after which what is gone in the account should have left its name on this machine.
const PATIENT_ROUNDS: usize = 2;
/// Deleting more than half of at least twice as many files is not done without being asked.
const MANY_FILES: usize = 100;
/// Longest device name, in characters.
const MAX_DEVICE_CHARS: usize = 40;
