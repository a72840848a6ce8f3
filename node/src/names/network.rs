//! Whose table of names a node follows.

use std::{fmt, str::FromStr};

use pki::keys::PublicKeyHash;

use crate::p2p::PeerId;

/// The name authority of a network, written `KEY@NODE`: what `kastro names status` prints on the authority and
/// every other node of the network is told.
///
/// The key is what counts: the table is believed for its signatures, whoever hands it out. The node is where new
/// names are asked for, until the table itself names another one (Spec: 10 §8.1, §12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAuthority {
    /// Hash of the identity key of `peergos`, which owns the table.
    pub owner: PublicKeyHash,
    /// The node that gives names out.
    pub node: PeerId,
}

/// Text that is no [`NameAuthority`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not of the form KEY@NODE, as `kastro names status` prints it on the authority")]
pub struct NotAnAuthority;

impl FromStr for NameAuthority {
    type Err = NotAnAuthority;

    fn from_str(text: &str) -> Result<Self, NotAnAuthority> {
        let (owner, node) = text.trim().split_once('@').ok_or(NotAnAuthority)?;
        Ok(Self {
            owner: owner.parse().map_err(|_| NotAnAuthority)?,
            node: node.parse().map_err(|_| NotAnAuthority)?,
        })
    }
}

impl fmt::Display for NameAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.owner, self.node)
    }
}

#[cfg(test)]
mod tests {
    use pki::keys::SecretSigningKey;

    use super::*;
    use pki::node_identity::id_of_key;

    #[test]
    fn the_text_leads_back_and_nothing_else_is_read() {
        let key = SecretSigningKey::from_seed(&[1; 32]).public();
        let authority = NameAuthority {
            owner: PublicKeyHash::of(&key),
            node: PeerId::from_cid(&id_of_key(&key)).unwrap(),
        };
        let text = authority.to_string();
        assert_eq!(text.parse(), Ok(authority.clone()));
        assert_eq!(format!(" {text}\n").parse(), Ok(authority));
        for bad in ["", "@", &text[1..], &text.replace('@', ":"), "x@y"] {
            assert_eq!(bad.parse::<NameAuthority>(), Err(NotAnAuthority), "{bad}");
        }
    }
}
