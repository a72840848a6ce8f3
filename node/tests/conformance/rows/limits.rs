//! DOS rows: every byte from outside passes a limit before it costs anything.

use std::time::{Duration, Instant};

use bytes::Bytes;
use champ::{
    Block, Cid, Codec, Multihash,
    cbor::{Map, Record as _, Value, decode, decode_canonical},
    data_stream::Writer,
    text::{to_hex, to_multibase},
};
use pki::wire::block_group::BlockFormat;

use super::still_serves;
use crate::conformance::{
    account::{Account, cbor_block, sign_block, update},
    harness::{NOW, TestNode},
};

/// Nested lists that each claim a million elements, padded with zeros to `length` bytes.
fn bomb(depth: usize, length: usize) -> Vec<u8> {
    let mut bytes = [0x9a, 0x00, 0x0f, 0x42, 0x40].repeat(depth);
    bytes.resize(length, 0);
    bytes
}

fn resident_peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

const ALONE: &str = "KASTRO_COUNT_BOMBS";

/// Runs alone in a process, so that its memory can be measured.
#[tokio::test]
async fn count_bombs_alone() {
    if std::env::var_os(ALONE).is_none() {
        return;
    }
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    still_serves(&node, &alice, 1).await;
    // The largest honest request, before memory is looked at.
    let largest = Bytes::from(vec![3; 1_000_000]);
    alice
        .put(&node, &alice.home, BlockFormat::Raw, &[largest])
        .await;
    let before = resident_peak_kib();
    let mut slowest = Duration::ZERO;
    for depth in [10, 100, 500, 1500] {
        for (what, target, body) in hostile(&node, &alice, depth).await {
            let start = Instant::now();
            let answer = node.post(&target, body).await;
            slowest = slowest.max(start.elapsed());
            // Wrong signatures are `00` to two calls; nothing else is answered with success.
            let is_refused = answer.status == 400 || answer.body == [0];
            assert!(is_refused, "{what} {depth}: {answer:?}");
        }
    }
    still_serves(&node, &alice, 2).await;
    println!("slowest {} ms", slowest.as_millis());
    println!("grown {} KiB", resident_peak_kib().saturating_sub(before));
}

/// The bomb in every place where cbor comes in.
async fn hostile(
    node: &TestNode,
    alice: &Account,
    depth: usize,
) -> Vec<(&'static str, String, Vec<u8>)> {
    let large = bomb(depth, 1_000_000);
    let signature = sign_block(&alice.home, &Cid::of_cbor(&large));
    let mut group = Map::new();
    group.insert("b", vec![Value::Bytes(large.clone().into())]);
    group.insert("s", vec![Value::Bytes(signature)]);
    let put = alice.put_target(&alice.home.writer(), "dag-cbor");
    let owner = alice.owner();
    let auth = |target: String| format!("{target}{}", to_hex(&bomb(depth.min(3000), 8000)));
    let link = alice.link(node).encode();
    let names = |claim: &[u8], ops: &[u8]| {
        Writer::new()
            .string("dave")
            .bytes(claim)
            .bytes(ops)
            .bytes(b"")
            .string("")
            .finish()
    };
    let chain = Writer::new()
        .string("alice")
        .bytes(&large)
        .bytes(b"")
        .string("")
        .finish();
    let caps = to_multibase(&bomb(depth.min(400), 2500));
    let login = auth("peergos/v0/login/setLogin?username=alice&auth=".to_owned());
    let signed = alice.identity.secret().sign_attached(&bomb(depth, 9000));
    let signed_auth = to_hex(
        &alice
            .identity
            .secret()
            .sign_attached(&bomb(depth.min(3000), 8000)),
    );
    vec![
        ("block", put.clone(), Value::Map(group).encode()),
        ("bulk put", put, large.clone()),
        (
            "follow request",
            format!("peergos/v0/social/followRequest?owner={owner}"),
            bomb(depth, 4096),
        ),
        ("login data", login, bomb(depth, 16_384)),
        (
            "claim",
            "peergos/v0/core/signup".to_owned(),
            names(&large, b""),
        ),
        (
            "op log",
            "peergos/v0/core/signup".to_owned(),
            names(&link, &bomb(depth, 65_536)),
        ),
        ("chain", "peergos/v0/core/updateChain".to_owned(), chain),
        (
            "pointers",
            format!("peergos/v0/mutable/setPointers?owner={owner}"),
            large,
        ),
        (
            "auth",
            format!("peergos/v0/storage/usage?owner={owner}&auth={signed_auth}"),
            Vec::new(),
        ),
        (
            "space request",
            format!("peergos/v0/storage/request?owner={owner}&req={signed_auth}"),
            Vec::new(),
        ),
        (
            "caps",
            format!(
                "api/v0/champ/get/bulk?arg={}&owner={owner}&caps={caps}",
                Cid::of_cbor(b"x")
            ),
            Vec::new(),
        ),
        (
            "message",
            "peergos/v0/server-message/send?username=alice".to_owned(),
            signed,
        ),
        (
            "second factor",
            format!(
                "peergos/v0/login/getLogin?username=alice&author={}&auth={}&mfa={}",
                to_hex(&alice.login.public().encode()),
                alice.time(NOW),
                to_hex(&bomb(depth.min(3000), 8000))
            ),
            Vec::new(),
        ),
    ]
}

