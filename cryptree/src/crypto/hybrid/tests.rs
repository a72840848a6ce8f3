use champ::text;
use pki::boxing::PublicBoxingKey;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::*;
use crate::crypto::{BoxingKeyPair, SecretBoxingKey};
use crate::replay::Replay;

fn cases() -> Vec<Json> {
    let file = include_str!("../../../tests/vectors/hybrid.json");
    let file: Json = serde_json::from_str(file).unwrap();
    file["cases"].as_array().unwrap().clone()
}

fn text_of<'a>(case: &'a Json, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_else(|| panic!("{field}"))
}

fn hex(case: &Json, field: &str) -> Vec<u8> {
    text::from_hex(text_of(case, field)).unwrap()
}

fn key(name: &str) -> HybridSecretKey {
    let all = cases();
    let case = all
        .iter()
        .find(|c| c["kind"] == "hybrid_secret_key" && c["name"] == name)
        .unwrap();
    HybridSecretKey::decode(&hex(case, "secret_cbor")).unwrap()
}

fn named(case: &Json, field: &str) -> HybridSecretKey {
    key(text_of(case, field))
}

fn base_case() -> Json {
    cases()
        .into_iter()
        .find(|c| c["kind"] == "hybrid_encrypt" && hex(c, "message") == b"post quantum hello")
        .unwrap()
}

fn kem_cipher(wire: &[u8]) -> [u8; KEM_CIPHER_BYTES] {
    *HybridCipherText::decode(wire).unwrap().encapsulated
}

#[test]
fn every_vector() {
    let mut ran = 0;
    for case in cases() {
        match text_of(&case, "kind") {
            "hybrid_keypair" => key_pair(&case),
            "hybrid_secret_key" => {
                let encoded = hex(&case, "secret_cbor");
                let key = SecretBoxingKey::decode(&encoded).unwrap();
                assert_eq!(key.encode(), encoded);
            }
            "hybrid_encrypt" => encrypt(&case),
            "hybrid_decrypt" => decrypt(&case),
            "hybrid_invalid" => invalid(&case),
            "mlkem_implicit_rejection" => {
                let mut cipher = kem_cipher(&hex(&base_case(), "wire"));
                cipher[0] ^= 1;
                let shared = named(&case, "to").decapsulate(&cipher);
                assert_eq!(shared.to_vec(), hex(&case, "shared_secret"));
            }
            other => panic!("unknown kind {other}"),
        }
        ran += 1;
    }
    assert_eq!(ran, 14);
}

fn key_pair(case: &Json) {
    let curve = CurveSecretKey::from_bytes(hex(case, "curve_secret").try_into().unwrap());
    let seed = [hex(case, "mlkem_d"), hex(case, "mlkem_z")].concat();
    let secret = HybridSecretKey::from_seeds(curve, &seed.try_into().unwrap());
    assert_eq!(secret.encode(), named(case, "name").encode());
    let encoded = secret.encode();
    assert_eq!(
        encoded.len() as u64,
        case["secret_cbor_length"].as_u64().unwrap()
    );
    let sha = |bytes: &[u8]| Sha256::digest(bytes).to_vec();
    assert_eq!(sha(&encoded), hex(case, "secret_cbor_sha256"));
    assert_eq!(
        sha(secret.decapsulation.as_slice()),
        hex(case, "mlkem_decapsulation_key_sha256")
    );
    let pair = BoxingKeyPair::new(SecretBoxingKey::Hybrid(secret)).unwrap();
    assert_eq!(pair.public().encode(), hex(case, "public_cbor"));
    let PublicBoxingKey::Hybrid(public) = pair.public() else {
        panic!("hybrid");
    };
    assert_eq!(
        sha(public.encapsulation()),
        hex(case, "mlkem_encapsulation_key_sha256")
    );
    assert_eq!(sha(&pair.encode()), hex(case, "keypair_cbor_sha256"));
    assert_eq!(
        pair.public().hash().to_string(),
        text_of(case, "public_key_block_cid")
    );
    let decoded = BoxingKeyPair::decode(&pair.encode()).unwrap();
    assert_eq!(decoded.public(), pair.public());
}

fn encrypt(case: &Json) {
    let (from, to) = (named(case, "from"), named(case, "to"));
    let mut random = Replay::of([
        hex(case, "curve_shared_secret"),
        hex(case, "mlkem_m"),
        hex(case, "box_nonce"),
        hex(case, "secretbox_nonce"),
    ]);
    let message = hex(case, "message");
    let wire = from
        .seal(&message, &to.public().unwrap(), &mut random)
        .unwrap();
    assert!(random.is_used_up());
    assert_eq!(wire, hex(case, "wire"));
    let shared = to.decapsulate(&kem_cipher(&wire));
    assert_eq!(shared.to_vec(), hex(case, "mlkem_shared_secret"));
    let k1 = hex(case, "curve_shared_secret").try_into().unwrap();
    assert_eq!(
        combined(&k1, &shared).bytes().to_vec(),
        hex(case, "combined_key")
    );
    assert_eq!(
        Sha256::digest(kem_cipher(&wire)).to_vec(),
        hex(case, "mlkem_ciphertext_sha256")
    );
    decrypt(case);
}

