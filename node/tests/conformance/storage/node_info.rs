//! What a node says about itself, and calls it does not have (Spec: 06 §3, §9).

use super::alice;
use crate::conformance::harness::TestNode;

#[tokio::test]
async fn calls_below_the_node_are_not_exposed() {
    let node = TestNode::new().await;
    for call in [
        "block/has",
        "block/rm",
        "block/rm/bulk",
        "block/stat/bulk",
        "refs/local",
        "bloom/add",
        "id/",
        "",
    ] {
        assert_eq!(
            node.post(&format!("api/v0/{call}"), "").await.status,
            404,
            "{call}"
        );
    }
}

#[tokio::test]
async fn calls_of_object_stores_and_networks_are_refused_in_words() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let owner = alice.owner();
    assert_eq!(
        node.ok("api/v0/blockstore/props", "").await,
        champ::text::from_hex("a36177f4626172f4627072f4").unwrap()
    );
    let reads = format!("api/v0/blockstore/auth-reads?owner={owner}");
    assert_eq!(
        node.refused(&reads, &b"\x80"[..]).await,
        "Unimplemented call!"
    );
    let writes =
        format!("api/v0/blockstore/auth?owner={owner}&writer={owner}&transaction=t&raw=true");
    let empty = champ::text::from_hex("a3616280616c80617380").unwrap();
    assert_eq!(node.refused(&writes, empty).await, "Unimplemented call!");
    let record = format!(
        "api/v0/ipns/get?arg={}",
        node.node.id().bare_multihash_text()
    );
    assert_eq!(node.refused(&record, "").await, "Unimplemented!");
    let host = node
        .ok(&format!("api/v0/link-host?owner={owner}"), "")
        .await;
    assert_eq!(host, b"localhost:8000");
    assert_eq!(
        node.refused("api/v0/link-host", "").await,
        "No value present"
    );
}
