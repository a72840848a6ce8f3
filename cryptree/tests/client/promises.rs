//! Rows of Spec: 40 that are about the client's files and are neither lies of a node nor conflicts of devices.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use champ::{
    Cid,
    cbor::{Record as _, Value},
};
use cryptree::{
    Client, ClientError, Session,
    client::{BlockKeeper, ContentCheck, Detail},
    directory::ChildList,
    properties::FileProperties,
};

use super::{
    KEY, PASSWORD, alice, client,
    files::{content, get, names, put, put_with, replace},
    machine, prepared,
    surgery::replace_nodes,
    tree_entries,
};
use crate::fake::{FakeNode, Fault, TestSurroundings};

/// Blocks on a disk that somebody else can write to.
#[derive(Default)]
struct Disk(Mutex<HashMap<Cid, Bytes>>);

#[async_trait::async_trait]
impl BlockKeeper for Disk {
    async fn load(&self, cid: &Cid) -> Option<Bytes> {
        self.0.lock().unwrap().get(cid).cloned()
    }

    async fn keep(&self, cid: &Cid, bytes: &Bytes) {
        self.0.lock().unwrap().insert(cid.clone(), bytes.clone());
    }
}

async fn with_disk(node: &Arc<FakeNode>, disk: &Arc<Disk>, seed: u64) -> Session {
    let client = Client::impatient(node.clone(), Arc::new(TestSurroundings::new(seed)));
    let client = client.with_keeper(disk.clone());
    client.restore(&prepared().await.1, &KEY).unwrap()
}

#[tokio::test]
async fn int_1_blocks_from_a_damaged_cache_are_fetched_again() {
    let (node, session) = alice().await;
    session.make_folder("/alice/f").await.unwrap();
    let bytes = content(11 << 20, 1);
    put(&session, "/alice/f/large", &bytes).await.unwrap();
    let disk = Arc::new(Disk::default());
    assert!(get(&with_disk(&node, &disk, 2).await, "/alice/f/large").await == bytes);
    let kept = disk.0.lock().unwrap().len();
    assert!(kept > 11, "{kept}");
    for damage in 0..4 {
        for bytes in disk.0.lock().unwrap().values_mut() {
            let mut damaged = bytes.to_vec();
            match damage {
                0 => damaged[0] ^= 1,
                1 => damaged.push(0),
                2 => drop(damaged.pop()),
                _ => damaged.clear(),
            }
            *bytes = damaged.into();
        }
        let again = with_disk(&node, &disk, 3 + damage).await;
        assert!(get(&again, "/alice/f/large").await == bytes);
        assert_eq!(names(&again, "/alice/f").await, ["large"]);
    }
}

#[tokio::test]
async fn rel_17_what_was_kept_is_read_offline_and_its_loss_costs_nothing_but_fetching() {
    let (node, session) = alice().await;
    session.make_folder("/alice/f").await.unwrap();
    put(&session, "/alice/f/kept", b"kept").await.unwrap();
    put(&session, "/alice/f/other", &content(6 << 20, 1))
        .await
        .unwrap();
    let disk = Arc::new(Disk::default());
    let online = with_disk(&node, &disk, 2).await;
    assert_eq!(get(&online, "/alice/f/kept").await, b"kept");
    assert_eq!(names(&online, "/alice/f").await, ["kept", "other"]);
    let saved = online.save(&KEY);
    // A week later, without a network.
    node.lie(|_| Fault::Unreachable);
    let restore = || {
        let client = Client::impatient(node.clone(), Arc::new(TestSurroundings::new(3)));
        client
            .with_keeper(disk.clone())
            .restore(&saved, &KEY)
            .unwrap()
    };
    let offline = restore();
    let error = offline.list("/alice/f", Detail::Quick).await.unwrap_err();
    assert!(error.is_network());
    offline.allow_offline(true);
    assert!(!offline.was_offline());
    assert_eq!(get(&offline, "/alice/f/kept").await, b"kept");
    assert_eq!(names(&offline, "/alice/f").await, ["kept", "other"]);
    assert!(offline.was_offline());
    // What was never read is not there, and nothing can be written.
    let file = offline.open_file("/alice/f/other").await.unwrap();
    assert!(file.read_at(0, 1).await.unwrap_err().is_network());
    assert!(
        put(&offline, "/alice/f/new", b"x")
            .await
            .unwrap_err()
            .is_network()
    );
    assert!(
        offline
            .delete("/alice/f/kept")
            .await
            .unwrap_err()
            .is_network()
    );
    // The node is back: an older state than the one that was seen is still noticed, and nothing was lost.
    node.tell_the_truth();
    disk.0.lock().unwrap().clear();
    let back = restore();
    back.allow_offline(true);
    assert!(get(&back, "/alice/f/other").await == content(6 << 20, 1));
    assert!(!back.was_offline());
    *node.state.lock().unwrap() = prepared().await.0.clone();
    let error = back.list("/alice", Detail::Quick).await.unwrap_err();
    assert!(matches!(error, ClientError::Misbehavior(_)), "{error:?}");
}

