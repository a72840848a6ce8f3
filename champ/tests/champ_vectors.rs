//! `champ.json`, and the trees of `pki_champ.json`.

use std::collections::BTreeMap;

use champ::{
    Block, Cid, MemoryBlocks,
    access::BatId,
    cbor::{Record, Value},
    map::{Champ, ChampError, KeyHash, LookupKey, MergeError, lookup_blocks, merge},
};
use serde_json::Value as Json;

use crate::support::*;

#[test]
fn every_case_of_champ_json_holds() {
    let mut stored = MemoryBlocks::new();
    let mut current = Champ::empty();
    each_case("champ.json", |kind, case| match kind {
        "node" => node(case),
        "sequence" => sequence(case, &mut current, &mut stored),
        "bulk_sequence" => bulk_sequence(case),
        "lookup" => lookup(case),
        "cas" => compare_and_swap(case),
        "collision_limit" => collision_limit(case),
        "remove_all" => remove_all(case),
        "merge" => merged(case),
        "key_hash" => {
            let hash = KeyHash::Blake2b512.hash(&hex(case, "key")).into_owned();
            assert_eq!(hash, hex(case, "hash"));
        }
        "slots" => slots(case),
        other => panic!("unknown kind {other}"),
    });
}

fn bat(case: &Json) -> Option<BatId> {
    let id = case["mirror_bat_id"].as_str()?;
    Some(BatId::from_value(Value::from(unhex(id))).unwrap())
}

fn empty(case: &Json) -> Champ {
    bat(case).map_or_else(Champ::empty, Champ::empty_private)
}

fn node(case: &Json) {
    let (root, blocks) = empty(case).finish().unwrap();
    assert_eq!(root, cid(text(case, "cid")));
    assert_eq!(blocks.len(), 1);
    assert_eq!(blocks[0].bytes(), &hex(case, "block"));
    let mut stored = MemoryBlocks::new();
    stored.extend(blocks);
    let champ = Champ::at(root);
    assert_eq!(now(champ.mirror_bat(&stored)).unwrap(), bat(case));
    assert_eq!(now(champ.count(&stored)).unwrap(), 0);
}

fn sequence(case: &Json, current: &mut Champ, stored: &mut MemoryBlocks) {
    assert_eq!(
        (&case["bit_width"], &case["max_bucket"]),
        (&3.into(), &4.into())
    );
    if !text(case, "name").starts_with("continued") {
        *current = empty(case);
    }
    // The same steps once more, with a single write at the end.
    let mut batched = current.clone();
    for step in case["steps"].as_array().unwrap() {
        let key = hex(step, "key");
        let before = now(current.get(&key, stored)).unwrap();
        match text(step, "op") {
            "put" => {
                let value = link(text(step, "value"));
                for champ in [&mut *current, &mut batched] {
                    now(champ.put(key.clone(), before.as_ref(), value.clone(), stored)).unwrap();
                }
                assert_eq!(now(current.get(&key, stored)).unwrap(), Some(value));
            }
            "remove" => {
                assert!(before.is_some());
                for champ in [&mut *current, &mut batched] {
                    now(champ.remove(&key, before.as_ref(), stored)).unwrap();
                }
                assert_eq!(now(current.get(&key, stored)).unwrap(), None);
            }
            "put_null" => {
                let refused = now(current.put(key.clone(), before.as_ref(), Value::Null, stored));
                assert!(matches!(refused, Err(ChampError::NullValue)));
                let root = write(current, stored);
                *current = Champ::at(with_null(&root, &key, stored));
                batched = current.clone();
                assert_eq!(now(current.get(&key, stored)).unwrap(), None);
            }
            other => panic!("unknown step {other}"),
        }
        assert_eq!(write(current, stored), cid(text(step, "root")));
        // Every other step starts from nothing in memory.
        if key.last().is_some_and(|byte| byte & 1 == 1) {
            *current = Champ::at(current.root().unwrap().clone());
        }
    }
    let root = cid(text(case, "final_root"));
    assert_eq!(current.root(), Some(&root));
    assert_eq!(write(&mut batched, stored), root);
    assert_blocks(&case["final_blocks"], &root, stored);
    assert_eq!(now(current.mirror_bat(stored)).unwrap(), bat(case));
}

