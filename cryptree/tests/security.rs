//! The client's part of the security checks of Spec: 02 and 20 that no unit test covers beside its code,
//! and random input.

use champ::{
    Cid,
    access::Bat,
    cbor::{Map, Record, RecordError, Value},
};
use cryptree::{
    capability::{
        AbsoluteCapability, ChildEntry, EntryPoint, Location, MapKey, RelativeCapability,
    },
    ciphertext::{
        AsymmetricCipherText, CipherText, FragmentedPaddedCipherText, PaddedCipherText,
        SourcedCipherText,
    },
    crypto::{BoxingKeyPair, CurveSecretKey, SecretBoxingKey, SymmetricKey},
    directory::ItemKeys,
    hash_tree::{HashBranch, HashTree},
    login::{EntryPoints, UserStaticData, passphrase},
    node::CryptreeNode,
    properties::FileProperties,
    secret_link::SecretLink,
    upload_record::{ResumeRecord, UploadRecord},
};
use pki::keys::{Owner, PublicKeyHash, SecretSigningKey, Writer};
use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

fn hash(seed: u8) -> PublicKeyHash {
    PublicKeyHash::of(&SecretSigningKey::from_seed(&[seed; 32]).public())
}

fn capability() -> AbsoluteCapability {
    ItemKeys::random(&mut rng()).capability(Owner(hash(1)), Writer(hash(2)))
}

fn without(record: &impl Record, key: &str) -> Value {
    let Value::Map(mut map) = record.to_value() else {
        panic!("map");
    };
    assert!(map.remove(key).is_some());
    Value::Map(map)
}

fn with(record: &impl Record, key: &str, value: impl Into<Value>) -> Value {
    let Value::Map(mut map) = record.to_value() else {
        panic!("map");
    };
    map.insert(key, value);
    Value::Map(map)
}

/// 20 check 2.
#[test]
fn capabilities_with_wrong_lengths_or_kinds_are_rejected() {
    let good = capability();
    let bat = |length: usize| Value::Map(Map::from_iter([("s", vec![0u8; length])]));
    for bad in [
        with(&good, "m", vec![0u8; 31]),
        with(&good, "m", vec![0u8; 33]),
        with(&good, "a", bat(31)),
        with(&good, "a", bat(33)),
        with(&good, "k", Value::Null),
        with(&good, "b", Value::Null),
        with(&good, "o", Cid::of_raw(b"not a key")),
        with(&good, "w", vec![0u8; 40]),
        without(&good, "m"),
        without(&good, "k"),
        without(&good, "o"),
        without(&good, "w"),
    ] {
        assert!(AbsoluteCapability::from_value(bad).is_err());
    }
    let relative = RelativeCapability::read_only(good.map_key, None, good.r_base.clone());
    for bad in [
        with(&relative, "m", vec![0u8; 31]),
        with(&relative, "l", vec![0u8; 50]),
        without(&relative, "k"),
        without(&relative, "m"),
    ] {
        assert!(RelativeCapability::from_value(bad).is_err());
    }
}

/// 20 check 5: the owner is inherited, whatever the entry says.
#[test]
fn an_owner_inside_a_relative_capability_is_not_honored() {
    let source = capability();
    let relative = RelativeCapability::read_only(source.map_key, None, source.r_base.clone());
    let forged = with(&relative, "o", hash(9).cid());
    let read = RelativeCapability::from_value(forged).unwrap();
    assert_eq!(read.resolve(&source).unwrap().owner, source.owner);
}

