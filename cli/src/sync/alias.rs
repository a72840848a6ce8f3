//! Names that are too long for a local disk (Spec: 40 FS-3).
//!
//! A name in the account has up to 255 characters, which are up to 765 bytes; most file systems take 255 bytes. Such an
//! item has a shortened name here, with a digest of the whole name in it, and keeps its own in the account: everywhere but
//! on the disk itself, in the state too, paths are those of the account.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::here::joined;

/// Longest name that is used as it is, in bytes.
pub const MAX_NAME_BYTES: usize = 255;
/// Longest local path, in bytes: the system's 4095, less the hidden name of a download.
const MAX_PATH_BYTES: usize = 4000;
/// Bytes of a long name that its local name begins with.
const KEPT_BYTES: usize = 180;
/// Longest extension that is kept, in bytes, so that programs know the file.
const MAX_EXTENSION_BYTES: usize = 16;

/// Returns the local name of an item.
#[must_use]
pub fn local_name(name: &str) -> Cow<'_, str> {
    if name.len() <= MAX_NAME_BYTES {
        return Cow::Borrowed(name);
    }
    let mut end = KEPT_BYTES;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let kept = name.get(..end).unwrap_or_default();
    let digest = Sha256::digest(name.as_bytes());
    let digest = HEXLOWER.encode(digest.get(..16).unwrap_or_default());
    let extension = name
        .rsplit_once('.')
        .map(|(_, extension)| extension)
        .filter(|extension| (1..=MAX_EXTENSION_BYTES).contains(&extension.len()));
    Cow::Owned(match extension {
        Some(extension) => format!("{kept}~{digest}.{extension}"),
        None => format!("{kept}~{digest}"),
    })
}

/// Which items have shortened names.
#[derive(Debug, Default)]
pub struct Aliases {
    /// Names in the account, by the folder and the local name.
    names: HashMap<String, String>,
}

impl Aliases {
    /// Collects the items with long names on the way to `paths` of the account, but for those without a place here.
    #[must_use]
    pub fn of<'a>(
        paths: impl Iterator<Item = &'a String>,
        is_without_place: impl Fn(&str) -> bool,
    ) -> Self {
        let mut names = HashMap::new();
        for mut path in paths.map(String::as_str) {
            while path.len() > MAX_NAME_BYTES {
                let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
                if name.len() > MAX_NAME_BYTES && !is_without_place(path) {
                    names.insert(joined(folder, &local_name(name)), name.to_owned());
                }
                path = folder;
            }
        }
        Self { names }
    }

    /// Returns the name in the account of what has a local name in a folder.
    #[must_use]
    pub fn remote_name<'a>(&'a self, folder: &str, local: &'a str) -> &'a str {
        if self.names.is_empty() {
            return local;
        }
        let found = self.names.get(&joined(folder, local));
        found.map_or(local, String::as_str)
    }
}

/// Returns what of the account has no place on the local disk below `root`, and why: what has the shortened name of
/// another item, and what lies too deep. What is below such a folder is not named.
pub fn without_place<V>(root: &Path, remote: &BTreeMap<String, V>) -> Vec<(String, &'static str)> {
    let mut found: Vec<(String, &'static str)> = Vec::new();
    for path in remote.keys() {
        if path.len() <= MAX_NAME_BYTES && path.len() + root.as_os_str().len() < MAX_PATH_BYTES {
            continue;
        }
        let is_below = |(above, _): &(String, &str)| {
            let rest = path.strip_prefix(above.as_str());
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        if found.last().is_some_and(is_below) {
            continue;
        }
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let alias = local_name(name);
        if matches!(alias, Cow::Owned(_)) && remote.contains_key(&joined(folder, &alias)) {
            // Somebody chose it so: neither may take the place of the other.
            found.push((
                path.clone(),
                "the shortened name that it would have here is taken",
            ));
        } else if below(root, path).as_os_str().len() > MAX_PATH_BYTES {
            found.push((path.clone(), "its path is too long for this machine"));
        }
    }
    found
}

/// Returns the local path of an item.
#[must_use]
pub fn below(root: &Path, path: &str) -> PathBuf {
    let mut local = root.to_path_buf();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        local.push(&*local_name(name));
    }
    local
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(end: &str) -> String {
        "\u{65e5}".repeat(250) + end
    }

    #[test]
    fn long_names_become_short_ones_that_lead_back() {
        let names = [
            long("1.txt"),
            long("2.txt"),
            long(""),
            "x".repeat(255),
            "a.b".into(),
        ];
        let paths: Vec<String> = names.iter().map(|name| format!("a/{name}/b")).collect();
        let aliases = Aliases::of(paths.iter(), |_| false);
        let mut seen = std::collections::HashSet::new();
        for name in &names {
            let local = local_name(name);
            assert!(local.len() <= MAX_NAME_BYTES, "{local}");
            assert_eq!(local.len() == name.len(), name.len() <= MAX_NAME_BYTES);
            assert_eq!(aliases.remote_name("a", &local), name);
            // In another folder it is what somebody called a file.
            assert_eq!(aliases.remote_name("", &local), local);
            assert_eq!(local_name(&local), local, "an alias is a name like others");
            assert_eq!(local.ends_with(".txt"), name.ends_with(".txt"));
            assert!(seen.insert(local.into_owned()));
        }
    }

    #[test]
    fn what_has_no_place_is_named_once() {
        let root = Path::new("/home/alice");
        let deep = vec!["twenty characters ok"; 220].join("/");
        let taken = long(".txt");
        let mut remote = BTreeMap::new();
        for path in [
            deep.clone(),
            format!("{deep}/below"),
            taken.clone(),
            local_name(&taken).into_owned(),
            format!("other/{taken}"),
            "short".to_owned(),
        ] {
            remote.insert(path, ());
        }
        let found: Vec<String> = without_place(root, &remote)
            .into_iter()
            .map(|(path, _)| path)
            .collect();
        assert_eq!(found, [deep, taken]);
    }
}
