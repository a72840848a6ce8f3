//! Paths in the encrypted file system: `/alice/docs/a.txt`, or `docs/a.txt` for one's own folder.

use std::{fmt, str::FromStr};

/// A remote path as typed. Components are never empty, `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemotePath {
    components: Vec<String>,
    is_absolute: bool,
    has_trailing_slash: bool,
}

/// Why a text is no remote path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemotePathError {
    /// `.` and `..` have no meaning on the remote side.
    #[error("`{0}` cannot be used in a remote path")]
    Dots(String),
    /// Too long to be a path.
    #[error("a remote path has at most {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// A character that no path may hold.
    #[error("a remote path cannot hold a NUL character")]
    Nul,
}

/// Longest path accepted, in bytes.
const MAX_PATH_BYTES: usize = 64 * 1024;

impl RemotePath {
    /// Returns the path with `user`'s folder in front when it was typed without a slash.
    #[must_use]
    pub fn of(&self, user: &str) -> Vec<String> {
        let mut components = Vec::with_capacity(self.components.len() + 1);
        if !self.is_absolute {
            components.push(user.to_owned());
        }
        components.extend(self.components.iter().cloned());
        components
    }

    /// Returns true when the path ends with a slash, which asks for a folder.
    #[must_use]
    pub const fn asks_for_folder(&self) -> bool {
        self.has_trailing_slash
    }
}

impl FromStr for RemotePath {
    type Err = RemotePathError;

    fn from_str(text: &str) -> Result<Self, RemotePathError> {
        if text.len() > MAX_PATH_BYTES {
            return Err(RemotePathError::TooLong);
        }
        if text.contains('\0') {
            return Err(RemotePathError::Nul);
        }
        let current = FOLDER.try_with(Clone::clone).ok();
        let mut components = match &current {
            Some(folder) if !text.starts_with('/') => folder.clone(),
            _ => Vec::new(),
        };
        for component in text.split('/').filter(|component| !component.is_empty()) {
            match component {
                "." if current.is_some() => {}
                ".." if current.is_some() => drop(components.pop()),
                "." | ".." => return Err(RemotePathError::Dots(component.to_owned())),
                name => components.push(name.to_owned()),
            }
        }
        Ok(Self {
            components,
            is_absolute: text.starts_with('/') || current.is_some(),
            has_trailing_slash: text.ends_with('/'),
        })
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_absolute {
            f.write_str("/")?;
        }
        f.write_str(&self.components.join("/"))
    }
}

tokio::task_local! {
    /// The current folder of a shell.
    static FOLDER: Vec<String>;
}

/// Runs `work` with relative paths starting in a folder, and with `.` and `..` understood.
pub async fn within<T>(folder: Vec<String>, work: impl Future<Output = T>) -> T {
    FOLDER.scope(folder, work).await
}

/// Returns the folder that is meant when none is named: the current one of a shell, else the user's own.
#[must_use]
pub fn here(user: &str) -> String {
    let folder = FOLDER.try_with(Clone::clone);
    absolute(&folder.unwrap_or_else(|_| vec![user.to_owned()]))
}

/// Joins components to the text of an absolute path.
#[must_use]
pub fn absolute(components: &[String]) -> String {
    format!("/{}", components.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RemotePath {
        text.parse().unwrap()
    }

    #[test]
    fn absolute_and_own_paths_name_the_same_thing() {
        assert_eq!(parse("/alice/a/b").of("bob"), ["alice", "a", "b"]);
        assert_eq!(parse("a/b").of("alice"), ["alice", "a", "b"]);
        assert_eq!(parse("//alice//a/").of("bob"), ["alice", "a"]);
        assert!(parse("/alice/a/").asks_for_folder());
        assert_eq!(parse("").of("alice"), ["alice"]);
        assert_eq!(absolute(&parse("a").of("alice")), "/alice/a");
    }

    #[tokio::test]
    async fn a_shell_has_a_current_folder() {
        let folder = vec!["alice".to_owned(), "docs".to_owned()];
        let parsed = within(folder, async {
            assert_eq!(here("alice"), "/alice/docs");
            ["x", "../y", "./..", "/bob/./z", "../../../..", ""].map(|text| parse(text).of("alice"))
        });
        let [x, y, above, other, top, same] = parsed.await;
        assert_eq!(x, ["alice", "docs", "x"]);
        assert_eq!(y, ["alice", "y"]);
        assert_eq!(above, ["alice"]);
        assert_eq!(other, ["bob", "z"]);
        assert!(top.is_empty());
        assert_eq!(same, ["alice", "docs"]);
        assert_eq!(here("alice"), "/alice");
    }

    #[test]
    fn dots_and_nul_are_refused() {
        for wrong in ["/alice/../bob", ".", "a/./b", "/alice/\0"] {
            assert!(wrong.parse::<RemotePath>().is_err(), "{wrong:?}");
        }
        assert!(
            "a".repeat(MAX_PATH_BYTES + 1)
                .parse::<RemotePath>()
                .is_err()
        );
    }
}
