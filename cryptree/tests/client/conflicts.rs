//! Several sessions of one account at once, over a network that delays, drops and repeats (Spec: 21 §13;
//! Spec: 40, rows REL-15, REL-16, REL-24).

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use cryptree::{ClientError, Session, client::UploadOptions, properties::Timestamp};
use futures_util::io::Cursor;
use rand_core::{Rng as _, SeedableRng};

use super::{
    PASSWORD, alice, client,
    files::{content, get, names, put, put_with},
    machine,
};
use crate::fake::{FakeNode, Fault};

/// Makes every call fail, lose its answer or happen twice now and then.
fn troubled(node: &FakeNode, seed: u64) {
    let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(seed);
    node.lie(move |request| {
        let dice = rng.next_u32() % 20;
        // Transactions and uploads that are stopped for good are another test.
        match dice {
            0 => Fault::Unreachable,
            1 => Fault::DropReply,
            2 if request.path != "peergos/v0/core/signup" => Fault::Twice,
            _ => Fault::Honest,
        }
    });
}

#[tokio::test]
async fn rel_16_four_sessions_adding_to_one_folder_lose_nothing() {
    let (node, session) = alice().await;
    session.make_folder("/alice/shared folder").await.unwrap();
    for seed in 0..3 {
        let sessions = [
            machine(&node, seed * 10 + 1).await,
            machine(&node, seed * 10 + 2).await,
            machine(&node, seed * 10 + 3).await,
            machine(&node, seed * 10 + 4).await,
        ];
        troubled(&node, seed);
        let acknowledged = Mutex::new(Vec::new());
        let add = |session: Session, who: usize| {
            let acknowledged = &acknowledged;
            async move {
                for n in 0..12 {
                    let name = format!("{seed}-{who}-{n}");
                    let path = format!("/alice/shared folder/{name}");
                    // Five sessions at once may use up the attempts; the user tries again.
                    loop {
                        match put(&session, &path, name.as_bytes()).await {
                            Ok(()) => break,
                            // An earlier attempt whose answer was lost for good had happened.
                            Err(ClientError::Exists { .. }) => break,
                            Err(ClientError::Conflict | ClientError::Network(_)) => {}
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                    acknowledged.lock().unwrap().push(name);
                }
            }
        };
        let [a, b, c, d] = sessions;
        tokio::join!(add(a, 0), add(b, 1), add(c, 2), add(d, 3));
        node.tell_the_truth();
        let again = machine(&node, 99).await;
        let found = names(&again, "/alice/shared folder").await;
        for name in acknowledged.into_inner().unwrap() {
            assert!(found.contains(&name), "{name} was acknowledged and is lost");
            let path = format!("/alice/shared folder/{name}");
            assert_eq!(get(&again, &path).await, name.as_bytes());
        }
        assert_eq!(found.len() as u64, (seed + 1) * 48, "no name twice");
    }
}

#[tokio::test]
async fn changes_of_different_folders_are_merged_without_a_second_run() {
    let (node, session) = alice().await;
    session.make_folder("/alice/a").await.unwrap();
    session.make_folder("/alice/b").await.unwrap();
    let one = machine(&node, 2).await;
    let two = machine(&node, 3).await;
    // Both are in the middle of a commit at the same time.
    let (a, b) = tokio::join!(put(&one, "/alice/a/1", b"1"), put(&two, "/alice/b/2", b"2"),);
    a.unwrap();
    b.unwrap();
    let again = machine(&node, 4).await;
    assert_eq!(get(&again, "/alice/a/1").await, b"1");
    assert_eq!(get(&again, "/alice/b/2").await, b"2");
}

#[tokio::test]
async fn operations_of_many_kinds_at_once_leave_a_whole_tree() {
    let (node, session) = alice().await;
    for folder in ["a", "b", "c"] {
        session
            .make_folder(&format!("/alice/{folder}"))
            .await
            .unwrap();
        for n in 0..4 {
            put(&session, &format!("/alice/{folder}/{n}"), &content(5000, n))
                .await
                .unwrap();
        }
    }
    for seed in 0..6 {
        let one = machine(&node, seed * 7 + 1).await;
        let two = machine(&node, seed * 7 + 2).await;
        troubled(&node, 100 + seed);
        let work = |session: Session, seed: u64| async move {
            let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(seed);
            for step in 0..15 {
                let folder = ["a", "b", "c"][rng.next_u32() as usize % 3];
                let other = ["a", "b", "c"][rng.next_u32() as usize % 3];
                let n = rng.next_u32() % 6;
                let path = format!("/alice/{folder}/{n}");
                // Whether it works depends on the other session; that it leaves a whole tree must not.
                let _ = match rng.next_u32() % 6 {
                    0 => session.delete(&path).await,
                    1 => session.rename(&path, &format!("{}", 10 + n)).await,
                    2 => {
                        session
                            .move_to(&path, &format!("/alice/{other}/m{seed}-{step}"))
                            .await
                    }
                    3 => {
                        put_with(
                            &session,
                            &path,
                            &content(9000, step),
                            &super::files::replace(),
                        )
                        .await
                    }
                    4 => {
                        session
                            .make_folder(&format!("/alice/{folder}/f{seed}-{step}"))
                            .await
                    }
                    _ => {
                        session
                            .set_modified(&path, Timestamp::from_epoch_seconds(7))
                            .await
                    }
                };
            }
        };
        tokio::join!(work(one, seed), work(two, seed + 1000));
        node.tell_the_truth();
        let again = machine(&node, 99).await;
        let mut entries = 4;
        for folder in ["a", "b", "c"] {
            let found = names(&again, &format!("/alice/{folder}")).await;
            entries += 1 + found.len() as u64;
            let mut unique = found.clone();
            unique.dedup();
            assert_eq!(unique, found, "a name occurs twice");
            for name in found {
                let path = format!("/alice/{folder}/{name}");
                if !again.stat(&path).await.unwrap().is_directory {
                    get(&again, &path).await;
                }
            }
        }
        // Every node in the tree is reachable from the home folder and the other way round.
        assert_eq!(super::tree_entries(&node).await, entries, "seed {seed}");
    }
}

/// Makes the node lose the answer to call number `lost`.
fn lose(node: &FakeNode, lost: usize) {
    let count = AtomicUsize::new(0);
    node.lie(
        move |_| match count.fetch_add(1, Ordering::Relaxed) == lost {
            true => Fault::DropReply,
            false => Fault::Honest,
        },
    );
}

#[tokio::test]
async fn rel_24_each_call_of_a_session_may_lose_its_answer_once() {
    async fn run(session: &Session) -> Result<(), ClientError> {
        session.make_folder("/alice/f").await?;
        put(session, "/alice/f/large", &content(6 << 20, 1)).await?;
        session.rename("/alice/f/large", "big").await?;
        session.move_to("/alice/f/big", "/alice/big").await?;
        session.delete("/alice/f").await
    }
    // A run without trouble tells how many calls there are.
    let (node, session) = alice().await;
    run(&session).await.unwrap();
    let calls = node.take_calls().len();
    for lost in 0..calls {
        let (node, session) = alice().await;
        lose(&node, lost);
        let done = run(&session).await;
        done.unwrap_or_else(|error| panic!("answer {lost} lost: {error:?}"));
        node.tell_the_truth();
        let again = machine(&node, 2).await;
        let path = "/alice/big";
        assert!(
            get(&again, path).await == content(6 << 20, 1),
            "answer {lost} lost"
        );
        assert!(!again.exists("/alice/f").await.unwrap());
        assert_eq!(super::tree_entries(&node).await, 6, "answer {lost} lost");
    }
}

#[tokio::test]
async fn rel_24_each_call_of_a_sign_up_may_lose_its_answer_once() {
    let (node, _) = super::signed_up().await;
    let calls = node.take_calls().len();
    for lost in 0..calls {
        let node = FakeNode::new();
        lose(&node, lost);
        let signed_up = client(&node, 1).sign_up("alice", PASSWORD, "").await;
        signed_up.unwrap_or_else(|error| panic!("answer {lost} lost: {error:?}"));
    }
}

#[tokio::test]
async fn rel_15_interrupted_upload_is_continued_from_another_machine() {
    const SIZE: usize = 90 << 20;
    let (node, _) = alice().await;
    node.state.lock().unwrap().unchecked = true;
    let bytes = content(SIZE, 4);
    let options = UploadOptions {
        modified: Some(Timestamp::from_epoch_seconds(1_700_000_000)),
        ..UploadOptions::default()
    };
    let sent = Arc::new(AtomicUsize::new(0));
    for (attempt, calls) in [(0, 60), (1, 70), (2, usize::MAX)] {
        let session = machine(&node, 10 + attempt).await;
        let count = Arc::new(AtomicUsize::new(0));
        let arrived = Arc::clone(&sent);
        node.lie(
            move |request| match count.fetch_add(1, Ordering::Relaxed) >= calls {
                true => Fault::Unreachable,
                false => {
                    let bytes = request.body.as_ref().map_or(0, bytes::Bytes::len);
                    arrived.fetch_add(bytes, Ordering::Relaxed);
                    Fault::Honest
                }
            },
        );
        let size = Some(SIZE as u64);
        let mut source = Cursor::new(&bytes);
        let result = session
            .upload("/alice/big", &mut source, size, &options, &mut |_, _| {})
            .await;
        node.tell_the_truth();
        let other = machine(&node, 50 + attempt).await;
        if calls == usize::MAX {
            result.unwrap();
            assert!(get(&other, "/alice/big").await == bytes);
            assert!(other.unfinished_uploads().await.unwrap().is_empty());
        } else {
            assert!(result.unwrap_err().is_network());
            assert!(
                !other.exists("/alice/big").await.unwrap(),
                "never half visible"
            );
            let unfinished = other.unfinished_uploads().await.unwrap();
            assert_eq!(unfinished.len(), 1);
            assert_eq!(
                (unfinished[0].path.as_str(), unfinished[0].size_bytes),
                ("/alice/big", SIZE as u64)
            );
        }
    }
    // Two interruptions cost at most two groups, what was in flight, and what ran ahead of a commit.
    let sent = sent.load(Ordering::Relaxed);
    assert!(
        sent < SIZE + 2 * ((40 + 10 + 15) << 20),
        "{sent} bytes were sent for {SIZE}"
    );
}

#[tokio::test]
async fn rel_15_a_changed_file_is_not_continued_and_an_abandoned_one_can_be_discarded() {
    const SIZE: usize = 100 << 20;
    let (node, session) = alice().await;
    node.state.lock().unwrap().unchecked = true;
    let options = UploadOptions {
        modified: Some(Timestamp::from_epoch_seconds(1_700_000_000)),
        ..UploadOptions::default()
    };
    let interrupted = |seed: u64| {
        let (node, session, options) = (Arc::clone(&node), session.clone(), options.clone());
        async move {
            let bytes = content(SIZE, seed);
            let count = Arc::new(AtomicUsize::new(0));
            // The first group and what may run ahead of its commit are fewer calls, the whole upload is more.
            node.lie(
                move |_| match count.fetch_add(1, Ordering::Relaxed) >= 100 {
                    true => Fault::Unreachable,
                    false => Fault::Honest,
                },
            );
            let size = Some(SIZE as u64);
            let result = session
                .upload(
                    "/alice/big",
                    &mut Cursor::new(&bytes),
                    size,
                    &options,
                    &mut |_, _| {},
                )
                .await;
            node.tell_the_truth();
            result
        }
    };
    assert!(interrupted(1).await.unwrap_err().is_network());
    let changed = content(SIZE, 2);
    let size = Some(SIZE as u64);
    let error = session
        .upload(
            "/alice/big",
            &mut Cursor::new(&changed),
            size,
            &options,
            &mut |_, _| {},
        )
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClientError::SourceChanged { .. }),
        "{error:?}"
    );
    // The next attempt starts from the beginning.
    session
        .upload(
            "/alice/big",
            &mut Cursor::new(&changed),
            size,
            &options,
            &mut |_, _| {},
        )
        .await
        .unwrap();
    assert!(get(&session, "/alice/big").await == changed);
    session.delete("/alice/big").await.unwrap();
    assert_eq!(super::tree_entries(&node).await, 4);
    assert!(interrupted(3).await.unwrap_err().is_network());
    assert!(super::tree_entries(&node).await > 5);
    for upload in session.unfinished_uploads().await.unwrap() {
        session.discard_upload(&upload).await.unwrap();
    }
    assert_eq!(super::tree_entries(&node).await, 4);
}