fn assert_blocks(expected: &Json, root: &Cid, stored: &MemoryBlocks) {
    let expected: BTreeMap<String, Vec<u8>> = expected
        .as_object()
        .unwrap()
        .iter()
        .map(|(cid, hex)| (cid.clone(), unhex(hex.as_str().unwrap())))
        .collect();
    let found: BTreeMap<String, Vec<u8>> = reachable(root, stored)
        .into_iter()
        .map(|(cid, block)| (cid, block.bytes().to_vec()))
        .collect();
    assert_eq!(found, expected);
}

fn bulk_key(i: u64) -> Vec<u8> {
    sha256(&format!("kastro champ key {i}")).to_vec()
}

fn bulk_value(i: u64) -> Value {
    link_of(&format!("kastro champ value {i}"))
}

fn bulk(keys: std::ops::Range<u64>, stored: &mut MemoryBlocks) -> Champ {
    let mut champ = Champ::empty();
    for i in keys {
        now(champ.put(bulk_key(i), None, bulk_value(i), stored)).unwrap();
    }
    write(&mut champ, stored);
    champ
}

fn bulk_sequence(case: &Json) {
    let n = case["n"].as_u64().unwrap();
    let mut stored = MemoryBlocks::new();
    let mut champ = Champ::empty();
    let roots = |field: &str| -> Vec<Cid> {
        let roots = case[field].as_array().unwrap();
        assert!(!roots.is_empty());
        roots
            .iter()
            .map(|root| cid(root.as_str().unwrap()))
            .collect()
    };
    let puts = roots("roots_after_each_put");
    assert_eq!(puts.len() as u64, n);
    for (i, root) in (0..n).zip(puts) {
        now(champ.put(bulk_key(i), None, bulk_value(i), &stored)).unwrap();
        assert_eq!(write(&mut champ, &mut stored), root);
    }
    assert_blocks(
        &case["blocks_after_all_puts"],
        champ.root().unwrap(),
        &stored,
    );
    assert_eq!(now(champ.count(&stored)).unwrap(), n);

    for (i, root) in (0..n).step_by(7).zip(roots("roots_after_each_update")) {
        let value = link_of(&format!("kastro champ second value {i}"));
        now(champ.put(bulk_key(i), Some(&bulk_value(i)), value, &stored)).unwrap();
        assert_eq!(write(&mut champ, &mut stored), root);
    }
    for (j, root) in (0..n).zip(roots("roots_after_each_remove")) {
        let key = bulk_key(37 * j % n);
        let value = now(champ.get(&key, &stored)).unwrap();
        now(champ.remove(&key, value.as_ref(), &stored)).unwrap();
        assert_eq!(write(&mut champ, &mut stored), root);
    }
    assert_eq!(
        champ.root(),
        Champ::empty().finish().ok().map(|(root, _)| root).as_ref()
    );
}

fn lookup(case: &Json) {
    let mut stored = MemoryBlocks::new();
    let champ = bulk(0..40, &mut stored);
    let root = cid(text(case, "root"));
    assert_eq!(champ.root(), Some(&root));
    let key = hex(case, "key");
    let value = case["value"].as_str().map(link);
    assert_eq!(now(champ.get(&key, &stored)).unwrap(), value);
    let expected: Vec<Vec<u8>> = case["path_blocks_root_first"]
        .as_array()
        .unwrap()
        .iter()
        .map(|block| unhex(block.as_str().unwrap()))
        .collect();
    let keys = [LookupKey {
        key: key.clone().into(),
        value_token: None,
    }];
    let blocks = now(lookup_blocks(&root, &keys, &stored)).unwrap();
    let bytes: Vec<Vec<u8>> = blocks.iter().map(|block| block.bytes().to_vec()).collect();
    assert_eq!(bytes, expected);
    // The client's side: the reply alone proves presence or absence.
    let mut reply = MemoryBlocks::new();
    reply.extend(
        expected
            .into_iter()
            .map(|bytes| Block::cbor(bytes).unwrap()),
    );
    assert_eq!(now(Champ::at(root).get(&key, &reply)).unwrap(), value);
}

