//! What files and folders are, without encryption, nodes and networks: a map from path to content.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// Paths are relative to the home folder and have no slash in front.
pub(crate) type Tree = BTreeMap<String, Item>;

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Folder,
    File(Arc<Vec<u8>>),
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder => f.write_str("folder"),
            Self::File(content) => {
                let sum = content
                    .iter()
                    .fold(7_u64, |sum, byte| sum * 31 % 999_983 + u64::from(*byte));
                write!(f, "{} bytes #{sum}", content.len())
            }
        }
    }
}

#[derive(Clone)]
pub(crate) enum Op {
    MakeFolder(String),
    /// Uploads a file that must not be there.
    Put(String, Arc<Vec<u8>>),
    /// Uploads a file, replacing what is there.
    Overwrite(String, Arc<Vec<u8>>),
    /// The same from a stream of unknown length.
    Stream(String, Arc<Vec<u8>>),
    Append(String, Arc<Vec<u8>>),
    WriteAt(String, u64, Arc<Vec<u8>>),
    SetSize(String, u64),
    Move(String, String),
    Copy(String, String),
    Delete(String),
    RemoveFolder(String),
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeFolder(path) => write!(f, "mkdir {path}"),
            Self::Put(path, bytes) => write!(f, "put {path} {} bytes", bytes.len()),
            Self::Overwrite(path, bytes) => write!(f, "overwrite {path} {} bytes", bytes.len()),
            Self::Stream(path, bytes) => write!(f, "stream {path} {} bytes", bytes.len()),
            Self::Append(path, bytes) => write!(f, "append {path} {} bytes", bytes.len()),
            Self::WriteAt(path, at, bytes) => {
                write!(f, "write {path} at {at} {} bytes", bytes.len())
            }
            Self::SetSize(path, size) => write!(f, "size {path} {size}"),
            Self::Move(from, to) => write!(f, "mv {from} {to}"),
            Self::Copy(from, to) => write!(f, "cp {from} {to}"),
            Self::Delete(path) => write!(f, "rm {path}"),
            Self::RemoveFolder(path) => write!(f, "rmdir {path}"),
        }
    }
}

/// How an operation ended, as far as its caller knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    /// The content is in a conflict copy.
    Beside(String),
    /// Refused for good, without any effect.
    Refused,
    /// It may have happened, or may still happen.
    Unknown,
}

pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

pub(crate) fn is_within(path: &str, folder: &str) -> bool {
    path == folder
        || path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
}

fn is_folder(tree: &Tree, path: &str) -> bool {
    path.is_empty() || tree.get(path) == Some(&Item::Folder)
}

/// Returns true when something new can be made at `path`.
fn is_free(tree: &Tree, path: &str) -> bool {
    is_folder(tree, parent(path)) && !tree.contains_key(path)
}

fn file<'a>(tree: &'a Tree, path: &str) -> Option<&'a Vec<u8>> {
    match tree.get(path)? {
        Item::File(content) => Some(content),
        Item::Folder => None,
    }
}

fn with_file(tree: &Tree, path: &str, content: Vec<u8>) -> Tree {
    let mut after = tree.clone();
    after.insert(path.to_owned(), Item::File(Arc::new(content)));
    after
}

