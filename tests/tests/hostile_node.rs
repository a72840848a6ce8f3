//! A node that lies: the client notices, says what it was, and takes no wrong byte for a right one.

use bytes::Bytes;
use cli::exit::{Class, Failure};
use cryptree::{ClientError, Misbehavior, client::Detail};

use crate::{World, noise, upload};

const GET_BLOCK: &str = "api/v0/block/get";
const GET_POINTER: &str = "peergos/v0/mutable/getPointer";
const LOOKUP: &str = "api/v0/champ/get/bulk";

fn flip(body: &mut Bytes, at: impl Fn(usize) -> usize) {
    let mut bytes = body.to_vec();
    if bytes.is_empty() {
        return;
    }
    let at = at(bytes.len());
    bytes[at] ^= 0x40;
    *body = bytes.into();
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_truncated_fragments_are_refused() {
    let world = World::new().await;
    let content = noise(3 << 20);
    upload(&world.sign_up("alice").await, "/alice/f", &content)
        .await
        .unwrap();
    for kind in ["flipped", "cut short", "emptied", "of another size"] {
        let session = world.sign_in("alice").await;
        world.network.change(move |path, reply| {
            if path == GET_BLOCK {
                match kind {
                    "flipped" => flip(&mut reply.body, |len| len / 2),
                    "cut short" => reply.body.truncate(reply.body.len() / 2),
                    "emptied" => reply.body.clear(),
                    _ => reply.body = [&reply.body[..], b"x"].concat().into(),
                }
            }
        });
        let error = session.read("/alice/f", 1 << 30).await.unwrap_err();
        let failure = Failure::from(error);
        assert_eq!(failure.class, Class::Damaged, "{kind}: {failure}");
        world.network.change(|_, _| {});
    }
    let session = world.sign_in("alice").await;
    assert!(
        session.read("/alice/f", 1 << 30).await.unwrap() == content,
        "nothing was lost"
    );
}

/// Changes a byte in every stretch of 16, so that no block of a lookup reply stays whole.
fn forge(body: &mut Bytes) {
    let mut bytes = body.to_vec();
    for byte in bytes.iter_mut().step_by(16) {
        *byte ^= 0x40;
    }
    *body = bytes.into();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_lookup_proves_nothing() {
    let world = World::new().await;
    upload(&world.sign_up("alice").await, "/alice/f", b"x")
        .await
        .unwrap();
    let session = world.sign_in("alice").await;
    world.network.change(|path, reply| {
        if path == LOOKUP || path == GET_BLOCK {
            forge(&mut reply.body);
        }
    });
    let error = session.list("/alice", Detail::Full).await.unwrap_err();
    assert!(matches!(error, ClientError::Misbehavior(_)), "{error:?}");
    // What a reply does not prove is asked for block by block (Spec: 03 §9): honest blocks beside a forged
    // lookup give the right listing, or none.
    world.network.change(|path, reply| {
        if path == LOOKUP {
            forge(&mut reply.body);
        }
    });
    match session.list("/alice", Detail::Full).await {
        Ok(listing) => {
            let mut names: Vec<_> = listing.entries.iter().map(|e| e.name.as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, [".capabilitycache", ".transactions", "f", "shared"]);
            assert!(listing.damaged.is_empty(), "{:?}", listing.damaged);
        }
        Err(error) => assert!(matches!(error, ClientError::Misbehavior(_)), "{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_pointer_is_refused() {
    let world = World::new().await;
    world.sign_up("alice").await;
    world.network.change(|path, reply| {
        if path == GET_POINTER {
            flip(&mut reply.body, |_| 10);
        }
    });
    let error = world
        .client()
        .sign_in("alice", crate::PASSWORD)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Misbehavior(Misbehavior::ForgedPointer { .. })
        ),
        "{error:?}"
    );
    assert_eq!(Failure::from(error).class, Class::Forged);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_is_refused_by_who_has_seen_a_newer_one() {
    use std::sync::{Arc, Mutex};
    let world = World::new().await;
    let session = world.sign_up("alice").await;
    upload(&session, "/alice/a", b"1").await.unwrap();
    // What an honest node says now is said again after the next change.
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&recorded);
    world.network.change(move |path, reply| {
        if path == GET_POINTER {
            keep.lock().unwrap().push(reply.body.clone());
        }
    });
    session.list("/alice", Detail::Quick).await.unwrap();
    let old = recorded.lock().unwrap().last().cloned().unwrap();
    upload(&session, "/alice/b", b"2").await.unwrap();
    let same_length = old.len();
    world.network.change(move |path, reply| {
        if path == GET_POINTER && reply.body.len() == same_length {
            reply.body = old.clone();
        }
    });
    let error = session.list("/alice", Detail::Quick).await.unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Misbehavior(Misbehavior::Rollback { .. })
        ),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_kind_is_recognized() {
    let world = World::new().await;
    world
        .network
        .change(|_, reply| reply.body = Bytes::from_static(b"<html>welcome</html>"));
    let error = world
        .client()
        .sign_in("alice", crate::PASSWORD)
        .await
        .unwrap_err();
    assert_eq!(Failure::from(error).class, Class::WrongServer);
    world.network.change(|_, reply| {
        reply.status = 404;
        reply.body.clear();
    });
    let error = world
        .client()
        .sign_in("alice", crate::PASSWORD)
        .await
        .unwrap_err();
    assert_eq!(Failure::from(error).class, Class::WrongServer);
}
