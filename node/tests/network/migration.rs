//! Moving house: one home at any time, nothing lost, whatever breaks in between.

use bytes::Bytes;
use champ::cbor::{Map, Record as _, Value};
use node::{
    operator::{mirror::RemoveMirror, removal::RemoveUser},
    store::{Batch, MetaStore as _, Table, tables},
};
use pki::{
    claim::Date,
    wire::{
        Body as _,
        mirror::{FROM_THE_BEGINNING, MigrateRequest},
        snapshot::UserSnapshot,
    },
};

use super::world::{Fault, Member, Net, contents, message};
use crate::conformance::{
    account::Account,
    harness::{Answer, NOW},
};

const MIGRATE: &str = "peergos/v0/core/migrateUser";

async fn request(
    account: &Account,
    at: &Member,
    source: &Member,
    target: &Member,
) -> MigrateRequest {
    MigrateRequest {
        username: account.name.clone(),
        chain: account.moved_to(at, target).await,
        current_server: source.node.node.id().clone(),
        bat: Some(account.mirror_with_id()),
        after_epoch_seconds: FROM_THE_BEGINNING,
        usage_bytes: 1000,
        commit: true,
    }
}

async fn migrate(target: &Member, request: &MigrateRequest) -> Answer {
    target.node.post(MIGRATE, request.to_body()).await
}

/// A follow request as any server stores it.
fn sealed_request() -> Vec<u8> {
    let mut map = Map::new();
    map.insert("f", vec![7u8; 40]);
    map.insert("k", vec![Value::Int(1), Value::from(&[9u8; 32])]);
    Value::Map(map).encode()
}

struct Town {
    net: Net,
    authority: Member,
    source: Member,
    target: Member,
    alice: Account,
}

impl Town {
    async fn new() -> Self {
        let net = Net::new();
        let authority = net.authority().await;
        let (source, target) = (net.join(&authority).await, net.join(&authority).await);
        let alice = Account::sign_up(&source.node, "alice", 1).await;
        target.sync().await;
        Self {
            net,
            authority,
            source,
            target,
            alice,
        }
    }

    /// Everything settles: links heal, every node looks at everything.
    async fn settle(&mut self) {
        self.net.links.heal();
        for _ in 0..3 {
            for member in [&self.authority, &self.source, &self.target] {
                let _ = member
                    .run(node::operator::names::ShowNames { sync: true })
                    .await;
                let _ = member.mirror().await;
            }
        }
    }
}

/// The home that was left has a copy, from which it answers peers. Its answer says so, and who has not looked at the
/// table of names since is shown what is at the new home.
#[tokio::test]
async fn who_has_not_heard_of_a_move_is_shown_nothing_old() {
    let town = Town::new().await;
    let Town {
        net,
        authority,
        source,
        target,
        alice,
    } = &town;
    let third = net.join(authority).await;
    let first = alice.write(&source.node, &contents(1, 4, 4)).await.unwrap();
    third.sync().await;
    let current = alice.current(&third.node).await.unwrap();
    assert_eq!(current.updated(), Some(&first.root));
    let request = request(alice, target, source, target).await;
    let answer = migrate(target, &request).await;
    assert_eq!(answer.status, 200, "{}", message(&answer));
    let second = alice.write(&target.node, &contents(2, 4, 4)).await.unwrap();
    net.clock.advance(2_000);
    assert_eq!(
        third.chain("alice").await.home(),
        Some(source.node.node.id())
    );
    let current = alice.current(&third.node).await.unwrap();
    assert_eq!(current.updated(), Some(&second.root));
    assert_eq!(
        third.chain("alice").await.home(),
        Some(target.node.node.id())
    );
    // The same of a node that cannot ask the authority: what it has is all it can show, and it shows that.
    let fourth = net.join(authority).await;
    fourth.sync().await;
    let old = pki::chain::ClaimChain::single(alice.link(&source.node));
    let batch = Batch::new().put(tables::CHAINS, b"alice".to_vec(), old.encode());
    assert!(fourth.store.commit(batch).await.unwrap().is_committed());
    net.links.cut(&fourth, authority);
    net.clock.advance(2_000);
    let current = alice.current(&fourth.node).await.unwrap();
    assert_eq!(current.updated(), Some(&first.root));
}

