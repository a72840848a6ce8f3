//! Quota and usage (Spec: 06 §4.4, 12 §3).

use bytes::Bytes;
use champ::{Cid, Codec, Multihash, cbor::Record as _};
use node::Config;
use pki::wire::block_group::BlockFormat;

use super::alice;
use crate::conformance::account::{Root, cbor_block, update};
use crate::conformance::harness::{TestNode, config};

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
        serde_json::from_str(include_str!("../../vectors/usage.json")).unwrap();
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
