//! A home that goes by a new identity, and one that only says so (Spec: 11 §2.4 step 3; Spec: 40, row P2P-8).

use std::sync::Arc;

use champ::{Cid, cbor::Record as _};
use cryptree::{
    Client, ClientError, Session,
    client::{HomeIdentity, Upkeep},
};
use futures_util::future::join;
use pki::{
    chain::ClaimChain,
    claim::placeholder_provider,
    keys::SecretSigningKey,
    node_identity::{Announcement, NotFollowed, Resolution, id_of_key, signed_bytes},
    wire::node_info::IdentityRecord,
};

use super::{KEY, alice, machine, prepared};
use crate::fake::{FakeNode, Fault, TestSurroundings};

const PUBLISH: &str = "core/updateChain";

fn key(n: u8) -> SecretSigningKey {
    SecretSigningKey::from_seed(&[n; 32])
}

fn id(n: u8) -> Cid {
    id_of_key(&key(n).public())
}

fn moved(to: u8) -> Resolution {
    Resolution {
        next: Some(id(to).hash().clone()),
        is_rotated: true,
        ..Resolution::first()
    }
}

/// Lets a node answer for the id of `of` with what the key `by` has signed.
fn set_record(node: &FakeNode, of: u8, by: u8, resolution: Resolution) {
    let announcement = Announcement {
        value: "/ipfs/bafkqaaa".into(),
        // Long ago: that a node has moved stays true.
        validity: "2020-01-01T00:00:00.1Z".into(),
        sequence: resolution.sequence,
        ttl: 1,
        resolution,
    };
    let data = announcement.encode();
    let record = IdentityRecord {
        signature: key(by).sign_detached(&signed_bytes(&data)).to_vec(),
        data,
    };
    let mut state = node.state.lock().unwrap();
    state.records.insert(id(of).bare_multihash_text(), record);
}

fn set_ids(node: &FakeNode, ids: &[Cid]) {
    node.state.lock().unwrap().ids = ids.to_vec();
}

fn chain(node: &FakeNode) -> ClaimChain {
    node.state.lock().unwrap().chains["alice"].clone()
}

/// A node by the id of key 1, and a session of `alice`, whose claim names it.
async fn at_home() -> (Arc<FakeNode>, Session) {
    let (node, session) = alice().await;
    set_ids(&node, &[id(1)]);
    let done = session.upkeep().await.unwrap();
    assert_eq!(done.home, HomeIdentity::Renewed);
    assert_eq!(chain(&node).home(), Some(&id(1)));
    node.take_calls();
    (node, session)
}

async fn nothing_is_published(node: &FakeNode, session: &Session, home: HomeIdentity) {
    let before = chain(node);
    node.take_calls();
    let done = session.upkeep().await.unwrap();
    let expected = Upkeep {
        home,
        ..Upkeep::default()
    };
    assert_eq!(done, expected);
    assert!(!node.take_calls().contains(&PUBLISH.to_owned()));
    assert_eq!(chain(node), before);
}

#[tokio::test]
async fn a_claim_that_names_no_node_names_the_one_that_is_asked_from_then_on() {
    let (node, session) = alice().await;
    assert_eq!(chain(&node).home(), Some(&placeholder_provider()));
    // As long as the node has no id that could be claimed, nothing changes.
    nothing_is_published(&node, &session, HomeIdentity::Unchanged).await;
    set_ids(&node, &[id(9), placeholder_provider()]);
    nothing_is_published(&node, &session, HomeIdentity::Unchanged).await;
    let before = chain(&node);
    set_ids(&node, &[id(9), id(1)]);
    assert_eq!(session.upkeep().await.unwrap().home, HomeIdentity::Renewed);
    let after = chain(&node);
    assert_eq!(after.home(), Some(&id(1)));
    assert_eq!(
        (after.links().len(), after.identity()),
        (1, before.identity())
    );
    assert!(after.last().unwrap().claim.expiry >= before.last().unwrap().claim.expiry);
    nothing_is_published(&node, &session, HomeIdentity::Unchanged).await;
}