#[tokio::test]
async fn an_account_moves_with_everything_and_goes_on() {
    let mut town = Town::new().await;
    let Town {
        net,
        source,
        target,
        alice,
        ..
    } = &town;
    let before = alice
        .write(&source.node, &contents(1, 10, 10))
        .await
        .unwrap();
    let sealed = sealed_request();
    let follow = format!("peergos/v0/social/followRequest?owner={}", alice.owner());
    assert_eq!(source.node.ok(&follow, sealed.clone()).await, [1]);
    let request = request(alice, target, source, target).await;
    let answer = migrate(target, &request).await;
    assert_eq!(answer.status, 200, "{}", message(&answer));
    let snapshot = UserSnapshot::from_body(&answer.body.into()).unwrap();
    assert_eq!(snapshot.pointers.len(), 2);
    assert_eq!(
        target.chain("alice").await.home(),
        Some(target.node.node.id())
    );
    assert!(alice.is_complete(target, &before).await);
    let login = alice.get_login(&target.node, &alice.login, NOW, "").await;
    assert_eq!(login.status, 200, "{}", message(&login));
    let listed = format!(
        "peergos/v0/social/getFollowRequests?owner={}&auth={}",
        alice.owner(),
        alice.time(NOW)
    );
    let listed = target.node.ok(&listed, "").await;
    assert!(listed.windows(sealed.len()).any(|window| window == sealed));

    let next = alice
        .write(&target.node, &contents(2, 10, 1))
        .await
        .unwrap();
    assert_eq!(next.sequence, before.sequence + 1);
    // Whoever still asks the old node is passed on, and finds the new state.
    let third = alice
        .write(&source.node, &contents(3, 10, 1))
        .await
        .unwrap();
    assert!(alice.is_complete(target, &third).await);
    // Said again, it is no error and changes nothing: the answer may have been lost.
    net.links.reset(None);
    town.settle().await;
    let Town {
        source,
        target,
        alice,
        ..
    } = &town;
    assert!(alice.is_complete(target, &third).await);
    // The old home is an ordinary mirror now.
    assert_eq!(source.mirror().await.failed, 0);
    assert!(alice.is_complete(source, &third).await);
    // And the account can move back.
    let back = self::request(alice, source, target, source).await;
    let answer = migrate(source, &back).await;
    assert_eq!(answer.status, 200, "{}", message(&answer));
    let home = alice
        .write(&source.node, &contents(4, 10, 1))
        .await
        .unwrap();
    assert!(alice.is_complete(source, &home).await);
}

#[tokio::test]
async fn what_is_no_move_is_refused_in_words() {
    let town = Town::new().await;
    let Town {
        source,
        target,
        alice,
        authority,
        ..
    } = &town;
    alice.write(&source.node, &contents(1, 2, 2)).await.unwrap();
    let good = request(alice, target, source, target).await;
    let refused = async |at: &Member, request: MigrateRequest| {
        let answer = migrate(at, &request).await;
        assert_ne!(answer.status, 200);
        answer.message()
    };
    assert!(
        refused(authority, good.clone())
            .await
            .contains("names another server")
    );
    let stay = MigrateRequest {
        chain: target.chain("alice").await,
        ..good.clone()
    };
    assert!(refused(target, stay).await.contains("names another server"));
    let huge = MigrateRequest {
        usage_bytes: i64::MAX,
        ..good.clone()
    };
    assert!(refused(target, huge).await.contains("Not enough space"));
    let name = "alice".parse().unwrap();
    let id = target.node.node.id().clone();
    let old = target.chain("alice").await;
    let past: Date = "2020-01-01".parse().unwrap();
    let early = old
        .with_last_claim(&name, past, id.clone(), alice.identity.secret())
        .unwrap();
    let early = MigrateRequest {
        chain: early,
        ..good.clone()
    };
    assert!(refused(target, early).await.contains("earlier expiry"));
    let forged = old
        .migrated(&name, id, Account::new("mallory", 9).identity.secret())
        .unwrap();
    let forged = MigrateRequest {
        chain: forged,
        ..good.clone()
    };
    assert!(refused(target, forged).await.contains("Invalid key change"));
    let nobody = MigrateRequest {
        username: "nobody".into(),
        ..good.clone()
    };
    refused(target, nobody).await;

    // Nobody but the node that the claim names gets anything out of the old home.
    let peers = authority.node.node.peers().unwrap();
    let path = format!("/{MIGRATE}");
    for commit in [false, true] {
        let request = MigrateRequest {
            commit,
            ..good.clone()
        };
        let answer = node::p2p::ask(peers, &source.id, &path, request.to_body(), 8 << 20).await;
        assert!(answer.is_err());
    }
    assert_eq!(authority.chain("alice").await, old);
    alice.write(&source.node, &contents(2, 2, 2)).await.unwrap();
}

