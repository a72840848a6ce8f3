//! Space, administration, mirror tokens, messages, follow requests (Spec: 09, 22 §3).

use champ::{
    access::Bat,
    cbor::{Map, Record as _, Value, decode},
    text::to_hex,
};
use node::Config;
use pki::{
    keys::SecretSigningKey,
    wire::{
        message::{MessageKind, ServerMessage, ServerMessages},
        payment::{LabelledSpaceRequest, PaymentProperties, PendingSpaceRequests, SpaceRequest},
    },
};

use super::{
    account::{Account, key},
    harness::{NOW, TestNode, config},
};

async fn alice(node: &TestNode) -> Account {
    Account::sign_up(node, "alice", 7).await
}

fn owned(alice: &Account, call: &str, millis: i64) -> String {
    format!(
        "peergos/v0/storage/{call}?owner={}&auth={}",
        alice.owner(),
        alice.time(millis)
    )
}

const STALE: &str = "Stale auth time, is your clock accurate?";

#[tokio::test]
async fn space_calls_need_a_fresh_time_of_the_owner() {
    let node = TestNode::with(Config {
        default_quota_bytes: 5000,
        ..config()
    })
    .await;
    let alice = alice(&node).await;
    assert_eq!(
        node.ok(&owned(&alice, "quota", NOW), "").await,
        Value::Int(5000).encode()
    );
    for call in ["usage", "quota", "payment-properties"] {
        let more = "&new-client-secret=false";
        node.ok(&format!("{}{more}", owned(&alice, call, NOW - 300_000)), "")
            .await;
        for stale in [NOW - 300_001, NOW + 300_001] {
            assert_eq!(
                node.refused(&format!("{}{more}", owned(&alice, call, stale)), "")
                    .await,
                STALE
            );
        }
        let mallory = Account::new("mallory", 66);
        let forged = owned(&alice, call, NOW).replace(&alice.time(NOW), &mallory.time(NOW));
        assert_eq!(
            node.refused(&format!("{forged}{more}"), "").await,
            "Invalid signature"
        );
        let request = to_hex(&alice.request_auth("peergos/v0/storage/usage", NOW));
        let other = owned(&alice, call, NOW).replace(&alice.time(NOW), &request);
        assert_eq!(
            node.refused(&format!("{other}{more}"), "").await,
            "Invalid cbor for time in authorisation!"
        );
        assert_eq!(
            node.refused(&format!("{}{more}", owned(&mallory, call, NOW)), "")
                .await,
            format!("Unknown identity key: {}", mallory.owner())
        );
        node.refused(&format!("peergos/v0/storage/{call}"), "")
            .await;
    }
    node.refused(&owned(&alice, "payment-properties", NOW), "")
        .await;
}

fn request(alice: &Account, name: &str, bytes: i64, millis: i64) -> Vec<u8> {
    let request = SpaceRequest {
        username: name.parse().unwrap(),
        quota_bytes: bytes,
        is_annual: false,
        epoch_millis: millis,
        payment_proof: None,
    };
    alice.identity.secret().sign_attached(&request.encode())
}

fn send(alice: &Account, signed: &[u8]) -> String {
    format!(
        "peergos/v0/storage/request?owner={}&req={}",
        alice.owner(),
        to_hex(signed)
    )
}

#[tokio::test]
async fn wr_14_space_is_granted_by_administrators_alone_and_once() {
    let node = TestNode::with(Config {
        default_quota_bytes: 5000,
        admins: ["admin1".to_owned()].into(),
        ..config()
    })
    .await;
    let alice = alice(&node).await;
    let admin = Account::sign_up(&node, "admin1", 8).await;
    let first = request(&alice, "alice", 6000, NOW);
    let reply = node.ok(&send(&alice, &first), "").await;
    assert_eq!(reply, PaymentProperties::free(5000).encode());
    let wanted = request(&alice, "alice", 7000, NOW + 1);
    node.ok(&send(&alice, &wanted), "").await;
    for bad in [
        request(&alice, "admin1", 6000, NOW),
        request(&alice, "alice", 6000, NOW - 300_001),
        request(&alice, "alice", 6000, NOW + 300_001),
        request(&alice, "alice", -1, NOW),
        request(&admin, "alice", 6000, NOW),
        vec![1; 40],
    ] {
        node.refused(&send(&alice, &bad), "").await;
    }
    let id = node.node.id();
    let pending = |who: &Account, millis: i64| {
        format!(
            "peergos/v0/admin/pending?admin={}&instance={id}&auth={}",
            who.owner(),
            who.time(millis)
        )
    };
    assert_eq!(node.ok(&pending(&alice, NOW + 10), "").await, [0x80]);
    let list = node.ok(&pending(&admin, NOW + 10), "").await;
    let list = PendingSpaceRequests::decode(&list).unwrap();
    assert_eq!(list.0.len(), 1, "the newer request replaces the older one");
    assert_eq!(list.0[0].signed, wanted);
    assert_eq!(
        node.refused(&pending(&admin, NOW + 10), "").await,
        "Replay attack? Stale auth time for getPendingSpaceRequests"
    );
    assert_eq!(
        node.refused(&pending(&admin, NOW - 60_001), "").await,
        STALE
    );
    let approve = |who: &Account, labelled: &LabelledSpaceRequest| {
        let signed = who.identity.secret().sign_attached(&labelled.encode());
        format!(
            "peergos/v0/admin/approve?admin={}&instance={id}&req={}",
            who.owner(),
            to_hex(&signed)
        )
    };
    assert_eq!(
        node.refused(&approve(&alice, &list.0[0]), "").await,
        "User is not an admin on this instance!"
    );
    let older = LabelledSpaceRequest {
        signed: first.into(),
        ..list.0[0].clone()
    };
    node.refused(&approve(&admin, &older), "").await;
    let renamed = LabelledSpaceRequest {
        username: "admin1".parse().unwrap(),
        ..list.0[0].clone()
    };
    node.refused(&approve(&admin, &renamed), "").await;
    let elsewhere = approve(&admin, &list.0[0]).replace(
        &id.to_string(),
        "zdpuAktsYvbynYjqPnjnVRp8iBLtqUDg4yAnt1NzYxM8SHFEn",
    );
    node.refused(&elsewhere, "").await;
    assert_eq!(node.ok(&approve(&admin, &list.0[0]), "").await, [0xf5]);
    assert_eq!(
        node.ok(&owned(&alice, "quota", NOW), "").await,
        Value::Int(7000).encode()
    );
    // A recorded approval restores nothing.
    node.refused(&approve(&admin, &list.0[0]), "").await;
    assert_eq!(node.ok(&pending(&admin, NOW + 20), "").await, [0x80]);
}