#[tokio::test]
async fn p2p_8_a_claim_follows_the_signed_records_of_its_home() {
    let (node, session) = at_home().await;
    set_record(&node, 1, 1, moved(2));
    set_record(&node, 2, 2, moved(3));
    set_record(&node, 3, 3, Resolution::first());
    set_ids(&node, &[id(1), id(2), id(3)]);
    let done = session.upkeep().await.unwrap();
    assert_eq!(done.home, HomeIdentity::Renewed);
    assert!(!done.renewed_claim, "it would not have expired");
    assert_eq!(chain(&node).home(), Some(&id(3)));
    assert_eq!(chain(&node).links().len(), 1);
    // Another device, and the same one again.
    let other = machine(&node, 2).await;
    nothing_is_published(&node, &other, HomeIdentity::Unchanged).await;
    nothing_is_published(&node, &session, HomeIdentity::Unchanged).await;
}

/// What a node may say that would have an account for itself, or has lost its records.
#[tokio::test]
async fn p2p_8_a_claim_goes_nowhere_without_proof() {
    type Record = (u8, u8, Resolution);
    use NotFollowed::{Circle, Forged, InUse, NoRecord, NoSuccessor, TooLong};
    let (node, session) = at_home().await;
    let announced = |to| Resolution {
        is_rotated: false,
        ..moved(to)
    };
    let nowhere = Resolution {
        next: None,
        ..moved(2)
    };
    let long: Vec<_> = (1..=9).map(|n| (n, n, moved(n + 1))).collect();
    let cases: [(&[Record], u8, NotFollowed); 9] = [
        (&[], 2, NoRecord),
        (&[(1, 2, moved(2))], 2, Forged),
        (&[(1, 1, announced(2))], 2, InUse),
        (&[(1, 1, Resolution::first())], 2, InUse),
        (&[(1, 1, nowhere)], 2, NoSuccessor),
        // Its home has moved on, and not to where this one says.
        (&[(1, 1, moved(3)), (3, 3, Resolution::first())], 2, InUse),
        (&[(1, 1, moved(3))], 2, NoRecord),
        (&[(1, 1, moved(3)), (3, 3, moved(1))], 2, Circle),
        (&long, 10, TooLong),
    ];
    for (records, current, reason) in cases {
        node.state.lock().unwrap().records.clear();
        for (of, by, resolution) in records {
            set_record(&node, *of, *by, resolution.clone());
        }
        set_ids(&node, &[id(1), id(current)]);
        nothing_is_published(&node, &session, HomeIdentity::Unproven(reason)).await;
    }
    // Eight times are followed.
    set_ids(&node, &[id(1), id(9)]);
    assert_eq!(session.upkeep().await.unwrap().home, HomeIdentity::Renewed);
    assert_eq!(chain(&node).home(), Some(&id(9)));
}

#[tokio::test]
async fn p2p_8_of_rsa_keys_two_are_known_to_have_been_followed() {
    let parse = |text| Cid::parse_peer_id(text).unwrap();
    for (from, to) in [
        (
            "QmPqn9a1tJLpMtaCz1DSQNMAfsv6qXEx6XU2eLMTc2DVV4",
            "12D3KooWEnCzE4uSeniFaCGXQuV1UnYkvqvbQJnYC363S2abgknr",
        ),
        (
            "QmcoDbhCiVXGrWs6rwBvB59Gm44veo7Qxn2zmRnPw7BaCH",
            "12D3KooWFv6ZcoUKyaDBB7nR5SQg6HpmEbDXad48WyFSyEk7xrSR",
        ),
    ] {
        let (node, session) = alice().await;
        set_ids(&node, &[parse(from)]);
        session.upkeep().await.unwrap();
        assert_eq!(chain(&node).home(), Some(&parse(from)));
        nothing_is_published(&node, &session, HomeIdentity::Unchanged).await;
        // Another one may not follow, whoever says so.
        set_ids(&node, &[parse(from), id(2)]);
        let lost = HomeIdentity::Unproven(NotFollowed::NoRecord);
        nothing_is_published(&node, &session, lost).await;
        set_ids(&node, &[parse(from), parse(to)]);
        assert_eq!(session.upkeep().await.unwrap().home, HomeIdentity::Renewed);
        assert_eq!(chain(&node).home(), Some(&parse(to)));
    }
    let (node, session) = alice().await;
    let other = parse("QmVdFZgHnEgcedCS2G2ZNiEN59LuVrnRm7z3yXtEBv2XiF");
    set_ids(&node, std::slice::from_ref(&other));
    session.upkeep().await.unwrap();
    set_ids(&node, &[other, id(2)]);
    let refused = HomeIdentity::Unproven(NotFollowed::RsaKey);
    nothing_is_published(&node, &session, refused).await;
    assert!(!node.take_calls().contains(&"ipns/get".to_owned()));
}

