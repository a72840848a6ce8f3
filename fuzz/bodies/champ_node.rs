//! A tree with a hostile root: no panic in anything that reads or changes it, and changes hold.

use champ::{
    Block, MemoryBlocks,
    cbor::Value,
    map::{Champ, LookupKey, diff_each, lookup_blocks},
};
use futures_util::FutureExt;

pub fn run(data: &[u8]) {
    let (key, node) = data.split_at(data.len().min(2));
    let Ok(block) = Block::cbor(node.to_vec()) else {
        return;
    };
    let root = block.cid().clone();
    let mut stored = MemoryBlocks::new();
    stored.insert(block);
    let mut champ = Champ::at(root.clone());
    if let Ok(before) = now(champ.get(key, &stored)) {
        let put = now(champ.put(key.to_vec(), before.as_ref(), Value::Int(1), &stored));
        if put.is_ok() {
            assert_eq!(now(champ.get(key, &stored)).ok(), Some(Some(Value::Int(1))));
            if let Ok((changed, blocks)) = champ.finish() {
                stored.extend(blocks);
                let mut read = Champ::at(changed);
                assert_eq!(now(read.get(key, &stored)).ok(), Some(Some(Value::Int(1))));
                assert!(now(read.remove(key, Some(&Value::Int(1)), &stored)).is_ok());
                assert_eq!(now(read.get(key, &stored)).ok(), Some(None));
            }
        }
    }
    let mut entries = Champ::at(root.clone()).entries().max_nodes(100);
    while let Ok(Some(_)) = now(entries.next(&stored)) {}
    let _ = now(diff_each(
        &Champ::empty(),
        &Champ::at(root.clone()),
        &stored,
        100,
        drop,
    ));
    let key = LookupKey {
        key: key.to_vec().into(),
        value_token: None,
    };
    let _ = now(lookup_blocks(&root, &[key], &stored));
}

fn now<T>(future: impl Future<Output = T>) -> T {
    #[expect(clippy::expect_used, reason = "everything is in memory")]
    future.now_or_never().expect("memory sources never wait")
}
