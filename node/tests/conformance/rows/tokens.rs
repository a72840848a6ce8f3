//! BAT rows: reading blocks.

use std::sync::Arc;

use bytes::Bytes;
use champ::{
    Block, Cid, Codec, Multihash,
    access::{Bat, BatWithId},
    cbor::{Map, Record as _, Value},
    text::to_multibase,
};
use http::{Request, header};
use node::{
    p2p::{PeerId, collect, empty},
    store::BlockStore as _,
};
use pki::wire::{block_group::BlockFormat, champ_lookup::ChampCap};

use super::{node_and_store, on_disk, partition, still_serves};
use crate::{
    conformance::{
        account::{Account, private_raw},
        harness::{TestNode, config},
    },
    p2p::{forwarding::tell, switchboard::peer},
};

/// Blocks whose token list cannot be read, put into the store behind the node's back: nobody gets them.
#[tokio::test]
async fn bat_1_an_unreadable_token_list_means_no() {
    let (node, store) = node_and_store(config()).await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let magic = [0x71, 0x1d, 0x10, 0xcf, 0x3d, 0x32, 0x2f, 0x2b];
    let short = Value::List(vec![Value::Bytes(vec![7; 31].into())]).encode();
    let with_bats = |bats: Value| {
        let mut map = Map::new();
        map.insert("bats", bats);
        Block::cbor(Value::Map(map).encode()).unwrap()
    };
    let raw = |rest: &[u8]| Block::raw([&magic[..], rest].concat()).unwrap();
    let blocks = vec![
        raw(&[0xff]),
        raw(&[0xa0]),
        raw(&[0x01, 1, 2, 3]),
        raw(&short),
        raw(&[]),
        with_bats(Value::Int(1)),
        with_bats(Value::from("x")),
        with_bats(Value::List(vec![Value::Bytes(vec![7; 31].into())])),
        with_bats(Value::List(vec![Value::from(&Cid::of_raw(b"x"))])),
    ];
    store
        .put_blocks(&partition("alice"), blocks.clone(), None)
        .await
        .unwrap();
    let tokens = [
        None,
        Some(alice.mirror_with_id()),
        Some(Bat::from_secret([7; 32]).with_calculated_id()),
    ];
    for block in &blocks {
        for token in &tokens {
            let target = match token {
                None => alice.get_target(block.cid()),
                Some(token) => {
                    format!("{}&bat={}", alice.get_target(block.cid()), token.to_text())
                }
            };
            let answer = node.post(&target, "").await;
            assert_eq!(answer.status, 400, "{:02x?}", block.bytes());
            assert_eq!(answer.message(), "Unauthorised!");
            assert_eq!(answer.header("etag"), None);
        }
    }
    still_serves(&node, &alice, 1).await;
}

#[tokio::test]
async fn bat_2_the_codec_is_part_of_what_is_asked_for() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let bat = Bat::from_secret([5; 32]);
    let mut map = Map::new();
    map.insert("bats", vec![bat.inline_id().to_value()]);
    let block = Block::cbor(Value::Map(map).encode()).unwrap();
    let blocks = [block.bytes().clone()];
    alice
        .put(&node, &alice.home, BlockFormat::DagCbor, &blocks)
        .await;
    let token = bat.with_calculated_id();
    let hash = block.cid().hash().clone();
    let get = |cid: &Cid| format!("{}&bat={}", alice.get_target(cid), token.to_text());
    assert_eq!(node.ok(&get(block.cid()), "").await, *block.bytes());
    assert!(
        node.ok(&get(&Cid::v1(Codec::Raw, hash.clone())), "")
            .await
            .is_empty()
    );
    let version_0 = champ::text::to_base58(&hash_bytes(&hash));
    let others = [
        Cid::v1(Codec::DagPb, hash.clone()).to_string(),
        Cid::v1(Codec::Libp2pKey, hash.clone()).to_string(),
        version_0,
    ];
    let cap = ChampCap {
        map_key: [1; 32],
        bat: Some(token.clone()),
    };
    let caps = to_multibase(&Value::List(vec![cap.to_value()]).encode());
    let raw = Cid::v1(Codec::Raw, hash).to_string();
    for other in others.iter().chain([&raw]) {
        let owner = alice.owner();
        let get = format!(
            "api/v0/block/get?arg={other}&owner={owner}&bat={}",
            token.to_text()
        );
        let answer = node.post(&get, "").await;
        assert!(answer.body.is_empty(), "{other}");
        assert_eq!(answer.header("etag"), None, "{other}");
        let stat = format!("api/v0/block/stat?arg={other}&owner={owner}");
        let answer = node.post(&stat, "").await;
        assert!(
            answer.status == 400 || answer.body == b"{\"Size\":0}",
            "{other}"
        );
        let lookup = format!("api/v0/champ/get/bulk?arg={other}&owner={owner}&caps={caps}");
        let message = node.refused(&lookup, "").await;
        assert!(
            message.starts_with("Champ root not present locally: "),
            "{message}"
        );
    }
}

/// A digest with its code and length in front: the binary form of version 0.
fn hash_bytes(hash: &Multihash) -> Vec<u8> {
    [&[0x12, 0x20][..], hash.sha2_256_digest().unwrap()].concat()
}

