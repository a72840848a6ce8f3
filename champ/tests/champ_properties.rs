//! The map against an ordinary one, whatever the order, the shape it started from and the key hash.

use std::collections::BTreeSet;

use champ::{
    Block, Cid, MemoryBlocks,
    cbor::Value,
    map::{
        Champ, ChampError, Change, KeyHash, LookupKey, MergeError, diff, diff_each, lookup_blocks,
        merge,
    },
};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::{champ_model::*, support::*};

#[derive(Debug, Clone)]
enum Op {
    Put(Vec<u8>, Value),
    /// Removes an existing key.
    Remove(Index),
    /// Removes a key that is probably absent.
    RemoveAbsent(Vec<u8>),
    /// Writes, and goes on from the root alone.
    Reload,
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        24 => (any_key(), any_value()).prop_map(|(key, value)| Op::Put(key, value)),
        1 => (colliding_key(), any_value()).prop_map(|(key, value)| Op::Put(key, value)),
        16 => any::<Index>().prop_map(Op::Remove),
        4 => any_key().prop_map(Op::RemoveAbsent),
        4 => Just(Op::Reload),
    ]
}

fn any_model() -> impl Strategy<Value = Model> {
    proptest::collection::btree_map(any_key(), any_value(), 0..60)
}

/// A model and two that were changed from it.
fn three_models() -> impl Strategy<Value = [Model; 3]> {
    let changes = || vec((any_key(), any_value(), any::<Index>(), 0u8..4), 0..6);
    (any_model(), changes(), changes()).prop_map(|(base, ours, theirs)| {
        let changed = |changes: Vec<(Vec<u8>, Value, Index, u8)>| {
            let mut model = base.clone();
            for (key, value, at, how) in changes {
                let existing = (!model.is_empty())
                    .then(|| model.keys().nth(at.index(model.len())).unwrap().clone());
                match (how, existing) {
                    (0 | 1, Some(existing)) => drop(model.remove(&existing)),
                    (2, Some(existing)) => drop(model.insert(existing, value)),
                    _ => drop(model.insert(key, value)),
                }
            }
            model
        };
        [base.clone(), changed(ours), changed(theirs)]
    })
}

fn differences(before: &Model, after: &Model) -> Vec<(Vec<u8>, Option<Value>, Option<Value>)> {
    let keys: BTreeSet<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    let present = |model: &Model, key: &Vec<u8>| {
        model
            .get(key)
            .filter(|value| **value != Value::Null)
            .cloned()
    };
    keys.into_iter()
        .map(|key| (key.clone(), present(before, key), present(after, key)))
        .filter(|(_, before, after)| before != after)
        .collect()
}

