//! What an operator asks of a node, without the socket.

mod monitoring;
mod removal;

use node::{
    Config, Node,
    operator::{
        Event, Failed, FailedKind, Operation, Report, follow,
        invites::{ListInvites, NewInvites, RevokeInvite},
        messages::{ListMessages, SendMessage},
        quota::{SetQuota, ShowQuota},
        space_requests::{ApproveSpaceRequest, DeclineSpaceRequest, ListSpaceRequests},
        users::{ListUsers, ShowUser},
        waitlist::{ListWaiting, RemoveWaiting},
    },
};
use pki::wire::{
    Body as _,
    message::{MessageKind, NO_ID, ServerMessage, ServerMessages},
    payment::SpaceRequest,
    signup::SignupRequest,
};
use serde_json::Value as Json;

use champ::{cbor::Record as _, text::to_hex};

use crate::conformance::{
    account::Account,
    harness::{NOW, TestNode, config},
};

/// Runs an operation and returns its items and its outcome.
pub(crate) async fn ask<O: Operation>(
    node: &Node,
    operation: O,
) -> (Vec<Json>, Result<O::Outcome, Failed>) {
    let (report, events) = Report::channel();
    let mut items = Vec::new();
    let outcome = follow(operation.run(node, &report), events, |event| {
        if let Event::Item(item) = event {
            items.push(item);
        }
        Ok::<_, std::convert::Infallible>(())
    });
    let outcome = outcome.await.unwrap();
    (items, outcome)
}

async fn done<O: Operation>(node: &Node, operation: O) -> O::Outcome {
    ask(node, operation)
        .await
        .1
        .unwrap_or_else(|failed| panic!("{failed}"))
}

async fn refused<O: Operation>(node: &Node, operation: O) -> FailedKind {
    match ask(node, operation).await.1 {
        Ok(_) => panic!("{} should have been refused", O::NAME),
        Err(failed) => failed.kind,
    }
}

async fn ask_for_space(node: &TestNode, from: &Account, name: &str, bytes: i64) {
    let request = SpaceRequest {
        username: name.parse().unwrap(),
        quota_bytes: bytes,
        is_annual: false,
        epoch_millis: NOW,
        payment_proof: None,
    };
    let signed = from.identity.secret().sign_attached(&request.encode());
    let target = format!(
        "peergos/v0/storage/request?owner={}&req={}",
        from.owner(),
        to_hex(&signed)
    );
    node.ok(&target, "").await;
}

fn named(name: &str) -> ShowQuota {
    ShowQuota {
        name: name.to_owned(),
    }
}

#[tokio::test]
async fn space_requests_are_decided_without_an_administrator() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let bob = Account::sign_up(&node, "bob", 8).await;
    ask_for_space(&node, &alice, "alice", 5_000_000_000_000).await;
    ask_for_space(&node, &bob, "bob", 77).await;
    let (items, _) = ask(&node.node, ListSpaceRequests {}).await;
    assert_eq!(items.len(), 2);
    assert_eq!(items[0]["name"], "alice");
    assert_eq!(items[0]["wanted_bytes"], 5_000_000_000_000_i64);
    assert_eq!(items[0]["is_genuine"], true);

    let approve = |name: &str, bytes| ApproveSpaceRequest {
        name: name.to_owned(),
        bytes,
    };
    let decided = done(&node.node, approve("alice", None)).await;
    assert_eq!(decided.quota_bytes, Some(5_000_000_000_000));
    assert_eq!(decided.before_bytes, Some(1 << 40));
    // Used up: an approval cannot be repeated.
    let again = refused(&node.node, approve("alice", None)).await;
    assert_eq!(again, FailedKind::NotFound);

    let decline = DeclineSpaceRequest {
        name: "bob".to_owned(),
    };
    done(&node.node, decline).await;
    assert_eq!(
        done(&node.node, named("bob")).await.quota_bytes,
        Some(1 << 40)
    );
    assert!(ask(&node.node, ListSpaceRequests {}).await.0.is_empty());

    ask_for_space(&node, &bob, "bob", 77).await;
    done(&node.node, approve("bob", Some(5000))).await;
    assert_eq!(done(&node.node, named("bob")).await.quota_bytes, Some(5000));
}

async fn sign_up_with(node: &TestNode, name: &str, seed: u8, token: &str) -> u16 {
    let account = Account::new(name, seed);
    let request = SignupRequest {
        token: token.to_owned(),
        ..account.request(node).await
    };
    let answer = node.post("peergos/v0/core/signup", request.to_body());
    answer.await.status
}

#[tokio::test]
async fn an_invite_admits_one_account_and_a_revoked_one_none() {
    let node = TestNode::with(Config {
        max_users: 0,
        ..config()
    })
    .await;
    let made = done(&node.node, NewInvites { count: 3 }).await.invites;
    assert_eq!(made.len(), 3);
    for invite in &made {
        assert_eq!(invite.token.len(), 64);
        assert!(!format!("{invite:?}").contains(&invite.token));
    }
    let (listed, _) = ask(&node.node, ListInvites {}).await;
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|item| item["made_epoch_millis"] == NOW));
    assert!(
        !made
            .iter()
            .any(|new| serde_json::to_string(&listed).unwrap().contains(&new.token))
    );

    let revoke = |which: &str| RevokeInvite {
        which: which.to_owned(),
    };
    assert_eq!(
        refused(&node.node, revoke("abc")).await,
        FailedKind::NotFound
    );
    let revoked = done(&node.node, revoke(&made[0].id)).await;
    assert_eq!(revoked.id, made[0].id);
    assert_eq!(
        done(&node.node, revoke(&made[1].token)).await.id,
        made[1].id
    );
    assert_eq!(sign_up_with(&node, "alice", 1, &made[0].token).await, 400);
    assert_eq!(sign_up_with(&node, "alice", 1, &made[1].token).await, 400);
    assert_eq!(sign_up_with(&node, "alice", 1, &made[2].token).await, 200);
    assert_eq!(sign_up_with(&node, "bob", 2, &made[2].token).await, 400);
    assert!(ask(&node.node, ListInvites {}).await.0.is_empty());
    assert_eq!(
        refused(&node.node, NewInvites { count: 0 }).await,
        FailedKind::NotAllowed
    );
}

