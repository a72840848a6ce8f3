//! `datastream.json`.

use champ::data_stream::{DataStreamError, MAX_STRING_BYTES, Reader, Writer};
use serde_json::Value as Json;

use crate::support::*;

#[test]
fn every_case_of_datastream_json_holds() {
    each_case("datastream.json", |kind, case| match kind {
        "string" => {
            let written = Writer::new().string(text(case, "value")).finish();
            assert_eq!(written, hex(case, "hex"));
            let mut reader = Reader::new(&written);
            assert_eq!(reader.string(MAX_STRING_BYTES), Ok(text(case, "value")));
            assert!(reader.rest().is_empty());
        }
        "bytes" => {
            let written = Writer::new().bytes(&hex(case, "value")).finish();
            assert_eq!(written, hex(case, "hex"));
            assert_eq!(Reader::new(&written).bytes(10), Ok(&hex(case, "value")[..]));
        }
        "sequence" => sequence(case),
        "string_non_ascii" => {
            let written = Writer::new().string(text(case, "value")).finish();
            assert_eq!(written, hex(case, "required"));
            let mut reader = Reader::new(&written);
            assert_eq!(reader.string(MAX_STRING_BYTES), Ok(text(case, "value")));
            // The official writer's form reads as exactly the counted number of bytes.
            let official = hex(case, "official_java_writer");
            let mut reader = Reader::new(&official);
            assert_eq!(reader.string(MAX_STRING_BYTES), Ok("p\u{e4}s"));
            assert_eq!(reader.rest(), b"s");
        }
        "string_invalid" => string_invalid(case),
        other => panic!("unknown kind {other}"),
    });
}

fn sequence(case: &Json) {
    let bytes = hex(case, "hex");
    let mut reader = Reader::new(&bytes);
    let mut writer = Writer::new();
    for item in case["value"].as_array().unwrap() {
        let item = item.as_str().unwrap();
        writer = match item.split_once(' ').unwrap() {
            ("boolean", value) => {
                let value = value.parse().unwrap();
                assert_eq!(reader.boolean(), Ok(value));
                writer.boolean(value)
            }
            ("int", value) => {
                let value = value.parse().unwrap();
                assert_eq!(reader.int(), Ok(value));
                writer.int(value)
            }
            ("long", value) => {
                let value = value.parse().unwrap();
                assert_eq!(reader.long(), Ok(value));
                writer.long(value)
            }
            ("string", value) => {
                let value = if value == "empty" { "" } else { value };
                assert_eq!(reader.string(MAX_STRING_BYTES), Ok(value));
                writer.string(value)
            }
            ("bytes", value) => {
                let content = reader.bytes(64).unwrap();
                match value {
                    "empty" => assert!(content.is_empty()),
                    "of an empty proof of work" => {
                        champ::cbor::decode_canonical(content).unwrap();
                    }
                    hex => assert_eq!(content, unhex(hex)),
                }
                writer.bytes(content)
            }
            other => panic!("unknown item {other:?}"),
        };
    }
    assert!(reader.rest().is_empty());
    assert_eq!(writer.finish(), bytes);
}

fn string_invalid(case: &Json) {
    assert_eq!(text(case, "required"), "reject");
    let max = usize::try_from(case["max"].as_u64().unwrap()).unwrap();
    assert_eq!(max, MAX_STRING_BYTES);
    let bytes = match text(case, "hex").split_once(" then ") {
        None => hex(case, "hex"),
        Some((head, rule)) => {
            assert_eq!(rule, "1025 bytes 61");
            [unhex(head), vec![0x61; 1025]].concat()
        }
    };
    let error = Reader::new(&bytes).string(max).unwrap_err();
    let expected = match text(case, "name") {
        "negative length" => DataStreamError::NegativeLength,
        "length above the limit 1024" => DataStreamError::TooLong { actual: 1025, max },
        "truncated" => DataStreamError::Truncated,
        other => panic!("unknown case {other}"),
    };
    assert_eq!(error, expected);
}

#[test]
fn any_byte_but_zero_is_true_and_bytes_after_the_last_item_are_ignored() {
    let mut reader = Reader::new(&[2, 0, 9]);
    assert_eq!((reader.boolean(), reader.boolean()), (Ok(true), Ok(false)));
    assert_eq!(reader.rest(), [9]);
}

#[test]
fn a_string_that_is_not_utf_8_is_refused() {
    let bytes = Writer::new().bytes(&[0xff]).finish();
    assert_eq!(Reader::new(&bytes).string(8), Err(DataStreamError::NotUtf8));
}
