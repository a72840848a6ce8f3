//! Properties of the codec on values and bytes nobody thought of.

use champ::{
    Cid, Codec, Multihash,
    access::cbor_block_ids,
    cbor::{
        DecodeError, MAX_DEPTH, Malformed, Map, Value, compare_keys, decode, decode_canonical,
        decode_prefix, decode_shared, scan_block, scan_block_lenient,
    },
};
use proptest::{collection::vec, prelude::*, sample::Index};

pub fn any_cid() -> impl Strategy<Value = Cid> {
    let codec = prop_oneof![
        Just(Codec::Raw),
        Just(Codec::DagCbor),
        Just(Codec::Libp2pKey)
    ];
    let hash = prop_oneof![
        any::<[u8; 32]>().prop_map(Multihash::from_sha2_256),
        vec(any::<u8>(), 0..=36).prop_map(|digest| Multihash::identity(&digest).unwrap()),
    ];
    let v0 = any::<[u8; 32]>()
        .prop_map(|digest| Cid::decode(&[&[0x12, 0x20][..], &digest].concat()).unwrap());
    prop_oneof![9 => (codec, hash).prop_map(|(codec, hash)| Cid::v1(codec, hash)), 1 => v0]
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("bats".to_owned()),
        "[a-c]{0,3}",
        "[a-c\u{fc}\u{20ac}\u{ff5e}\u{1f600}]{0,3}",
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::Int),
        (-30i64..300).prop_map(Value::Int),
        vec(any::<u8>(), 0..40).prop_map(Value::from),
        any_cid().prop_map(|cid| Value::from(cid.to_bytes())),
        any::<String>().prop_map(Value::from),
        any_cid().prop_map(Value::Link),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::List),
            vec((any_key(), inner), 0..8)
                .prop_map(|entries| Value::Map(entries.into_iter().collect())),
        ]
    })
}

/// The scan must say what decoding and walking the value says.
fn assert_scan_agrees(bytes: &[u8]) {
    let agree = |decoded: Result<Value, DecodeError>,
                 scanned: Result<champ::cbor::Scan, DecodeError>| {
        match (decoded, scanned) {
            (Ok(value), Ok(scan)) => {
                let (mut a, mut b) = (scan.links, value.links());
                if bytes != value.encode() {
                    // Keys out of order: the scan keeps the order of the bytes.
                    a.sort();
                    b.sort();
                }
                assert_eq!(a, b);
                assert_eq!(scan.bat_ids, cbor_block_ids(&value).unwrap());
            }
            (Ok(value), Err(error)) => {
                // Malformed tokens, or something worse behind them.
                assert!(cbor_block_ids(&value).is_err(), "{error:?} in {bytes:02x?}");
            }
            (Err(decoded), Err(scanned)) => {
                assert!(
                    decoded == scanned
                        || scanned.reason == Malformed::AccessTokens
                        || decoded.reason == Malformed::DuplicateKey,
                    "{decoded:?} {scanned:?} in {bytes:02x?}"
                );
            }
            (Err(error), Ok(_)) => panic!("scan accepts what decoding refuses: {error:?}"),
        }
    };
    agree(decode_canonical(bytes), scan_block(bytes));
    agree(decode(bytes), scan_block_lenient(bytes));
}