#[tokio::test]
async fn waiting_list_follows_the_vectors() {
    let node = TestNode::with(Config {
        waiting_list: true,
        ..config()
    })
    .await;
    let off = TestNode::new().await;
    for (email, expected) in [
        ("c@example.com", 0xf5),
        ("c%2Bd@example.com", 0xf5),
        ("c+d@example.com", 0xf5),
        ("c%20d@example.com", 0xf4),
        ("notanemail", 0xf4),
        ("a@b.museumx", 0xf4),
        ("", 0xf4),
    ] {
        let target = format!("peergos/v0/admin/waitlist?email={email}");
        assert_eq!(node.ok(&target, "").await, [expected], "{email}");
        assert_eq!(off.ok(&target, "").await, [0xf4]);
    }
    let version = node.ok("peergos/v0/admin/version", "").await;
    let Value::Map(version) = decode(&version).unwrap() else {
        panic!()
    };
    assert_eq!(version.len(), 2);
}

#[tokio::test]
async fn bat_8_mirror_tokens_are_added_and_read_by_their_user_alone() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let bob = Account::sign_up(&node, "bob", 8).await;
    let bat = Bat::from_secret([9; 32]);
    let add = |who: &Account, id: &champ::access::BatId, millis: i64| {
        format!(
            "{}&batid={}&bat={}",
            who.signed("peergos/v0/bats/addBat", millis),
            id.cid(),
            bat.to_text()
        )
    };
    for bad in [bat.inline_id(), Bat::from_secret([8; 32]).secret_hash_id()] {
        node.refused(&add(&alice, &bad, NOW), "").await;
    }
    for stale in [NOW - 300_001, NOW + 300_001] {
        assert_eq!(
            node.refused(&add(&alice, &bat.secret_hash_id(), stale), "")
                .await,
            STALE
        );
    }
    let other_path = alice
        .signed("peergos/v0/bats/getUserBats", NOW)
        .replace("getUserBats?", "addBat?");
    let other_path = format!(
        "{other_path}&batid={}&bat={}",
        bat.secret_hash_id().cid(),
        bat.to_text()
    );
    assert_eq!(
        node.refused(&other_path, "").await,
        "Illegal path for signed request: peergos/v0/bats/getUserBats"
    );
    let mallory = Account {
        name: "alice".to_owned(),
        ..Account::new("alice", 66)
    };
    assert_eq!(
        node.refused(&add(&mallory, &bat.secret_hash_id(), NOW), "")
            .await,
        "Invalid signature"
    );
    for _ in 0..2 {
        assert_eq!(
            node.ok(&add(&alice, &bat.secret_hash_id(), NOW), "").await,
            [0xf5]
        );
    }
    assert_eq!(
        node.ok(&add(&alice, &bat.calculated_id(), NOW), "").await,
        [0xf5]
    );
    node.refused(&add(&bob, &bat.secret_hash_id(), NOW), "")
        .await;
    let answer = node
        .post(&alice.signed("peergos/v0/bats/getUserBats", NOW), "")
        .await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let Value::List(bats) = decode(&answer.body).unwrap() else {
        panic!()
    };
    assert_eq!(bats.len(), 3);
    assert_eq!(bats[0], alice.mirror_with_id().to_value());
    assert_eq!(
        node.refused(
            &Account::new("nobody", 9).signed("peergos/v0/bats/getUserBats", NOW),
            ""
        )
        .await,
        "No value present"
    );
}

