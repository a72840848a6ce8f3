use champ::cid::Multihash;
use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::*;

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

fn key() -> SymmetricKey {
    SymmetricKey::from_bytes([7; 32])
}

#[test]
fn chunk_lengths_give_the_stored_sizes_of_the_table() {
    for (length, first, fragments) in [
        (0, 4112, vec![]),
        (4093, 4112, vec![]),
        (4094, 4118, vec![]),
        (4099, 4118, vec![]),
        (4100, 22, vec![8192]),
        (102_400, 22, vec![102_400]),
        (5 << 20, 22, vec![1 << 20; 5]),
    ] {
        let content = vec![1; length];
        let sealed =
            FragmentedPaddedCipherText::seal_bytes(&key(), &content, None, &mut rng()).unwrap();
        let record = &sealed.record;
        match &record.body {
            Body::Inline(cipher) => assert_eq!(cipher.len(), first),
            Body::Fragments(_) => assert_eq!(record.header.as_ref().unwrap().len(), first),
        }
        let stored: Vec<usize> = sealed.blocks.iter().map(|b| b.bytes().len() - 47).collect();
        assert_eq!(stored, fragments, "{length} bytes");
        let decoded = FragmentedPaddedCipherText::decode(&record.encode()).unwrap();
        assert_eq!(decoded, *record);
        assert_eq!(decoded.open_bytes(&key(), &sealed.blocks).unwrap(), content);
    }
}

/// The cases of `secretbox.json` with a smaller fragment limit than any writer uses.
#[test]
fn vectors_with_small_fragments() {
    let file = include_str!("../../../tests/vectors/secretbox.json");
    let file: serde_json::Value = serde_json::from_str(file).unwrap();
    let hex = |value: &serde_json::Value| champ::text::from_hex(value.as_str().unwrap()).unwrap();
    let mut ran = 0;
    for case in file["cases"].as_array().unwrap() {
        let limit = case["max_fragment"].as_u64();
        if case["kind"] != "fragmented_ciphertext" || limit == Some(FRAGMENT_BYTES as u64) {
            continue;
        }
        let length = case["pattern_bytes"].as_u64().unwrap();
        let pattern = |i| u8::try_from((7 * i + 3) % 251).unwrap();
        let content: Vec<u8> = (0..length).map(pattern).collect();
        let fragments = case["fragments"].as_array().unwrap();
        let mut draws = vec![hex(&case["nonce"])];
        draws.extend(fragments.iter().map(|fragment| hex(&fragment["bat"])));
        let mirror = BatId::new(Cid::decode(&hex(&case["mirror_bat_id"])).unwrap());
        let mut head = Vec::new();
        cbor::write_bytes_head(content.len(), &mut head);
        let key = SymmetricKey::from_bytes(hex(&case["key"]).try_into().unwrap());
        let plaintext = Plaintext::new(&head, &content).unwrap();
        let limit = usize::try_from(limit.unwrap()).unwrap();
        let mut random = crate::replay::Replay::of(draws);
        let sealed = seal(&key, plaintext, limit, Some(&mirror), &mut random).unwrap();
        assert!(random.is_used_up());
        let cids: Vec<String> = sealed.blocks.iter().map(|b| b.cid().to_string()).collect();
        let expected: Vec<&str> = fragments
            .iter()
            .map(|f| f["cid"].as_str().unwrap())
            .collect();
        assert_eq!(cids, expected);
        use sha2::Digest;
        let hash = sha2::Sha256::digest(sealed.record.encode());
        assert_eq!(hash.to_vec(), hex(&case["cbor_sha256"]));
        assert_eq!(
            sealed.record.open_bytes(&key, &sealed.blocks).unwrap(),
            content
        );
        ran += 1;
    }
    assert_eq!(ran, 1);
}

#[test]
fn full_fragment_with_mirror_token_is_the_largest_block() {
    let mirror = Bat::from_secret([1; 32]).secret_hash_id();
    let content = vec![0; 2 << 20];
    let sealed =
        FragmentedPaddedCipherText::seal_bytes(&key(), &content, Some(&mirror), &mut rng())
            .unwrap();
    assert_eq!(sealed.blocks[0].bytes().len(), 1_048_661);
    let (ids, _) = split_raw(sealed.blocks[0].bytes()).unwrap();
    let own = sealed.record.fragments()[0].token.clone().unwrap();
    assert_eq!(ids, [own.bat.inline_id(), mirror]);
    assert_eq!(own.id, own.bat.calculated_id());
}

#[test]
fn secrets_above_the_limit_are_not_sealed() {
    let content = vec![0; MAX_SECRET_BYTES];
    let error =
        FragmentedPaddedCipherText::seal_bytes(&key(), &content, None, &mut rng()).unwrap_err();
    assert!(matches!(error, SealError::TooLarge { actual } if actual > MAX_SECRET_BYTES));
}

