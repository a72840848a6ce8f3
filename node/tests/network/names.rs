//! The table of names: followed, checked, asked for new names, taken over.

use champ::cbor::Record as _;
use node::{
    Node, OpenError,
    operator::{
        Operation as _, Report,
        names::{ExportNames, FollowNames, ShowNames, TakeOverNames},
    },
};
use pki::wire::{
    Body as _,
    directory::NameRequest,
    signup::{SentLinks, SignupReply, UpdateChainRequest},
};

use super::world::{Fault, Member, Net, contents};
use crate::conformance::{account::Account, harness::TestNode};

const SIGNUP: &str = "peergos/v0/core/signup";

#[tokio::test]
async fn prv_10_look_ups_are_answered_from_the_mirror_and_ask_nobody() {
    let net = Net::new();
    let authority = net.authority().await;
    let follower = net.join(&authority).await;
    for seed in 1..=30 {
        Account::sign_up(&authority.node, &format!("user{seed:02}"), seed).await;
    }
    let shown = follower.sync().await;
    // With `peergos` itself.
    assert_eq!((shown.names, shown.is_authority), (31, false));
    net.links.reset(None);
    for seed in 1..=30 {
        let name = format!("user{seed:02}");
        let chain = follower.chain(&name).await;
        assert_eq!(chain, authority.chain(&name).await);
        assert!(follower.chain(&format!("nobody{seed}")).await.is_empty());
    }
    assert_eq!(net.links.calls(), 0);

    // Incremental: one more name costs its chain and the changed path of the table, not the table.
    Account::sign_up(&authority.node, "another", 40).await;
    net.links.reset(None);
    follower.sync().await;
    assert!(!follower.chain("another").await.is_empty());
    assert!(net.links.blocks() <= 6, "{}", net.links.blocks());
    net.links.reset(None);
    follower.sync().await;
    assert_eq!((net.links.blocks(), net.links.calls()), (0, 2));
}

#[tokio::test]
async fn names_are_given_once_whichever_node_is_asked() {
    let net = Net::new();
    let authority = net.authority().await;
    let (mut one, two) = (net.join(&authority).await, net.join(&authority).await);
    let alice = Account::sign_up(&one.node, "alice", 1).await;
    let version = alice.write(&one.node, &contents(1, 4, 4)).await.unwrap();
    assert!(alice.is_complete(&one, &version).await);
    assert_eq!(authority.chain("alice").await, one.chain("alice").await);

    // The second node does not know of her yet; the authority does.
    let mallory = Account::new("alice", 2);
    let request = mallory.request(&two.node).await;
    let refused = two.node.refused(SIGNUP, request.to_body()).await;
    assert!(refused.contains("User already exists"), "{refused}");
    assert_eq!(two.names().await.waiting_signups, 0);
    two.sync().await;
    assert_eq!(two.chain("alice").await, one.chain("alice").await);
    // The same again is no error: an answer may have been lost.
    let again = one
        .node
        .ok(SIGNUP, alice.request(&one.node).await.to_body())
        .await;
    assert_eq!(again, SignupReply::Accepted.to_body());

    net.restart(&mut one).await;
    assert!(alice.is_complete(&one, &version).await);
}

#[tokio::test]
async fn a_sign_up_survives_lost_messages_and_a_killed_node_at_every_step() {
    for fault in [Fault::Request(0), Fault::Answer(0)] {
        for is_killed in [false, true] {
            let net = Net::new();
            let authority = net.authority().await;
            let mut home = net.join(&authority).await;
            let alice = Account::new("alice", 1);
            let body = alice.request(&home.node).await.to_body();
            net.links.reset(Some(fault));
            let refused = home.node.refused(SIGNUP, body.clone()).await;
            assert!(refused.contains("cannot be reached"), "{refused}");
            assert_eq!(home.names().await.waiting_signups, 1);
            // Nobody else gets through in between at this node.
            let other = Account::new("alice", 2).request(&home.node).await;
            home.node.refused(SIGNUP, other.to_body()).await;
            if is_killed {
                net.restart(&mut home).await;
            }
            net.links.heal();
            home.sync().await;
            assert_eq!(home.names().await.waiting_signups, 0);
            let version = alice.write(&home.node, &contents(1, 2, 2)).await.unwrap();
            assert!(alice.is_complete(&home, &version).await);
            assert_eq!(authority.chain("alice").await, home.chain("alice").await);
            let again = home.node.ok(SIGNUP, body).await;
            assert_eq!(again, SignupReply::Accepted.to_body());
        }
    }
}