/// The connection is cut for good at call number n, for all n.
#[tokio::test]
async fn rel_18_an_operation_that_is_cut_off_anywhere_leaves_everything_readable() {
    async fn run(session: &Session) -> Result<(), ClientError> {
        session.rename("/alice/a/large", "renamed").await?;
        session.move_to("/alice/a", "/alice/b/a").await?;
        session.append("/alice/b/a/renamed", b"end", None).await?;
        let new = content(6 << 20, 2);
        put_with(session, "/alice/b/small", &new, &replace()).await?;
        session
            .move_to("/alice/b/a/renamed", "/alice/moved")
            .await?;
        session.delete("/alice/b/a").await
    }
    async fn prepare() -> (Arc<FakeNode>, Session) {
        let (node, session) = alice().await;
        session.make_folder("/alice/a").await.unwrap();
        session.make_folder("/alice/b").await.unwrap();
        put(&session, "/alice/a/large", &content(5 << 20, 1))
            .await
            .unwrap();
        put(&session, "/alice/b/small", b"small").await.unwrap();
        node.take_calls();
        (node, session)
    }
    let (node, session) = prepare().await;
    run(&session).await.unwrap();
    let calls = node.take_calls().len();
    for cut in (0..calls).step_by(2) {
        let (node, _) = prepare().await;
        let client = Client::impatient(node.clone(), Arc::new(TestSurroundings::new(7)));
        let session = client.restore(&prepared().await.1, &KEY).unwrap();
        let mut left = cut;
        node.lie(move |_| match left {
            0 => Fault::Unreachable,
            _ => {
                left -= 1;
                Fault::Honest
            }
        });
        let done = run(&session).await;
        assert!(done.is_ok() || done.unwrap_err().is_network());
        node.tell_the_truth();
        let again = machine(&node, 9).await;
        let mut found = Vec::new();
        for path in [
            "/alice/a/large",
            "/alice/a/renamed",
            "/alice/b/a/renamed",
            "/alice/moved",
        ] {
            if again.exists(path).await.unwrap() {
                found.push(get(&again, path).await);
            }
        }
        assert_eq!(found.len(), 1, "cut at {cut}");
        let large = content(5 << 20, 1);
        assert!(
            found[0] == large || found[0] == [&large[..], b"end"].concat(),
            "cut at {cut}"
        );
        let small = get(&again, "/alice/b/small").await;
        assert!(
            small == b"small" || small == content(6 << 20, 2),
            "cut at {cut}"
        );
    }
}

/// A file claims more than it has.
#[tokio::test]
async fn dos_15_claimed_sizes_are_shown_and_not_believed() {
    let (node, session) = alice().await;
    for (name, claimed) in [
        ("max", i64::MAX as u64),
        ("peta", 1 << 50),
        ("more", 1 << 24),
    ] {
        let path = format!("/alice/{name}");
        put(&session, &path, b"little").await.unwrap();
        replace_nodes(&node, &session, &path, |file, first, rng| {
            let mut part = first.parent_part().clone();
            part.properties = FileProperties {
                size_bytes: claimed,
                ..part.properties
            };
            vec![(
                file.map_key,
                first.with_parent(&part, rng).to_block().unwrap(),
            )]
        })
        .await;
        let again = machine(&node, 3).await;
        assert_eq!(again.stat(&path).await.unwrap().size_bytes, Some(claimed));
        let mut out = Vec::new();
        let error = again
            .download(&path, &mut out, &mut |_, _| {})
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::CannotRead { .. }), "{error:?}");
        assert!(out.len() <= 5 << 20);
        let file = again.open_file(&path).await.unwrap();
        assert!(file.read_at(claimed - 1, 10).await.is_err());
        assert_eq!(file.read_at(0, 6).await.unwrap(), b"little"[..]);
        // It can be cut to what it is, and deleted.
        session.set_size(&path, 6).await.unwrap();
        assert_eq!(get(&again, &path).await, b"little");
        session.delete(&path).await.unwrap();
    }
    assert_eq!(tree_entries(&node).await, 4);
}

