//! The planner against a model: several replicas, random edits, interrupted runs. Whatever happens, the replicas end
//! up the same, and nothing that somebody wrote is lost unless somebody deleted or replaced it while seeing it.

use std::collections::{BTreeMap, BTreeSet};

use cryptree::properties::Timestamp;
use proptest::prelude::*;

use super::{
    plan::{Action, Direction, Plan, Rules, plan},
    tree::{Hash, Known, Local, Remote, RemoteFile, Stamp, Trees, below, parent, shift, take},
};

const REPLICAS: usize = 2;
const MAX_ROUNDS: usize = 8;

#[derive(Debug, Clone, PartialEq)]
enum Here {
    Folder { inode: u64 },
    File { inode: u64, content: u32, time: i64 },
}

#[derive(Debug, Clone, PartialEq)]
enum There {
    Folder {
        id: u64,
    },
    File {
        id: u64,
        version: u64,
        content: u32,
        time: i64,
    },
}

#[derive(Debug, Default)]
struct Replica {
    files: BTreeMap<String, Here>,
    known: BTreeMap<String, Known>,
}

#[derive(Debug, Default)]
struct World {
    replicas: [Replica; REPLICAS],
    remote: BTreeMap<String, There>,
    counter: u64,
    /// Written, and not deleted or replaced by anybody who saw it.
    alive: BTreeSet<u32>,
}

#[derive(Debug, Clone)]
enum Edit {
    Write(usize, String),
    Touch(usize, String),
    MakeFolder(usize, String),
    Delete(usize, String),
    Rename(usize, String, String),
    /// Synchronizes; stops before that action when it is a number.
    Sync(usize, Option<usize>),
    /// The state is lost.
    Forget(usize),
}

fn bytes(n: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes
}

fn hash(content: u32) -> Hash {
    bytes(u64::from(content))
}

/// Few sizes, so that only the content tells files apart.
fn size(content: u32) -> u64 {
    u64::from(content % 3)
}

fn at(time: i64) -> Timestamp {
    Timestamp::from_epoch_seconds(time)
}

impl World {
    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn edit(&mut self, edit: &Edit) {
        match edit {
            Edit::Write(who, path) => self.write(*who, path),
            Edit::Touch(who, path) => {
                let now = i64::try_from(self.next()).unwrap();
                if let Some(Here::File { time, .. }) = self.replicas[*who].files.get_mut(path) {
                    *time = now;
                }
            }
            Edit::MakeFolder(who, path) => {
                if !self.replicas[*who].files.contains_key(path) && self.has_folder(*who, path) {
                    let inode = self.next();
                    let folder = Here::Folder { inode };
                    self.replicas[*who].files.insert(path.clone(), folder);
                }
            }
            Edit::Delete(who, path) => {
                for (_, gone) in take(&mut self.replicas[*who].files, path) {
                    self.bury(&gone);
                }
            }
            Edit::Rename(who, from, to) => {
                let files = &self.replicas[*who].files;
                let is_inside = to.starts_with(&format!("{from}/"));
                let replaces_folder = matches!(files.get(to), Some(Here::Folder { .. }));
                if from == to || is_inside || replaces_folder || !files.contains_key(from) {
                    return;
                }
                if files.contains_key(to) && matches!(files[from], Here::Folder { .. }) {
                    return;
                }
                if !self.has_folder(*who, to) {
                    return;
                }
                if let Some(gone) = self.replicas[*who].files.remove(to) {
                    self.bury(&gone);
                }
                shift(&mut self.replicas[*who].files, from, to);
            }
            Edit::Sync(who, stop) => {
                self.sync(*who, *stop);
            }
            Edit::Forget(who) => self.replicas[*who].known.clear(),
        }
    }

    fn has_folder(&self, who: usize, path: &str) -> bool {
        parent(path).is_none_or(|folder| {
            matches!(
                self.replicas[who].files.get(folder),
                Some(Here::Folder { .. })
            )
        })
    }