fn compare_and_swap(case: &Json) {
    let stored = MemoryBlocks::new();
    let key = hex(case, "key");
    let value = link(text(case, "value"));
    let other = link_of("another value");
    let mut start = Champ::empty();
    now(start.put(key.clone(), None, value.clone(), &stored)).unwrap();
    let (root, _) = start.finish().unwrap();
    assert_eq!(root, cid(text(case, "root")));
    for attempt in case["attempts"].as_array().unwrap() {
        let mut champ = start.clone();
        let name = text(attempt, "attempt");
        let mut same_slot = key.clone();
        same_slot[31] ^= 1;
        let mut empty_slot = key.clone();
        empty_slot[0] ^= 1;
        let unchanged = Some(&root);
        let result = if name.starts_with("put existing key expecting absent") {
            now(champ.put(key.clone(), None, other.clone(), &stored))
        } else if name.starts_with("put existing key expecting another value") {
            now(champ.put(key.clone(), Some(&other), value.clone(), &stored))
        } else if name.starts_with("put absent key expecting some value") {
            now(champ.put(same_slot, Some(&other), value.clone(), &stored))
        } else if name.starts_with("remove existing key expecting another value") {
            now(champ.remove(&key, Some(&other), &stored))
        } else if name.starts_with("remove absent key whose root slot holds a bucket") {
            now(champ.remove(&same_slot, None, &stored))
        } else if name.starts_with("remove absent key whose root slot is empty") {
            let result = now(champ.remove(&empty_slot, None, &stored));
            assert_eq!(champ.root(), unchanged);
            result
        } else {
            panic!("unknown attempt {name}");
        };
        match text(attempt, "result") {
            "ok" => result.unwrap(),
            "cas error" => {
                assert!(matches!(result, Err(ChampError::CompareAndSwap)), "{name}");
                assert_eq!(champ.root(), unchanged);
            }
            other => panic!("unknown result {other}"),
        }
    }
}

fn collision_limit(case: &Json) {
    let stored = MemoryBlocks::new();
    for result in case["results"].as_array().unwrap() {
        let shared = usize::try_from(result["shared_bits"].as_u64().unwrap()).unwrap();
        let mut champ = Champ::empty();
        let mut last = Ok(());
        // Five keys that agree in the first bits and differ in the three that follow.
        for i in 0..5u8 {
            let mut key = vec![0u8; 32];
            for bit in 0..3 {
                let at = shared + bit;
                key[at / 8] |= (i >> bit & 1) << (at % 8);
            }
            last = now(champ.put(key, None, link_of("v"), &stored));
        }
        match text(result, "result") {
            "ok" => last.unwrap(),
            "error: Hash collision!" => assert!(matches!(last, Err(ChampError::Collision))),
            other => panic!("unknown result {other}"),
        }
    }
}

fn remove_all(case: &Json) {
    let mut stored = MemoryBlocks::new();
    let mut champ = bulk(0..60, &mut stored);
    assert_eq!(champ.root(), Some(&cid(text(case, "start_root"))));
    let keys: Vec<Vec<u8>> = (0..60).step_by(2).map(bulk_key).collect();
    now(champ.remove_all(&keys, &stored)).unwrap();
    assert_eq!(write(&mut champ, &mut stored), cid(text(case, "end_root")));
}

