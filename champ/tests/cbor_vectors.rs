//! `cbor.json`: every case in the three modes, and in the scan that servers use.

use champ::{
    Cid,
    cbor::{
        Malformed, Map, Value, decode, decode_canonical, decode_prefix, decode_shared, scan_block,
        scan_block_lenient,
    },
};
use serde_json::Value as Json;

use crate::support::*;

#[test]
fn every_case_of_cbor_json_holds() {
    each_case("cbor.json", |kind, case| match kind {
        "canonical" => canonical(case),
        "links" => links(case),
        "decode" => modes(case),
        "depth" => depth(case),
        other => panic!("unknown kind {other}"),
    });
}

fn value(json: &Json) -> Value {
    let (kind, content) = json.as_object().unwrap().iter().next().unwrap();
    match (kind.as_str(), content) {
        ("int", n) => Value::Int(n.as_str().unwrap().parse().unwrap()),
        ("bool", b) => Value::Bool(b.as_bool().unwrap()),
        ("null", _) => Value::Null,
        ("text", text) => Value::from(text.as_str().unwrap()),
        ("bytes", hex) => Value::from(unhex(hex.as_str().unwrap())),
        ("list", items) => Value::List(items.as_array().unwrap().iter().map(value).collect()),
        ("map", entries) => {
            let entries = entries.as_array().unwrap();
            let map: Map = entries
                .iter()
                .map(|entry| (entry[0].as_str().unwrap().to_owned(), value(&entry[1])))
                .collect();
            assert_eq!(map.len(), entries.len());
            Value::Map(map)
        }
        ("link", cid) => link(cid.as_str().unwrap()),
        other => panic!("unknown value {other:?}"),
    }
}

fn canonical(case: &Json) {
    let bytes = hex(case, "hex");
    let value = value(&case["value"]);
    assert_eq!(value.encode(), bytes);
    assert_eq!(decode_canonical(&bytes).unwrap(), value);
    assert_eq!(decode(&bytes).unwrap(), value);
    assert_eq!(decode_shared(&bytes.clone().into()).unwrap(), value);
    assert_eq!(scan_block(&bytes).unwrap().links, value.links());
    let mut padded = bytes.clone();
    padded.extend([0, 0xff]);
    assert_eq!(decode_prefix(&padded).unwrap(), (value, bytes.len()));
    // Every proper beginning is cut short, and says so.
    for end in 0..bytes.len() {
        assert!(decode(&bytes[..end]).is_err());
        assert!(scan_block_lenient(&bytes[..end]).is_err());
    }
}

fn links(case: &Json) {
    let bytes = hex(case, "hex");
    let expected: Vec<Cid> = case["links"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cid| Cid::decode(&unhex(cid.as_str().unwrap())).unwrap())
        .collect();
    assert_eq!(decode_canonical(&bytes).unwrap().links(), expected);
    assert_eq!(scan_block(&bytes).unwrap().links, expected);
}

fn modes(case: &Json) {
    let bytes = hex(case, "hex");
    let strict = decode_canonical(&bytes);
    let lenient = decode(&bytes);
    let prefix = decode_prefix(&bytes);
    assert!(strict.is_err());
    assert_eq!(decode_shared(&bytes.clone().into()), lenient);
    assert_eq!(scan_block(&bytes).unwrap_err(), strict.unwrap_err());
    assert_eq!(
        scan_block_lenient(&bytes).map(|scan| scan.links),
        lenient.clone().map(|value| value.links())
    );
    match text(case, "required") {
        "reject in every mode" => assert!(lenient.is_err() && prefix.is_err()),
        "lenient: accept; canonical: reject" => {
            let meaning = lenient.unwrap();
            assert_eq!(prefix.unwrap(), (meaning.clone(), bytes.len()));
            if case["java_value"].is_object() {
                assert_eq!(meaning, value(&case["java_value"]));
                assert_eq!(meaning.encode(), hex(case, "java_reencoded"));
            }
        }
        // Tag 42 over text, which nobody writes: refused.
        "lenient: accept or reject; canonical: reject" => assert!(lenient.is_err()),
        "prefix: accept (1 byte used); lenient and canonical: reject" => {
            assert_eq!(prefix.unwrap().1, 1);
            assert_eq!(lenient.unwrap_err().reason, Malformed::TrailingBytes);
        }
        other => panic!("unknown requirement {other}"),
    }
}

fn depth(case: &Json) {
    let bytes = match case["hex"].as_str() {
        Some(hex) => unhex(hex),
        None => {
            assert_eq!(
                text(case, "hex_rule"),
                "byte 81 repeated 100000 times then 01"
            );
            let mut bytes = vec![0x81; 100_000];
            bytes.push(1);
            bytes
        }
    };
    match text(case, "required") {
        "accept" => {
            assert_eq!(decode_canonical(&bytes).unwrap().encode(), bytes);
            scan_block(&bytes).unwrap();
        }
        "reject without exhausting the stack" => {
            assert_eq!(decode(&bytes).unwrap_err().reason, Malformed::Depth);
            assert_eq!(scan_block(&bytes).unwrap_err().reason, Malformed::Depth);
        }
        other => panic!("unknown requirement {other}"),
    }
}
