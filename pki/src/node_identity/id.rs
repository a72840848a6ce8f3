//! Keys in ids, and ids of keys.

use champ::{Cid, Codec, Multihash};

use crate::keys::PublicSigningKey;

/// Begins the protobuf of an Ed25519 key.
const ED25519: [u8; 4] = [0x08, 0x01, 0x12, 0x20];

/// Returns the id of a node with an Ed25519 key: the identity multihash of the key's protobuf form.
pub fn id_of_key(key: &PublicSigningKey) -> Cid {
    let protobuf = [ED25519.as_slice(), key.as_bytes()].concat();
    // 36 bytes are exactly the identity limit, so the other branch is never taken.
    let hash = Multihash::identity(&protobuf).unwrap_or_else(|_| Multihash::sha2_256(&protobuf));
    Cid::v1(Codec::Libp2pKey, hash)
}

/// Returns the Ed25519 key that an id is; none for the ids of other keys.
pub fn key_of_id(id: &Multihash) -> Option<PublicSigningKey> {
    let key = id.identity_content()?.strip_prefix(&ED25519)?;
    key.try_into().ok().map(PublicSigningKey::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SecretSigningKey;

    #[test]
    fn a_key_is_found_again_in_its_id_and_in_no_other() {
        let key = SecretSigningKey::from_seed(&[0x41; 32]).public();
        let id = id_of_key(&key);
        assert_eq!(
            id.bare_multihash_text(),
            "12D3KooWQbb6k91VYokt5K45RdSVM4oyN3QhkCNwwfqy1L3DWbsz"
        );
        assert_eq!(key_of_id(id.hash()), Some(key));
        let rsa = Multihash::sha2_256(b"an RSA key");
        assert_eq!(key_of_id(&rsa), None);
        for other in [
            &[][..],
            &ED25519,
            &[0x08, 0x02, 0x12, 0x20],
            &[[0x08, 0x02, 0x12, 0x20].as_slice(), key.as_bytes()].concat(),
            &[ED25519.as_slice(), &[7; 31]].concat(),
        ] {
            assert_eq!(key_of_id(&Multihash::identity(other).unwrap()), None);
        }
    }
}
