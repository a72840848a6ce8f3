//! Signed records that say whether a node's id is still in use and which one follows it (Spec: 11 §2).
//!
//! They are IPNS records with an extra field, signed by the key whose hash the id is. Whoever hands one out is
//! believed nothing: the signature, the hash of the key, and the agreement of what is signed with what is around it
//! are checked wherever a record comes in.

mod expiry;
mod fields;

use bytes::Bytes;
use champ::cbor::Record as _;
use libp2p::identity::{Keypair, PublicKey};
use pki::node_identity::{
    Announcement, MAX_RECORD_BYTES, NotFollowed, Resolution, Trail, signed_bytes,
};

use self::{
    expiry::{read_time, write_time},
    fields::{read_fields, write_bytes, write_number},
};
use super::{PeerId, Peers};

/// Begins the key of every record.
const KEY_PREFIX: &[u8] = b"/ipns/";
/// What the records point to, in the sense of IPNS: an empty folder.
const VALUE: &[u8] = b"/ipfs/bafkqaaa";
/// One year, in the unit of the field.
const TTL_NANOS: i64 = 31_536_000_000_000_000;
/// How long a record is valid.
const VALIDITY_SECONDS: i64 = 31_536_000;
/// When less than this is left, a new one is signed.
const RENEWAL_SECONDS: i64 = VALIDITY_SECONDS / 2;

/// A record that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdentityRecord {
    /// What is signed.
    pub(crate) data: Bytes,
    /// The signature.
    pub(crate) signature: Bytes,
    /// What it says.
    pub(crate) resolution: Resolution,
    expiry_seconds: i64,
}

/// A record that is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRecord {
    #[error("identity record is longer than {MAX_RECORD_BYTES} bytes")]
    TooLong,
    #[error("identity record is malformed: {0}")]
    Malformed(&'static str),
    #[error("identity record was not signed by its key")]
    Signature,
    #[error("identity record has expired")]
    Expired,
}

impl IdentityRecord {
    /// Reads and checks a record of the network.
    ///
    /// # Errors
    /// [`BadRecord`].
    pub(crate) fn check(peer: &PeerId, record: &[u8], now_seconds: i64) -> Result<Self, BadRecord> {
        if record.len() > MAX_RECORD_BYTES {
            return Err(BadRecord::TooLong);
        }
        let outer = read_fields(record).ok_or(BadRecord::Malformed("fields"))?;
        verify(peer, outer.public_key, outer.data, outer.signature)?;
        let signed =
            Announcement::decode(outer.data).map_err(|_| BadRecord::Malformed("signed data"))?;
        let agrees = signed.value == outer.value
            && signed.validity == outer.validity
            && outer.validity_type == 0
            && u64::try_from(signed.sequence) == Ok(outer.sequence)
            && u64::try_from(signed.ttl) == Ok(outer.ttl);
        if !agrees {
            return Err(BadRecord::Malformed(
                "what is signed is not what is around it",
            ));
        }
        let expiry_seconds =
            read_time(&signed.validity).ok_or(BadRecord::Malformed("time of expiry"))?;
        if expiry_seconds < now_seconds {
            return Err(BadRecord::Expired);
        }
        Ok(Self {
            data: Bytes::copy_from_slice(outer.data),
            signature: Bytes::copy_from_slice(outer.signature),
            resolution: signed.resolution,
            expiry_seconds,
        })
    }

    /// Reads a record of an own id, however old it is: the next one must say more than any before it.
    pub(crate) fn of_own(peer: &PeerId, record: &[u8]) -> Option<Self> {
        Self::check(peer, record, i64::MIN).ok()
    }

    /// Returns true when this record is to be preferred to another one of the same id.
    fn is_newer_than(&self, other: &Self) -> bool {
        self.resolution.sequence > other.resolution.sequence
            || (self.resolution.sequence == other.resolution.sequence
                && self.expiry_seconds > other.expiry_seconds)
    }

    /// Returns the id that follows this one, if one was chosen.
    pub(crate) fn next(&self) -> Option<PeerId> {
        self.resolution.next.as_ref().and_then(PeerId::of_hash)
    }

    /// Returns where the node has moved on to.
    pub(crate) fn moved_to(&self) -> Option<PeerId> {
        self.resolution.is_rotated.then(|| self.next()).flatten()
    }

    /// Returns true when this record was made for another identity to follow than `next`.
    pub(crate) fn names_another(&self, next: &PeerId) -> bool {
        self.next().is_some_and(|named| named != *next)
    }

    /// Returns true when this record should be signed anew soon.
    pub(crate) const fn is_ageing(&self, now_seconds: i64) -> bool {
        self.expiry_seconds.saturating_sub(now_seconds) < RENEWAL_SECONDS
    }
}

