//! Keys of users, trusted on first use, and the account's own claim (Spec: 10 §4, §10; Spec: 40, row INT-9).

use champ::cbor::{Record as _, Value};
use cryptree::{
    ClientError, Misbehavior,
    client::{IfExists, Upkeep, UploadOptions},
};
use futures_util::{future::join, io::Cursor};
use pki::{
    chain::{ClaimChain, ClaimLink},
    claim::Date,
    keys::SecretSigningKey,
    username::Username,
};

use super::{PASSWORD, alice, client, files::put, machine};
use crate::fake::FakeNode;

fn key(seed: u8) -> SecretSigningKey {
    SecretSigningKey::from_seed(&[seed; 32])
}

fn chain_of(node: &FakeNode, name: &str, seed: u8, expiry: Date) -> ClaimChain {
    let name = Username::parse(name).unwrap();
    ClaimChain::single(ClaimLink::sign(&name, expiry, node.id.clone(), &key(seed)).unwrap())
}

fn set(node: &FakeNode, name: &str, chain: &ClaimChain) {
    let mut state = node.state.lock().unwrap();
    state.chains.insert(name.to_owned(), chain.clone());
}

#[tokio::test]
async fn int_9_a_key_is_trusted_on_first_use_and_then_replaced_by_its_holder_alone() {
    let (node, session) = alice().await;
    let bob = Username::parse("bob").unwrap();
    let expiry = Date::new(2027, 1, 31).unwrap();
    let later = Date::new(2027, 3, 31).unwrap();
    let first = chain_of(&node, "bob", 1, expiry);
    set(&node, "bob", &first);
    let owner = session.identity_of("bob").await.unwrap();
    assert_eq!(Some(&owner), first.identity());
    // Whatever the node says from now on, also to another device: the key stays, and a look-up costs it nothing.
    let other = machine(&node, 2).await;
    let mallory = chain_of(&node, "bob", 9, later);
    let renewed = |seed, expiry| {
        first
            .with_last_claim(&bob, expiry, node.id.clone(), &key(seed))
            .unwrap()
    };
    let stolen = first
        .with_new_key(&bob, later, node.id.clone(), &key(9), &key(9))
        .unwrap();
    let mut misnamed = chain_of(&node, "bob2", 1, later);
    for (lie, is_invalid) in [
        (&mallory, false),
        (&renewed(1, Date::new(2026, 12, 1).unwrap()), false),
        (&stolen, false),
        (&misnamed, true),
    ] {
        set(&node, "bob", lie);
        node.take_calls();
        assert_eq!(other.identity_of("bob").await.unwrap(), owner);
        assert!(
            !node
                .take_calls()
                .iter()
                .any(|call| call.starts_with("core/"))
        );
        let error = other.refresh_identity("bob").await.unwrap_err();
        match is_invalid {
            false => {
                assert!(matches!(error, ClientError::KeyChanged { .. }), "{error:?}");
                let words = "the key of bob changed in a way that bob did not sign";
                assert_eq!(error.to_string(), words);
            }
            true => assert!(
                matches!(
                    &error,
                    ClientError::Misbehavior(Misbehavior::BadClaimChain { .. })
                ),
                "{error:?}"
            ),
        }
        assert_eq!(session.identity_of("bob").await.unwrap(), owner);
    }
    // A renewal and a new key that bob's old one signed are taken over.
    let renewal = renewed(1, later);
    set(&node, "bob", &renewal);
    assert_eq!(other.refresh_identity("bob").await.unwrap(), owner);
    let next = renewal
        .with_new_key(&bob, later, node.id.clone(), &key(1), &key(2))
        .unwrap();
    set(&node, "bob", &next);
    assert_eq!(
        Some(&other.refresh_identity("bob").await.unwrap()),
        next.identity()
    );
    assert_eq!(
        Some(&session.identity_of("bob").await.unwrap()),
        next.identity()
    );
    // The old key does not come back.
    set(&node, "bob", &renewal);
    assert!(session.refresh_identity("bob").await.is_err());
    misnamed = ClaimChain::default();
    set(&node, "bob", &misnamed);
    let error = session.refresh_identity("bob").await.unwrap_err();
    assert!(
        matches!(error, ClientError::UnknownUser { .. }),
        "{error:?}"
    );
    let users = session.known_users().await.unwrap();
    assert_eq!(users.len(), 1);
    assert_eq!(
        (users[0].0.as_str(), &users[0].1),
        ("bob", next.identity().unwrap().hash())
    );
}

