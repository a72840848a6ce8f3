//! What the planner knows of the two sides: files and folders by their path below the synchronized folder.
//!
//! Paths are components joined by `/`, without one in front; the synchronized folder itself has no entry. Nothing here
//! reads or writes anything.

use std::collections::{BTreeMap, BTreeSet};

use cryptree::properties::Timestamp;

/// Root of a file's content hash tree.
pub type Hash = [u8; 32];
/// What a remote item keeps when it is renamed or moved.
pub type Id = [u8; 32];
/// What a remote item keeps as long as nothing of it changes.
pub type Version = [u8; 32];

/// What tells without reading it that a local file has not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Size in bytes.
    pub size: u64,
    /// Modification time.
    pub modified: Timestamp,
    /// Number of the file on its disk; 0 where there is none.
    pub inode: u64,
}

/// A local file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// A folder.
    Folder {
        /// Its number on its disk; 0 where there is none.
        inode: u64,
    },
    /// A regular file.
    File {
        /// How it looks from outside.
        stamp: Stamp,
        /// What is in it, if it had to be read or was known.
        hash: Option<Hash>,
    },
}

/// A remote file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Which file; unknown from an upload until it is seen in a listing.
    pub id: Option<Id>,
    /// Which state of it; unknown from an upload until it is seen in a listing.
    pub version: Option<Version>,
    /// Size in bytes.
    pub size: u64,
    /// Modification time.
    pub modified: Timestamp,
    /// What is in it, as whoever wrote it says: other clients leave old ones behind (Spec: 20 §8).
    pub hash: Option<Hash>,
    /// The hash was computed here from the content.
    pub is_verified: bool,
}

/// A remote file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// A folder.
    Folder {
        /// Which one.
        id: Option<Id>,
    },
    /// A file.
    File(RemoteFile),
}

/// What both sides were when they last agreed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// A folder.
    Folder {
        /// The local one.
        inode: u64,
        /// The remote one, if it was seen.
        id: Option<Id>,
    },
    /// A file.
    File {
        /// The local one.
        stamp: Stamp,
        /// The remote one.
        remote: RemoteFile,
        /// The content of both, if it was computed.
        hash: Option<Hash>,
    },
}

/// Both sides, and their last agreement.
#[derive(Debug, Clone, Default)]
pub struct Trees {
    /// The last agreement.
    pub known: BTreeMap<String, Known>,
    /// This machine.
    pub local: BTreeMap<String, Local>,
    /// The account.
    pub remote: BTreeMap<String, Remote>,
    /// Folders with something below that takes no part, on either side: they are never deleted.
    pub kept: BTreeSet<String>,
}

impl Trees {
    /// Takes a path and everything below it out of the game, on both sides.
    pub fn exclude(&mut self, path: &str) {
        take(&mut self.known, path);
        take(&mut self.local, path);
        take(&mut self.remote, path);
        let mut above = parent(path);
        while let Some(folder) = above {
            self.kept.insert(folder.to_owned());
            above = parent(folder);
        }
    }

    /// Returns the local files whose content must be known to decide, because their size alone does not tell.
    #[must_use]
    pub fn to_be_hashed(&self) -> Vec<String> {
        let gone: BTreeSet<u64> = self
            .known
            .iter()
            .filter(|(path, _)| !self.local.contains_key(*path))
            .filter_map(|(_, known)| match known {
                Known::File { stamp, .. } => Some(stamp.size),
                Known::Folder { .. } => None,
            })
            .collect();
        let mut wanted = Vec::new();
        for (path, local) in &self.local {
            let Local::File { stamp, hash: None } = local else {
                continue;
            };
            let is_wanted = stamp.size > 0
                && match (self.known.get(path), self.remote.get(path)) {
                    (Some(Known::File { stamp: known, .. }), _) if known == stamp => false,
                    (Some(Known::File { stamp: known, .. }), _) if known.size == stamp.size => true,
                    (_, Some(Remote::File(remote))) => remote.size == stamp.size,
                    (None, None) => gone.contains(&stamp.size),
                    _ => false,
                };
            if is_wanted {
                wanted.push(path.clone());
            }
        }
        wanted
    }
}

/// Whether two files hold the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// They do.
    Same,
    /// They do not.
    Different,
    /// The remote one has to be read to tell.
    Unsure,
}

/// Compares a local and a remote file that have no agreement in common.
#[must_use]
pub fn likeness(stamp: &Stamp, hash: Option<Hash>, remote: &RemoteFile) -> Likeness {
    if stamp.size != remote.size {
        return Likeness::Different;
    }
    if stamp.size == 0 {
        return Likeness::Same;
    }
    let same_time = stamp.modified == remote.modified;
    match (hash, remote.hash) {
        (Some(here), Some(there)) if here != there => Likeness::Different,
        (Some(_), Some(_)) if same_time || remote.is_verified => Likeness::Same,
        (_, None) if same_time => Likeness::Same,
        _ => Likeness::Unsure,
    }
}

