//! What the errors of the encodings say.

use champ::{
    BlockError, Cid, CidError, SourceError,
    cbor::{DecodeError, Malformed, RecordError},
    data_stream::DataStreamError,
    map::NodeError,
    text::TextError,
};

fn lines<T: ToString>(errors: impl IntoIterator<Item = T>) -> String {
    let lines: Vec<String> = errors.into_iter().map(|error| error.to_string()).collect();
    lines.join("\n")
}

#[test]
fn malformed_cbor_says_what_and_where() {
    let error = DecodeError {
        reason: Malformed::Tag,
        offset: 7,
    };
    assert_eq!(error.to_string(), "malformed cbor at byte 7");
    let reasons = [
        Malformed::Truncated,
        Malformed::Length,
        Malformed::Unsupported,
        Malformed::IntegerRange,
        Malformed::Tag,
        Malformed::Link,
        Malformed::Utf8,
        Malformed::KeyKind,
        Malformed::DuplicateKey,
        Malformed::Depth,
        Malformed::TrailingBytes,
        Malformed::NotShortest,
        Malformed::KeyOrder,
        Malformed::AccessTokens,
    ];
    assert_eq!(
        lines(reasons),
        "input ends early
declared length exceeds the input
a kind of value outside the profile
integer outside the signed 64-bit range
a tag other than 42
malformed link
text is not UTF-8
map key is not text
duplicate map key
nested too deep
bytes after the value
head is not in its shortest form
map keys are out of order
malformed access token ids"
    );
}

#[test]
fn records_name_the_field() {
    let cbor = DecodeError {
        reason: Malformed::Tag,
        offset: 7,
    };
    let errors = [
        RecordError::Cbor(cbor),
        RecordError::Missing("s"),
        RecordError::WrongKind {
            field: "s",
            expected: "byte string",
            found: "text",
        },
        RecordError::WrongLength {
            field: "s",
            actual: 31,
        },
        RecordError::OutOfRange { field: "i" },
        RecordError::Cid {
            field: "i",
            source: CidError::Truncated,
        },
    ];
    assert_eq!(
        lines(errors),
        "record is not valid cbor
record field `s` is missing
record field `s` is a text, not a byte string
record field `s` has 31 bytes
record field `i` is out of range
record field `i` does not hold a cid"
    );
}

#[test]
fn identifiers_texts_and_streams() {
    let errors = [
        CidError::Truncated,
        CidError::BadVarint,
        CidError::Version(2),
        CidError::Codec(0x51),
        CidError::HashCode(0x11),
        CidError::DigestLength {
            code: 0x12,
            actual: 31,
        },
        CidError::TrailingBytes,
        CidError::Text(TextError::TooShort),
    ];
    assert_eq!(
        lines(errors),
        "cid is truncated
cid holds a malformed varint
cid version 2 is not supported
cid codec 0x51 is not known
hash code 0x11 is not known
digest of 31 bytes does not fit hash code 0x12
bytes after the end of the cid
cid text is malformed"
    );
    let errors = [
        TextError::Malformed { base: "base58" },
        TextError::UnknownBase,
        TextError::TooShort,
        TextError::TooLong { actual: 9000 },
    ];
    assert_eq!(
        lines(errors),
        "not valid base58 text
unknown multibase prefix
text too short
text of 9000 characters is longer than 8192"
    );
    let errors = [
        DataStreamError::Truncated,
        DataStreamError::NegativeLength,
        DataStreamError::TooLong {
            actual: 1025,
            max: 1024,
        },
        DataStreamError::NotUtf8,
    ];
    assert_eq!(
        lines(errors),
        "data stream ends early
data stream holds a negative length
item of 1025 bytes is larger than 1024
data stream string is not UTF-8"
    );
}

#[test]
fn blocks_and_nodes() {
    let cid = Cid::of_cbor(b"");
    let errors = [
        BlockError::HashMismatch(cid.clone()),
        BlockError::TooLarge { actual: 2_000_000 },
        BlockError::NotABlock(cid.clone()),
    ];
    let expected = format!(
        "block bytes do not match {cid}
block of 2000000 bytes is larger than 1048676
{cid} does not name a block"
    );
    assert_eq!(lines(errors), expected);
    let errors = [
        SourceError::Rejected {
            cid: cid.clone(),
            reason: "no".to_owned(),
        },
        SourceError::Failed(std::sync::Arc::new(CidError::Truncated)),
    ];
    let expected = format!("block {cid} was refused: no\nblock source failed");
    assert_eq!(lines(errors), expected);
    let errors = [
        NodeError::Record(RecordError::Missing("d")),
        NodeError::Bitmap,
        NodeError::SlotInBoth,
        NodeError::ContentCount {
            expected: 1,
            actual: 2,
        },
        NodeError::ContentOrder,
        NodeError::ContentKind,
        NodeError::OddBucket,
        NodeError::DuplicateKey,
        NodeError::TooManyBats(2),
        NodeError::NotCbor,
    ];
    assert_eq!(
        lines(errors),
        "not a champ node
bitmap has bits above slot 7
a slot holds both a bucket and a child
2 contents for 1 slots
contents do not follow the bitmaps
contents hold something that is neither bucket nor child link
bucket has an odd number of elements
bucket holds a key twice
node carries 2 access token ids
child link does not name a dag-cbor block"
    );
}
