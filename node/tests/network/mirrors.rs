//! Copies of users: complete, incremental, verified, taken over.

use node::operator::{
    mirror::{AddMirror, ListMirrors, MirrorNode, RemoveMirror},
    upkeep::Repair,
};
use pki::wire::{
    Body as _,
    signup::{SentLinks, UpdateChainRequest},
};

use super::world::{Fault, Net, contents, message};
use crate::conformance::account::Account;

#[tokio::test]
async fn a_copy_is_complete_incremental_and_resumes_without_reading_again() {
    let net = Net::new();
    let home = net.authority().await;
    let mirror = net.join(&home).await;
    let alice = Account::sign_up(&home.node, "alice", 1).await;
    let first = alice.write(&home.node, &contents(1, 20, 1)).await.unwrap();
    mirror.sync().await;
    let shown = mirror.keep(&alice, &home).await;
    assert!(shown.is_allowed && shown.can_log_in);

    // The link breaks in the middle of the first pass; what came stays.
    net.links.reset(Some(Fault::Request(12)));
    assert_eq!(mirror.mirror().await.failed, 1);
    let before = net.links.blocks();
    assert!(before > 5);
    net.links.reset(None);
    let run = mirror.mirror().await;
    assert_eq!((run.in_step, run.failed), (1, 0));
    // 28 blocks in all; those that were on their way when the link broke are asked for again.
    let rest = net.links.blocks();
    assert!((28..=36).contains(&(before + rest)), "{before} {rest}");
    assert!(alice.is_complete(&mirror, &first).await);

    // Nothing changed: nothing is read.
    net.links.reset(None);
    assert_eq!(mirror.mirror().await.in_step, 1);
    assert_eq!(net.links.blocks(), 0);

    // One part changed: root, tree, one half, the part.
    let second = alice.write(&home.node, &contents(2, 20, 1)).await.unwrap();
    net.links.reset(None);
    mirror.mirror().await;
    assert_eq!(net.links.blocks(), 4);
    assert!(alice.is_complete(&mirror, &second).await);

    // A collection keeps all of it, and takes what was replaced.
    net.clock.advance(90_000_000);
    let options = node::gc::CollectOptions {
        now: true,
        ..Default::default()
    };
    let report = mirror
        .node
        .node
        .collect_garbage(&options, &|_| ())
        .await
        .unwrap();
    assert_eq!(report.alarms, 0);
    assert!(alice.is_complete(&mirror, &second).await);
    assert!(!mirror.has(&alice, &first.parts[0]).await);
    net.links.reset(None);
    assert_eq!(mirror.mirror().await.failed, 0);
    assert_eq!(net.links.blocks(), 0);

    let removed = mirror
        .run(RemoveMirror {
            user: "alice".into(),
        })
        .await
        .unwrap();
    assert!(removed.blocks > 0);
    assert_eq!(mirror.run(ListMirrors::default()).await.unwrap().copies, 0);
    assert!(
        home.run(RemoveMirror {
            user: "alice".into()
        })
        .await
        .is_err()
    );
}

#[tokio::test]
async fn a_copy_is_read_by_peers_and_written_by_nobody() {
    let net = Net::new();
    let home = net.authority().await;
    let mirror = net.join(&home).await;
    let alice = Account::sign_up(&home.node, "alice", 1).await;
    mirror.sync().await;
    mirror.keep(&alice, &home).await;
    assert_eq!(mirror.mirror().await.in_step, 1);
    net.kill(&home);
    let refused = alice
        .write(&mirror.node, &contents(1, 2, 2))
        .await
        .unwrap_err();
    assert!(refused.status >= 400, "{}", message(&refused));
    let data = alice.login_data(&alice.login, 9);
    assert!(alice.set_login(&mirror.node, &data).await.status >= 400);
}

#[tokio::test]
async fn rel_25_a_mirror_takes_over_when_the_home_is_lost() {
    let net = Net::new();
    let authority = net.authority().await;
    let home = net.join(&authority).await;
    let mirror = net.join(&authority).await;
    let alice = Account::sign_up(&home.node, "alice", 1).await;
    let last = alice.write(&home.node, &contents(1, 10, 10)).await.unwrap();
    mirror.sync().await;
    mirror.keep(&alice, &home).await;
    assert_eq!(mirror.mirror().await.in_step, 1);
    net.kill(&home);

    // Logging in, and reading everything, works at the copy.
    let answer = alice.get_login(
        &mirror.node,
        &alice.login,
        crate::conformance::harness::NOW,
        "",
    );
    let answer = answer.await;
    assert_eq!(answer.status, 200, "{}", message(&answer));
    assert!(alice.is_complete(&mirror, &last).await);
    assert!(alice.is_readable(&mirror, &last).await);

    let chain = alice.moved_to(&mirror, &mirror).await;
    let request = UpdateChainRequest {
        username: "alice".into(),
        chain: SentLinks::new(chain.clone()),
        proof: pki::proof_of_work::ProofOfWork::empty().encode().into(),
        token: String::new(),
    };
    use champ::cbor::Record as _;
    let target = "peergos/v0/core/updateChain";
    assert_eq!(mirror.node.ok(target, request.to_body()).await, [1]);
    assert_eq!(authority.chain("alice").await, chain);

    // It is the home at once.
    let next = alice
        .write(&mirror.node, &contents(2, 10, 3))
        .await
        .unwrap();
    assert_eq!(next.sequence, last.sequence + 1);
    assert!(alice.is_complete(&mirror, &next).await);
}