    fn write(&mut self, who: usize, path: &str) {
        if !self.has_folder(who, path) {
            return;
        }
        let n = self.next();
        let (content, time) = (u32::try_from(n).unwrap(), i64::try_from(n).unwrap());
        let inode = match self.replicas[who].files.get(path) {
            Some(Here::Folder { .. }) => return,
            Some(gone @ Here::File { inode, .. }) => {
                let (gone, inode) = (gone.clone(), *inode);
                self.bury(&gone);
                inode
            }
            None => n,
        };
        let file = Here::File {
            inode,
            content,
            time,
        };
        self.replicas[who].files.insert(path.to_owned(), file);
        // Empty files are all the same.
        if size(content) > 0 {
            self.alive.insert(content);
        }
    }

    fn bury(&mut self, gone: &Here) {
        if let Here::File { content, .. } = gone {
            self.alive.remove(content);
        }
    }

    fn trees(&self, who: usize, verified: &BTreeSet<String>) -> Trees {
        let replica = &self.replicas[who];
        let mut trees = Trees {
            known: replica.known.clone(),
            ..Trees::default()
        };
        for (path, here) in &replica.files {
            let local = match here {
                Here::Folder { inode } => Local::Folder { inode: *inode },
                Here::File { .. } => {
                    let stamp = stamp(here);
                    let known = match replica.known.get(path) {
                        Some(Known::File { stamp, hash, .. }) => Some((*stamp, *hash)),
                        _ => None,
                    };
                    let hash = known.filter(|(known, _)| *known == stamp);
                    Local::File {
                        stamp,
                        hash: hash.and_then(|(_, hash)| hash),
                    }
                }
            };
            trees.local.insert(path.clone(), local);
        }
        for (path, there) in &self.remote {
            let remote = match there {
                There::Folder { id } => Remote::Folder {
                    id: Some(bytes(*id)),
                },
                There::File { .. } => Remote::File(RemoteFile {
                    is_verified: verified.contains(path),
                    ..remote_file(there)
                }),
            };
            trees.remote.insert(path.clone(), remote);
        }
        for path in trees.to_be_hashed() {
            let content = match &replica.files[&path] {
                Here::File { content, .. } => *content,
                Here::Folder { .. } => panic!("a folder has no content"),
            };
            if let Some(Local::File { hash: known, .. }) = trees.local.get_mut(&path) {
                *known = Some(hash(content));
            }
        }
        trees
    }

    fn plan(&self, who: usize, verified: &BTreeSet<String>) -> Plan {
        let rules = Rules {
            direction: Direction::Both,
            label: format!("conflict {who}"),
        };
        plan(self.trees(who, verified), &rules)
    }

    /// Returns how many actions there were.
    fn sync(&mut self, who: usize, stop: Option<usize>) -> usize {
        let mut done = 0;
        let mut verified = BTreeSet::new();
        for _ in 0..MAX_ROUNDS {
            let plan = self.plan(who, &verified);
            let known = &mut self.replicas[who].known;
            known.extend(plan.adopted);
            for path in plan.forgotten {
                known.remove(&path);
            }
            if plan.actions.is_empty() {
                assert!(plan.is_final, "nothing to do, and yet more to decide");
                return done;
            }
            for action in plan.actions {
                if stop == Some(done) {
                    return done;
                }
                done += 1;
                self.apply(who, action, &mut verified);
            }
        }
        panic!("no end: {:?}", self.plan(who, &verified).actions);
    }