#[test]
fn dos_1_claimed_counts_reserve_nothing() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "conformance::rows::limits::count_bombs_alone",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let number = |word: &str| -> u64 {
        let rest = text.split(word).nth(1).unwrap_or_else(|| panic!("{text}"));
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    // 50 ms of an optimized build on a quiet machine; a debug build on a busy one is given more.
    assert!(
        number("slowest ") < if cfg!(debug_assertions) { 2000 } else { 50 },
        "{text}"
    );
    assert!(number("grown ") < 32 << 10, "{text}");
}

/// A million levels of lists, maps and tags, on a stack of 256 KiB.
#[test]
fn dos_2_nesting_is_refused_without_recursion() {
    // Frames of an unoptimized build are several times larger.
    let stack = if cfg!(debug_assertions) {
        1 << 20
    } else {
        256 << 10
    };
    let decoding = std::thread::Builder::new().stack_size(stack).spawn(|| {
        for part in [
            &[0x81][..],
            &[0xa1, 0x61, 0x61],
            &[0xd8, 0x2a],
            &[0x9f],
            &[0x82, 0x00],
        ] {
            let mut bytes = part.repeat(1_000_000);
            bytes.push(0);
            let start = Instant::now();
            assert!(decode(&bytes).is_err());
            assert!(decode_canonical(&bytes).is_err());
            assert!(start.elapsed() < Duration::from_secs(5));
        }
    });
    decoding.unwrap().join().unwrap();
}

#[tokio::test]
async fn dos_2_nested_bodies_are_refused_everywhere() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let owner = alice.owner();
    for part in [&[0x81][..], &[0xa1, 0x61, 0x61], &[0xd8, 0x2a]] {
        let deep = |length: usize| part.repeat(length / part.len());
        for (target, length) in [
            (alice.put_target(&alice.home.writer(), "dag-cbor"), 4 << 20),
            (
                format!("peergos/v0/mutable/setPointers?owner={owner}"),
                1 << 20,
            ),
            (
                format!("peergos/v0/social/followRequest?owner={owner}"),
                4096,
            ),
            (
                "peergos/v0/login/setLogin?username=alice&auth=00".to_owned(),
                16_384,
            ),
        ] {
            assert!(!node.refused(&target, deep(length)).await.is_empty());
        }
        let block = Bytes::from(deep(1 << 20));
        let answer = alice
            .put(&node, &alice.home, BlockFormat::DagCbor, &[block])
            .await;
        assert_eq!(answer.status, 400);
    }
    still_serves(&node, &alice, 1).await;
}

