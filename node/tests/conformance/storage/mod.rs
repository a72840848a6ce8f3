//! Blocks, look-ups, quotas, links: one file per subject (Spec: 06).

mod get;
mod links;
mod lookups;
mod node_info;
mod put;
mod quota;

use bytes::Bytes;
use champ::cbor::{Map, Value};

use super::{
    account::Account,
    harness::{Answer, TestNode},
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
