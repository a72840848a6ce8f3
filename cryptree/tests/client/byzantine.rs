//! A node that lies (Spec: 40, rows INT-*; test means H2).
//!
//! Each test makes a fake node answer one class of call wrongly and expects an error of its own kind, never wrong
//! content, never "absent".

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use champ::{Block, cbor::Record};
use cryptree::{
    ClientError, Misbehavior,
    client::{Detail, SignIn},
};
use pki::{
    keys::{SecretSigningKey, Writer},
    pointer::{PointerUpdate, SignedPointer},
    wire::{Body, champ_lookup::ChampLookupReply},
};
use rand_core::SeedableRng;

use super::{
    PASSWORD, alice, client, empty_machine,
    files::{content, get, put},
    machine,
};
use crate::fake::{FakeNode, Fault, node::ok};

fn flip(body: &Bytes, at: usize) -> Bytes {
    let mut bytes = body.to_vec();
    if !bytes.is_empty() {
        let at = at % bytes.len();
        bytes[at] ^= 1;
    }
    bytes.into()
}

fn misbehavior(error: ClientError) -> Misbehavior {
    match error {
        ClientError::Misbehavior(misbehavior) => misbehavior,
        other => panic!("{other:?}"),
    }
}

/// Makes the node answer every call to `path` with a changed body.
fn change(node: &FakeNode, path: &'static str, change: fn(Bytes) -> Bytes) {
    node.lie(move |request| match request.path == path {
        true => Fault::Reply(Box::new(change)),
        false => Fault::Honest,
    });
}

#[tokio::test]
async fn int_1_damaged_blocks_are_refused_wherever_they_are_served() {
    let (node, session) = alice().await;
    put(&session, "/alice/large", &content(11 << 20, 1))
        .await
        .unwrap();
    let changes: [fn(Bytes) -> Bytes; 4] = [
        |body| flip(&body, 12_345),
        |body| body.slice(..body.len() - 1),
        |body| [&body[..], &[0]].concat().into(),
        |_| Bytes::from_static(b"\xa0"),
    ];
    for lie in changes {
        node.tell_the_truth();
        let honest = machine(&node, 2).await;
        change(&node, "api/v0/block/get", lie);
        let mut out = Vec::new();
        let error = honest
            .download("/alice/large", &mut out, &mut |_, _| {})
            .await
            .unwrap_err();
        assert!(matches!(
            misbehavior(error),
            Misbehavior::HashMismatch { .. }
        ));
        assert!(
            out.is_empty(),
            "nothing of an unverified chunk is given out"
        );
        let error = empty_machine(&node, 3).await.unwrap_err();
        assert!(matches!(
            misbehavior(error),
            Misbehavior::HashMismatch { .. }
        ));
    }
}

#[tokio::test]
async fn int_1_swapped_blocks_are_refused() {
    let (node, session) = alice().await;
    put(&session, "/alice/large", &content(11 << 20, 1))
        .await
        .unwrap();
    let again = machine(&node, 2).await;
    let other = Block::raw(content(1000, 9)).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    node.lie(move |request| {
        // One fragment in the middle of the file.
        let is_get = request.path == "api/v0/block/get";
        if is_get && count.fetch_add(1, Ordering::Relaxed) == 7 {
            return Fault::Instead(ok(other.bytes().clone()));
        }
        Fault::Honest
    });
    let mut out = Vec::new();
    let error = again
        .download("/alice/large", &mut out, &mut |_, _| {})
        .await
        .unwrap_err();
    assert!(matches!(
        misbehavior(error),
        Misbehavior::HashMismatch { .. }
    ));
    assert!(content(11 << 20, 1).starts_with(&out));
}

#[tokio::test]
async fn int_2_lookups_without_or_with_foreign_blocks_never_show_absence() {
    let (node, session) = alice().await;
    for n in 0..30 {
        put(&session, &format!("/alice/{n}"), b"x").await.unwrap();
    }
    let replies: [fn(Bytes) -> Bytes; 4] = [
        |_| ChampLookupReply(Vec::new()).to_body().into(),
        |body| {
            let mut reply = ChampLookupReply::from_body(&body).unwrap();
            reply.0.pop();
            reply.to_body().into()
        },
        |_| {
            let blocks = (0..4000u32).map(|n| Bytes::from(n.to_be_bytes().to_vec()));
            ChampLookupReply(blocks.collect()).to_body().into()
        },
        |_| Bytes::from_static(b"\xff\xff"),
    ];
    for reply in replies {
        node.tell_the_truth();
        let again = machine(&node, 2).await;
        change(&node, "api/v0/champ/get/bulk", reply);
        // The walk goes on block by block.
        assert_eq!(get(&again, "/alice/17").await, b"x");
        let error = again.stat("/alice/31").await.unwrap_err();
        assert!(matches!(error, ClientError::NotFound { .. }));
    }
}