/// An authority, another node, and somebody whose sign-up there waits: the request was lost, and by the time it was sent
/// again the authority wanted work that it does not show.
async fn short_of_work() -> (Net, Member, Member, Account) {
    let net = Net::new();
    let authority = net.add(None, |config| config.max_signups_per_day = 1).await;
    let home = net.join(&authority).await;
    let alice = Account::new("alice", 1);
    let body = alice.request(&home.node).await.to_body();
    net.links.reset(Some(Fault::Request(0)));
    home.node.refused(SIGNUP, body).await;
    net.links.heal();
    Account::sign_up(&authority.node, "first", 9).await;
    home.sync().await;
    (net, authority, home, alice)
}

/// Nobody is there any more who could do the work, so the sign-up waits; it keeps its name from nobody meanwhile.
#[tokio::test]
async fn a_sign_up_that_waits_is_made_once_less_work_is_wanted() {
    let (net, authority, mut home, alice) = short_of_work().await;
    assert_eq!(home.names().await.waiting_signups, 1);
    assert!(authority.chain("alice").await.is_empty());
    // Somebody else may have the name who does the work, and is told how much it is. Who gives up takes nothing away.
    let other = Account::new("alice", 2).request(&home.node).await;
    let told = home.node.ok(SIGNUP, other.to_body()).await;
    let reply = SignupReply::from_body(&told.into()).unwrap();
    assert!(matches!(reply, SignupReply::MoreWork(1..)), "{reply:?}");
    assert_eq!(home.names().await.waiting_signups, 1);
    net.restart(&mut home).await;
    home.sync().await;
    assert_eq!(home.names().await.waiting_signups, 1);

    net.clock.advance(2 * 86_400_000);
    home.sync().await;
    assert_eq!(home.names().await.waiting_signups, 0);
    let chain = authority.chain("alice").await;
    assert_eq!(chain.identity(), Some(&alice.owner()));
    let version = alice.write(&home.node, &contents(1, 2, 2)).await.unwrap();
    assert!(alice.is_complete(&home, &version).await);
}

/// As before, and when less work is wanted it is the answer that is lost: the name is taken then, and its account is not
/// made yet. From then on nobody takes the place of the sign-up.
#[tokio::test]
async fn a_sign_up_that_may_have_its_name_gives_way_to_nobody() {
    let (net, mut authority, home, alice) = short_of_work().await;
    net.links.reset(None);
    home.sync().await;
    let paths = net.links.paths.lock().clone();
    let asked = paths.iter().position(|path| path.contains("updateChain"));
    let asked = u64::try_from(asked.unwrap()).unwrap();

    // Now it wants none.
    authority.config.max_signups_per_day = 1000;
    net.restart(&mut authority).await;
    net.links.reset(Some(Fault::Answer(asked)));
    home.sync().await;
    assert_eq!(
        authority.chain("alice").await.identity(),
        Some(&alice.owner())
    );
    assert_eq!(home.names().await.waiting_signups, 1);
    let other = Account::new("alice", 2).request(&home.node).await;
    net.links.reset(Some(Fault::Request(0)));
    let refused = home.node.refused(SIGNUP, other.to_body()).await;
    assert!(
        refused.contains("is waiting for the name authority"),
        "{refused}"
    );
    net.links.heal();
    home.sync().await;
    let version = alice.write(&home.node, &contents(1, 2, 2)).await.unwrap();
    assert!(alice.is_complete(&home, &version).await);
}