    fn apply(&mut self, who: usize, action: Action, verified: &mut BTreeSet<String>) {
        let n = self.next();
        match action {
            Action::MoveRemote { from, to } => {
                self.make_parents_there(&to);
                assert!(!self.remote.contains_key(&to), "{from} -> {to}");
                assert!(self.remote.contains_key(&from), "{from} -> {to}");
                shift(&mut self.remote, &from, &to);
                if let Some(There::File { version, .. }) = self.remote.get_mut(&to) {
                    *version = n;
                }
                shift(&mut self.replicas[who].known, &from, &to);
            }
            Action::MoveLocal { from, to } => {
                self.make_parents_here(who, &to);
                let replica = &mut self.replicas[who];
                assert!(!replica.files.contains_key(&to), "{from} -> {to}");
                assert!(replica.files.contains_key(&from), "{from} -> {to}");
                shift(&mut replica.files, &from, &to);
                shift(&mut replica.known, &from, &to);
            }
            Action::MakeRemote { path } => {
                self.make_parents_there(&path);
                let folder = self.remote.entry(path).or_insert(There::Folder { id: n });
                assert!(matches!(folder, There::Folder { .. }));
            }
            Action::MakeLocal { path, .. } => {
                self.make_parents_here(who, &path);
                let files = &mut self.replicas[who].files;
                let folder = files.entry(path).or_insert(Here::Folder { inode: n });
                assert!(matches!(folder, Here::Folder { .. }));
            }
            Action::Upload {
                path,
                stamp: expected,
                replaces,
            } => {
                self.make_parents_there(&path);
                let here = self.replicas[who].files[&path].clone();
                assert_eq!(stamp(&here), expected);
                let Here::File { content, time, .. } = here else {
                    panic!("a folder is no file");
                };
                let id = match (self.remote.get(&path), replaces) {
                    (None, None) => n,
                    (Some(There::File { id, version, .. }), Some(replaced)) => {
                        assert_eq!(replaced.version, Some(bytes(*version)));
                        *id
                    }
                    other => panic!("{path}: {other:?}"),
                };
                let file = There::File {
                    id,
                    version: n,
                    content,
                    time,
                };
                let remote = RemoteFile {
                    id: None,
                    version: None,
                    ..remote_file(&file)
                };
                self.remote.insert(path.clone(), file);
                let known = Known::File {
                    stamp: expected,
                    remote,
                    hash: Some(hash(content)),
                };
                self.replicas[who].known.insert(path, known);
            }
            Action::Download {
                path,
                remote,
                replaces,
            } => {
                self.make_parents_here(who, &path);
                let there = self.remote[&path].clone();
                assert_eq!(remote_file(&there).version, remote.version);
                let There::File { content, time, .. } = there else {
                    panic!("a folder is no file");
                };
                let replica = &mut self.replicas[who];
                assert_eq!(replica.files.get(&path).map(stamp), replaces);
                let file = Here::File {
                    inode: n,
                    content,
                    time,
                };
                let known = Known::File {
                    stamp: stamp(&file),
                    remote: remote_file(&there),
                    hash: Some(hash(content)),
                };
                replica.files.insert(path.clone(), file);
                replica.known.insert(path, known);
            }
            Action::Compare { path, .. } => {
                verified.insert(path);
            }
            Action::DeleteLocal {
                path,
                stamp: expected,
            } => {
                let replica = &mut self.replicas[who];
                assert_eq!(below(&replica.files, &path).count(), 0, "{path} is in use");
                let gone = replica.files.remove(&path).unwrap();
                assert_eq!(matches!(gone, Here::File { .. }), expected.is_some());
                replica.known.remove(&path);
            }
            Action::DeleteRemote { path, expected } => {
                let gone = take(&mut self.remote, &path);
                assert_eq!(gone.len(), expected.len());
                for ((path, gone), (expected, version)) in gone.iter().zip(&expected) {
                    assert_eq!(path, expected);
                    assert_eq!(matches!(gone, There::File { .. }), version.is_some());
                }
                take(&mut self.replicas[who].known, &path);
            }
        }
    }

    fn make_parents_there(&mut self, path: &str) {
        let mut above = parent(path);
        while let Some(folder) = above {
            let id = self.next();
            let made = self.remote.entry(folder.to_owned());
            let made = made.or_insert(There::Folder { id });
            assert!(
                matches!(made, There::Folder { .. }),
                "{path}: a file is in the way"
            );
            above = parent(folder);
        }
    }

    fn make_parents_here(&mut self, who: usize, path: &str) {
        let mut above = parent(path);
        while let Some(folder) = above {
            let inode = self.next();
            let made = self.replicas[who].files.entry(folder.to_owned());
            let made = made.or_insert(Here::Folder { inode });
            assert!(
                matches!(made, Here::Folder { .. }),
                "{path}: a file is in the way"
            );
            above = parent(folder);
        }
    }

