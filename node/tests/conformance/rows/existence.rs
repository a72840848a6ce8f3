//! LOG-8, SC-4, LNK-3: what the way to a refusal tells of what there is.
//!
//! Work is compared, not time: the same rows are read, the same signature is verified, and the answer is held back for
//! as long. That a single comparison takes as long for every wrong value is SC-3's matter (`pki/tests/timing.rs`).

use std::sync::Arc;

use champ::{
    Cid,
    access::{Bat, BatWithId},
    cbor::Record as _,
};
use node::{
    Config, Node,
    clock::ManualClock,
    store::{MemoryStore, MetaStore as _, tables},
};
use pki::{keys::SecretSigningKey, wire::block_group::BlockFormat};

use crate::{
    conformance::{
        account::{Account, private_raw},
        harness::{Answer, NOW, TestNode, config},
    },
    gc::hooked::Hooked,
};

const WRONG: &str = "Incorrect username or password";
const UNKNOWN: &str = "No value present";

async fn watched() -> (TestNode, Arc<Hooked>) {
    let clock = Arc::new(ManualClock::at(NOW));
    let store = Hooked::new(Arc::new(MemoryStore::new()));
    let config = Config {
        clock: clock.clone(),
        ..config()
    };
    let node = Node::with_store(config, store.clone()).await.unwrap();
    (TestNode::of(node, clock), store)
}

/// An answer, with the rows that were read for it and how long it was held back.
async fn way(
    store: &Hooked,
    ask: impl Future<Output = Answer>,
) -> (Answer, Vec<&'static str>, u64) {
    store.tables_read.lock().clear();
    let before = tokio::time::Instant::now();
    let answer = ask.await;
    let waited = before.elapsed().as_secs();
    (
        answer,
        std::mem::take(&mut store.tables_read.lock()),
        waited,
    )
}

#[tokio::test(start_paused = true)]
async fn log_8_an_unknown_name_takes_the_path_of_a_wrong_password() {
    let (node, store) = watched().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let nobody = Account::new("nobody", 8);
    let guessed = SecretSigningKey::from_seed(&[99; 32]);
    // What is worked out after a sign-up is done when this is answered.
    alice.usage(&node, "").await;
    // What is remembered of alice from now on.
    alice.get_login(&node, &alice.login, NOW, "").await;
    for attempt in 0..14 {
        let known = way(&store, alice.get_login(&node, &guessed, NOW, "")).await;
        let unknown = way(&store, nobody.get_login(&node, &guessed, NOW, "")).await;
        assert_eq!(known.0.message(), WRONG);
        assert_eq!(unknown.0.message(), UNKNOWN);
        // As long as nobody waits, nothing else is done meanwhile.
        if attempt < 10 {
            assert_eq!(known.1, unknown.1, "rows read, attempt {attempt}");
        }
        assert!(known.1.contains(&tables::LOGINS.name()), "{:?}", known.1);
        assert_eq!(known.2, unknown.2, "seconds held back, attempt {attempt}");
        assert_eq!(known.2 > 0, attempt >= 10);
    }
    // The signature is verified, and the time looked at, before anybody learns of the name.
    let forged = |name: &str| {
        let time = alice.time(NOW);
        let author = champ::text::to_hex(&guessed.public().encode());
        format!("peergos/v0/login/getLogin?username={name}&author={author}&auth={time}")
    };
    for name in ["alice", "nobody"] {
        assert_eq!(node.refused(&forged(name), "").await, "Invalid signature");
    }
    for who in [&alice, &nobody] {
        let stale = who.get_login(&node, &guessed, NOW - 90_000_000, "").await;
        assert_eq!(stale.message(), "Stale auth time, is your clock accurate?");
    }
    // Nobody can have such a name, so there is nothing to hide.
    let long = "x".repeat(4_000);
    assert_eq!(node.refused(&forged(&long), "").await, UNKNOWN);
}

