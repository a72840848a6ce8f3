//! Where the items of the account are on the local disk: at their own names, but for those that are too long for it or that it
//! takes for the name of something else (Spec: 40 FS-2, FS-3).
//!
//! Such an item has a name in the stead of its own here, with a digest of the whole name in it, and keeps its own in the
//! account: everywhere but on the disk itself, in the state too, paths are those of the account. Who got which name is
//! written nowhere: what is on the disk says so.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::RandomState},
    hash::BuildHasher as _,
    io,
    path::{Path, PathBuf},
};

use super::{
    here::joined,
    tree::{self, Known, Local, Remote, name_of, parent},
};
use crate::local::{
    folder::Folder,
    spelling::{MAX_NAME_BYTES, common, may_stand_in, stand_in},
};

/// Longest local path, in bytes: the system's 4095, less the hidden name of a download.
const MAX_PATH_BYTES: usize = 4000;

/// Returns the local name of an item whose own name meets no other.
fn local_name(name: &str) -> Cow<'_, str> {
    match name.len() {
        ..=MAX_NAME_BYTES => Cow::Borrowed(name),
        _ => Cow::Owned(stand_in(name)),
    }
}

/// The local names of items.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Local names that are not those of the account, by the path there; long names are not listed.
    names: BTreeMap<String, String>,
}

impl Places {
    /// Returns the local name of an item.
    #[must_use]
    pub fn local_name<'a>(&'a self, path: &'a str) -> Cow<'a, str> {
        match self.names.get(path) {
            Some(name) => Cow::Borrowed(name),
            None => local_name(name_of(path)),
        }
    }

    /// Returns the local path of an item.
    #[must_use]
    pub fn below(&self, root: &Path, path: &str) -> PathBuf {
        let mut local = root.to_path_buf();
        for above in ancestors(path) {
            local.push(&*self.local_name(above));
        }
        local
    }

    /// Opens the folder that an item is in, one component after the other, and returns the local name of the item.
    ///
    /// # Errors
    ///
    /// Of the file system; `NotADirectory` for a link on the way.
    pub fn open(&self, root: &Folder, path: &str) -> io::Result<(Folder, String)> {
        let mut folder = root.clone();
        for above in parent(path).into_iter().flat_map(ancestors) {
            folder = folder.enter(&*self.local_name(above))?;
        }
        Ok((folder, self.local_name(path).into_owned()))
    }

    /// Notes the local name of an item.
    pub fn put(&mut self, path: String, name: String) {
        self.names.insert(path, name);
    }

    /// Notes that an item, and what is below it, has another path; it has the local name that belongs to that.
    pub fn moved(&mut self, from: &str, to: &str) {
        self.names.remove(from);
        tree::shift(&mut self.names, from, to);
    }

    /// Finds which of the names in a local folder stand for others: local name and name in the account.
    #[must_use]
    pub fn stand_ins(
        folder: &str,
        there: &HashSet<&str>,
        known: &BTreeMap<String, Known>,
        remote: &BTreeMap<String, Remote>,
    ) -> HashMap<String, String> {
        if !there.iter().any(|name| may_stand_in(name)) {
            return HashMap::new();
        }
        let mut children: BTreeSet<&str> = children(known, folder).collect();
        children.extend(self::children(remote, folder));
        let pairs = children
            .iter()
            .filter(|name| !there.contains(**name))
            .map(|name| (stand_in(name), (*name).to_owned()));
        pairs
            // Somebody may have called an item of the account so.
            .filter(|(name, _)| there.contains(name.as_str()) && !children.contains(name.as_str()))
            .collect()
    }

