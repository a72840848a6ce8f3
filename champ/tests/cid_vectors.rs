//! `cids.json`: identifiers, multihashes, varints, text forms.

use champ::{
    Block, Cid, Codec, Multihash,
    cid::{read_varint, write_varint},
    text::{from_base58, from_multibase, to_base58, to_multibase},
};
use serde_json::Value as Json;

use crate::support::*;

#[test]
fn every_case_of_cids_json_holds() {
    each_case("cids.json", |kind, case| match kind {
        "cid" => identifier(case),
        "block_cid" => block_cid(case),
        "peer_id" => {
            let id = Cid::parse_peer_id(text(case, "input")).unwrap();
            assert_eq!(id.to_bytes(), hex(case, "cid_bytes"));
            if text(case, "input").starts_with('1') {
                assert_eq!(id.bare_multihash_text(), text(case, "input"));
            }
        }
        "base58" => {
            assert_eq!(to_base58(&hex(case, "bytes")), text(case, "text"));
            assert_eq!(from_base58(text(case, "text")).unwrap(), hex(case, "bytes"));
        }
        "multibase" => multibase(case),
        "uvarint" => {
            let mut out = Vec::new();
            let value: u64 = case["value"].to_string().trim_matches('"').parse().unwrap();
            write_varint(value, &mut out);
            assert_eq!(out, hex(case, "bytes"));
            assert_eq!(read_varint(&out), Ok((value, &[][..])));
        }
        "uvarint_invalid" => {
            assert_eq!(text(case, "required"), "reject");
            assert!(read_varint(&hex(case, "bytes")).is_err());
        }
        "cid_bytes_invalid" => bytes_invalid(case),
        "cid_string_invalid" => {
            // The upper case hex that readers MAY accept is refused like the others.
            assert!(
                ["reject", "MAY accept (official clients never send it)"]
                    .contains(&text(case, "required"))
            );
            assert!(text(case, "string").parse::<Cid>().is_err());
        }
        other => panic!("unknown kind {other}"),
    });
}

fn identifier(case: &Json) {
    let bytes = hex(case, "bytes");
    let id = Cid::decode(&bytes).unwrap();
    assert_eq!(id.to_bytes(), bytes);
    assert_eq!(id.encoded_len(), bytes.len());
    assert_eq!(id.is_v0(), case["version"] == 0);
    assert_eq!(case["codec"], id.codec().code());
    assert_eq!(case["hash_type"], id.hash().code().code());
    assert_eq!(id.hash().digest(), hex(case, "digest"));
    assert_eq!(id.to_string(), text(case, "string"));
    assert_eq!(text(case, "string").parse::<Cid>().unwrap(), id);
    assert_eq!(id.bare_multihash_text(), text(case, "multihash_base58"));
    assert_eq!(id.storage_key(), text(case, "storage_key_base32_upper"));
    if let Some(others) = case["other_encodings_decode_to_same"].as_object() {
        for (base, other) in others {
            let parsed = other.as_str().unwrap().parse::<Cid>();
            assert_eq!(parsed.as_ref(), Ok(&id), "{base}");
        }
    }
    // One bit more or less in the digest is another identifier; a byte more is none.
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(Cid::decode(&longer).is_err());
    assert!(Cid::decode(&bytes[..bytes.len() - 1]).is_err());
}

fn block_cid(case: &Json) {
    let bytes = hex(case, "block");
    let block = match text(case, "codec") {
        "raw" => Block::raw(bytes.clone()),
        "dag-cbor" => Block::cbor(bytes.clone()),
        other => panic!("unknown codec {other}"),
    }
    .unwrap();
    let id = cid(text(case, "cid"));
    assert_eq!(*block.cid(), id);
    assert_eq!(Block::verified(id.clone(), bytes.clone()).unwrap(), block);
    let mut damaged = bytes;
    damaged.push(0);
    assert!(Block::verified(id, damaged).is_err());
}

fn multibase(case: &Json) {
    let bytes = hex(case, "bytes");
    let mut bases = 0;
    for (base, form) in case.as_object().unwrap() {
        if base.len() == 1 {
            assert_eq!(
                from_multibase(form.as_str().unwrap()).unwrap(),
                bytes,
                "{base}"
            );
            bases += 1;
        }
    }
    assert!(bases >= 6);
    assert_eq!(to_multibase(&bytes), text(case, "z"));
}

fn bytes_invalid(case: &Json) {
    let bytes = match case["bytes"].as_str() {
        Some(hex) => unhex(hex),
        None => {
            assert_eq!(
                text(case, "bytes_rule"),
                "hex 0155009120 followed by 4113 zero bytes"
            );
            let mut bytes = unhex("0155009120");
            bytes.resize(bytes.len() + 4113, 0);
            bytes
        }
    };
    match text(case, "required") {
        "accept as CIDv0" => {
            let id = Cid::decode(&bytes).unwrap();
            assert!(id.is_v0());
            assert_eq!(id.codec(), Codec::DagPb);
            assert_eq!(id.to_bytes(), bytes);
        }
        required => {
            assert!(
                required.starts_with("reject"),
                "unknown requirement {required}"
            );
            assert!(Cid::decode(&bytes).is_err());
        }
    }
}

#[test]
fn identity_digests_are_read_up_to_4112_bytes_and_written_up_to_36() {
    let mut bytes = unhex("0155009020");
    bytes.resize(bytes.len() + 4112, 7);
    let id = Cid::decode(&bytes).unwrap();
    assert_eq!(id.identity_content().unwrap().len(), 4112);
    assert_eq!(id.to_bytes(), bytes);
    assert_eq!(id.to_string().parse::<Cid>().unwrap(), id);
    assert!(Multihash::identity(&[0; 36]).is_ok());
    assert!(Multihash::identity(&[0; 37]).is_err());
}

#[test]
fn text_in_every_base_with_a_bad_character_is_refused() {
    for bad in [
        "z0", "zO", "zI", "zl", "z2 m", "f6", "f6g", "bmY", "bm1", "bmzxq=", "BMy", "B1", "vw",
        "Vcp0", "kA", "k-", "mZg==", "mZ", "m-", "MZg", "M=Zg", "Qm", "z\u{e9}", "\u{e9}z", "",
        "b\u{0}",
    ] {
        assert!(from_multibase(bad).is_err(), "{bad:?}");
    }
    // Bits beyond the last byte must be zero: one text per value.
    for ambiguous in ["bmz", "mZh"] {
        assert!(from_multibase(ambiguous).is_err(), "{ambiguous:?}");
    }
}

#[test]
fn base58_longer_than_any_value_in_use_is_refused_before_the_work() {
    let long = format!("z{}", "2".repeat(1 << 20));
    assert!(from_multibase(&long).is_err());
    assert!(from_base58(&long[1..]).is_err());
    assert!(from_multibase(&long.replacen('z', "k", 1)).is_err());
    assert!(long.parse::<Cid>().is_err());
    assert!(Cid::parse_peer_id(&"1".repeat(1 << 20)).is_err());
}

#[test]
fn content_is_never_accepted_under_a_hash_that_is_only_parsed() {
    for (code, length) in [(0x13, 64), (0x14, 64), (0x1e, 32), (0x40, 64), (0x41, 32)] {
        let mut bytes = vec![0x01, 0x55, code, length];
        bytes.resize(bytes.len() + usize::from(length), 0);
        let id = Cid::decode(&bytes).unwrap();
        assert!(!id.matches(b""));
        assert!(Block::verified(id, Vec::new()).is_err());
    }
}
