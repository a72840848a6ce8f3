//! What every engine promises, checked on each of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use champ::{Block, Cid, Multihash};
use node::store::{
    Batch, BlockCounts, Clock, CommitOutcome, MAX_BATCH_ROWS, MAX_DELETE_BLOCKS, MAX_KEY_BYTES,
    MAX_PUT_BLOCKS, MAX_VALUE_BYTES, MemoryStore, Misuse, Partition, Store, StoreError,
    TransactionId, tables,
};

/// A clock that a test moves by hand.
#[derive(Clone, Default)]
pub(crate) struct Hand(Arc<AtomicU64>);

impl Hand {
    pub(crate) fn clock(&self) -> Clock {
        let seconds = self.0.clone();
        Arc::new(move || {
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::SeqCst))
        })
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> SystemTime {
        (self.clock())()
    }
}

pub(crate) fn alice() -> Partition {
    Partition::new("alice").unwrap()
}

pub(crate) fn bob() -> Partition {
    Partition::new("bob").unwrap()
}

pub(crate) fn transaction(id: &str) -> TransactionId {
    TransactionId::new(id).unwrap()
}

/// A raw block of `len` bytes that depend on `seed`.
pub(crate) fn raw(seed: u64, len: usize) -> Block {
    let mut bytes = vec![0x5a; len];
    let seed = seed.to_be_bytes();
    let n = len.min(8);
    bytes[..n].copy_from_slice(&seed[8 - n..]);
    Block::raw(bytes).unwrap()
}

/// Runs every promise against stores that `open` makes.
pub(crate) async fn check(open: impl AsyncFn(Clock) -> Arc<dyn Store>) {
    let hand = Hand::default();
    batches(&*open(hand.clock()).await).await;
    scans(&*open(hand.clock()).await).await;
    one_winner(open(hand.clock()).await).await;
    partitions(&*open(hand.clock()).await).await;
    codecs(&*open(hand.clock()).await).await;
    generations(&*open(hand.clock()).await).await;
    transactions(&*open(hand.clock()).await, &hand).await;
    listings(&*open(hand.clock()).await).await;
    misuse(&*open(hand.clock()).await).await;
    close(&*open(hand.clock()).await).await;
}

async fn batches(store: &dyn Store) {
    let (t, u) = (tables::POINTERS, tables::USAGE);
    assert_eq!(store.get(t, b"k").await.unwrap(), None);
    let first = Batch::new()
        .expect_absent(t, "k")
        .put(t, "k", "1")
        .put(u, "k", "other");
    assert!(store.commit(first.clone()).await.unwrap().is_committed());
    assert_eq!(store.get(t, b"k").await.unwrap().unwrap(), "1");
    assert_eq!(store.get(u, b"k").await.unwrap().unwrap(), "other");
    let failed = store.commit(first).await.unwrap();
    let actual = Some("1".into());
    assert_eq!(failed, CommitOutcome::ConditionFailed { index: 0, actual });

    let half = Batch::new()
        .expect(t, "k", Some("1"))
        .expect(u, "k", Some("wrong"))
        .put(t, "k", "2")
        .remove(u, "k");
    let failed = store.commit(half).await.unwrap();
    let actual = Some("other".into());
    assert_eq!(failed, CommitOutcome::ConditionFailed { index: 1, actual });
    assert_eq!(store.get(t, b"k").await.unwrap().unwrap(), "1");

    let twice = Batch::new()
        .put(t, "k", "a")
        .remove(t, "k")
        .put(t, "k", "b")
        .put(t, "", "empty key");
    assert!(store.commit(twice).await.unwrap().is_committed());
    assert_eq!(store.get(t, b"k").await.unwrap().unwrap(), "b");
    assert_eq!(store.get(t, b"").await.unwrap().unwrap(), "empty key");
    let gone = Batch::new()
        .expect(t, "k", Some("b"))
        .remove(t, "k")
        .remove(t, "never there");
    assert!(store.commit(gone).await.unwrap().is_committed());
    assert_eq!(store.get(t, b"k").await.unwrap(), None);
    assert!(store.commit(Batch::new()).await.unwrap().is_committed());
    let keys = ["", "k", "", "never there"].map(bytes::Bytes::from);
    let many = store.get_many(t, &keys).await.unwrap();
    let there = Some(bytes::Bytes::from("empty key"));
    assert_eq!(many, [there.clone(), None, there, None]);
    assert!(store.get_many(t, &[]).await.unwrap().is_empty());
}

