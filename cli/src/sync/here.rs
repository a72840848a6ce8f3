//! Reads the local side: names, sizes and times, and content only where those do not tell.
//!
//! Links, pipes, devices, names that are not text and folders that cannot be read take no part and are reported: what
//! cannot be seen is never taken for deleted.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File, Metadata},
    io::{self, Read},
    path::Path,
};

use cryptree::{
    hash_tree::HashTreeBuilder,
    properties::{FileName, Timestamp},
};
use sha2::{Digest, Sha256};

use super::{
    ignore::Ignored,
    places::Places,
    tree::{Hash, Known, Local, Remote, Stamp},
};
use crate::{
    commands::put::timestamp,
    exit::{Class, Failure},
    local::partial::PART_PREFIX,
};

/// The local side.
#[derive(Debug, Default)]
pub struct Here {
    /// What takes part.
    pub tree: BTreeMap<String, Local>,
    /// What does not.
    pub excluded: Vec<String>,
    /// Of that, what a person should hear of, and why.
    pub notes: Vec<(String, String)>,
    /// What is left out on purpose, on either side.
    pub ignored: Ignored,
}

/// Reads everything below `root`; what has a name here in the stead of its own, by the agreement and the account, gets that,
/// and is noted in `places`.
///
/// # Errors
///
/// When the root or an ignore file cannot be read, or there is too much.
pub fn read(
    root: &Path,
    known: &BTreeMap<String, Known>,
    remote: &BTreeMap<String, Remote>,
    places: &mut Places,
) -> Result<Here, Failure> {
    let mut here = Here::default();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let local = places.below(root, &folder);
        let entries = fs::read_dir(&local).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) if folder.is_empty() => return Err(Failure::local("read", root, &error)),
            Err(error) => {
                here.tree.remove(&folder);
                here.leave_out(folder, error.to_string());
                continue;
            }
        };
        here.ignored.read(&folder, &local)?;
        let names: Vec<_> = entries.iter().map(fs::DirEntry::file_name).collect();
        let names: HashSet<&str> = names.iter().filter_map(|name| name.to_str()).collect();
        let stand_ins = Places::stand_ins(&folder, &names, known, remote);
        for entry in entries {
            let name = entry.file_name();
            let path = joined(&folder, &name.to_string_lossy());
            let Some(name) = name.to_str() else {
                here.leave_out(path, "its name is not valid UTF-8".to_owned());
                continue;
            };
            let (name, path) = match stand_ins.get(name) {
                None => (name, path),
                Some(own) => {
                    let path = joined(&folder, own);
                    places.put(path.clone(), name.to_owned());
                    (own.as_str(), path)
                }
            };
            if name.starts_with(PART_PREFIX) {
                here.excluded.push(path);
                continue;
            }
            let found = match fs::symlink_metadata(entry.path()) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    here.leave_out(path, error.to_string());
                    continue;
                }
            };
            if here.ignored.matches(&path, found.is_dir()) {
                here.excluded.push(path);
            } else if FileName::parse(name).is_err() {
                here.leave_out(path, "its name is too long or not allowed".to_owned());
            } else if found.is_dir() {
                let inode = inode(&found);
                here.tree.insert(path.clone(), Local::Folder { inode });
                folders.push(path);
            } else if found.is_file() {
                let stamp = stamp(&found);
                let hash = known_hash(known.get(&path), &stamp);
                here.tree.insert(path, Local::File { stamp, hash });
            } else {
                let what = if found.is_symlink() {
                    "it is a symbolic link"
                } else {
                    "it is neither a file nor a folder"
                };
                here.leave_out(path, what.to_owned());
            }
            if here.tree.len() > MAX_ITEMS {
                return Err(Failure::new(
                    Class::TooLarge,
                    format!("more than {MAX_ITEMS} files and folders"),
                ));
            }
        }
    }
    Ok(here)
}

impl Here {
    fn leave_out(&mut self, path: String, reason: String) {
        self.excluded.push(path.clone());
        self.notes.push((path, reason));
    }
}

fn known_hash(known: Option<&Known>, found: &Stamp) -> Option<Hash> {
    match known {
        Some(Known::File { stamp, hash, .. }) if stamp == found => *hash,
        _ => None,
    }
}

/// Returns the path of an item in a folder.
#[must_use]
pub fn joined(folder: &str, name: &str) -> String {
    match folder {
        "" => name.to_owned(),
        folder => format!("{folder}/{name}"),
    }
}

