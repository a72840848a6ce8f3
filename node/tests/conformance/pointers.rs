//! Pointers (Spec: 07): every refusal of the table, atomic batches, compare-and-swap under contention.

use bytes::Bytes;
use champ::{Cid, cbor::Value};
use pki::wire::{
    Body as _,
    block_group::{BlockFormat, BlockGroup},
    pointer_batch::PointerWrite,
};

use super::{
    account::{Account, Root, cbor_block, key, owning, sign_block, update},
    harness::TestNode,
};

/// Alice with a second root of her home writer uploaded, and both root CIDs.
async fn prepared(node: &TestNode) -> (Account, Cid, Cid) {
    let alice = Account::sign_up(node, "alice", 7).await;
    let first = alice.home_root().await.cid();
    let second = next_root(&alice, 1).await;
    alice.put_root(node, &alice.home, &second).await;
    (alice, first, second.cid())
}

/// A root block of the home writer with a tree.
async fn next_root(alice: &Account, n: u8) -> Root {
    let mut root = alice.home_root().await;
    let tree = cbor_block(&format!("tree {n}"), &[]);
    root.data.tree = Some(tree.cid().clone());
    root.blocks.push(tree);
    root
}

#[tokio::test]
async fn every_refusal_has_its_text_and_changes_nothing() {
    let node = TestNode::new().await;
    let (alice, first, second) = prepared(&node).await;
    let before = alice.pointer(&node, &alice.home.writer()).await;
    let absent = Cid::of_cbor(b"absent");
    let not_a_root = cbor_block("no root", &[]);
    let bytes = [not_a_root.bytes().clone()];
    alice
        .put(&node, &alice.home, BlockFormat::DagCbor, &bytes)
        .await;
    let home = &alice.home;
    let cases = [
        (
            update(home, Some(&absent), Some(&second), Some(2)),
            format!("PointerCAS:{first},1,{absent}"),
        ),
        (
            update(home, None, Some(&second), Some(2)),
            format!("PointerCAS:{first},1,EMPTY"),
        ),
        (
            update(home, Some(&first), Some(&second), Some(1)),
            "Invalid sequence number update in mutable pointer: Optional[1] => Optional[1]"
                .to_owned(),
        ),
        (
            update(home, Some(&first), Some(&second), None),
            "Invalid sequence number update in mutable pointer: Optional[1] => Optional.empty"
                .to_owned(),
        ),
        (
            update(home, Some(&first), Some(&second), Some(1 << 21)),
            format!(
                "Invalid sequence number update in mutable pointer: Optional[1] => Optional[{}]",
                1i64 << 21
            ),
        ),
        (
            update(home, Some(&first), Some(&absent), Some(2)),
            format!("Couldn't retrieve WriterData from dht! {absent}"),
        ),
    ];
    for (write, text) in cases {
        let answer = alice.set(&node, &write).await;
        assert_eq!((answer.status, answer.message()), (400, text.clone()));
        let answer = alice.set_all(&node, vec![write]).await;
        assert_eq!((answer.status, answer.message()), (400, text));
    }
    let cas = alice
        .set(&node, &update(home, Some(&absent), Some(&second), Some(2)))
        .await;
    assert_eq!(
        cas.header("trailer").unwrap(),
        format!("PointerCAS%3A{first}%2C1%2C{absent}")
    );
    let wrong = alice
        .set(
            &node,
            &update(home, Some(&first), Some(not_a_root.cid()), Some(2)),
        )
        .await;
    assert!(
        wrong
            .message()
            .starts_with("Cbor for WriterData should be a map!")
    );
    // 00 and 200, as the reference answers; the batch call must not (Spec: 07 §4).
    let mut forged = update(&key(66, 2), Some(&first), Some(&second), Some(2));
    forged.writer = home.writer();
    assert_eq!(alice.set(&node, &forged).await.body, [0]);
    assert_eq!(alice.set_all(&node, vec![forged.clone()]).await.status, 400);
    let empty = PointerWrite {
        signed: Bytes::new(),
        writer: home.writer(),
    };
    assert_eq!(alice.set(&node, &empty).await.body, [0]);
    let foreign = update(
        &alice.identity,
        Some(&alice.identity_root().await.cid()),
        Some(&second),
        Some(2),
    );
    assert_eq!(alice.set(&node, &foreign).await.body, [0]);
    assert_eq!(
        alice.set_all(&node, vec![foreign]).await.message(),
        format!(
            "WriterData controller mismatch for {}",
            alice.identity.writer()
        )
    );
    let long = PointerWrite {
        signed: vec![1; 148].into(),
        writer: home.writer(),
    };
    assert_eq!(
        alice.set(&node, &long).await.message(),
        "Pointer update too big! 148"
    );
    let longer = PointerWrite {
        signed: vec![1; 1025].into(),
        writer: home.writer(),
    };
    assert_eq!(
        alice.set(&node, &longer).await.message(),
        "Input exceeds maximum size of 1024 bytes"
    );
    let same = Value::List(vec![
        Value::from(first.to_bytes()),
        Value::from(first.to_bytes()),
        Value::Int(2),
    ]);
    let same = PointerWrite {
        signed: home.secret().sign_attached(&same.encode()).into(),
        writer: home.writer(),
    };
    assert_eq!(
        alice.set(&node, &same).await.message(),
        "Tried to create a CAS pair with original == target!"
    );
    assert_eq!(alice.pointer(&node, &home.writer()).await, before);
}

