//! Accounts that an operator removes (Spec: 12 §8).

use std::{future::Future, pin::pin, sync::Arc, task::Poll};

use node::{
    Config, Node,
    clock::ManualClock,
    operator::{FailedKind, Report, removal::RemoveUser},
    store::{DiskOptions, DiskStore, FreeFloor, MemoryStore, Partition, Store},
};
use pki::wire::{Body as _, block_group::BlockFormat};

use super::{ListUsers, SetQuota, ask, ask_for_space, done, refused};
use crate::conformance::{
    account::{Account, cbor_block, update},
    harness::{NOW, TestNode, config},
};
use node::operator::Operation as _;

fn remove(name: &str, force: bool) -> RemoveUser {
    RemoveUser {
        name: name.to_owned(),
        force,
    }
}

async fn on(store: Arc<dyn Store>, config: Config) -> TestNode {
    let clock = Arc::new(ManualClock::at(NOW));
    let config = Config {
        clock: clock.clone(),
        ..config
    };
    let node = Node::with_store(config, store).await.unwrap();
    TestNode::of(node, clock)
}

/// Everything a user can leave behind.
async fn used(node: &TestNode, name: &str, seed: u8) -> Account {
    let account = Account::sign_up(node, name, seed).await;
    ask_for_space(node, &account, name, 1 << 30).await;
    let block = cbor_block("unfinished upload", &[]);
    let blocks = [block.bytes().clone()];
    let put = account.put(node, &account.home, BlockFormat::DagCbor, &blocks);
    assert_eq!(put.await.status, 200);
    let target = format!("peergos/v0/social/followRequest?owner={}", account.owner());
    let _ = node.post(&target, vec![1, 2, 3]).await;
    let message = super::SendMessage {
        name: name.to_owned(),
        text: "hello".to_owned(),
        reply_to: None,
    };
    done(&node.node, message).await;
    account
}

/// Returns the tables that still have a row with the name or a key of the account in key or value.
async fn traces_of(store: &dyn Store, account: &Account) -> Vec<&'static str> {
    use node::store::tables as t;
    let needles = [
        account.name.as_bytes().to_vec(),
        account.identity.hash().cid().to_bytes(),
        account.home.hash().cid().to_bytes(),
    ];
    let tables = [
        t::POINTERS,
        t::WRITERS,
        t::LOGINS,
        t::SECOND_FACTORS,
        t::SECURITY_KEYS,
        t::BATS,
        t::QUOTAS,
        t::USAGE,
        t::SPACE_REQUESTS,
        t::FOLLOW_REQUESTS,
        t::LINK_COUNTS,
        t::MESSAGES,
        t::USER_WRITERS,
        t::UNSETTLED,
        t::PAST_LOGINS,
        t::BAT_IDS,
    ];
    let mut found = Vec::new();
    for table in tables {
        let rows = store.scan(table, b"", None, 10_000).await.unwrap();
        let holds = |bytes: &[u8]| {
            needles
                .iter()
                .any(|needle| bytes.windows(needle.len()).any(|window| window == needle))
        };
        if rows.iter().any(|(key, row)| holds(key) || holds(row)) {
            found.push(table.name());
        }
    }
    let partition = Partition::new(&format!("u-{}", account.name)).unwrap();
    if store.block_counts(&partition).await.unwrap().blocks > 0 {
        found.push("blocks");
    }
    found
}

#[tokio::test]
async fn a_home_account_goes_only_by_force_and_leaves_its_name() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let one_user = Config {
        max_users: 2,
        ..config()
    };
    let node = on(store.clone(), one_user).await;
    let alice = used(&node, "alice", 7).await;
    let bob = used(&node, "bob", 8).await;
    assert_eq!(
        refused(&node.node, remove("alice", false)).await,
        FailedKind::Refused
    );
    assert_eq!(
        refused(&node.node, remove("peergos", true)).await,
        FailedKind::Refused
    );
    assert_eq!(
        refused(&node.node, remove("nobody", true)).await,
        FailedKind::NotFound
    );
    // Asking for it waits until it has been accounted.
    bob.usage(&node, "").await;
    let before = traces_of(store.as_ref(), &bob).await;
    assert!(
        traces_of(store.as_ref(), &alice).await.len() >= 10,
        "{before:?}"
    );

    let removed = done(&node.node, remove("alice", true)).await;
    assert!(removed.blocks > 3 && removed.bytes > 0 && removed.writers == 2);
    assert_eq!(traces_of(store.as_ref(), &alice).await, Vec::<&str>::new());
    assert_eq!(
        traces_of(store.as_ref(), &bob).await,
        before,
        "bob keeps all"
    );

    // Nothing can be written for it any more, the claim is still told, and the place is free.
    let not_home = "This server is not the home of the user and does not forward requests";
    let block = [cbor_block("again", &[]).bytes().clone()];
    let put = alice.put(&node, &alice.home, BlockFormat::DagCbor, &block);
    assert_eq!(put.await.message(), not_home);
    let root = alice.home_root().await;
    let pointer = update(&alice.home, None, Some(&root.cid()), Some(1));
    let set = alice.set(&node, &pointer).await;
    assert_ne!((set.status, set.body.as_slice()), (200, [1].as_slice()));
    let login = alice
        .set_login(&node, &alice.login_data(&alice.login, 1))
        .await;
    assert_eq!(login.status, 400);
    assert_eq!(traces_of(store.as_ref(), &alice).await, Vec::<&str>::new());
    let again = Account::new("alice", 9).request(&node).await;
    assert_eq!(
        node.post("peergos/v0/core/signup", again.to_body())
            .await
            .status,
        400
    );
    Account::sign_up(&node, "carol", 10).await;
    let (listed, _) = ask(&node.node, ListUsers {}).await;
    let names: Vec<_> = listed
        .iter()
        .map(|user| user["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["bob", "carol"]);

    // Removing twice changes nothing; giving space again lets the holder of the name in again.
    let twice = done(&node.node, remove("alice", true)).await;
    assert_eq!((twice.blocks, twice.writers), (0, 0));
    let quota = SetQuota {
        name: "alice".to_owned(),
        bytes: 1 << 30,
    };
    done(&node.node, quota).await;
    let put = alice.put(&node, &alice.identity, BlockFormat::DagCbor, &block);
    assert_eq!(put.await.status, 200);
}

/// Polls a future at most `polls` times.
async fn cut_after<T>(polls: usize, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test]
async fn a_removal_that_is_cut_off_anywhere_goes_on() {
    let mut polls = 1;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let mut options = DiskOptions::new(folder.path());
        options.free_floor = FreeFloor::Bytes(0);
        let store: Arc<dyn Store> = Arc::new(DiskStore::open(options).unwrap());
        let node = on(store.clone(), config()).await;
        let alice = used(&node, "alice", 7).await;
        let report = Report::silent();
        let work = remove("alice", true).run(&node.node, &report);
        let is_complete = cut_after(polls, work).await.is_some();
        if !is_complete {
            // A user who is on the way out needs no force any more, once that has begun.
            let first = ask(&node.node, remove("alice", false)).await.1;
            if first.is_err() {
                done(&node.node, remove("alice", true)).await;
            }
        }
        assert_eq!(
            traces_of(store.as_ref(), &alice).await,
            Vec::<&str>::new(),
            "{polls}"
        );
        node.node.close().await.unwrap();
        if is_complete {
            break;
        }
        polls += 1;
    }
    assert!(polls > 5, "it was cut in several places: {polls}");
}
