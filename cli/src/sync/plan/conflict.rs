//! What changed on both sides, or is a file here and a folder there: both are kept, one under another name.

use super::{
    super::tree::{Hash, Known, RemoteFile, Stamp, is_local_same, is_remote_same, name_of, parent},
    Action, Merge,
};
use crate::local::spelling::MAX_NAME_BYTES;

impl Merge<'_> {
    /// Both sides changed: the account's version keeps the name, unless only the account may be changed.
    pub(super) fn conflict(&mut self, path: &str, stamp: &Stamp, remote: &RemoteFile) {
        let copy = self.set_aside(path, self.down());
        if !self.down() {
            self.upload(path, stamp, None);
            return;
        }
        self.download(path, remote, None);
        if self.up() {
            self.upload(&copy, stamp, None);
        }
    }

    /// Gives what is at a path on one side the name of a conflict copy.
    pub(super) fn set_aside(&mut self, path: &str, is_local: bool) -> String {
        let copy = self.free_name(path);
        let (from, to) = (path.to_owned(), copy.clone());
        self.moves.push(if is_local {
            Action::MoveLocal { from, to }
        } else {
            Action::MoveRemote { from, to }
        });
        self.plan.conflicts.push(copy.clone());
        copy
    }

    fn free_name(&self, path: &str) -> String {
        let folder = parent(path).map_or(String::new(), |folder| format!("{folder}/"));
        let mut number = 1;
        loop {
            let name = copy_name(name_of(path), &self.rules.label, number);
            let copy = format!("{folder}{name}");
            let trees = self.trees;
            let is_taken = trees.local.contains_key(&copy)
                || trees.remote.contains_key(&copy)
                || trees.known.contains_key(&copy)
                || self.plan.conflicts.contains(&copy);
            if !is_taken {
                return copy;
            }
            number += 1;
        }
    }

    pub(super) fn file_meets_remote_folder(
        &mut self,
        path: &str,
        stamp: &Stamp,
        hash: Option<Hash>,
    ) {
        let is_same = match self.trees.known.get(path) {
            Some(Known::File {
                stamp: known,
                hash: known_hash,
                ..
            }) => is_local_same(known, *known_hash, stamp, hash),
            _ => false,
        };
        match (is_same, self.down()) {
            (true, true) => self.delete_local(path),
            // The account's own change is left for a run in the other direction.
            (true, false) => {}
            (false, is_local) => {
                self.set_aside(path, is_local);
            }
        }
        self.defer(path, !is_same || self.down());
    }

    pub(super) fn folder_meets_remote_file(&mut self, path: &str, remote: &RemoteFile) {
        let is_same = match self.trees.known.get(path) {
            Some(Known::File { remote: known, .. }) => is_remote_same(known, remote),
            _ => false,
        };
        match (is_same, self.up()) {
            (true, true) => self.delete_remote(path),
            (true, false) => {}
            (false, is_remote) => {
                self.set_aside(path, !is_remote);
            }
        }
        self.defer(path, !is_same || self.up());
    }
}

/// Puts a label before the extension of a name, cutting the name when it would be too long.
fn copy_name(name: &str, label: &str, number: usize) -> String {
    let words = match number {
        1 => format!(" ({label})"),
        _ => format!(" ({label} {number})"),
    };
    let dot = name.rfind('.').filter(|at| *at > 0);
    let (stem, extension) = dot.map_or((name, ""), |at| name.split_at(at));
    let (stem, extension) = if extension.len() > MAX_EXTENSION_BYTES {
        (name, "")
    } else {
        (stem, extension)
    };
    let room = MAX_NAME_BYTES.saturating_sub(words.len() + extension.len());
    let mut end = stem.len().min(room);
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    let stem = stem.get(..end).unwrap_or_default();
    format!("{stem}{words}{extension}")
}

/// Longest ending that is kept when a name is cut.
const MAX_EXTENSION_BYTES: usize = 64;
