//! Does what was planned, and notes each agreement as soon as it is one.
//!
//! Invariants: whatever is replaced or deleted is looked at once more right before, and left alone when it is no longer
//! what the plan saw; a file appears under its name only when it is complete; an item that fails is reported and the
//! others go on.

mod account;
mod machine;
mod upload;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use cryptree::{ClientError, client::Session};

use super::{
    here::joined,
    places::Places,
    plan::Action,
    report::Report,
    state::State,
    tree::{Hash, Known, Local, Version, name_of, parent},
};
use crate::{
    commands::upload_folder::is_hopeless,
    exit::{Class, Failure},
    local::folder::Folder,
    thumbnail::Thumbnailer,
};

/// Carries plans out.
pub(super) struct Apply<'a> {
    /// The account.
    pub(super) session: &'a Session,
    /// The local folder.
    pub(super) root: &'a Folder,
    /// The local names of items.
    pub(super) places: &'a mut Places,
    /// The remote folder, without slash at the end.
    pub(super) remote_root: &'a str,
    /// The agreements.
    pub(super) state: &'a mut State,
    /// Tells what happens.
    pub(super) report: &'a mut Report,
    /// The local side as it was read for this plan.
    pub(super) local: &'a BTreeMap<String, Local>,
    /// What this machine is called in the names of conflict copies.
    pub(super) device: &'a str,
    /// Makes the small pictures of what is sent.
    pub(super) thumbnails: &'a Thumbnailer,
    /// Bytes that stay free on the local disk.
    pub(super) keep_free: u64,
    /// Contents of remote files that were read only to compare them.
    pub(super) compared: &'a mut HashMap<String, (Version, Hash)>,
    /// What could not be done, with the reason told.
    pub(super) failed: &'a mut Vec<String>,
    /// Something was not what the plan saw.
    pub(super) is_overtaken: bool,
}

impl Apply<'_> {
    /// Does everything.
    ///
    /// # Errors
    ///
    /// Only what makes going on useless: the node out of reach, no space there, a move that other actions build on. All
    /// else is reported and counted.
    pub(super) async fn run(&mut self, actions: Vec<Action>) -> Result<(), Failure> {
        let mut gathered = Vec::new();
        let mut downloads = Vec::new();
        for action in actions {
            if self.has_failed(action.path()) {
                continue;
            }
            match action {
                Action::MakeRemote { .. } => gathered.push(action),
                Action::Upload {
                    stamp,
                    replaces: None,
                    ..
                } if stamp.size <= upload::MAX_GATHERED_BYTES => gathered.push(action),
                Action::Download { .. } => downloads.push(action),
                action => {
                    // Deletions come last, and after everything that they might belong to.
                    if matches!(
                        action,
                        Action::Upload { .. }
                            | Action::DeleteLocal { .. }
                            | Action::DeleteRemote { .. }
                    ) {
                        self.gather(std::mem::take(&mut gathered)).await?;
                    }
                    if matches!(
                        action,
                        Action::DeleteLocal { .. } | Action::DeleteRemote { .. }
                    ) {
                        self.download_all(std::mem::take(&mut downloads)).await?;
                    }
                    let is_move =
                        matches!(action, Action::MoveRemote { .. } | Action::MoveLocal { .. });
                    match Box::pin(self.one(&action)).await {
                        Ok(()) => {}
                        Err(failure) if is_move || is_hopeless(failure.class) => {
                            return Err(failure);
                        }
                        Err(failure) => self.fail(action.path(), &failure),
                    }
                }
            }
        }
        self.gather(gathered).await?;
        self.download_all(downloads).await?;
        self.state.flush()
    }

    async fn one(&mut self, action: &Action) -> Result<(), Failure> {
        self.report.at(action.path());
        let is_done = match action {
            Action::MoveRemote { from, to } => self.move_remote(from, to).await?,
            Action::MoveLocal { from, to } => self.move_local(from, to)?,
            Action::MakeLocal { path, id } => self.make_local(path, *id)?,
            Action::Upload {
                path,
                stamp,
                replaces,
            } => self.upload(path, stamp, replaces.as_ref()).await?,
            Action::Compare { path, remote } => self.compare(path, remote).await?,
            Action::DeleteLocal { path, stamp } => self.delete_local(path, stamp.as_ref())?,
            Action::DeleteRemote { path, expected } => self.delete_remote(path, expected).await?,
            Action::MakeRemote { .. } | Action::Download { .. } => {
                return Err(Failure::new(Class::Other, "an action out of its group"));
            }
        };
        if is_done {
            self.report.done(action)?;
        } else {
            self.is_overtaken = true;
        }
        Ok(())
    }

    fn fail(&mut self, path: &str, failure: &Failure) {
        self.report.problem(path, failure);
        self.failed.push(path.to_owned());
    }

    /// Returns true when the item or a folder above it could not be done.
    fn has_failed(&self, path: &str) -> bool {
        self.failed.iter().any(|failed| {
            path.strip_prefix(failed.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    fn here(&self, path: &str) -> PathBuf {
        self.places.below(self.root.path(), path)
    }

    /// Opens the local folder that an item is in, and returns its local name.
    fn place(&self, path: &str) -> Result<(Folder, String), Failure> {
        let opened = self.places.open(self.root, path);
        opened.map_err(|error| Failure::local("open the folder of", &self.here(path), &error))
    }

    fn there(&self, path: &str) -> String {
        format!("{}/{path}", self.remote_root)
    }

    /// Returns the path below the synchronized folder of a remote path with the same parent as `path`.
    fn sibling(path: &str, remote: &str) -> String {
        joined(parent(path).unwrap_or_default(), name_of(remote))
    }

    fn agree(&mut self, path: &str, known: Known) -> Result<(), Failure> {
        self.state.agree(path.to_owned(), known)
    }
}

/// Returns true for what a later look at both sides puts right.
const fn is_overtaken(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Exists { .. } | ClientError::NotFound { .. } | ClientError::Conflict
    )
}