/// Half of a hundred readers have the token; nobody's answer is given to somebody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bat_6_every_reader_is_judged_alone() {
    let folder = tempfile::tempdir().unwrap();
    let node = Arc::new(TestNode::with(on_disk(folder.path())).await);
    let alice = Account::sign_up(&node, "alice", 7).await;
    let bat = Bat::from_secret([5; 32]);
    let wrong = BatWithId {
        bat: Bat::from_secret([6; 32]),
        id: bat.calculated_id(),
    };
    for round in 0..5u8 {
        // One in a file of its own, which takes a moment to read.
        let block = private_raw(&bat, None, &vec![round; 200_000]);
        let cid = Cid::of_raw(&block);
        let blocks: [Bytes; 1] = [block.clone()];
        alice
            .put(&node, &alice.home, BlockFormat::Raw, &blocks)
            .await;
        let mut readers = tokio::task::JoinSet::new();
        for n in 0..100 {
            let token = match n % 2 {
                0 => bat.with_calculated_id(),
                _ => wrong.clone(),
            };
            let target = format!("{}&bat={}", alice.get_target(&cid), token.to_text());
            let node = Arc::clone(&node);
            readers.spawn(async move { (n, node.post(&target, "").await) });
        }
        while let Some(read) = readers.join_next().await {
            let (n, answer) = read.unwrap();
            match n % 2 {
                0 => assert_eq!((answer.status, answer.body), (200, block.to_vec())),
                _ => assert_eq!(answer.message(), "Unauthorised!"),
            }
        }
    }
    node.node.close().await.unwrap();
}

/// Asks as another node does.
async fn as_peer(node: &TestNode, from: PeerId, target: &str) -> (u16, Bytes) {
    let here = PeerId::from_cid(node.node.id()).unwrap();
    let request = Request::post(format!("/{target}"))
        .header(header::HOST, here.to_string())
        .body(empty())
        .unwrap();
    let answer = node.node.answer_peer(from, request).await;
    let status = answer.status().as_u16();
    (status, collect(answer.into_body(), 1 << 20).await.unwrap())
}

#[tokio::test]
async fn bat_7_the_size_of_a_block_is_told_of_users_who_live_here_and_not_without_end() {
    let node = TestNode::in_memory().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let bat = Bat::from_secret([3; 32]);
    let raw = private_raw(&bat, None, &[9; 500]);
    alice
        .put(
            &node,
            &alice.home,
            BlockFormat::Raw,
            std::slice::from_ref(&raw),
        )
        .await;
    let stat = |cid: &Cid, owner: &dyn std::fmt::Display| {
        format!("api/v0/block/stat?arg={cid}&owner={owner}")
    };
    let (there, absent) = (Cid::of_raw(&raw), Cid::of_raw(b"absent"));
    let one = peer(1);
    // The same kind of answer for what is there and what is not.
    for (cid, size) in [(&there, raw.len()), (&absent, 0)] {
        let (status, body) = as_peer(&node, one, &stat(cid, &alice.owner())).await;
        assert_eq!((status, body), (200, format!("{{\"Size\":{size}}}").into()));
    }
    // Nobody's, and those of somebody who lives elsewhere.
    let stranger = Account::new("nobody", 9);
    assert_eq!(
        as_peer(&node, one, &stat(&there, &stranger.owner()))
            .await
            .0,
        400
    );
    tell(&node, &Account::new("carol", 11), 11, peer(5)).await;
    let carol = Account::new("carol", 11);
    assert_eq!(
        as_peer(&node, one, &stat(&there, &carol.owner())).await.0,
        400
    );
    let target = stat(&absent, &alice.owner());
    let mut answered = 2;
    while as_peer(&node, one, &target).await.0 == 200 {
        answered += 1;
        assert!(answered <= 10_000);
    }
    assert_eq!(answered, 10_000);
    assert_eq!(as_peer(&node, one, &target).await.0, 429);
    assert_eq!(as_peer(&node, peer(2), &target).await.0, 200);
    node.clock.advance(60_000);
    assert_eq!(as_peer(&node, one, &target).await.0, 200);
}

/// The clock of the process stands still unless somebody waits: what is held back is seen to the millisecond.
#[tokio::test(start_paused = true)]
async fn bat_9_who_guesses_tokens_waits_and_who_has_one_does_not() {
    let node = TestNode::in_memory().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let bat = Bat::from_secret([3; 32]);
    let raw = private_raw(&bat, None, &[9; 500]);
    alice
        .put(
            &node,
            &alice.home,
            BlockFormat::Raw,
            std::slice::from_ref(&raw),
        )
        .await;
    let get = |bat: &Bat| {
        let token = bat.with_calculated_id().to_text();
        format!("{}&bat={token}", alice.get_target(&Cid::of_raw(&raw)))
    };
    let (right, hostile, honest) = (get(&bat), peer(1), peer(2));
    let ask = async |from: PeerId, target: &str| {
        let begun = tokio::time::Instant::now();
        let (status, _) = as_peer(&node, from, target).await;
        (status, begun.elapsed().as_millis())
    };
    let mut guess = [0; 32];
    for number in 0_u32..10_000 {
        guess[..4].copy_from_slice(&number.to_be_bytes());
        let wrong = get(&Bat::from_secret(guess));
        let waited = if number < 1_000 { 0 } else { 1_000 };
        assert_eq!(ask(hostile, &wrong).await, (400, waited), "{number}");
        if number % 1_000 == 0 {
            assert_eq!(ask(honest, &right).await, (200, 0));
            assert_eq!(ask(honest, &wrong).await, (400, 0));
        }
    }
    // Nodes pass on what their clients ask: one of those must not keep the others out.
    assert_eq!(ask(hostile, &right).await, (200, 0));
    node.clock.advance(60_000);
    assert_eq!(
        ask(hostile, &get(&Bat::from_secret([1; 32]))).await,
        (400, 0)
    );
}