    /// Gives the items that are only in the account a name in the stead of their own where the disk below `root` takes it for
    /// that of another, and returns these.
    pub fn settle(&mut self, root: &Folder, sides: &Sides<'_>, asked: &mut Asked) -> Settled {
        let mut settled = Settled::default();
        let seen = sides.alike();
        for ((folder, _), paths) in seen.groups {
            let (there, wanted): (Vec<&str>, Vec<&str>) = paths
                .into_iter()
                .filter(|path| !sides.is_leaving(path))
                .partition(|path| sides.is_there(path));
            let wanted = wanted.into_iter();
            let wanted: Vec<&str> = wanted
                .filter(|path| name_of(path).len() <= MAX_NAME_BYTES)
                .collect();
            if wanted.is_empty() {
                continue;
            }
            let mut names: Vec<String> = there
                .iter()
                .map(|path| self.local_name(path).into_owned())
                .collect();
            names.extend(wanted.iter().map(|path| name_of(path).to_owned()));
            let met = asked.ask(|| self.deepest(root, folder, sides), folder, &names);
            for (path, met) in wanted.iter().zip(met.iter().skip(there.len())) {
                let Some(other) = met.and_then(|index| names.get(index)) else {
                    continue;
                };
                let instead = stand_in(name_of(path));
                let is_taken = seen
                    .all
                    .contains(&seen.state.hash_one((folder, common(&instead))));
                if is_taken {
                    settled.without_place.push((*path).to_owned());
                } else {
                    settled.renamed.push(Renamed {
                        path: (*path).to_owned(),
                        name: instead.clone(),
                        other: other.clone(),
                    });
                    self.put((*path).to_owned(), instead);
                }
            }
        }
        settled
    }

    /// Opens the folder, or the one above it that is on the disk already.
    fn deepest(&self, root: &Folder, folder: &str, sides: &Sides<'_>) -> io::Result<Folder> {
        let mut opened = root.clone();
        for above in ancestors(folder) {
            if !matches!(sides.local.get(above), Some(Local::Folder { .. })) {
                break;
            }
            opened = opened.enter(&*self.local_name(above))?;
        }
        Ok(opened)
    }
}

/// What has a new name, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// The item, by its path in the account.
    pub path: String,
    /// Its local name.
    pub name: String,
    /// What the disk takes its own name for.
    pub other: String,
}

/// What became of items whose names meet others.
#[derive(Debug, Default)]
pub struct Settled {
    /// Those with another name here.
    pub renamed: Vec<Renamed>,
    /// Those whose name in the stead of their own is taken too.
    pub without_place: Vec<String>,
}

/// What is known when places are given.
#[derive(Debug)]
pub struct Sides<'a> {
    /// The last agreement.
    pub known: &'a BTreeMap<String, Known>,
    /// This machine.
    pub local: &'a BTreeMap<String, Local>,
    /// What is on this machine and takes no part.
    pub excluded: &'a HashSet<&'a str>,
    /// The account.
    pub remote: &'a BTreeMap<String, Remote>,
    /// What was agreed on and is gone in the account is still about to leave this machine.
    pub leaves: bool,
}

/// Items of one folder whose names some disk may take for the same.
struct Alike<'a> {
    state: RandomState,
    all: HashSet<u64>,
    groups: BTreeMap<(&'a str, String), Vec<&'a str>>,
}

impl<'a> Sides<'a> {
    fn is_there(&self, path: &str) -> bool {
        self.local.contains_key(path) || self.excluded.contains(path)
    }

    fn is_leaving(&self, path: &str) -> bool {
        self.leaves && self.known.contains_key(path) && !self.remote.contains_key(path)
    }

    fn paths(&self) -> impl Iterator<Item = &'a str> {
        let (local, excluded, remote) = (self.local, self.excluded, self.remote);
        let unseen = excluded
            .iter()
            .copied()
            .filter(|path| !local.contains_key(*path));
        let away = remote.keys().map(String::as_str);
        let away = away.filter(|path| !local.contains_key(*path) && !excluded.contains(path));
        local.keys().map(String::as_str).chain(unseen).chain(away)
    }

    /// Two passes, of which the first keeps eight bytes of each item.
    fn alike(&self) -> Alike<'a> {
        let state = RandomState::new();
        let place = |path: &'a str| (parent(path).unwrap_or_default(), common(name_of(path)));
        let (mut all, mut double) = (HashSet::new(), HashSet::new());
        for path in self.paths() {
            let hash = state.hash_one(place(path));
            if !all.insert(hash) {
                double.insert(hash);
            }
        }
        let mut groups: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
        if !double.is_empty() {
            for path in self.paths() {
                let place = place(path);
                if double.contains(&state.hash_one(&place)) {
                    groups.entry(place).or_default().push(path);
                }
            }
        }
        groups.retain(|_, paths| {
            paths.sort_unstable();
            paths.len() > 1
        });
        Alike { state, all, groups }
    }
}

