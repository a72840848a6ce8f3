//! Decides what has to be done so that both sides agree: a comparison of each side with the last agreement.
//!
//! No input, no output, no clock. Invariants, tested with random edits of several replicas:
//! * what was written by somebody is never the only copy of something that an action destroys: a file is deleted or
//!   replaced only where it still is what both sides agreed on;
//! * what changed on both sides is kept under both names; deleted here and changed there keeps the change;
//! * two replicas that are synchronized in turn end up with the same.
//!
//! What cannot be decided before something else is done is left for another plan (`is_final` is false).
//!
//! * [`action`][]: what can be done;
//! * [`conflict`][]: what is in the way of each other.

mod action;
mod conflict;

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    moves,
    tree::{
        Hash, Known, Likeness, Local, Remote, RemoteFile, Stamp, Trees, below, is_local_same,
        is_remote_same, likeness, parent,
    },
};

pub use action::Action;

/// Which side may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both.
    Both,
    /// Only the account: what others changed there stays as it is and is not taken over.
    Up,
    /// Only this machine: what was changed here stays as it is and is not sent.
    Down,
}

impl Direction {
    pub(in crate::sync) const fn changes_local(self) -> bool {
        matches!(self, Self::Both | Self::Down)
    }

    pub(in crate::sync) const fn changes_remote(self) -> bool {
        matches!(self, Self::Both | Self::Up)
    }
}

/// How to decide.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Which side may be changed.
    pub direction: Direction,
    /// What the name of a conflict copy says: `conflict 2026-11-22 laptop`.
    pub label: String,
}

/// What to do, in this order.
#[derive(Debug, Default)]
pub struct Plan {
    /// The actions.
    pub actions: Vec<Action>,
    /// What is the same on both sides already, to be remembered.
    pub adopted: Vec<(String, Known)>,
    /// What is gone on both sides, to be forgotten.
    pub forgotten: Vec<String>,
    /// Names under which what lost a conflict is kept.
    pub conflicts: Vec<String>,
    /// Files that are deleted here and there.
    pub deleted_files: [usize; 2],
    /// False when there is more to decide after this is done.
    pub is_final: bool,
}

/// Makes a plan.
#[must_use]
pub fn plan(mut trees: Trees, rules: &Rules) -> Plan {
    let moves = moves::detect(&mut trees, rules.direction);
    let is_moving = !moves.is_empty();
    let mut merge = Merge {
        trees: &trees,
        rules,
        moves,
        made: Vec::new(),
        transfers: Vec::new(),
        doomed_local: HashSet::new(),
        doomed_remote: HashSet::new(),
        alive_local: HashMap::new(),
        alive_remote: HashMap::new(),
        deferred: HashSet::new(),
        plan: Plan {
            is_final: true,
            ..Plan::default()
        },
    };
    merge.run();
    let mut plan = merge.finish();
    if is_moving {
        // The trees were looked at as they will be after the moves. Who remembered that and then broke off before a move
        // would take the new path for deleted here, and the old one for deleted there.
        plan.adopted.clear();
        plan.forgotten.clear();
        plan.is_final = false;
    }
    plan
}

struct Merge<'a> {
    trees: &'a Trees,
    rules: &'a Rules,
    moves: Vec<Action>,
    made: Vec<Action>,
    transfers: Vec<Action>,
    doomed_local: HashSet<String>,
    doomed_remote: HashSet<String>,
    /// How many of a folder's items stay.
    alive_local: HashMap<String, usize>,
    alive_remote: HashMap<String, usize>,
    /// Below these nothing is decided this time: something is in the way.
    deferred: HashSet<String>,
    plan: Plan,
}