#[tokio::test]
async fn int_9_forged_first_claims_are_not_trusted() {
    let (node, session) = alice().await;
    let expiry = Date::new(2027, 1, 31).unwrap();
    let name = Username::parse("bob").unwrap();
    let good = ClaimLink::sign(&name, expiry, node.id.clone(), &key(1)).unwrap();
    let change = |field: usize, with: Value| {
        let mut map = good.to_value().into_map("link").unwrap();
        let mut claim = map.remove("claim").unwrap().into_list("claim").unwrap();
        claim[field] = with;
        map.insert("claim", claim);
        ClaimChain::new(vec![
            champ::cbor::Record::from_value(Value::Map(map)).unwrap(),
        ])
        .unwrap()
    };
    let id = Value::from(node.id.to_bytes());
    for forged in [
        change(0, "eve".into()),
        change(1, "2027-02-01".into()),
        change(2, Value::List(vec![id.clone(), id])),
        change(2, Value::List(Vec::new())),
        chain_of(&node, "eve", 1, expiry),
    ] {
        set(&node, "bob", &forged);
        let error = session.identity_of("bob").await.unwrap_err();
        assert!(
            matches!(
                &error,
                ClientError::Misbehavior(Misbehavior::BadClaimChain { .. })
            ),
            "{error:?}"
        );
        assert!(session.known_users().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn int_9_two_devices_that_learn_at_once_forget_nothing() {
    let (node, first) = alice().await;
    let second = machine(&node, 2).await;
    let expiry = Date::new(2027, 1, 31).unwrap();
    for (seed, name) in (1..).zip(["bob", "carol", "dave", "erin"]) {
        set(&node, name, &chain_of(&node, name, seed, expiry));
    }
    for (a, b) in [("bob", "carol"), ("dave", "erin")] {
        let (a, b) = join(first.identity_of(a), second.identity_of(b)).await;
        a.unwrap();
        b.unwrap();
    }
    let users = machine(&node, 3).await.known_users().await.unwrap();
    let names: Vec<&str> = users.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["bob", "carol", "dave", "erin"]);
    // A damaged list is told, and not replaced by an empty one.
    let options = UploadOptions {
        if_exists: IfExists::Replace,
        ..UploadOptions::default()
    };
    let mut rubbish = Cursor::new(b"rubbish");
    first
        .upload(
            "/alice/.keystore",
            &mut rubbish,
            Some(7),
            &options,
            &mut |_, _| {},
        )
        .await
        .unwrap();
    let error = second.identity_of("bob").await.unwrap_err();
    assert!(matches!(error, ClientError::CannotRead { .. }), "{error:?}");
    assert!(first.refresh_identity("bob").await.is_err());
}

#[tokio::test]
async fn a_claim_is_renewed_before_it_expires_and_missing_things_are_made() {
    let (node, session) = alice().await;
    let chain = node.state.lock().unwrap().chains["alice"].clone();
    assert_eq!(session.upkeep().await.unwrap(), Upkeep::default());
    // The list of keys is there once it was used.
    session.identity_of("alice").await.unwrap();
    session.delete("/alice/.keystore").await.unwrap();
    let expiry = Date::new(2027, 1, 31).unwrap();
    set(&node, "carol", &chain_of(&node, "carol", 3, expiry));
    session.identity_of("carol").await.unwrap();
    let fresh = session.upkeep().await.unwrap();
    let expected = Upkeep {
        noted_own_key: true,
        ..Upkeep::default()
    };
    assert_eq!(fresh, expected);
    assert_eq!(session.upkeep().await.unwrap(), Upkeep::default());
    assert_eq!(
        node.state.lock().unwrap().chains["alice"],
        chain,
        "two months are left"
    );

    // An account of another client: no token, and the claim runs out soon. The clock says November 2026.
    let bob = client(&node, 4).sign_up("bob", PASSWORD, "").await.unwrap();
    let due = {
        let mut state = node.state.lock().unwrap();
        state.bats.insert("bob".to_owned(), Vec::new());
        state.chains["bob"].clone()
    };
    drop(bob);
    let later = crate::fake::TestSurroundings::later(5, 40);
    let bob = cryptree::Client::new(node.clone(), std::sync::Arc::new(later));
    let bob = bob.sign_in("bob", PASSWORD).await.unwrap().done().unwrap();
    let done = bob.upkeep().await.unwrap();
    assert!(done.renewed_claim && done.made_mirror_token, "{done:?}");
    {
        let state = node.state.lock().unwrap();
        let renewed = &state.chains["bob"];
        assert_eq!(
            (renewed.identity(), renewed.home()),
            (due.identity(), due.home())
        );
        assert!(renewed.last().unwrap().claim.expiry > due.last().unwrap().claim.expiry);
        assert_eq!(state.bats["bob"].len(), 1);
    }
    put(&bob, "/bob/f", b"x").await.unwrap();

    // A node that gives the name to somebody else is told.
    let expiry = Date::new(2027, 1, 31).unwrap();
    set(&node, "alice", &chain_of(&node, "alice", 9, expiry));
    let error = session.upkeep().await.unwrap_err();
    assert!(
        matches!(
            &error,
            ClientError::Misbehavior(Misbehavior::IdentityMismatch { .. })
        ),
        "{error:?}"
    );
}

/// A device that has seen more says so; one that has seen nothing cannot know (Spec: 40, INT-5).
#[tokio::test]
async fn int_5_a_rolled_back_account_is_noticed_by_whoever_has_seen_more() {
    let (node, session) = alice().await;
    put(&session, "/alice/f", b"old").await.unwrap();
    let old = node.state.lock().unwrap().clone();
    session.delete("/alice/f").await.unwrap();
    put(&session, "/alice/f", b"new").await.unwrap();
    // What the device keeps between sessions.
    let saved = session.save(&super::KEY);
    drop(session);
    *node.state.lock().unwrap() = old;
    let again = client(&node, 2).restore(&saved, &super::KEY).unwrap();
    for attempt in 0..2 {
        let error = again.read("/alice/f", 100).await.unwrap_err();
        assert!(
            matches!(
                error,
                ClientError::Misbehavior(Misbehavior::Rollback { .. })
            ),
            "{attempt}: {error:?}"
        );
    }
    let error = put(&again, "/alice/g", b"1").await.unwrap_err();
    assert!(matches!(error, ClientError::Misbehavior(_)), "{error:?}");
    // A known limit: nothing that survived the roll-back tells a new device.
    let new = super::empty_machine(&node, 3).await.unwrap();
    assert_eq!(new.read("/alice/f", 100).await.unwrap(), b"old");
}

/// Whatever the node answers while its user works, nobody gets a key who was not given one (Spec: 40, INT-11).
#[tokio::test]
async fn int_11_no_answer_of_a_node_adds_a_reader_or_a_writer() {
    use crate::fake::Fault;

    let granted = |node: &FakeNode, owner: &pki::keys::Owner| {
        let state = node.state.lock().unwrap();
        let pointer = state.current(&owner.as_writer()).unwrap();
        let root = state.blocks[owner][pointer.updated().unwrap()].bytes();
        let data = pki::writer_data::WriterData::decode(root).unwrap();
        (data.owned, data.links, data.public, data.named.len())
    };
    let (node, session) = alice().await;
    put(&session, "/alice/f", b"secret").await.unwrap();
    let link = session.capability_link("/alice/f").await.unwrap();
    let capability: cryptree::capability::AbsoluteCapability = link.parse().unwrap();
    let before = granted(&node, &capability.owner);
    let mut replies: Vec<bytes::Bytes> = Vec::new();
    for round in 0..40_usize {
        let known = replies.clone();
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let keep = std::sync::Arc::clone(&seen);
        let mut count = 0;
        node.lie(move |_| {
            count += 1;
            let (known, keep) = (known.clone(), std::sync::Arc::clone(&keep));
            // One answer of each operation is another one: replayed, cut, emptied.
            let lies = count % 7 == round % 7;
            Fault::Reply(Box::new(move |body| {
                keep.lock().unwrap().push(body.clone());
                match (lies, round % 4) {
                    (false, _) => body,
                    (_, 0) => bytes::Bytes::new(),
                    (_, 1) => body.slice(..body.len() / 2),
                    (_, 2) => known
                        .get(round % known.len().max(1))
                        .cloned()
                        .unwrap_or(body),
                    _ => known.iter().rev().nth(round % 5).cloned().unwrap_or(body),
                }
            }))
        });
        let device = machine(&node, 100 + round as u64).await;
        let _ = put(&device, &format!("/alice/{round}"), b"x").await;
        let _ = device.read("/alice/f", 100).await;
        let _ = device.rename("/alice/f", "g").await;
        let _ = device.rename("/alice/g", "f").await;
        node.tell_the_truth();
        replies.extend(seen.lock().unwrap().drain(..).take(20));
    }
    assert_eq!(granted(&node, &capability.owner), before);
    let again = machine(&node, 3).await;
    for folder in ["/alice/shared", "/alice/.capabilitycache"] {
        let listing = again.list(folder, cryptree::client::Detail::Full).await;
        assert!(listing.unwrap().entries.is_empty(), "{folder}");
    }
    let found = match again.exists("/alice/f").await.unwrap() {
        true => "/alice/f",
        false => "/alice/g",
    };
    assert_eq!(again.read(found, 100).await.unwrap(), b"secret");
}