fn found_differences(
    before: &Champ,
    after: &Champ,
    stored: &MemoryBlocks,
) -> Vec<(Vec<u8>, Option<Value>, Option<Value>)> {
    let mut found: Vec<_> = now(diff(before, after, stored))
        .unwrap()
        .into_iter()
        .map(|difference| (difference.key.to_vec(), difference.before, difference.after))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn content(champ: &Champ, stored: &MemoryBlocks) -> Model {
    let mut entries = champ.entries();
    let mut found = Model::new();
    while let Some((key, value)) = now(entries.next(stored)).unwrap() {
        assert!(found.insert(key.to_vec(), value).is_none());
    }
    found
}

proptest! {
    #[test]
    fn a_tree_is_the_canonical_one_of_its_content_after_any_operations(
        hash in any_hash(),
        ops in vec(any_op(), 0..120),
        absent in vec(any_key(), 0..10),
    ) {
        let mut stored = MemoryBlocks::new();
        let mut champ = Champ::empty().hashed_by(hash);
        let mut model = Model::new();
        for op in ops {
            match op {
                Op::Put(key, value) => {
                    let before = model.get(&key).cloned();
                    match now(champ.put(key.clone(), before.as_ref(), value.clone(), &stored)) {
                        Ok(()) => drop(model.insert(key, value)),
                        Err(ChampError::Collision) => {
                            let mut larger = model.clone();
                            larger.insert(key, value);
                            prop_assert_eq!(canonical_root(&larger, hash), None);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                Op::Remove(at) if !model.is_empty() => {
                    let key = model.keys().nth(at.index(model.len())).unwrap().clone();
                    let value = model.remove(&key);
                    now(champ.remove(&key, value.as_ref(), &stored)).unwrap();
                }
                Op::Remove(_) => {}
                Op::RemoveAbsent(key) => {
                    if !model.contains_key(&key) {
                        let result = now(champ.remove(&key, None, &stored));
                        prop_assert!(matches!(result, Ok(()) | Err(ChampError::CompareAndSwap)));
                    }
                }
                Op::Reload => {
                    let root = write(&mut champ, &mut stored);
                    champ = Champ::at(root).hashed_by(hash);
                }
            }
        }
        let known: BTreeSet<Cid> = stored.iter().map(|block| block.cid().clone()).collect();
        let (root, blocks) = champ.finish().unwrap();
        let written: BTreeSet<Cid> = blocks.iter().map(|block| block.cid().clone()).collect();
        prop_assert_eq!(written.len(), blocks.len());
        stored.extend(blocks);
        prop_assert_eq!(Some(root.clone()), canonical_root(&model, hash));
        // What was written is reachable; what is reachable is there.
        let reached: BTreeSet<Cid> =
            reachable(&root, &stored).values().map(|block| block.cid().clone()).collect();
        prop_assert!(written.is_subset(&reached));
        prop_assert!(reached.iter().all(|cid| known.contains(cid) || written.contains(cid)));
        prop_assert!(champ.finish().unwrap().1.is_empty());

        let read = Champ::at(root).hashed_by(hash);
        for champ in [&champ, &read] {
            for (key, value) in &model {
                prop_assert_eq!(&now(champ.get(key, &stored)).unwrap(), &Some(value.clone()));
            }
            for key in absent.iter().filter(|key| !model.contains_key(*key)) {
                prop_assert_eq!(now(champ.get(key, &stored)).unwrap(), None);
            }
            prop_assert_eq!(now(champ.count(&stored)).unwrap(), model.len() as u64);
            prop_assert_eq!(content(champ, &stored), model.clone());
        }
    }

    #[test]
    fn a_batch_gives_the_root_of_its_changes_one_by_one(
        hash in any_hash(),
        [before, after, _] in three_models(),
    ) {
        let (Some(start), Some(end)) = (canonical_root(&before, hash), canonical_root(&after, hash)) else {
            panic!("keys of a model never need a 33rd level");
        };
        let mut stored = MemoryBlocks::new();
        build(&before, hash, 0, &mut Canonical, &mut stored);
        let changes: Vec<Change> = differences(&before, &after)
            .into_iter()
            .map(|(key, expected, value)| Change { key: key.into(), expected, value })
            .collect();
        let mut batch = Champ::at(start.clone()).hashed_by(hash);
        now(batch.apply(changes.clone(), &stored)).unwrap();
        prop_assert_eq!(write(&mut batch, &mut stored), end.clone());
        let mut single = Champ::at(start).hashed_by(hash);
        for Change { key, expected, value } in changes {
            match value {
                Some(value) => now(single.put(key, expected.as_ref(), value, &stored)).unwrap(),
                None => now(single.remove(&key, expected.as_ref(), &stored)).unwrap(),
            }
            write(&mut single, &mut stored);
        }
        prop_assert_eq!(single.root(), Some(&end));
    }

    #[test]
    fn removing_a_set_gives_the_root_of_what_is_left(
        hash in any_hash(),
        model in any_model(),
        gone in vec(any::<bool>(), 60),
        absent in vec(any_key(), 0..5),
    ) {
        let mut stored = MemoryBlocks::new();
        let Some(root) = build(&model, hash, 0, &mut Canonical, &mut stored) else {
            panic!("keys of a model never need a 33rd level");
        };
        let mut left = model.clone();
        let mut keys = absent;
        keys.retain(|key| !model.contains_key(key));
        for (key, _) in model.iter().zip(gone).filter(|(_, gone)| *gone).map(|(entry, _)| entry) {
            left.remove(key);
            keys.push(key.clone());
        }
        let mut champ = Champ::at(root).hashed_by(hash);
        now(champ.remove_all(&keys, &stored)).unwrap();
        prop_assert_eq!(Some(write(&mut champ, &mut stored)), canonical_root(&left, hash));
    }

    #[test]
    fn diff_finds_what_differs_between_trees_of_any_shape(
        hash in any_hash(),
        models in three_models(),
        nulls in vec(any::<Index>(), 0..4),
        seeds in any::<[u64; 2]>(),
    ) {
        let [mut before, mut after, _] = models;
        for (i, at) in nulls.iter().enumerate() {
            let model = if i % 2 == 0 { &mut before } else { &mut after };
            if !model.is_empty() {
                let key = model.keys().nth(at.index(model.len())).unwrap().clone();
                model.insert(key, Value::Null);
            }
        }
        let mut stored = MemoryBlocks::new();
        let mut trees = |model: &Model, seed: u64| {
            let canonical = build(model, hash, 0, &mut Canonical, &mut stored)?;
            let odd = build(model, hash, 0, &mut Odd(seed | 1), &mut stored)?;
            Some([canonical, odd].map(|root| Champ::at(root).hashed_by(hash)))
        };
        let (Some(a), Some(b)) = (trees(&before, seeds[0]), trees(&after, seeds[1])) else {
            panic!("keys of a model never need a 33rd level");
        };
        let expected = differences(&before, &after);
        for a in &a {
            for b in &b {
                prop_assert_eq!(&found_differences(a, b, &stored), &expected);
            }
        }
        prop_assert!(found_differences(&a[0], &a[1], &stored).is_empty());
        let all = found_differences(&Champ::empty().hashed_by(hash), &b[1], &stored);
        prop_assert_eq!(all, differences(&Model::new(), &after));
    }

    #[test]
    fn merge_joins_disjoint_changes_and_refuses_the_rest(
        hash in any_hash(),
        [base, ours, theirs] in three_models(),
        seed in any::<u64>(),
    ) {
        let mut stored = MemoryBlocks::new();
        // Their tree may come from another writer.
        let roots = [
            build(&base, hash, 0, &mut Canonical, &mut stored),
            build(&ours, hash, 0, &mut Canonical, &mut stored),
            build(&theirs, hash, 0, &mut Odd(seed | 1), &mut stored),
        ];
        let [Some(a), Some(b), Some(c)] = roots else {
            panic!("keys of a model never need a 33rd level");
        };
        let [a, b, c] = [a, b, c].map(|root| Champ::at(root).hashed_by(hash));
        let (ours_changed, theirs_changed) = (differences(&base, &ours), differences(&base, &theirs));
        let conflict = theirs_changed
            .iter()
            .any(|(key, ..)| ours_changed.iter().any(|(ours, ..)| ours == key));
        match now(merge(&a, &b, &c, &stored)) {
            Err(MergeError::Conflict { .. }) => prop_assert!(conflict),
            Err(error) => panic!("{error}"),
            Ok(mut merged) => {
                prop_assert!(!conflict);
                let mut expected = ours.clone();
                for (key, _, value) in theirs_changed {
                    match value {
                        Some(value) => drop(expected.insert(key, value)),
                        None => drop(expected.remove(&key)),
                    }
                }
                let root = write(&mut merged, &mut stored);
                prop_assert_eq!(Some(root), canonical_root(&expected, hash));
            }
        }
    }

    #[test]
    fn trees_of_any_shape_are_read_and_changed_and_keep_their_untouched_parts(
        hash in any_hash(),
        model in any_model(),
        nulls in vec(any::<Index>(), 0..3),
        ops in vec(any_op(), 1..12),
        seed in any::<u64>(),
    ) {
        let mut model = model;
        for at in nulls {
            if !model.is_empty() {
                let key = model.keys().nth(at.index(model.len())).unwrap().clone();
                model.insert(key, Value::Null);
            }
        }
        let mut stored = MemoryBlocks::new();
        let Some(root) = build(&model, hash, 0, &mut Odd(seed | 1), &mut stored) else {
            panic!("keys of a model never need a 33rd level");
        };
        let mut champ = Champ::at(root.clone()).hashed_by(hash);
        prop_assert_eq!(now(champ.count(&stored)).unwrap(), model.len() as u64);
        model.retain(|_, value| *value != Value::Null);
        prop_assert_eq!(content(&champ, &stored), model.clone());
        for op in ops {
            let root = write(&mut champ, &mut stored);
            let before: BTreeSet<Cid> = reachable(&root, &stored)
                .values()
                .map(|block| block.cid().clone())
                .collect();
            let touched = match op {
                Op::Put(key, value) => {
                    let expected = model.get(&key).cloned();
                    match now(champ.put(key.clone(), expected.as_ref(), value.clone(), &stored)) {
                        Ok(()) => drop(model.insert(key.clone(), value)),
                        Err(ChampError::Collision) => {}
                        Err(error) => panic!("{error}"),
                    }
                    key
                }
                Op::Remove(at) if !model.is_empty() => {
                    let key = model.keys().nth(at.index(model.len())).unwrap().clone();
                    let value = model.remove(&key);
                    now(champ.remove(&key, value.as_ref(), &stored)).unwrap();
                    key
                }
                _ => continue,
            };
            // Every node off the path of the key is there as it was, or has been drawn into a bucket of it.
            let path = path_of(&root, &touched, hash, &stored);
            let root = write(&mut champ, &mut stored);
            let after: BTreeSet<Cid> =
                reachable(&root, &stored).values().map(|block| block.cid().clone()).collect();
            prop_assert!(before.difference(&after).all(|gone| path.contains(gone)));
        }
        prop_assert_eq!(content(&champ, &stored), model.clone());
        for (key, value) in &model {
            prop_assert_eq!(&now(champ.get(key, &stored)).unwrap(), &Some(value.clone()));
        }
    }

    #[test]
    fn random_edits_of_node_bytes_never_panic(
        model in any_model(),
        seed in any::<u64>(),
        edits in vec((any::<Index>(), any::<u8>(), 0u8..3), 1..4),
        key in any_key(),
    ) {
        let mut stored = MemoryBlocks::new();
        let Some(root) = build(&model, KeyHash::Identity, 0, &mut Odd(seed | 1), &mut stored) else {
            panic!("keys of a model never need a 33rd level");
        };
        let mut bytes = stored.get(&root).unwrap().bytes().to_vec();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte & 7),
                _ => bytes.insert(at, byte),
            }
        }
        poke(Block::cbor(bytes).unwrap(), stored, &key);
    }

    #[test]
    fn arbitrary_node_bytes_never_panic(bytes in vec(any::<u8>(), 0..60), key in any_key()) {
        poke(Block::cbor(bytes).unwrap(), MemoryBlocks::new(), &key);
    }

    #[test]
    fn a_lookup_reply_answers_like_the_tree_itself(
        model in any_model(),
        seed in any::<u64>(),
        keys in vec((any::<Index>(), any_key(), any::<bool>()), 0..20),
    ) {
        let mut stored = MemoryBlocks::new();
        let Some(root) = build(&model, KeyHash::Identity, 0, &mut Odd(seed | 1), &mut stored) else {
            panic!("keys of a model never need a 33rd level");
        };
        let keys: Vec<Vec<u8>> = keys
            .into_iter()
            .map(|(at, key, existing)| match existing && !model.is_empty() {
                true => model.keys().nth(at.index(model.len())).unwrap().clone(),
                false => key,
            })
            .collect();
        let asked: Vec<LookupKey> = keys
            .iter()
            .map(|key| LookupKey { key: key.clone().into(), value_token: None })
            .collect();
        let blocks = now(lookup_blocks(&root, &asked, &stored)).unwrap();
        let distinct: BTreeSet<&Cid> = blocks.iter().map(Block::cid).collect();
        prop_assert_eq!(distinct.len(), blocks.len());
        let mut reply = MemoryBlocks::new();
        reply.extend(blocks);
        let champ = Champ::at(root);
        for key in keys {
            prop_assert_eq!(now(champ.get(&key, &reply)).unwrap(), model.get(&key).cloned());
        }
    }
}

/// Returns the nodes that a lookup of `key` visits.
fn path_of(root: &Cid, key: &[u8], hash: KeyHash, stored: &MemoryBlocks) -> BTreeSet<Cid> {
    let watched = Watched::over(stored);
    now(Champ::at(root.clone()).hashed_by(hash).get(key, &watched)).unwrap();
    watched.take_asked().into_iter().collect()
}

/// Does everything that reads to a tree with a hostile root.
fn poke(root: Block, mut stored: MemoryBlocks, key: &[u8]) {
    let cid = root.cid().clone();
    stored.insert(root);
    let _ = now(Champ::at(cid.clone()).get(key, &stored));
    let _ = now(Champ::at(cid.clone()).put(key.to_vec(), None, Value::Int(1), &stored));
    let mut champ = Champ::at(cid.clone());
    if let Ok(Some(value)) = now(champ.get(key, &stored)) {
        let _ = now(champ.remove(key, Some(&value), &stored));
        let _ = champ.finish();
    }
    let mut entries = Champ::at(cid.clone()).entries().max_nodes(1000);
    while let Ok(Some(_)) = now(entries.next(&stored)) {}
    let (a, b) = (Champ::empty(), Champ::at(cid.clone()));
    let _ = now(diff_each(&a, &b, &stored, 1000, drop));
    let keys = [LookupKey {
        key: key.to_vec().into(),
        value_token: None,
    }];
    let _ = now(lookup_blocks(&cid, &keys, &stored));
}