/// 20 check 10, 02 client check: fresh nonces, tokens, keys.
#[test]
fn nothing_random_is_used_twice() {
    let rng = &mut rng();
    let key = SymmetricKey::random(rng);
    let first = CipherText::seal(&key, &key, rng);
    let second = CipherText::seal(&key, &key, rng);
    assert_ne!(first.nonce(), second.nonce());
    assert_ne!(first.cipher(), second.cipher());

    let content = vec![0; 3 << 20];
    let mut seal = || FragmentedPaddedCipherText::seal_bytes(&key, &content, None, rng).unwrap();
    let (a, b) = (seal(), seal());
    let fragments = a.record.fragments().iter().chain(b.record.fragments());
    let mut tokens: Vec<[u8; 32]> = fragments
        .map(|fragment| *fragment.token.as_ref().unwrap().bat.secret())
        .collect();
    let count = tokens.len();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!((count, tokens.len()), (6, 6));

    let (a, b) = (ItemKeys::random(rng), ItemKeys::random(rng));
    assert_ne!(a.map_key, b.map_key);
    assert_ne!(a.bat, b.bat);
    let keys = [&a, &b].map(|k| [&k.r_base, &k.w_base, &k.second_key]);
    let mut all: Vec<[u8; 32]> = keys.as_flattened().iter().map(|k| *k.bytes()).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 6);
    assert_ne!(*passphrase(rng), *passphrase(rng));
}

/// 20 check 13.
#[test]
fn exported_read_capabilities_hold_no_write_keys() {
    let writable = capability();
    let exported = writable.read_only();
    let Value::Map(map) = exported.to_value() else {
        panic!("map");
    };
    assert!(!map.contains("b"));
    assert_eq!(exported.to_link_text().split('/').count(), 4);
    let relative = RelativeCapability::between(&writable, &exported, &mut rng()).unwrap();
    assert_eq!(relative.w_base, None);
}

/// 02 check 1.
#[test]
fn boxing_keys_of_other_types_and_lengths_are_rejected() {
    let record = |code: i64, length: usize| {
        SecretBoxingKey::from_value(Value::List(vec![code.into(), vec![1u8; length].into()]))
    };
    assert!(record(1, 32).is_ok());
    for (code, length) in [(0, 32), (3, 32), (1, 31), (1, 33), (2, 32)] {
        assert!(record(code, length).is_err(), "{code} {length}");
    }
}

/// Secrets do not show in debug output.
#[test]
fn debug_output_is_opaque() {
    let keys = ItemKeys::random(&mut rng());
    let secret = champ::text::to_hex(keys.r_base.bytes());
    let shown = format!("{keys:?} {:?}", capability());
    assert!(!shown.contains(&secret) && !shown.contains(&secret[..16]));
    assert!(shown.contains("SymmetricKey(..)") && shown.contains("Bat(..)"));
}

