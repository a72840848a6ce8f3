//! Which state of a file or folder an operation is about.

use std::{fmt, str::FromStr};

use champ::Cid;
use sha2::{Digest as _, Sha256};

use crate::error::ClientError;

/// A state of one file or folder: two that are equal are the same bytes on the node.
///
/// A file has another one after every change of its content or properties that this client makes. Clients that change
/// the middle of a large file without touching its size and time (Spec: 21 §10.1 lets them) leave it as it is, just
/// as they leave the modification time. A folder has another one when its own properties or the first 500 of its
/// entries change; what is in files and folders below does not count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version([u8; 32]);

impl Version {
    /// The state in which the first node of an item is this block.
    pub(crate) fn of(first_node: &Cid) -> Self {
        Self(Sha256::digest(first_node.to_bytes()).into())
    }

    /// Takes up a version that was kept.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the version as it may be kept.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&champ::text::to_hex(&self.0))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({self})")
    }
}

impl FromStr for Version {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let bytes = champ::text::from_hex(text).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| ClientError::IllegalVersion {
            text: text.chars().take(80).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_kept_as_text() {
        let version = Version::of(&Cid::of_cbor(b"x"));
        assert_eq!(version.to_string().parse::<Version>().unwrap(), version);
        assert_eq!(Version::from_bytes(*version.as_bytes()), version);
        assert_ne!(version, Version::of(&Cid::of_cbor(b"y")));
        for bad in ["", "00", &"0".repeat(63), &"g".repeat(64), &"0".repeat(66)] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
