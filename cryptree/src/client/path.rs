//! Paths as people write them: `/user/folder/file` (Spec: 21 §4).

use std::{fmt, str::FromStr};

use crate::{
    error::ClientError,
    properties::{FileName, MAX_PATH_UNITS},
};

/// A path: a user name and the names below that user's home folder.
///
/// Names are compared exactly; there is no case folding, no normalization, and a backslash is a character.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RemotePath {
    user: String,
    names: Vec<FileName>,
}

impl RemotePath {
    /// Returns the path of a user's home folder.
    pub fn home(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            names: Vec::new(),
        }
    }

    /// Returns the user name in front.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the names below the home folder.
    pub fn names(&self) -> &[FileName] {
        &self.names
    }

    /// Returns true for a home folder.
    pub const fn is_home(&self) -> bool {
        self.names.is_empty()
    }

    /// Returns the last name and the folder it is in; `None` for a home folder.
    pub fn split_last(&self) -> Option<(Self, &FileName)> {
        let (last, parents) = self.names.split_last()?;
        let parent = Self {
            user: self.user.clone(),
            names: parents.to_vec(),
        };
        Some((parent, last))
    }

    /// Returns the path of `name` in this folder.
    #[must_use]
    pub fn join(&self, name: FileName) -> Self {
        let mut joined = self.clone();
        joined.names.push(name);
        joined
    }

    /// Returns true when this is `other` or below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.user == other.user && self.names.starts_with(&other.names)
    }
}

impl FromStr for RemotePath {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let illegal = || ClientError::IllegalPath {
            path: text.to_owned(),
        };
        if text.encode_utf16().count() > MAX_PATH_UNITS {
            return Err(illegal());
        }
        let inner = text.strip_prefix('/').unwrap_or(text);
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let mut parts = inner.split('/');
        let user = parts.next().filter(|user| !user.is_empty());
        let user = user.ok_or_else(illegal)?.to_owned();
        let names = parts
            .map(|part| {
                FileName::parse(part).map_err(|_| ClientError::IllegalName {
                    name: part.to_owned(),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { user, names })
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.user)?;
        self.names.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

impl fmt::Debug for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemotePath({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_parse_and_print() {
        for (text, printed) in [
            ("/alice", "/alice"),
            ("alice/", "/alice"),
            ("/alice/docs/", "/alice/docs"),
            (
                "/alice/a\\b/\u{4f60}\u{597d} \u{1f600}.txt",
                "/alice/a\\b/\u{4f60}\u{597d} \u{1f600}.txt",
            ),
        ] {
            assert_eq!(text.parse::<RemotePath>().unwrap().to_string(), printed);
        }
        let (parent, name) = "/alice/docs/a"
            .parse::<RemotePath>()
            .map(|p| p.split_last().map(|(p, n)| (p, n.clone())))
            .unwrap()
            .unwrap();
        assert_eq!(
            (parent.to_string().as_str(), name.as_str()),
            ("/alice/docs", "a")
        );
    }

    #[test]
    fn illegal_paths_and_names_are_refused() {
        for text in ["", "/", "//a"] {
            assert!(
                matches!(
                    text.parse::<RemotePath>(),
                    Err(ClientError::IllegalPath { .. })
                ),
                "{text}"
            );
        }
        let long = "x".repeat(256);
        for text in [
            "/alice//b",
            "/alice/./b",
            "/alice/../bob",
            &format!("/alice/{long}"),
        ] {
            assert!(
                matches!(
                    text.parse::<RemotePath>(),
                    Err(ClientError::IllegalName { .. })
                ),
                "{text}"
            );
        }
        let deep = format!("/alice{}", "/name".repeat(900));
        assert!(matches!(
            deep.parse::<RemotePath>(),
            Err(ClientError::IllegalPath { .. })
        ));
    }
}
