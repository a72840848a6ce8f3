//! Block write authorizations: the writer's signature that comes with every uploaded block (Spec: 02 §3.2,
//! 06 §4.2).
//!
//! It covers the SHA-256 of the block and nothing else: not the owner, the transaction or the format. The
//! digest is always the one computed here from the bytes, never one that somebody claims.

use champ::Block;
use sha2::{Digest, Sha256};

use crate::keys::{PublicSigningKey, SIGNATURE_BYTES, SecretSigningKey, SignatureError};

/// Length of an authorization: a signature, then the digest it covers.
pub const AUTHORIZATION_BYTES: usize = SIGNATURE_BYTES + 32;

/// Authorizes the upload of `block`: the attached signature over its digest, 96 bytes.
pub fn authorize(block: &Block, key: &SecretSigningKey) -> Vec<u8> {
    key.sign_attached(&digest(block))
}

/// Verifies that `key` authorized the upload of exactly this block.
///
/// # Errors
/// [`SignatureError`] for another length, key or block.
pub fn verify(
    block: &Block,
    authorization: &[u8],
    key: &PublicSigningKey,
) -> Result<(), SignatureError> {
    // The cheap checks come first: a signature costs a thousand comparisons.
    let digest = digest(block);
    if authorization.len() != AUTHORIZATION_BYTES || !authorization.ends_with(&digest) {
        return Err(SignatureError);
    }
    key.verify_attached(authorization).map(|_| ())
}

fn digest(block: &Block) -> [u8; 32] {
    // A hashed block has its digest in its CID already; one inside an identity CID has none.
    match block.cid().hash().sha2_256_digest() {
        Some(digest) => *digest,
        None => Sha256::digest(block.bytes()).into(),
    }
}

#[cfg(test)]
mod tests {
    use champ::{Cid, Codec, Multihash};

    use super::*;

    #[test]
    fn an_authorization_is_for_one_block_by_one_key() {
        let key = SecretSigningKey::from_seed(&[1; 32]);
        let block = Block::raw(b"block".as_slice()).unwrap();
        let authorization = authorize(&block, &key);
        assert_eq!(authorization.len(), AUTHORIZATION_BYTES);
        assert_eq!(verify(&block, &authorization, &key.public()), Ok(()));

        let other_key = SecretSigningKey::from_seed(&[2; 32]).public();
        assert!(verify(&block, &authorization, &other_key).is_err());
        let other_block = Block::raw(b"other".as_slice()).unwrap();
        assert!(verify(&other_block, &authorization, &key.public()).is_err());
        // Right signature of the wrong message, and lengths of one less and one more.
        let foreign = key.sign_attached(&[0; 32]);
        assert!(verify(&block, &foreign, &key.public()).is_err());
        assert!(verify(&block, &authorization[..95], &key.public()).is_err());
        let long = [authorization.as_slice(), &[0]].concat();
        assert!(verify(&block, &long, &key.public()).is_err());
        assert!(verify(&block, &[], &key.public()).is_err());
        for bit in 0..AUTHORIZATION_BYTES * 8 {
            let mut flipped = authorization.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                verify(&block, &flipped, &key.public()).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn blocks_inside_their_name_are_hashed_all_the_same() {
        let key = SecretSigningKey::from_seed(&[1; 32]);
        let cid = Cid::v1(Codec::DagCbor, Multihash::identity(b"x").unwrap());
        let inline = Block::inline(&cid).unwrap();
        let authorization = authorize(&inline, &key);
        assert!(authorization.ends_with(&Sha256::digest(b"x")));
        assert_eq!(verify(&inline, &authorization, &key.public()), Ok(()));
    }
}
