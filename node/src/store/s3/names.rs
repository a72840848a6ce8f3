//! Names of objects: `[prefix/]<user>/<KEY>` (Spec: 12 §1, 06 §9.4).

use champ::{Cid, text};
use object_store::path::Path;
use pki::username::Username;

use crate::{directory::partition_of, store::Partition};

/// Folder of the node's own objects; no user's folder begins with a dot.
const OWN_FOLDER: &str = ".kastro";

/// Makes names below one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// Without slashes at its ends; empty for none.
    prefix: String,
}

/// A prefix that cannot be used as part of a URL without quoting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("prefixes are made of a-z, A-Z, 0-9, `-`, `_` and `.`, in parts separated by `/`")]
pub(super) struct BadPrefix;

impl Names {
    pub(super) fn new(prefix: &str) -> Result<Self, BadPrefix> {
        let prefix = prefix.trim_matches('/');
        let is_plain = |part: &str| {
            !matches!(part, "" | "." | ".." | OWN_FOLDER)
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        if !prefix.is_empty() && !prefix.split('/').all(is_plain) {
            return Err(BadPrefix);
        }
        Ok(Self {
            prefix: prefix.to_owned(),
        })
    }

    /// Returns the name of a block; it needs no quoting in a URL.
    pub(super) fn block(&self, partition: &Partition, cid: &Cid) -> Path {
        self.join(&[&folder(partition), &cid.storage_key()])
    }

    /// Returns the name of an object of the node's own.
    pub(super) fn own(&self, name: &str) -> Path {
        self.join(&[OWN_FOLDER, name])
    }

    /// Returns what all names have in front; `None` for nothing.
    pub(super) fn root(&self) -> Option<Path> {
        (!self.prefix.is_empty()).then(|| Path::from(self.prefix.as_str()))
    }

    /// Returns the block whose name this is.
    pub(super) fn parsed(&self, name: &Path) -> Option<(Partition, Cid)> {
        let rest = match self.prefix.as_str() {
            "" => name.as_ref(),
            prefix => name.as_ref().strip_prefix(prefix)?.strip_prefix('/')?,
        };
        let (folder, key) = rest.split_once('/')?;
        let partition = match folder.strip_prefix("p.") {
            Some(partition) => Partition::new(partition).ok()?,
            None => partition_of(&Username::parse(folder).ok()?).ok()?,
        };
        let cid = Cid::decode(&text::from_base32_upper(key).ok()?).ok()?;
        // Other spellings of the same are other objects.
        (self.block(&partition, &cid) == *name).then_some((partition, cid))
    }

    fn join(&self, parts: &[&str]) -> Path {
        Path::from_iter(self.prefix.split('/').chain(parts.iter().copied()))
    }
}

/// Returns the folder of a partition: the user's name, where every part of a URL takes it as it is.
///
/// The node's partitions are `u-` and the name, or `x-` and its base32 (see `directory`). Names that other
/// software would have to quote, and partitions of no user, get a folder with a dot, which no plain name has.
fn folder(partition: &Partition) -> String {
    let text = partition.as_str();
    if let Some(name) = text.strip_prefix("u-") {
        return name.to_owned();
    }
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    // Only the one spelling that the directory makes, so that no two partitions share a folder.
    let is_encoded = |b: &u8| b.is_ascii_uppercase() || *b == b'_';
    if let Some(encoded) = text.strip_prefix("x-")
        && !encoded.bytes().any(|b| b.is_ascii_uppercase())
        && let Ok(name) = text::from_base32_upper(&encoded.to_ascii_uppercase())
        && name.iter().all(is_plain)
        && name.iter().any(is_encoded)
        && let Ok(name) = String::from_utf8(name)
    {
        return name;
    }
    format!("p.{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_other_objects_are_not_blocks() {
        let cid = Cid::of_raw(b"x");
        for prefix in ["", "a/b"] {
            let names = Names::new(prefix).unwrap();
            for user in ["u-alice", "x-ifwgsy3f", "w1", "alice"] {
                let partition = partition(user);
                let name = names.block(&partition, &cid);
                assert_eq!(
                    names.parsed(&name),
                    Some((partition, cid.clone())),
                    "{name}"
                );
            }
            assert_eq!(names.parsed(&names.own("data-set")), None);
            let lower = cid.storage_key().to_lowercase();
            for other in ["alice", "alice/x", &format!("alice/{lower}"), "a/b/c/d"] {
                let name = Path::from_iter(prefix.split('/').chain(other.split('/')));
                assert_eq!(names.parsed(&name), None, "{name}");
            }
            let elsewhere = Names::new("a/bc")
                .unwrap()
                .block(&partition("u-alice"), &cid);
            assert_eq!(names.parsed(&elsewhere), None);
        }
    }

    fn partition(name: &str) -> Partition {
        Partition::new(name).unwrap()
    }

    #[test]
    fn blocks_have_the_names_of_the_vectors() {
        let names = Names::new("/blocks/").unwrap();
        let cid = "zb2rhZfjRh2FHHB2RkHVEvL2vJnCTcu7kwRqgVsf9gpkLgteo"
            .parse()
            .unwrap();
        assert_eq!(
            names.block(&partition("u-alice"), &cid).as_ref(),
            "blocks/alice/AFKREIBM6JG3UX5QUMHCN2B3FLC3TYU6DMLB4XA7U5BF44YEGNRJHC4YEQ"
        );
        let names = Names::new("").unwrap();
        assert_eq!(names.own("x").as_ref(), ".kastro/x");
    }

    #[test]
    fn folders_are_user_names_where_they_are_harmless() {
        let encoded = |name: &str| {
            partition(&format!(
                "x-{}",
                text::to_base32_upper(name.as_bytes()).to_ascii_lowercase()
            ))
        };
        assert_eq!(folder(&partition("u-bob-2")), "bob-2");
        assert_eq!(folder(&encoded("a_b")), "a_b");
        for hostile in ["..", "a/b", ".kastro", "a b", "%2e"] {
            assert!(folder(&encoded(hostile)).starts_with("p.x-"), "{hostile}");
        }
        assert_eq!(folder(&partition("alice")), "p.alice");
        assert_eq!(folder(&partition("x-1")), "p.x-1");
        assert_eq!(folder(&encoded("a")), "p.x-me");
        assert_eq!(folder(&partition("x-ME")), "p.x-ME");
    }

    #[test]
    fn prefixes_need_no_quoting() {
        for good in ["", "a", "/a/b.c/", "A-1_x/y"] {
            assert!(Names::new(good).is_ok(), "{good}");
        }
        for bad in ["a//b", "a/../b", "a b", "a?b", "\u{e9}", ".kastro", "a/."] {
            assert_eq!(Names::new(bad), Err(BadPrefix), "{bad}");
        }
    }
}
