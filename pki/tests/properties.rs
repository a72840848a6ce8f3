//! What must hold for any input.

use std::time::{Duration, SystemTime};

use champ::{
    Cid,
    cbor::{Map, Record, Value},
};
use pki::{
    algorithm::LoginAlgorithm,
    block_access::{BlockAuth, PackedTime},
    boxing::PublicBoxingKey,
    keys::{PublicKeyHash, PublicSigningKey, SecretKeyWithHash, SecretSigningKey, SigningKeyPair},
    owned::OwnerProof,
    pointer::{PointerCas, PointerUpdate, SignedPointer},
    proof_of_work::ProofOfWork,
    signed::{SignedRequest, SignedTime},
    writer_data::WriterData,
};
use proptest::prelude::*;

use crate::support::key;

fn cid() -> impl Strategy<Value = Option<Cid>> {
    prop_oneof![
        1 => Just(None),
        4 => any::<[u8; 8]>().prop_map(|bytes| Some(Cid::of_cbor(&bytes))),
    ]
}

fn update() -> impl Strategy<Value = PointerUpdate> {
    (cid(), cid(), any::<Option<i64>>())
        .prop_filter_map("equal", |(a, b, n)| PointerUpdate::try_new(a, b, n).ok())
}

/// Values of the data model: what a decoder of records has to cope with.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::Int),
        (-2..20i64).prop_map(Value::Int),
        prop::collection::vec(any::<u8>(), 0..70).prop_map(Value::from),
        "[a-z]{0,8}".prop_map(Value::from),
        cid().prop_map(|cid| cid.map_or(Value::Null, |cid| Value::from(&cid))),
        any::<bool>().prop_map(Value::Bool),
    ];
    let field = prop::sample::select(vec![
        "type",
        "prefix",
        "m",
        "c",
        "o",
        "p",
        "s",
        "b",
        "e",
        "t",
        "tree",
        "owned",
        "named",
        "links",
        "static",
        "inbound",
        "algorithm",
        "controller",
        "other",
    ]);
    leaf.prop_recursive(3, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
            prop::collection::vec((field.clone(), inner), 0..8)
                .prop_map(|fields| Value::Map(fields.into_iter().collect::<Map>())),
        ]
    })
}

/// Decodes; what is accepted must come back the same from its own encoding.
fn stable<T: Record>(bytes: &[u8]) {
    if let Ok(record) = T::decode(bytes) {
        let encoded = record.encode();
        let again = T::decode(&encoded).expect("own encoding");
        assert_eq!(again.encode(), encoded);
    }
}

fn every_record(bytes: &[u8]) {
    stable::<PublicSigningKey>(bytes);
    stable::<SecretSigningKey>(bytes);
    stable::<SigningKeyPair>(bytes);
    stable::<SecretKeyWithHash>(bytes);
    stable::<PublicKeyHash>(bytes);
    stable::<PublicBoxingKey>(bytes);
    stable::<LoginAlgorithm>(bytes);
    stable::<PointerUpdate>(bytes);
    stable::<OwnerProof>(bytes);
    stable::<WriterData>(bytes);
    stable::<ProofOfWork>(bytes);
    stable::<BlockAuth>(bytes);
    stable::<SignedTime>(bytes);
    stable::<SignedRequest>(bytes);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        every_record(&bytes);
        let public = key(1).secret().public();
        prop_assert!(public.verify_attached(&bytes).is_err());
        prop_assert!(SignedPointer::verify(&public, bytes.clone()).is_err());
        let now = SystemTime::UNIX_EPOCH;
        prop_assert!(SignedTime::verify(&bytes, &public, now, Duration::MAX).is_err());
    }

    #[test]
    fn random_values_never_panic(value in value()) {
        every_record(&value.encode());
    }

    #[test]
    fn random_text_never_panics(text in "\\PC{0,80}") {
        let _ = text.parse::<PublicKeyHash>();
        let _ = text.parse::<PointerCas>();
        let _ = format!("PointerCAS:{text}").parse::<PointerCas>();
        let _ = SigningKeyPair::parse(&text);
        let _ = BlockAuth::parse(&text);
    }

    #[test]
    fn any_flipped_bit_in_a_signed_pointer_is_noticed(update in update(), at in any::<prop::sample::Index>()) {
        let key = key(1);
        let public = key.secret().public();
        let signed = SignedPointer::sign(update, key.secret());
        prop_assert_eq!(SignedPointer::verify(&public, signed.bytes().clone()), Ok(signed.clone()));
        let mut bytes = signed.bytes().to_vec();
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(SignedPointer::verify(&public, bytes).is_err());
    }

    #[test]
    fn updates_survive_a_round_trip(update in update()) {
        prop_assert_eq!(PointerUpdate::decode(&update.encode()), Ok(update));
    }

    #[test]
    fn compare_and_swap_failures_survive_a_round_trip(
        current in cid(), sequence in any::<Option<i64>>(), claimed in cid(),
    ) {
        let cas = PointerCas { current, sequence, claimed };
        prop_assert_eq!(cas.to_string().parse(), Ok(cas));
    }

    #[test]
    fn packed_times_survive_a_round_trip(seconds in 946_684_800..253_402_300_799u64) {
        let at = PackedTime::at(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        prop_assert_eq!(PackedTime::unpack(at.packed()), Ok(at));
    }

    #[test]
    fn signatures_bind_message_and_key(message in prop::collection::vec(any::<u8>(), 0..100), other in 2..255u8) {
        let signed = key(1).secret().sign_attached(&message);
        prop_assert_eq!(key(1).secret().public().verify_attached(&signed), Ok(message.as_slice()));
        prop_assert!(key(other).secret().public().verify_attached(&signed).is_err());
    }
}
