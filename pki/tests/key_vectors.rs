//! `keys.json`, and the security checks of Spec: 02 that concern keys and signatures.

use champ::{
    Block, Cid, MemoryBlocks,
    cbor::{Record, Value},
    text,
};
use pki::{
    algorithm::LoginAlgorithm,
    keys::{
        Owner, PublicKeyHash, PublicSigningKey, ResolveError, SecretKeyWithHash, SecretSigningKey,
        SigningKeyPair, Writer,
    },
};
use rand_chacha::rand_core::SeedableRng;

use crate::support::{Case, each, key, now};

#[test]
fn keys() {
    each(
        "keys.json",
        "kind",
        &["curve25519", "symmetric_key", "hash", "hmac_sha256"],
        vec![
            ("ed25519", &mut ed25519),
            ("sign", &mut sign),
            ("verify", &mut verify),
            ("public_signing_key_invalid", &mut |case| {
                assert!(
                    PublicSigningKey::decode(&case.hex("hex")).is_err(),
                    "{}",
                    case.name()
                );
            }),
            ("public_key_hash_invalid", &mut |case| {
                let text = case.str("string");
                assert!(text.parse::<Cid>().is_ok(), "a legal cid all the same");
                assert!(text.parse::<PublicKeyHash>().is_err());
                assert!(text.parse::<Owner>().is_err());
                assert!(text.parse::<Writer>().is_err());
                let link = Value::from(text.parse::<Cid>().unwrap());
                assert!(PublicKeyHash::from_value(link).is_err());
            }),
            ("null_keys", &mut |case| {
                let null = case.str("null_public_key_hash");
                assert_eq!(PublicKeyHash::placeholder().to_string(), null);
                assert!(null.parse::<PublicKeyHash>().unwrap().is_placeholder());
            }),
        ],
    );
}

fn ed25519(case: &Case) {
    let secret = SecretSigningKey::from_seed(&case.array("seed"));
    let public = secret.public();
    assert_eq!(public.as_bytes(), &case.array("public"));
    assert_eq!(public.encode(), case.hex("public_cbor"));
    assert_eq!(public.encode().len(), PublicSigningKey::ENCODED_BYTES);
    assert_eq!(PublicSigningKey::decode(&public.encode()), Ok(public));

    let secret_cbor = case.hex("secret_cbor");
    assert_eq!(secret.encode(), secret_cbor);
    assert!(secret_cbor.ends_with(&case.hex("secret64")));
    let decoded = SecretSigningKey::decode(&secret_cbor).unwrap();
    assert_eq!(decoded.seed().as_slice(), case.hex("seed"));

    let pair = SigningKeyPair::new(secret.clone());
    assert_eq!(pair.encode(), case.hex("keypair_cbor"));
    assert_eq!(pair.to_text().as_str(), case.str("keypair_string"));
    let parsed = SigningKeyPair::parse(case.str("keypair_string")).unwrap();
    assert_eq!(parsed.public(), public);

    let hash = PublicKeyHash::of(&public);
    assert_eq!(hash.cid().to_bytes(), case.hex("public_key_hash_cid"));
    assert_eq!(hash.to_string(), case.str("public_key_hash_string"));
    assert_eq!(hash.encode(), case.hex("public_key_hash_cbor"));
    assert_eq!(PublicKeyHash::decode(&hash.encode()), Ok(hash.clone()));
    assert_eq!(hash.inline_key(), Some(public));
    assert_eq!(now(hash.resolve(&MemoryBlocks::new())).unwrap(), public);

    let named = case.hex("private_key_and_public_hash_cbor");
    assert_eq!(SecretKeyWithHash::new(secret).encode(), named);
    assert_eq!(SecretKeyWithHash::decode(&named).unwrap().hash(), &hash);
}

fn sign(case: &Case) {
    let secret = SecretSigningKey::from_seed(&case.array("seed"));
    let (message, signed) = (case.hex("message"), case.hex("signed"));
    assert_eq!(secret.sign_attached(&message), signed);
    let signature = case.hex("signature_only");
    assert_eq!(secret.sign_detached(&message).as_slice(), signature);
    let public = secret.public();
    assert_eq!(public.verify_attached(&signed), Ok(message.as_slice()));
    assert!(public.verify_detached(&message, &signature).is_ok());
    assert!(public.verify_detached(&message, &signed[..63]).is_err());
    let mut long = signature.clone();
    long.push(0);
    assert!(public.verify_detached(&message, &long).is_err());
}

fn verify(case: &Case) {
    let public = PublicSigningKey::decode(&case.hex("public_cbor")).unwrap();
    let signed = case.hex("signed");
    match (public.verify_attached(&signed), case.str("required")) {
        (Ok(message), "accept") => assert_eq!(message, case.hex("message")),
        (Err(_), "reject") => {}
        (result, required) => panic!("{}: {result:?}, required {required}", case.name()),
    }
}

#[test]
fn secret_key_with_a_foreign_public_half_is_refused() {
    let mut encoded = key(1).secret().encode();
    let at = encoded.len() - 1;
    encoded[at] ^= 1;
    assert!(SecretSigningKey::decode(&encoded).is_err());

    let pair = Value::List(vec![
        key(2).secret().public().to_value(),
        key(1).secret().to_value(),
    ]);
    assert!(SigningKeyPair::from_value(pair).is_err());

    let mut record = key(1).to_value();
    let Value::Map(map) = &mut record else {
        panic!("a map");
    };
    map.insert("p", key(2).hash().to_value());
    assert!(SecretKeyWithHash::from_value(record).is_err());
}