async fn scans(store: &dyn Store) {
    let t = tables::LINK_COUNTS;
    let mut batch = Batch::new()
        .put(tables::LOGINS, "a1", "x")
        .put(tables::MESSAGES, "a1", "x");
    let keys: [&[u8]; 6] = [b"", b"a", b"a1", b"a2", b"a\xff", b"b"];
    for key in keys {
        batch = batch.put(t, key.to_vec(), key.to_vec());
    }
    assert!(store.commit(batch).await.unwrap().is_committed());
    let found = async |prefix: &[u8], after: Option<&[u8]>, limit| {
        let rows = store.scan(t, prefix, after, limit).await.unwrap();
        assert!(rows.iter().all(|(key, value)| key == value));
        rows.into_iter()
            .map(|(key, _)| key.to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(found(b"", None, 100).await, keys);
    assert_eq!(found(b"a", None, 100).await, keys[1..5]);
    assert_eq!(found(b"a", Some(b"a"), 2).await, keys[2..4]);
    assert_eq!(found(b"a", Some(b""), 1).await, keys[1..2]);
    assert_eq!(found(b"a", Some(b"a\xff"), 9).await, keys[..0]);
    assert_eq!(found(b"a", Some(b"b"), 9).await, keys[..0]);
    assert_eq!(found(b"a\xff", None, 9).await, keys[4..5]);
    assert_eq!(found(b"", None, 0).await, keys[..0]);
    assert!(
        store
            .scan(tables::BATS, b"", None, 9)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn one_winner(store: Arc<dyn Store>) {
    let t = tables::POINTERS;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40_u8 {
        let store = store.clone();
        tasks.spawn(async move {
            let batch = Batch::new().expect_absent(t, "w").put(t, "w", vec![n]);
            store.commit(batch).await.unwrap().is_committed()
        });
    }
    let won = tasks
        .join_all()
        .await
        .into_iter()
        .filter(|won| *won)
        .count();
    assert_eq!(won, 1);
}

async fn partitions(store: &dyn Store) {
    for len in [1, 300, 5_000, 65_535, 65_536, 1 << 20] {
        let block = raw(len as u64, len);
        store
            .put_blocks(&alice(), vec![block.clone()], None)
            .await
            .unwrap();
        assert_eq!(
            store.block(&alice(), block.cid()).await.unwrap().unwrap(),
            block
        );
        let size = store.block_size(&alice(), block.cid()).await.unwrap();
        assert_eq!(size, Some(len as u32));
        assert_eq!(store.block(&bob(), block.cid()).await.unwrap(), None);
        assert_eq!(store.block_size(&bob(), block.cid()).await.unwrap(), None);
    }
    let both = raw(7, 70_000);
    for _ in 0..2 {
        store
            .put_blocks(&alice(), vec![both.clone(), both.clone()], None)
            .await
            .unwrap();
        store
            .put_blocks(&bob(), vec![both.clone()], None)
            .await
            .unwrap();
    }
    let counts = store.block_counts(&alice()).await.unwrap();
    let bytes = 1 + 300 + 5_000 + 65_535 + 65_536 + (1 << 20) + 70_000;
    assert_eq!(counts, BlockCounts { blocks: 7, bytes });
    let counts = store.block_counts(&bob()).await.unwrap();
    assert_eq!(
        counts,
        BlockCounts {
            blocks: 1,
            bytes: 70_000
        }
    );
    assert_eq!(
        store
            .block_counts(&Partition::new("c").unwrap())
            .await
            .unwrap(),
        BlockCounts::default()
    );
    assert_eq!(store.partitions(None, 9).await.unwrap(), [alice(), bob()]);
    assert_eq!(store.partitions(Some(&alice()), 9).await.unwrap(), [bob()]);
    assert_eq!(store.partitions(None, 1).await.unwrap(), [alice()]);

    let info = store.list_blocks(&bob(), None, 9).await.unwrap();
    let gone = store
        .delete_blocks(&bob(), vec![(info[0].cid.clone(), info[0].generation)])
        .await
        .unwrap();
    assert_eq!(
        gone.removed,
        BlockCounts {
            blocks: 1,
            bytes: 70_000
        }
    );
    assert_eq!(store.block(&bob(), both.cid()).await.unwrap(), None);
    assert_eq!(
        store.block(&alice(), both.cid()).await.unwrap().unwrap(),
        both
    );
}

async fn codecs(store: &dyn Store) {
    let block = Block::cbor(vec![0x81, 0x01]).unwrap();
    store
        .put_blocks(&alice(), vec![block.clone()], None)
        .await
        .unwrap();
    let raw = Cid::of_raw(block.bytes());
    assert_eq!(store.block(&alice(), &raw).await.unwrap(), None);
    assert_eq!(store.block_size(&alice(), &raw).await.unwrap(), None);
    let server = Cid::v1(champ::Codec::Libp2pKey, block.cid().hash().clone());
    assert_eq!(store.block(&alice(), &server).await.unwrap(), None);
    let v0 = Cid::decode(&block.cid().hash().to_bytes()).unwrap();
    assert_eq!(store.block(&alice(), &v0).await.unwrap(), None);
}

async fn generations(store: &dyn Store) {
    for len in [100, 100_000] {
        let block = raw(1, len);
        let cid = block.cid().clone();
        store
            .put_blocks(&alice(), vec![block.clone()], None)
            .await
            .unwrap();
        let old = store.list_blocks(&alice(), None, 9).await.unwrap()[0].generation;
        store
            .put_blocks(&alice(), vec![block.clone()], None)
            .await
            .unwrap();
        let kept = store
            .delete_blocks(&alice(), vec![(cid.clone(), old)])
            .await
            .unwrap();
        assert_eq!((kept.kept, kept.removed.blocks), (1, 0));
        assert_eq!(store.block(&alice(), &cid).await.unwrap().unwrap(), block);

        let new = store.list_blocks(&alice(), None, 9).await.unwrap()[0].generation;
        assert!(new > old);
        let twice = vec![(cid.clone(), new), (cid.clone(), new)];
        let gone = store.delete_blocks(&alice(), twice).await.unwrap();
        assert_eq!((gone.kept, gone.removed.blocks), (0, 1));
        assert_eq!(gone.removed.bytes, len as u64);
        assert_eq!(store.block(&alice(), &cid).await.unwrap(), None);

        // A block that comes back after its deletion is not the one that was listed.
        store
            .put_blocks(&alice(), vec![block.clone()], None)
            .await
            .unwrap();
        let kept = store
            .delete_blocks(&alice(), vec![(cid.clone(), new)])
            .await
            .unwrap();
        assert_eq!(kept.kept, 1);
        let newest = store.list_blocks(&alice(), None, 9).await.unwrap()[0].generation;
        store
            .delete_blocks(&alice(), vec![(cid, newest)])
            .await
            .unwrap();
    }
}

async fn transactions(store: &dyn Store, hand: &Hand) {
    let (one, two) = (transaction("one"), transaction("two"));
    let (a, b) = (raw(1, 10), raw(2, 90_000));
    let delete_all = async || {
        let listed = store.list_blocks(&alice(), None, 9).await.unwrap();
        let all = listed
            .into_iter()
            .map(|info| (info.cid, info.generation))
            .collect();
        store.delete_blocks(&alice(), all).await.unwrap()
    };
    let protected = async || {
        let mut cids = store.protected_blocks(&alice()).await.unwrap();
        cids.sort();
        cids
    };
    let mut both = vec![a.cid().clone(), b.cid().clone()];
    both.sort();

    store
        .put_blocks(&alice(), vec![a.clone(), b.clone()], Some(&one))
        .await
        .unwrap();
    store
        .put_blocks(&alice(), vec![a.clone()], Some(&two))
        .await
        .unwrap();
    store
        .put_blocks(&bob(), vec![a.clone()], Some(&one))
        .await
        .unwrap();
    assert_eq!(protected().await, both);
    assert_eq!(delete_all().await.kept, 2);
    // Another owner's transaction of the same name is another transaction (WR-9).
    store.close_transaction(&bob(), &one).await.unwrap();
    assert_eq!(protected().await, both);
    store.close_transaction(&alice(), &one).await.unwrap();
    store.close_transaction(&alice(), &one).await.unwrap();
    store
        .close_transaction(&alice(), &transaction("unknown"))
        .await
        .unwrap();
    assert_eq!(protected().await, [a.cid().clone()]);
    let gone = delete_all().await;
    assert_eq!(
        (gone.kept, gone.removed.blocks, gone.removed.bytes),
        (1, 1, 90_000)
    );

    // The age is that of the put: writing goes on protecting.
    hand.advance(100);
    store
        .put_blocks(&alice(), vec![b.clone()], Some(&two))
        .await
        .unwrap();
    assert_eq!(protected().await, both);
    store
        .expire_transactions(&alice(), hand.now() - Duration::from_secs(50))
        .await
        .unwrap();
    assert_eq!(protected().await, [b.cid().clone()]);
    store
        .expire_transactions(&alice(), hand.now() + Duration::from_secs(1))
        .await
        .unwrap();
    assert!(protected().await.is_empty());
    assert_eq!(delete_all().await.removed.blocks, 2);
    let id_prefix = transaction("tw");
    store
        .put_blocks(&alice(), vec![a], Some(&two))
        .await
        .unwrap();
    store.close_transaction(&alice(), &id_prefix).await.unwrap();
    assert_eq!(protected().await.len(), 1);
}

async fn listings(store: &dyn Store) {
    let mut blocks: Vec<_> = (0..25).map(|n| raw(n, 20 + n as usize)).collect();
    store
        .put_blocks(&alice(), blocks.clone(), None)
        .await
        .unwrap();
    store
        .put_blocks(&bob(), vec![raw(99, 5)], None)
        .await
        .unwrap();
    blocks.sort_by_key(|block| block.cid().to_bytes());
    let mut after = None;
    let mut seen = Vec::new();
    loop {
        let page = store
            .list_blocks(&alice(), after.as_ref(), 10)
            .await
            .unwrap();
        let len = page.len();
        after = page.last().map(|info| info.cid.clone());
        seen.extend(page);
        if len < 10 {
            break;
        }
    }
    assert_eq!(seen.len(), 25);
    for (info, block) in seen.iter().zip(&blocks) {
        assert_eq!(&info.cid, block.cid());
        assert_eq!(info.size_bytes as usize, block.bytes().len());
    }
    let none = store
        .list_blocks(&Partition::new("al").unwrap(), None, 10)
        .await
        .unwrap();
    assert!(none.is_empty());
}

async fn misuse(store: &dyn Store) {
    let t = tables::POINTERS;
    let refused = async |batch| match store.commit(batch).await {
        Err(StoreError::Misuse(misuse)) => misuse,
        other => panic!("{other:?}"),
    };
    let long = vec![0; MAX_KEY_BYTES + 1];
    assert_eq!(
        refused(Batch::new().put(t, long.clone(), "")).await,
        Misuse::KeyTooLong(513)
    );
    assert_eq!(
        refused(Batch::new().expect_absent(t, long)).await,
        Misuse::KeyTooLong(513)
    );
    let huge = vec![0; MAX_VALUE_BYTES + 1];
    let too_long = Misuse::ValueTooLong(huge.len());
    assert_eq!(refused(Batch::new().put(t, "k", huge)).await, too_long);
    let mut many = Batch::new();
    for n in 0..=MAX_BATCH_ROWS {
        many = many.put(t, n.to_be_bytes().to_vec(), "");
    }
    assert_eq!(refused(many).await, Misuse::TooManyRows(MAX_BATCH_ROWS + 1));

    let put = async |blocks| match store.put_blocks(&alice(), blocks, None).await {
        Err(StoreError::Misuse(misuse)) => misuse,
        other => panic!("{other:?}"),
    };
    let own = Cid::v1(champ::Codec::DagCbor, Multihash::identity(b"\x01").unwrap());
    let own = Block::inline(&own).unwrap();
    assert_eq!(put(vec![raw(1, 1), own]).await, Misuse::IdentityBlock);
    assert_eq!(
        put(vec![Block::raw(Vec::new()).unwrap()]).await,
        Misuse::EmptyBlock
    );
    let many = MAX_PUT_BLOCKS + 1;
    assert_eq!(put(vec![raw(1, 1); many]).await, Misuse::TooManyRows(many));
    assert_eq!(
        store.block_counts(&alice()).await.unwrap(),
        BlockCounts::default()
    );
    store
        .put_blocks(&alice(), Vec::new(), Some(&transaction("t")))
        .await
        .unwrap();

    store
        .put_blocks(&alice(), vec![raw(1, 1)], None)
        .await
        .unwrap();
    let generation = store.list_blocks(&alice(), None, 1).await.unwrap()[0].generation;
    let many = vec![(raw(1, 1).cid().clone(), generation); MAX_DELETE_BLOCKS + 1];
    assert!(matches!(
        store.delete_blocks(&alice(), many).await,
        Err(StoreError::Misuse(Misuse::TooManyRows(1001)))
    ));
}

async fn close(store: &dyn Store) {
    store
        .put_blocks(&alice(), vec![raw(1, 1)], None)
        .await
        .unwrap();
    store.close().await.unwrap();
    store.close().await.unwrap();
    let block = raw(1, 1);
    assert!(matches!(
        store.block(&alice(), block.cid()).await,
        Err(StoreError::Closed)
    ));
    let put = store.put_blocks(&alice(), vec![block], None).await;
    assert!(matches!(put, Err(StoreError::Closed)));
    assert!(matches!(
        store.get(tables::NODE, b"k").await,
        Err(StoreError::Closed)
    ));
    let commit = store.commit(Batch::new().put(tables::NODE, "k", "v")).await;
    assert!(matches!(commit, Err(StoreError::Closed)));
}

#[tokio::test]
async fn memory_store_keeps_the_contract() {
    check(async |clock| Arc::new(MemoryStore::with_clock(clock)) as Arc<dyn Store>).await;
}

#[test]
fn names_are_checked() {
    for good in ["a", "AFK7_-z", &"x".repeat(120)] {
        assert_eq!(Partition::new(good).unwrap().as_str(), good);
    }
    for bad in ["", "a/b", "..", "a b", "\u{e9}", &"x".repeat(121)] {
        assert!(Partition::new(bad).is_err(), "{bad}");
    }
    for bad in ["", "a_b", "a/b", &"x".repeat(65)] {
        assert!(TransactionId::new(bad).is_err(), "{bad}");
    }
    assert!(TransactionId::new(&"0aZ-".repeat(16)).is_ok());
}