/// Eight links to the same child, sixty levels: 8^60 paths over 60 blocks. Committed, counted, and over quickly.
#[tokio::test]
async fn dos_3_paths_are_not_walked_one_by_one() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let bob = Account::sign_up(&node, "bob", 8).await;
    let before = alice.usage(&node, "").await;
    let mut below = cbor_block("leaf", &[]);
    let mut blocks = vec![below.bytes().clone()];
    for level in 0..60 {
        let links = vec![below.cid().clone(); 8];
        below = cbor_block(&format!("level {level}"), &links);
        blocks.push(below.bytes().clone());
    }
    let answer = alice
        .put(&node, &alice.home, BlockFormat::DagCbor, &blocks)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.message());
    let mut next = alice.home_root().await;
    next.data.tree = Some(below.cid().clone());
    alice.put_root(&node, &alice.home, &next).await;
    let first = alice.home_root().await.cid();
    let start = Instant::now();
    let write = update(&alice.home, Some(&first), Some(&next.cid()), Some(2));
    let answer = alice.set(&node, &write).await;
    assert!(answer.body == [1] || answer.status == 400, "{answer:?}");
    // Whatever is counted for it, the question is answered; and taking it back takes it back.
    assert!(alice.usage(&node, "").await > before);
    let back = update(&alice.home, Some(&next.cid()), Some(&first), Some(3));
    assert_eq!(alice.set(&node, &back).await.body, [1]);
    assert_eq!(alice.usage(&node, "").await, before);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    still_serves(&node, &bob, 1).await;
}

/// Trees that are none: look-ups stop at the first lie, after a bounded number of blocks.
#[tokio::test]
async fn dos_3_lookups_stop_at_the_first_lie() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let bitmap = |byte: u8| Value::Bytes(vec![byte].into());
    let child = cbor_block("child", &[]);
    let link = Value::from(child.cid());
    let entry = |key: u8| {
        Value::List(vec![
            Value::Bytes(vec![key; 32].into()),
            Value::from(child.cid()),
        ])
    };
    let mut roots = vec![
        // Eight entries claimed, one there.
        Value::List(vec![
            bitmap(0xff),
            bitmap(0),
            Value::List(vec![link.clone()]),
        ]),
        // The same slot in both maps.
        Value::List(vec![
            bitmap(1),
            bitmap(1),
            Value::List(vec![link.clone(), link.clone()]),
        ]),
        // Five entries in one slot.
        Value::List(vec![
            bitmap(1),
            bitmap(0),
            Value::List(vec![Value::List((0..5).map(entry).collect())]),
        ]),
        // A node that is its own kind of nonsense.
        Value::List(vec![bitmap(0), bitmap(0)]),
        Value::List(Vec::new()),
        Value::Null,
    ];
    // A thousand nodes, each with one child in every slot.
    let mut chain = Vec::new();
    let mut below = link;
    for _ in 0..1000 {
        let node = Value::List(vec![
            bitmap(0),
            bitmap(0xff),
            Value::List(vec![below.clone(); 8]),
        ]);
        let block = Block::cbor(node.encode()).unwrap();
        below = Value::from(block.cid());
        chain.push(block.bytes().clone());
    }
    chain.push(child.bytes().clone());
    for part in chain.chunks(500) {
        let answer = alice
            .put(&node, &alice.home, BlockFormat::DagCbor, part)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.message());
    }
    roots.push(decode(&chain[999]).unwrap());
    for root in roots {
        let root = Block::cbor(root.encode()).unwrap();
        let blocks = [root.bytes().clone()];
        alice
            .put(&node, &alice.home, BlockFormat::DagCbor, &blocks)
            .await;
        let start = Instant::now();
        let target = format!(
            "api/v0/champ/get?arg={}&arg={}&owner={}",
            root.cid(),
            "01".repeat(32),
            alice.owner()
        );
        let answer = node.post(&target, "").await;
        assert!(start.elapsed() < Duration::from_secs(2));
        match answer.status {
            400 => assert!(!answer.message().is_empty()),
            _ => {
                let Value::List(found) = decode(&answer.body).unwrap() else {
                    panic!("{answer:?}");
                };
                assert!(found.len() <= 88, "{}", found.len());
            }
        }
    }
    still_serves(&node, &alice, 1).await;
}