#[test]
fn secret_keys_of_other_lengths_and_codes_are_refused() {
    for (code, length) in [(1, 63), (1, 65), (1, 32), (2, 64), (0, 64)] {
        let record = Value::List(vec![Value::Int(code), Value::from(vec![0; length])]);
        assert!(
            SecretSigningKey::from_value(record).is_err(),
            "{code} {length}"
        );
    }
}

#[test]
fn extra_list_elements_are_ignored_but_never_written() {
    let public = key(1).secret().public();
    let Value::List(mut items) = public.to_value() else {
        panic!("a list");
    };
    items.push(Value::Null);
    assert_eq!(PublicSigningKey::from_value(Value::List(items)), Ok(public));
}

#[test]
fn sc_2_keys_for_which_anybody_can_sign_verify_nothing() {
    // Small-order points, in canonical encoding and not: for them R = identity, S = 0 is a signature of
    // every message k with [k]A = identity.
    for point in [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        let public =
            PublicSigningKey::from_bytes(text::from_hex(point).unwrap().try_into().unwrap());
        let mut signed = [0; 64];
        signed[0] = 1;
        for n in 0..64u8 {
            let mut attached = signed.to_vec();
            attached.push(n);
            assert!(public.verify_attached(&attached).is_err(), "{point} {n}");
        }
    }
    // Not a point at all.
    let mut bytes = [0; 32];
    bytes[0] = 2;
    assert!(
        PublicSigningKey::from_bytes(bytes)
            .verify_attached(&[0; 70])
            .is_err()
    );
}

#[test]
fn keys_named_by_block_are_read_and_checked() {
    let secret = key(5);
    let public = secret.secret().public();
    let block = Block::cbor(public.encode()).unwrap();
    let hash = PublicKeyHash::try_new(block.cid().clone()).unwrap();
    assert!(hash.names(&public));
    assert_eq!(hash.inline_key(), None);

    let mut blocks = MemoryBlocks::new();
    let missing = now(hash.resolve(&blocks));
    assert!(matches!(missing, Err(ResolveError::NotFound(_))));
    blocks.insert(block.clone());
    assert_eq!(now(hash.resolve(&blocks)).unwrap(), public);
    assert!(hash.key_in(&Block::cbor(vec![0x80]).unwrap()).is_err());

    let not_a_key = Block::cbor(vec![0x80]).unwrap();
    let hash = PublicKeyHash::try_new(not_a_key.cid().clone()).unwrap();
    blocks.insert(not_a_key);
    let malformed = now(hash.resolve(&blocks));
    assert!(matches!(malformed, Err(ResolveError::Malformed { .. })));
}

#[test]
fn the_placeholder_resolves_to_nothing() {
    let nobody = PublicKeyHash::placeholder();
    let refused = now(nobody.resolve(&MemoryBlocks::new()));
    assert!(matches!(refused, Err(ResolveError::Placeholder)));
    assert_eq!(nobody.inline_key(), None);
    assert!(!nobody.names(&key(1).secret().public()));
}

#[test]
fn hashes_of_other_codecs_and_versions_name_no_key() {
    for cid in [
        Cid::of_raw(b"x"),
        "QmVdFZgHnEgcedCS2G2ZNiEN59LuVrnRm7z3yXtEBv2XiF"
            .parse()
            .unwrap(),
        Cid::parse_peer_id("12D3KooWEnCzE4uSeniFaCGXQuV1UnYkvqvbQJnYC363S2abgknr").unwrap(),
    ] {
        assert!(PublicKeyHash::try_new(cid).is_err());
    }
}

#[test]
fn secrets_do_not_show() {
    let secret = key(0xab);
    let pair = SigningKeyPair::new(secret.secret().clone());
    for shown in [
        format!("{:?}", secret.secret()),
        format!("{secret:?}"),
        format!("{pair:?}"),
    ] {
        assert!(!shown.contains("abab") && !shown.contains("171"), "{shown}");
        assert!(shown.contains("SecretSigningKey(..)"), "{shown}");
    }
}

#[test]
fn fresh_keys_come_from_the_generator_alone() {
    let draw = |seed| {
        let mut rng = rand_chacha::ChaCha20Rng::from_seed([seed; 32]);
        let keys = [(); 2].map(|()| SecretSigningKey::generate(&mut rng).public());
        (
            keys,
            LoginAlgorithm::current(&mut rng),
            LoginAlgorithm::legacy(&mut rng),
        )
    };
    let (keys, current, legacy) = draw(1);
    assert_ne!(keys[0], keys[1]);
    assert_eq!(draw(1), (keys, current.clone(), legacy.clone()));
    assert_ne!(draw(2).0, keys);

    let (current, legacy) = (current.login_work().unwrap(), legacy.login_work().unwrap());
    assert_eq!(current.output_bytes(), 64);
    assert!(legacy.is_legacy_layout() && !current.is_legacy_layout());
    assert_eq!(current.extra_salt().len(), 64);
    assert_ne!(current.extra_salt(), legacy.extra_salt());
}

/// S + L fits the equation as well as S does: a verifier that takes it lets anybody make a second signature.
#[test]
fn sc_2_a_signature_has_one_form() {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    for seed in 0..20 {
        let secret = SecretSigningKey::from_seed(&[seed; 32]);
        let mut signature = secret.sign_detached(b"message").to_vec();
        let public = secret.public();
        public.verify_detached(b"message", &signature).unwrap();
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert_eq!(carry, 0);
        assert!(public.verify_detached(b"message", &signature).is_err());
    }
}
