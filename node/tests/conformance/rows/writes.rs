//! WR rows: writes, pointers, transactions.

use bytes::Bytes;
use champ::{Block, Cid, cbor::Value, text::from_hex};
use node::store::{BlockStore as _, TransactionId};
use pki::{
    keys::Writer,
    wire::{block_group::BlockFormat, pointer_batch::PointerWrite},
};
use serde_json::Value as Json;

use super::{node_and_store, on_disk, partition, still_serves};
use crate::conformance::{
    account::{Account, Root, cbor_block, key, owning, sign_block, update},
    harness::{TestNode, config},
};

/// The bytes of a hostile input.
fn bytes_of(case: &Json) -> Vec<u8> {
    if let Some(hex) = case["hex"].as_str() {
        return from_hex(hex).unwrap();
    }
    let part = |hex: &str, times: &str| {
        let part = from_hex(case[hex].as_str().unwrap_or_default()).unwrap();
        part.repeat(case[times].as_u64().unwrap_or(1) as usize)
    };
    [
        part("repeat_hex", "times"),
        part("then_hex", "no such field"),
        part("then_repeat_hex", "then_times"),
    ]
    .concat()
}

/// Every hostile cbor input as a block, one by one and many together.
#[tokio::test]
async fn wr_4_only_canonical_cbor_is_stored_and_served_byte_for_byte() {
    let json: Json =
        serde_json::from_str(include_str!("../../vectors/hostile_inputs.json")).unwrap();
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let mut counts = [0, 0, 0];
    for case in json["cases"].as_array().unwrap() {
        if case["group"] != "cbor" {
            continue;
        }
        let (name, bytes) = (case["name"].as_str().unwrap(), Bytes::from(bytes_of(case)));
        let cid = Cid::of_cbor(&bytes);
        let blocks = [bytes.clone()];
        let answer = alice
            .put(&node, &alice.home, BlockFormat::DagCbor, &blocks)
            .await;
        let found = node.ok(&alice.get_target(&cid), "").await;
        match case["strict"].as_str().unwrap() {
            "accept" => {
                assert_eq!(answer.status, 200, "{name}: {}", answer.message());
                assert_eq!(found, bytes, "{name}");
                counts[0] += 1;
            }
            "reject" => {
                assert_eq!(answer.status, 400, "{name}");
                assert!(found.is_empty(), "{name}");
                counts[1] += 1;
            }
            "implementation limit" => {
                assert_eq!(found.is_empty(), answer.status == 400, "{name}");
                counts[2] += 1;
            }
            other => panic!("{name}: {other}"),
        }
    }
    assert_eq!(counts, [8, 51, 3]);
    still_serves(&node, &alice, 1).await;
}

/// A root of the home writer with a tree of its own.
async fn root(alice: &Account, n: u32) -> Root {
    let mut root = alice.home_root().await;
    let tree = cbor_block(&format!("tree {n}"), &[]);
    root.data.tree = Some(tree.cid().clone());
    root.blocks.push(tree);
    root
}

