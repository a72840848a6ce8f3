//! What `.kastroignore` files leave out: the syntax of gitignore, in the synchronized folder and any folder below it.
//!
//! What is left out is neither sent nor fetched nor deleted, on either side.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::tree::parent;
use crate::exit::{Class, Failure};

/// The ignore files of a folder tree.
#[derive(Debug, Default)]
pub struct Ignored {
    /// By the folder they are in; empty for the synchronized folder itself.
    files: BTreeMap<String, Gitignore>,
}

impl Ignored {
    /// Reads the ignore file of a folder, if it has one.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read or understood: going on without it could send what must not be sent.
    pub fn read(&mut self, folder: &str, local: &Path) -> Result<(), Failure> {
        let path = local.join(IGNORE_FILE);
        let unreadable = |error: &std::io::Error| Failure::local("read", &path, error);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(unreadable(&error)),
        }
        let file = File::open(&path).map_err(|error| unreadable(&error))?;
        let mut lines = Vec::new();
        for line in BufReader::new(file.take(MAX_BYTES)).lines() {
            lines.push(line.map_err(|error| unreadable(&error))?);
        }
        self.add(folder, lines.iter().map(String::as_str))
            .map_err(|reason| {
                Failure::new(Class::Local, format!("{}: {reason}", path.display()))
                    .help("its lines are those of a .gitignore file")
            })
    }

    fn add<'a>(
        &mut self,
        folder: &str,
        lines: impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        let mut builder = GitignoreBuilder::new("");
        for line in lines {
            builder
                .add_line(None, line)
                .map_err(|error| error.to_string())?;
        }
        let built = builder.build().map_err(|error| error.to_string())?;
        self.files.insert(folder.to_owned(), built);
        Ok(())
    }

    /// Returns true when an item is left out. Its folders are taken to be asked about before.
    #[must_use]
    pub fn matches(&self, path: &str, is_folder: bool) -> bool {
        let mut folder = parent(path).unwrap_or_default();
        loop {
            if let Some(file) = self.files.get(folder) {
                let inside = path.get(folder.len()..).unwrap_or_default();
                let found = file.matched(inside.trim_start_matches('/'), is_folder);
                if !found.is_none() {
                    return found.is_ignore();
                }
            }
            if folder.is_empty() {
                return false;
            }
            folder = parent(folder).unwrap_or_default();
        }
    }
}

/// Name of the file.
pub const IGNORE_FILE: &str = ".kastroignore";
/// Longest ignore file read; what follows does not count.
const MAX_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(files: &[(&str, &[&str])]) -> Ignored {
        let mut ignored = Ignored::default();
        for (folder, lines) in files {
            ignored.add(folder, lines.iter().copied()).unwrap();
        }
        ignored
    }

    #[test]
    fn the_syntax_is_that_of_gitignore() {
        let all = ignored(&[(
            "",
            &[
                "# a comment",
                "*.tmp",
                "!keep.tmp",
                "build/",
                "/top",
                "a/**/z",
                "",
            ],
        )]);
        for (path, is_folder, expected) in [
            ("x.tmp", false, true),
            ("deep/er/x.tmp", false, true),
            ("keep.tmp", false, false),
            ("build", true, true),
            ("build", false, false),
            ("sub/build", true, true),
            ("top", false, true),
            ("sub/top", false, false),
            ("a/b/c/z", false, true),
            ("# a comment", false, false),
        ] {
            assert_eq!(all.matches(path, is_folder), expected, "{path}");
        }
    }

    #[test]
    fn deeper_files_have_the_last_word() {
        let both = ignored(&[("", &["*.log"]), ("app", &["!keep.log", "/own"])]);
        assert!(both.matches("x.log", false));
        assert!(both.matches("app/x.log", false));
        assert!(!both.matches("app/keep.log", false));
        assert!(!both.matches("app/sub/keep.log", false));
        assert!(both.matches("app/own", false));
        assert!(!both.matches("own", false));
        assert!(!both.matches("app/sub/own", false));
        assert!(both.matches("apple/keep.log", false));
    }

    #[test]
    fn a_file_that_cannot_be_understood_stops_everything() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(IGNORE_FILE), "[z-a]").unwrap();
        let mut ignored = Ignored::default();
        assert!(ignored.read("", folder.path()).is_err());
        std::fs::write(folder.path().join(IGNORE_FILE), "a\n").unwrap();
        ignored.read("", folder.path()).unwrap();
        assert!(ignored.matches("a", false));
    }
}
