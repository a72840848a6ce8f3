//! `raw_bats.json`: access tokens and where blocks carry them.

use bytes::Bytes;
use champ::{
    Block, Cid,
    access::{Bat, BatId, BatWithId, MAX_PREFIX_BYTES, cbor_block_ids, raw_prefix, split_raw},
    cbor::{Record, Value, decode_canonical, scan_block},
};
use serde_json::Value as Json;

use crate::support::*;

#[test]
fn every_case_of_raw_bats_json_holds() {
    each_case("raw_bats.json", |kind, case| match kind {
        "bat" => token(case),
        "raw_block" => raw_block(case),
        "raw_block_invalid" => {
            assert!(text(case, "required").ends_with("refuse on upload"));
            assert!(split_raw(&hex(case, "block").into()).is_err());
        }
        "cbor_block" => {
            let block = hex(case, "block");
            let value = decode_canonical(&block).unwrap();
            assert_eq!(cbor_block_ids(&value).unwrap(), ids(case));
            assert_eq!(scan_block(&block).unwrap().bat_ids, ids(case));
        }
        "block_auth" => block_auth(case),
        other => panic!("unknown kind {other}"),
    });
}

fn ids(case: &Json) -> Vec<BatId> {
    case["bat_ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| BatId::new(Cid::decode(&unhex(id.as_str().unwrap())).unwrap()))
        .collect()
}

fn bat(case: &Json, field: &str) -> Bat {
    Bat::from_secret(hex(case, field).try_into().unwrap())
}

fn token(case: &Json) {
    let bat = bat(case, "secret");
    assert_eq!(bat.encode(), hex(case, "cbor"));
    assert_eq!(Bat::decode(&hex(case, "cbor")).unwrap(), bat);
    assert_eq!(bat.to_text(), text(case, "secret_string"));
    assert_eq!(Bat::parse(text(case, "secret_string")).unwrap(), bat);
    assert_eq!(bat.inline_id().cid().to_bytes(), hex(case, "inline_id"));
    assert_eq!(bat.inline_id().inline_secret(), Some(bat.clone()));
    assert_eq!(
        bat.calculated_id().cid().to_bytes(),
        hex(case, "calculated_id")
    );
    assert_eq!(
        bat.secret_hash_id().cid().to_bytes(),
        hex(case, "secret_hash_id")
    );

    let calculated = bat.with_calculated_id();
    assert_eq!(
        calculated.to_text(),
        text(case, "bat_with_calculated_id_string")
    );
    assert_eq!(
        calculated.encode(),
        hex(case, "bat_with_calculated_id_cbor")
    );
    let by_secret = BatWithId {
        id: bat.secret_hash_id(),
        bat,
    };
    assert_eq!(
        by_secret.to_text(),
        text(case, "bat_with_secret_hash_id_string")
    );
    for pair in [calculated, by_secret] {
        assert_eq!(BatWithId::parse(&pair.to_text()).unwrap(), pair);
    }
}

fn raw_block(case: &Json) {
    let block = Block::raw(hex(case, "block")).unwrap();
    assert_eq!(*block.cid(), cid(text(case, "cid")));
    let (found, data) = split_raw(block.bytes()).unwrap();
    assert_eq!(found, ids(case));
    assert_eq!(data, hex(case, "body"));
    let prefix = hex(case, "prefix");
    assert_eq!(case["prefix_length"], prefix.len());
    assert!(prefix.len() <= MAX_PREFIX_BYTES);
    // An empty list is read and never written.
    if !found.is_empty() || prefix.is_empty() {
        assert_eq!(raw_prefix(&found), prefix);
    }
}

/// The signature itself is checked where requests are: chapter 06.
fn block_auth(case: &Json) {
    let bat = bat(case, "bat_secret");
    assert_eq!(bat.calculated_id().cid().to_bytes(), hex(case, "bat_id"));
    let encoded = hex(case, "encoded");
    let value = decode_canonical(&encoded).unwrap();
    assert_eq!(value.encode(), encoded);
    let Value::Map(map) = value else {
        panic!("not a map");
    };
    assert!(
        map.iter()
            .any(|(_, value)| *value == Value::from(hex(case, "bat_id")))
    );
}

#[test]
fn tokens_of_another_length_are_refused() {
    for length in [0u8, 31, 33] {
        let mut bytes = vec![0xa1, 0x61, b's', 0x58, length];
        bytes.resize(bytes.len() + usize::from(length), 1);
        assert!(Bat::decode(&bytes).is_err());
        assert!(Bat::parse(&champ::text::to_multibase(&bytes[5..])).is_err());
    }
}

#[test]
fn a_token_with_an_inline_or_structured_id_is_refused() {
    let bat = Bat::from_secret([7; 32]);
    for id in [bat.inline_id(), BatId::new(Cid::of_cbor(b"\xa0"))] {
        let pair = BatWithId {
            bat: bat.clone(),
            id,
        };
        assert!(BatWithId::decode(&pair.encode()).is_err());
    }
}

#[test]
fn secrets_do_not_appear_in_debug_output() {
    let bat = Bat::from_secret([7; 32]);
    let shown = format!(
        "{:?} {:?} {:?}",
        bat,
        bat.inline_id(),
        bat.with_calculated_id()
    );
    assert!(!shown.contains(&bat.to_text()[1..]), "{shown}");
    assert!(
        !shown.contains(&bat.inline_id().cid().to_string()),
        "{shown}"
    );
}

#[test]
fn the_prefix_of_a_raw_block_shares_the_block_memory() {
    let block = Bytes::from(
        [
            raw_prefix(&[Bat::from_secret([1; 32]).inline_id()]),
            vec![9; 100],
        ]
        .concat(),
    );
    let (_, data) = split_raw(&block).unwrap();
    assert_eq!(data.as_ptr(), block[47..].as_ptr());
}