/// Signs a record for the id of `key`; returns it as it goes into the network. `None` when the key cannot sign.
pub(crate) fn sign(key: &Keypair, resolution: &Resolution, now_seconds: i64) -> Option<Vec<u8>> {
    let validity = write_time(now_seconds + VALIDITY_SECONDS)?;
    let announcement = Announcement {
        value: Bytes::from_static(VALUE),
        validity: Bytes::from(validity.clone().into_bytes()),
        sequence: resolution.sequence,
        ttl: TTL_NANOS,
        resolution: resolution.clone(),
    };
    let data = announcement.encode();
    let signature = key.sign(&signed_bytes(&data)).ok()?;
    let number = |value: i64| u64::try_from(value).ok();
    let mut record = Vec::new();
    write_bytes(1, VALUE, &mut record);
    write_number(3, 0, &mut record);
    write_bytes(4, validity.as_bytes(), &mut record);
    write_number(5, number(resolution.sequence)?, &mut record);
    write_number(6, number(TTL_NANOS)?, &mut record);
    write_bytes(8, &signature, &mut record);
    write_bytes(9, &data, &mut record);
    Some(record)
}

/// Makes the first record of the id of `key`. `None` when the key cannot sign.
pub(crate) fn first_record(key: &Keypair, now_seconds: i64) -> Option<Vec<u8>> {
    sign(key, &Resolution::first(), now_seconds)
}

/// Makes the record that says that the node has moved on from the id of `key` to `next`, after the one that is there, if
/// any. `None` when the key cannot sign, or the record before has named another identity, which is for good.
pub(crate) fn rotated(
    key: &Keypair,
    before: Option<&[u8]>,
    next: PeerId,
    now_seconds: i64,
) -> Option<Vec<u8>> {
    let id = PeerId::from(key.public().to_peer_id());
    let before = before.and_then(|before| IdentityRecord::of_own(&id, before));
    if before
        .as_ref()
        .is_some_and(|before| before.names_another(&next))
    {
        return None;
    }
    let resolution = Resolution {
        next: Some(next.multihash()),
        is_rotated: true,
        ..before.map_or_else(Resolution::first, |before| before.resolution.renewed())
    };
    sign(key, &resolution, now_seconds)
}

/// Returns the key under which the record of an id is kept.
pub(super) fn key_of(peer: &PeerId) -> Vec<u8> {
    [KEY_PREFIX, &peer.to_bytes()].concat()
}

/// Returns true when a record may be kept for others: a valid one of an id, not older than what is there.
pub(super) fn may_replace(
    key: &[u8],
    record: &[u8],
    before: Option<&[u8]>,
    now_seconds: i64,
) -> bool {
    let Some(peer) = key.strip_prefix(KEY_PREFIX) else {
        return false;
    };
    let Ok(peer) = PeerId::from_bytes(peer) else {
        return false;
    };
    let Ok(update) = IdentityRecord::check(&peer, record, now_seconds) else {
        return false;
    };
    let before = before.and_then(|before| IdentityRecord::check(&peer, before, now_seconds).ok());
    before.is_none_or(|before| {
        before == update
            || (update.is_newer_than(&before)
                && (before.resolution.allows(&update.resolution)
                    || before.resolution == update.resolution))
    })
}

/// Returns the newest valid one of some records of an id.
pub(crate) fn newest(
    peer: &PeerId,
    records: impl IntoIterator<Item = Bytes>,
    now_seconds: i64,
) -> Option<IdentityRecord> {
    let mut best: Option<IdentityRecord> = None;
    for record in records {
        let Ok(record) = IdentityRecord::check(peer, &record, now_seconds) else {
            continue;
        };
        if best.as_ref().is_none_or(|best| record.is_newer_than(best)) {
            best = Some(record);
        }
    }
    best
}

/// Returns the id that a node has moved on to, as its records in the network say step by step; `None` when it has not.
pub(crate) async fn successor(
    peers: &dyn Peers,
    peer: &PeerId,
    now_seconds: i64,
) -> Option<PeerId> {
    let mut trail = Trail::from(peer.multihash());
    loop {
        let last = PeerId::of_hash(trail.last())?;
        let copies = peers.identity_record(&last).await;
        let followed = match newest(&last, copies, now_seconds) {
            Some(record) => trail.follow(&record.resolution),
            None => Err(NotFollowed::NoRecord),
        };
        match followed {
            Ok(()) => {}
            Err(NotFollowed::Circle | NotFollowed::TooLong) => return None,
            Err(_) => return trail.has_moved().then_some(last),
        }
    }
}

