//! `pointers.json`.

use bytes::Bytes;
use champ::{
    Cid,
    cbor::{Fields, Record, decode},
};
use pki::{
    keys::{SecretSigningKey, Writer},
    pointer::{
        MAX_SIGNED_BYTES, OFFICIAL_MAX_SIGNED_BYTES, PointerCas, PointerUpdate, SignedPointer,
        check_successor,
    },
};

use crate::support::{Case, each};

fn cid(case: &Case, field: &str) -> Option<Cid> {
    case.text(field).map(|text| text.parse().unwrap())
}

#[test]
fn pointers() {
    let mut writer = None;
    each(
        "pointers.json",
        "kind",
        &[],
        vec![
            ("pointer", &mut |case| {
                let key = SecretSigningKey::from_seed(&case.array("writer_seed"));
                let sequence = case.raw("sequence").as_i64();
                let update =
                    PointerUpdate::try_new(cid(case, "original"), cid(case, "updated"), sequence)
                        .unwrap();
                assert_eq!(update.encode(), case.hex("cbor"), "{}", case.name());
                assert_eq!(PointerUpdate::decode(&case.hex("cbor")), Ok(update.clone()));
                let signed = SignedPointer::sign(update, &key);
                assert_eq!(signed.bytes(), &case.hex("signed"));
                assert_eq!(
                    SignedPointer::verify(&key.public(), case.hex("signed")),
                    Ok(signed)
                );
                let length = case.hex("signed").len();
                assert!(length <= MAX_SIGNED_BYTES);
                let official = length <= OFFICIAL_MAX_SIGNED_BYTES;
                assert_eq!(
                    official,
                    !case.name().contains("refused by official servers")
                );
                assert_eq!(i64::try_from(length), Ok(case.int("signed_length")));
            }),
            ("pointer_invalid", &mut |case| {
                let refused = PointerUpdate::decode(&case.hex("cbor"));
                assert!(refused.is_err(), "{}", case.name());
                let key = SecretSigningKey::from_seed(&[1; 32]);
                let signed = key.sign_attached(&case.hex("cbor"));
                assert!(SignedPointer::verify(&key.public(), signed).is_err());
            }),
            ("validate", &mut |case| {
                let read = |field| {
                    let message = case.text(field)?;
                    let bytes = champ::text::from_hex(message).unwrap();
                    Some(PointerUpdate::decode(&bytes[64..]).unwrap())
                };
                let (current, update) = (read("current_signed"), read("update_signed").unwrap());
                let result = check_successor(current.as_ref(), &update);
                match case.str("result") {
                    "accept" => assert_eq!(result, Ok(()), "{}", case.name()),
                    "reject" => {
                        let text = result.unwrap_err().to_string();
                        assert_eq!(text, case.str("error_message"), "{}", case.name());
                        if text.starts_with("PointerCAS") {
                            let cas: PointerCas = text.parse().unwrap();
                            assert_eq!(cas.to_string(), text);
                            let target = current.as_ref().and_then(PointerUpdate::updated);
                            assert_eq!(cas.current.as_ref(), target);
                            assert_eq!(cas.claimed.as_ref(), update.original());
                        }
                    }
                    other => panic!("{other}"),
                }
            }),
            ("multi_writer_commit", &mut |case| {
                let entries = Fields::of(decode(&case.hex("cbor")).unwrap(), "batch")
                    .unwrap()
                    .required("p")
                    .unwrap()
                    .into_list("p")
                    .unwrap();
                let writers = case.raw("writers").as_array().unwrap();
                assert_eq!(entries.len(), writers.len());
                for (entry, expected) in entries.into_iter().zip(writers) {
                    let mut fields = Fields::of(entry, "entry").unwrap();
                    let named = Writer::from_value(fields.required("w").unwrap()).unwrap();
                    assert_eq!(named.to_string(), expected.as_str().unwrap());
                    let signed: Bytes = fields.required("s").unwrap().into_bytes("s").unwrap();
                    let key = named.hash().inline_key().unwrap();
                    assert!(SignedPointer::verify(&key, signed).is_ok());
                    writer = Some(named);
                }
            }),
            ("maybe_cid", &mut |case| {
                let value = decode(&case.hex("cbor")).unwrap();
                assert_eq!(value.into_maybe_cid("value"), Ok(cid(case, "value")));
            }),
        ],
    );
    assert!(writer.is_some());
}
