//! `secretbox.json` and `box.json`.

use champ::Cid;
use champ::{
    access::BatId,
    cbor::{Record, Value, decode, decode_prefix},
};
use cryptree::{
    ciphertext::{
        AsymmetricCipherText, CipherText, FragmentedPaddedCipherText, PaddedCipherText, SignerLink,
        SourcedCipherText, SymmetricLink,
    },
    crypto::{CurveSecretKey, Nonce, SecretBoxingKey, SymmetricKey, secretbox},
};
use pki::{
    boxing::{CurvePublicKey, PublicBoxingKey},
    keys::SecretKeyWithHash,
};

use crate::{
    replay::Replay,
    support::{Case, for_each_case, sha256},
};

/// Any CBOR value as a record.
#[derive(Debug, PartialEq)]
struct Any(Value);

impl Record for Any {
    fn to_value(&self) -> Value {
        self.0.clone()
    }

    fn from_value(value: Value) -> Result<Self, champ::cbor::RecordError> {
        Ok(Self(value))
    }
}

fn key(case: &Case, field: &str) -> SymmetricKey {
    SymmetricKey::from_bytes(case.array(field))
}

fn secret(case: &Case, field: &str) -> Any {
    Any(decode(&case.hex(field)).unwrap())
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| u8::try_from((7 * i + 3) % 251).unwrap())
        .collect()
}

#[test]
fn secret_boxes() {
    let mut ran = 0;
    for_each_case("secretbox.json", |case| {
        ran += 1;
        match case.kind() {
            "secretbox" => {
                let nonce = Nonce::received(case.array("nonce"));
                let (plain, cipher) = (case.hex("plaintext"), case.hex("cipher"));
                assert_eq!(secretbox::seal(&key(case, "key"), &nonce, &plain), cipher);
                assert_eq!(
                    secretbox::open(&key(case, "key"), &nonce, &cipher).unwrap(),
                    plain
                );
            }
            "secretbox_invalid" => {
                let nonce = Nonce::received(case.array("nonce"));
                let opened = secretbox::open(&key(case, "key"), &nonce, &case.hex("cipher"));
                assert!(opened.is_err());
            }
            "ciphertext" => {
                let (key, secret) = (key(case, "key"), secret(case, "plaintext_cbor"));
                let sealed = CipherText::seal(&key, &secret, &mut nonce(case));
                assert_eq!(sealed.encode(), case.hex("cbor"));
                let read = CipherText::decode(&case.hex("cbor")).unwrap();
                assert_eq!(read.open::<Any>(&key).unwrap(), secret);
            }
            "symmetric_link" => {
                let from = key(case, "from_key");
                let target = SymmetricKey::decode(&case.hex("target_key_cbor")).unwrap();
                let sealed = SymmetricLink::seal(&from, &target, &mut nonce(case));
                assert_eq!(sealed.encode(), case.hex("cbor"));
                let read = SymmetricLink::decode(&case.hex("cbor")).unwrap();
                assert_eq!(read.open(&from).unwrap(), target);
            }
            "symmetric_link_to_signer" => {
                let from = key(case, "from_key");
                let target = SecretKeyWithHash::decode(&case.hex("target_cbor")).unwrap();
                let sealed = SignerLink::seal(&from, &target, &mut nonce(case));
                assert_eq!(sealed.encode(), case.hex("cbor"));
                let read = SignerLink::decode(&case.hex("cbor")).unwrap();
                assert_eq!(read.open(&from).unwrap().encode(), target.encode());
            }
            "padded_ciphertext" => padded(case),
            "fragmented_ciphertext" => fragmented(case),
            "fragmented_legacy" => {
                let read = FragmentedPaddedCipherText::decode(&case.hex("cbor")).unwrap();
                let opened: Any = read.open_record(&key(case, "key"), &[]).unwrap();
                assert_eq!(opened, secret(case, "plaintext_cbor"));
                assert_eq!(read.encode(), case.hex("official_reencoding"));
            }
            other => panic!("unknown kind {other}"),
        }
    });
    assert_eq!(ran, 37);
}

fn nonce(case: &Case) -> Replay {
    Replay::of([case.hex("nonce")])
}

fn padded(case: &Case) {
    let key = key(case, "key");
    let plaintext = case.hex("plaintext_cbor");
    let secret = Any(decode_prefix(&plaintext).unwrap().0);
    let sealed = PaddedCipherText::seal(&key, &secret, case.size("block_size"), &mut nonce(case));
    assert_eq!(sealed.encode(), case.hex("cbor"));
    let read = PaddedCipherText::decode(&case.hex("cbor")).unwrap();
    assert_eq!(read.open::<Any>(&key).unwrap(), secret);
    let content = read.as_cipher_text();
    let opened = secretbox::open(&key, content.nonce(), content.cipher()).unwrap();
    assert_eq!(opened, case.hex("padded_plaintext"));
}