/// Runs a move in which the message of one number is lost, perhaps together with a node; true when none was.
async fn broken_move(number: u64, is_answer: bool, killed: Option<bool>) -> bool {
    let mut town = Town::new().await;
    let last = town
        .alice
        .write(&town.source.node, &contents(1, 3, 3))
        .await
        .unwrap();
    let request = request(&town.alice, &town.target, &town.source, &town.target).await;
    let fault = if is_answer {
        Fault::Answer(number)
    } else {
        Fault::Request(number)
    };
    town.net.links.reset(Some(fault));
    let answer = migrate(&town.target, &request).await;
    let is_through = town.net.links.calls() <= number;
    match killed {
        Some(true) => town.net.restart(&mut town.source).await,
        Some(false) => town.net.restart(&mut town.target).await,
        None => {}
    }
    let what = format!("{fault:?} {killed:?}: {}", message(&answer));
    // Whatever is accepted in this state is never lost.
    let mut newest = last;
    for (version, member) in [(2, &town.source), (3, &town.target)] {
        town.net.links.heal();
        if let Ok(written) = town
            .alice
            .write(&member.node, &contents(version, 3, 3))
            .await
        {
            newest = written;
        }
    }
    // The user, or the node itself, goes on until it is done.
    for _ in 0..3 {
        town.settle().await;
        let answer = migrate(&town.target, &request).await;
        if answer.status == 200 {
            break;
        }
    }
    town.settle().await;
    let home = town.authority.chain("alice").await;
    assert_eq!(home.home(), Some(town.target.node.node.id()), "{what}");
    for member in [&town.source, &town.target] {
        assert_eq!(member.chain("alice").await, home, "{what}");
    }
    let current = town.alice.current(&town.target.node).await.unwrap();
    assert_eq!(current.sequence(), Some(newest.sequence), "{what}");
    assert!(
        town.alice.is_complete(&town.target, &newest).await,
        "{what}"
    );
    let next = town
        .alice
        .write(&town.target.node, &contents(9, 3, 3))
        .await;
    let next = next.unwrap_or_else(|answer| panic!("{what}: {}", message(&answer)));
    assert_eq!(next.sequence, newest.sequence + 1, "{what}");
    is_through
}

#[tokio::test]
async fn p2p_9_a_move_that_breaks_at_any_message_ends_with_one_home_and_loses_nothing() {
    for number in 0.. {
        let killed = [None, Some(true), Some(false)][(number % 3) as usize];
        let mut is_through = true;
        for is_answer in [false, true] {
            is_through &= broken_move(number, is_answer, killed).await;
        }
        if is_through {
            assert!(number > 15, "{number}");
            break;
        }
    }
    // The last messages decide: each of them with every node killed.
    for number in 14..24 {
        for killed in [None, Some(true), Some(false)] {
            broken_move(number, true, killed).await;
        }
    }
}

impl Town {
    /// Moves alice, who must arrive.
    async fn moves(&self, from: &Member, to: &Member) {
        let request = request(&self.alice, to, from, to).await;
        let answer = migrate(to, &request).await;
        assert_eq!(answer.status, 200, "{}", message(&answer));
    }
}

/// Rows of alice in a table of a node, by what they begin with.
async fn rows(member: &Member, table: Table, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
    member.store.scan(table, prefix, None, 100).await.unwrap()
}

/// Whoever was removed from a node has no home there. Moving there ends that.
#[tokio::test]
async fn an_account_moves_back_to_a_node_that_has_removed_its_copy() {
    let town = Town::new().await;
    let Town {
        source,
        target,
        alice,
        ..
    } = &town;
    let last = alice.write(&source.node, &contents(1, 3, 3)).await.unwrap();
    town.moves(source, target).await;
    let name = || "alice".to_owned();
    let removed = source.run(RemoveMirror { user: name() }).await.unwrap();
    assert!(removed.blocks > 0);
    assert!(!alice.is_complete(source, &last).await);
    town.moves(target, source).await;
    assert!(alice.is_complete(source, &last).await);
    let next = alice.write(&source.node, &contents(2, 3, 3)).await.unwrap();
    assert_eq!(next.sequence, last.sequence + 1);
}