/// What the disk has said of names, so that looking at a folder does not change something in it every time.
#[derive(Debug, Default)]
pub struct Asked(HashMap<(String, Vec<String>), Vec<Option<usize>>>);

impl Asked {
    fn ask(
        &mut self,
        open: impl FnOnce() -> io::Result<Folder>,
        folder: &str,
        names: &[String],
    ) -> Vec<Option<usize>> {
        let key = (folder.to_owned(), names.to_vec());
        if let Some(found) = self.0.get(&key) {
            return found.clone();
        }
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        match open().and_then(|folder| folder.meeting(&asked)) {
            Ok(found) => {
                if self.0.len() >= MAX_ASKED {
                    self.0.clear();
                }
                self.0.insert(key, found.clone());
                found
            }
            // Where nothing can be made nothing can be overwritten.
            Err(_) => vec![None; names.len()],
        }
    }
}

/// Most answers of the disk that are kept.
const MAX_ASKED: usize = 10_000;

/// Returns a path's own ancestors, from the top, and itself.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').map(|(at, _)| at);
    ends.chain([path.len()])
        .filter_map(|end| path.get(..end))
        .filter(|path| !path.is_empty())
}

/// Returns the names of what is directly in a folder.
fn children<'a, V>(
    map: &'a BTreeMap<String, V>,
    folder: &str,
) -> impl Iterator<Item = &'a str> + use<'a, V> {
    let prefix = match folder {
        "" => String::new(),
        folder => format!("{folder}/"),
    };
    let from = prefix.clone();
    map.range(from..)
        .map(|(path, _)| path.as_str())
        .map_while(move |path| path.strip_prefix(prefix.as_str()))
        .filter(|rest| !rest.is_empty() && !rest.contains('/'))
}