fn never_panics<R: Record>(bytes: &[u8]) -> Option<RecordError> {
    R::decode(bytes).err()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        never_panics::<AbsoluteCapability>(&bytes);
        never_panics::<AsymmetricCipherText>(&bytes);
        never_panics::<BoxingKeyPair>(&bytes);
        never_panics::<ChildEntry>(&bytes);
        never_panics::<CryptreeNode>(&bytes);
        never_panics::<EntryPoint>(&bytes);
        never_panics::<EntryPoints>(&bytes);
        never_panics::<FileProperties>(&bytes);
        never_panics::<HashBranch>(&bytes);
        never_panics::<HashTree>(&bytes);
        never_panics::<Location>(&bytes);
        never_panics::<MapKey>(&bytes);
        never_panics::<PaddedCipherText>(&bytes);
        never_panics::<RelativeCapability>(&bytes);
        never_panics::<ResumeRecord>(&bytes);
        never_panics::<SourcedCipherText>(&bytes);
        never_panics::<UploadRecord>(&bytes);
        never_panics::<UserStaticData>(&bytes);
    }

    #[test]
    fn random_edits_of_records_never_panic(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut properties = FileProperties::decode(&champ::text::from_hex(PROPERTIES).unwrap()).unwrap().encode();
        let at_byte = at.index(properties.len());
        properties[at_byte] = byte;
        if let Ok(read) = FileProperties::decode(&properties) {
            // What is read is written and read the same.
            prop_assert_eq!(FileProperties::decode(&read.encode()).unwrap(), read);
        }
        let mut encoded = capability().encode();
        let at_byte = at.index(encoded.len());
        encoded[at_byte] = byte;
        if let Ok(read) = AbsoluteCapability::decode(&encoded) {
            prop_assert_eq!(AbsoluteCapability::decode(&read.encode()).unwrap(), read);
        }
    }

    #[test]
    fn random_text_never_panics(text in "\\PC{0,80}", tail in "[/#?a-zA-Z0-9]{0,80}") {
        let _ = text.parse::<AbsoluteCapability>();
        let _ = text.parse::<SecretLink>();
        let _ = format!("secret/{tail}").parse::<SecretLink>();
        let _ = format!("#{tail}").parse::<AbsoluteCapability>();
        let _ = cryptree::properties::FileName::parse(text.clone());
        let _ = cryptree::mime::mime_type(&text, tail.as_bytes());
    }

    #[test]
    fn link_text_round_trips(map_key in any::<[u8; 32]>(), bat in any::<Option<[u8; 32]>>(), writable in any::<bool>()) {
        let mut capability = capability();
        capability.map_key = MapKey::from_bytes(map_key);
        capability.bat = bat.map(Bat::from_secret);
        if !writable {
            capability.w_base = None;
        }
        let text = capability.to_link_text();
        prop_assert_eq!(text.parse::<AbsoluteCapability>().unwrap(), capability);
    }

    #[test]
    fn any_changed_bit_of_a_sealed_record_is_noticed(bit in any::<prop::sample::Index>()) {
        let key = SymmetricKey::from_bytes([1; 32]);
        let sealed = PaddedCipherText::seal(&key, &capability(), 64, &mut rng());
        let mut bytes = sealed.encode();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(changed) = PaddedCipherText::decode(&bytes) {
            prop_assert!(changed.open::<AbsoluteCapability>(&key).is_err());
        }
    }

    #[test]
    fn any_changed_bit_of_a_box_is_noticed(
        message in proptest::collection::vec(any::<u8>(), 0..100),
        bit in any::<prop::sample::Index>(),
    ) {
        let rng = &mut rng();
        let (from, to) = (CurveSecretKey::random(rng), CurveSecretKey::random(rng));
        let mut sealed = from.seal(&message, &to.public(), rng).unwrap();
        prop_assert_eq!(&*to.open(&sealed, &from.public()).unwrap(), &message);
        let bit = bit.index(sealed.len() * 8);
        sealed[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(to.open(&sealed, &from.public()).is_err());
    }
}

proptest! {
    // Key encapsulation is slow without optimization.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_changed_bit_of_a_hybrid_box_is_noticed(bit in any::<prop::sample::Index>()) {
        let rng = &mut rng();
        let (from, to) = (SecretBoxingKey::random(rng), SecretBoxingKey::random(rng));
        let (from_public, to_public) = (from.public().unwrap(), to.public().unwrap());
        let mut sealed = from.seal(b"message", &to_public, rng).unwrap();
        prop_assert_eq!(&**to.open(&sealed, &from_public).unwrap(), b"message");
        let bit = bit.index(sealed.len() * 8);
        sealed[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(to.open(&sealed, &from_public).is_err());
    }
}

/// The first case of `fileproperties.json`.
const PROPERTIES: &str = "ac61631a5f5e10006164f46168f4616cf4616d6a746578742f706c61696e616e65612e74787461705820a31fe9656fc8d3a459e623dc8204e6d0268f8df56d734dac3ca3262edb5db883617319138861741a6553f10062636e01627468a26172a1616858209e00fd48e8cbb6dd15b57c9cbb7fd0e2ff945998208b217b4db4acdfc82c9980626c31a161685820862c9bc086f5a97767595af8cd98f75a0c06ae2f4f277c06ba30e5d5a488699462746e1a075bcd15";