#[tokio::test]
async fn int_14_withheld_tree_nodes_and_fragments_are_errors_never_absence() {
    let (node, session) = alice().await;
    for n in 0..40 {
        put(&session, &format!("/alice/{n}"), b"x").await.unwrap();
    }
    put(&session, "/alice/large", &content(200_000, 1))
        .await
        .unwrap();
    let again = machine(&node, 2).await;
    node.lie(|request| match request.path.as_ref() {
        "api/v0/champ/get/bulk" => Fault::Instead(ok(ChampLookupReply(Vec::new()).to_body())),
        "api/v0/block/get" => Fault::Instead(ok(Bytes::new())),
        _ => Fault::Honest,
    });
    for path in ["/alice/17", "/alice/none", "/alice/large"] {
        let error = again.stat(path).await.unwrap_err();
        assert!(matches!(
            misbehavior(error),
            Misbehavior::BlockWithheld { .. }
        ));
    }
    node.tell_the_truth();
    let again = machine(&node, 3).await;
    let file = again.open_file("/alice/large").await.unwrap();
    node.lie(|request| match request.path.as_ref() {
        "api/v0/block/get" => Fault::Instead(ok(Bytes::new())),
        _ => Fault::Honest,
    });
    let error = file.read_at(0, 10).await.unwrap_err();
    assert!(matches!(
        misbehavior(error),
        Misbehavior::BlockWithheld { .. }
    ));
}

#[tokio::test]
async fn int_3_forged_pointers_are_refused() {
    let (node, session) = alice().await;
    let forger = SecretSigningKey::from_seed(&[7; 32]);
    let (_, update) = home_pointer(&node);
    let forged: Vec<Bytes> = vec![
        SignedPointer::sign(update.clone(), &forger).into_bytes(),
        update.encode().into(),
        Bytes::from_static(&[0; 64]),
        Bytes::from_static(b"short"),
    ];
    for reply in forged {
        let reply = reply.clone();
        node.lie(move |request| match request.path.as_ref() {
            "peergos/v0/mutable/getPointer" => Fault::Instead(ok(reply.clone())),
            _ => Fault::Honest,
        });
        let error = session.list("/alice", Detail::Quick).await.unwrap_err();
        assert!(matches!(
            misbehavior(error),
            Misbehavior::ForgedPointer { .. }
        ));
    }
    change(&node, "peergos/v0/mutable/getPointer", |body| {
        flip(&body, 90)
    });
    let error = session.list("/alice", Detail::Quick).await.unwrap_err();
    assert!(matches!(
        misbehavior(error),
        Misbehavior::ForgedPointer { .. }
    ));
}

/// Returns the home writer and its current pointer.
fn home_pointer(node: &FakeNode) -> (Writer, PointerUpdate) {
    let state = node.state.lock().unwrap();
    let owner = state.chains["alice"].identity().unwrap().as_writer();
    let home = state
        .writers
        .keys()
        .find(|writer| **writer != owner)
        .unwrap()
        .clone();
    let update = state.current(&home).unwrap();
    (home, update)
}

#[tokio::test]
async fn int_4_old_and_forked_pointers_are_refused_also_by_a_restored_session() {
    let (node, session) = alice().await;
    let (home, _) = home_pointer(&node);
    let old = node.state.lock().unwrap().pointers[&home].clone();
    session.make_folder("/alice/new").await.unwrap();
    let new = node.state.lock().unwrap().pointers[&home].clone();
    let key = [5; 32];
    let restored = client(&node, 9).restore(&session.save(&key), &key).unwrap();
    node.state
        .lock()
        .unwrap()
        .pointers
        .insert(home.clone(), old.clone());
    for session in [&session, &restored] {
        let error = session.list("/alice", Detail::Quick).await.unwrap_err();
        assert!(matches!(
            misbehavior(error),
            Misbehavior::Rollback {
                seen: 2,
                served: 1,
                ..
            }
        ));
        let error = session.make_folder("/alice/x").await.unwrap_err();
        assert!(matches!(misbehavior(error), Misbehavior::Rollback { .. }));
    }
    // A second device writes on the old state: another pointer with a sequence that was seen.
    let fork = machine(&node, 3).await;
    fork.make_folder("/alice/fork").await.unwrap();
    for session in [&session, &restored] {
        let error = session.list("/alice", Detail::Quick).await.unwrap_err();
        assert!(matches!(
            misbehavior(error),
            Misbehavior::Equivocation { sequence: 2, .. }
        ));
    }
    node.state
        .lock()
        .unwrap()
        .pointers
        .insert(home.clone(), new);
    session.list("/alice", Detail::Quick).await.unwrap();
    node.state.lock().unwrap().pointers.remove(&home);
    let error = session.list("/alice", Detail::Quick).await.unwrap_err();
    assert!(matches!(misbehavior(error), Misbehavior::Rollback { .. }));
}