/// Returns how a file looks from outside.
#[must_use]
pub fn stamp(found: &Metadata) -> Stamp {
    Stamp {
        size: found.len(),
        modified: found
            .modified()
            .map_or(Timestamp::from_epoch_seconds(0), timestamp),
        inode: inode(found),
    }
}

/// Returns the number of an item on its disk.
#[must_use]
pub fn inode(found: &Metadata) -> u64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::ino(found);
    #[cfg(not(unix))]
    return 0;
}

/// Computes the root of a content's hash tree, in pieces of any size.
#[derive(Debug)]
pub struct ContentHasher {
    chunk: Sha256,
    filled: usize,
    tree: HashTreeBuilder,
    is_empty: bool,
}

impl ContentHasher {
    /// Starts with no content.
    #[must_use]
    pub fn new() -> Self {
        Self {
            chunk: Sha256::new(),
            filled: 0,
            tree: HashTreeBuilder::new(),
            is_empty: true,
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.filled));
            self.chunk.update(now);
            self.filled += now.len();
            if self.filled == CHUNK_BYTES {
                self.close();
            }
            bytes = rest;
        }
    }

    fn close(&mut self) {
        let hash: Hash = std::mem::take(&mut self.chunk).finalize().into();
        self.tree.push_hash(&hash);
        self.filled = 0;
        self.is_empty = false;
    }

    /// Returns the root.
    #[must_use]
    pub fn finish(mut self) -> Hash {
        // An empty file has one empty chunk.
        if self.filled > 0 || self.is_empty {
            self.close();
        }
        *self.tree.finish().root()
    }
}

impl Default for ContentHasher {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads a file and returns the root of its hash tree.
///
/// # Errors
///
/// Of the file system.
pub fn hash(path: &Path) -> io::Result<Hash> {
    let mut file = File::open(path)?;
    let mut hasher = ContentHasher::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(buffer.get(..n).unwrap_or_default());
    }
}

/// Most files and folders on one side.
pub const MAX_ITEMS: usize = 5_000_000;
/// Bytes of a chunk (Spec: 20 §7.1).
const CHUNK_BYTES: usize = 5 << 20;
/// Bytes read from a local file at once.
const READ_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_format_whatever_the_pieces() {
        for size in [
            0,
            1,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
            2 * CHUNK_BYTES,
        ] {
            let content: Vec<u8> = (0..=250_u8).cycle().take(size).collect();
            let mut tree = HashTreeBuilder::new();
            for chunk in content.chunks(CHUNK_BYTES) {
                tree.push_chunk(chunk);
            }
            if size == 0 {
                tree.push_chunk(&[]);
            }
            let mut hasher = ContentHasher::new();
            content
                .chunks(1_000_003)
                .for_each(|piece| hasher.update(piece));
            assert_eq!(hasher.finish(), *tree.finish().root(), "{size}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_take_part_is_told_and_kept() {
        use std::os::unix::ffi::OsStrExt;
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("d/sub")).unwrap();
        fs::write(at("d/file"), "1").unwrap();
        fs::write(at("d/x.tmp"), "1").unwrap();
        fs::write(at(".kastroignore"), "*.tmp\n").unwrap();
        fs::write(at("d/.kastro-part-0011223344556677"), "1").unwrap();
        std::os::unix::fs::symlink("file", at("d/link")).unwrap();
        let _ = std::os::unix::net::UnixListener::bind(at("d/socket")).unwrap();
        let odd = std::ffi::OsStr::from_bytes(b"a\xff");
        let has_odd = fs::write(root.path().join(odd), "1").is_ok();
        let none = BTreeMap::new();
        let here = read(root.path(), &none, &BTreeMap::new(), &mut Places::default()).unwrap();
        let paths: Vec<&str> = here.tree.keys().map(String::as_str).collect();
        assert_eq!(paths, [".kastroignore", "d", "d/file", "d/sub"]);
        let noted = |path: &str| here.notes.iter().any(|(noted, _)| noted == path);
        assert!(noted("d/link") && noted("d/socket") && !noted("d/x.tmp"));
        assert_eq!(here.notes.len(), 2 + usize::from(has_odd));
        assert!(here.excluded.contains(&"d/x.tmp".to_owned()));
    }
}
