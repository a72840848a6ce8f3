//! `upload_transaction.json`.

use champ::cbor::Record;
use cryptree::{
    hash_tree::HashBranch,
    upload_record::{ResumeRecord, UploadRecord},
};

use crate::{
    properties_vectors::compare_properties,
    support::{Case, for_each_case},
};

#[test]
fn upload_records() {
    let mut ran = 0;
    for_each_case("upload_transaction.json", |case| {
        ran += 1;
        let cbor = case.hex("cbor");
        match case.text("name") {
            "with-hash" | "without-hash" => current(case),
            "legacy-without-props" => {
                let record = UploadRecord::decode(&cbor).unwrap();
                assert!(!case.flag("canResume") && record.resume.is_none());
                assert!(record.capability().is_none());
                assert_eq!(record.encode(), cbor);
                // Enough to find every chunk.
                assert!(record.size_bytes > 0);
                assert!(
                    record
                        .first_chunk()
                        .advance(&record.stream_secret, 1)
                        .is_some()
                );
            }
            "resume-props" => {
                let record = ResumeRecord::decode(&cbor).unwrap();
                assert_eq!(record.encode(), cbor);
            }
            other => panic!("unknown case {other}"),
        }
    });
    assert_eq!(ran, 4);
}

fn current(case: &Case) {
    let record = UploadRecord::decode(&case.hex("cbor")).unwrap();
    assert_eq!(record.encode(), case.hex("cbor"));
    assert_eq!(record.path, case.text("path"));
    assert_eq!(record.file_name(), case.text("fileName"));
    assert_eq!(record.started_epoch_millis, case.int("startTimeEpochMs"));
    assert_eq!(record.owner.to_string(), case.text("owner"));
    assert_eq!(record.writer.encode(), case.hex("writerCbor"));
    assert_eq!(record.map_key.bytes().to_vec(), case.hex("mapKey"));
    let bat = record.first_bat.as_ref().map(|bat| bat.secret().to_vec());
    assert_eq!(bat, case.optional_hex("firstBat"));
    assert_eq!(record.size_bytes, case.int("size").unsigned_abs());
    assert_eq!(
        record.stream_secret.bytes().to_vec(),
        case.hex("streamSecret")
    );
    let keys = record.resume.as_ref().unwrap();
    assert_eq!(keys.r_base.bytes().to_vec(), case.hex("baseKey"));
    assert_eq!(keys.data_key.bytes().to_vec(), case.hex("dataKey"));
    assert_eq!(keys.w_base.bytes().to_vec(), case.hex("writeKey"));
    compare_properties(&keys.properties, &case.part("props"));
    assert_eq!(
        record.capability().unwrap().to_link_text(),
        case.text("writableCapability")
    );
    let root = record.hash.as_ref().map(|tree| *tree.root());
    let claimed = keys
        .properties
        .tree_hash
        .as_ref()
        .map(|b: &HashBranch| b.root);
    assert_eq!(root, claimed);
    assert_eq!(root.is_some(), case.text("name") == "with-hash");
}

#[test]
fn other_types_are_ignored() {
    for_each_case("upload_transaction.json", |case| {
        let Ok(record) = UploadRecord::decode(&case.hex("cbor")) else {
            return;
        };
        let champ::cbor::Value::Map(mut map) = record.to_value() else {
            panic!("map");
        };
        map.insert("type", "SOMETHING");
        assert!(UploadRecord::from_value(champ::cbor::Value::Map(map.clone())).is_err());
        map.insert("type", "FILE_UPLOAD");
        map.remove("streamSecret");
        assert!(UploadRecord::from_value(champ::cbor::Value::Map(map)).is_err());
    });
}
