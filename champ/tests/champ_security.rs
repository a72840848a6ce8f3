//! The "Security checks" of Spec: 03, and the limits around them.

use champ::{
    Block, Cid, MemoryBlocks, SourceError,
    access::Bat,
    cbor::{Map, Record, Value},
    map::{
        Champ, ChampError, Change, KeyHash, LookupError, LookupKey, MAX_DEPTH, MAX_LOOKUP_BYTES,
        MAX_LOOKUP_KEYS, MergeError, diff, diff_each, lookup_blocks, merge,
    },
};

use crate::support::*;

fn key(i: u8) -> Vec<u8> {
    vec![i; 32]
}

/// A tree whose keys all lie under one chain of two nodes, and its blocks.
fn chained(stored: &mut MemoryBlocks) -> Cid {
    let mut champ = Champ::empty();
    for i in 0..6u8 {
        now(champ.put(
            [vec![0xff; 2], vec![i; 30]].concat(),
            None,
            link_of("v"),
            stored,
        ))
        .unwrap();
    }
    write(&mut champ, stored)
}

fn put_node(data: u8, links: u8, contents: Vec<Value>, stored: &mut MemoryBlocks) -> Cid {
    let map = |bits: u8| Value::from(if bits == 0 { Vec::new() } else { vec![bits] });
    let node = Value::List(vec![map(data), map(links), Value::List(contents)]);
    let block = Block::cbor(node.encode()).unwrap();
    let cid = block.cid().clone();
    stored.insert(block);
    cid
}

fn ask(key: &[u8]) -> LookupKey {
    LookupKey {
        key: key.to_vec().into(),
        value_token: None,
    }
}

#[test]
fn a_block_other_than_the_one_asked_for_is_never_parsed() {
    let mut stored = MemoryBlocks::new();
    let root = chained(&mut stored);
    let mut source = Watched::over(&stored);
    source.swapped = Some(Block::cbor(vec![0x83, 0x40, 0x40, 0x80]).unwrap());
    let error = now(Champ::at(root.clone()).get(&key(1), &source)).unwrap_err();
    assert!(matches!(error, ChampError::WrongBlock(cid) if cid == root));
    let error = now(lookup_blocks(&root, &[ask(&key(1))], &source)).unwrap_err();
    assert!(matches!(
        error,
        LookupError::Champ(ChampError::WrongBlock(_))
    ));
}

#[test]
fn a_missing_node_is_an_error_and_never_absence() {
    let mut stored = MemoryBlocks::new();
    let root = chained(&mut stored);
    let child = child_links(stored.get(&root).unwrap().bytes())[0].clone();
    stored.remove(&child);
    let source = Watched::over(&stored);
    let wanted = vec![0xff; 32];
    let missing = |error: ChampError| matches!(error, ChampError::Missing(cid) if cid == child);
    let mut champ = Champ::at(root.clone());
    assert!(missing(now(champ.get(&wanted, &source)).unwrap_err()));
    let put = now(champ.put(wanted.clone(), None, link_of("v"), &source));
    assert!(missing(put.unwrap_err()));
    assert!(missing(
        now(champ.remove(&wanted, None, &source)).unwrap_err()
    ));
    let gone = now(champ.remove_all(&[&wanted], &source));
    assert!(missing(gone.unwrap_err()));
    assert!(missing(now(champ.count(&source)).unwrap_err()));
    let differences = now(diff(&Champ::empty(), &champ, &source));
    assert!(missing(differences.unwrap_err()));
    // What does not lie below it is known all the same.
    assert_eq!(now(champ.get(&key(0), &source)).unwrap(), None);
    assert_eq!(champ.root(), Some(&root));
    // A server's walk ends there.
    let blocks = now(lookup_blocks(&root, &[ask(&wanted)], &source)).unwrap();
    assert_eq!(blocks.len(), 1);
}

#[test]
fn an_enumeration_goes_on_after_a_failed_read() {
    let mut stored = MemoryBlocks::new();
    let root = chained(&mut stored);
    let child = child_links(stored.get(&root).unwrap().bytes())[0].clone();
    let mut partial = stored.clone();
    partial.remove(&child);
    let mut entries = Champ::at(root).entries();
    assert!(now(entries.next(&partial)).is_err());
    let mut count = 0;
    while now(entries.next(&stored)).unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 6);
}