    /// Synchronizes in turn until nobody has anything to do, and compares.
    fn settle(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let done: usize = (0..REPLICAS).map(|who| self.sync(who, None)).sum();
            if done == 0 {
                break;
            }
        }
        let there: BTreeMap<&String, Option<u32>> = self
            .remote
            .iter()
            .map(|(path, item)| match item {
                There::Folder { .. } => (path, None),
                There::File { content, .. } => (path, Some(*content)),
            })
            .collect();
        for replica in &self.replicas {
            let here: BTreeMap<&String, Option<u32>> = replica
                .files
                .iter()
                .map(|(path, item)| match item {
                    Here::Folder { .. } => (path, None),
                    Here::File { content, .. } => (path, Some(*content)),
                })
                .collect();
            // Empty files are all the same, whoever wrote them.
            let plain = |map: &BTreeMap<&String, Option<u32>>| -> BTreeMap<String, Option<u32>> {
                let content = |c: u32| if size(c) == 0 { 0 } else { c };
                map.iter()
                    .map(|(path, item)| ((*path).clone(), item.map(content)))
                    .collect()
            };
            assert_eq!(plain(&here), plain(&there));
        }
        let left: BTreeSet<u32> = there.values().filter_map(|content| *content).collect();
        let lost: Vec<&u32> = self.alive.difference(&left).collect();
        assert!(lost.is_empty(), "lost {lost:?}");
    }
}

fn stamp(here: &Here) -> Stamp {
    match here {
        Here::File {
            inode,
            content,
            time,
        } => Stamp {
            size: size(*content),
            modified: at(*time),
            inode: *inode,
        },
        Here::Folder { .. } => panic!("a folder has no stamp"),
    }
}

fn remote_file(there: &There) -> RemoteFile {
    match there {
        There::File {
            id,
            version,
            content,
            time,
        } => RemoteFile {
            id: Some(bytes(*id)),
            version: Some(bytes(*version)),
            size: size(*content),
            modified: at(*time),
            hash: Some(hash(*content)),
            is_verified: false,
        },
        There::Folder { .. } => panic!("a folder is no file"),
    }
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "c"], 1..=3).prop_map(|names| names.join("/"))
}

fn edit() -> impl Strategy<Value = Edit> {
    let who = 0..REPLICAS;
    prop_oneof![
        6 => (who.clone(), path()).prop_map(|(who, path)| Edit::Write(who, path)),
        1 => (who.clone(), path()).prop_map(|(who, path)| Edit::Touch(who, path)),
        4 => (who.clone(), path()).prop_map(|(who, path)| Edit::MakeFolder(who, path)),
        2 => (who.clone(), path()).prop_map(|(who, path)| Edit::Delete(who, path)),
        3 => (who.clone(), path(), path()).prop_map(|(who, from, to)| Edit::Rename(who, from, to)),
        3 => (who.clone(), proptest::option::weighted(0.4, 0_usize..6))
            .prop_map(|(who, stop)| Edit::Sync(who, stop)),
        1 => who.prop_map(Edit::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn replicas_converge_and_nothing_is_lost(
        edits in proptest::collection::vec(edit(), 1..40),
    ) {
        settles(&edits);
    }
}

fn settles(edits: &[Edit]) {
    let mut world = World::default();
    for edit in edits {
        world.edit(edit);
    }
    world.settle();
}

#[test]
fn nothing_is_moved_below_a_file() {
    settles(&[
        Edit::MakeFolder(1, "b".to_owned()),
        Edit::Write(0, "b".to_owned()),
        Edit::MakeFolder(0, "c".to_owned()),
        Edit::Sync(0, None),
        Edit::Sync(1, None),
        Edit::Rename(1, "c".to_owned(), "b/a".to_owned()),
        Edit::Sync(1, None),
    ]);
}

#[test]
fn what_was_renamed_here_and_changed_there_is_kept_under_both_names() {
    settles(&[
        Edit::Write(0, "b".to_owned()),
        Edit::Sync(0, None),
        Edit::MakeFolder(1, "a".to_owned()),
        Edit::Sync(1, None),
        Edit::Rename(1, "b".to_owned(), "a/a".to_owned()),
        Edit::Write(0, "b".to_owned()),
    ]);
}

#[test]
fn a_run_that_breaks_off_before_a_move_does_not_take_it_for_two_deletions() {
    settles(&[
        Edit::Write(1, "a".to_owned()),
        Edit::MakeFolder(0, "b".to_owned()),
        Edit::MakeFolder(0, "a".to_owned()),
        Edit::Write(0, "c".to_owned()),
        Edit::Sync(1, None),
        Edit::Sync(0, Some(1)),
        Edit::Sync(1, Some(0)),
    ]);
}