/// Returns true when a local file is what it was at the last agreement.
#[must_use]
pub fn is_local_same(
    known: &Stamp,
    known_hash: Option<Hash>,
    stamp: &Stamp,
    hash: Option<Hash>,
) -> bool {
    let same_content =
        known.size == stamp.size && (stamp.size == 0 || (hash.is_some() && hash == known_hash));
    known == stamp || same_content
}

/// Returns true when a remote file is what it was at the last agreement.
#[must_use]
pub fn is_remote_same(known: &RemoteFile, remote: &RemoteFile) -> bool {
    let same_version = known.version.is_some() && known.version == remote.version;
    // A hash alone proves nothing: a client that does not know of it leaves the old one behind.
    let same_content = known.size == remote.size
        && known.modified == remote.modified
        && (known.size == 0 || (known.hash.is_some() && known.hash == remote.hash));
    same_version || same_content
}

/// Returns the folder that a path is in; `None` at the top.
#[must_use]
pub fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

/// Returns the last component of a path.
#[must_use]
pub fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Returns the keys of everything below a folder.
pub fn below<'a, V>(
    map: &'a BTreeMap<String, V>,
    folder: &str,
) -> impl Iterator<Item = (&'a String, &'a V)> + use<'a, V> {
    let prefix = format!("{folder}/");
    map.range(prefix.clone()..)
        .take_while(move |(path, _)| path.starts_with(&prefix))
}

/// Takes an item and everything below it out of a tree.
pub fn take<V>(map: &mut BTreeMap<String, V>, path: &str) -> Vec<(String, V)> {
    let mut paths: Vec<String> = below(map, path).map(|(path, _)| path.clone()).collect();
    paths.insert(0, path.to_owned());
    paths
        .into_iter()
        .filter_map(|path| map.remove_entry(&path))
        .collect()
}

/// Gives an item and everything below it another path, and returns the new paths.
pub fn shift<V>(map: &mut BTreeMap<String, V>, from: &str, to: &str) -> Vec<String> {
    let taken = take(map, from);
    let mut paths = Vec::with_capacity(taken.len());
    for (path, value) in taken {
        let rest = path.get(from.len()..).unwrap_or_default();
        let moved = format!("{to}{rest}");
        paths.push(moved.clone());
        map.insert(moved, value);
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtrees_move_without_their_neighbors() {
        let paths = ["a", "a!", "a/b", "a/b/c", "ab", "a.txt"];
        let mut map: BTreeMap<String, u8> = paths.iter().map(|path| ((*path).into(), 0)).collect();
        shift(&mut map, "a", "x/y");
        let keys: Vec<&str> = map.keys().map(String::as_str).collect();
        assert_eq!(keys, ["a!", "a.txt", "ab", "x/y", "x/y/b", "x/y/b/c"]);
    }

    #[test]
    fn what_takes_no_part_keeps_its_folders() {
        let mut trees = Trees::default();
        for path in ["a", "a/b", "a/b/secret", "a/b/secret/x", "a/c"] {
            trees.local.insert(path.into(), Local::Folder { inode: 1 });
            trees
                .remote
                .insert(path.into(), Remote::Folder { id: None });
        }
        trees.exclude("a/b/secret");
        assert_eq!((trees.local.len(), trees.remote.len()), (3, 3));
        assert!(trees.kept.contains("a") && trees.kept.contains("a/b"));
        assert!(!trees.kept.contains("a/c"));
    }

    #[test]
    fn a_hash_that_others_may_have_left_behind_needs_the_time_too() {
        let at = Timestamp::from_epoch_seconds;
        let stamp = |seconds| Stamp {
            size: 5,
            modified: at(seconds),
            inode: 1,
        };
        let remote = |hash, is_verified| RemoteFile {
            id: None,
            version: None,
            size: 5,
            modified: at(7),
            hash,
            is_verified,
        };
        let (a, b) = (Some([1; 32]), Some([2; 32]));
        assert_eq!(likeness(&stamp(7), a, &remote(a, false)), Likeness::Same);
        assert_eq!(likeness(&stamp(8), a, &remote(a, false)), Likeness::Unsure);
        assert_eq!(likeness(&stamp(8), a, &remote(a, true)), Likeness::Same);
        assert_eq!(
            likeness(&stamp(7), a, &remote(b, false)),
            Likeness::Different
        );
        assert_eq!(likeness(&stamp(7), a, &remote(None, false)), Likeness::Same);
        assert_eq!(
            likeness(&stamp(8), a, &remote(None, false)),
            Likeness::Unsure
        );
        let longer = RemoteFile {
            size: 6,
            ..remote(a, true)
        };
        assert_eq!(likeness(&stamp(7), a, &longer), Likeness::Different);
        let changed = RemoteFile {
            modified: at(9),
            version: b,
            ..remote(a, false)
        };
        assert!(!is_remote_same(&remote(a, false), &changed));
        assert!(is_remote_same(&remote(a, false), &remote(a, false)));
    }
}
