//! Random operations on the disk engine and on the memory store, with reopening: both show the same.

use std::{path::Path, sync::Arc};

use champ::{Block, Cid};
use node::store::{
    Batch, DiskOptions, DiskStore, FreeFloor, MemoryStore, Partition, Store, Table, TransactionId,
    tables,
};
use proptest::prelude::*;

use super::contract::{Hand, alice, bob, raw, transaction};

#[derive(Debug, Clone)]
enum Step {
    Put(bool, Vec<(u64, usize)>, Option<u8>),
    Delete(bool, Vec<bool>),
    Close(bool, u8),
    Expire(bool, u64),
    Advance(u64),
    Commit(Vec<(bool, u8, Option<u8>)>, Option<(u8, Option<u8>)>),
    Reopen { close: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sizes = prop_oneof![
        Just(1_usize),
        1..3_000_usize,
        Just(999),
        Just(1_000),
        Just(4_096)
    ];
    let block = (0..6_u64, sizes);
    let step = prop_oneof![
        4 => (any::<bool>(), prop::collection::vec(block, 0..5), prop::option::of(0..3_u8))
            .prop_map(|(who, blocks, id)| Step::Put(who, blocks, id)),
        2 => (any::<bool>(), prop::collection::vec(any::<bool>(), 20))
            .prop_map(|(who, which)| Step::Delete(who, which)),
        1 => (any::<bool>(), 0..3_u8).prop_map(|(who, id)| Step::Close(who, id)),
        1 => (any::<bool>(), 0..100_u64).prop_map(|(who, age)| Step::Expire(who, age)),
        1 => (1..60_u64).prop_map(Step::Advance),
        4 => (
            prop::collection::vec((any::<bool>(), 0..5_u8, prop::option::of(any::<u8>())), 0..4),
            prop::option::of((0..5_u8, prop::option::of(any::<u8>()))),
        )
            .prop_map(|(writes, condition)| Step::Commit(writes, condition)),
        1 => any::<bool>().prop_map(|close| Step::Reopen { close }),
    ];
    prop::collection::vec(step, 1..40)
}

fn who(first: bool) -> Partition {
    if first { alice() } else { bob() }
}

fn id(n: u8) -> TransactionId {
    transaction(&"t".repeat(usize::from(n) + 1))
}

fn table(first: bool) -> Table {
    if first {
        tables::POINTERS
    } else {
        tables::USAGE
    }
}

fn open(folder: &Path, hand: &Hand) -> DiskStore {
    let mut options = DiskOptions::new(folder);
    options.free_floor = FreeFloor::Bytes(0);
    options.inline_below_bytes = 1_000;
    options.clock = hand.clock();
    DiskStore::open(options).unwrap()
}

async fn run(store: &dyn Store, step: &Step, hand: &Hand) -> String {
    match step {
        Step::Put(first, blocks, transaction) => {
            let blocks: Vec<Block> = blocks.iter().map(|(seed, len)| raw(*seed, *len)).collect();
            let transaction = transaction.map(id);
            let put = store
                .put_blocks(&who(*first), blocks, transaction.as_ref())
                .await;
            format!("{put:?}")
        }
        Step::Delete(first, which) => {
            let listed = store.list_blocks(&who(*first), None, 100).await.unwrap();
            let chosen = listed
                .into_iter()
                .zip(which.iter().cycle())
                .filter(|(_, is)| **is);
            let chosen = chosen
                .map(|(info, _)| (info.cid, info.generation))
                .collect();
            format!("{:?}", store.delete_blocks(&who(*first), chosen).await)
        }
        Step::Close(first, n) => {
            format!("{:?}", store.close_transaction(&who(*first), &id(*n)).await)
        }
        Step::Expire(first, age) => {
            let before = hand.now() - std::time::Duration::from_secs(*age);
            format!(
                "{:?}",
                store.expire_transactions(&who(*first), before).await
            )
        }
        Step::Commit(writes, condition) => {
            let mut batch = Batch::new();
            if let Some((key, value)) = condition {
                batch = batch.expect(tables::POINTERS, vec![*key], value.map(|v| vec![v]));
            }
            for (first, key, value) in writes {
                batch = match value {
                    Some(value) => batch.put(table(*first), vec![*key], vec![*value]),
                    None => batch.remove(table(*first), vec![*key]),
                };
            }
            format!("{:?}", store.commit(batch).await)
        }
        Step::Advance(_) | Step::Reopen { .. } => String::new(),
    }
}

async fn look(store: &dyn Store) -> String {
    let mut seen = format!("{:?}\n", store.partitions(None, 9).await.unwrap());
    for partition in [alice(), bob()] {
        for info in store.list_blocks(&partition, None, 100).await.unwrap() {
            let block = store.block(&partition, &info.cid).await.unwrap().unwrap();
            let size = store
                .block_size(&partition, &info.cid)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(size as usize, block.bytes().len());
            seen += &format!("{} {size}\n", info.cid);
        }
        let mut protected: Vec<Cid> = store.protected_blocks(&partition).await.unwrap();
        protected.sort();
        let counts = store.block_counts(&partition).await.unwrap();
        seen += &format!("{counts:?} {protected:?}\n");
    }
    for table in [tables::POINTERS, tables::USAGE] {
        seen += &format!("{:?}\n", store.scan(table, b"", None, 100).await.unwrap());
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn disk_and_memory_show_the_same(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // Twice 1970, so that ages can be subtracted.
            let hand = Hand::default();
            hand.advance(1_000_000);
            let root = tempfile::tempdir().unwrap();
            let memory = MemoryStore::with_clock(hand.clock());
            let mut disk = Arc::new(open(root.path(), &hand));
            for step in &steps {
                match step {
                    Step::Advance(seconds) => hand.advance(*seconds),
                    Step::Reopen { close } => {
                        if *close {
                            disk.close().await.unwrap();
                        }
                        drop(disk);
                        disk = Arc::new(open(root.path(), &hand));
                    }
                    step => assert_eq!(run(&*disk, step, &hand).await, run(&memory, step, &hand).await),
                }
                assert_eq!(look(&*disk).await, look(&memory).await);
            }
        });
    }
}
