//! Names of nodes (Spec: 01 §3.4, 11 §1).

use std::{fmt, net::Ipv6Addr, str::FromStr};

use champ::{Cid, Codec, Multihash};
use sha2::{Digest as _, Sha256};

/// The id of a node: the multihash of its public key. Two forms of the same hash are the same id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(libp2p::PeerId);

/// Not the id of a node: neither SHA-256 nor a short key itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a server id")]
pub struct NotAPeerId;

impl PeerId {
    /// Takes the id out of a CID of any version.
    ///
    /// # Errors
    /// [`NotAPeerId`] for hashes that no key has.
    pub fn from_cid(cid: &Cid) -> Result<Self, NotAPeerId> {
        Self::from_bytes(&cid.hash().to_bytes())
    }

    /// Reads a binary multihash.
    ///
    /// # Errors
    /// [`NotAPeerId`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotAPeerId> {
        libp2p::PeerId::from_bytes(bytes)
            .map(Self)
            .map_err(|_| NotAPeerId)
    }

    /// Returns the binary multihash.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// Returns the bare id that a hash is; none for hashes that no key has.
    pub(crate) fn of_hash(hash: &Multihash) -> Option<Self> {
        Self::from_bytes(&hash.to_bytes()).ok()
    }

    /// Returns the hash.
    pub(crate) fn multihash(&self) -> Multihash {
        let bytes = self.0.to_bytes();
        Multihash::read(&bytes).map_or_else(
            // Not reached: both sides know the same two hash functions.
            |_| Multihash::sha2_256(&bytes),
            |(hash, _)| hash,
        )
    }

    /// Returns the id as a CID of version 1.
    pub fn to_cid(&self) -> Cid {
        Cid::v1(Codec::Libp2pKey, self.multihash())
    }

    /// Returns true when a host name is this id, in base58 or as CID text with or without its first letter.
    pub(crate) fn is_named(&self, host: &str) -> bool {
        host == self.to_string() || {
            let text = self.to_cid().to_string();
            host == text || text.strip_prefix('z') == Some(host)
        }
    }

    pub(super) const fn as_libp2p(&self) -> &libp2p::PeerId {
        &self.0
    }

    /// Returns an address of the range that nobody has (fc00::/8), made of the id: limits count by address.
    pub(crate) fn stand_in(&self) -> Ipv6Addr {
        let digest: [u8; 32] = Sha256::digest(self.to_bytes()).into();
        let mut octets = [0; 16];
        for (to, from) in octets.iter_mut().zip(digest) {
            *to = from;
        }
        if let Some(first) = octets.first_mut() {
            *first = 0xfc;
        }
        octets.into()
    }
}

impl From<libp2p::PeerId> for PeerId {
    fn from(id: libp2p::PeerId) -> Self {
        Self(id)
    }
}

impl fmt::Display for PeerId {
    /// Base58 of the bare multihash: `12D3KooW...` or `Qm...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

impl FromStr for PeerId {
    type Err = NotAPeerId;

    /// Reads every text form: base58 of the bare multihash, `Qm...`, CID text. What was cut short holds no key, and is no id.
    fn from_str(text: &str) -> Result<Self, NotAPeerId> {
        let cid = Cid::parse_peer_id(text).map_err(|_| NotAPeerId)?;
        match cid.identity_content() {
            Some(content) if !is_key(content) => Err(NotAPeerId),
            _ => Self::from_cid(&cid),
        }
    }
}

/// Returns true for the protobuf of a public key: its kind, then as many bytes as it says.
fn is_key(content: &[u8]) -> bool {
    matches!(content, [0x08, _, 0x12, length, key @ ..] if usize::from(*length) == key.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `peer_id` case of the vectors.
    #[test]
    fn the_same_hash_is_the_same_id_in_every_form() {
        let json: serde_json::Value =
            serde_json::from_str(include_str!("../../../pki/tests/vectors/pki.json")).unwrap();
        let mut compared = 0;
        for case in json["cases"].as_array().unwrap() {
            if case["kind"] != "peer_id" {
                continue;
            }
            let text = |field: &str| case[field].as_str().unwrap();
            let id: PeerId = text("bare_base58").parse().unwrap();
            assert_eq!(text("cid_string").parse(), Ok(id), "{case}");
            assert_eq!(id.to_string(), text("bare_base58"));
            assert_eq!(champ::text::to_hex(&id.to_bytes()), text("bare_multihash"));
            let cid = champ::text::from_hex(text("cid_bytes")).unwrap();
            let cid = Cid::decode(&cid).unwrap();
            assert_eq!(PeerId::from_cid(&cid), Ok(id));
            assert_eq!(id.to_cid().hash(), cid.hash());
            assert!(id.is_named(text("bare_base58")));
            assert!(cid.is_v0() || id.is_named(text("cid_string")));
            assert!(!id.is_named("localhost"));
            compared += 1;
        }
        assert_eq!(compared, 5);
    }

    #[test]
    fn other_hashes_are_no_ids() {
        let blake = [&[0x1e, 32][..], &[0; 32]].concat();
        assert_eq!(PeerId::from_bytes(&blake), Err(NotAPeerId));
        for bad in ["", "1", "x", "12D3KooW", "12D3KooWrong", "zdvgq"] {
            assert_eq!(bad.parse::<PeerId>(), Err(NotAPeerId), "{bad}");
        }
    }
}