fn fragmented(case: &Case) {
    assert_eq!(case.size("padding_block"), 4096);
    if case.size("max_fragment") != 1 << 20 {
        // No writer uses another limit: these are sealed and opened by a test inside the crate.
        return;
    }
    let key = key(case, "key");
    let content = pattern(case.size("pattern_bytes"));
    let fragments = case.list("fragments");
    let mut draws = vec![case.hex("nonce")];
    draws.extend(fragments.iter().map(|f| f.hex("bat")));
    let mut random = Replay::of(draws);
    let mirror = case
        .optional_hex("mirror_bat_id")
        .map(|cid| BatId::new(Cid::decode(&cid).unwrap()));
    let sealed =
        FragmentedPaddedCipherText::seal_bytes(&key, &content, mirror.as_ref(), &mut random)
            .unwrap();
    assert!(random.is_used_up());
    assert_eq!(sealed.blocks.len(), fragments.len());
    let mut cipher = case.hex("header");
    for (block, expected) in sealed.blocks.iter().zip(&fragments) {
        assert_eq!(block.cid().to_string(), expected.text("cid"));
        assert_eq!(block.bytes().len(), expected.size("block_length"));
        let (_, body) = champ::access::split_raw(block.bytes()).unwrap();
        assert_eq!(body.len(), expected.size("body_length"));
        cipher.extend_from_slice(&body);
    }
    let encoded = sealed.record.encode();
    assert_eq!(encoded.len(), case.size("cbor_length"));
    assert_eq!(sha256(&encoded), case.hex("cbor_sha256"));
    if let Some(cbor) = case.optional_hex("cbor") {
        assert_eq!(encoded, cbor);
    }
    let read = FragmentedPaddedCipherText::decode(&encoded).unwrap();
    assert_eq!(read, sealed.record);
    assert_eq!(read.fragments().is_empty(), case.flag("inline"));
    assert_eq!(read.open_bytes(&key, &sealed.blocks).unwrap(), content);
    if !case.flag("inline") {
        assert_eq!(cipher.len(), case.size("ciphertext_length"));
        assert_eq!(cipher.len(), case.size("padded_length") + 16);
        assert_eq!(sha256(&cipher), case.hex("ciphertext_sha256"));
    }
}

#[test]
fn boxes() {
    let mut ran = 0;
    for_each_case("box.json", |case| {
        ran += 1;
        let from_public = CurvePublicKey::from_bytes(case.array("from_public"));
        let to_secret = CurveSecretKey::from_bytes(case.array("to_secret"));
        match case.kind() {
            "box" => {
                let from = CurveSecretKey::from_bytes(case.array("from_secret"));
                assert_eq!(from.public(), from_public);
                assert_eq!(
                    to_secret.public().as_bytes().to_vec(),
                    case.hex("to_public")
                );
                let message = case.hex("message");
                let wire = from
                    .seal(&message, &to_secret.public(), &mut nonce(case))
                    .unwrap();
                assert_eq!(wire, case.hex("wire"));
                assert_eq!(*to_secret.open(&wire, &from_public).unwrap(), message);
                let record =
                    AsymmetricCipherText::decode(&case.hex("asymmetric_ciphertext_cbor")).unwrap();
                assert_eq!(record.to_value(), Value::from(wire));
                let sourced =
                    SourcedCipherText::decode(&case.hex("sourced_ciphertext_cbor")).unwrap();
                assert_eq!(sourced.sender, PublicBoxingKey::Curve25519(from_public));
                assert_eq!(sourced.cipher_text, record);
                assert_eq!(sourced.encode(), case.hex("sourced_ciphertext_cbor"));
            }
            "padded_box" => {
                let record = AsymmetricCipherText::decode(&case.hex("cbor")).unwrap();
                let sender = PublicBoxingKey::Curve25519(from_public);
                let recipient = SecretBoxingKey::Curve25519(to_secret.clone());
                let opened: Any = record.open(&recipient, &sender).unwrap();
                assert_eq!(opened, secret(case, "secret_cbor"));
                let bytes = record.to_value().into_bytes("box").unwrap();
                let padded = to_secret.open(&bytes, &from_public).unwrap();
                assert_eq!(padded.len(), case.size("padded_plaintext_length"));
                // The sender's secret is not in the case: seal to ourselves and compare the length.
                let again = AsymmetricCipherText::seal_padded(
                    &opened,
                    case.size("block_size"),
                    &recipient,
                    &recipient.public().unwrap(),
                    &mut nonce(case),
                )
                .unwrap();
                assert_eq!(again.encode().len(), record.encode().len());
            }
            "box_invalid" => {
                assert!(to_secret.open(&case.hex("wire"), &from_public).is_err());
            }
            other => panic!("unknown kind {other}"),
        }
    });
    assert_eq!(ran, 9);
}
