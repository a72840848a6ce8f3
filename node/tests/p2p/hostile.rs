//! Peers that mean harm, over real streams: who opens many and says nothing, and homes that answer with lies.

use std::sync::Arc;

use champ::access::Bat;
use libp2p::identity::Keypair;
use node::p2p::{DialScope, MAX_BODY_BYTES};
use parking_lot::Mutex;
use pki::wire::block_group::BlockFormat;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    forwarding::tell,
    network::{Networked, PATIENCE},
    raw::{Connection, HostileNode, propose},
};
use crate::conformance::{
    account::{Account, private_raw},
    harness::Answer,
};

/// More streams than a node serves at a time, of one peer that says nothing on them: the others are served, and the peer
/// too once it gives way.
#[tokio::test]
async fn p2p_5_a_peer_that_opens_streams_and_says_nothing_keeps_nobody_out() {
    let home = Networked::open(Networked::tcp_only).await;
    let other = Networked::knowing(vec![home.address("/tcp/")]).await;
    let key = Keypair::generate_ed25519();
    let mut connections = Vec::new();
    let mut silent = Vec::new();
    for _ in 0..8 {
        let connection = Connection::dial(&key, home.address("/tcp/")).await;
        for _ in 0..160 {
            // Those above the share of one peer are reset once they are there.
            silent.extend(connection.open().await);
        }
        connections.push(connection);
    }
    assert!(silent.len() > 200, "{}", silent.len());
    for _ in 0..20 {
        other.id_of(home.id).await.unwrap();
    }
    drop((silent, connections));
    let request = format!(
        "POST /api/v0/id HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\n\r\n",
        home.id
    );
    let answer = timeout(PATIENCE, async {
        loop {
            let connection = Connection::dial(&key, home.address("/tcp/")).await;
            let mut answer = String::new();
            if let Some(mut stream) = connection.open().await
                && stream.write_all(request.as_bytes()).await.is_ok()
                && stream.read_to_string(&mut answer).await.is_ok()
                && !answer.is_empty()
            {
                return answer;
            }
            // Its streams of before are not all closed yet.
            tokio::task::yield_now().await;
        }
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    other.close().await;
    home.close().await;
}

/// Streams that never say what they are for, and streams that propose one thing after the other.
#[tokio::test]
async fn p2p_5_negotiations_without_end_keep_nobody_out() {
    let home = Networked::open(Networked::tcp_only).await;
    let other = Networked::knowing(vec![home.address("/tcp/")]).await;
    let key = Keypair::generate_ed25519();
    let mut connections = Vec::new();
    let mut silent = Vec::new();
    let mut proposing = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let connection = Connection::dial(&key, home.address("/tcp/")).await;
        for _ in 0..20 {
            silent.extend(connection.open_silent().await);
            if let Some(stream) = connection.open_silent().await {
                proposing.spawn(propose(stream));
            }
        }
        connections.push(connection);
    }
    for _ in 0..20 {
        other.id_of(home.id).await.unwrap();
    }
    drop((silent, connections));
    other.close().await;
    home.close().await;
}

/// A node of which a client asks for alice's data, and her home, which answers what it is told to.
struct Misled {
    node: Networked,
    _home: HostileNode,
    alice: Account,
    next: Arc<Mutex<Vec<u8>>>,
}

impl Misled {
    async fn new() -> Self {
        let next = Arc::new(Mutex::new(Vec::new()));
        let given = Arc::clone(&next);
        let home = HostileNode::listen(Arc::new(move |_| given.lock().clone())).await;
        let address = home.address.clone();
        let node = Networked::open(|config| {
            config.p2p.dials = DialScope::Any;
            config.p2p.known = vec![address];
            config.mirror.is_automatic = false;
        })
        .await;
        let alice = Account::new("alice", 7);
        tell(&node.test, &alice, 7, home.id).await;
        Self {
            node,
            _home: home,
            alice,
            next,
        }
    }

    /// The call for a pointer of alice's.
    fn pointer(&self) -> String {
        format!(
            "peergos/v0/mutable/getPointer?owner={}&writer={}",
            self.alice.owner(),
            self.alice.home.writer()
        )
    }

    /// What a client of the node gets when the home answers these bytes.
    async fn ask(&self, target: &str, answer: impl Into<Vec<u8>>) -> Answer {
        *self.next.lock() = answer.into();
        timeout(PATIENCE, self.node.test.post(target, ""))
            .await
            .unwrap()
    }
}

fn ok(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn int_15_p2p_3_what_a_hostile_home_answers_stays_in_its_bounds() {
    let misled = Misled::new().await;
    let pointer = misled.pointer();
    // Headers that would act in the name of the node that was asked.
    let evil = "set-cookie: a=b\r\nlocation: http://evil.example/\r\ncontent-type: text/html\r\n\
        access-control-allow-origin: *\r\nconnection: close\r\nkeep-alive: timeout=9\r\n\
        content-security-policy: default-src *\r\nstrict-transport-security: max-age=0\r\n\
        cache-control: public, max-age=31536000\r\nclear-site-data: \"*\"\r\nx-anything: 1\r\n";
    let answer = misled.ask(&pointer, ok(evil, b"<b>")).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"<b>"[..]));
    let known = [
        "content-type",
        "content-length",
        "x-content-type-options",
        "cache-control",
    ];
    for (name, value) in &answer.headers {
        assert!(known.contains(&name.as_str()), "{name}: {value}");
        assert!(!value.contains("31536000"), "{name}: {value}");
    }
    assert_eq!(
        answer.header("content-type"),
        Some("application/octet-stream")
    );

    // Statuses that are none of a call; texts that try to begin a line of their own.
    for (status, expected) in [
        ("101 Switching Protocols", 400),
        ("302 Found", 400),
        ("204 No Content", 400),
        ("206 Partial Content", 400),
        ("304 Not Modified", 400),
        ("401 Unauthorized", 401),
        ("503 Service Unavailable", 429),
        ("999 What", 400),
    ] {
        let text = format!(
            "HTTP/1.1 {status}\r\nlocation: http://evil.example/\r\nset-cookie: a=b\r\n\
             www-authenticate: Basic\r\ntrailer: x%0d%0aset-cookie:+a=b\r\ncontent-length: 0\r\n\r\n"
        );
        let answer = misled.ask(&pointer, text).await;
        assert_eq!(answer.status, expected, "{status}");
        let known = ["content-type", "content-length", "trailer", "cache-control"];
        for (name, value) in &answer.headers {
            let is_known = known.contains(&name.as_str()) || name == "x-content-type-options";
            assert!(is_known, "{status}: {name}: {value}");
            assert!(!value.contains(['\r', '\n']), "{status}: {name}: {value}");
        }
    }

    // Framing that cannot be believed, and more than an answer may be.
    let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    for broken in [
        String::new(),
        "HTTP/1.1 200 OK\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\nabc".to_owned(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc".to_owned(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\nabc".to_owned(),
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\nabc",
            MAX_BODY_BYTES + 1
        ),
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\nabc".to_owned(),
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
            chunk.repeat(9)
        ),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(100)),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(20_000)),
        "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000),
        "HTTP/2 200 OK\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\0".repeat(1000),
    ] {
        let shown = broken.get(..80).unwrap_or(&broken).to_owned();
        let answer = misled.ask(&pointer, broken).await;
        assert_eq!(answer.status, 400, "{shown}");
        assert_eq!(
            answer.message(),
            "The home server of this user cannot be reached, please try again later",
            "{shown}"
        );
    }
    // What stands behind the answer belongs to nobody.
    let both = [ok("", b"one"), ok("", b"two")].concat();
    assert_eq!(misled.ask(&pointer, both).await.body, b"one");
    // And it goes on answering.
    assert_eq!(misled.ask(&pointer, ok("", b"end")).await.body, b"end");
    misled.node.close().await;
}

