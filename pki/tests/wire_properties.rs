//! Properties of every body and of claim chains under random operations.

use bytes::Bytes;
use champ::{Cid, cbor::Record};
use pki::{
    chain::{Adoption, ClaimChain, ClaimLink, KnownChains, NameDirectory, OwnerKeys},
    claim::Date,
    keys::{PublicKeyHash, SecretSigningKey},
    username::Username,
    wire::{
        Body,
        admin::{AllowedSignups, VersionInfo},
        block_group::BlockGroup,
        champ_lookup::{ChampCaps, ChampLookupReply},
        direct_store::{
            BlockStoreProperties, PresignedRequests, ReadAuthRequest, WriteAuthRequest,
        },
        directory::{KeyRequest, NameRequest, PublicKeyReply, Usernames},
        link::{EncryptedCapability, LinkCounts},
        login_data::{LoginData, LoginResponse},
        message::ServerMessages,
        mirror::{
            CompletePaidMirror, MigrateRequest, MirrorRequest, SnapshotsRequest, StartPaidMirror,
            UserSnapshots,
        },
        node_info::{BlockStat, IdentityRecord, NodeId, NodeIds},
        payment::{PaymentProperties, PendingSpaceRequests},
        pointer_batch::PointerBatch,
        put_reply::PutReply,
        reply::{ByteBoolean, CborBoolean, LinkHost, MirrorBats, SpaceBytes, TransactionId},
        second_factor::{BackupCodes, MultiFactorMethods, MultiFactorResponse},
        signup::{
            CompletePaidSignup, SignupReply, SignupRequest, StartPaidReply, StartPaidSignup,
            UpdateChainRequest,
        },
        snapshot::UserSnapshot,
        social::{FollowRequest, FollowRequests},
    },
};
use proptest::prelude::*;

/// Reads bytes as a body; what can be read must be written and read again with the same meaning.
fn stable<B: Body + PartialEq + std::fmt::Debug>(bytes: &Bytes) {
    if let Ok(body) = B::from_body(bytes) {
        let written = Bytes::from(body.to_body());
        assert_eq!(B::from_body(&written).as_ref(), Ok(&body));
        assert_eq!(body.to_body(), written);
    }
}

macro_rules! every_body {
    ($bytes:expr; $($body:ty)*) => { $(stable::<$body>($bytes);)* };
}

fn all(bytes: &Bytes) {
    every_body!(bytes;
        AllowedSignups VersionInfo BlockGroup ChampLookupReply BlockStoreProperties PresignedRequests
        ReadAuthRequest WriteAuthRequest KeyRequest NameRequest PublicKeyReply Usernames
        EncryptedCapability LinkCounts LoginData LoginResponse ServerMessages CompletePaidMirror
        MigrateRequest MirrorRequest SnapshotsRequest StartPaidMirror UserSnapshots BlockStat
        IdentityRecord NodeId NodeIds PaymentProperties PendingSpaceRequests PointerBatch PutReply
        ByteBoolean CborBoolean LinkHost MirrorBats SpaceBytes TransactionId BackupCodes
        MultiFactorMethods MultiFactorResponse CompletePaidSignup SignupReply SignupRequest
        StartPaidReply StartPaidSignup UpdateChainRequest UserSnapshot FollowRequest FollowRequests
        ClaimChain);
}

/// Bodies of the vectors: starting points for random edits.
fn recorded_bodies() -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for (file, field) in [
        ("accounts.json", "cbor_hex"),
        ("api_objects.json", "cbor_hex"),
        ("pki.json", "request_body"),
        ("pki.json", "cbor"),
        ("pki.json", "chain"),
    ] {
        let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
        let whole: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = whole["cases"].as_array().unwrap();
        bodies.extend(
            cases
                .iter()
                .filter_map(|case| case[field].as_str())
                .filter(|hex| !hex.is_empty())
                .map(|hex| champ::text::from_hex(hex).unwrap()),
        );
    }
    assert!(bodies.len() > 90);
    bodies
}