#[tokio::test]
async fn int_6_wrong_answers_to_block_writes_stop_before_the_pointer_moves() {
    let (node, session) = alice().await;
    let before = home_pointer(&node);
    let answers: [fn(Bytes) -> Bytes; 4] = [
        |body| body.slice(..body.len() / 2),
        |body| [&body[..], &body[..]].concat().into(),
        |_| Bytes::new(),
        |_| {
            let cid = champ::Cid::of_cbor(b"x");
            format!("{{\"Hash\":\"{cid}\"}}").repeat(4).into()
        },
    ];
    for answer in answers {
        change(&node, "api/v0/block/put/bulk", answer);
        let error = session.make_folder("/alice/x").await.unwrap_err();
        assert!(matches!(misbehavior(error), Misbehavior::WrongPutAnswer));
        assert_eq!(home_pointer(&node), before);
    }
}

#[tokio::test]
async fn int_6_lost_answers_to_pointer_writes_end_in_exactly_one_state() {
    let (node, session) = alice().await;
    for (n, dropped) in [(0, true), (1, false)] {
        let count = Arc::new(AtomicUsize::new(0));
        node.lie(move |request| {
            let is_set = request.path == "peergos/v0/mutable/setPointers";
            if is_set && count.fetch_add(1, Ordering::Relaxed) == 0 {
                return match dropped {
                    true => Fault::DropReply,
                    false => Fault::Twice,
                };
            }
            Fault::Honest
        });
        session.make_folder(&format!("/alice/{n}")).await.unwrap();
        let again = machine(&node, 5).await;
        assert!(again.exists(&format!("/alice/{n}")).await.unwrap());
    }
    // `false` although nothing was done: an error after a bounded number of attempts, and nothing is there.
    node.lie(|request| match request.path.as_ref() {
        "peergos/v0/mutable/setPointers" => Fault::Instead(ok(&[0][..])),
        _ => Fault::Honest,
    });
    let error = session.make_folder("/alice/never").await.unwrap_err();
    assert!(matches!(misbehavior(error), Misbehavior::LostWrite { .. }));
    // `true` although nothing was done: the next read shows it.
    node.lie(|request| match request.path.as_ref() {
        "peergos/v0/mutable/setPointers" => Fault::Instead(ok(&[1][..])),
        _ => Fault::Honest,
    });
    session.make_folder("/alice/lost").await.unwrap();
    let error = session.list("/alice", Detail::Quick).await.unwrap_err();
    assert!(matches!(misbehavior(error), Misbehavior::Rollback { .. }));
}

#[tokio::test]
async fn int_8_weak_or_ruinous_derivations_are_refused_before_anything_is_derived() {
    let (node, _) = alice().await;
    let identity = node.state.lock().unwrap().chains["alice"]
        .identity()
        .unwrap()
        .clone();
    let current = node
        .state
        .lock()
        .unwrap()
        .current(&identity.as_writer())
        .unwrap();
    let root = current.updated().unwrap().clone();
    let record = |m: i64, c: i64, p: i64, o: i64, kind: i64, salt: String| {
        let mut map = champ::cbor::Map::new();
        for (name, value) in [("m", m), ("c", c), ("p", p), ("o", o), ("type", kind)] {
            map.insert(name, value);
        }
        map.insert("s", salt);
        map
    };
    let bad = [
        record(10, 8, 1, 64, 1, String::new()),
        record(16, 8, 1, 64, 1, String::new()),
        record(21, 8, 1, 64, 1, String::new()),
        record(31, 8, 1, 64, 1, String::new()),
        record(17, 1, 1, 64, 1, String::new()),
        record(17, 8, 1 << 30, 64, 1, String::new()),
        record(17, 8, 1, 1 << 30, 1, String::new()),
        record(17, 8, 1, 65, 1, String::new()),
        record(17, 8, 1, 64, 9, String::new()),
        record(17, 8, 1, 64, 1, "x".repeat(129)),
    ];
    for algorithm in bad {
        // A root block of the account's own that another client wrote.
        let mut map = {
            let state = node.state.lock().unwrap();
            let block = &state.blocks[&identity][&root];
            champ::cbor::decode(block.bytes())
                .unwrap()
                .into_map("root")
                .unwrap()
        };
        map.insert("algorithm", champ::cbor::Value::Map(algorithm));
        let block = Block::cbor(champ::cbor::Value::Map(map).encode()).unwrap();
        let pointer = forged_identity_pointer(&node, &block);
        node.lie(move |request| match request.path.as_ref() {
            "peergos/v0/core/getPublicKey" => {
                let hash = pointer.0.clone();
                Fault::Instead(ok(
                    pki::wire::directory::PublicKeyReply(Some(hash)).to_body()
                ))
            }
            "peergos/v0/mutable/getPointer" => Fault::Instead(ok(pointer.1.clone())),
            "api/v0/block/get" => Fault::Instead(ok(pointer.2.clone())),
            _ => Fault::Honest,
        });
        node.take_calls();
        let started = std::time::Instant::now();
        let error = empty_machine(&node, 2).await.unwrap_err();
        assert!(started.elapsed() < std::time::Duration::from_millis(200));
        assert!(
            matches!(
                error,
                ClientError::UnacceptableDerivation { .. }
                    | ClientError::Misbehavior(Misbehavior::MalformedRecord { .. })
            ),
            "{error:?}"
        );
        assert!(
            !node
                .take_calls()
                .iter()
                .any(|call| call.starts_with("login"))
        );
    }
}

