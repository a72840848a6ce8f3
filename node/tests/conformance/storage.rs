//! Blocks, transactions, quotas, champ look-ups, secret links (Spec: 06).

use bytes::Bytes;
use champ::{
    Block, Cid, Codec, Multihash,
    access::{Bat, BatWithId},
    cbor::{Map, Record as _, Value},
    map::Champ,
    text::{to_hex, to_multibase},
};
use node::Config;
use pki::wire::{
    Body as _,
    block_group::{BlockFormat, BlockGroup},
    champ_lookup::{ChampCap, ChampCaps},
    link::{EncryptedCapability, LinkLabel, SecretLinkTarget},
    login_data::OpaqueCipherText,
};

use super::{
    account::{Account, Root, cbor_block, key, private_raw, sign_block, update},
    harness::{Answer, NOW, TestNode, config},
};

const CACHED: Option<&str> = Some("public, max-age=31622400 immutable");

async fn alice(node: &TestNode) -> Account {
    Account::sign_up(node, "alice", 7).await
}

async fn group(
    node: &TestNode,
    alice: &Account,
    format: &str,
    blocks: &[&[u8]],
    signatures: Vec<Bytes>,
) -> Answer {
    let mut map = Map::new();
    let list = |items: Vec<Bytes>| items.into_iter().map(Value::Bytes).collect::<Vec<_>>();
    map.insert(
        "b",
        list(blocks.iter().map(|b| Bytes::copy_from_slice(b)).collect()),
    );
    map.insert("s", list(signatures));
    let target = alice.put_target(&alice.home.writer(), format);
    node.post(&target, Value::Map(map).encode()).await
}

#[tokio::test]
async fn blocks_are_stored_and_served_with_exact_headers() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let one = Bytes::from(Value::from("block one").encode());
    let two = Bytes::from(Value::from("block two").encode());
    let (a, b) = (Cid::of_cbor(&one), Cid::of_cbor(&two));
    let answer = alice
        .put(
            &node,
            &alice.home,
            BlockFormat::DagCbor,
            &[one.clone(), two],
        )
        .await;
    let expected = format!("{{\"Hash\":\"{a}\"}}{{\"Hash\":\"{b}\"}}");
    assert_eq!(answer.body, expected.as_bytes());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let got = node.post(&alice.get_target(&a), "").await;
    assert_eq!(got.body, one);
    assert_eq!(got.header("cache-control"), CACHED);
    assert_eq!(got.header("etag"), Some(format!("\"{a}\"").as_str()));
    let absent = node
        .post(&alice.get_target(&Cid::of_cbor(b"none")), "")
        .await;
    assert_eq!((absent.status, absent.body.len()), (200, 0));
    assert_eq!(absent.header("cache-control"), Some("no-store"));
    assert!(absent.header("etag").is_none());
    let stat = |cid: &Cid| format!("api/v0/block/stat?arg={cid}&owner={}", alice.owner());
    let found = node.post(&stat(&a), "").await;
    assert_eq!(found.body, b"{\"Size\":10}");
    assert_eq!(found.header("cache-control"), CACHED);
    let missing = node.post(&stat(&Cid::of_cbor(b"none")), "").await;
    assert_eq!(missing.body, b"{\"Size\":0}");
    assert_eq!(missing.header("cache-control"), Some("no-store"));
    // The empty group, a repeated put, any other format name.
    assert!(
        group(&node, &alice, "dag-cbor", &[], vec![])
            .await
            .body
            .is_empty()
    );
    let signature = sign_block(&alice.home, &a);
    let again = group(&node, &alice, "whatever", &[&one], vec![signature]).await;
    assert_eq!(again.body, format!("{{\"Hash\":\"{a}\"}}").as_bytes());
    // Identity CIDs are answered with what they hold.
    let inline = Cid::v1(Codec::Raw, Multihash::identity(b"inline").unwrap());
    let got = node.post(&alice.get_target(&inline), "").await;
    assert_eq!(
        (got.body.as_slice(), got.header("cache-control")),
        (&b"inline"[..], CACHED)
    );
}

