//! Walks a local folder that is to be uploaded, one entry at a time.
//!
//! Parents come before what they hold. Whatever cannot be uploaded is yielded as a problem, so that the caller
//! can report it and go on. Memory is bounded by the depth times the largest folder.

use std::{
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::args::LinkRule;

/// One entry found below the root.
#[derive(Debug)]
pub enum Found {
    /// A folder; everything in it follows.
    Folder {
        /// Components below the root; empty for the root itself.
        names: Vec<String>,
    },
    /// A regular file.
    File {
        /// Components below the root.
        names: Vec<String>,
        /// Where it is.
        path: PathBuf,
        /// Size when found.
        size: u64,
        /// Modification time when found.
        modified: SystemTime,
    },
    /// Something that is left out, and why.
    Problem {
        /// Where it is.
        path: PathBuf,
        /// One sentence.
        reason: String,
    },
}

/// Iterator over the entries of a folder.
#[derive(Debug)]
pub struct Walk {
    root: PathBuf,
    links: LinkRule,
    stack: Vec<Folder>,
    ready: Option<Found>,
}

#[derive(Debug)]
struct Folder {
    real: PathBuf,
    names: Vec<String>,
    /// Sorted so that popping yields names in ascending order.
    rest: Vec<PathBuf>,
}

impl Walk {
    /// Starts at `root`, a folder. A link given as root is followed.
    ///
    /// # Errors
    ///
    /// When the root cannot be read.
    pub fn new(root: &Path, links: LinkRule) -> io::Result<Self> {
        let root = root.canonicalize()?;
        let folder = Folder::open(root.clone(), &root, Vec::new())?;
        Ok(Self {
            root,
            links,
            stack: vec![folder],
            ready: Some(Found::Folder { names: Vec::new() }),
        })
    }

    fn visit(&mut self, path: PathBuf, mut names: Vec<String>) -> Option<Found> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Some(problem(path, "its name is not valid UTF-8"));
        };
        names.push(name.to_owned());
        let found = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => match self.resolve(&path) {
                Ok(Some(metadata)) => metadata,
                Ok(None) => return None,
                Err(reason) => return Some(problem(path, reason)),
            },
            Ok(metadata) => metadata,
            Err(error) => return Some(problem(path, error.to_string())),
        };
        if found.is_dir() {
            return Some(self.enter(path, names));
        }
        if !found.is_file() {
            return Some(problem(path, "it is neither a file nor a folder"));
        }
        Some(Found::File {
            names,
            size: found.len(),
            modified: found.modified().unwrap_or_else(|_| SystemTime::now()),
            path,
        })
    }

    /// Returns what a link leads to, `None` if it is to be left out silently.
    fn resolve(&self, path: &Path) -> Result<Option<Metadata>, String> {
        if self.links == LinkRule::Skip {
            return Ok(None);
        }
        let real = path
            .canonicalize()
            .map_err(|error| format!("the link leads nowhere: {error}"))?;
        if self.links == LinkRule::Inside && !real.starts_with(&self.root) {
            return Err(format!(
                "it is a link to {}, outside the folder (--links follow uploads that too, --links skip \
                 leaves links out)",
                real.display()
            ));
        }
        fs::metadata(&real)
            .map(Some)
            .map_err(|error| error.to_string())
    }

    fn enter(&mut self, path: PathBuf, names: Vec<String>) -> Found {
        if self.stack.len() >= MAX_DEPTH {
            return problem(path, format!("more than {MAX_DEPTH} folders deep"));
        }
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(error) => return problem(path, error.to_string()),
        };
        if self.stack.iter().any(|folder| folder.real == real) {
            return problem(path, "the link leads to a folder that holds it");
        }
        match Folder::open(real, &path, names.clone()) {
            Ok(folder) => {
                self.stack.push(folder);
                Found::Folder { names }
            }
            Err(error) => problem(path, error.to_string()),
        }
    }
}

impl Iterator for Walk {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        if let Some(ready) = self.ready.take() {
            return Some(ready);
        }
        loop {
            let folder = self.stack.last_mut()?;
            let Some(path) = folder.rest.pop() else {
                self.stack.pop();
                continue;
            };
            let names = folder.names.clone();
            if let Some(found) = self.visit(path, names) {
                return Some(found);
            }
        }
    }
}

impl Folder {
    fn open(real: PathBuf, path: &Path, names: Vec<String>) -> io::Result<Self> {
        let mut rest = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        rest.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Self { real, names, rest })
    }
}

fn problem(path: PathBuf, reason: impl Into<String>) -> Found {
    Found::Problem {
        path,
        reason: reason.into(),
    }
}

/// Deepest folder walked into.
const MAX_DEPTH: usize = 512;

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::{ffi::OsStrExt, fs::symlink};

    use super::*;

    fn names(root: &Path, links: LinkRule) -> (Vec<String>, usize) {
        let mut problems = 0;
        let names = Walk::new(root, links)
            .unwrap()
            .filter_map(|found| match found {
                Found::Folder { names } => Some(format!("{}/", names.join("/"))),
                Found::File { names, .. } => Some(names.join("/")),
                Found::Problem { .. } => {
                    problems += 1;
                    None
                }
            })
            .collect();
        (names, problems)
    }

    #[test]
    fn parents_come_first_and_names_in_order() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("b/c")).unwrap();
        fs::write(root.path().join("b/c/file"), b"1").unwrap();
        fs::write(root.path().join("a"), b"2").unwrap();
        fs::write(root.path().join("b/0"), b"").unwrap();
        let (found, problems) = names(root.path(), LinkRule::Inside);
        assert_eq!(found, ["/", "a", "b/", "b/0", "b/c/", "b/c/file"]);
        assert_eq!(problems, 0);
    }

    #[test]
    fn links_out_of_the_folder_are_reported_and_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), b"s").unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("real"), b"r").unwrap();
        symlink("real", root.path().join("inside")).unwrap();
        symlink(outside.path(), root.path().join("out")).unwrap();
        symlink("nowhere", root.path().join("zdangling")).unwrap();
        assert_eq!(
            names(root.path(), LinkRule::Inside),
            (vec!["/".into(), "inside".into(), "real".into()], 2)
        );
        assert_eq!(
            names(root.path(), LinkRule::Follow),
            (
                vec![
                    "/".into(),
                    "inside".into(),
                    "out/".into(),
                    "out/secret".into(),
                    "real".into()
                ],
                1
            )
        );
        assert_eq!(
            names(root.path(), LinkRule::Skip),
            (vec!["/".into(), "real".into()], 0)
        );
    }

    #[test]
    fn a_link_to_a_parent_does_not_loop() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("sub")).unwrap();
        symlink("..", root.path().join("sub/up")).unwrap();
        assert_eq!(
            names(root.path(), LinkRule::Inside),
            (vec!["/".into(), "sub/".into()], 1)
        );
    }

    #[test]
    fn names_that_are_not_text_are_reported() {
        let root = tempfile::tempdir().unwrap();
        let odd = std::ffi::OsStr::from_bytes(b"a\xff");
        if fs::write(root.path().join(odd), b"1").is_err() {
            return; // the file system refuses such names itself
        }
        assert_eq!(names(root.path(), LinkRule::Inside), (vec!["/".into()], 1));
    }
}
