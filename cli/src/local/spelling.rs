//! Names that some disk takes for the same, and what an item is called that cannot have its own name (Spec: 40 FS-2, FS-3).
//!
//! The account tells names apart byte by byte; many disks do not: they fold case, compose or decompose letters, drop dots and
//! spaces at the end. Which names may meet is found without asking; which do is asked of the disk ([`Folder::meeting`]).

use std::{
    collections::{HashMap, HashSet},
    io,
};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization as _;

use super::folder::Folder;

/// Longest name that is used as it is, in bytes.
pub const MAX_NAME_BYTES: usize = 255;
/// Bytes of a name that the name in its stead begins with.
const KEPT_BYTES: usize = 180;
/// Longest extension that is kept, in bytes, so that programs know the file.
const MAX_EXTENSION_BYTES: usize = 16;
/// Most names that are compared with one another; more of them in one folder are nobody's wish, and told apart unasked.
const MAX_ALIKE: usize = 64;
/// Characters of the digest of a name.
const DIGEST_CHARS: usize = 32;

/// Returns what all spellings of a name have in common that any disk may take for the same.
#[must_use]
pub fn common(name: &str) -> String {
    let folded: String = if name.is_ascii() {
        name.to_ascii_lowercase()
    } else {
        // By way of the upper case, as several letters have one: final sigma, long s.
        name.nfkd()
            .filter(|c| !is_ignored(*c))
            .flat_map(char::to_uppercase)
            .flat_map(char::to_lowercase)
            .nfkd()
            .collect()
    };
    let kept = folded.trim_end_matches(['.', ' ']).len();
    let mut folded = folded;
    folded.truncate(kept);
    folded
}

