//! Links to published files (Spec: 13 §8).

use bytes::Bytes;
use champ::{
    MemoryBlocks,
    access::Bat,
    cbor::{Map, Record as _, Value},
};
use pki::{
    published::{PublishedCapability, PublishedPath, Rewritten, publish},
    wire::block_group::BlockFormat,
};

use super::{
    account::{Account, Root, update},
    harness::{Answer, Served, TestNode},
};

/// A capability as a client would publish it.
fn capability(alice: &Account) -> PublishedCapability {
    let value = Value::Map(Map::from_iter([
        ("a", Bat::from_secret([3; 32]).to_value()),
        (
            "k",
            Value::List(vec![
                Value::Int(1),
                Value::from(&[4; 32]),
                Value::Bool(false),
            ]),
        ),
        ("m", Value::from(&[5; 32])),
        ("o", alice.owner().to_value()),
        ("w", alice.home.writer().to_value()),
    ]));
    PublishedCapability::from_value(value).unwrap()
}

/// Publishes these paths and commits the identity's root block.
async fn publish_all(node: &TestNode, alice: &Account, paths: &[&str]) {
    let mut stored = MemoryBlocks::new();
    let mut public = None;
    for path in paths {
        let path = PublishedPath::parse(path).unwrap();
        let done: Rewritten = publish(public.as_ref(), &path, capability(alice), &stored)
            .await
            .unwrap();
        public = Some(done.public);
        stored.extend(done.blocks);
    }
    let before = alice.identity_root().await;
    let mut data = before.data.clone();
    data.public = public;
    let root = Root {
        data,
        blocks: stored.iter().cloned().collect(),
    };
    alice.put_root(node, &alice.identity, &root).await;
    let write = update(
        &alice.identity,
        Some(&before.cid()),
        Some(&root.cid()),
        Some(2),
    );
    assert_eq!(alice.set(node, &write).await.body, [1]);
}

async fn get(served: &Served, path: &str) -> Answer {
    served.request("GET", path, &[], b"").await
}

async fn refused(served: &Served, path: &str) -> String {
    let answer = get(served, path).await;
    assert_eq!(answer.status, 400, "{path}: {answer:?}");
    assert!(answer.body.is_empty());
    answer.message()
}

#[tokio::test]
async fn the_name_of_a_published_file_becomes_a_link() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    publish_all(&node, &alice, &["/alice/a b/c&d", "/alice/site"]).await;
    let served = node.serve().await;
    let link = capability(&alice).link_text();
    let answer = get(&served, "/public/alice/a%20b/c&d").await;
    assert_eq!(answer.status, 302);
    assert!(answer.body.is_empty());
    assert_eq!(
        answer.header("location").unwrap(),
        format!(
            "/#{{\"secretLink\":true%2c\"path\":\"%2Falice%2Fa+b%2Fc%26d\"%2c\"link\":\"{link}\"}}"
        )
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    // What lies below a published folder leads to the folder's capability.
    for query in ["?open=true", "?x=1&open=true", "?reopen=true"] {
        let answer = get(&served, &format!("/public/alice/site/index.html{query}")).await;
        assert_eq!(
            answer.header("location").unwrap(),
            format!(
                "/#{{\"secretLink\":true%2c\"path\":\"%2Falice%2Fsite%2Findex.html\"%2c\"open\":true%2c\"link\":\"{link}\"}}"
            )
        );
    }
    let head = served.request("HEAD", "/public/alice/site", &[], b"").await;
    assert_eq!(head.status, 302);
    served.stop().await;
}

#[tokio::test]
async fn what_is_not_published_is_refused_with_the_reason() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    Account::sign_up(&node, "bob", 9).await;
    publish_all(&node, &alice, &["/alice/docs/a"]).await;
    let served = node.serve().await;
    for (path, message) in [
        ("/public/carol/x", "Owner doesn't exist for path /carol/x"),
        ("/public/bob/x", "User bob has not made any files public."),
        (
            "/public/alice/docs",
            "User alice has not published a file at /alice/docs",
        ),
        (
            "/public/alice/docs/b",
            "User alice has not published a file at /alice/docs/b",
        ),
        (
            "/public/alice",
            "User alice has not published a file at /alice",
        ),
    ] {
        assert_eq!(refused(&served, path).await, message);
    }
    for path in [
        "/public/",
        "/public/alice/../bob/x",
        "/public/alice/%2e%2e/bob",
        "/public/alice/./docs/a",
        "/public/alice//docs/a",
        "/public/alice/docs%5c..%5ca",
        "/public/alice/a%0d%0aX-Evil:1",
    ] {
        assert!(refused(&served, path).await.starts_with("Invalid path: "));
    }
    let deep = format!("/public/alice{}", "/a".repeat(200));
    assert!(refused(&served, &deep).await.starts_with("Invalid path: "));
    served.stop().await;
}

/// A user's own blocks cannot make the node answer anything but a refusal.
#[tokio::test]
async fn damaged_public_data_is_refused() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let before = alice.identity_root().await;
    let junk = champ::Block::cbor(Value::from("junk").encode()).unwrap();
    let missing = champ::Block::cbor(Value::from("missing").encode()).unwrap();
    let private = Bat::from_secret([8; 32]);
    let protected = Value::Map(Map::from_iter([
        ("bats", Value::List(vec![private.inline_id().to_value()])),
        ("c", Value::Int(0)),
        ("r", Value::from(junk.cid())),
    ]));
    let protected = champ::Block::cbor(protected.encode()).unwrap();
    let mut current = before.cid();
    let served = node.serve().await;
    for (sequence, block) in (2..).zip([&junk, &missing, &protected]) {
        let mut data = before.data.clone();
        data.public = Some(block.cid().clone());
        let blocks: Vec<Bytes> = [&junk, &protected]
            .iter()
            .map(|block| block.bytes().clone())
            .collect();
        let put = alice
            .put(&node, &alice.identity, BlockFormat::DagCbor, &blocks)
            .await;
        assert_eq!(put.status, 200, "{}", put.message());
        let root = Root {
            data,
            blocks: Vec::new(),
        };
        alice.put_root(&node, &alice.identity, &root).await;
        let write = update(
            &alice.identity,
            Some(&current),
            Some(&root.cid()),
            Some(sequence),
        );
        assert_eq!(alice.set(&node, &write).await.body, [1]);
        current = root.cid();
        assert_eq!(
            refused(&served, "/public/alice/x").await,
            "The user's published files cannot be read"
        );
    }
    served.stop().await;
}

#[tokio::test]
async fn an_address_that_asks_too_often_is_held_off() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    let mut statuses = Vec::new();
    for _ in 0..130 {
        statuses.push(get(&served, "/public/nobody/x").await.status);
    }
    assert!(statuses[..120].iter().all(|status| *status == 400));
    assert!(statuses[120..].iter().all(|status| *status == 429));
    node.clock.advance(60_000);
    assert_eq!(get(&served, "/public/nobody/x").await.status, 400);
    served.stop().await;
}