#[test]
fn a_malformed_node_is_refused_wherever_it_is_met() {
    let mut stored = MemoryBlocks::new();
    let bad = Block::cbor(vec![0x83, 0x41, 0x01, 0x41, 0x01, 0x80]).unwrap();
    let child = bad.cid().clone();
    stored.insert(bad);
    let raw = Block::raw(vec![0x83, 0x40, 0x40, 0x80]).unwrap();
    let raw_child = raw.cid().clone();
    stored.insert(raw);
    for child in [child, raw_child] {
        let root = put_node(0, 1, vec![Value::Link(child)], &mut stored);
        let champ = Champ::at(root.clone());
        let malformed = |error: ChampError| matches!(error, ChampError::Malformed { .. });
        assert!(malformed(now(champ.get(&key(0), &stored)).unwrap_err()));
        assert!(malformed(now(champ.count(&stored)).unwrap_err()));
        let differences = now(diff(&Champ::empty(), &champ, &stored));
        assert!(malformed(differences.unwrap_err()));
        // One malformed node fails the whole call, for every key.
        let error = now(lookup_blocks(&root, &[ask(&key(0)), ask(&key(1))], &stored)).unwrap_err();
        assert!(matches!(error, LookupError::Champ(error) if malformed(error.clone())));
    }
}

#[test]
fn depth_is_bounded_at_32_levels() {
    let mut stored = MemoryBlocks::new();
    let mut at = put_node(
        1,
        0,
        vec![Value::List(vec![Value::from(key(0)), link_of("v")])],
        &mut stored,
    );
    // The leaf and 31 nodes above it are 32 levels.
    for _ in 1..MAX_DEPTH {
        at = put_node(0, 1, vec![Value::Link(at)], &mut stored);
    }
    assert_eq!(
        now(Champ::at(at.clone()).get(&key(0), &stored)).unwrap(),
        Some(link_of("v"))
    );
    assert_eq!(now(Champ::at(at.clone()).count(&stored)).unwrap(), 1);
    now(lookup_blocks(&at, &[ask(&key(0))], &stored)).unwrap();

    let deeper = put_node(0, 1, vec![Value::Link(at)], &mut stored);
    let champ = Champ::at(deeper.clone());
    let too_deep = |error: ChampError| matches!(error, ChampError::TooDeep(_));
    assert!(too_deep(now(champ.get(&key(0), &stored)).unwrap_err()));
    assert!(too_deep(now(champ.load(&[key(0)], &stored)).unwrap_err()));
    assert!(too_deep(now(champ.count(&stored)).unwrap_err()));
    assert!(too_deep(
        now(diff(&Champ::empty(), &champ, &stored)).unwrap_err()
    ));
    let error = now(lookup_blocks(&deeper, &[ask(&key(0))], &stored)).unwrap_err();
    assert!(matches!(error, LookupError::Champ(error) if too_deep(error.clone())));
}

#[test]
fn a_few_blocks_that_describe_an_endless_tree_are_given_up_on() {
    let mut stored = MemoryBlocks::new();
    let mut at = put_node(0, 0, vec![], &mut stored);
    for _ in 1..MAX_DEPTH {
        at = put_node(0, 0xff, vec![Value::Link(at.clone()); 8], &mut stored);
    }
    let champ = Champ::at(at.clone());
    let mut entries = champ.entries().max_nodes(10_000);
    let error = now(entries.next(&stored)).unwrap_err();
    assert!(matches!(error, ChampError::TooManyNodes { max: 10_000 }));
    let error = now(diff_each(&Champ::empty(), &champ, &stored, 10_000, drop)).unwrap_err();
    assert!(matches!(error, ChampError::TooManyNodes { max: 10_000 }));
    // A lookup follows one path per key.
    let source = Watched::over(&stored);
    let keys: Vec<LookupKey> = (0..20).map(|i| ask(&key(i))).collect();
    assert_eq!(now(lookup_blocks(&at, &keys, &source)).unwrap().len(), 32);
    assert_eq!(source.take_asked().len(), 32);
}

#[test]
fn keys_are_compared_exactly() {
    let stored = MemoryBlocks::new();
    let mut champ = Champ::empty();
    now(champ.put(vec![1], None, link_of("one"), &stored)).unwrap();
    for other in [vec![], vec![1, 0], vec![1, 1], vec![0], vec![9]] {
        assert_eq!(now(champ.get(&other, &stored)).unwrap(), None, "{other:?}");
    }
}