/// Returns true for what disks that normalize leave out when they compare.
const fn is_ignored(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Returns the name in the stead of one that cannot be had: its beginning, a digest of all of it, its extension.
#[must_use]
pub fn stand_in(name: &str) -> String {
    let extension = name
        .rsplit_once('.')
        .filter(|(stem, extension)| {
            !stem.is_empty() && (1..=MAX_EXTENSION_BYTES).contains(&extension.len())
        })
        .map(|(_, extension)| extension);
    let stem = match extension {
        Some(extension) => name.get(..name.len() - extension.len() - 1),
        None => Some(name),
    };
    let stem = stem.unwrap_or_default();
    let mut end = KEPT_BYTES.min(stem.len());
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    let kept = stem.get(..end).unwrap_or_default();
    let digest = HEXLOWER.encode(&Sha256::digest(name.as_bytes()));
    let digest = digest.get(..DIGEST_CHARS).unwrap_or_default();
    match extension {
        Some(extension) => format!("{kept}~{digest}.{extension}"),
        None => format!("{kept}~{digest}"),
    }
}

/// Returns true when a name may be one in the stead of another: only then it is worth comparing.
#[must_use]
pub fn may_stand_in(name: &str) -> bool {
    let Some((_, end)) = name.rsplit_once('~') else {
        return false;
    };
    let digest = end.split('.').next().unwrap_or_default();
    digest.len() == DIGEST_CHARS && digest.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The names that the items of one folder of the account get in a local one, as they come.
#[derive(Debug)]
pub struct Naming {
    folder: Folder,
    /// Names that are there or given, by what their spellings have in common.
    taken: HashMap<String, Vec<String>>,
    /// Names there that stand for others.
    stand_ins: HashSet<String>,
}

/// The local name of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalName {
    /// The name.
    pub name: String,
    /// Why it is not its own.
    pub why: Option<String>,
}

impl Naming {
    /// Starts with what is in the folder.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn of(folder: &Folder) -> io::Result<Self> {
        let mut naming = Self {
            folder: folder.clone(),
            taken: HashMap::new(),
            stand_ins: HashSet::new(),
        };
        for name in folder.names()? {
            // What is no text is no name in the account, and what looks alike to a disk that folds is text.
            if let Ok(name) = name.into_string() {
                if may_stand_in(&name) {
                    naming.stand_ins.insert(name.clone());
                }
                naming.take(name);
            }
        }
        Ok(naming)
    }

    fn take(&mut self, name: String) {
        let alike = self.taken.entry(common(&name)).or_default();
        if !alike.contains(&name) {
            alike.push(name);
        }
    }

    /// Returns the local name of the item with this name in the account; none when even the name in its stead is taken.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn local(&mut self, name: &str) -> io::Result<Option<LocalName>> {
        let why = if name.len() > MAX_NAME_BYTES {
            "its name is too long for this disk".to_owned()
        } else if let Some(other) = self.met(name)? {
            format!("this disk takes its name for that of `{other}`")
        } else {
            self.take(name.to_owned());
            return Ok(Some(LocalName {
                name: name.to_owned(),
                why: None,
            }));
        };
        let instead = stand_in(name);
        let is_own = self.stand_ins.remove(&instead);
        if !is_own && self.taken.contains_key(&common(&instead)) {
            return Ok(None);
        }
        self.take(instead.clone());
        Ok(Some(LocalName {
            name: instead,
            why: Some(why),
        }))
    }

    /// Returns what is there or given and has the same name to the disk, but not to us.
    fn met(&self, name: &str) -> io::Result<Option<String>> {
        let Some(alike) = self.taken.get(&common(name)) else {
            return Ok(None);
        };
        if alike.iter().any(|taken| taken == name) {
            return Ok(None);
        }
        if alike.len() > MAX_ALIKE {
            return Ok(alike.first().cloned());
        }
        let mut asked: Vec<&str> = alike.iter().map(String::as_str).collect();
        asked.push(name);
        let met = self.folder.meeting(&asked)?.last().copied().flatten();
        Ok(met.and_then(|index| alike.get(index).cloned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::folder::NameRules;

    #[test]
    fn spellings_that_disks_take_for_the_same_have_something_in_common() {
        for alike in [
            &["A", "a"][..],
            &["\u{e9}", "e\u{301}", "E\u{301}", "\u{c9}"],
            &["x", "x.", "x ", "X. ."],
            &["stra\u{df}e", "STRASSE", "strasse"],
            &["\u{3c3}", "\u{3c2}", "\u{3a3}"],
            &["\u{17f}", "s"],
            &["\u{fb01}", "fi"],
            &["a\u{200d}b", "ab"],
            &["\u{212a}", "k"],
        ] {
            let mut common: Vec<String> = alike.iter().map(|name| common(name)).collect();
            common.dedup();
            assert_eq!(common.len(), 1, "{alike:?}");
        }
        assert_ne!(common("a"), common("b"));
        assert_ne!(common("\u{e9}"), common("e"));
        assert_eq!(common("..."), "");
    }

    #[test]
    fn names_in_the_stead_of_others_keep_what_programs_know_them_by() {
        let name = "Report.txt";
        let instead = stand_in(name);
        assert!(instead.starts_with("Report~") && instead.ends_with(".txt"));
        assert!(may_stand_in(&instead) && !may_stand_in(name));
        assert_ne!(common(&instead), common(&stand_in("report.txt")));
        for name in ["x.", ".hidden", "a~b", "\u{65e5}", "~"] {
            assert!(may_stand_in(&stand_in(name)), "{name}");
        }
        let long = "\u{65e5}".repeat(250) + ".txt";
        assert!(stand_in(&long).len() <= MAX_NAME_BYTES);
    }

    #[test]
    fn fs_2_names_that_meet_get_others_and_the_same_ones_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::with_rules(root.path(), NameRules::Folding).unwrap();
        let names = ["A", "a", "\u{e9}", "e\u{301}", "x.", "x", "con"];
        let mut first = Vec::new();
        let mut naming = Naming::of(&folder).unwrap();
        for name in names {
            let local = naming.local(name).unwrap().unwrap();
            drop(folder.open_own(&local.name, false).unwrap());
            first.push(local);
        }
        assert_eq!(folder.names().unwrap().len(), names.len());
        let own: Vec<bool> = first.iter().map(|local| local.why.is_none()).collect();
        assert_eq!(own, [true, false, true, false, true, false, true]);
        assert!(first[1].why.as_ref().unwrap().contains("`A`"));
        // What is there decides, whatever the order.
        let mut naming = Naming::of(&folder).unwrap();
        for (name, local) in names.iter().zip(&first).rev() {
            assert_eq!(naming.local(name).unwrap().as_ref(), Some(local));
        }
        // A disk that tells them apart needs nothing of this.
        let plain = tempfile::tempdir().unwrap();
        let plain = Folder::open(plain.path()).unwrap();
        if plain.meeting(&["A", "a"]).unwrap() == [None, None] {
            let mut naming = Naming::of(&plain).unwrap();
            for name in ["A", "a"] {
                assert_eq!(naming.local(name).unwrap().unwrap().why, None);
            }
        }
    }

    #[test]
    fn fs_2_somebody_who_chose_the_name_in_the_stead_of_another_gets_it_alone() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::with_rules(root.path(), NameRules::Folding).unwrap();
        let mut naming = Naming::of(&folder).unwrap();
        let chosen = stand_in("a").to_uppercase();
        for name in ["A", &chosen] {
            assert_eq!(naming.local(name).unwrap().unwrap().name, name);
        }
        assert_eq!(naming.local("a").unwrap(), None);
    }
}
