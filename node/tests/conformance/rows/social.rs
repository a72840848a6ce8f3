//! SOC and LNK rows.

use champ::cbor::{Map, Value};
use node::store::{Batch, MetaStore as _, tables};

use super::node_and_store;
use crate::conformance::{
    account::Account,
    harness::{NOW, config},
};

fn sealed(n: u32) -> Vec<u8> {
    let mut map = Map::new();
    map.insert("f", [&n.to_be_bytes()[..], &[7; 40]].concat());
    map.insert("k", vec![Value::Int(1), Value::from(&[9u8; 32])]);
    Value::Map(map).encode()
}

/// Rows that no call would have stored: the others are listed all the same.
#[tokio::test]
async fn soc_1_a_bad_row_does_not_hide_the_inbox() {
    let (node, store) = node_and_store(config()).await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let send = format!("peergos/v0/social/followRequest?owner={}", alice.owner());
    assert_eq!(node.ok(&send, sealed(1)).await, [1]);
    for (n, bad) in [&b""[..], b"\xff", b"\x9f\xff", &[0x81; 2000], b"\x00\x00"]
        .iter()
        .enumerate()
    {
        let mut row = alice.owner().cid().to_bytes();
        row.extend_from_slice(&(100 + n as u64).to_be_bytes());
        let batch = Batch::new().put(
            tables::FOLLOW_REQUESTS,
            row,
            bytes::Bytes::copy_from_slice(bad),
        );
        assert!(store.commit(batch).await.unwrap().is_committed());
    }
    assert_eq!(node.ok(&send, sealed(2)).await, [1]);
    let list = format!(
        "peergos/v0/social/getFollowRequests?owner={}&auth={}",
        alice.owner(),
        alice.time(NOW)
    );
    let body = node.ok(&list, "").await;
    assert_eq!(body[4..], [&[0x82][..], &sealed(1), &sealed(2)].concat());
}

/// Nesting, other shapes, lengths at the limit.
#[tokio::test]
async fn soc_1_only_sealed_requests_are_stored() {
    let (node, store) = node_and_store(config()).await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let send = format!("peergos/v0/social/followRequest?owner={}", alice.owner());
    let with = |f: Value, k: Value| {
        let mut map = Map::new();
        map.insert("f", f);
        map.insert("k", k);
        Value::Map(map).encode()
    };
    let key = Value::List(vec![Value::Int(1), Value::from(&[9u8; 32])]);
    let cipher = Value::Bytes(vec![7; 64].into());
    for bad in [
        vec![0x81; 4096],
        vec![0x00],
        with(cipher.clone(), Value::Null),
        with(
            cipher.clone(),
            Value::List(vec![Value::Int(1), Value::Bytes(vec![9; 31].into())]),
        ),
        with(
            cipher.clone(),
            Value::List(vec![Value::Int(77), Value::from(&[9u8; 32])]),
        ),
        with(Value::from("text"), key.clone()),
        with(Value::Bytes(vec![7; 31].into()), key.clone()),
        [with(cipher, key), vec![0]].concat(),
    ] {
        assert_eq!(node.refused(&send, bad).await, "Not a follow request");
    }
    let rows = store
        .scan(tables::FOLLOW_REQUESTS, b"", None, 10)
        .await
        .unwrap();
    assert!(rows.is_empty());
}