#[test]
fn a_lookup_takes_20_keys_at_most() {
    let mut stored = MemoryBlocks::new();
    let root = chained(&mut stored);
    let keys: Vec<LookupKey> = (0..21).map(|i| ask(&key(i))).collect();
    now(lookup_blocks(&root, &keys[..MAX_LOOKUP_KEYS], &stored)).unwrap();
    let error = now(lookup_blocks(&root, &keys, &stored)).unwrap_err();
    assert!(matches!(error, LookupError::TooManyKeys { actual: 21 }));
}

#[test]
fn a_lookup_without_its_root_is_refused_by_name() {
    let stored = MemoryBlocks::new();
    let root = Cid::of_cbor(b"elsewhere");
    let error = now(lookup_blocks(&root, &[ask(&key(0))], &stored)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("Champ root not present locally: {root}")
    );
}

#[test]
fn value_blocks_are_opened_with_the_token_of_their_own_record_only() {
    let value = Block::cbor(vec![0xa0]).unwrap();
    let token = Bat::from_secret([7; 32]).with_calculated_id();
    let mut stored = MemoryBlocks::new();
    let mut champ = Champ::empty();
    let link = Value::Link(value.cid().clone());
    now(champ.put(key(1), None, link.clone(), &stored)).unwrap();
    let root = write(&mut champ, &mut stored);
    stored.insert(value.clone());
    let mut source = Watched::over(&stored);
    source.protected.insert(value.cid().clone(), token.clone());
    let with = |key: &[u8], secret: u8| LookupKey {
        value_token: Some(Bat::from_secret([secret; 32]).with_calculated_id()),
        ..ask(key)
    };
    let blocks = now(lookup_blocks(&root, &[with(&key(1), 7)], &source)).unwrap();
    assert_eq!(blocks.last(), Some(&value));
    // A right token beside another record opens nothing.
    for keys in [
        vec![ask(&key(1))],
        vec![with(&key(1), 8)],
        vec![with(&key(2), 7), ask(&key(1))],
    ] {
        let error = now(lookup_blocks(&root, &keys, &source)).unwrap_err();
        assert!(matches!(
            error,
            LookupError::Champ(ChampError::Source(SourceError::Rejected { .. }))
        ));
    }
}

#[test]
fn a_root_that_may_not_be_read_says_nothing_about_labels() {
    let mut stored = MemoryBlocks::new();
    let mirror = Bat::from_secret([9; 32]);
    let mut champ = Champ::empty_private(mirror.secret_hash_id());
    now(champ.put(key(1), None, link_of("v"), &stored)).unwrap();
    let root = write(&mut champ, &mut stored);
    let mut source = Watched::over(&stored);
    source
        .protected
        .insert(root.clone(), mirror.with_calculated_id());
    let errors = [key(1), key(2)].map(|key| {
        let token = Some(mirror.with_calculated_id());
        let asked = LookupKey {
            value_token: token,
            ..ask(&key)
        };
        format!(
            "{:?}",
            now(lookup_blocks(&root, &[asked], &source)).unwrap_err()
        )
    });
    assert_eq!(errors[0], errors[1]);
    // The owner reads it with the mirror token, and children without.
    let champ = Champ::at(root).with_root_token(mirror.with_calculated_id());
    assert_eq!(
        now(champ.get(&key(1), &source)).unwrap(),
        Some(link_of("v"))
    );
    assert_eq!(
        now(champ.mirror_bat(&source)).unwrap(),
        Some(mirror.secret_hash_id())
    );
}

#[test]
fn a_lookup_reply_is_bounded_and_leaves_out_the_rest() {
    let mut stored = MemoryBlocks::new();
    let mut champ = Champ::empty();
    let mut blocks = Vec::new();
    for i in 0..20u8 {
        // Inline values of 1 MiB below a link each.
        let block = Block::cbor(Value::from(vec![i; 1 << 20]).encode()).unwrap();
        now(champ.put(key(i), None, Value::Link(block.cid().clone()), &stored)).unwrap();
        blocks.push(block);
    }
    let root = write(&mut champ, &mut stored);
    stored.extend(blocks);
    let keys: Vec<LookupKey> = (0..20).map(|i| ask(&key(i))).collect();
    let reply = now(lookup_blocks(&root, &keys, &stored)).unwrap();
    let total: usize = reply.iter().map(|block| block.bytes().len()).sum();
    assert!(total <= MAX_LOOKUP_BYTES);
    assert!(reply.len() > 20);
}