/// An authority that has just come back and does not know yet whether another node has taken over refuses; that says
/// nothing about the name.
#[tokio::test]
async fn a_sign_up_waits_for_an_authority_that_is_not_sure_of_itself() {
    let net = Net::new();
    let mut authority = net.authority().await;
    let (home, other) = (net.join(&authority).await, net.join(&authority).await);
    Account::sign_up(&other.node, "bob", 2).await;
    net.kill(&authority);
    net.kill(&other);
    let alice = Account::new("alice", 1);
    let body = alice.request(&home.node).await.to_body();
    home.node.refused(SIGNUP, body).await;
    // The only node that it would ask is away.
    net.restart(&mut authority).await;
    home.sync().await;
    assert_eq!(home.names().await.waiting_signups, 1);
    assert!(authority.chain("alice").await.is_empty());
    let mut other = other;
    net.restart(&mut other).await;
    net.restart(&mut authority).await;
    home.sync().await;
    assert_eq!(home.names().await.waiting_signups, 0);
    let chain = authority.chain("alice").await;
    assert_eq!(chain.identity(), Some(&alice.owner()));
}

/// Whether anybody has a name a node does not know before it has the table (Spec: 10 §8.6).
#[tokio::test]
async fn a_node_without_the_table_does_not_call_a_name_unknown() {
    const CHAIN: &str = "peergos/v0/core/getChain";
    const KEY: &str = "peergos/v0/core/getPublicKey";
    let net = Net::new();
    let mut authority = net.authority().await;
    Account::sign_up(&authority.node, "alice", 1).await;
    let late = net.join(&authority).await;
    net.kill(&authority);
    for call in [CHAIN, KEY] {
        for name in ["alice", "nobody"] {
            let body = NameRequest(name.to_owned()).to_body();
            let refused = late.node.refused(call, body).await;
            assert!(
                refused.contains("name authority cannot be reached"),
                "{refused}"
            );
        }
    }
    // It is not asked for each look-up.
    net.links.reset(None);
    let body = NameRequest("alice".to_owned()).to_body();
    late.node.refused(CHAIN, body).await;
    assert_eq!(net.links.calls(), 0);

    net.restart(&mut authority).await;
    net.clock.advance(10_000);
    assert!(!late.chain("alice").await.is_empty());
    assert!(late.chain("nobody").await.is_empty());
    // From then on what is here is told, whether anybody answers or not.
    net.kill(&authority);
    assert!(late.chain("nobody").await.is_empty());
}

#[tokio::test]
async fn everything_but_new_names_goes_on_without_the_authority() {
    let net = Net::new();
    let authority = net.authority().await;
    let (mut home, mirror) = (net.join(&authority).await, net.join(&authority).await);
    let alice = Account::sign_up(&home.node, "alice", 1).await;
    mirror.sync().await;
    mirror.keep(&alice, &home).await;
    net.kill(&authority);
    net.restart(&mut home).await;
    let version = alice.write(&home.node, &contents(1, 4, 4)).await.unwrap();
    assert!(alice.is_complete(&home, &version).await);
    assert!(!home.chain("alice").await.is_empty());
    assert_eq!(mirror.mirror().await.in_step, 1);
    assert!(alice.is_complete(&mirror, &version).await);
    let bob = Account::new("bob", 2).request(&home.node).await;
    let refused = home.node.refused(SIGNUP, bob.to_body()).await;
    assert!(
        refused.contains("name authority cannot be reached"),
        "{refused}"
    );
    assert!(home.run(ShowNames { sync: true }).await.is_err());
}

/// Whether another node has taken over meanwhile cannot be known as long as none of them answers.
#[tokio::test]
async fn an_authority_that_comes_back_gives_out_no_name_before_somebody_answers() {
    let net = Net::new();
    let mut authority = net.authority().await;
    let home = net.join(&authority).await;
    Account::sign_up(&home.node, "alice", 1).await;
    net.kill(&authority);
    net.kill(&home);
    net.restart(&mut authority).await;
    for seed in [2, 3] {
        let request = Account::new("bob", seed).request(&authority.node).await;
        let refused = authority.node.refused(SIGNUP, request.to_body()).await;
        assert!(refused.contains("when one of the others"), "{refused}");
    }
}