#[tokio::test]
async fn wr_1_and_wr_4_bad_writes_store_nothing() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let used = alice.usage(&node, "&local=true").await;
    let one = Value::from("one").encode();
    let two = Value::from("two").encode();
    let (a, b) = (Cid::of_cbor(&one), Cid::of_cbor(&two));
    let sign = |cid: &Cid| sign_block(&alice.home, cid);
    let refused = async |blocks: &[&[u8]], signatures: Vec<Bytes>| {
        let answer = group(&node, &alice, "dag-cbor", blocks, signatures).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        answer.message()
    };
    assert_eq!(
        refused(&[&one, &two], vec![sign(&a)]).await,
        "Different number of of blocks and signatures! 2 != 1"
    );
    assert_eq!(
        refused(&[&one, &two], vec![sign(&b), sign(&a)]).await,
        "Invalid signature for block!"
    );
    let over_block: Bytes = alice.home.secret().sign_attached(&one).into();
    assert_eq!(
        refused(&[&one], vec![over_block]).await,
        "Invalid signature for block!"
    );
    assert_eq!(
        refused(&[&one], vec![sign_block(&key(66, 2), &a)]).await,
        "Invalid signature"
    );
    for cut in [0, 63, 95] {
        refused(&[&one], vec![sign(&a).slice(..cut)]).await;
    }
    let long = Bytes::from([sign(&a).as_ref(), &[0]].concat());
    refused(&[&one], vec![long]).await;
    for bad in [
        &[][..],
        &[0xff],
        &[0x81, 0x01, 0xff],
        &[0xa2, 0x61, 0x62, 0x01, 0x61, 0x61, 0x02],
        &[0xbf, 0xff],
        &[0x18, 0x01],
        &[0xf9, 0, 0],
        &[0xc0, 0],
        &[0xa1, 0x64, b'b', b'a', b't', b's', 0x01],
    ] {
        refused(&[bad], vec![sign(&Cid::of_cbor(bad))]).await;
    }
    let magic = [0x71, 0x1d, 0x10, 0xcf, 0x3d, 0x32, 0x2f, 0x2b];
    for bad in [magic.to_vec(), [&magic[..], &[0x81, 0x41, 0x01]].concat()] {
        let cid = Cid::of_raw(&bad);
        let answer = group(&node, &alice, "raw", &[&bad], vec![sign(&cid)]).await;
        assert_eq!(answer.status, 400);
    }
    for cid in [a, b] {
        assert!(node.ok(&alice.get_target(&cid), "").await.is_empty());
    }
    assert_eq!(alice.usage(&node, "&local=true").await, used);
    let target = alice.put_target(&alice.home.writer(), "raw");
    for body in [&b""[..], b"\xff", b"\x80", b"\xa0"] {
        node.refused(&target, body.to_vec()).await;
    }
    for missing in ["format", "owner", "transaction", "writer"] {
        let spoiled = target.replace(missing, "other");
        node.refused(&spoiled, "").await;
    }
}

#[tokio::test]
async fn wr_3_the_largest_block_passes_and_one_byte_more_does_not() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let largest = Bytes::from(vec![3; 1_048_676]);
    let answer = alice
        .put(
            &node,
            &alice.home,
            BlockFormat::Raw,
            std::slice::from_ref(&largest),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.message());
    assert_eq!(
        node.ok(&alice.get_target(&Cid::of_raw(&largest)), "").await,
        largest
    );
    let larger = Bytes::from(vec![3; 1_048_677]);
    let answer = alice
        .put(&node, &alice.home, BlockFormat::Raw, &[larger])
        .await;
    assert_eq!(answer.message(), "Block too big!");
}