#[test]
fn a_node_too_large_for_a_block_is_refused_and_the_tree_kept() {
    let stored = MemoryBlocks::new();
    let mut champ = Champ::empty();
    let large = Value::from(vec![1; 600_000]);
    now(champ.put(vec![0], None, large.clone(), &stored)).unwrap();
    now(champ.put(vec![1], None, large.clone(), &stored)).unwrap();
    assert!(matches!(champ.finish(), Err(ChampError::TooLarge(_))));
    now(champ.remove(&[1], Some(&large), &stored)).unwrap();
    assert_eq!(champ.finish().unwrap().1.len(), 1);
}

#[test]
fn null_is_never_written_and_always_read_as_absent() {
    let mut stored = MemoryBlocks::new();
    let mut champ = Champ::empty();
    let put = now(champ.put(key(1), None, Value::Null, &stored));
    assert!(matches!(put, Err(ChampError::NullValue)));
    now(champ.put(key(1), None, link_of("v"), &stored)).unwrap();
    let root = write(&mut champ, &mut stored);
    let nulled = Champ::at(with_null(&root, &key(1), &mut stored));
    assert_eq!(now(nulled.get(&key(1), &stored)).unwrap(), None);
    assert_eq!(now(nulled.entries().next(&stored)).unwrap(), None);
    assert_eq!(now(nulled.count(&stored)).unwrap(), 1);
    assert!(
        now(diff(&Champ::empty(), &nulled, &stored))
            .unwrap()
            .is_empty()
    );
    let mut again = nulled.clone();
    now(again.put(key(1), Some(&Value::Null), link_of("w"), &stored)).unwrap();
    let mut gone = nulled;
    now(gone.remove(&key(1), None, &stored)).unwrap();
    assert_eq!(gone.finish().unwrap().0, Champ::empty().finish().unwrap().0);
}

#[test]
fn puts_and_removes_read_the_path_of_their_key_and_nothing_else() {
    let mut stored = MemoryBlocks::new();
    let mut champ = Champ::empty();
    for i in 0..500u32 {
        now(champ.put(sha256(&i.to_string()).to_vec(), None, link_of("v"), &stored)).unwrap();
    }
    let root = write(&mut champ, &mut stored);
    for i in 0..50u32 {
        let key = sha256(&i.to_string());
        let source = Watched::over(&stored);
        now(lookup_blocks(&root, &[ask(&key)], &source)).unwrap();
        // The last one asked for is the value.
        let mut path = source.take_asked();
        path.pop();
        let mut champ = Champ::at(root.clone());
        now(champ.remove(&key, Some(&link_of("v")), &source)).unwrap();
        assert_eq!(source.take_asked(), path);
        let (_, blocks) = champ.finish().unwrap();
        assert!(blocks.len() <= path.len());
        let mut champ = Champ::at(root.clone());
        now(champ.put(key.to_vec(), Some(&link_of("v")), link_of("w"), &source)).unwrap();
        assert_eq!(source.take_asked(), path);
        assert_eq!(champ.finish().unwrap().1.len(), path.len());
        // Once read, nodes are not read again, until they are forgotten.
        now(champ.get(&key, &source)).unwrap();
        assert!(source.take_asked().is_empty());
        champ.forget();
        stored.extend(champ.clone().finish().unwrap().1);
    }
}

#[test]
fn a_change_that_is_taken_back_writes_nothing() {
    let mut stored = MemoryBlocks::new();
    let root = chained(&mut stored);
    let mut champ = Champ::at(root.clone());
    let key = [vec![0xff; 2], vec![9; 30]].concat();
    now(champ.put(key.clone(), None, link_of("v"), &stored)).unwrap();
    assert_eq!(champ.root(), None);
    now(champ.remove(&key, Some(&link_of("v")), &stored)).unwrap();
    assert_eq!(champ.finish().unwrap(), (root, Vec::new()));
}