/// Returns what of the account has no place on the local disk below `root`, and why: what has the shortened name of
/// another item, and what lies too deep. What is below such a folder is not named.
pub fn without_place<V>(root: &Path, remote: &BTreeMap<String, V>) -> Vec<(String, &'static str)> {
    let places = Places::default();
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
        let instead = local_name(name);
        if matches!(instead, Cow::Owned(_)) && remote.contains_key(&joined(folder, &instead)) {
            // Somebody chose it so: neither may take the place of the other.
            found.push((
                path.clone(),
                "the shortened name that it would have here is taken",
            ));
        } else if places.below(root, path).as_os_str().len() > MAX_PATH_BYTES {
            found.push((path.clone(), "its path is too long for this machine"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::folder::NameRules;

    fn long(end: &str) -> String {
        "\u{65e5}".repeat(250) + end
    }

    fn remote(paths: &[&str]) -> BTreeMap<String, Remote> {
        let folder = Remote::Folder { id: None };
        let pairs = paths
            .iter()
            .map(|path| ((*path).to_owned(), folder.clone()));
        pairs.collect()
    }

    fn known(paths: &[&str]) -> BTreeMap<String, Known> {
        let folder = Known::Folder { inode: 0, id: None };
        let pairs = paths
            .iter()
            .map(|path| ((*path).to_owned(), folder.clone()));
        pairs.collect()
    }

    fn local(paths: &[&str]) -> BTreeMap<String, Local> {
        let pairs = paths
            .iter()
            .map(|path| ((*path).to_owned(), Local::Folder { inode: 0 }));
        pairs.collect()
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
        let paths: Vec<String> = names.iter().map(|name| format!("a/{name}")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let remote = remote(&paths);
        let places = Places::default();
        let there: Vec<String> = paths
            .iter()
            .map(|path| places.local_name(path).into_owned())
            .collect();
        let there: HashSet<&str> = there.iter().map(String::as_str).collect();
        assert_eq!(there.len(), names.len());
        let found = Places::stand_ins("a", &there, &BTreeMap::new(), &remote);
        for (name, path) in names.iter().zip(&paths) {
            let local = places.local_name(path).into_owned();
            assert!(local.len() <= MAX_NAME_BYTES, "{local}");
            assert_eq!(local.len() == name.len(), name.len() <= MAX_NAME_BYTES);
            assert_eq!(found.get(&local).unwrap_or(&local), name);
            assert_eq!(places.local_name(&local), local, "a name like others");
            assert_eq!(local.ends_with(".txt"), name.ends_with(".txt"));
        }
        // In another folder it is what somebody called a file.
        let elsewhere = Places::stand_ins("", &there, &BTreeMap::new(), &remote);
        assert!(elsewhere.is_empty());
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

    #[test]
    fn fs_2_what_is_here_keeps_its_name_and_what_comes_gets_another() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::with_rules(dir.path(), NameRules::Folding).unwrap();
        let remote = remote(&["A", "a", "a/X", "a/x", "b", "Other", "e\u{301}", "\u{e9}"]);
        // `a` is here already, and a link that takes no part.
        let (known, local) = (known(&["a"]), local(&["a"]));
        std::fs::create_dir(dir.path().join("a")).unwrap();
        let excluded = HashSet::from(["OTHER"]);
        let sides = Sides {
            known: &known,
            local: &local,
            excluded: &excluded,
            remote: &remote,
            leaves: true,
        };
        let mut places = Places::default();
        let mut asked = Asked::default();
        let settled = places.settle(&root, &sides, &mut asked);
        let renamed: Vec<(&str, &str)> = settled
            .renamed
            .iter()
            .map(|renamed| (renamed.path.as_str(), renamed.other.as_str()))
            .collect();
        let expected = [
            ("A", "a"),
            ("\u{e9}", "e\u{301}"),
            ("Other", "OTHER"),
            ("a/x", "X"),
        ];
        assert_eq!(renamed, expected);
        assert!(settled.without_place.is_empty());
        assert_eq!(places.local_name("a"), "a");
        assert_eq!(places.local_name("A"), stand_in("A"));
        let below = places.below(Path::new("/r"), "a/x/y");
        assert_eq!(below, Path::new("/r/a").join(stand_in("x")).join("y"));
        // What the disk said is kept: the folder is not touched again.
        let asked_before = asked.0.len();
        let again = Places::default().settle(&root, &sides, &mut asked);
        assert_eq!(
            (again.renamed, asked.0.len()),
            (settled.renamed, asked_before)
        );
        // Found again by what is on the disk.
        let there = [stand_in("A"), "a".to_owned()];
        let there: HashSet<&str> = there.iter().map(String::as_str).collect();
        let found = Places::stand_ins("", &there, &known, &remote);
        assert_eq!(found, HashMap::from([(stand_in("A"), "A".to_owned())]));
    }

    #[test]
    fn fs_2_what_leaves_makes_room_and_what_was_chosen_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::with_rules(dir.path(), NameRules::Folding).unwrap();
        let chosen = stand_in("b").to_uppercase();
        let remote = remote(&["A", "B", "b", &chosen]);
        let (known, local) = (known(&["a"]), local(&["a"]));
        let mut sides = Sides {
            known: &known,
            local: &local,
            excluded: &HashSet::new(),
            remote: &remote,
            leaves: true,
        };
        let settled = Places::default().settle(&root, &sides, &mut Asked::default());
        assert_eq!(
            (settled.renamed.len(), settled.without_place),
            (0, vec!["b".to_owned()])
        );
        sides.leaves = false;
        let settled = Places::default().settle(&root, &sides, &mut Asked::default());
        assert_eq!(settled.renamed[0].path, "A");
    }
}