#[derive(Debug, Clone)]
enum Step {
    Renew { days: u32 },
    Move { server: u8 },
    Rekey,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u32..400).prop_map(|days| Step::Renew { days }),
        any::<u8>().prop_map(|server| Step::Move { server }),
        Just(Step::Rekey),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        all(&bytes.into());
    }

    #[test]
    fn edited_bodies_are_read_or_refused(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let bodies = recorded_bodies();
        let mut body = which.get(&bodies).clone();
        for (at, byte) in edits {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if cuts {
            body.truncate(cut.index(body.len()));
        }
        all(&body.into());
    }

    #[test]
    fn parameters_are_read_or_refused(text in "z[1-9A-HJ-NP-Za-km-z]{0,80}") {
        if let Ok(caps) = ChampCaps::from_parameter(&text) {
            prop_assert_eq!(ChampCaps::from_parameter(&caps.to_parameter()), Ok(caps));
        }
    }

    #[test]
    fn legal_histories_are_accepted_by_everybody(steps in prop::collection::vec(step(), 1..8)) {
        let name = Username::parse("alice").unwrap();
        let keys = OwnerKeys::inline_only();
        let mut seed = 1;
        let mut identity = SecretSigningKey::from_seed(&[seed; 32]);
        let mut expiry: Date = "2030-01-31".parse().unwrap();
        let mut server = Cid::of_raw(b"server");
        let first = ClaimLink::sign(&name, expiry, server.clone(), &identity).unwrap();
        let mut chain = ClaimChain::single(first.clone());
        let (mut directory, mut known) = (NameDirectory::new(), KnownChains::new());
        directory.apply(&name, Some(chain.clone()), &keys);
        known.learn(&name, &chain, &keys).unwrap();
        let mut replaced = Vec::new();
        for step in steps {
            let next = match step {
                Step::Renew { days } => {
                    expiry = expiry.plus_days(days);
                    chain.with_last_claim(&name, expiry, server.clone(), &identity)
                }
                Step::Move { server: to } => {
                    server = Cid::of_raw(&[to]);
                    chain.with_last_claim(&name, expiry, server.clone(), &identity)
                }
                Step::Rekey => {
                    seed += 1;
                    let new = SecretSigningKey::from_seed(&[seed; 32]);
                    let next = chain.with_new_key(&name, expiry, server.clone(), &identity, &new);
                    replaced.push(PublicKeyHash::of(&identity.public()));
                    identity = new;
                    next
                }
            }
            .unwrap();
            let merged = ClaimChain::merge(&chain, &next, &name, &keys);
            prop_assert_eq!(merged.as_ref(), Ok(&next));
            // The changed tail says as much as the whole chain.
            let common = chain.links().iter().zip(next.links()).take_while(|(a, b)| a == b).count();
            if common < next.links().len() {
                let tail = ClaimChain::new(next.links()[common..].to_vec()).unwrap();
                let merged = ClaimChain::merge(&chain, &tail, &name, &keys);
                prop_assert_eq!(merged.as_ref(), Ok(&next));
            }
            let (adoption, elsewhere) = directory.apply(&name, Some(next.clone()), &keys);
            prop_assert!(matches!(adoption, Adoption::Accepted | Adoption::Unchanged));
            prop_assert!(elsewhere.is_empty());
            prop_assert!(known.learn(&name, &next, &keys).is_ok());
            chain = next;
        }
        prop_assert_eq!(directory.chain("alice"), Some(&chain));
        prop_assert_eq!(known.chain(&name), Some(&chain));
        prop_assert_eq!(chain.home(), Some(&server));
        // No replaced key can come back, and nothing rolls back.
        for key in replaced {
            prop_assert!(chain.is_owned_by(&key));
        }
        if chain.links().len() > 1 {
            prop_assert!(ClaimChain::merge(&chain, &ClaimChain::single(first), &name, &keys).is_err());
        }
        prop_assert_eq!(ClaimChain::decode(&chain.encode()), Ok(chain));
    }

    #[test]
    fn any_flipped_bit_in_a_chain_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let name = Username::parse("alice").unwrap();
        let keys = OwnerKeys::inline_only();
        let (old, new) = (SecretSigningKey::from_seed(&[1; 32]), SecretSigningKey::from_seed(&[2; 32]));
        let expiry = "2030-01-31".parse().unwrap();
        let server = Cid::of_raw(b"server");
        let first = ClaimLink::sign(&name, expiry, server.clone(), &old).unwrap();
        let chain = ClaimChain::single(first)
            .with_new_key(&name, expiry, server, &old, &new)
            .unwrap();
        prop_assert_eq!(chain.valid(&name, &keys), Ok(()));
        let mut bytes = chain.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(read) = ClaimChain::decode(&bytes)
            && read != chain
        {
            prop_assert!(read.valid(&name, &keys).is_err());
        }
    }
}