#[tokio::test]
async fn bat_1_reads_need_a_token_that_the_block_names() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let bob = Account::sign_up(&node, "bob", 8).await;
    let bat = Bat::from_secret([5; 32]);
    let block = private_raw(&bat, Some(&alice.mirror), b"cipher text");
    let cid = Cid::of_raw(&block);
    alice
        .put(
            &node,
            &alice.home,
            BlockFormat::Raw,
            std::slice::from_ref(&block),
        )
        .await;
    let get = |token: Option<&BatWithId>| match token {
        Some(token) => format!("{}&bat={}", alice.get_target(&cid), token.to_text()),
        None => alice.get_target(&cid),
    };
    assert_eq!(node.refused(&get(None), "").await, "Unauthorised!");
    let calculated = alice.mirror.with_calculated_id();
    for good in [bat.with_calculated_id(), alice.mirror_with_id(), calculated] {
        assert_eq!(node.ok(&get(Some(&good)), "").await, block);
    }
    let wrong = BatWithId {
        bat: Bat::from_secret([6; 32]),
        id: bat.calculated_id(),
    };
    for bad in [wrong, bob.mirror_with_id()] {
        assert_eq!(node.refused(&get(Some(&bad)), "").await, "Unauthorised!");
    }
    node.refused(&format!("{}&bat=zzz", get(None)), "").await;
    // An absent block is absent whatever is sent.
    let absent = format!(
        "{}&bat={}",
        alice.get_target(&Cid::of_raw(b"x")),
        bat.with_calculated_id().to_text()
    );
    assert!(node.ok(&absent, "").await.is_empty());
    // Spaces of users are separate.
    assert!(node.ok(&bob.get_target(&cid), "").await.is_empty());
    // BAT-2: the codec is part of the identity of a block.
    let other_codec = Cid::v1(Codec::DagCbor, cid.hash().clone());
    assert!(
        node.ok(&alice.get_target(&other_codec), "")
            .await
            .is_empty()
    );
    for codec in [Codec::DagPb, Codec::Libp2pKey] {
        node.refused(&alice.get_target(&Cid::v1(codec, cid.hash().clone())), "")
            .await;
    }
    for bad in ["arg=notacid", "arg=", "foo"] {
        node.refused(
            &format!("api/v0/block/get?{bad}&owner={}", alice.owner()),
            "",
        )
        .await;
    }
    assert_eq!(
        node.refused(&format!("api/v0/block/get?arg={cid}"), "")
            .await,
        "No value present"
    );
}

#[tokio::test]
async fn transactions_are_opened_and_closed_by_anybody_who_knows_them() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let owner = alice.owner();
    let id = node
        .ok(&format!("api/v0/transaction/start?owner={owner}"), "")
        .await;
    assert_eq!(id.len(), 36);
    let id = String::from_utf8(id).unwrap();
    for arg in [id.as_str(), &id, "nosuch", "not%20legal"] {
        let close = format!("api/v0/transaction/close?arg={arg}&owner={owner}");
        assert_eq!(node.ok(&close, "").await, b"1");
    }
    assert_eq!(
        node.refused("api/v0/transaction/start", "").await,
        "No value present"
    );
    let stranger = key(66, 1);
    assert_eq!(
        node.refused(
            &format!("api/v0/transaction/start?owner={}", stranger.hash()),
            ""
        )
        .await,
        format!("Unknown identity key: {}", stranger.hash())
    );
}

#[tokio::test]
async fn calls_below_the_node_are_not_exposed() {
    let node = TestNode::new().await;
    for call in [
        "block/has",
        "block/rm",
        "block/rm/bulk",
        "block/stat/bulk",
        "refs/local",
        "bloom/add",
        "id/",
        "",
    ] {
        assert_eq!(
            node.post(&format!("api/v0/{call}"), "").await.status,
            404,
            "{call}"
        );
    }
}

/// WR-10, WR-11, 06 §4.4: quota, the tolerance after a refusal, what commits and closes give back.
#[tokio::test]
async fn wr_10_the_quota_is_enforced_and_usage_is_exact() {
    let node = TestNode::with(Config {
        default_quota_bytes: 3_000_000,
        ..config()
    })
    .await;
    let alice = alice(&node).await;
    let start = alice.usage(&node, "").await;
    let megabyte = |n: u8| Bytes::from(vec![n; 1 << 20]);
    for n in [1, 2] {
        let answer = alice
            .put(&node, &alice.home, BlockFormat::Raw, &[megabyte(n)])
            .await;
        assert_eq!(answer.status, 200, "{}", answer.message());
    }
    let answer = alice
        .put(&node, &alice.home, BlockFormat::Raw, &[megabyte(3)])
        .await;
    assert_eq!(
        answer.message(),
        format!(
            "Storage quota reached! \nUsed {start} out of 3000000 bytes. Rejecting write of size 3145728. \nPlease delete some files or request more space."
        )
    );
    assert!(
        answer
            .header("trailer")
            .unwrap()
            .starts_with("Storage+quota+reached%21+%0AUsed+")
    );
    assert_eq!(alice.usage(&node, "&local=true").await, start);
}