/// An identity of mallory's whose root block is `block` with the controller replaced.
fn forged_identity_pointer(
    _: &FakeNode,
    block: &Block,
) -> (pki::keys::PublicKeyHash, Bytes, Bytes) {
    let key = SecretSigningKey::from_seed(&[8; 32]);
    let key = pki::keys::SecretKeyWithHash::new(key);
    let mut map = champ::cbor::decode(block.bytes())
        .unwrap()
        .into_map("root")
        .unwrap();
    map.insert("controller", key.writer().to_value());
    let block = Block::cbor(champ::cbor::Value::Map(map).encode()).unwrap();
    let update = PointerUpdate::try_new(None, Some(block.cid().clone()), Some(1)).unwrap();
    let signed = SignedPointer::sign(update, key.secret()).into_bytes();
    (key.hash().clone(), signed, block.bytes().clone())
}

#[tokio::test]
async fn swapped_login_data_and_identities_are_refused() {
    let (node, _) = alice().await;
    client(&node, 4).sign_up("bob", PASSWORD, "").await.unwrap();
    // The directory names bob's identity for alice: the salt is bob's, so the keys do not fit.
    {
        let mut state = node.state.lock().unwrap();
        let bob = state.chains["bob"].clone();
        state.chains.insert("alice".to_owned(), bob);
    }
    let error = empty_machine(&node, 5).await.unwrap_err();
    assert!(matches!(error, ClientError::WrongCredentials), "{error:?}");
}

#[tokio::test]
async fn login_data_of_another_key_do_not_open() {
    let (node, _) = alice().await;
    client(&node, 4).sign_up("bob", PASSWORD, "").await.unwrap();
    {
        let mut state = node.state.lock().unwrap();
        let bob = state.logins["bob"].1.clone();
        state.logins.get_mut("alice").unwrap().1 = bob;
    }
    let error = empty_machine(&node, 5).await.unwrap_err();
    assert!(matches!(error, ClientError::WrongCredentials));
}

#[tokio::test]
async fn int_13_random_answers_never_crash_the_client() {
    use rand_core::Rng as _;
    let (node, session) = alice().await;
    put(&session, "/alice/f", &content(20_000, 1))
        .await
        .unwrap();
    let key = [5; 32];
    let saved = session.save(&key);
    for seed in 0..150 {
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(seed);
        node.lie(move |_| {
            let dice = rng.next_u32();
            match dice % 6 {
                0 => Fault::Reply(Box::new(move |body| flip(&body, dice as usize))),
                1 => Fault::Reply(Box::new(move |body| {
                    let n = dice as usize % (body.len() + 1);
                    body.slice(..n)
                })),
                2 => Fault::Instead(ok(content(dice as usize % 300, dice.into()))),
                _ => Fault::Honest,
            }
        });
        let session = client(&node, seed).restore(&saved, &key).unwrap();
        let _ = session.list("/alice", Detail::Full).await;
        let _ = session
            .read("/alice/f", 1 << 20)
            .await
            .map(|read| assert!(read == content(20_000, 1)));
        let _ = session.make_folder("/alice/x").await;
        let _ = session.delete("/alice/x").await;
    }
    node.tell_the_truth();
    assert!(get(&machine(&node, 1).await, "/alice/f").await == content(20_000, 1));
}

#[tokio::test]
async fn replies_larger_than_a_call_allows_are_refused() {
    let (node, session) = alice().await;
    node.lie(|request| {
        assert!(request.max_reply_bytes <= 33 << 20, "{request:?}");
        Fault::Honest
    });
    put(&session, "/alice/f", b"x").await.unwrap();
    assert!(matches!(
        client(&node, 1).sign_in("alice", PASSWORD).await.unwrap(),
        SignIn::Done(_)
    ));
}
