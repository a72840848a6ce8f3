//! User names (Spec: 10 §1).
//!
//! Two different questions are kept apart: may this string be a name at all ([`Username::parse`], for any
//! name that already has a chain, whatever its form), and may it be registered today
//! ([`Username::check_new`], the pattern and the reserved list). Only a registrar asks the second one; a
//! mirror or a client that did would lose the accounts made under older rules.
//!
//! A parsed name is not safe as a file name: it may contain `/` or be `..`.

use std::{fmt, str::FromStr, sync::Arc};

/// Longest name that can be claimed, in bytes: the limit of the signed payload (Spec: 10 §3).
pub const MAX_USERNAME_BYTES: usize = 64;
/// Longest name that can be registered, in characters.
pub const MAX_NEW_USERNAME_CHARS: usize = 32;
/// The owner of the name table itself (Spec: 10 §8).
pub const PKI_OWNER: &str = "peergos";

/// Names that match the pattern and are refused nevertheless, in order (Spec: 10 §1).
const RESERVED: &[&str] = &[
    "admin",
    "administrator",
    "apple",
    "briar",
    "btc",
    "constructor",
    "dns",
    "email",
    "eth",
    "facebook",
    "file",
    "followers",
    "friends",
    "ftp",
    "google",
    "groups",
    "http",
    "https",
    "i2p",
    "imap",
    "instagram",
    "ipfs",
    "ipns",
    "irc",
    "linkedin",
    "mail",
    "mailto",
    "mastodon",
    "matrix",
    "mls",
    "mnr",
    "onion",
    "pinterest",
    "qq",
    "reddit",
    "root",
    "sftp",
    "signal",
    "smtp",
    "snapchat",
    "ssb",
    "ssh",
    "support",
    "telegram",
    "tiktok",
    "tls",
    "twitter",
    "username",
    "web",
    "wechat",
    "whatsapp",
    "wss",
    "www",
    "xmpp",
    "zec",
];

/// A string that can be, or once was, a user name: 1 to 64 bytes without blank, tab and line feed.
///
/// Case sensitive; there is no normalisation of any kind. Clones share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Username(Arc<str>);

/// Why a string is not a user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UsernameError {
    /// No characters.
    #[error("user name is empty")]
    Empty,
    /// More than [`MAX_USERNAME_BYTES`].
    #[error("user name is longer than {MAX_USERNAME_BYTES} bytes")]
    TooLong,
    /// A blank, tab or line feed.
    #[error("user name contains white space")]
    WhiteSpace,
    /// A new name that does not match the pattern or is reserved; the text is what registrars answer.
    #[error("Invalid username")]
    NotRegistrable,
}

impl Username {
    /// Parses a name that exists or may exist.
    ///
    /// # Errors
    /// [`UsernameError`], never [`UsernameError::NotRegistrable`].
    pub fn parse(text: &str) -> Result<Self, UsernameError> {
        if text.is_empty() {
            return Err(UsernameError::Empty);
        }
        if text.len() > MAX_USERNAME_BYTES {
            return Err(UsernameError::TooLong);
        }
        if text.contains([' ', '\t', '\n']) {
            return Err(UsernameError::WhiteSpace);
        }
        Ok(Self(text.into()))
    }

    /// Parses a name that somebody wants to register.
    ///
    /// # Errors
    /// [`UsernameError::NotRegistrable`].
    pub fn parse_new(text: &str) -> Result<Self, UsernameError> {
        if is_registrable(text) {
            Ok(Self(text.into()))
        } else {
            Err(UsernameError::NotRegistrable)
        }
    }

    /// Checks that the name may be registered today: `[a-z0-9]([a-z0-9]|-(?=[a-z0-9])){0,31}` against the
    /// whole string, and not reserved.
    ///
    /// # Errors
    /// [`UsernameError::NotRegistrable`].
    pub fn check_new(&self) -> Result<(), UsernameError> {
        if is_registrable(&self.0) {
            Ok(())
        } else {
            Err(UsernameError::NotRegistrable)
        }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_registrable(text: &str) -> bool {
    let bytes = text.as_bytes();
    let letters = bytes
        .iter()
        .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    // A hyphen stands between two letters or digits: not first, not last, not doubled.
    letters
        && (1..=MAX_NEW_USERNAME_CHARS).contains(&bytes.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
        && RESERVED.binary_search(&text).is_err()
}

impl FromStr for Username {
    type Err = UsernameError;

    fn from_str(text: &str) -> Result<Self, UsernameError> {
        Self::parse(text)
    }
}

impl AsRef<str> for Username {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Username {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Username({:?})", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserved_list_is_sorted() {
        assert!(RESERVED.is_sorted());
        assert_eq!(RESERVED.len(), 55);
    }

    #[test]
    fn a_line_feed_does_not_slip_through_the_pattern() {
        for name in ["a\n", "\na", "alice\n", "a\r", "a\0"] {
            assert_eq!(
                Username::parse_new(name),
                Err(UsernameError::NotRegistrable)
            );
        }
        assert_eq!(Username::parse("a\n"), Err(UsernameError::WhiteSpace));
    }

    #[test]
    fn old_names_parse_but_are_not_registrable() {
        let long = "x".repeat(64);
        for name in ["0_0", "Alice", "-a", "a--b", long.as_str()] {
            let name = Username::parse(name).unwrap();
            assert_eq!(name.check_new(), Err(UsernameError::NotRegistrable));
        }
        let longer = "x".repeat(65);
        assert_eq!(Username::parse(&longer), Err(UsernameError::TooLong));
        assert_eq!(Username::parse(""), Err(UsernameError::Empty));
        for name in ["al ice", "al\tice"] {
            assert_eq!(Username::parse(name), Err(UsernameError::WhiteSpace));
        }
    }

    #[test]
    fn thirty_two_characters_are_the_limit() {
        assert!(Username::parse_new(&"a".repeat(32)).is_ok());
        assert!(Username::parse_new(&"a".repeat(33)).is_err());
    }
}
