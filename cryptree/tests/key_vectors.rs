//! `keys.json` (what is confidential in it), `scrypt.json`, `secret_link.json`.

use champ::cbor::{Map, Record, Value};
use cryptree::{
    capability::AbsoluteCapability,
    crypto::{BoxingKeyPair, CurveSecretKey, SecretBoxingKey, SymmetricKey, derive_key},
    login::LoginKeys,
    secret_link::{LinkError, SecretLink},
};
use pki::{
    algorithm::LoginAlgorithm,
    keys::{Owner, PublicKeyHash},
    wire::link::EncryptedCapability,
};

use crate::{
    replay::Replay,
    support::{Case, for_each_case},
};

#[test]
fn keys() {
    let mut ran = 0;
    for_each_case("keys.json", |case| {
        match case.kind() {
            "curve25519" => curve(case),
            "symmetric_key" => {
                let mut key = SymmetricKey::from_bytes(case.array("key"));
                if case.flag("dirty") {
                    key = key.as_dirty();
                }
                assert_eq!(key.encode(), case.hex("cbor"));
                assert_eq!(SymmetricKey::decode(&case.hex("cbor")).unwrap(), key);
            }
            "null_keys" => {
                let null = AbsoluteCapability::null();
                assert!(null.is_null());
                assert_eq!(null.owner.to_string(), case.text("null_public_key_hash"));
                assert_eq!(null.r_base.encode(), case.hex("null_symmetric_key_cbor"));
            }
            "hash" => {
                let key = derive_key(&case.hex("input"));
                assert_eq!(key.bytes().to_vec(), case.hex("hkdf_key"));
            }
            // The step of the derivation that the "hash" cases contain.
            "hmac_sha256" => {}
            // Public records: exercised by the crate that owns them.
            "ed25519"
            | "sign"
            | "verify"
            | "public_signing_key_invalid"
            | "public_key_hash_invalid" => return,
            other => panic!("unknown kind {other}"),
        }
        ran += 1;
    });
    assert_eq!(ran, 11);
}

fn curve(case: &Case) {
    let secret = CurveSecretKey::from_bytes(case.array("secret"));
    assert_eq!(secret.public().as_bytes().to_vec(), case.hex("public"));
    let secret = SecretBoxingKey::Curve25519(secret);
    assert_eq!(secret.encode(), case.hex("secret_cbor"));
    let pair = BoxingKeyPair::new(secret).unwrap();
    assert_eq!(pair.public().encode(), case.hex("public_cbor"));
    assert_eq!(pair.encode(), case.hex("keypair_cbor"));
    let decoded = BoxingKeyPair::decode(&case.hex("keypair_cbor")).unwrap();
    assert_eq!(decoded.encode(), pair.encode());
    assert_eq!(
        pair.public().hash().to_string(),
        case.text("public_key_hash_string")
    );
}

#[test]
fn scrypt() {
    let mut ran = 0;
    for_each_case("scrypt.json", |case| {
        match case.kind() {
            "login" => login(case),
            "secret_link" => {
                let link: SecretLink = case.text("link_path").parse().unwrap();
                assert_eq!(link.label.to_string(), case.text("label"));
                assert_eq!(link.password.as_str(), case.text("link_password"));
                let key = link.key(case.text("user_password")).unwrap();
                assert_eq!(key.bytes().to_vec(), case.hex("key"));
                assert_eq!(
                    LoginAlgorithm::secret_link().encode(),
                    case.hex("algorithm_cbor")
                );
                assert_eq!(*link.to_text(), case.text("link_path"));
            }
            // Costs below what any record may ask for: tested inside the crate.
            "derive" => return,
            // Exercised by the crate that owns the record.
            "algorithm" | "algorithm_invalid" => return,
            other => panic!("unknown kind {other}"),
        }
        ran += 1;
    });
    assert_eq!(ran, 7);
}