impl Merge<'_> {
    fn run(&mut self) {
        let trees = self.trees;
        for path in trees.local.keys() {
            count(&mut self.alive_local, path);
        }
        for path in trees.remote.keys() {
            count(&mut self.alive_remote, path);
        }
        let mut paths: BTreeSet<&str> = BTreeSet::new();
        paths.extend(trees.known.keys().map(String::as_str));
        paths.extend(trees.local.keys().map(String::as_str));
        paths.extend(trees.remote.keys().map(String::as_str));
        for path in &paths {
            if !self.is_deferred(path) {
                self.visit(path);
            }
        }
        for path in paths.iter().rev() {
            if !self.is_deferred(path) {
                self.folder(path);
            }
        }
    }

    fn finish(mut self) -> Plan {
        let trees = self.trees;
        let mut actions = self.moves;
        // Those above first.
        self.made.reverse();
        actions.append(&mut self.made);
        actions.append(&mut self.transfers);
        let mut local: Vec<&String> = self.doomed_local.iter().collect();
        local.sort_unstable_by(|a, b| b.cmp(a));
        for path in local {
            let stamp = match trees.local.get(path) {
                Some(Local::File { stamp, .. }) => Some(*stamp),
                _ => None,
            };
            self.plan.deleted_files[0] += usize::from(stamp.is_some());
            actions.push(Action::DeleteLocal {
                path: path.clone(),
                stamp,
            });
        }
        let mut remote: Vec<&String> = self.doomed_remote.iter().collect();
        remote.sort_unstable();
        for path in remote {
            if matches!(trees.remote.get(path), Some(Remote::File(_))) {
                self.plan.deleted_files[1] += 1;
            }
            if parent(path).is_some_and(|above| self.doomed_remote.contains(above)) {
                continue;
            }
            let own = trees.remote.get_key_value(path);
            let expected = own.into_iter().chain(below(&trees.remote, path));
            let expected = expected
                .map(|(path, remote)| match remote {
                    Remote::File(file) => (path.clone(), Some(file.clone())),
                    Remote::Folder { .. } => (path.clone(), None),
                })
                .collect();
            actions.push(Action::DeleteRemote {
                path: path.clone(),
                expected,
            });
        }
        self.plan.actions = actions;
        self.plan
    }

    fn is_deferred(&self, path: &str) -> bool {
        let mut above = (!self.deferred.is_empty()).then_some(path);
        while let Some(path) = above {
            if self.deferred.contains(path) {
                return true;
            }
            above = parent(path);
        }
        false
    }

    const fn up(&self) -> bool {
        self.rules.direction.changes_remote()
    }

    const fn down(&self) -> bool {
        self.rules.direction.changes_local()
    }

    fn visit(&mut self, path: &str) {
        let trees = self.trees;
        let known = trees.known.get(path);
        match (trees.local.get(path), trees.remote.get(path)) {
            (Some(Local::File { stamp, hash }), Some(Remote::Folder { .. })) => {
                if !matches!(known, Some(Known::Folder { .. })) {
                    self.file_meets_remote_folder(path, stamp, *hash);
                }
            }
            (Some(Local::Folder { .. }), Some(Remote::File(remote))) => {
                if !matches!(known, Some(Known::Folder { .. })) {
                    self.folder_meets_remote_file(path, remote);
                }
            }
            (Some(Local::Folder { .. }), _) | (_, Some(Remote::Folder { .. })) => {}
            (None, None) => self.plan.forgotten.push(path.to_owned()),
            (Some(Local::File { stamp, hash }), None) => match known {
                Some(Known::File {
                    stamp: known,
                    hash: known_hash,
                    ..
                }) if is_local_same(known, *known_hash, stamp, *hash) => self.delete_local(path),
                _ => self.upload(path, stamp, None),
            },
            (None, Some(Remote::File(remote))) => match known {
                Some(Known::File { remote: known, .. }) if is_remote_same(known, remote) => {
                    self.delete_remote(path);
                }
                _ => self.download(path, remote, None),
            },
            (Some(Local::File { stamp, hash }), Some(Remote::File(remote))) => {
                self.both(path, known, (stamp, *hash), remote);
            }
        }
    }

    fn both(
        &mut self,
        path: &str,
        known: Option<&Known>,
        (stamp, hash): (&Stamp, Option<Hash>),
        remote: &RemoteFile,
    ) {
        let (mut local_same, mut remote_same, mut known_hash) = (false, false, None);
        if let Some(Known::File {
            stamp: known_stamp,
            remote: known_remote,
            hash: content,
        }) = known
        {
            local_same = is_local_same(known_stamp, *content, stamp, hash);
            remote_same = is_remote_same(known_remote, remote);
            known_hash = *content;
        }
        match (local_same, remote_same) {
            (true, true) => self.adopt(path, known, stamp, hash.or(known_hash), remote),
            (false, true) => self.upload(path, stamp, Some(remote)),
            (true, false) => self.download(path, remote, Some(*stamp)),
            (false, false) => match likeness(stamp, hash, remote) {
                Likeness::Same => self.adopt(path, known, stamp, hash, remote),
                Likeness::Unsure => {
                    self.transfers.push(Action::Compare {
                        path: path.to_owned(),
                        remote: remote.clone(),
                    });
                    self.plan.is_final = false;
                }
                Likeness::Different => self.conflict(path, stamp, remote),
            },
        }
    }

    fn defer(&mut self, path: &str, is_more_to_do: bool) {
        self.deferred.insert(path.to_owned());
        self.plan.is_final &= !is_more_to_do;
    }

    fn upload(&mut self, path: &str, stamp: &Stamp, replaces: Option<&RemoteFile>) {
        if self.up() {
            self.transfers.push(Action::Upload {
                path: path.to_owned(),
                stamp: *stamp,
                replaces: replaces.cloned(),
            });
        }
    }

    fn download(&mut self, path: &str, remote: &RemoteFile, replaces: Option<Stamp>) {
        if self.down() {
            self.transfers.push(Action::Download {
                path: path.to_owned(),
                remote: remote.clone(),
                replaces,
            });
        }
    }

    fn delete_local(&mut self, path: &str) {
        if self.down() {
            self.doomed_local.insert(path.to_owned());
            discount(&mut self.alive_local, path);
        }
    }

    fn delete_remote(&mut self, path: &str) {
        if self.up() {
            self.doomed_remote.insert(path.to_owned());
            discount(&mut self.alive_remote, path);
        }
    }

    fn adopt(
        &mut self,
        path: &str,
        known: Option<&Known>,
        stamp: &Stamp,
        hash: Option<Hash>,
        remote: &RemoteFile,
    ) {
        let agreed = Known::File {
            stamp: *stamp,
            remote: RemoteFile {
                is_verified: false,
                ..remote.clone()
            },
            hash,
        };
        if known != Some(&agreed) {
            self.plan.adopted.push((path.to_owned(), agreed));
        }
    }

    /// Decides on a folder after everything below it.
    fn folder(&mut self, path: &str) {
        let trees = self.trees;
        let was_folder = matches!(trees.known.get(path), Some(Known::Folder { .. }));
        let is_kept = trees.kept.contains(path);
        let is_used = |alive: &HashMap<String, usize>| alive.get(path).is_some_and(|n| *n > 0);
        match (trees.local.get(path), trees.remote.get(path)) {
            (Some(Local::Folder { inode }), Some(Remote::Folder { id })) => {
                let agreed = Known::Folder {
                    inode: *inode,
                    id: *id,
                };
                if trees.known.get(path) != Some(&agreed) {
                    self.plan.adopted.push((path.to_owned(), agreed));
                }
            }
            (Some(Local::Folder { .. }), remote) if was_folder => {
                if is_used(&self.alive_local) {
                    let in_the_way = remote.is_some();
                    if in_the_way {
                        self.set_aside(path, !self.up());
                        self.plan.is_final = false;
                    }
                    if self.rules.direction == Direction::Both || (in_the_way && self.up()) {
                        self.make_remote(path);
                    }
                } else if !is_kept {
                    self.delete_local(path);
                    self.plan.is_final &= remote.is_none() || !self.down();
                }
            }
            (local, Some(Remote::Folder { .. })) if was_folder => {
                if is_used(&self.alive_remote) {
                    let in_the_way = local.is_some();
                    if in_the_way {
                        self.set_aside(path, self.down());
                        self.plan.is_final = false;
                    }
                    if self.rules.direction == Direction::Both || (in_the_way && self.down()) {
                        self.make_local(path);
                    }
                } else if !is_kept {
                    self.delete_remote(path);
                    self.plan.is_final &= local.is_none() || !self.up();
                }
            }
            (Some(Local::Folder { .. }), None) => self.make_remote(path),
            (None, Some(Remote::Folder { .. })) => self.make_local(path),
            // Whatever else there is was decided when it was visited.
            _ => {}
        }
    }

    fn make_remote(&mut self, path: &str) {
        if self.up() {
            self.made.push(Action::MakeRemote {
                path: path.to_owned(),
            });
        }
    }

    fn make_local(&mut self, path: &str) {
        if self.down() {
            let id = match self.trees.remote.get(path) {
                Some(Remote::Folder { id }) => *id,
                _ => None,
            };
            self.made.push(Action::MakeLocal {
                path: path.to_owned(),
                id,
            });
        }
    }
}

fn count(alive: &mut HashMap<String, usize>, path: &str) {
    if let Some(folder) = parent(path) {
        *alive.entry(folder.to_owned()).or_default() += 1;
    }
}

fn discount(alive: &mut HashMap<String, usize>, path: &str) {
    if let Some(left) = parent(path).and_then(|folder| alive.get_mut(folder)) {
        *left = left.saturating_sub(1);
    }
}