/// Checks a signature with the key that the id is, or is the hash of.
fn verify(
    peer: &PeerId,
    public_key: Option<&[u8]>,
    data: &[u8],
    signature: &[u8],
) -> Result<(), BadRecord> {
    let bytes = peer.to_bytes();
    // An identity multihash: code 0, one byte of length, the key.
    let inline = bytes.strip_prefix(&[0]).and_then(|rest| rest.get(1..));
    let encoded = inline
        .or(public_key)
        .ok_or(BadRecord::Malformed("no key"))?;
    let key = PublicKey::try_decode_protobuf(encoded).map_err(|_| BadRecord::Malformed("key"))?;
    let is_its_key = PeerId::from(key.to_peer_id()) == *peer;
    if !is_its_key || !key.verify(&signed_bytes(data), signature) {
        return Err(BadRecord::Signature);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use champ::text::from_hex;
    use serde_json::Value as Json;

    use super::*;

    /// 2026-11-22.
    const NOW: i64 = 1_795_305_600;

    /// Knows records, and nothing else.
    #[derive(Debug)]
    struct Library(Vec<(PeerId, Bytes)>);

    #[async_trait::async_trait]
    impl Peers for Library {
        async fn call(
            &self,
            _: &PeerId,
            _: http::Request<crate::p2p::Body>,
        ) -> Result<http::Response<crate::p2p::Body>, crate::p2p::PeerError> {
            Err(crate::p2p::PeerError::Off)
        }

        async fn identity_record(&self, peer: &PeerId) -> Vec<Bytes> {
            let own = self.0.iter().filter(|(id, _)| id == peer);
            own.map(|(_, record)| record.clone()).collect()
        }
    }

    #[tokio::test]
    async fn p2p_8_moves_are_followed_for_a_while_and_never_in_circles() {
        let keys: Vec<_> = (0..20).map(|_| Keypair::generate_ed25519()).collect();
        let id = |at: usize| PeerId::from(keys[at].public().to_peer_id());
        let moved = |from: usize, to: usize, is_rotated: bool| {
            let resolution = Resolution {
                next: Some(id(to).multihash()),
                is_rotated,
                ..Resolution::first()
            };
            let record = sign(&keys[from], &resolution, NOW).unwrap();
            (id(from), Bytes::from(record))
        };
        let steps = |count: usize| (0..count).map(|at| moved(at, at + 1, true)).collect();
        let follow = async |records| successor(&Library(records), &id(0), NOW).await;
        assert_eq!(follow(Vec::new()).await, None);
        assert_eq!(follow(vec![moved(0, 1, false)]).await, None);
        assert_eq!(follow(steps(1)).await, Some(id(1)));
        assert_eq!(follow(steps(8)).await, Some(id(8)));
        assert_eq!(follow(steps(19)).await, None);
        assert_eq!(
            follow(vec![moved(0, 1, true), moved(1, 0, true)]).await,
            None
        );
        // Signed by somebody else.
        let (_, forged) = moved(5, 6, true);
        assert_eq!(follow(vec![(id(0), forged)]).await, None);
    }

    fn cases(kind: &str) -> Vec<Json> {
        let json: Json =
            serde_json::from_str(include_str!("../../../../pki/tests/vectors/ipns.json")).unwrap();
        let cases = json["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 21);
        let of_kind = cases.iter().filter(|case| case["kind"] == kind);
        of_kind.cloned().collect()
    }

    fn hex(case: &Json, field: &str) -> Vec<u8> {
        from_hex(case[field].as_str().unwrap()).unwrap()
    }

    #[test]
    fn recorded_records_are_believed_as_they_should_be() {
        let mut compared = 0;
        for case in cases("record") {
            let peer = PeerId::from_bytes(&hex(&case, "peer_id_bytes")).unwrap();
            assert_eq!(peer.to_string(), case["peer_id"].as_str().unwrap());
            assert_eq!(key_of(&peer), hex(&case, "dht_key"));
            let record = hex(&case, "record_protobuf");
            let checked = IdentityRecord::check(&peer, &record, NOW);
            let note = case["note"].as_str().unwrap();
            // The key must be the one the id is the hash of.
            let is_good = case["dht_validation_ok"] == true && !note.contains("DEFECT");
            assert_eq!(checked.is_ok(), is_good, "{note}: {checked:?}");
            assert_eq!(
                may_replace(&hex(&case, "dht_key"), &record, None, NOW),
                is_good
            );
            let resolution = Resolution::decode(&hex(&case, "resolution_record_cbor")).unwrap();
            assert_eq!(resolution.encode(), hex(&case, "resolution_record_cbor"));
            if case.get("host").is_some() {
                let next = resolution.next.as_ref().and_then(PeerId::of_hash);
                let next = next.map(|next| next.to_string());
                assert_eq!(next.as_deref(), case["host"].as_str(), "{note}");
                assert_eq!(resolution.is_rotated, case["moved"] == true);
            }
            let data = hex(&case, "data_cbor");
            let is_signed = verify(&peer, None, &data, &hex(&case, "signature_v2")).is_ok();
            assert_eq!(is_signed, case["client_signature_ok"] == true, "{note}");
            if let Ok(checked) = checked {
                assert_eq!(checked.resolution, resolution);
                assert_eq!(checked.data, data);
                let json = format!(
                    "{{\"data\":\"{}\",\"sig\":\"{}\"}}",
                    champ::text::to_hex(&checked.data),
                    champ::text::to_hex(&checked.signature)
                );
                assert_eq!(json, case["ipns_get_json"].as_str().unwrap());
            }
            compared += 1;
        }
        assert_eq!(compared, 12);
    }

    /// What we sign has the recorded bytes, but for the nine digits.
    #[test]
    fn records_are_written_byte_for_byte() {
        let case = &cases("record")[3];
        let mut seed = hex(case, "ed25519_seed");
        let key = Keypair::ed25519_from_bytes(&mut seed).unwrap();
        let expiry = read_time(case["expiry_text"].as_str().unwrap().as_bytes()).unwrap();
        let resolution = Resolution::decode(&hex(case, "resolution_record_cbor")).unwrap();
        let record = sign(&key, &resolution, expiry - VALIDITY_SECONDS).unwrap();
        let peer = PeerId::from(key.public().to_peer_id());
        let ours = IdentityRecord::check(&peer, &record, NOW).unwrap();
        let theirs = hex(case, "record_protobuf");
        let outer = (read_fields(&record).unwrap(), read_fields(&theirs).unwrap());
        assert_eq!(outer.0.validity, b"2099-01-02T03:04:05.000000000Z");
        assert_eq!(outer.0.value, outer.1.value);
        assert_eq!(
            (outer.0.sequence, outer.0.ttl),
            (outer.1.sequence, outer.1.ttl)
        );
        let zeros = |bytes: &[u8]| champ::text::to_hex(bytes);
        // A text of eight more digits, and lengths that follow from it.
        let data = zeros(&ours.data)
            .replace("581e", "56")
            .replace(&"30".repeat(8), "");
        assert_eq!(data, zeros(outer.1.data).replace(&"30".repeat(8), ""));
        assert!(!ours.is_ageing(expiry - VALIDITY_SECONDS));
        assert!(ours.is_ageing(expiry - 1000));
    }

    #[test]
    fn recorded_updates_are_allowed_or_not() {
        let mut compared = 0;
        for case in cases("record_update") {
            let existing = Resolution::decode(&hex(&case, "existing")).unwrap();
            let update = Resolution::decode(&hex(&case, "update")).unwrap();
            assert_eq!(existing.allows(&update), case["allowed"] == true, "{case}");
            compared += 1;
        }
        assert_eq!(compared, 9);
    }

    #[test]
    fn p2p_7_records_of_others_are_kept_only_when_they_are_better() {
        let key = Keypair::generate_ed25519();
        let peer = PeerId::from(key.public().to_peer_id());
        let at = |sequence, days: i64| {
            let resolution = Resolution {
                sequence,
                ..Resolution::first()
            };
            sign(&key, &resolution, NOW + days * 86_400).unwrap()
        };
        let own = key_of(&peer);
        let replaces = |new: &[u8], old: &[u8]| may_replace(&own, new, Some(old), NOW);
        assert!(replaces(&at(2, 0), &at(1, 5)));
        assert!(replaces(&at(1, 5), &at(1, 0)));
        assert!(replaces(&at(1, 0), &at(1, 0)));
        assert!(!replaces(&at(1, 0), &at(1, 5)));
        assert!(!replaces(&at(1, 9), &at(2, 0)));
        assert!(!may_replace(&own, &at(1, -400), None, NOW));
        for key in [&b""[..], b"/pk/x", b"/ipns/", b"/ipns/x"] {
            assert!(!may_replace(key, &at(1, 0), None, NOW));
        }
        let mut altered = at(1, 0);
        let last = altered.len() - 1;
        altered[last] ^= 1;
        assert!(!may_replace(&own, &altered, None, NOW));
        let mut long = at(1, 0);
        write_bytes(20, &vec![0; MAX_RECORD_BYTES], &mut long);
        assert_eq!(
            IdentityRecord::check(&peer, &long, NOW),
            Err(BadRecord::TooLong)
        );
        let found = [at(1, 0), altered, at(3, 0), at(2, 5)].map(Bytes::from);
        assert_eq!(newest(&peer, found, NOW).unwrap().resolution.sequence, 3);
    }
}