#[tokio::test]
async fn wr_12_usage_follows_commits_deletions_and_moved_writers() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let start = alice.usage(&node, "").await;
    let content = Bytes::from(vec![9; 10_000]);
    let raw = Cid::of_raw(&content);
    alice
        .put(&node, &alice.home, BlockFormat::Raw, &[content])
        .await;
    assert_eq!(alice.usage(&node, "&local=true").await, start + 10_000);
    assert_eq!(alice.usage(&node, "").await, start);
    // A tree that links the block twice counts it twice.
    let first = alice.home_root().await;
    let mut second = alice.home_root().await;
    let tree = cbor_block("tree", &[raw.clone(), raw]);
    second.data.tree = Some(tree.cid().clone());
    second.blocks.push(tree.clone());
    alice.put_root(&node, &alice.home, &second).await;
    let write = update(
        &alice.home,
        Some(&first.cid()),
        Some(&second.cid()),
        Some(2),
    );
    assert_eq!(alice.set(&node, &write).await.body, [1]);
    let root_delta = second.data.encode().len() as i64 - first.data.encode().len() as i64;
    let grown = start + 20_000 + tree.bytes().len() as i64 + root_delta;
    assert_eq!(alice.usage(&node, "").await, grown);
    assert_eq!(alice.usage(&node, "&local=true").await, grown);
    // A deleted pointer counts nothing.
    let home_size = |root: &Root| {
        root.all_blocks()
            .iter()
            .map(|b| b.bytes().len() as i64)
            .sum::<i64>()
    };
    let deletion = update(&alice.home, Some(&second.cid()), None, Some(3));
    assert_eq!(alice.set(&node, &deletion).await.body, [1]);
    assert_eq!(alice.usage(&node, "").await, start - home_size(&first));
}

/// The tree sizes of `usage.json`, through the API: each change of root gives the exact difference.
#[tokio::test]
async fn usage_vectors_give_exact_differences() {
    let json: serde_json::Value =
        serde_json::from_str(include_str!("../vectors/usage.json")).unwrap();
    let cases = json["cases"].as_array().unwrap();
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let blocks = cases[0]["blocks"].as_object().unwrap();
    let mut made: std::collections::HashMap<String, Cid> = std::collections::HashMap::new();
    let mut changes = 0;
    let mut current = alice.home_root().await;
    let mut sequence = 1;
    for (name, block) in blocks {
        made.insert(
            name.clone(),
            block["cid"].as_str().unwrap().parse().unwrap(),
        );
        // The content of the vector's blocks is not given; shapes with the same links and sizes are made below.
        assert!(block["size"].is_number());
    }
    let mut own: std::collections::HashMap<String, (Cid, i64)> = std::collections::HashMap::new();
    let inline = Cid::v1(Codec::DagCbor, Multihash::identity(&[0xf6]).unwrap());
    own.insert("(identity)".to_owned(), (inline, 0));
    while own.len() <= blocks.len() {
        for (name, block) in blocks {
            let links = block["links"].as_array().unwrap();
            let ready = links
                .iter()
                .all(|link| own.contains_key(link.as_str().unwrap()));
            if own.contains_key(name) || !ready {
                continue;
            }
            let size = block["size"].as_i64().unwrap();
            let (cid, bytes, format) = if links.is_empty() {
                let bytes = Bytes::from(vec![name.as_bytes()[0]; usize::try_from(size).unwrap()]);
                (Cid::of_raw(&bytes), bytes, BlockFormat::Raw)
            } else {
                let links: Vec<Cid> = links
                    .iter()
                    .map(|l| own[l.as_str().unwrap()].0.clone())
                    .collect();
                let block = cbor_block(name, &links);
                (
                    block.cid().clone(),
                    block.bytes().clone(),
                    BlockFormat::DagCbor,
                )
            };
            let length = bytes.len() as i64;
            let answer = alice.put(&node, &alice.home, format, &[bytes]).await;
            assert_eq!(answer.status, 200, "{}", answer.message());
            own.insert(name.clone(), (cid, length));
        }
    }
    fn size(
        blocks: &serde_json::Map<String, serde_json::Value>,
        own: &std::collections::HashMap<String, (Cid, i64)>,
        name: &str,
    ) -> i64 {
        let Some(links) = blocks.get(name).and_then(|block| block["links"].as_array()) else {
            return 0;
        };
        own[name].1
            + links
                .iter()
                .map(|l| size(blocks, own, l.as_str().unwrap()))
                .sum::<i64>()
    }
    let base = alice.usage(&node, "").await;
    let without_tree = current.data.encode().len() as i64;
    for case in cases.iter().filter(|case| case["kind"] == "change") {
        for end in ["from", "to"] {
            let Some(name) = case[end].as_str() else {
                continue;
            };
            let mut next = alice.home_root().await;
            next.data.tree = Some(own[name].0.clone());
            if next.cid() == current.cid() {
                continue;
            }
            alice.put_root(&node, &alice.home, &next).await;
            sequence += 1;
            let write = update(
                &alice.home,
                Some(&current.cid()),
                Some(&next.cid()),
                Some(sequence),
            );
            assert_eq!(alice.set(&node, &write).await.body, [1]);
            let expected =
                base - without_tree + next.data.encode().len() as i64 + size(blocks, &own, name);
            assert_eq!(alice.usage(&node, "").await, expected, "{case}");
            current = next;
            changes += 1;
        }
    }
    assert!(changes > 3, "{changes}");
}

