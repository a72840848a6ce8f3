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
