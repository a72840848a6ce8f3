//! Paths of published files (Spec: 04 §7, 13 §8).

use super::MAX_NAME_UNITS;

/// Most elements of a path.
pub const MAX_PATH_ELEMENTS: usize = 128;

/// A path from the root of an owner's published tree; the first element is the owner's user name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PublishedPath(Vec<String>);

/// Text that is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// No element at all.
    #[error("path is empty")]
    Empty,
    /// More elements than allowed.
    #[error("path has more than {MAX_PATH_ELEMENTS} elements")]
    TooDeep,
    /// An element that is empty, `.`, `..`, too long, or holds a control character.
    #[error("path has an element that is no file name")]
    Element,
}

impl PublishedPath {
    /// Parses a path: `\` counts as `/`, one leading `/` and trailing ones are dropped.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let text = text.replace('\\', "/");
        let text = text
            .strip_prefix('/')
            .unwrap_or(&text)
            .trim_end_matches('/');
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        let mut elements = Vec::new();
        for element in text.split('/') {
            if elements.len() == MAX_PATH_ELEMENTS {
                return Err(PathError::TooDeep);
            }
            if matches!(element, "" | "." | "..")
                || element.encode_utf16().count() > MAX_NAME_UNITS
                || element.contains(char::is_control)
            {
                return Err(PathError::Element);
            }
            elements.push(element.to_owned());
        }
        Ok(Self(elements))
    }

    /// Returns the elements; there is at least one.
    pub fn elements(&self) -> &[String] {
        &self.0
    }

    /// Returns the user name.
    pub fn owner(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }
}

impl std::fmt::Display for PublishedPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .iter()
            .try_for_each(|element| write!(f, "/{element}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_are_evened_out() {
        for text in ["alice/a b", "/alice/a b", "\\alice\\a b", "/alice/a b//"] {
            let path = PublishedPath::parse(text).unwrap();
            assert_eq!(path.elements(), ["alice", "a b"]);
            assert_eq!(
                (path.owner(), path.to_string().as_str()),
                ("alice", "/alice/a b")
            );
        }
    }

    #[test]
    fn elements_that_are_no_names_are_refused() {
        for (text, error) in [
            ("", PathError::Empty),
            ("/", PathError::Empty),
            ("///", PathError::Empty),
            ("a//b", PathError::Element),
            ("//a", PathError::Element),
            ("a/./b", PathError::Element),
            ("a/../b", PathError::Element),
            ("..\\b", PathError::Element),
            ("a/\0", PathError::Element),
            ("a/\r\n", PathError::Element),
            (&"a/".repeat(MAX_PATH_ELEMENTS + 1), PathError::TooDeep),
            (&"a".repeat(256), PathError::Element),
        ] {
            assert_eq!(PublishedPath::parse(text), Err(error), "{text:?}");
        }
        assert!(PublishedPath::parse(&"a/".repeat(MAX_PATH_ELEMENTS)).is_ok());
    }
}
