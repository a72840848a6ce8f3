//! `capability.json`.

use champ::{
    access::{Bat, BatWithId, raw_prefix},
    cbor::Record,
};
use cryptree::{
    capability::{AbsoluteCapability, ChildEntry, EntryPoint, Location, RelativeCapability},
    ciphertext::{SignerLink, SymmetricLink},
    crypto::SymmetricKey,
};
use pki::keys::SecretKeyWithHash;

use crate::{
    replay::Replay,
    support::{Case, for_each_case},
};

#[test]
fn capabilities() {
    let mut ran = 0;
    for_each_case("capability.json", |case| {
        ran += 1;
        match case.kind() {
            "absolute" => absolute(case),
            "absolute-reject" => {
                assert!(case.text("link").parse::<AbsoluteCapability>().is_err());
            }
            "relative" => relative(case),
            "named-relative" => named(case),
            "entry-point" => {
                let entry = EntryPoint::decode(&case.hex("cbor")).unwrap();
                assert_eq!(entry.owner_name, case.text("ownerName"));
                assert_eq!(entry.capability, link(case, "capability"));
                assert_eq!(entry.encode(), case.hex("cbor"));
            }
            "location" => {
                let location = Location::decode(&case.hex("cbor")).unwrap();
                assert_eq!(location, link(case, "capability").location());
                assert_eq!(location.encode(), case.hex("cbor"));
            }
            "symmetric-link" => {
                let (from, to) = (key(case, "from"), key(case, "to"));
                let sealed = SymmetricLink::seal(&from, &to, &mut nonce(case));
                assert_eq!(sealed.encode(), case.hex("cbor"));
                let read = SymmetricLink::decode(&case.hex("cbor")).unwrap();
                assert_eq!(read.open(&from).unwrap(), to);
                assert_eq!(to.encode(), case.hex("plaintextCbor"));
            }
            "signer-link" => {
                let signer = SecretKeyWithHash::decode(&case.hex("plaintextCbor")).unwrap();
                assert_eq!(signer.hash().to_string(), case.text("publicKeyHash"));
                let sealed = SignerLink::seal(&key(case, "from"), &signer, &mut nonce(case));
                assert_eq!(sealed.encode(), case.hex("cbor"));
                let read = SignerLink::decode(&case.hex("cbor")).unwrap();
                let opened = read.open(&key(case, "from")).unwrap();
                assert_eq!(opened.encode(), case.hex("plaintextCbor"));
            }
            "bat" => bat(case),
            other => panic!("unknown kind {other}"),
        }
    });
    assert_eq!(ran, 28);
}

fn link(case: &Case, field: &str) -> AbsoluteCapability {
    case.text(field).parse().unwrap()
}

fn key(case: &Case, field: &str) -> SymmetricKey {
    SymmetricKey::from_bytes(case.array(field))
}

fn nonce(case: &Case) -> Replay {
    Replay::of([case.hex("nonce")])
}

fn absolute(case: &Case) {
    let capability = AbsoluteCapability::decode(&case.hex("cbor")).unwrap();
    assert_eq!(capability.encode(), case.hex("cbor"));
    assert_eq!(capability.to_link_text(), case.text("link"));
    assert_eq!(link(case, "link"), capability);
    assert_eq!(capability.owner.to_string(), case.text("owner"));
    assert_eq!(capability.owner.cid().to_bytes(), case.hex("ownerCidHex"));
    assert_eq!(capability.writer.to_string(), case.text("writer"));
    assert_eq!(capability.map_key.bytes().to_vec(), case.hex("mapKey"));
    let bat = capability.bat.as_ref().map(|bat| bat.secret().to_vec());
    assert_eq!(bat, case.optional_hex("bat"));
    assert_eq!(capability.r_base.bytes().to_vec(), case.hex("rBaseKey"));
    assert_eq!(capability.r_base.is_dirty(), case.flag("rBaseKeyDirty"));
    let w_base = capability.w_base.as_ref().map(|key| key.bytes().to_vec());
    assert_eq!(w_base, case.optional_hex("wBaseKey"));
    assert_eq!(capability.is_writable(), w_base.is_some());
}