#[tokio::test]
async fn int_15_p2p_10_a_mirror_believes_nothing_and_stops_at_its_quota() {
    use node::operator::quota::SetQuota;
    let net = Net::new();
    let home = net.authority().await;
    let mirror = net.join(&home).await;
    let alice = Account::sign_up(&home.node, "alice", 1).await;
    alice
        .write(&home.node, &contents(1, 300, 300))
        .await
        .unwrap();
    mirror.sync().await;
    mirror.keep(&alice, &home).await;
    let small = SetQuota {
        name: "alice".into(),
        bytes: (1 << 20) + 1,
    };
    mirror.run(small).await.unwrap();
    assert_eq!(mirror.mirror().await.failed, 1);
    let shown = mirror.keep_shown("alice").await;
    assert!(shown.error.unwrap().contains("is full"));
    let more = AddMirror {
        user: "alice".to_owned(),
        from: None,
        quota_bytes: Some(1 << 30),
        token: None,
    };
    let shown = mirror.run(more).await.unwrap();
    assert_eq!(shown.error, None, "that was with less space");
    net.links.reset(None);
    assert_eq!(mirror.mirror().await.in_step, 1);
    // What came before the quota ended it is not fetched again.
    assert!(net.links.blocks() < 200, "{}", net.links.blocks());
}

#[tokio::test]
async fn rel_6_damaged_blocks_are_repaired_from_the_mirror_and_the_home() {
    let net = Net::new();
    let home = net.authority().await;
    let mirror = net.join(&home).await;
    let alice = Account::sign_up(&home.node, "alice", 1).await;
    let version = alice.write(&home.node, &contents(1, 10, 10)).await.unwrap();
    mirror.sync().await;
    mirror.keep(&alice, &home).await;
    mirror.mirror().await;
    let lose = async |member: &super::world::Member| {
        use node::store::BlockStore as _;
        let partition = node::store::Partition::new("u-alice").unwrap();
        let listed = member
            .store
            .list_blocks(&partition, None, 1000)
            .await
            .unwrap();
        let lost = listed
            .into_iter()
            .find(|info| info.cid == version.parts[3])
            .unwrap();
        let candidates = vec![(lost.cid, lost.generation)];
        let partition = &partition;
        member
            .store
            .close_transaction(partition, &node::store::TransactionId::new("t1").unwrap())
            .await
            .unwrap();
        let deleted = member
            .store
            .delete_blocks(partition, candidates)
            .await
            .unwrap();
        assert_eq!(deleted.removed.blocks, 1);
        assert!(!alice.is_complete(member, &version).await);
        assert!(!member.has(&alice, &version.parts[3]).await);
    };
    lose(&mirror).await;
    let repair = Repair {
        from_home: true,
        ..Repair::default()
    };
    let done = mirror.run(repair).await.unwrap().repaired;
    assert_eq!((done.healed, done.lost.len()), (1, 0));
    assert!(alice.is_complete(&mirror, &version).await);

    lose(&home).await;
    let repair = Repair {
        from_mirror: Some(mirror.id.to_string()),
        ..Repair::default()
    };
    let done = home.run(repair).await.unwrap().repaired;
    assert_eq!((done.healed, done.lost.len()), (1, 0));
    assert!(alice.is_complete(&home, &version).await);
}

#[tokio::test]
async fn a_whole_node_is_mirrored_by_its_token() {
    let net = Net::new();
    let token = champ::access::Bat::from_secret([9; 32]);
    let of_node = token.clone();
    let home = net
        .add(None, move |config| config.instance_bat = Some(of_node))
        .await;
    let mirror = net.join(&home).await;
    let mut accounts = Vec::new();
    for seed in 1..=12 {
        let account = Account::sign_up(&home.node, &format!("user{seed:02}"), seed).await;
        let version = account
            .write(&home.node, &contents(seed.into(), 4, 4))
            .await;
        accounts.push((account, version.unwrap()));
    }
    mirror.sync().await;
    let whole = |token: &champ::access::Bat| MirrorNode {
        from: Some(home.id.to_string()),
        token: token.to_text(),
        quota_bytes: Some(1 << 30),
    };
    let wrong = champ::access::Bat::from_secret([8; 32]);
    mirror.run(whole(&wrong)).await.unwrap();
    mirror.mirror().await;
    let listed = mirror.run(ListMirrors::default()).await.unwrap();
    assert!(listed.node.unwrap().error.unwrap().contains("Unauthorized"));
    assert_eq!(listed.copies, 0);
    mirror.run(whole(&token)).await.unwrap();
    let run = mirror.mirror().await;
    assert_eq!(run.failed, 0);
    for (account, version) in &accounts {
        assert!(
            account.is_complete(&mirror, version).await,
            "{}",
            account.name
        );
    }
    let listed = mirror.run(ListMirrors::default()).await.unwrap();
    assert_eq!(listed.copies, 12);
    assert_eq!(listed.node.unwrap().users, 12);
    net.links.reset(None);
    mirror.mirror().await;
    assert_eq!(net.links.blocks(), 0);
}