#[tokio::test]
async fn wr_5_replayed_and_ill_founded_updates_change_nothing() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let bob = Account::sign_up(&node, "bob", 8).await;
    let home = &alice.home;
    let mut roots = vec![alice.home_root().await.cid()];
    let mut sent = Vec::new();
    for n in 1..=3 {
        let next = root(&alice, n).await;
        alice.put_root(&node, home, &next).await;
        let (from, to) = (roots.last().unwrap(), next.cid());
        let write = update(home, Some(from), Some(&to), Some(i64::from(n) + 1));
        assert_eq!(alice.set(&node, &write).await.body, [1]);
        roots.push(to);
        sent.push(write);
    }
    let current = sent.last().unwrap().signed.clone();
    let (last, older) = (roots[3].clone(), roots[2].clone());
    let bobs_root = bob.home_root().await.cid();
    let mut bad = sent.clone();
    bad.extend([
        update(home, Some(&last), Some(&older), Some(4)),
        update(home, Some(&last), Some(&older), Some(3)),
        update(home, Some(&last), Some(&older), None),
        update(home, Some(&last), Some(&older), Some(4 + (1 << 20) + 1)),
        // Stored, and a root, of another user: not in alice's space.
        update(home, Some(&last), Some(&bobs_root), Some(5)),
        update(
            home,
            Some(&last),
            Some(&alice.identity_root().await.cid()),
            Some(5),
        ),
        // Never there, and never in this space.
        update(home, Some(&last), Some(&Cid::of_cbor(b"nothing")), Some(5)),
        update(home, Some(&last), Some(&Cid::of_raw(b"nothing")), Some(5)),
    ]);
    for flipped in [0, 63, 64, 70] {
        let mut write = update(home, Some(&last), Some(&older), Some(5));
        let mut signed = write.signed.to_vec();
        signed[flipped] ^= 1;
        write.signed = signed.into();
        bad.push(write);
    }
    for (n, write) in bad.iter().enumerate() {
        let answer = alice.set(&node, write).await;
        assert_ne!(
            (answer.status, answer.body.as_slice()),
            (200, &[1][..]),
            "{n}"
        );
        let answer = alice.set_all(&node, vec![write.clone()]).await;
        assert_eq!(answer.status, 400, "{n}");
        assert_eq!(alice.pointer(&node, &home.writer()).await, current, "{n}");
    }
    // Going back to an older root is a change like any other.
    let back = update(home, Some(&last), Some(&older), Some(5));
    assert_eq!(alice.set(&node, &back).await.body, [1]);
}

#[tokio::test]
async fn wr_7_of_five_pointers_none_moves_when_the_fourth_is_stale() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let writers: Vec<_> = (10..14).map(|role| key(7, role)).collect();
    let owned: Vec<_> = writers.iter().collect();
    let parent = owning(&alice.home, &owned).await;
    alice.put_root(&node, &alice.home, &parent).await;
    let first = alice.home_root().await.cid();
    let adopt = update(&alice.home, Some(&first), Some(&parent.cid()), Some(2));
    assert_eq!(alice.set(&node, &adopt).await.body, [1]);
    let mut writes = Vec::new();
    for writer in &writers {
        let root = owning(writer, &[]).await;
        alice.put_root(&node, writer, &root).await;
        writes.push(update(writer, None, Some(&root.cid()), Some(1)));
    }
    let next = root(&alice, 1).await;
    alice.put_root(&node, &alice.home, &next).await;
    writes.push(update(
        &alice.home,
        Some(&parent.cid()),
        Some(&next.cid()),
        Some(3),
    ));
    let mut stale: Vec<PointerWrite> = writes.clone();
    stale[3] = update(&writers[3], Some(&first), None, Some(1));
    let answer = alice.set_all(&node, stale).await;
    assert!(
        answer.message().starts_with("PointerCAS:EMPTY,,"),
        "{}",
        answer.message()
    );
    for writer in &writers {
        assert!(alice.pointer(&node, &writer.writer()).await.is_empty());
    }
    let home = alice.pointer(&node, &alice.home.writer()).await;
    assert_eq!(home, adopt.signed);
    assert_eq!(alice.set_all(&node, writes.clone()).await.body, [1]);
    for write in &writes {
        assert_eq!(alice.pointer(&node, &write.writer).await, write.signed);
    }
}