#[tokio::test]
async fn p2p_8_a_foreign_node_does_not_draw_an_account_to_itself() {
    let (node, session) = at_home().await;
    // Whatever records it has of its own.
    set_record(&node, 2, 2, moved(3));
    set_ids(&node, &[id(2), id(3)]);
    nothing_is_published(&node, &session, HomeIdentity::Unchanged).await;
    set_ids(&node, &[id(3)]);
    nothing_is_published(&node, &session, HomeIdentity::Unchanged).await;
    // One that tells no ids.
    node.lie(|request| match request.path.as_ref() {
        "api/v0/ids" => Fault::Instead(cryptree::ApiResponse {
            status: 404,
            trailer: None,
            body: Default::default(),
        }),
        _ => Fault::Honest,
    });
    nothing_is_published(&node, &session, HomeIdentity::Unchanged).await;
}

#[tokio::test]
async fn a_claim_that_cannot_be_published_now_is_renewed_another_time() {
    let (node, session) = at_home().await;
    set_record(&node, 1, 1, moved(2));
    set_ids(&node, &[id(1), id(2)]);
    let before = chain(&node);
    node.lie(|request| match request.path.as_ref() {
        "peergos/v0/core/updateChain" => Fault::Instead(cryptree::ApiResponse {
            status: 400,
            trailer: Some("The+name+authority+does+not+answer".to_owned()),
            body: Default::default(),
        }),
        _ => Fault::Honest,
    });
    let error = session.upkeep().await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error:?}");
    assert_eq!(chain(&node), before);
    // The answer is lost: nobody knows whether it is done, and asking again is no harm.
    let mut lost = 1;
    node.lie(move |request| match request.path.as_ref() {
        "peergos/v0/core/updateChain" if lost > 0 => {
            lost -= 1;
            Fault::DropReply
        }
        _ => Fault::Honest,
    });
    assert_eq!(session.upkeep().await.unwrap().home, HomeIdentity::Renewed);
    assert_eq!(chain(&node).home(), Some(&id(2)));
}

/// The one that comes second has an older clock: what it publishes would end earlier.
#[tokio::test]
async fn two_devices_may_renew_a_claim_at_once() {
    let (node, first) = at_home().await;
    set_record(&node, 1, 1, moved(2));
    set_ids(&node, &[id(1), id(2)]);
    let later = Client::new(node.clone(), Arc::new(TestSurroundings::later(5, 1)));
    let second = later.restore(&prepared().await.1, &KEY).unwrap();
    let mut calls = 0;
    node.lie(move |request| match request.path.as_ref() {
        "peergos/v0/core/updateChain" => {
            calls += 1;
            if calls == 1 {
                Fault::Slow(500, 0)
            } else {
                Fault::Honest
            }
        }
        _ => Fault::Honest,
    });
    let (one, two) = join(first.upkeep(), second.upkeep()).await;
    assert_eq!(one.unwrap().home, HomeIdentity::Renewed);
    assert_eq!(two.unwrap().home, HomeIdentity::Renewed);
    assert_eq!(chain(&node).home(), Some(&id(2)));
    nothing_is_published(&node, &first, HomeIdentity::Unchanged).await;
}