#[test]
fn a_batch_reads_each_node_once_and_all_or_nothing_is_changed() {
    let mut stored = MemoryBlocks::new();
    let mut champ = Champ::empty();
    let keys: Vec<Vec<u8>> = (0..300u32)
        .map(|i| sha256(&i.to_string()).to_vec())
        .collect();
    for key in &keys {
        now(champ.put(key.clone(), None, link_of("v"), &stored)).unwrap();
    }
    let root = write(&mut champ, &mut stored);
    let source = Watched::over(&stored);
    let change = |key: &Vec<u8>, expected: &str| Change {
        key: key.clone().into(),
        expected: Some(link_of(expected)),
        value: Some(link_of("w")),
    };
    let mut changes: Vec<Change> = keys.iter().map(|key| change(key, "v")).collect();
    let mut champ = Champ::at(root.clone());
    now(champ.apply(changes.clone(), &source)).unwrap();
    let mut asked = source.take_asked();
    assert_eq!(asked.len(), reachable(&root, &stored).len());
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), reachable(&root, &stored).len());
    assert_eq!(champ.finish().unwrap().1.len(), asked.len());

    changes[299] = change(&keys[299], "something else");
    let mut champ = Champ::at(root.clone());
    let error = now(champ.apply(changes, &source)).unwrap_err();
    assert!(matches!(error, ChampError::CompareAndSwap));
    assert_eq!(champ.root(), Some(&root));
    assert_eq!(
        now(champ.get(&keys[0], &source)).unwrap(),
        Some(link_of("v"))
    );
}

#[test]
fn equal_subtrees_are_not_read_by_diff() {
    let mut stored = MemoryBlocks::new();
    let mut champ = Champ::empty();
    for i in 0..500u32 {
        now(champ.put(sha256(&i.to_string()).to_vec(), None, link_of("v"), &stored)).unwrap();
    }
    let before = write(&mut champ, &mut stored);
    let changed = sha256("7").to_vec();
    now(champ.put(changed.clone(), Some(&link_of("v")), link_of("w"), &stored)).unwrap();
    let after = write(&mut champ, &mut stored);
    let source = Watched::over(&stored);
    let found = now(diff(&Champ::at(before.clone()), &Champ::at(after), &source)).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key, changed);
    assert!(source.take_asked().len() <= 2 * 5);
    let (a, b) = (Champ::at(before.clone()), Champ::at(before));
    assert!(now(diff(&a, &b, &source)).unwrap().is_empty());
    assert!(source.take_asked().is_empty());
}

#[test]
fn merge_refuses_a_key_that_changed_on_both_sides_in_every_combination() {
    let mut stored = MemoryBlocks::new();
    let mut base = Champ::empty();
    now(base.put(key(1), None, link_of("v"), &stored)).unwrap();
    write(&mut base, &mut stored);
    let put = |value: &str| {
        let mut champ = base.clone();
        now(champ.put(key(1), Some(&link_of("v")), link_of(value), &stored)).unwrap();
        champ
    };
    let mut removed = base.clone();
    now(removed.remove(&key(1), Some(&link_of("v")), &stored)).unwrap();
    let sides = [put("a"), put("b"), removed];
    for ours in &sides {
        for theirs in &sides {
            let error = now(merge(&base, ours, theirs, &stored)).unwrap_err();
            assert!(matches!(error, MergeError::Conflict { key: found } if found == key(1)));
        }
        // A side that did not change takes no part.
        let merged = now(merge(&base, ours, &base, &stored)).unwrap();
        assert!(now(diff(&merged, ours, &stored)).unwrap().is_empty());
    }
}

#[test]
fn trees_with_different_key_hashes_are_not_compared() {
    let stored = MemoryBlocks::new();
    let a = Champ::empty();
    let b = Champ::empty().hashed_by(KeyHash::Sha256);
    let error = now(diff(&a, &b, &stored)).unwrap_err();
    assert!(matches!(error, ChampError::KeyHash));
}

#[test]
fn a_snapshot_is_not_touched_by_later_changes() {
    let mut stored = MemoryBlocks::new();
    let mut champ = Champ::empty();
    for i in 0..40 {
        now(champ.put(key(i), None, link_of("v"), &stored)).unwrap();
    }
    let mut snapshot = champ.clone();
    let root = write(&mut champ, &mut stored);
    for i in 0..40 {
        now(champ.remove(&key(i), Some(&link_of("v")), &stored)).unwrap();
    }
    assert_eq!(
        write(&mut champ, &mut stored),
        Champ::empty().finish().unwrap().0
    );
    assert_eq!(write(&mut snapshot, &mut stored), root);
}

