//! Passwords, saved sessions, and what is sent about them (Spec: 08, 21 security checks; Spec: 40, LOG-7).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use champ::{Block, cbor::Record};
use cryptree::{
    ClientError, Misbehavior, Session, ciphertext::CipherText, client::Detail, crypto::SymmetricKey,
};
use pki::{
    keys::{SecretKeyWithHash, SecretSigningKey},
    owned::{OwnerProof, owned_key_label},
    pointer::{PointerUpdate, SignedPointer},
    writer_data::WriterData,
};

use super::{
    PASSWORD, alice, client, empty_machine,
    files::{get, names, put},
};
use crate::fake::{FakeNode, Fault};

#[tokio::test]
async fn password_change_takes_effect_at_once_and_only_with_the_old_one() {
    let (node, session) = alice().await;
    put(&session, "/alice/f", b"kept").await.unwrap();
    let wrong = session
        .change_password("wrong", "new password")
        .await
        .unwrap_err();
    assert!(matches!(wrong, ClientError::WrongCredentials));
    let weak = session
        .change_password(PASSWORD, "alice")
        .await
        .unwrap_err();
    assert!(matches!(weak, ClientError::WeakPassword { .. }));
    session
        .change_password(PASSWORD, "new password")
        .await
        .unwrap();
    assert!(matches!(
        empty_machine(&node, 6).await.unwrap_err(),
        ClientError::WrongCredentials
    ));
    let again = client(&node, 5)
        .sign_in("alice", "new password")
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(get(&again, "/alice/f").await, b"kept");
    assert_eq!(
        names(&session, "/alice").await,
        names(&again, "/alice").await
    );
    // A session that is older than the password can change it again, with the present one only.
    let old = session.change_password(PASSWORD, "newest password").await;
    assert!(matches!(old, Err(ClientError::WrongCredentials)));
    let changed = session.change_password("new password", "newest password");
    changed.await.unwrap();
    let newest = client(&node, 7).sign_in("alice", "newest password").await;
    assert_eq!(
        get(&newest.unwrap().done().unwrap(), "/alice/f").await,
        b"kept"
    );
}

#[tokio::test]
async fn log_7_a_torn_password_change_leaves_one_password_that_works() {
    for lost in 0..6 {
        for fault in [|| Fault::DropReply, || Fault::Unreachable] {
            let (node, session) = alice().await;
            let count = Arc::new(AtomicUsize::new(0));
            node.lie(
                move |_| match count.fetch_add(1, Ordering::Relaxed) >= lost {
                    true => fault(),
                    false => Fault::Honest,
                },
            );
            let result = session.change_password(PASSWORD, "new password").await;
            node.tell_the_truth();
            let old = client(&node, 6).sign_in("alice", PASSWORD).await;
            let new = client(&node, 7).sign_in("alice", "new password").await;
            assert!(
                old.is_ok() != new.is_ok(),
                "call {lost}: exactly one password works"
            );
            if result.is_ok() {
                assert!(new.is_ok());
            }
        }
    }
}

#[tokio::test]
async fn saved_session_works_without_the_password_and_only_with_its_key() {
    let (node, session) = alice().await;
    put(&session, "/alice/f", b"x").await.unwrap();
    let key = [1; 32];
    let saved = session.save(&key);
    node.take_calls();
    let restored = client(&node, 3).restore(&saved, &key).unwrap();
    assert!(node.take_calls().is_empty(), "nothing is sent");
    assert_eq!(get(&restored, "/alice/f").await, b"x");
    put(&restored, "/alice/g", b"y").await.unwrap();
    let other = [2; 32];
    for (bytes, key) in [(&saved[..], &other), (&saved[1..], &key), (&[][..], &key)] {
        let error = client(&node, 3).restore(bytes, key).unwrap_err();
        assert!(matches!(error, ClientError::BadSession));
    }
}

/// Returns the identity key of a session, by opening its saved form.
fn identity_of(session: &Session) -> SecretKeyWithHash {
    struct Whole(champ::cbor::Value);
    impl Record for Whole {
        fn to_value(&self) -> champ::cbor::Value {
            self.0.clone()
        }
        fn from_value(value: champ::cbor::Value) -> Result<Self, champ::cbor::RecordError> {
            Ok(Self(value))
        }
    }
    let key = SymmetricKey::from_bytes([1; 32]);
    let saved = CipherText::decode(&session.save(&[1; 32])).unwrap();
    let Whole(value) = saved.open(&key).unwrap();
    let map = value.into_map("saved").unwrap();
    SecretKeyWithHash::from_value(map.get("i").unwrap().clone()).unwrap()
}

/// Makes the identity point to a root block of a test's making.
fn publish(node: &FakeNode, identity: &SecretKeyWithHash, blocks: Vec<Block>, root: Block) {
    let mut state = node.state.lock().unwrap();
    let writer = identity.writer();
    let owner = state.writers[&writer].clone();
    let current = state.current(&writer).unwrap();
    let update = PointerUpdate::next(Some(&current), Some(root.cid().clone())).unwrap();
    let signed = SignedPointer::sign(update, identity.secret()).into_bytes();
    let space = state.blocks.get_mut(&owner).unwrap();
    for block in blocks.into_iter().chain([root]) {
        space.insert(block.cid().clone(), block);
    }
    state.pointers.insert(writer, signed);
}