#[test]
fn missing_swapped_and_changed_fragments_do_not_open() {
    let content = vec![5; 3 << 20];
    let sealed =
        FragmentedPaddedCipherText::seal_bytes(&key(), &content, None, &mut rng()).unwrap();
    let (record, mut blocks) = (sealed.record, sealed.blocks);
    let last = blocks.len() - 1;
    assert_eq!(
        record.open_bytes(&key(), &blocks[..last]),
        Err(OpenError::WrongFragment { index: last })
    );
    blocks.swap(0, 1);
    assert_eq!(
        record.open_bytes(&key(), &blocks),
        Err(OpenError::WrongFragment { index: 0 })
    );
    // Links and blocks swapped together: every hash fits, the tag does not.
    let mut forged = record;
    if let Body::Fragments(fragments) = &mut forged.body {
        fragments.swap(0, 1);
    }
    assert_eq!(
        forged.open_bytes(&key(), &blocks),
        Err(OpenError::Refused(CannotOpen))
    );
}

#[test]
fn malformed_records_are_rejected() {
    let nonce = [0u8; 24];
    let link = || Value::Link(Cid::of_raw(b"x"));
    let record = |f: Value, n: &[u8]| Value::Map(Map::from_iter([("f", f), ("n", Value::from(n))]));
    let bytes = || Value::from(vec![0u8; 20]);
    let many = vec![link(); MAX_FRAGMENTS + 1];
    for value in [
        record(Value::List(vec![]), &nonce),
        record(Value::List(vec![bytes(), link()]), &nonce),
        record(Value::List(vec![link(), bytes()]), &nonce),
        record(Value::List(vec![bytes(), bytes()]), &nonce),
        record(Value::List(vec![bytes()]), &nonce[..23]),
        record(Value::List(many), &nonce),
        record(bytes(), &nonce),
        Value::Null,
    ] {
        assert!(FragmentedPaddedCipherText::from_value(value).is_err());
    }
}

#[test]
fn fewer_tokens_than_links_leave_the_rest_without() {
    let token = Bat::from_secret([1; 32]).with_calculated_id();
    let value = Value::Map(Map::from_iter([
        ("n", Value::from(&[0u8; 24])),
        (
            "f",
            Value::List(vec![
                Value::Link(Cid::of_raw(b"x")),
                Value::Link(Cid::of_raw(b"y")),
            ]),
        ),
        ("bats", Value::List(vec![token.to_value()])),
    ]));
    let record = FragmentedPaddedCipherText::from_value(value.clone()).unwrap();
    assert_eq!(record.fragments()[0].token, Some(token));
    assert_eq!(record.fragments()[1].token, None);
    assert_eq!(record.to_value(), value);
}

#[test]
fn short_cipher_text_does_not_open() {
    let hash = Multihash::identity(&[0; 15]).unwrap();
    let value = Value::Map(Map::from_iter([
        ("n", Value::from(&[0u8; 24])),
        (
            "f",
            Value::List(vec![Value::Link(Cid::v1(Codec::Raw, hash))]),
        ),
    ]));
    let record = FragmentedPaddedCipherText::from_value(value).unwrap();
    assert_eq!(
        record.open_bytes(&key(), &[]),
        Err(OpenError::Refused(CannotOpen))
    );
}

#[test]
fn data_that_is_no_byte_string_is_an_error() {
    let sealed = FragmentedPaddedCipherText::seal_record(&key(), &key(), None, &mut rng()).unwrap();
    assert!(matches!(
        sealed.record.open_bytes(&key(), &[]),
        Err(OpenError::Content(_))
    ));
    for bad in [
        &[0x5a, 0, 0][..],
        &[0x45, 1],
        &[],
        &[0x5f],
        &[0x5b, 255, 255, 255, 255, 255, 255, 255, 255],
    ] {
        assert!(plaintext::byte_string(bad).is_err());
    }
    assert_eq!(plaintext::byte_string(&[0x58, 2, 8, 9, 0]).unwrap(), [8, 9]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = FragmentedPaddedCipherText::decode(&bytes);
        let _ = plaintext::byte_string(&bytes);
    }

    #[test]
    fn any_changed_bit_of_the_record_is_noticed(
        length in 0usize..6000,
        bit in any::<prop::sample::Index>(),
    ) {
        let content = vec![3; length];
        let sealed =
            FragmentedPaddedCipherText::seal_bytes(&key(), &content, None, &mut rng()).unwrap();
        let mut bytes = sealed.record.encode();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(changed) = FragmentedPaddedCipherText::decode(&bytes) {
            // Tokens do not help to decrypt: changing one is noticed by the server, not here.
            if let Ok(opened) = changed.open_bytes(&key(), &sealed.blocks) {
                prop_assert_eq!(opened, content);
                prop_assert_eq!(changed.header, sealed.record.header);
            }
        }
    }
}
