//! The public records in `keys.json`, `box.json` and `hybrid.json`.

use champ::{
    Block,
    cbor::{Fields, Record, decode},
};
use pki::{
    boxing::{CurvePublicKey, PublicBoxingKey},
    keys::PublicKeyHash,
};

use crate::support::each;

#[test]
fn curve25519_keys() {
    each(
        "keys.json",
        "kind",
        &[
            "ed25519",
            "sign",
            "verify",
            "public_signing_key_invalid",
            "public_key_hash_invalid",
            "null_keys",
            "symmetric_key",
            "hash",
            "hmac_sha256",
        ],
        vec![("curve25519", &mut |case| {
            let public = CurvePublicKey::from_bytes(case.array("public"));
            let key = PublicBoxingKey::Curve25519(public);
            assert_eq!(key.encode(), case.hex("public_cbor"));
            assert_eq!(PublicBoxingKey::decode(&key.encode()), Ok(key.clone()));
            assert_eq!(CurvePublicKey::decode(&key.encode()), Ok(public));
            assert_eq!(key.hash().to_string(), case.str("public_key_hash_string"));
            assert_eq!(PublicBoxingKey::inline(&key.hash()), Some(key.clone()));
            assert_eq!(key.block().unwrap(), None);
        })],
    );
}

#[test]
fn sender_keys_in_sourced_cipher_texts() {
    each(
        "box.json",
        "kind",
        &["padded_box", "box_invalid"],
        vec![("box", &mut |case| {
            let sourced = decode(&case.hex("sourced_ciphertext_cbor")).unwrap();
            let sender = Fields::of(sourced, "sourced")
                .unwrap()
                .required("k")
                .unwrap();
            let key = PublicBoxingKey::from_value(sender).unwrap();
            assert_eq!(key.curve().as_bytes(), &case.array("from_public"));
        })],
    );
}

#[test]
fn hybrid_keys() {
    each(
        "hybrid.json",
        "kind",
        &[
            "hybrid_secret_key",
            "hybrid_encrypt",
            "hybrid_decrypt",
            "hybrid_invalid",
            "mlkem_implicit_rejection",
        ],
        vec![("hybrid_keypair", &mut |case| {
            let encoded = case.hex("public_cbor");
            assert_eq!(encoded.len(), 1617);
            let key = PublicBoxingKey::decode(&encoded).unwrap();
            assert_eq!(key.encode(), encoded);
            assert!(CurvePublicKey::decode(&encoded).is_err());
            let block = key.block().unwrap().unwrap();
            assert_eq!(block.cid().to_string(), case.str("public_key_block_cid"));
            assert_eq!(key.hash().cid(), block.cid());
            assert_eq!(PublicBoxingKey::inline(&key.hash()), None);
            assert_eq!(
                PublicBoxingKey::in_block(&key.hash(), &block),
                Ok(key.clone())
            );
            let other = Block::cbor(vec![0x80]).unwrap();
            assert!(PublicBoxingKey::in_block(&key.hash(), &other).is_err());
            let hash = PublicKeyHash::decode(&key.hash().encode());
            assert_eq!(hash, Ok(key.hash()));
        })],
    );
}
