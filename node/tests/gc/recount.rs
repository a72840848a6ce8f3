//! Usage counted from nothing (Spec: 12 §3.3, 40 WR-12).

use champ::cbor::{Map, Value};
use node::{
    operator::{
        Operation as _, Report,
        quota::{Recount, Recounted},
    },
    store::{Batch, MetaStore as _, tables},
};

use super::world::{Uploader, World, small_tree};

pub(super) async fn recount(world: &World, name: &str, is_applied: bool) -> Recounted {
    let operation = Recount {
        name: name.to_owned(),
        is_applied,
    };
    operation
        .run(&world.server.node, &Report::silent())
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn wr_12_a_wrong_record_is_found_and_put_right() {
    let world = World::new().await;
    let mut alice = Uploader::sign_up(&world.server, "alice", 1).await;
    for seed in ["a", "b", "c"] {
        let (tree, blocks) = small_tree(seed, 4);
        alice.commit(&world.server, &tree, &blocks).await;
    }
    let right = recount(&world, "alice", false).await;
    assert!(right.is_right_now, "{right:?}");
    assert_eq!(right.recorded_bytes, right.counted_bytes);
    let usage = alice.account.usage(&world.server, "").await;
    assert_eq!(right.counted_bytes, usage as u64);

    let mut row = Map::new();
    row.insert("o", false);
    row.insert("t", 5_i64);
    let wrong = Value::Map(row).encode();
    let batch = Batch::new().put(tables::USAGE, b"alice".to_vec(), wrong);
    assert!(world.store.commit(batch).await.unwrap().is_committed());
    let found = recount(&world, "alice", false).await;
    assert_eq!((found.recorded_bytes, found.is_right_now), (5, false));
    assert_eq!(found.counted_bytes, right.counted_bytes);
    let applied = recount(&world, "alice", true).await;
    assert!(applied.is_right_now);
    assert_eq!(recount(&world, "alice", false).await, right);
}