/// Compares with the fields that nodes are described by, too.
pub(crate) fn compare_relative(capability: &RelativeCapability, fields: &Case) {
    let writer = capability.writer.as_ref().map(ToString::to_string);
    assert_eq!(writer.as_deref(), fields.optional_text("writer"));
    assert_eq!(capability.map_key.bytes().to_vec(), fields.hex("mapKey"));
    let bat = capability.bat.as_ref().map(|bat| bat.secret().to_vec());
    assert_eq!(bat, fields.optional_hex("bat"));
    assert_eq!(capability.r_base.bytes().to_vec(), fields.hex("rBaseKey"));
    assert_eq!(
        capability.w_base.is_some(),
        fields.flag("writeKeyLinkPresent")
    );
}

fn relative(case: &Case) {
    let capability = RelativeCapability::decode(&case.hex("cbor")).unwrap();
    assert_eq!(capability.encode(), case.hex("cbor"));
    compare_relative(&capability, &case.part("fields"));
    let source = link(case, "source");
    let resolved = capability.resolve(&source).unwrap();
    assert_eq!(resolved, link(case, "absoluteFromWritableSource"));
    let reader = capability.resolve(&source.read_only()).unwrap();
    assert_eq!(reader, link(case, "absoluteFromReadOnlySource"));
    // Made again from its ends: everything but the sealed key (whose nonce is not recorded) is the same.
    let mut random = Replay::of([vec![1; 24]]);
    let mut again = RelativeCapability::between(&source, &resolved, &mut random).unwrap();
    assert_eq!(again.w_base.is_some(), capability.w_base.is_some());
    again.w_base.clone_from(&capability.w_base);
    assert_eq!(again, capability);
}

fn named(case: &Case) {
    let entry = ChildEntry::decode(&case.hex("cbor")).unwrap();
    assert_eq!(entry.encode(), case.hex("cbor"));
    assert_eq!(entry.name.as_str(), case.text("childName"));
    assert_eq!(
        entry.is_directory,
        case.has("isDir").then(|| case.flag("isDir"))
    );
    assert_eq!(entry.mime_type.as_deref(), case.optional_text("mimeType"));
    assert_eq!(
        entry.created_epoch_seconds,
        case.has("createdEpochSeconds")
            .then(|| case.int("createdEpochSeconds"))
    );
    compare_relative(&entry.capability, &case.part("fields"));
    let resolved = entry.capability.resolve(&link(case, "source")).unwrap();
    assert_eq!(resolved, link(case, "absolute"));
}

fn bat(case: &Case) {
    let bat = Bat::from_secret(case.array("secret"));
    assert_eq!(bat.encode(), case.hex("batCbor"));
    let own = bat.inline_id();
    assert_eq!(own.cid().to_bytes(), case.hex("inlineIdCidHex"));
    assert_eq!(
        bat.calculated_id().cid().to_string(),
        case.text("idFromCborCid")
    );
    assert_eq!(
        bat.calculated_id().cid().to_bytes(),
        case.hex("idFromCborCidHex")
    );
    assert_eq!(
        bat.secret_hash_id().cid().to_string(),
        case.text("mirrorIdFromRawSecretCid")
    );
    let with_id: BatWithId = bat.with_calculated_id();
    assert_eq!(with_id.encode(), case.hex("batWithIdCbor"));
    assert_eq!(
        raw_prefix(std::slice::from_ref(&own)),
        case.hex("rawPrefixNoMirror")
    );
    let mirror = champ::Cid::decode(&case.hex("mirrorIdCidHex")).unwrap();
    let ids = [own, champ::access::BatId::new(mirror)];
    assert_eq!(raw_prefix(&ids), case.hex("rawPrefixWithMirror"));
}