#[test]
fn children_never_carry_tokens_even_when_another_writer_gave_them_one() {
    let mut stored = MemoryBlocks::new();
    let mirror = Bat::from_secret([9; 32]).secret_hash_id();
    let root = chained(&mut stored);
    let child = child_links(stored.get(&root).unwrap().bytes())[0].clone();
    let node = champ::cbor::decode(stored.get(&child).unwrap().bytes()).unwrap();
    let wrapped = Value::Map(Map::from_iter([
        ("d", node),
        ("bats", Value::List(vec![mirror.to_value()])),
    ]));
    let block = Block::cbor(wrapped.encode()).unwrap();
    let odd = put_node(0, 0x80, vec![Value::Link(block.cid().clone())], &mut stored);
    stored.insert(block);
    let mut champ = Champ::at(odd);
    let key = [vec![0xff; 2], vec![0; 30]].concat();
    assert_eq!(now(champ.get(&key, &stored)).unwrap(), Some(link_of("v")));
    now(champ.put(key.clone(), Some(&link_of("v")), link_of("w"), &stored)).unwrap();
    now(champ.put(key, Some(&link_of("w")), link_of("v"), &stored)).unwrap();
    assert_eq!(write(&mut champ, &mut stored), root);
    // And the mirror token of a root does not follow into its children.
    now(champ.set_mirror_bat(mirror.clone(), &stored)).unwrap();
    let private = write(&mut champ, &mut stored);
    assert_ne!(private, root);
    assert_eq!(child_links(stored.get(&private).unwrap().bytes()), [child]);
    assert_eq!(
        now(Champ::at(private).mirror_bat(&stored)).unwrap(),
        Some(mirror)
    );
}

#[test]
fn futures_can_be_sent_between_threads() {
    fn check<T: Send>(future: T) -> T {
        future
    }
    let stored = MemoryBlocks::new();
    let mut champ = Champ::empty();
    let other = champ.clone();
    now(check(champ.put(key(1), None, link_of("v"), &stored))).unwrap();
    now(check(champ.get(&key(1), &stored))).unwrap();
    now(check(champ.load(&[key(1)], &stored))).unwrap();
    now(check(champ.apply(Vec::new(), &stored))).unwrap();
    now(check(champ.remove_all(&[key(2)], &stored))).unwrap();
    now(check(champ.count(&stored))).unwrap();
    let mut entries = champ.entries();
    now(check(entries.next(&stored))).unwrap();
    now(check(diff(&other, &champ, &stored))).unwrap();
    now(check(merge(&other, &champ, &other, &stored))).unwrap();
    let root = champ.finish().unwrap().0;
    let keys = [ask(&key(1))];
    let _ = now(check(lookup_blocks(&root, &keys, &stored)));
    now(check(champ.remove(&key(1), Some(&link_of("v")), &stored))).unwrap();
}

#[test]
fn every_error_reads_as_a_sentence_without_keys_or_values() {
    let cid = Cid::of_cbor(b"");
    let errors: Vec<String> = vec![
        ChampError::Missing(cid.clone()).to_string(),
        ChampError::TooDeep(cid.clone()).to_string(),
        ChampError::WrongBlock(cid.clone()).to_string(),
        ChampError::CompareAndSwap.to_string(),
        ChampError::Collision.to_string(),
        ChampError::NullValue.to_string(),
        ChampError::TooManyNodes { max: 3 }.to_string(),
        ChampError::KeyHash.to_string(),
        ChampError::Unfinished.to_string(),
        MergeError::Conflict { key: key(1).into() }.to_string(),
        MergeError::Lost { key: key(1).into() }.to_string(),
        LookupError::TooManyKeys { actual: 21 }.to_string(),
    ];
    let expected = format!(
        "champ node {cid} is missing
champ node {cid} is deeper than 32 levels
source answered with another block than {cid}
champ value is not the expected one
hash collision
null can not be put into a champ
more than 3 champ nodes to visit
champs use different key hashes
champ node has an unwritten child
concurrent modification of a file or directory
merge lost a change
21 keys in one lookup, at most 20"
    );
    assert_eq!(errors.join("\n"), expected);
}