#[tokio::test]
async fn another_node_takes_over_without_loss_and_the_old_one_is_fenced() {
    let net = Net::new();
    let mut authority = net.authority().await;
    let mut heir = net.join(&authority).await;
    let home = net.join(&authority).await;
    let alice = Account::sign_up(&home.node, "alice", 1).await;
    let keys = heir.folder.path().join("names.keys");
    let export = ExportNames { file: keys.clone() };
    let exported = authority.run(export.clone()).await.unwrap();
    assert!(authority.run(export).await.is_err(), "never overwrites");
    assert!(
        heir.run(ExportNames {
            file: keys.with_extension("2")
        })
        .await
        .is_err()
    );
    heir.sync().await;
    net.kill(&authority);

    let taken = heir.run(TakeOverNames { file: keys }).await.unwrap();
    assert_eq!(taken.names, 2);
    assert_eq!(
        taken.network.split('@').next(),
        exported.network.split('@').next()
    );
    net.restart(&mut heir).await;
    assert!(heir.names().await.is_authority);
    let bob = Account::sign_up(&heir.node, "bob", 2).await;
    let mallory = Account::new("alice", 3).request(&heir.node).await;
    let refused = heir.node.refused(SIGNUP, mallory.to_body()).await;
    assert!(refused.contains("User already exists"), "{refused}");

    // The others are told once; the table then names its new node itself.
    home.run(FollowNames {
        node: Some(heir.id.to_string()),
    })
    .await
    .unwrap();
    home.sync().await;
    assert_eq!(home.chain("bob").await, heir.chain("bob").await);
    assert_eq!(
        home.chain("peergos").await.home(),
        Some(heir.node.node.id())
    );
    home.run(FollowNames { node: None }).await.unwrap();
    Account::sign_up(&home.node, "carol", 4).await;
    assert!(!heir.chain("carol").await.is_empty());

    // The old authority comes back, and gives nothing out a second time.
    net.restart(&mut authority).await;
    let refused = authority
        .node
        .refused(
            SIGNUP,
            Account::new("bob", 5)
                .request(&authority.node)
                .await
                .to_body(),
        )
        .await;
    assert!(refused.contains("gives out no names"), "{refused}");
    assert_eq!(
        authority.names().await.overtaken_by,
        Some(home.id.to_string())
    );
    let _ = (alice, bob);
}

#[tokio::test]
async fn the_names_of_one_network_are_never_mixed_with_those_of_another() {
    let net = Net::new();
    let (one, two) = (net.authority().await, net.authority().await);
    let follower = net.join(&one).await;
    follower.sync().await;
    let config = |member: &Member, network: Option<&str>| {
        let mut config = member.node.node.config().clone();
        config.name_authority = network.map(|network| network.parse().unwrap());
        config
    };
    let other = two.names().await.network;
    for (member, network) in [(&follower, Some(other.as_str())), (&one, Some(&other))] {
        let opened = Node::with_store(config(member, network), member.store.clone()).await;
        assert!(matches!(opened, Err(OpenError::OtherNames)));
    }
    // Not told again, it stays in the network it is in; also once the setting was wrong.
    let again = Node::with_store(config(&follower, None), follower.store.clone()).await;
    let again = TestNode::of(again.unwrap(), net.clock.clone());
    let silent = Report::silent();
    let shown = ShowNames::default().run(&again.node, &silent);
    let shown = shown.await.unwrap();
    assert!(!shown.is_authority);
    assert_eq!(shown.network, one.names().await.network);
}

#[tokio::test]
async fn a_node_that_gives_out_no_names_takes_none_from_peers() {
    let net = Net::new();
    let authority = net.authority().await;
    let (one, two) = (net.join(&authority).await, net.join(&authority).await);
    let alice = Account::new("alice", 1);
    let chain = pki::chain::ClaimChain::single(alice.link(&one.node));
    let request = UpdateChainRequest {
        username: "alice".into(),
        chain: SentLinks::new(chain),
        proof: pki::proof_of_work::ProofOfWork::empty().encode().into(),
        token: String::new(),
    };
    let peers = one.node.node.peers().unwrap();
    let target = "/peergos/v0/core/updateChain";
    let answer = node::p2p::ask(peers, &two.id, target, request.to_body(), 100).await;
    assert!(
        format!("{answer:?}").contains("not the name authority"),
        "{answer:?}"
    );
    // From a client, nobody registers a name without an account.
    let refused = authority.node.refused(target, request.to_body()).await;
    assert!(refused.contains("please sign up"), "{refused}");
}