#[tokio::test]
async fn unknown_owners_and_writers_are_told_apart() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let stranger = key(66, 2);
    assert!(alice.pointer(&node, &stranger.writer()).await.is_empty());
    let target = format!(
        "peergos/v0/mutable/getPointer?owner={0}&writer={0}",
        stranger.hash()
    );
    assert_eq!(
        node.refused(&target, "").await,
        format!("Unknown identity key: {}", stranger.hash())
    );
    for bad in [
        "peergos/v0/mutable/getPointer",
        "peergos/v0/mutable/getPointer?owner=x&writer=y",
        "peergos/v0/mutable/getPointer?foo",
    ] {
        assert!(!node.refused(bad, "").await.is_empty());
    }
    let no_writer = format!("peergos/v0/mutable/getPointer?owner={}", alice.owner());
    node.refused(&no_writer, "").await;
}

#[tokio::test]
async fn wr_5_updates_replace_each_other_and_deletions_stay_on_record() {
    let node = TestNode::new().await;
    let (alice, first, second) = prepared(&node).await;
    let home = &alice.home;
    let write = update(home, Some(&first), Some(&second), Some(2));
    assert_eq!(alice.set(&node, &write).await.body, [1]);
    assert_eq!(alice.pointer(&node, &home.writer()).await, write.signed);
    // A retry of the same request is told that its own value is current.
    assert_eq!(
        alice.set(&node, &write).await.message(),
        format!("PointerCAS:{second},2,{first}")
    );
    let deletion = update(home, Some(&second), None, Some(3));
    assert_eq!(alice.set_all(&node, vec![deletion.clone()]).await.body, [1]);
    assert_eq!(alice.pointer(&node, &home.writer()).await, deletion.signed);
    let again = update(home, None, Some(&first), Some(3));
    assert!(
        alice
            .set(&node, &again)
            .await
            .message()
            .starts_with("Invalid sequence number")
    );
    let again = update(home, None, Some(&first), Some(4));
    assert_eq!(alice.set(&node, &again).await.body, [1]);
}

#[tokio::test]
async fn wr_7_a_batch_is_all_or_nothing() {
    let node = TestNode::new().await;
    let (alice, first, second) = prepared(&node).await;
    let identity_root = alice.identity_root().await.cid();
    let good = update(&alice.home, Some(&first), Some(&second), Some(2));
    let stale = update(&alice.identity, Some(&second), None, Some(2));
    let answer = alice.set_all(&node, vec![good.clone(), stale]).await;
    assert_eq!(
        answer.message(),
        format!("PointerCAS:{identity_root},1,{second}")
    );
    assert_eq!(alice.pointer(&node, &alice.home.writer()).await.len(), 105);
    assert_eq!(alice.set_all(&node, Vec::new()).await.body, [1]);
    // The same writer twice.
    let mut twice = champ::cbor::Map::new();
    let value = champ::cbor::Record::to_value(&good);
    twice.insert("p", vec![value.clone(), value]);
    let target = format!("peergos/v0/mutable/setPointers?owner={}", alice.owner());
    node.refused(&target, Value::Map(twice).encode()).await;
    for bad in [&b""[..], b"\xff", b"\x80", b"\xa0"] {
        node.refused(&target, bad.to_vec()).await;
    }
    assert_eq!(alice.set_all(&node, vec![good]).await.body, [1]);
}

/// WR-2 and 07 §5: a key that the owner does not own can neither write nor point.
#[tokio::test]
async fn wr_2_only_owned_writers_may_point() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let bob = Account::sign_up(&node, "bob", 8).await;
    let new = key(7, 3);
    let root = owning(&new, &[]).await;
    let blocks: Vec<_> = root
        .all_blocks()
        .iter()
        .map(|b| b.bytes().clone())
        .collect();
    // Uploaded by alice's home writer, so the root is there; the key is still nobody's.
    assert_eq!(
        alice
            .put(&node, &alice.home, BlockFormat::DagCbor, &blocks)
            .await
            .status,
        200
    );
    let write = update(&new, None, Some(&root.cid()), Some(1));
    let unknown = format!("Writer not present on this server: {}", new.hash());
    assert_eq!(alice.set(&node, &write).await.message(), unknown);
    assert_eq!(
        alice
            .put(&node, &new, BlockFormat::DagCbor, &blocks)
            .await
            .message(),
        unknown
    );
    // Bob's pointer with alice as owner: found nowhere in her space, and not hers.
    let bobs = update(&bob.home, Some(&bob.home_root().await.cid()), None, Some(2));
    assert_eq!(alice.set(&node, &bobs).await.status, 400);
    // Alice's writer with bob as owner cannot store there.
    assert_eq!(
        bob.put(&node, &alice.home, BlockFormat::DagCbor, &blocks)
            .await
            .status,
        400
    );
    // Once the parent proves it, the very next requests are accepted.
    let first = alice.home_root().await.cid();
    let parent = owning(&alice.home, &[&new]).await;
    alice.put_root(&node, &alice.home, &parent).await;
    let commit = update(&alice.home, Some(&first), Some(&parent.cid()), Some(2));
    assert_eq!(alice.set(&node, &commit).await.body, [1]);
    assert_eq!(
        alice
            .put(&node, &new, BlockFormat::DagCbor, &blocks)
            .await
            .status,
        200
    );
    assert_eq!(alice.set(&node, &write).await.body, [1]);
}