fn merged(case: &Json) {
    let mut stored = MemoryBlocks::new();
    let base = bulk(0..30, &mut stored);
    assert_eq!(base.root(), Some(&cid(text(case, "base"))));
    let put = |champ: &mut Champ, key: Vec<u8>, value: &str| {
        let before = now(champ.get(&key, &stored)).unwrap();
        now(champ.put(key, before.as_ref(), link_of(value), &stored)).unwrap();
    };
    let mut ours = base.clone();
    put(&mut ours, sha256("ours new").to_vec(), "ours new value");
    put(&mut ours, bulk_key(3), "ours changed 3");
    now(ours.remove(&bulk_key(4), Some(&bulk_value(4)), &stored)).unwrap();
    let mut theirs = base.clone();
    for change in text(case, "theirs_changes").split("; ") {
        match change {
            "put key sha256('theirs new') value digest sha256('theirs new value')" => {
                put(
                    &mut theirs,
                    sha256("theirs new").to_vec(),
                    "theirs new value",
                );
            }
            "key 5 becomes digest sha256('theirs changed 5')" => {
                put(&mut theirs, bulk_key(5), "theirs changed 5");
            }
            "key 6 removed" => {
                now(theirs.remove(&bulk_key(6), Some(&bulk_value(6)), &stored)).unwrap();
            }
            "key 3 becomes digest sha256('theirs changed 3')" => {
                put(&mut theirs, bulk_key(3), "theirs changed 3");
            }
            "key 3 becomes digest sha256('ours changed 3')" => {
                put(&mut theirs, bulk_key(3), "ours changed 3");
            }
            other => panic!("unknown change {other}"),
        }
    }
    assert_eq!(write(&mut ours, &mut stored), cid(text(case, "ours")));
    assert_eq!(write(&mut theirs, &mut stored), cid(text(case, "theirs")));
    let trees = [&base, &ours, &theirs].map(|champ| Champ::at(champ.root().unwrap().clone()));
    let result = now(merge(&trees[0], &trees[1], &trees[2], &stored));
    if let Some(error) = case["result"].as_str() {
        assert_eq!(
            error,
            "error: Concurrent modification of a file or directory!"
        );
        let Err(MergeError::Conflict { key }) = result else {
            panic!("expected a conflict");
        };
        assert_eq!(key, bulk_key(3));
        return;
    }
    let expected = case["merged"].as_str().unwrap_or_else(|| {
        text(
            case,
            "merged_required_and_official_rust_removes_the_mapping",
        )
    });
    let mut merged = result.unwrap();
    assert_eq!(write(&mut merged, &mut stored), cid(expected));
    if let Some(official) = case["merged_official_java_keeps_a_null_mapping"].as_str() {
        let mut with_key = ours.clone();
        let root = write(&mut with_key, &mut stored);
        let nulled = null_in_tree(&root, &bulk_key(6), &mut stored);
        assert_eq!(nulled, cid(official));
        // Read back, the mapping is absent; removing it gives the tree we would have written.
        let mut champ = Champ::at(nulled);
        assert_eq!(now(champ.get(&bulk_key(6), &stored)).unwrap(), None);
        now(champ.remove(&bulk_key(6), None, &stored)).unwrap();
        assert_eq!(write(&mut champ, &mut stored), cid(expected));
    }
}

/// Replaces a value by null somewhere in a tree and writes the nodes above it anew.
fn null_in_tree(at: &Cid, key: &[u8], stored: &mut MemoryBlocks) -> Cid {
    let at = with_null(at, key, stored);
    let mut node = champ::cbor::decode(stored.get(&at).unwrap().bytes()).unwrap();
    let Value::List(elements) = &mut node else {
        panic!("not a node");
    };
    let Value::List(contents) = &mut elements[2] else {
        panic!("no contents");
    };
    for content in contents {
        if let Value::Link(child) = content {
            *child = null_in_tree(child, key, stored);
        }
    }
    let block = Block::cbor(node.encode()).unwrap();
    let cid = block.cid().clone();
    stored.insert(block);
    cid
}