proptest! {
    #[test]
    fn values_survive_encoding_in_every_mode(value in any_value(), padding in vec(any::<u8>(), 0..9)) {
        let bytes = value.encode();
        prop_assert_eq!(&decode_canonical(&bytes).unwrap(), &value);
        prop_assert_eq!(&decode(&bytes).unwrap(), &value);
        prop_assert_eq!(&decode_shared(&bytes.clone().into()).unwrap(), &value);
        let padded = [&bytes[..], &padding].concat();
        prop_assert_eq!(decode_prefix(&padded).unwrap(), (value, bytes.len()));
        assert_scan_agrees(&bytes);
    }

    #[test]
    fn canonical_mode_is_lenient_mode_and_the_same_bytes_again(
        value in any_value(),
        edits in vec((any::<Index>(), any::<u8>(), 0u8..4), 0..4),
    ) {
        let mut bytes = value.encode();
        for (at, byte, how) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte & 7),
                2 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        let lenient = decode(&bytes);
        let canonical = decode_canonical(&bytes);
        match &lenient {
            Ok(value) => {
                prop_assert_eq!(canonical.is_ok(), value.encode() == bytes);
                prop_assert_eq!(&decode_prefix(&bytes).unwrap(), &(value.clone(), bytes.len()));
            }
            Err(_) => prop_assert!(canonical.is_err()),
        }
        assert_scan_agrees(&bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..80)) {
        assert_scan_agrees(&bytes);
        let _ = decode_prefix(&bytes);
        let _ = Cid::decode(&bytes);
        let _ = champ::cid::read_varint(&bytes);
        let _ = champ::access::split_raw(&[&champ::access::RAW_PREFIX_MAGIC[..], &bytes].concat().into());
    }

    #[test]
    fn keys_are_ordered_by_utf_16_length_then_units(a in any_key(), b in any_key()) {
        let units = |s: &str| s.encode_utf16().collect::<Vec<u16>>();
        let (x, y) = (units(&a), units(&b));
        prop_assert_eq!(compare_keys(&a, &b), x.len().cmp(&y.len()).then(x.cmp(&y)));
    }

    #[test]
    fn a_map_is_the_same_however_it_was_filled(entries in vec((any_key(), any::<i64>()), 0..20)) {
        let mut one_by_one = Map::new();
        for (key, value) in entries.clone() {
            one_by_one.insert(key, value);
        }
        let at_once: Map = entries.into_iter().collect();
        prop_assert_eq!(&at_once, &one_by_one);
    }

    #[test]
    fn identifiers_survive_bytes_and_text(cid in any_cid()) {
        prop_assert_eq!(&Cid::decode(&cid.to_bytes()).unwrap(), &cid);
        prop_assert_eq!(&cid.to_string().parse::<Cid>().unwrap(), &cid);
        prop_assert_eq!(cid.encoded_len(), cid.to_bytes().len());
    }

    #[test]
    fn arbitrary_text_never_panics_as_an_identifier(text in "[zfbBvVkmM1Q]?m?[0-9a-zA-Z=+/\u{e9}]{0,60}") {
        if let Ok(cid) = text.parse::<Cid>() {
            prop_assert_eq!(cid.to_string().parse::<Cid>().unwrap(), cid);
        }
        let _ = Cid::parse_peer_id(&text);
    }
}

#[test]
fn values_nested_to_the_limit_are_read_written_and_dropped() {
    let mut bytes = vec![0x81; MAX_DEPTH];
    bytes.push(0xf6);
    let value = decode_canonical(&bytes).unwrap();
    assert_eq!(value.encode(), bytes);
    bytes.insert(0, 0x81);
    assert_eq!(decode(&bytes).unwrap_err().reason, Malformed::Depth);
    // The same through maps.
    let nested = |levels: usize| [b"\xa1\x60".repeat(levels), vec![0xf6]].concat();
    assert!(decode_canonical(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(
        decode(&nested(MAX_DEPTH + 1)).unwrap_err().reason,
        Malformed::Depth
    );
}

#[test]
fn a_length_above_the_input_is_refused_before_anything_is_allocated() {
    for head in [
        &b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x9b\x00\x00\x00\x7f\xff\xff\xff\xff",
        b"\xbb\x00\x00\x00\x00\x00\x00\x00\xff",
        b"\xd8\x2a\x5a\x7f\xff\xff\xff",
    ] {
        assert_eq!(decode(head).unwrap_err().reason, Malformed::Length);
        assert_eq!(
            scan_block_lenient(head).unwrap_err().reason,
            Malformed::Length
        );
    }
}