#[tokio::test]
async fn full_space_is_reported_and_loses_nothing() {
    let (node, session) = alice().await;
    put(&session, "/alice/kept", b"kept").await.unwrap();
    node.state.lock().unwrap().quota = Some(node.stored().1 + 10_000);
    let error = put(&session, "/alice/more", &content(100_000, 1))
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::QuotaReached { .. }));
    let error = put(&session, "/alice/large", &content(20 << 20, 1))
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::QuotaReached { .. }));
    node.state.lock().unwrap().quota = None;
    assert_eq!(get(&session, "/alice/kept").await, b"kept");
    assert!(!session.exists("/alice/more").await.unwrap());
}

#[tokio::test]
async fn dropping_an_operation_leaves_the_old_or_the_new_state() {
    let (node, session) = alice().await;
    session.make_folder("/alice/f").await.unwrap();
    for calls in 0..12 {
        let other = machine(&node, calls + 10).await;
        let name = format!("/alice/f/{calls}");
        let mut operation = Box::pin(put(&other, &name, b"x"));
        for _ in 0..calls * 2 {
            if futures_util::poll!(&mut operation).is_ready() {
                break;
            }
        }
        drop(operation);
        let again = machine(&node, calls + 200).await;
        if again.exists(&name).await.unwrap() {
            assert_eq!(get(&again, &name).await, b"x");
        }
        put(&again, &format!("{name} after"), b"y").await.unwrap();
    }
}