/// That a block is there is public (Spec: 06 §5.1). What a refusal must not tell is how near a token was.
#[tokio::test]
async fn sc_4_every_refused_token_takes_the_same_path_and_absence_does_not_depend_on_one() {
    let (node, store) = watched().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let bat = Bat::from_secret([5; 32]);
    let block = private_raw(&bat, Some(&alice.mirror), b"cipher text");
    let blocks = [block.clone()];
    let put = alice.put(&node, &alice.home, BlockFormat::Raw, &blocks);
    assert_eq!(put.await.status, 200);
    let almost = |byte: usize| {
        let mut secret = [5; 32];
        secret[byte] ^= 1;
        Bat::from_secret(secret)
    };
    let claimed = |bat: Bat| BatWithId {
        bat,
        id: Bat::from_secret([5; 32]).calculated_id(),
    };
    let tokens = [
        None,
        Some(Bat::from_secret([6; 32]).with_calculated_id()),
        Some(claimed(almost(0))),
        Some(claimed(almost(31))),
        Some(claimed(Bat::from_secret([6; 32]))),
    ];
    let (there, absent) = (Cid::of_raw(&block), Cid::of_raw(b"absent"));
    alice.usage(&node, "").await;
    let mut seen = Vec::new();
    for token in &tokens {
        let get = |cid: &Cid| match token {
            None => alice.get_target(cid),
            Some(token) => format!("{}&bat={}", alice.get_target(cid), token.to_text()),
        };
        let refused = way(&store, node.post(&get(&there), "")).await;
        let missing = way(&store, node.post(&get(&absent), "")).await;
        assert_eq!(refused.0.message(), "Unauthorised!");
        assert_eq!(missing.0.status, 200);
        assert_eq!(
            refused.1, missing.1,
            "no row is read for the one and not for the other"
        );
        seen.push((refused, missing));
    }
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:?}");
    // The same kind of answer for a user who is not there at all, with every token.
    let nobody = Account::new("nobody", 8);
    let unknown = node.refused(&nobody.get_target(&there), "").await;
    let token = tokens[1].as_ref().unwrap().to_text();
    let with_token = format!("{}&bat={token}", nobody.get_target(&there));
    assert_eq!(node.refused(&with_token, "").await, unknown);
}

#[tokio::test]
async fn lnk_3_counts_are_for_who_has_the_mirror_token() {
    let (node, store) = watched().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let bob = Account::sign_up(&node, "bob", 8).await;
    let counts = |name: &str, token: &BatWithId| {
        format!(
            "api/v0/link/counts?after=0&bat={}&owner={name}",
            token.to_text()
        )
    };
    let right = alice.mirror_with_id();
    assert_eq!(node.post(&counts("alice", &right), "").await.status, 200);
    let almost = |byte: usize| {
        let mut secret = *alice.mirror.secret();
        secret[byte] ^= 1;
        BatWithId {
            bat: Bat::from_secret(secret),
            id: right.id.clone(),
        }
    };
    let other_id = BatWithId {
        bat: alice.mirror.clone(),
        id: bob.mirror_with_id().id,
    };
    for wrong in [almost(0), almost(31), bob.mirror_with_id(), other_id] {
        let message = node.refused(&counts("alice", &wrong), "").await;
        assert_eq!(message, "Unauthorized!");
    }
    let without = "api/v0/link/counts?after=0&owner=alice";
    node.refused(without, "").await;
    // Nobody registered a token: refused with any, also the empty one, and the node goes on.
    let none = node::store::Batch::new().remove(tables::BATS, "alice");
    let done = store.commit(none).await.unwrap();
    assert!(done.is_committed());
    let empty = Bat::from_secret([0; 32]).with_calculated_id();
    for token in [&right, &empty] {
        let message = node.refused(&counts("alice", token), "").await;
        assert_eq!(message, "Unauthorized!");
    }
    // Only the newest counts.
    assert_eq!(
        node.post(&counts("bob", &bob.mirror_with_id()), "")
            .await
            .status,
        200
    );
    super::still_serves(&node, &alice, 1).await;
}
