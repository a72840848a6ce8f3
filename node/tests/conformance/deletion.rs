//! Deleting an account, as its user does it, and what space requests may not be replayed to (Spec: 12 §8, 09 §1.1).

use champ::{
    cbor::{Record as _, Value},
    text::to_hex,
};
use node::Config;
use pki::wire::{
    block_group::BlockFormat,
    payment::{DELETION_QUOTA_BYTES, LabelledSpaceRequest, PendingSpaceRequests, SpaceRequest},
};

use super::{
    account::{Account, update},
    harness::{NOW, TestNode, config},
};

fn space(who: &Account, bytes: i64, millis: i64) -> (String, Vec<u8>) {
    let request = SpaceRequest {
        username: who.name.parse().unwrap(),
        quota_bytes: bytes,
        is_annual: false,
        epoch_millis: millis,
        payment_proof: None,
    };
    let signed = who.identity.secret().sign_attached(&request.encode());
    let target = format!(
        "peergos/v0/storage/request?owner={}&req={}",
        who.owner(),
        to_hex(&signed)
    );
    (target, signed)
}

async fn pending(node: &TestNode, admin: &Account, millis: i64) -> Vec<LabelledSpaceRequest> {
    let target = format!(
        "peergos/v0/admin/pending?admin={}&instance={}&auth={}",
        admin.owner(),
        node.node.id(),
        admin.time(millis)
    );
    PendingSpaceRequests::decode(&node.ok(&target, "").await)
        .unwrap()
        .0
}

async fn with_admin(name: &str) -> (TestNode, Account, Account) {
    let node = TestNode::with(Config {
        admins: ["admin1".to_owned()].into(),
        ..config()
    })
    .await;
    let user = Account::sign_up(&node, name, 7).await;
    let admin = Account::sign_up(&node, "admin1", 8).await;
    (node, user, admin)
}

#[tokio::test]
async fn a_user_deletes_the_account_with_three_calls_and_the_name_stays_taken() {
    let (node, alice, admin) = with_admin("alice").await;
    let content = bytes::Bytes::from(vec![1; 5000]);
    let block = [content];
    alice
        .put(&node, &alice.home, BlockFormat::Raw, &block)
        .await;
    let root = alice.home_root().await.cid();
    let home = update(&alice.home, Some(&root), None, Some(2));
    assert_eq!(alice.set(&node, &home).await.body, [1]);
    let (request, signed) = space(&alice, DELETION_QUOTA_BYTES, NOW);
    node.ok(&request, "").await;
    let root = alice.identity_root().await.cid();
    let identity = update(&alice.identity, Some(&root), None, Some(2));
    assert_eq!(alice.set(&node, &identity).await.body, [1]);
    // Nothing is counted any more, also not what was never committed once its transaction is closed.
    let close = format!("api/v0/transaction/close?arg=t1&owner={}", alice.owner());
    node.ok(&close, "").await;
    // Accounting follows the answers (Spec: 12 §3.3): in the end nothing is left.
    let mut asked = 0;
    while alice.usage(&node, "&local=true").await != 0 {
        asked += 1;
        assert!(asked < 10_000, "bytes are counted for ever");
    }
    for (writer, write) in [(&alice.home, &home), (&alice.identity, &identity)] {
        assert_eq!(alice.pointer(&node, &writer.writer()).await, write.signed);
    }
    // The operator sees the wish; granting it leaves a quota of next to nothing.
    let listed = pending(&node, &admin, NOW + 10).await;
    assert_eq!(listed[0].signed, signed);
    let approval = admin.identity.secret().sign_attached(&listed[0].encode());
    let approve = format!(
        "peergos/v0/admin/approve?admin={}&instance={}&req={}",
        admin.owner(),
        node.node.id(),
        to_hex(&approval)
    );
    assert_eq!(node.ok(&approve, "").await, [0xf5]);
    let quota = format!(
        "peergos/v0/storage/quota?owner={}&auth={}",
        alice.owner(),
        alice.time(NOW)
    );
    assert_eq!(
        node.ok(&quota, "").await,
        Value::Int(DELETION_QUOTA_BYTES).encode()
    );
    // Nobody gets the name, and old pointers do not come back.
    use pki::wire::Body as _;
    let again = Account::new("alice", 9).request(&node).await;
    assert_eq!(
        node.refused("peergos/v0/core/signup", again.to_body())
            .await,
        "User already exists: Invalid key change attempt!"
    );
    let back = update(&alice.home, None, Some(&root), Some(2));
    assert_eq!(alice.set(&node, &back).await.status, 400);
}

#[tokio::test]
async fn an_older_space_request_never_replaces_a_newer_one() {
    let (node, alice, admin) = with_admin("alice").await;
    let (older, _) = space(&alice, 1_000_000, NOW - 1000);
    let (newer, signed) = space(&alice, 9_000_000, NOW);
    for target in [&older, &newer, &newer, &older] {
        node.ok(target, "").await;
    }
    let listed = pending(&node, &admin, NOW + 10).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].signed, signed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wr_14_one_authorisation_lists_pending_requests_once_however_often_it_is_sent() {
    let (node, _, admin) = with_admin("alice").await;
    let target = format!(
        "peergos/v0/admin/pending?admin={}&instance={}&auth={}",
        admin.owner(),
        node.node.id(),
        admin.time(NOW + 10)
    );
    let answers = futures_util::future::join_all((0..16).map(|_| node.post(&target, ""))).await;
    let listed = answers.iter().filter(|answer| answer.status == 200);
    assert_eq!(listed.count(), 1);
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(
            refused.message(),
            "Replay attack? Stale auth time for getPendingSpaceRequests"
        );
    }
}