/// Another client put entries into a folder that nobody can use.
#[tokio::test]
async fn prg_004_entries_with_illegal_names_hide_nothing_and_can_be_removed() {
    let (node, session) = alice().await;
    session.make_folder("/alice/f").await.unwrap();
    for name in ["a", "b"] {
        put(&session, &format!("/alice/f/{name}"), name.as_bytes())
            .await
            .unwrap();
    }
    let bad = [
        Value::from("foo/bar"),
        Value::from("."),
        Value::from(".."),
        Value::from(""),
        Value::from("x".repeat(256)),
        Value::from(7),
    ];
    let count = bad.len();
    replace_nodes(&node, &session, "/alice/f", |folder, page, rng| {
        let children = page.children(&[]).unwrap();
        let mut list = children.to_value().into_list("list").unwrap();
        let good = list[0].clone().into_map("entry").unwrap();
        for name in bad {
            let mut entry = good.clone();
            entry.insert("n", name);
            list.insert(1, Value::Map(entry));
        }
        list.push(Value::Null);
        let list = ChildList::from_value(Value::List(list)).unwrap();
        let sealed = page.with_children(&list, rng).unwrap();
        vec![(folder.map_key, sealed.block().unwrap())]
    })
    .await;
    let again = machine(&node, 3).await;
    for detail in [Detail::Quick, Detail::Full] {
        let listing = again.list("/alice/f", detail).await.unwrap();
        assert_eq!(listing.damaged.len(), count + 1);
        assert_eq!(listing.entries.len(), 2);
    }
    assert_eq!(get(&again, "/alice/f/b").await, b"b");
    // Changing the folder keeps them, removing them keeps the rest.
    put(&again, "/alice/f/c", b"c").await.unwrap();
    assert_eq!(
        again.remove_unreadable("/alice/f").await.unwrap(),
        count + 1
    );
    assert_eq!(again.remove_unreadable("/alice/f").await.unwrap(), 0);
    assert_eq!(names(&session, "/alice/f").await, ["a", "b", "c"]);
    session.delete("/alice/f").await.unwrap();
    assert_eq!(tree_entries(&node).await, 4);
}

#[tokio::test]
async fn prv_2_what_is_stored_depends_on_the_padded_size_alone() {
    let mut stored = HashMap::new();
    for size in [
        1,
        3000,
        4000,
        5000,
        8000,
        (5 << 20) - 1000,
        (5 << 20) - 3000,
    ] {
        let (node, session) = alice().await;
        let before: Vec<Cid> = blocks(&node).into_keys().collect();
        put(&session, "/alice/a", &content(size, 1)).await.unwrap();
        let mut sizes: Vec<usize> = blocks(&node)
            .into_iter()
            .filter(|(cid, _)| !before.contains(cid))
            .map(|(_, bytes)| bytes)
            .collect();
        sizes.sort_unstable();
        // Nonces and places are random; the trie around them is as it falls.
        let nodes: Vec<usize> = sizes.into_iter().filter(|size| *size > 2048).collect();
        let padded = size.div_ceil(4096);
        let known = stored.entry(padded).or_insert_with(|| nodes.clone());
        assert_eq!(*known, nodes, "{size}");
    }
    assert_eq!(stored.len(), 3);
}

fn blocks(node: &FakeNode) -> HashMap<Cid, usize> {
    let state = node.state.lock().unwrap();
    let all = state.blocks.values().flatten();
    all.map(|(cid, block)| (cid.clone(), block.bytes().len()))
        .collect()
}

#[tokio::test]
async fn pgs_01_004_every_salt_is_new() {
    let login = |node: &FakeNode| {
        let state = node.state.lock().unwrap();
        let (reader, record) = state.logins["alice"].clone();
        (reader, record.encode())
    };
    let (node, _) = alice().await;
    let session = machine(&node, 55).await;
    let first = login(&node);
    // Another network, the same name and password.
    let other = FakeNode::new();
    client(&other, 77)
        .sign_up("alice", PASSWORD, "")
        .await
        .unwrap();
    assert_ne!(login(&other).0, first.0);
    session.change_password(PASSWORD, PASSWORD).await.unwrap();
    let changed = login(&node);
    assert_ne!(changed.0, first.0);
    assert_ne!(changed.1, first.1);
}

#[tokio::test]
async fn content_is_compared_with_its_hash_tree() {
    let (node, session) = alice().await;
    let mut seen = 0;
    for size in [0, 10, (5 << 20) + 7] {
        let path = format!("/alice/{size}");
        put(&session, &path, &content(size, 1)).await.unwrap();
        let check = session
            .check_content(&path, &mut |done, _| seen = done)
            .await;
        assert_eq!(check.unwrap(), ContentCheck::Same);
        assert_eq!(seen, size as u64);
    }
    session.append("/alice/10", b"x", None).await.unwrap();
    let check = session.check_content("/alice/10", &mut |_, _| {}).await;
    assert_eq!(check.unwrap(), ContentCheck::None);
    // Another client changed the content and left the hashes.
    let old = session.open_file("/alice/0").await.unwrap();
    put_with(&session, "/alice/10", b"other", &replace())
        .await
        .unwrap();
    replace_nodes(&node, &session, "/alice/10", |file, first, rng| {
        let mut part = first.parent_part().clone();
        part.properties.tree_hash = old.properties().tree_hash.clone();
        vec![(
            file.map_key,
            first.with_parent(&part, rng).to_block().unwrap(),
        )]
    })
    .await;
    let check = session.check_content("/alice/10", &mut |_, _| {}).await;
    assert_eq!(check.unwrap(), ContentCheck::Stale);
}