fn login(case: &Case) {
    let algorithm = LoginAlgorithm::decode(&case.hex("algorithm_cbor")).unwrap();
    let keys = LoginKeys::derive(case.text("username"), case.text("password"), &algorithm).unwrap();
    let public = keys.signing.public();
    assert_eq!(public.encode(), case.hex("login_public_key_cbor"));
    assert_eq!(
        PublicKeyHash::of(&public).to_string(),
        case.text("login_public_key_hash")
    );
    assert_eq!(keys.root.encode(), case.hex("root_key_cbor"));
    let output = case.hex("scrypt_output");
    assert_eq!(keys.signing.seed().as_slice(), &output[..32]);
    assert_eq!(keys.is_legacy_layout(), case.has("boxing_public_cbor"));
    if let Some(boxing) = keys.legacy_boxing {
        let public = SecretBoxingKey::Curve25519(boxing).public().unwrap();
        assert_eq!(public.encode(), case.hex("boxing_public_cbor"));
    }
}

#[test]
fn secret_links() {
    let mut ran = 0;
    for_each_case("secret_link.json", |case| {
        match case.kind() {
            "link" => secret_link(case),
            "parse" => {
                let parsed = case.text("text").parse::<SecretLink>();
                if case.text("result") == "ok" {
                    let link = parsed.unwrap();
                    assert_eq!(link.owner.to_string(), case.text("owner"));
                    assert_eq!(i64::try_from(link.label).unwrap(), case.int("label"));
                    assert_eq!(link.password.as_str(), case.text("link_password"));
                } else {
                    assert!(parsed.is_err());
                }
            }
            // A reply of the server, exercised by the crate that owns it.
            "counts" => return,
            other => panic!("unknown kind {other}"),
        }
        ran += 1;
    });
    assert!(ran >= 10);
}

fn secret_link(case: &Case) {
    let link: SecretLink = case.text("link_text").parse().unwrap();
    assert_eq!(*link.to_text(), case.text("link_text"));
    assert_eq!(i64::try_from(link.label).unwrap(), case.int("label"));
    let user_password = case.text("user_password");
    let key = link.key(user_password).unwrap();
    assert_eq!(key.bytes().to_vec(), case.hex("key"));

    let sealed = EncryptedCapability::decode(&case.hex("encrypted_cap_cbor")).unwrap();
    assert_eq!(sealed.encode(), case.hex("encrypted_cap_cbor"));
    assert_eq!(sealed.needs_password, !user_password.is_empty());
    let capability = link.open(&sealed, user_password).unwrap();
    assert_eq!(capability.encode(), case.hex("cap_cbor"));
    let parts = case.part("cap");
    assert_eq!(capability.owner.to_string(), parts.text("owner"));
    assert_eq!(capability.writer.to_string(), parts.text("writer"));
    assert_eq!(capability.map_key.bytes().to_vec(), parts.hex("map_key"));
    assert_eq!(capability.r_base.bytes().to_vec(), parts.hex("read_key"));
    assert_eq!(
        capability.w_base.as_ref().map(|k| k.bytes().to_vec()),
        parts.optional_hex("write_key")
    );

    let mut random = Replay::of([case.hex("nonce")]);
    let again = link.seal(&capability, user_password, &mut random).unwrap();
    assert_eq!(again.encode(), case.hex("encrypted_cap_cbor"));

    // The target that the server keeps, and where: the label as 8 bytes, hashed.
    let mut target = Map::from_iter([("cap", again.to_value())]);
    target.insert_some("expiry", case.has("expiry").then(|| case.int("expiry")));
    target.insert_some("max", case.has("max").then(|| case.int("max")));
    assert_eq!(Value::Map(target).encode(), case.hex("target_cbor"));

    assert_eq!(case.text("wrong_password"), "reject");
    let wrong = link.open(&sealed, "not the password").unwrap_err();
    assert!(matches!(wrong, LinkError::Open(_)));
    let mut foreign = link.clone();
    foreign.owner = Owner(PublicKeyHash::placeholder());
    assert_eq!(
        foreign.open(&sealed, user_password),
        Err(LinkError::ForeignOwner)
    );
}