/// A champ with three entries, two of them private, committed as alice's file tree.
async fn tree(node: &TestNode, alice: &Account) -> (Cid, Vec<[u8; 32]>, Vec<Bytes>, Bat) {
    let bat = Bat::from_secret([5; 32]);
    let mut champ = Champ::empty();
    let source = champ::MemoryBlocks::new();
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for n in 0..12u8 {
        let mut map = Map::new();
        map.insert("n", i64::from(n));
        if n != 2 {
            map.insert("bats", vec![bat.inline_id().to_value()]);
        }
        let value = Block::cbor(Value::Map(map).encode()).unwrap();
        let label = [n.wrapping_mul(37); 32];
        champ
            .put(label.to_vec(), None, Value::from(value.cid()), &source)
            .await
            .unwrap();
        keys.push(label);
        values.push(value.bytes().clone());
    }
    let (root, nodes) = champ.finish().unwrap();
    let mut blocks: Vec<Bytes> = nodes.iter().map(|node| node.bytes().clone()).collect();
    blocks.extend(values.iter().cloned());
    let answer = alice
        .put(node, &alice.home, BlockFormat::DagCbor, &blocks)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.message());
    (root, keys, values, bat)
}

#[tokio::test]
async fn champ_lookups_prove_presence_and_absence_and_check_tokens() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let (root, keys, values, bat) = tree(&node, &alice).await;
    let owner = alice.owner();
    let lookup = |root: &Cid, caps: &[ChampCap]| {
        let caps: Vec<Value> = caps.iter().map(champ::cbor::Record::to_value).collect();
        let caps = to_multibase(&Value::List(caps).encode());
        format!("api/v0/champ/get/bulk?arg={root}&owner={owner}&caps={caps}")
    };
    let cap = |key: [u8; 32], token: Option<&Bat>| ChampCap {
        map_key: key,
        bat: token.map(Bat::with_calculated_id),
    };
    let blocks = |body: &[u8]| match champ::cbor::decode(body).unwrap() {
        Value::List(list) => list
            .into_iter()
            .map(|b| b.into_bytes("b").unwrap())
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let answer = node
        .post(&lookup(&root, &[cap(keys[0], Some(&bat))]), "")
        .await;
    assert_eq!(answer.header("etag"), Some(format!("\"{root}\"").as_str()));
    assert_eq!(answer.header("cache-control"), CACHED);
    let found = blocks(&answer.body);
    assert!(found.contains(&values[0]) && found.iter().any(|block| Cid::of_cbor(block) == root));
    let many: Vec<_> = (0..12).map(|n| cap(keys[n], Some(&bat))).collect();
    let found = blocks(&node.ok(&lookup(&root, &many), "").await);
    assert!(values.iter().all(|value| found.contains(value)));
    let absent = blocks(&node.ok(&lookup(&root, &[cap([1; 32], None)]), "").await);
    assert!(absent.iter().all(|block| !values.contains(block)));
    // The public value needs no token; a wrong one for any entry refuses the whole call.
    node.ok(&lookup(&root, &[cap(keys[2], None)]), "").await;
    let wrong = Bat::from_secret([6; 32]);
    for bad in [
        vec![cap(keys[0], None)],
        vec![cap(keys[0], Some(&bat)), cap(keys[1], Some(&wrong))],
    ] {
        assert_eq!(
            node.refused(&lookup(&root, &bad), "").await,
            "Unauthorised!"
        );
    }
    assert_eq!(
        node.refused(&lookup(&root, &vec![cap(keys[0], Some(&bat)); 21]), "")
            .await,
        "Too many caps in bulk champ get call! 21"
    );
    assert_eq!(node.ok(&lookup(&root, &[]), "").await, [0x80]);
    let missing = Cid::of_cbor(b"missing");
    for caps in [vec![], vec![cap(keys[0], None)]] {
        assert_eq!(
            node.refused(&lookup(&missing, &caps), "").await,
            format!("Champ root not present locally: {missing}")
        );
    }
    let no_champ = alice.home_root().await.cid();
    assert!(
        node.refused(&lookup(&no_champ, &[cap(keys[0], None)]), "")
            .await
            .starts_with("Invalid cbor for CHAMP!")
    );
    // The older forms.
    let token = bat.with_calculated_id().to_text();
    for call in ["champ/get", "champ/get/bulk"] {
        let target = format!(
            "api/v0/{call}?arg={root}&arg={}&owner={owner}&bat={token}",
            to_hex(&keys[0])
        );
        assert!(blocks(&node.ok(&target, "").await).contains(&values[0]));
    }
    assert!(ChampCaps::new(vec![cap(keys[0], None)]).is_ok());
}

