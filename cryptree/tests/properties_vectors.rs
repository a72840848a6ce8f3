//! `fileproperties.json`.

use champ::{cbor::Record, text};
use cryptree::{
    chunk_chain::StreamSecret,
    mime::mime_type,
    properties::{FileName, FileProperties, Thumbnail, Timestamp},
};

use crate::support::{Case, for_each_case};

#[test]
fn file_properties() {
    let mut ran = 0;
    for_each_case("fileproperties.json", |case| {
        ran += 1;
        match case.kind() {
            "roundtrip" => {
                let properties = FileProperties::decode(&case.hex("cbor")).unwrap();
                compare_properties(&properties, &case.part("fields"));
                assert_eq!(properties.encode(), case.hex("cbor"));
                assert!(properties.unknown.is_empty());
            }
            "read" => {
                let properties = FileProperties::decode(&case.hex("cbor")).unwrap();
                compare_properties(&properties, &case.part("fields"));
            }
            "name" => {
                let name = String::from_utf8(case.hex("fileNameUtf8Hex")).unwrap();
                assert_eq!(name.encode_utf16().count(), case.size("utf16Units"));
                assert_eq!(FileName::parse(name).is_ok(), case.flag("accepted"));
            }
            "construct-reject" => {
                assert_eq!(case.text("name"), "directory-with-stream-secret");
                assert!(!case.flag("accepted"));
                let now = Timestamp::from_epoch_seconds(1);
                let name = FileName::parse("d").unwrap();
                let mut properties = FileProperties::directory(name, now, false);
                properties.stream_secret = Some(StreamSecret::from_bytes([1; 32]));
                assert!(FileProperties::decode(&properties.encode()).is_err());
            }
            "thumbnail-size" => {
                let image = vec![0; case.size("bytes")];
                let thumbnail = Thumbnail::new("image/webp", image);
                assert_eq!(thumbnail.is_some(), case.flag("accepted"));
            }
            "mime" => {
                let chosen = mime_type(case.text("fileName"), &case.hex("headerHex"));
                assert_eq!(chosen, case.text("mimeType"));
            }
            other => panic!("unknown kind {other}"),
        }
    });
    assert_eq!(ran, 51);
}

/// Compares with the fields that nodes are described by, too.
pub(crate) fn compare_properties(properties: &FileProperties, fields: &Case) {
    assert_eq!(properties.name.as_str(), fields.text("name"));
    assert_eq!(properties.is_directory, fields.flag("isDirectory"));
    assert_eq!(properties.is_link, fields.flag("isLink"));
    assert_eq!(properties.mime_type, fields.text("mimeType"));
    assert_eq!(
        i64::try_from(properties.size_bytes).unwrap(),
        fields.int("size")
    );
    let (modified, created) = (properties.modified, properties.created);
    assert_eq!(modified.epoch_seconds(), fields.int("modifiedEpochSeconds"));
    assert_eq!(i64::from(modified.nanos()), fields.int("modifiedNanos"));
    assert_eq!(created.epoch_seconds(), fields.int("createdEpochSeconds"));
    assert_eq!(i64::from(created.nanos()), fields.int("createdNanos"));
    assert_eq!(properties.is_hidden, fields.flag("isHidden"));
    let thumbnail = properties.thumbnail.as_ref();
    assert_eq!(
        thumbnail.map(Thumbnail::mime_type),
        fields.optional_text("thumbnailMimeType")
    );
    assert_eq!(
        thumbnail.map(|t| text::to_hex(t.image())).as_deref(),
        fields.optional_text("thumbnailHex")
    );
    let secret = properties.stream_secret.as_ref();
    assert_eq!(
        secret.map(|s| s.bytes().to_vec()),
        fields.optional_hex("streamSecret")
    );
    let hash = properties.tree_hash.as_ref();
    assert_eq!(
        hash.map(|h| h.root.to_vec()),
        fields.optional_hex("treeHashRoot")
    );
    let level1 = hash.and_then(|h| h.chunk_hashes());
    assert_eq!(
        level1.map(|l| l.bytes().to_vec()),
        fields.optional_hex("treeHashLevel1")
    );
}