fn slots(case: &Json) {
    // A tree in which five keys share all slots but the last shows the slot of every level.
    let hash = hex(case, "hash");
    let slots: Vec<usize> = case["slots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slot| usize::try_from(slot.as_u64().unwrap()).unwrap())
        .collect();
    let mut stored = MemoryBlocks::new();
    let mut champ = Champ::empty();
    for i in 0..5u8 {
        let mut key = hash.clone();
        key.push(i);
        now(champ.put(key, None, link_of("v"), &stored)).unwrap();
    }
    let mut at = write(&mut champ, &mut stored);
    let bits = 8 * hash.len();
    for (depth, slot) in slots.iter().enumerate().take(bits / 3) {
        let block = stored.get(&at).unwrap().bytes().clone();
        assert_eq!(block[2..4], [0x41, 1 << slot], "depth {depth}: {block:?}");
        let children = child_links(&block);
        assert_eq!(children.len(), 1);
        at = children[0].clone();
    }
}

#[test]
fn every_tree_of_pki_champ_json_is_read_and_written_the_same() {
    let mut trees = 0;
    let mut hashes = 0;
    each_case("pki_champ.json", |kind, case| match kind {
        "champ_key" => {
            assert_eq!(text(case, "username").as_bytes(), hex(case, "champ_key"));
            let hash = KeyHash::Blake2b512
                .hash(&hex(case, "champ_key"))
                .into_owned();
            assert_eq!(hash, hex(case, "key_hash"));
            hashes += 1;
        }
        "pki_root" => {
            pki_tree(case);
            trees += 1;
        }
        // Signatures, chains and registrations: chapter 10, not this crate.
        "pki_owner" | "pki_update" | "pki_lookup" => {}
        other => panic!("unknown kind {other}"),
    });
    assert!(trees >= 3 && hashes >= 4);
}

fn pki_tree(case: &Json) {
    let mut stored = MemoryBlocks::new();
    for block in case["blocks"].as_array().unwrap() {
        stored.insert(Block::verified(cid(text(block, "cid")), hex(block, "data")).unwrap());
    }
    let writer = stored.get(&cid(text(case, "pointer_target"))).unwrap();
    let Value::Map(writer) = champ::cbor::decode_canonical(writer.bytes()).unwrap() else {
        panic!("writer root is no map");
    };
    let Some(Value::Link(root)) = writer.get("tree") else {
        let empty = Champ::empty().finish().unwrap().0;
        assert!(
            stored.get(&empty).is_some(),
            "a writer without a tree has the empty champ"
        );
        return;
    };
    let champ = Champ::at(root.clone()).hashed_by(KeyHash::Blake2b512);
    let mut rebuilt = Champ::empty().hashed_by(KeyHash::Blake2b512);
    let mut entries = champ.entries();
    let mut names = Vec::new();
    while let Some((key, value)) = now(entries.next(&stored)).unwrap() {
        assert_eq!(
            now(champ.get(&key, &stored)).unwrap().as_ref(),
            Some(&value)
        );
        names.push(String::from_utf8(key.to_vec()).unwrap());
        now(rebuilt.put(key, None, value, &stored)).unwrap();
    }
    if let Some(expected) = case["names"].as_array() {
        assert!(!expected.is_empty());
        for name in expected {
            let name = name.as_str().or_else(|| name["username"].as_str());
            let name = name.expect("a name");
            assert!(names.iter().any(|found| found == name), "{name}");
        }
        assert_eq!(names.len(), expected.len());
    }
    let (again, blocks) = rebuilt.finish().unwrap();
    assert_eq!(again, *root);
    for block in blocks {
        assert_eq!(stored.get(block.cid()), Some(&block));
    }
}
