//! Champ look-ups (Spec: 06 §5.3).

use bytes::Bytes;
use champ::{
    Block, Cid,
    access::Bat,
    cbor::{Map, Record as _, Value},
    map::Champ,
    text::{to_hex, to_multibase},
};
use pki::wire::{
    block_group::BlockFormat,
    champ_lookup::{ChampCap, ChampCaps},
};

use super::{CACHED, alice};
use crate::conformance::account::Account;
use crate::conformance::harness::TestNode;

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