#[tokio::test]
async fn dos_4_links_of_one_block_are_bounded_and_copies_count_once() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let absent = |n: u32| Cid::of_raw(&n.to_be_bytes());
    let inline = |n: u32| Cid::v1(Codec::Raw, Multihash::identity(&n.to_be_bytes()).unwrap());
    let many: Vec<Cid> = (0..25_000).map(absent).collect();
    let many_inline: Vec<Cid> = (0..25_000).map(inline).collect();
    for links in [&many[..5001], &many[..20_000], &many_inline[..]] {
        let block = cbor_block("many", links);
        let blocks = [block.bytes().clone()];
        let answer = alice
            .put(&node, &alice.home, BlockFormat::DagCbor, &blocks)
            .await;
        assert_eq!(answer.message(), "Too many links in block!");
        assert!(node.ok(&alice.get_target(block.cid()), "").await.is_empty());
    }
    // As many as are allowed, and one of them many times.
    let copies = vec![absent(1); 20_000];
    for links in [&many[..5000], &copies[..]] {
        let block = cbor_block("enough", links);
        let blocks = [block.bytes().clone()];
        let answer = alice
            .put(&node, &alice.home, BlockFormat::DagCbor, &blocks)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.message());
        let mut next = alice.home_root().await;
        next.data.tree = Some(block.cid().clone());
        alice.put_root(&node, &alice.home, &next).await;
    }
    still_serves(&node, &alice, 1).await;
}

#[tokio::test]
async fn dos_8_hostile_text_takes_linear_time() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let start = Instant::now();
    let many = [
        "a=1&".repeat(15_000),
        "&".repeat(60_000),
        "arg=1&".repeat(10_000),
        "%61=&".repeat(12_000),
        (0..6000).map(|n| format!("p{n}=1&")).collect(),
    ];
    for query in many {
        assert!(
            !node
                .refused(&format!("api/v0/id?{query}"), "")
                .await
                .is_empty()
        );
    }
    let signature = to_hex(&sign_block(&alice.home, &Cid::of_cbor(b"x")));
    let put = alice
        .put_target(&alice.home.writer(), "dag-cbor")
        .replace("put/bulk", "put");
    let served = node.serve().await;
    for part in [
        "\r\n--bounda",
        "--boundary\r\n",
        "\r\n",
        "\r\n--boundary\r\n\r\n",
    ] {
        let body = ["--boundary\r\n\r\n", &part.repeat((1 << 20) / part.len())].concat();
        let answer = served
            .request(
                "POST",
                &format!("/{put}&signatures={signature}"),
                &["Content-Type: multipart/form-data; boundary=boundary"],
                body.as_bytes(),
            )
            .await;
        assert_eq!(answer.status, 400, "{part:?}");
    }
    served.stop().await;
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    still_serves(&node, &alice, 1).await;
}

/// Many signatures in one request are refused before one of them is verified, and a flood of wrong ones leaves the
/// honest alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dos_11_expensive_checks_come_last_and_are_bounded() {
    let node = std::sync::Arc::new(TestNode::new().await);
    let alice = std::sync::Arc::new(Account::sign_up(&node, "alice", 7).await);
    let mut group = Map::new();
    group.insert("b", vec![Value::Bytes(Bytes::from_static(&[0])); 10_001]);
    group.insert("s", vec![Value::Bytes(vec![1; 96].into()); 10_001]);
    let put = alice.put_target(&alice.home.writer(), "dag-cbor");
    let body = Value::Map(group).encode();
    let start = Instant::now();
    let message = node.refused(&put, body).await;
    assert!(message.contains("10001"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(2));
    let updates = vec![update(&alice.home, None, Some(&Cid::of_cbor(b"x")), Some(1)); 1001];
    let mut batch = Map::new();
    let updates: Vec<Value> = updates.iter().map(champ::cbor::Record::to_value).collect();
    batch.insert("p", updates);
    let target = format!("peergos/v0/mutable/setPointers?owner={}", alice.owner());
    assert!(
        !node
            .refused(&target, Value::Map(batch).encode())
            .await
            .is_empty()
    );

    let mut flood = tokio::task::JoinSet::new();
    for n in 0..4 {
        let (node, alice) = (node.clone(), alice.clone());
        flood.spawn(async move {
            let forged = Account::new("alice", 66 + n);
            loop {
                let write = update(&forged.home, None, Some(&Cid::of_cbor(b"x")), Some(1));
                alice.set(&node, &write).await;
                tokio::task::yield_now().await;
            }
        });
    }
    let pointer = alice.home.writer();
    let mut times = Vec::new();
    for _ in 0..300 {
        let start = Instant::now();
        assert!(!alice.pointer(&node, &pointer).await.is_empty());
        times.push(start.elapsed());
    }
    flood.abort_all();
    times.sort_unstable();
    let p99 = times[297];
    assert!(p99 < Duration::from_millis(500), "{p99:?}");
}