#[tokio::test]
async fn a_quota_for_a_name_without_owner_lets_its_owner_in() {
    let node = TestNode::with(Config {
        max_users: 0,
        ..config()
    })
    .await;
    assert_eq!(sign_up_with(&node, "alice", 1, "").await, 400);
    let set = |name: &str, bytes| SetQuota {
        name: name.to_owned(),
        bytes,
    };
    let quota = done(&node.node, set("alice", 6000)).await;
    assert!(!quota.is_claimed);
    assert_eq!(sign_up_with(&node, "alice", 1, "").await, 200);
    let quota = done(&node.node, named("alice")).await;
    assert!(quota.is_claimed && quota.quota_bytes == Some(6000));
    for (name, bytes, kind) in [
        ("Not A Name", 1, FailedKind::NotAllowed),
        ("alice", (1 << 53) + 1, FailedKind::NotAllowed),
    ] {
        assert_eq!(refused(&node.node, set(name, bytes)).await, kind);
    }
    assert_eq!(
        refused(&node.node, named("nobody")).await,
        FailedKind::NotFound
    );
}

#[tokio::test]
async fn operator_and_user_write_to_each_other() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let send = |text: &str, reply_to| SendMessage {
        name: "alice".to_owned(),
        text: text.to_owned(),
        reply_to,
    };
    let first = done(&node.node, send("<b>moving</b> on Sunday", None))
        .await
        .id;
    let retrieve = || async {
        let path = "peergos/v0/server-message/retrieve";
        let target = alice.signed(path, NOW);
        ServerMessages::decode(&node.ok(&target, "").await)
            .unwrap()
            .0
    };
    let waiting = retrieve().await;
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].kind, MessageKind::FromServer);
    assert_eq!(waiting[0].body, "<b>moving</b> on Sunday");

    let answer = ServerMessage {
        id: NO_ID,
        kind: MessageKind::FromUser,
        sent_epoch_millis: NOW,
        body: "thank you".to_owned(),
        reply_to: Some(first),
        is_dismissed: false,
    };
    let signed = alice.identity.secret().sign_attached(&answer.encode());
    node.ok("peergos/v0/server-message/send?username=alice", signed)
        .await;
    assert!(retrieve().await.is_empty(), "the user had the last word");
    let all = ListMessages {
        name: "alice".to_owned(),
    };
    let (items, _) = ask(&node.node, all).await;
    assert_eq!(items.len(), 2);
    assert_eq!(items[1]["is_from_user"], true);
    let id = items[1]["id"].as_i64().unwrap();
    done(&node.node, send("you are welcome", Some(id))).await;
    assert_eq!(retrieve().await.len(), 3);

    assert_eq!(
        refused(&node.node, send("", None)).await,
        FailedKind::NotAllowed
    );
    let long = "x".repeat(4097);
    assert_eq!(
        refused(&node.node, send(&long, None)).await,
        FailedKind::NotAllowed
    );
    assert_eq!(
        refused(&node.node, send("x", Some(99))).await,
        FailedKind::Refused
    );
}

#[tokio::test]
async fn the_waiting_list_is_printed_and_shortened() {
    let node = TestNode::with(Config {
        waiting_list: true,
        ..config()
    })
    .await;
    for address in ["b@example.org", "a@example.org"] {
        node.ok(&format!("peergos/v0/admin/waitlist?email={address}"), "")
            .await;
    }
    let (items, listed) = ask(&node.node, ListWaiting {}).await;
    assert_eq!(listed.unwrap().addresses, 2);
    assert_eq!(items[0]["address"], "a@example.org");
    let remove = || RemoveWaiting {
        address: "a@example.org".to_owned(),
    };
    done(&node.node, remove()).await;
    assert_eq!(refused(&node.node, remove()).await, FailedKind::NotFound);
}

#[tokio::test]
async fn accounts_are_described_without_their_secrets() {
    let node = TestNode::with(Config {
        admins: ["alice".to_owned()].into(),
        ..config()
    })
    .await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let (items, listed) = ask(&node.node, ListUsers {}).await;
    assert_eq!(listed.unwrap().users, 1, "the name table is no account");
    assert_eq!(items[0]["is_admin"], true);
    let show = ShowUser {
        name: "alice".to_owned(),
    };
    let details = done(&node.node, show).await;
    assert!(details.can_log_in);
    assert_eq!(details.mirror_tokens, 1);
    assert_eq!(details.writing_keys.len(), 2);
    assert_eq!(details.identity, Some(alice.owner().to_string()));
    let text = serde_json::to_string(&details).unwrap();
    assert!(!text.contains(&to_hex(alice.mirror.secret())));
    assert!(details.blocks > 0 && details.block_bytes > 0);
}
