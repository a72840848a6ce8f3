//! Accounts from before the hybrid boxing keys get one (Spec: 21 §6 step 12, 02 §5.2; 40 SC-11).

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use champ::{Block, cbor::Record};
use cryptree::{
    ClientError, Session,
    client::BoxingUpgrade,
    crypto::{BoxingKeyPair, CurveSecretKey, SecretBoxingKey},
    login::{EntryPoints, LoginKeys, UserStaticData},
};
use pki::{
    algorithm::LoginAlgorithm,
    boxing::PublicBoxingKey,
    keys::SecretKeyWithHash,
    pointer::{PointerUpdate, SignedPointer},
    wire::{login_data::OpaqueCipherText, social::FollowRequest},
    writer_data::WriterData,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::{
    KEY, PASSWORD, accounts, client, empty_machine,
    files::{get, put},
    prepared,
};
use crate::fake::{FakeNode, Fault, State};

/// What the account of `alice` publishes, and what her login data hold.
struct Stored {
    data: WriterData,
    pointer: PointerUpdate,
    keys: LoginKeys,
    entry_points: EntryPoints,
}

fn stored(state: &State) -> Stored {
    let owner = state.chains["alice"].identity().unwrap().clone();
    let pointer = state.current(&owner.as_writer()).unwrap();
    let block = &state.blocks[&owner][pointer.updated().unwrap()];
    let data = WriterData::in_block(block, &owner.as_writer()).unwrap();
    let algorithm = data.algorithm.clone().unwrap();
    let keys = keys_of(&algorithm);
    let record = UserStaticData::from_value(state.logins["alice"].1.to_value()).unwrap();
    let entry_points = record.open(&keys.root).unwrap();
    Stored {
        data,
        pointer,
        keys,
        entry_points,
    }
}

/// Derives the keys of the password once for each salt: that takes a third of a second.
fn keys_of(algorithm: &LoginAlgorithm) -> LoginKeys {
    static KNOWN: Mutex<Vec<(LoginAlgorithm, LoginKeys)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap();
    if let Some((_, keys)) = known.iter().find(|(known, _)| known == algorithm) {
        return keys.clone();
    }
    let keys = LoginKeys::derive("alice", PASSWORD, algorithm).unwrap();
    known.push((algorithm.clone(), keys.clone()));
    keys
}

fn curve_pair() -> BoxingKeyPair {
    BoxingKeyPair::new(SecretBoxingKey::Curve25519(CurveSecretKey::from_bytes(
        [5; 32],
    )))
    .unwrap()
}

/// A node with the account of `alice` as clients made it before there were hybrid keys.
async fn older() -> Arc<FakeNode> {
    let node = FakeNode::new();
    let mut state = prepared().await.0.clone();
    let Stored {
        mut data,
        pointer,
        keys,
        entry_points,
    } = stored(&state);
    let entry_points = entry_points.with_boxing(curve_pair());
    let identity = entry_points.identity.as_ref().unwrap().secret().clone();
    let identity = SecretKeyWithHash::new(identity);
    let owner = state.chains["alice"].identity().unwrap().clone();
    data.inbound = Some(curve_pair().public().hash());
    let root = Block::cbor(data.encode()).unwrap();
    let update = PointerUpdate::next(Some(&pointer), Some(root.cid().clone())).unwrap();
    let signed = SignedPointer::sign(update, identity.secret());
    state
        .pointers
        .insert(identity.writer(), signed.into_bytes());
    let space = state.blocks.get_mut(&owner).unwrap();
    space.insert(root.cid().clone(), root);
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let sealed = UserStaticData::seal(&keys.root, &entry_points, &mut rng);
    let record = OpaqueCipherText::from_value(sealed.to_value()).unwrap();
    state.logins.get_mut("alice").unwrap().1 = record;
    *node.state.lock().unwrap() = state;
    node
}

/// Checks that what is published can be opened with what the login data hold, and returns true when it is hybrid.
fn is_consistent(node: &FakeNode) -> bool {
    let state = node.state.lock().unwrap();
    let Stored {
        data, entry_points, ..
    } = stored(&state);
    let pair = entry_points.boxing.as_ref().unwrap();
    let published = data.inbound.unwrap();
    assert_eq!(pair.public().hash(), published);
    if !entry_points.has_hybrid_boxing() {
        return false;
    }
    let owner = state.chains["alice"].identity().unwrap();
    let block = &state.blocks[owner][published.cid()];
    let public = PublicBoxingKey::in_block(&published, block).unwrap();
    let mut rng = ChaCha20Rng::from_seed([8; 32]);
    let sender = SecretBoxingKey::random(&mut rng);
    let sealed = sender.seal(b"hello", &public, &mut rng).unwrap();
    let opened = pair.secret().open(&sealed, &sender.public().unwrap());
    assert_eq!(opened.unwrap().as_slice(), b"hello");
    true
}

async fn done(session: &Session) -> Session {
    match session.upgrade_boxing(PASSWORD).await.unwrap() {
        BoxingUpgrade::Done(session) => session,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn sc_11_an_older_account_gets_a_hybrid_key_and_new_ones_have_it() {
    let node = older().await;
    let session = empty_machine(&node, 2).await.unwrap();
    put(&session, "/alice/f", b"content").await.unwrap();
    assert!(!session.has_hybrid_boxing() && !is_consistent(&node));
    let wrong = session.upgrade_boxing("not the password").await;
    assert!(matches!(wrong, Err(ClientError::WrongCredentials)));
    // What waits could not be opened any more.
    let waiting = FollowRequest::decode(&{
        let map = champ::cbor::Map::from_iter([
            ("f", champ::cbor::Value::from(vec![1; 552])),
            ("k", curve_pair().public().to_value()),
        ]);
        champ::cbor::Value::Map(map).encode()
    });
    node.state.lock().unwrap().follow_requests = vec![waiting.unwrap()];
    let refused = session.upgrade_boxing(PASSWORD).await.unwrap();
    assert!(matches!(refused, BoxingUpgrade::RequestsPending(1)));
    assert!(!is_consistent(&node));
    node.state.lock().unwrap().follow_requests.clear();
    let upgraded = done(&session).await;
    node.collect_garbage();
    assert!(upgraded.has_hybrid_boxing() && is_consistent(&node));
    assert!(matches!(
        upgraded.upgrade_boxing(PASSWORD).await.unwrap(),
        BoxingUpgrade::Present
    ));
    // The password is the same, and so is everything else.
    let again = empty_machine(&node, 3).await.unwrap();
    assert!(again.has_hybrid_boxing());
    assert_eq!(get(&again, "/alice/f").await, b"content");
    // Made by our own sign-up.
    let fresh = FakeNode::new();
    *fresh.state.lock().unwrap() = prepared().await.0.clone();
    assert!(is_consistent(&fresh));
}

#[tokio::test]
async fn an_older_session_goes_on_and_cannot_bring_the_old_key_back() {
    let node = older().await;
    let session = empty_machine(&node, 2).await.unwrap();
    let saved = session.save(&KEY);
    let upgraded = done(&session).await;
    let other = client(&node, 3).restore(&saved, &KEY).unwrap();
    put(&other, "/alice/f", b"x").await.unwrap();
    let refused = other.change_password(PASSWORD, "another password").await;
    assert!(
        matches!(refused, Err(ClientError::BadSession)),
        "{refused:?}"
    );
    let refused = other.upgrade_boxing(PASSWORD).await;
    assert!(
        matches!(refused, Err(ClientError::BadSession)),
        "{refused:?}"
    );
    assert!(is_consistent(&node));
    upgraded.change_password(PASSWORD, PASSWORD).await.unwrap();
    assert!(is_consistent(&node));
}

#[tokio::test]
async fn a_torn_upgrade_never_publishes_a_key_that_nobody_has() {
    let saved = empty_machine(&older().await, 1).await.unwrap().save(&KEY);
    let mut upgraded = 0;
    // Each run derives a key; the first two calls only read.
    for lost in 2..8 {
        let faults: &[fn() -> Fault] = match lost % 2 {
            0 => &[|| Fault::DropReply, || Fault::Unreachable],
            _ => &[|| Fault::DropReply],
        };
        for fault in faults {
            let fault = *fault;
            let node = older().await;
            let session = client(&node, 2).restore(&saved, &KEY).unwrap();
            let count = Arc::new(AtomicUsize::new(0));
            node.lie(
                move |_| match count.fetch_add(1, Ordering::Relaxed) >= lost {
                    true => fault(),
                    false => Fault::Honest,
                },
            );
            let result = session.upgrade_boxing(PASSWORD).await;
            node.tell_the_truth();
            let is_hybrid = is_consistent(&node);
            assert!(is_hybrid || result.is_err());
            upgraded += usize::from(is_hybrid);
        }
    }
    assert!(upgraded > 0);
}

#[tokio::test]
async fn an_upgrade_that_another_client_left_halfway_is_finished() {
    let node = older().await;
    done(&empty_machine(&node, 2).await.unwrap()).await;
    {
        // The secret is stored, the old public key is still published.
        let state = &mut *node.state.lock().unwrap();
        let Stored {
            mut data,
            pointer,
            entry_points,
            ..
        } = stored(state);
        data.inbound = Some(curve_pair().public().hash());
        let root = Block::cbor(data.encode()).unwrap();
        let update = PointerUpdate::next(Some(&pointer), Some(root.cid().clone())).unwrap();
        let identity = entry_points.identity.unwrap().secret().clone();
        let identity = SecretKeyWithHash::new(identity);
        let signed = SignedPointer::sign(update, identity.secret());
        state
            .pointers
            .insert(identity.writer(), signed.into_bytes());
        let owner = state.chains["alice"].identity().unwrap().clone();
        let space = state.blocks.get_mut(&owner).unwrap();
        space.insert(root.cid().clone(), root);
    }
    let session = empty_machine(&node, 3).await.unwrap();
    let upgrade = session.upgrade_boxing(PASSWORD).await.unwrap();
    assert!(matches!(upgrade, BoxingUpgrade::Present));
    assert!(is_consistent(&node));
}

#[tokio::test]
async fn an_account_of_the_old_layout_gets_a_hybrid_key_too() {
    let accounts::Account { node, case } = accounts::load("signup_account_legacy.json");
    let name = case["username"].as_str().unwrap();
    let password = case["password"].as_str().unwrap();
    let sign_in = async |seed| {
        let signed_in = client(&node, seed).sign_in(name, password).await;
        signed_in.unwrap().done().unwrap()
    };
    let session = sign_in(2).await;
    assert!(!session.has_hybrid_boxing());
    let upgrade = session.upgrade_boxing(password).await.unwrap();
    assert!(matches!(upgrade, BoxingUpgrade::Done(_)));
    let session = sign_in(3).await;
    assert!(session.has_hybrid_boxing());
    accounts::has_expected_tree(&session, &case).await;
}