impl Op {
    /// Returns the tree after the operation; `None` when it is refused.
    pub(crate) fn apply(&self, tree: &Tree) -> Option<Tree> {
        match self {
            Self::MakeFolder(path) => is_free(tree, path).then(|| {
                let mut after = tree.clone();
                after.insert(path.clone(), Item::Folder);
                after
            }),
            Self::Put(path, bytes) => {
                is_free(tree, path).then(|| with_file(tree, path, bytes.to_vec()))
            }
            Self::Overwrite(path, bytes) | Self::Stream(path, bytes) => {
                let is_right = is_free(tree, path) || file(tree, path).is_some();
                is_right.then(|| with_file(tree, path, bytes.to_vec()))
            }
            Self::Append(path, bytes) => {
                let content = [file(tree, path)?, &bytes[..]].concat();
                Some(with_file(tree, path, content))
            }
            Self::WriteAt(path, at, bytes) => {
                let mut content = file(tree, path)?.clone();
                let at = usize::try_from(*at).unwrap();
                if !bytes.is_empty() {
                    content.resize(content.len().max(at + bytes.len()), 0);
                    content[at..at + bytes.len()].copy_from_slice(bytes);
                }
                Some(with_file(tree, path, content))
            }
            Self::SetSize(path, size) => {
                let mut content = file(tree, path)?.clone();
                content.resize(usize::try_from(*size).unwrap(), 0);
                Some(with_file(tree, path, content))
            }
            Self::Move(from, to) => {
                let mut after = Self::Copy(from.clone(), to.clone()).apply(tree)?;
                after.retain(|path, _| !is_within(path, from));
                Some(after)
            }
            Self::Copy(from, to) => {
                if !tree.contains_key(from) || is_within(to, from) || !is_free(tree, to) {
                    return None;
                }
                let mut after = tree.clone();
                for (path, item) in tree.iter().filter(|(path, _)| is_within(path, from)) {
                    after.insert(format!("{to}{}", &path[from.len()..]), item.clone());
                }
                Some(after)
            }
            Self::Delete(path) => tree.contains_key(path).then(|| {
                let mut after = tree.clone();
                after.retain(|known, _| !is_within(known, path));
                after
            }),
            Self::RemoveFolder(path) => {
                let is_right = is_folder(tree, path)
                    && !tree
                        .keys()
                        .any(|known| known != path && is_within(known, path));
                is_right.then(|| {
                    let mut after = tree.clone();
                    after.remove(path);
                    after
                })
            }
        }
    }

    /// The paths that it writes to.
    fn writes(&self) -> Vec<&str> {
        match self {
            Self::MakeFolder(path)
            | Self::Put(path, _)
            | Self::Overwrite(path, _)
            | Self::Stream(path, _)
            | Self::Append(path, _)
            | Self::WriteAt(path, ..)
            | Self::SetSize(path, _)
            | Self::Delete(path)
            | Self::RemoveFolder(path) => vec![path],
            Self::Move(from, to) => vec![from, to],
            Self::Copy(_, to) => vec![to],
        }
    }

    /// Returns the trees that there may be when it ended like that on `tree`, after `other` had been done by another
    /// device since it began.
    pub(crate) fn outcomes(&self, ended: &Ended, tree: &Tree, other: Option<&Self>) -> Vec<Tree> {
        match ended {
            Ended::Done => self.apply(tree).into_iter().collect(),
            Ended::Unknown => {
                let mut outcomes = vec![tree.clone()];
                outcomes.extend(self.apply(tree));
                // Into a copy whose name the caller never learned.
                outcomes
            }
            Ended::Refused => {
                let is_overtaken = match (self, other) {
                    (Self::Delete(path), Some(other)) => other
                        .writes()
                        .iter()
                        .any(|written| is_within(written, path)),
                    _ => false,
                };
                let is_right = is_overtaken || self.apply(tree).is_none();
                is_right.then(|| tree.clone()).into_iter().collect()
            }
            Ended::Beside(copy) => {
                let (Self::Overwrite(path, bytes) | Self::Stream(path, bytes)) = self else {
                    return Vec::new();
                };
                let is_overtaken = other.is_some_and(|other| {
                    other
                        .writes()
                        .iter()
                        .any(|written| is_within(path, written))
                });
                let is_right = is_overtaken
                    && file(tree, path).is_some()
                    && parent(copy) == parent(path)
                    && copy.contains(" (conflict ")
                    && is_free(tree, copy);
                is_right
                    .then(|| with_file(tree, copy, bytes.to_vec()))
                    .into_iter()
                    .collect()
            }
        }
    }
}