#[tokio::test]
async fn legacy_multipart_uploads_are_accepted() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    let alice = alice(&node).await;
    let one = Value::from("one").encode();
    let cid = Cid::of_cbor(&one);
    let signature = to_hex(&sign_block(&alice.home, &cid));
    let target = format!(
        "/{}&signatures={signature}",
        alice
            .put_target(&alice.home.writer(), "dag-cbor")
            .replace("put/bulk", "put")
    );
    let body = |boundary: &str| {
        [
            format!("--{boundary}\r\nContent-Disposition: form-data\r\n\r\n").as_bytes(),
            &one,
            format!("\r\n--{boundary}--\r\n").as_bytes(),
        ]
        .concat()
    };
    let kind = "Content-Type: multipart/form-data; boundary=x123";
    let answer = served
        .request("POST", &target, &[kind], &body("x123"))
        .await;
    assert_eq!(
        answer.body,
        format!("{{\"Hash\":\"{cid}\"}}").as_bytes(),
        "{}",
        answer.message()
    );
    let answer = served
        .request("POST", &target, &[kind], &body("other"))
        .await;
    assert_eq!(answer.message(), "Incorrect boundary! x123 != other");
    assert_eq!(
        served
            .request("POST", &target, &[], &body("x123"))
            .await
            .status,
        400
    );
    served.stop().await;
}

#[tokio::test]
async fn calls_of_object_stores_and_networks_are_refused_in_words() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let owner = alice.owner();
    assert_eq!(
        node.ok("api/v0/blockstore/props", "").await,
        champ::text::from_hex("a36177f4626172f4627072f4").unwrap()
    );
    let reads = format!("api/v0/blockstore/auth-reads?owner={owner}");
    assert_eq!(
        node.refused(&reads, &b"\x80"[..]).await,
        "Unimplemented call!"
    );
    let writes =
        format!("api/v0/blockstore/auth?owner={owner}&writer={owner}&transaction=t&raw=true");
    let empty = champ::text::from_hex("a3616280616c80617380").unwrap();
    assert_eq!(node.refused(&writes, empty).await, "Unimplemented call!");
    let record = format!(
        "api/v0/ipns/get?arg={}",
        node.node.id().bare_multihash_text()
    );
    assert_eq!(node.refused(&record, "").await, "Unimplemented!");
    let host = node
        .ok(&format!("api/v0/link-host?owner={owner}"), "")
        .await;
    assert_eq!(host, b"localhost:8000");
    assert_eq!(
        node.refused("api/v0/link-host", "").await,
        "No value present"
    );
}