/// The old home has published the move, and its answer was lost: what it has is nowhere else.
#[tokio::test]
async fn what_a_move_still_needs_is_not_removed() {
    let mut number = 0;
    let (mut town, last) = loop {
        let town = Town::new().await;
        let contents = contents(1, 3, 3);
        let last = town
            .alice
            .write(&town.source.node, &contents)
            .await
            .unwrap();
        let request = request(&town.alice, &town.target, &town.source, &town.target).await;
        town.net.links.reset(Some(Fault::Answer(number)));
        let answer = migrate(&town.target, &request).await;
        assert_ne!(answer.status, 200, "no message decides");
        if town.source.chain("alice").await == request.chain {
            break (town, last);
        }
        number += 1;
    };
    let name = || "alice".to_owned();
    town.net.links.heal();
    town.net.links.cut(&town.source, &town.target);
    let refused = town.source.run(RemoveMirror { user: name() }).await;
    assert!(refused.unwrap_err().message.contains("is moving"));
    let user = RemoveUser {
        name: name(),
        force: false,
    };
    let refused = town.target.run(user.clone()).await;
    assert!(refused.is_err(), "not where it arrives either");
    let refused = town.source.run(user).await;
    assert!(refused.unwrap_err().message.contains("is moving"));
    town.settle().await;
    assert!(town.alice.is_complete(&town.target, &last).await);
    town.source
        .run(RemoveMirror { user: name() })
        .await
        .unwrap();
    assert!(!town.alice.is_complete(&town.source, &last).await);
    assert!(town.alice.is_complete(&town.target, &last).await);
}

#[tokio::test]
async fn a_move_that_cannot_be_published_stops_no_writes() {
    let town = Town::new().await;
    let Town {
        net,
        authority,
        source,
        target,
        alice,
    } = &town;
    let request = request(alice, target, source, target).await;
    for (version, cut) in [(1, target), (2, source)] {
        net.links.cut(authority, cut);
        let answer = migrate(target, &request).await;
        assert!(
            answer
                .message()
                .contains("name authority cannot be reached"),
            "{}",
            answer.message()
        );
        let written = alice.write(&source.node, &contents(version, 2, 2)).await;
        assert!(written.is_ok());
        net.links.heal();
    }
    town.moves(source, target).await;
}

/// The node that is moved to had the account before: what it remembers of that time is not what is so now.
#[tokio::test]
async fn what_a_node_has_kept_from_before_is_brought_up_to_date_by_a_move() {
    let town = Town::new().await;
    let Town {
        source,
        target,
        alice,
        ..
    } = &town;
    alice.write(&source.node, &contents(1, 2, 2)).await.unwrap();
    let follow = format!("peergos/v0/social/followRequest?owner={}", alice.owner());
    assert_eq!(source.node.ok(&follow, sealed_request()).await, [1]);
    // A clock that was ahead: used once, a day from now.
    let uses = |count: i64, seconds: i64| Value::List(vec![count.into(), seconds.into()]).encode();
    let link = [b"alice\0".as_slice(), &7u32.to_be_bytes()].concat();
    let used = |member: &Member, count, seconds| {
        let batch = Batch::new().put(tables::LINK_COUNTS, link.clone(), uses(count, seconds));
        let store = std::sync::Arc::clone(&member.store);
        async move { assert!(store.commit(batch).await.unwrap().is_committed()) }
    };
    let now = NOW / 1000;
    used(source, 1, now + 86_400).await;
    town.moves(source, target).await;
    // There the request is answered, and the link used twice more.
    let owner = alice.identity.hash().cid().to_bytes();
    let waiting = rows(target, tables::FOLLOW_REQUESTS, &owner).await;
    assert_eq!(waiting.len(), 1);
    let batch = Batch::new().remove(tables::FOLLOW_REQUESTS, waiting[0].0.to_vec());
    assert!(target.store.commit(batch).await.unwrap().is_committed());
    used(target, 3, now).await;
    town.moves(target, source).await;
    assert_eq!(rows(source, tables::FOLLOW_REQUESTS, &owner).await, []);
    let counts = rows(source, tables::LINK_COUNTS, b"alice\0").await;
    assert_eq!(counts[0].1, uses(3, now));
}