#[tokio::test]
async fn msg_1_messages_are_signed_bounded_and_not_repeated() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let target = "peergos/v0/server-message/send?username=alice";
    let message = |kind, millis, body: &str| {
        let message = ServerMessage {
            id: -1,
            kind,
            sent_epoch_millis: millis,
            body: body.to_owned(),
            reply_to: None,
            is_dismissed: false,
        };
        alice.identity.secret().sign_attached(&message.encode())
    };
    let hello = message(MessageKind::FromUser, NOW, "hello");
    for _ in 0..30 {
        assert_eq!(node.ok(target, hello.clone()).await, [0xf5]);
    }
    assert_eq!(
        node.refused(
            target,
            message(MessageKind::FromUser, NOW - 3_600_001, "old")
        )
        .await,
        "Invalid send time on message!"
    );
    assert_eq!(
        node.refused(target, message(MessageKind::FromServer, NOW, "fake"))
            .await,
        "Invalid message type sent from user: FromServer"
    );
    let mut forged = hello.clone();
    forged[0] ^= 1;
    assert_eq!(node.refused(target, forged).await, "Invalid signature");
    assert_eq!(
        node.refused(target, vec![0; 10_241]).await,
        "Input exceeds maximum size of 10240 bytes"
    );
    node.refused(
        target,
        message(MessageKind::FromUser, NOW, &"x".repeat(4097)),
    )
    .await;
    for n in 0..20 {
        node.ok(target, message(MessageKind::FromUser, NOW, &format!("{n}")))
            .await;
    }
    assert_eq!(
        node.refused(target, message(MessageKind::FromUser, NOW, "one more"))
            .await,
        "Please wait before sending more messages!"
    );
    let retrieve = alice.signed("peergos/v0/server-message/retrieve", NOW);
    let list = ServerMessages::decode(&node.ok(&retrieve, "").await).unwrap();
    assert!(
        list.0.is_empty(),
        "only conversations that wait for the user are shown"
    );
    let stale = alice.signed("peergos/v0/server-message/retrieve", NOW - 300_001);
    assert_eq!(node.refused(&stale, "").await, STALE);
}

fn follow(n: u32) -> Vec<u8> {
    let mut map = Map::new();
    map.insert("f", [&n.to_be_bytes()[..], &[7; 40]].concat());
    map.insert("k", vec![Value::Int(1), Value::from(&[9u8; 32])]);
    Value::Map(map).encode()
}

#[tokio::test]
async fn soc_1_and_soc_3_follow_requests_are_checked_listed_and_removed() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let send = format!("peergos/v0/social/followRequest?owner={}", alice.owner());
    let list = |who: &Account, millis: i64| {
        format!(
            "peergos/v0/social/getFollowRequests?owner={}&auth={}",
            alice.owner(),
            who.time(millis)
        )
    };
    assert_eq!(node.ok(&list(&alice, NOW), "").await, [0, 0, 0, 1, 0x80]);
    for bad in [
        vec![],
        vec![0xaa; 4096],
        vec![0],
        Value::from("x").encode(),
        vec![0x81; 100],
        vec![0xa0],
    ] {
        assert_eq!(node.refused(&send, bad).await, "Not a follow request");
    }
    assert_eq!(
        node.refused(&send, vec![0; 4097]).await,
        "Input exceeds maximum size of 4096 bytes"
    );
    for n in [1, 2, 1] {
        assert_eq!(node.ok(&send, follow(n)).await, [1]);
    }
    let body = node.ok(&list(&alice, NOW), "").await;
    let expected = [&[0x82][..], &follow(1), &follow(2)].concat();
    assert_eq!(
        body,
        [&(expected.len() as u32).to_be_bytes()[..], &expected].concat()
    );
    let mallory = Account::new("mallory", 66);
    assert_eq!(
        node.refused(&list(&mallory, NOW), "").await,
        "Invalid signature"
    );
    assert_eq!(node.refused(&list(&alice, NOW - 300_001), "").await, STALE);
    let remove = format!(
        "peergos/v0/social/removeFollowRequest?owner={}",
        alice.owner()
    );
    let signed = |who: &SecretSigningKey, n| who.sign_attached(&follow(n));
    assert_eq!(
        node.ok(&remove, signed(mallory.identity.secret(), 1)).await,
        [0]
    );
    for _ in 0..2 {
        assert_eq!(
            node.ok(&remove, signed(alice.identity.secret(), 1)).await,
            [1]
        );
    }
    let left = node.ok(&list(&alice, NOW), "").await;
    assert_eq!(left[4..], [&[0x81][..], &follow(2)].concat());
    let stranger = key(66, 1);
    let nobody = format!("peergos/v0/social/followRequest?owner={}", stranger.hash());
    assert_eq!(
        node.refused(&nobody, follow(1)).await,
        format!("Unknown identity key: {}", stranger.hash())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soc_2_an_inbox_holds_at_most_101_requests() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let send = format!("peergos/v0/social/followRequest?owner={}", alice.owner());
    let answers =
        futures_util::future::join_all((0..150).map(|n| node.post(&send, follow(n)))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(
        answers.iter().filter(|answer| answer.body == [1]).count(),
        101
    );
}