/// LNK-4: who has a writable link has the key of one space, and the node takes it for no other. A signature by another key
/// is answered with 200 and `00` as the network does (Spec: 07 §3.2), so what counts is what is stored afterwards.
#[tokio::test]
async fn lnk_4_the_key_of_one_folder_writes_neither_its_parent_nor_its_siblings() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let (held, sibling) = (key(7, 3), key(7, 4));
    let first = alice.home_root().await.cid();
    let parent = owning(&alice.home, &[&held, &sibling]).await;
    alice.put_root(&node, &alice.home, &parent).await;
    let commit = update(&alice.home, Some(&first), Some(&parent.cid()), Some(2));
    assert_eq!(alice.set(&node, &commit).await.body, [1]);
    let root = owning(&sibling, &[]).await;
    alice.put_root(&node, &sibling, &root).await;
    let start = update(&sibling, None, Some(&root.cid()), Some(1));
    assert_eq!(alice.set(&node, &start).await.body, [1]);
    // The holder's own space, which is not pointed to yet; and a root block for each victim, signed by the holder only.
    let own = owning(&held, &[]).await;
    alice.put_root(&node, &held, &own).await;
    let good = update(&held, None, Some(&own.cid()), Some(1));
    let victims = [
        (&alice.identity, alice.identity_root().await.cid(), 2),
        (&alice.home, parent.cid(), 3),
        (&sibling, root.cid(), 2),
    ];
    for (victim, present, next) in &victims {
        let before = alice.pointer(&node, &victim.writer()).await;
        assert!(!before.is_empty());
        // Blocks in the name of another writer, under a signature of the key that the holder has.
        let block = Bytes::from(Value::from("by the holder").encode());
        let stored = Cid::of_cbor(&block);
        let signatures = vec![sign_block(&held, &stored)];
        let group = BlockGroup::new(vec![block], signatures).unwrap();
        let target = alice.put_target(&victim.writer(), BlockFormat::DagCbor.as_str());
        node.refused(&target, group.to_body()).await;
        assert!(node.ok(&alice.get_target(&stored), "").await.is_empty());
        // A root block of the victim that the holder makes and stores, as its own, which it may.
        let mut forged = owning(victim, &[]).await;
        forged.data.tree = Some(own.cid());
        alice.put_root(&node, &held, &forged).await;
        // The pointer: moved to it, moved to a root of the holder's, and emptied.
        let (forged, own) = (forged.cid(), own.cid());
        for updated in [Some(&forged), Some(&own), None] {
            let mut write = update(&held, Some(present), updated, Some(*next));
            write.writer = victim.writer();
            let answer = alice.set(&node, &write).await;
            assert_eq!((answer.status, &answer.body[..]), (200, &[0][..]));
            // In a batch a lie like that refuses all of it, with the part that would be right.
            let answer = alice.set_all(&node, vec![good.clone(), write]).await;
            assert_eq!(answer.status, 400, "{answer:?}");
        }
        assert_eq!(alice.pointer(&node, &victim.writer()).await, before);
        assert!(alice.pointer(&node, &held.writer()).await.is_empty());
    }
    // Nothing of that was refused for another reason: in its own space the key writes.
    assert_eq!(alice.set(&node, &good).await.body, [1]);
    assert_eq!(alice.pointer(&node, &held.writer()).await, good.signed);
}

/// WR-6: of many updates made from the same state exactly one is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wr_6_compare_and_swap_has_one_winner() {
    let node = TestNode::new().await;
    let (alice, first, _) = prepared(&node).await;
    let mut writes = Vec::new();
    for n in 10..42 {
        let root = next_root(&alice, n).await;
        alice.put_root(&node, &alice.home, &root).await;
        writes.push(update(
            &alice.home,
            Some(&first),
            Some(&root.cid()),
            Some(2),
        ));
    }
    let answers =
        futures_util::future::join_all(writes.iter().map(|write| alice.set(&node, write))).await;
    let winners = answers.iter().filter(|answer| answer.body == [1]).count();
    assert_eq!(winners, 1);
    for answer in answers.iter().filter(|answer| answer.body != [1]) {
        assert!(
            answer.message().starts_with("PointerCAS:"),
            "{}",
            answer.message()
        );
    }
}
