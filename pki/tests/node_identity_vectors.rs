//! Every case of `ipns.json`, as far as those see who get the signed part and the signature only.

use champ::{Cid, cbor::Record as _, text::to_hex};
use pki::{
    keys::SecretSigningKey,
    node_identity::{Announcement, NotFollowed, Resolution, Trail, id_of_key},
    wire::{Body as _, node_info::IdentityRecord},
};

use crate::support::{Case, each};

#[test]
fn recorded_identity_records() {
    each(
        "ipns.json",
        "kind",
        &[],
        vec![("record", &mut record), ("record_update", &mut update)],
    );
}

fn update(case: &Case) {
    let existing = Resolution::decode(&case.hex("existing")).unwrap();
    let update = Resolution::decode(&case.hex("update")).unwrap();
    assert_eq!(existing.encode(), case.hex("existing"));
    let is_allowed = existing.allows(&update);
    assert_eq!(is_allowed, case.flag("allowed"), "{}", case.str("note"));
}

fn record(case: &Case) {
    let note = case.str("note");
    let id = Cid::parse_peer_id(case.str("peer_id")).unwrap();
    assert_eq!(id.hash().to_bytes(), case.hex("peer_id_bytes"));
    if let Some(seed) = case.text("ed25519_seed") {
        let seed: [u8; 32] = champ::text::from_hex(seed).unwrap().try_into().unwrap();
        let key = SecretSigningKey::from_seed(&seed);
        assert_eq!(id_of_key(&key.public()), id);
    }
    let reply = IdentityRecord::from_body(&case.str("ipns_get_json").to_owned().into()).unwrap();
    assert_eq!(reply.data, case.hex("data_cbor"));
    assert_eq!(reply.signature, case.hex("signature_v2"));
    let verified = Announcement::verify(id.hash(), &reply.data, &reply.signature);
    let is_good = case.flag("client_signature_ok");
    assert_eq!(verified.is_ok(), is_good, "{note}");

    let mut trail = Trail::from(id.hash().clone());
    let followed = trail.follow_signed(&reply.data, &reply.signature);
    let Ok(announced) = verified else {
        assert_eq!(followed, Err(NotFollowed::Forged), "{note}");
        return;
    };
    let resolution = Resolution::decode(&case.hex("resolution_record_cbor")).unwrap();
    assert_eq!(announced.resolution, resolution, "{note}");
    if !note.starts_with("legacy") {
        assert_eq!(to_hex(&announced.encode()), case.str("data_cbor"), "{note}");
    }
    let host = resolution
        .next
        .map(|next| Cid::v1(champ::Codec::Libp2pKey, next));
    let host = host.map(|host| host.bare_multihash_text());
    assert_eq!(host.as_deref(), case.text("host"), "{note}");
    match case.flag("moved") {
        true => {
            assert_eq!(followed, Ok(()), "{note}");
            assert_eq!(Some(trail.last_id().bare_multihash_text()), host);
        }
        false => assert_eq!(followed, Err(NotFollowed::InUse), "{note}"),
    }
}
