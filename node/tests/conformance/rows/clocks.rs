//! DOS-14: somebody sets the clock of the machine, a day on or a day back.

use std::sync::Arc;

use champ::cbor::Record as _;
use pki::{keys::SecretSigningKey, wire::block_group::BlockFormat};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::still_serves;
use crate::conformance::{
    account::Account,
    harness::{NOW, TestNode, parse},
};

const DAY_MILLIS: i64 = 86_400_000;
const WRONG: &str = "Incorrect username or password";

/// Neither lifts what holds guesses back, nor locks anybody out; who signs with the new time is let in.
#[tokio::test(start_paused = true)]
async fn dos_14_a_jump_neither_lifts_a_limit_nor_prolongs_it() {
    for jump in [DAY_MILLIS, -DAY_MILLIS] {
        let node = TestNode::in_memory().await;
        let alice = Account::sign_up(&node, "alice", 7).await;
        let guessed = SecretSigningKey::from_seed(&[99; 32]);
        let guess = async |millis| {
            let before = tokio::time::Instant::now();
            let answer = alice.get_login(&node, &guessed, millis, "").await;
            assert_eq!(answer.message(), WRONG);
            before.elapsed().as_secs()
        };
        for _ in 0..12 {
            guess(NOW).await;
        }
        let miss = format!("api/v0/link/get?label=5&owner={}", alice.owner());
        for _ in 0..10 {
            assert_ne!(node.post(&miss, "").await.status, 429);
        }
        node.clock.jump(jump);
        assert!(guess(NOW + jump).await >= 4, "{jump}");
        // The time that passes is what a window ends by.
        node.clock.advance(900_000);
        assert_eq!(guess(NOW + jump + 900_000).await, 0, "{jump}");
        let now = NOW + jump + 900_000;
        let login = alice.get_login(&node, &alice.login, now, "").await;
        assert_eq!(login.status, 200, "{}", login.message());
        // A signature of the day before yesterday, or of the day after tomorrow.
        let stale = alice.get_login(&node, &alice.login, NOW - jump, "").await;
        assert_eq!(stale.status, 400);
        still_serves(&node, &alice, 1).await;
    }
}

/// Requests under way, open transactions, connections that are kept: nothing of that is about the time of day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dos_14_a_jump_ends_nothing_that_is_under_way() {
    let node = Arc::new(TestNode::new().await);
    let alice = Arc::new(Account::sign_up(&node, "alice", 7).await);
    let served = node.serve().await;
    let host = served.host();
    // Half of a request, and a connection that has been answered once.
    let login = alice.login_data(&alice.login, 3).encode();
    let mut half = served.connect().await;
    let head = format!(
        "POST /peergos/v0/login/setLogin?auth=00 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        login.len()
    );
    half.write_all(head.as_bytes()).await.unwrap();
    half.write_all(&login[..100]).await.unwrap();
    let mut kept = served.connect().await;
    let ask = format!("POST /api/v0/id HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let answer_of = async |stream: &mut tokio::net::TcpStream| {
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0, "closed");
        }
        parse(&text)
    };
    assert_eq!(answer_of(&mut kept).await.status, 200);
    // Writers at work while the clock goes to and fro.
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..4u8 {
        let (node, alice) = (Arc::clone(&node), Arc::clone(&alice));
        writers.spawn(async move {
            for m in 0..25u8 {
                let block = bytes::Bytes::from(vec![n, m, 7, 7]);
                let blocks = [block.clone()];
                let put = alice.put(&node, &alice.home, BlockFormat::Raw, &blocks);
                assert_eq!(put.await.status, 200);
                let target = alice.get_target(&champ::Cid::of_raw(&block));
                assert_eq!(node.ok(&target, "").await, block);
            }
        });
    }
    for jump in [1, -2, 1, 400, -400] {
        node.clock.jump(jump * DAY_MILLIS);
        tokio::task::yield_now().await;
        assert_eq!(answer_of(&mut kept).await.status, 200);
    }
    writers.join_all().await;
    half.write_all(&login[100..]).await.unwrap();
    let mut text = Vec::new();
    half.read_to_end(&mut text).await.unwrap();
    // It was read to its end and judged: the signature is none.
    assert_eq!(parse(&text).status, 400);
    still_serves(&node, &alice, 9).await;
    drop(kept);
    served.stop().await;
}
