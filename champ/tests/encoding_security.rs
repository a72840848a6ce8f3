//! The "Security checks" of Spec: 01 that no vector covers, and hostile input of full block size.

use champ::{
    Block, BlockError, Cid, Codec, MAX_BLOCK_BYTES, MemoryBlocks, Multihash,
    access::{RAW_PREFIX_MAGIC, cbor_block_ids, split_raw},
    cbor::{Fields, Map, Value, decode, decode_canonical, scan_block, scan_block_lenient},
    map::Champ,
    text::{from_base58, from_hex, from_multibase, to_base58},
};
use proptest::prelude::*;

use crate::support::*;

/// `count` copies of `item` behind a list head of four bytes of argument.
fn list_of(item: &[u8], count: u32) -> Vec<u8> {
    [
        &[0x9a][..],
        &count.to_be_bytes(),
        &item.repeat(count as usize),
    ]
    .concat()
}

#[test]
fn blocks_above_the_limit_are_refused_and_blocks_at_it_are_not() {
    assert_eq!(MAX_BLOCK_BYTES, 1_048_676);
    let largest = vec![0; MAX_BLOCK_BYTES];
    let block = Block::raw(largest.clone()).unwrap();
    assert!(Block::verified(block.cid().clone(), largest).is_ok());
    let actual = MAX_BLOCK_BYTES + 1;
    let larger = vec![0; actual];
    let too_large = Err(BlockError::TooLarge { actual });
    assert_eq!(Block::raw(larger.clone()), too_large);
    assert_eq!(Block::cbor(larger.clone()), too_large);
    assert_eq!(Block::verified(Cid::of_raw(&larger), larger), too_large);
}

#[test]
fn a_block_is_what_its_cid_says_or_nothing() {
    let cid = Cid::of_cbor(b"\xa0");
    assert_eq!(
        Block::verified(cid.clone(), &b"\xa1"[..]),
        Err(BlockError::HashMismatch(cid.clone()))
    );
    // The same hash under a codec that names no block.
    for codec in [Codec::DagPb, Codec::Libp2pKey] {
        let other = Cid::v1(codec, cid.hash().clone());
        assert_eq!(
            Block::verified(other.clone(), &b"\xa0"[..]),
            Err(BlockError::NotABlock(other))
        );
    }
}

#[test]
fn identity_cids_are_resolved_without_asking_the_source() {
    let node = b"\x83\x40\x40\x80";
    let inline = Cid::v1(Codec::DagCbor, Multihash::identity(node).unwrap());
    assert_eq!(Block::inline(&inline).unwrap().bytes(), &node[..]);
    assert!(Block::inline(&Cid::of_cbor(node)).is_none());
    let source = Watched::over(&MemoryBlocks::new());
    assert_eq!(now(Champ::at(inline).count(&source)).unwrap(), 0);
    assert!(source.take_asked().is_empty());
}

#[test]
fn byte_strings_that_hold_cids_are_not_links() {
    let id = Cid::of_raw(b"token");
    let value = Value::List(vec![Value::from(id.to_bytes())]);
    assert!(value.links().is_empty());
    assert!(scan_block(&value.encode()).unwrap().links.is_empty());
}

#[test]
fn access_tokens_are_taken_from_the_two_defined_places_only() {
    let ids = Value::List(vec![Value::from(Cid::of_raw(b"token").to_bytes())]);
    let protected = Value::Map(Map::from_iter([("bats", ids.clone())]));
    assert_eq!(scan_block(&protected.encode()).unwrap().bat_ids.len(), 1);
    let elsewhere = [
        Value::List(vec![Value::from("bats"), ids.clone()]),
        Value::List(vec![protected.clone()]),
        Value::Map(Map::from_iter([("a", protected)])),
        Value::Map(Map::from_iter([("bat", ids.clone())])),
    ];
    for value in elsewhere {
        assert!(scan_block(&value.encode()).unwrap().bat_ids.is_empty());
        assert!(cbor_block_ids(&value).unwrap().is_empty());
    }
    // In a raw block they stand behind the magic at its beginning, nowhere else.
    let mut block = vec![0];
    block.extend(RAW_PREFIX_MAGIC);
    ids.write(&mut block);
    assert!(split_raw(&block.into()).unwrap().0.is_empty());
}

#[test]
fn hex_accepts_both_cases_and_refuses_odd_lengths_and_bad_characters() {
    assert_eq!(from_hex("aBFf").unwrap(), [0xab, 0xff]);
    for bad in ["a", "abc", "ag", " a", "0x", "\u{e9}"] {
        assert!(from_hex(bad).is_err(), "{bad:?}");
        assert!(from_multibase(&format!("f{bad}")).is_err(), "{bad:?}");
    }
}