fn root_of(node: &FakeNode, identity: &SecretKeyWithHash) -> WriterData {
    let state = node.state.lock().unwrap();
    let owner = &state.writers[&identity.writer()];
    let root = state.current(&identity.writer()).unwrap();
    WriterData::decode(state.blocks[owner][root.updated().unwrap()].bytes()).unwrap()
}

async fn owned_champ(entries: Vec<(Vec<u8>, &Block)>) -> (champ::Cid, Vec<Block>) {
    let none = champ::MemoryBlocks::new();
    let mut champ = champ::map::Champ::empty();
    for (key, block) in entries {
        let value = champ::cbor::Value::Link(block.cid().clone());
        champ.put(key, None, value, &none).await.unwrap();
    }
    champ.finish().unwrap()
}

#[tokio::test]
async fn int_7_a_home_writer_that_the_identity_does_not_own_is_refused() {
    let (node, session) = alice().await;
    let identity = identity_of(&session);
    let data = root_of(&node, &identity);
    let home = {
        let state = node.state.lock().unwrap();
        state
            .writers
            .keys()
            .find(|w| **w != identity.writer())
            .unwrap()
            .clone()
    };
    let other = SecretKeyWithHash::new(SecretSigningKey::from_seed(&[4; 32]));
    // No proof; a proof by the right key's place holder; a proof for another parent.
    let foreign = Block::cbor(OwnerProof::make(&other, identity.hash()).encode()).unwrap();
    for entries in [vec![], vec![(owned_key_label(&home.0), &foreign)]] {
        let (owned, mut blocks) = owned_champ(entries).await;
        blocks.push(foreign.clone());
        let mut data = data.clone();
        data.owned = Some(owned);
        publish(&node, &identity, blocks, data.to_block().unwrap());
        let error = empty_machine(&node, 2).await.unwrap_err();
        assert!(
            matches!(
                error,
                ClientError::Misbehavior(Misbehavior::UnownedWriter { .. })
            ),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn int_7_a_root_block_of_another_controller_is_refused() {
    let (node, session) = alice().await;
    let identity = identity_of(&session);
    let mut data = root_of(&node, &identity);
    data.controller = SecretKeyWithHash::new(SecretSigningKey::from_seed(&[4; 32])).writer();
    publish(&node, &identity, vec![], data.to_block().unwrap());
    let error = empty_machine(&node, 2).await.unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Misbehavior(Misbehavior::ControllerMismatch { .. })
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn deleted_account_is_named_as_such() {
    let (node, session) = alice().await;
    let identity = identity_of(&session);
    {
        let mut state = node.state.lock().unwrap();
        let current = state.current(&identity.writer()).unwrap();
        let update = PointerUpdate::next(Some(&current), None).unwrap();
        let signed = SignedPointer::sign(update, identity.secret()).into_bytes();
        state.pointers.insert(identity.writer(), signed);
    }
    let error = empty_machine(&node, 2).await.unwrap_err();
    assert!(matches!(error, ClientError::AccountDeleted { .. }));
}

#[tokio::test]
async fn prv_1_neither_names_nor_content_nor_keys_leave_the_client() {
    let node = FakeNode::new();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let recorder = Arc::clone(&seen);
    node.lie(move |request| {
        let mut seen = recorder.lock().unwrap();
        seen.extend_from_slice(request.target().as_bytes());
        seen.extend_from_slice(request.body.as_deref().unwrap_or_default());
        Fault::Honest
    });
    let session = client(&node, 1)
        .sign_up("alice", PASSWORD, "")
        .await
        .unwrap();
    let canaries = [
        "folder-canary-8c1f",
        "file-canary-77aa2.txt",
        "content-canary-e5d0b",
    ];
    session
        .make_folder(&format!("/alice/{}", canaries[0]))
        .await
        .unwrap();
    let path = format!("/alice/{}/{}", canaries[0], canaries[1]);
    put(&session, &path, canaries[2].as_bytes()).await.unwrap();
    let large = canaries[2].repeat(400_000);
    put(&session, &format!("{path}.large"), large.as_bytes())
        .await
        .unwrap();
    session
        .list(&format!("/alice/{}", canaries[0]), Detail::Full)
        .await
        .unwrap();
    get(&session, &format!("{path}.large")).await;
    let identity = identity_of(&session);
    let seen = seen.lock().unwrap();
    let has = |needle: &[u8]| seen.windows(needle.len()).any(|window| window == needle);
    for canary in canaries {
        assert!(!has(canary.as_bytes()), "{canary} was sent");
    }
    assert!(!has(PASSWORD.as_bytes()));
    assert!(!has(&identity.secret().seed()[..]));
}