/// Publishes one link in alice's identity root.
async fn publish(node: &TestNode, alice: &Account, label: u32, target: &SecretLinkTarget) {
    let label = LinkLabel::new(label).unwrap();
    let block = Block::cbor(target.encode()).unwrap();
    let mut links = Champ::empty_private(alice.mirror.secret_hash_id());
    let source = champ::MemoryBlocks::new();
    links
        .put(
            label.champ_key().to_vec(),
            None,
            Value::from(block.cid()),
            &source,
        )
        .await
        .unwrap();
    let (links, nodes) = links.finish().unwrap();
    let before = alice.identity_root().await;
    let mut root = alice.identity_root().await;
    root.data.links = Some(links);
    root.blocks.extend(nodes);
    root.blocks.push(block);
    alice.put_root(node, &alice.identity, &root).await;
    let write = update(
        &alice.identity,
        Some(&before.cid()),
        Some(&root.cid()),
        Some(2),
    );
    assert_eq!(alice.set(node, &write).await.body, [1]);
}

fn link_target(expiry: Option<i64>, max: Option<i64>) -> SecretLinkTarget {
    SecretLinkTarget {
        capability: EncryptedCapability {
            cipher_text: OpaqueCipherText {
                nonce: [1; 24],
                cipher: vec![2; 50].into(),
            },
            needs_password: false,
        },
        expiry_epoch_seconds: expiry,
        max_retrievals: max,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lnk_1_links_are_counted_atomically() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let owner = alice.owner();
    let get = |label: &str| format!("api/v0/link/get?label={label}&owner={owner}");
    assert_eq!(
        node.refused(&get("1"), "").await,
        "No secret link published!"
    );
    let target = link_target(None, Some(1));
    publish(&node, &alice, 77, &target).await;
    let answers = futures_util::future::join_all((0..64).map(|_| {
        let get = get("77");
        let node = &node;
        async move { node.post(&get, "").await }
    }))
    .await;
    let served: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 200)
        .collect();
    assert_eq!(served.len(), 1);
    assert_eq!(served[0].body, target.capability.encode());
    assert_eq!(served[0].header("cache-control"), Some("no-store"));
    assert!(
        answers
            .iter()
            .any(|answer| answer.message() == "Maximum link retrievals exceed!")
    );
    for (label, text) in [
        ("0", "Link labels must be positive!"),
        ("-5", "Link labels must be positive!"),
        ("1", "No secret link present!"),
    ] {
        assert_eq!(node.refused(&get(label), "").await, text);
    }
    node.refused(&get("abc"), "").await;
    let counts = |bat: &BatWithId, joint: &str| {
        format!(
            "api/v0/link/counts?after=0{joint}bat={}&owner=alice",
            bat.to_text()
        )
    };
    let expected = format!("a1616483184d011a{:08x}", NOW / 1000);
    for joint in ["&", "?"] {
        let body = node.ok(&counts(&alice.mirror_with_id(), joint), "").await;
        assert_eq!(to_hex(&body), expected);
    }
    let wrong = Bat::from_secret([6; 32]);
    assert_eq!(
        node.refused(&counts(&wrong.with_calculated_id(), "&"), "")
            .await,
        "Unauthorized!"
    );
}

#[tokio::test]
async fn lnk_1_expired_links_are_refused_and_lnk_2_guessing_is_slowed_down() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    publish(&node, &alice, 77, &link_target(Some(NOW / 1000 + 10), None)).await;
    let get = |label: u32| format!("api/v0/link/get?label={label}&owner={}", alice.owner());
    node.ok(&get(77), "").await;
    node.ok(&get(77), "").await;
    node.clock.advance(11_000);
    assert_eq!(node.refused(&get(77), "").await, "Secret link expired!");
    for guess in 1000..1010 {
        assert_eq!(
            node.refused(&get(guess), "").await,
            "No secret link present!"
        );
    }
    let limited = node.post(&get(1010), "").await;
    assert_eq!(limited.status, 429);
    assert!(
        limited
            .header("trailer")
            .unwrap()
            .starts_with("Rate+Limit%3A+")
    );
}

#[tokio::test]
async fn groups_without_body_limits_do_not_exist() {
    assert_eq!(<BlockGroup as pki::wire::Body>::MAX_BYTES, 4 << 20);
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let target = alice.put_target(&alice.home.writer(), "raw");
    let message = node.refused(&target, vec![0; (4 << 20) + 1]).await;
    assert_eq!(message, "Input exceeds maximum size of 4194304 bytes");
    assert!(BlockGroup::new(vec![], vec![]).unwrap().to_body().len() < 10);
}