#[test]
fn nesting_to_the_limit_fits_into_a_small_stack() {
    let mut bytes = vec![0x81; champ::cbor::MAX_DEPTH];
    bytes.push(0xf6);
    let read = move || {
        let value = decode_canonical(&bytes).unwrap();
        assert_eq!(value.clone().encode(), bytes);
        assert!(value.links().is_empty());
    };
    let small = std::thread::Builder::new().stack_size(512 * 1024);
    small.spawn(read).unwrap().join().unwrap();
}

/// Each of these takes minutes where the work grows with the square of the input.
#[test]
fn hostile_blocks_of_full_size_are_answered_in_time_that_grows_with_their_size() {
    // Many empty lists; many lists of one; many links; many deep towers.
    let tower = [vec![0x81; 200], vec![0]].concat();
    let link = Value::Link(Cid::v1(Codec::Raw, Multihash::identity(b"").unwrap())).encode();
    for block in [
        list_of(b"\x80", 1 << 20),
        list_of(b"\x81\x00", 1 << 19),
        list_of(&link, 1 << 16),
        list_of(&tower, 5000),
    ] {
        let value = decode(&block).unwrap();
        assert_eq!(
            scan_block_lenient(&block).unwrap().links.len(),
            value.links().len()
        );
    }
    // Keys in descending order, and all of them but one the same length.
    let mut map = vec![0xba, 0, 1, 0x86, 0xa0];
    for i in (0..100_000u32).rev() {
        map.extend([0x65]);
        map.extend(format!("{i:05}").bytes());
        map.push(0xf6);
    }
    let value = decode(&map).unwrap();
    assert!(scan_block_lenient(&map).is_ok() && scan_block(&map).is_err());
    let mut fields = Fields::of(value, "hostile").unwrap();
    for field in ["00001", "00002", "00003", "00004", "99999"] {
        assert!(fields.optional(field).is_some());
        assert!(fields.optional(field).is_none());
    }
    assert_eq!(fields.rest().len(), 100_000 - 5);
    // The same key a hundred thousand times.
    let mut map = vec![0xba, 0, 1, 0x86, 0xa0];
    map.extend(b"\x60\xf6".repeat(100_000));
    assert!(decode(&map).is_err() && scan_block_lenient(&map).is_err());
    // A prefix of a hundred thousand ids.
    let id =
        Value::from(Cid::v1(Codec::Raw, Multihash::identity(b"").unwrap()).to_bytes()).encode();
    let block = [&RAW_PREFIX_MAGIC[..], &list_of(&id, 100_000)].concat();
    assert_eq!(split_raw(&block.into()).unwrap().0.len(), 100_000);
    // A champ node with one bucket of a hundred thousand mappings, in descending order.
    let mut node = vec![0x83, 0x41, 1, 0x40, 0x81, 0x9a];
    node.extend(200_000u32.to_be_bytes());
    for i in (0..100_000u32).rev() {
        node.push(0x44);
        node.extend((i << 3).to_le_bytes());
        node.push(0);
    }
    let block = Block::cbor(node).unwrap();
    let root = block.cid().clone();
    let mut stored = MemoryBlocks::new();
    stored.insert(block);
    let mut champ = Champ::at(root);
    assert_eq!(now(champ.count(&stored)).unwrap(), 100_000);
    now(champ.put(vec![0; 5], None, Value::Int(1), &stored)).unwrap();
    assert_eq!(now(champ.count(&stored)).unwrap(), 100_001);
}

#[test]
fn known_fields_leave_the_unknown_ones_in_order() {
    let map = Map::from_iter([("a", 1), ("b", 2), ("c", 3), ("null", 4)]);
    let mut fields = Fields::of(Value::Map(map), "record").unwrap();
    assert_eq!(fields.required("b"), Ok(Value::Int(2)));
    assert!(fields.required("b").is_err());
    assert!(fields.required("d").is_err());
    assert_eq!(fields.flag("missing"), Ok(false));
    assert!(fields.flag("c").is_err());
    let rest: Vec<String> = fields.rest().into_iter().map(|(key, _)| key).collect();
    assert_eq!(rest, ["a", "null"]);
}

proptest! {
    #[test]
    fn base58_reads_what_another_implementation_reads(text in "[1-9A-HJ-NP-Za-km-z]{0,80}") {
        prop_assert_eq!(from_base58(&text).unwrap(), bs58::decode(&text).into_vec().unwrap());
    }

    #[test]
    fn base58_survives_with_its_leading_zeros(
        zeros in 0usize..6,
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let bytes = [vec![0; zeros], bytes].concat();
        prop_assert_eq!(from_base58(&to_base58(&bytes)).unwrap(), bytes);
    }

    #[test]
    fn characters_outside_the_base58_alphabet_are_refused(
        text in "[1-9A-HJ-NP-Za-km-z]{0,20}[^1-9A-HJ-NP-Za-km-z][1-9A-HJ-NP-Za-km-z]{0,20}",
    ) {
        prop_assert!(from_base58(&text).is_err());
    }
}