/// What follows from a commit fails, because a block below the new root is damaged: the commit stands.
#[tokio::test]
async fn wr_8_a_commit_is_acknowledged_whatever_happens_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::with(on_disk(folder.path())).await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    // Large enough for a file of its own, and read when usage is worked out because it may hold links.
    let tree = Block::cbor(Value::Bytes(vec![0xab; 70_000].into()).encode()).unwrap();
    let mut next = alice.home_root().await;
    next.data.tree = Some(tree.cid().clone());
    next.blocks.push(tree.clone());
    alice.put_root(&node, &alice.home, &next).await;
    let mut damaged = 0;
    for run in std::fs::read_dir(folder.path().join("data/store/blocks")).unwrap() {
        for file in std::fs::read_dir(run.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    assert_eq!(
        node.post(&alice.get_target(tree.cid()), "").await.status,
        500
    );
    let first = alice.home_root().await.cid();
    let write = update(&alice.home, Some(&first), Some(&next.cid()), Some(2));
    let answer = alice.set(&node, &write).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &[1][..]));
    let stored = alice.pointer(&node, &alice.home.writer()).await;
    assert_eq!(stored, write.signed);
    still_serves(&node, &alice, 2).await;
    node.node.close().await.unwrap();
}

#[tokio::test]
async fn wr_9_transactions_cost_nothing_and_close_only_for_their_user() {
    let (node, store) = node_and_store(config()).await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let bob = Account::sign_up(&node, "bob", 8).await;
    let content = [Bytes::from(vec![5; 2000])];
    alice
        .put(&node, &alice.home, BlockFormat::Raw, &content)
        .await;
    let kept = async || {
        let kept = store.protected_blocks(&partition("alice")).await.unwrap();
        kept.contains(&Cid::of_raw(&content[0]))
    };
    assert!(kept().await);
    let start = format!("api/v0/transaction/start?owner={}", alice.owner());
    let mut ids = std::collections::HashSet::new();
    for _ in 0..5000 {
        ids.insert(node.ok(&start, "").await);
    }
    // 122 random bits each: none twice, and nothing of them is kept.
    assert_eq!(ids.len(), 5000);
    let protected = store.protected_blocks(&partition("alice")).await.unwrap();
    assert_eq!(protected.len(), 1);
    for id in ["t1", "t2", "nosuch"] {
        let close = format!("api/v0/transaction/close?arg={id}&owner={}", bob.owner());
        assert_eq!(node.ok(&close, "").await, b"1");
    }
    assert!(kept().await, "closed by another user");
    let close = format!("api/v0/transaction/close?arg=t1&owner={}", alice.owner());
    assert_eq!(node.ok(&close, "").await, b"1");
    assert!(!kept().await);
    assert!(TransactionId::new(&"a".repeat(65)).is_err());
}

/// A key that is nobody's: neither signing itself nor standing under somebody's name makes it a writer.
#[tokio::test]
async fn wr_2_no_first_write_makes_a_key_a_writer() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let mallory = Account::sign_up(&node, "mallory", 8).await;
    let before = alice.usage(&node, "&local=true").await;
    let new = key(7, 30);
    let own_key = Bytes::from(champ::cbor::Record::encode(&new.secret().public()));
    let other = Bytes::from(Value::from("not a key").encode());
    for block in [own_key, other] {
        let cid = Cid::of_cbor(&block);
        for (who, writer) in [
            (&alice, &new),
            (&alice, &mallory.home),
            (&alice, &mallory.identity),
            (&mallory, &alice.home),
        ] {
            let answer = who
                .put(
                    &node,
                    writer,
                    BlockFormat::DagCbor,
                    std::slice::from_ref(&block),
                )
                .await;
            assert_eq!(
                answer.message(),
                format!("Writer not present on this server: {}", writer.hash())
            );
            assert!(node.ok(&who.get_target(&cid), "").await.is_empty());
        }
        assert_eq!(sign_block(&new, &cid).len(), 96);
    }
    assert_eq!(alice.usage(&node, "&local=true").await, before);
    let pointer: Writer = mallory.home.writer();
    let stolen = update(
        &mallory.home,
        None,
        Some(&alice.home_root().await.cid()),
        Some(2),
    );
    assert_eq!(alice.set(&node, &stolen).await.status, 400);
    assert!(!mallory.pointer(&node, &pointer).await.is_empty());
}