fn decrypt(case: &Json) {
    let (from, to) = (named(case, "from"), named(case, "to"));
    let opened = to
        .open(&hex(case, "wire"), &from.public().unwrap())
        .unwrap();
    assert_eq!(*opened, hex(case, "message"));
    // Reversed roles do not open.
    assert!(
        from.open(&hex(case, "wire"), &to.public().unwrap())
            .is_err()
    );
}

fn invalid(case: &Json) {
    let base = base_case();
    let Value::Map(mut map) = champ::cbor::decode(&hex(&base, "wire")).unwrap() else {
        panic!("map");
    };
    let field = text_of(case, "field");
    let mut bytes = map
        .get(field)
        .unwrap()
        .clone()
        .into_bytes("f")
        .unwrap()
        .to_vec();
    let at = usize::try_from(case["flip_offset"].as_u64().unwrap()).unwrap();
    bytes[at] ^= 1;
    map.insert(field, bytes);
    let sender = named(&base, "from").public().unwrap();
    let opened = named(&base, "to").open(&Value::Map(map).encode(), &sender);
    assert_eq!(opened.unwrap_err(), CannotOpen);
}

#[test]
fn every_length_but_the_right_one_is_rejected() {
    let base = base_case();
    let (to, sender) = (named(&base, "to"), named(&base, "from").public().unwrap());
    for (field, length) in [
        ("c", 71),
        ("c", 73),
        ("m", 1567),
        ("m", 1569),
        ("n", 23),
        ("i", 15),
    ] {
        let Value::Map(mut map) = champ::cbor::decode(&hex(&base, "wire")).unwrap() else {
            panic!("map");
        };
        map.insert(field, vec![0; length]);
        assert!(
            to.open(&Value::Map(map).encode(), &sender).is_err(),
            "{field}"
        );
    }
    assert!(to.open(&[], &sender).is_err());
}

#[test]
fn k1_of_another_length_is_rejected() {
    // A sender who boxes 31 bytes makes the part `c` one byte shorter.
    let base = base_case();
    let (from, to) = (named(&base, "from"), named(&base, "to"));
    let mut random = Replay::of([vec![1; 24]]);
    let short = from
        .curve
        .seal(&[7; 31], to.public().unwrap().curve(), &mut random)
        .unwrap();
    let Value::Map(mut map) = champ::cbor::decode(&hex(&base, "wire")).unwrap() else {
        panic!("map");
    };
    map.insert("c", short);
    let sender = from.public().unwrap();
    assert!(to.open(&Value::Map(map).encode(), &sender).is_err());
}

#[test]
fn damaged_decapsulation_keys_are_rejected() {
    let secret = key("bob");
    for at in [1536, 1600, 3103, 3104, 3135] {
        let mut changed = secret.clone();
        changed.decapsulation[at] ^= 1;
        assert!(
            HybridSecretKey::decode(&changed.encode()).is_err(),
            "byte {at}"
        );
    }
    for length in [3167, 3169] {
        let kem = Map::from_iter([("s", vec![0u8; length])]);
        let content = Map::from_iter([("c", secret.curve.to_value()), ("m", Value::Map(kem))]);
        let value = Value::List(vec![Value::Int(2), Value::Map(content)]);
        assert!(SecretBoxingKey::from_value(value).is_err());
    }
}

#[test]
fn keys_of_different_kinds_do_not_mix() {
    let hybrid = SecretBoxingKey::Hybrid(key("bob"));
    let curve = SecretBoxingKey::Curve25519(CurveSecretKey::from_bytes([1; 32]));
    let mut random = Replay::of([]);
    let (hybrid_public, curve_public) = (hybrid.public().unwrap(), curve.public().unwrap());
    for (from, to) in [(&hybrid, &curve_public), (&curve, &hybrid_public)] {
        assert_eq!(from.seal(b"m", to, &mut random), Err(BoxError::MixedKinds));
        assert_eq!(from.open(&[0; 100], to).unwrap_err(), CannotOpen);
    }
}

#[test]
fn a_pair_whose_halves_do_not_match_is_rejected() {
    let (alice, bob) = (key("alice"), key("bob"));
    let public = PublicBoxingKey::Hybrid(alice.public().unwrap());
    let pair = Value::List(vec![public.to_value(), bob.to_value()]);
    assert!(BoxingKeyPair::from_value(pair).is_err());
}

#[test]
fn debug_shows_nothing() {
    assert_eq!(format!("{:?}", key("bob")), "HybridSecretKey(..)");
    assert_eq!(
        format!("{:?}", SecretBoxingKey::Hybrid(key("bob"))),
        "Hybrid(HybridSecretKey(..))"
    );
}