#[tokio::test]
async fn int_15_a_block_is_the_one_that_was_asked_for_or_none() {
    let misled = Misled::new().await;
    let bat = Bat::from_secret([3; 32]);
    let block = private_raw(&bat, None, &[9; 5000]);
    let cid = BlockFormat::Raw.cid(&block);
    let token = bat.with_calculated_id().to_text();
    let target = format!("{}&bat={token}", misled.alice.get_target(&cid));
    let mut damaged = block.to_vec();
    damaged[4000] ^= 1;
    let other = private_raw(&bat, None, &[8; 5000]);
    for wrong in [&damaged[..], &other, &block[..4999], b"x"] {
        let answer = misled.ask(&target, ok("", wrong)).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.body.is_empty());
    }
    // None is none, and says nothing about the block itself.
    let none = misled.ask(&target, ok("", b"")).await;
    assert_eq!((none.status, none.body.len()), (200, 0));
    let cached = none.header("cache-control").unwrap_or_default();
    assert!(!cached.contains("immutable"), "{none:?}");
    let right = misled.ask(&target, ok("", &block)).await;
    assert_eq!((right.status, &right.body[..]), (200, &block[..]));
    // Nothing of that was kept here, and what a block is does not depend on who keeps it.
    let stored = format!("api/v0/block/stat?arg={cid}");
    let answer = misled.node.test.post(&stored, "").await;
    assert_ne!(answer.status, 200, "{answer:?}");
    misled.node.close().await;
}

/// A home that says of itself, with every answer, that it is not the home: it is asked once, and the table is looked at
/// once a second at most.
#[tokio::test]
async fn p2p_1_a_home_that_disowns_a_user_is_not_asked_again_and_again() {
    let misled = Misled::new().await;
    let pointer = misled.pointer();
    let moved = "HTTP/1.1 400 Bad Request\r\ntrailer: Owner+has+moved\r\ncontent-length: 0\r\n\r\n";
    let answer = misled.ask(&pointer, moved).await;
    assert_eq!(
        (answer.status, &answer.message()[..]),
        (400, "Owner has moved")
    );
    let answer = misled
        .ask(&pointer, ok("kastro-home: elsewhere\r\n", b"old"))
        .await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"old"[..]));
    assert_eq!(answer.header("kastro-home"), None);
    misled.node.close().await;
}
