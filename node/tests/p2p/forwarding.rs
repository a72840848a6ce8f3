//! Whose node answers what (Spec: 11 §5 to §7).

use std::sync::Arc;

use bytes::Bytes;
use champ::{access::Bat, cbor::Record as _};
use http::Request;
use node::{
    Config,
    clock::ManualClock,
    names::NameAuthority,
    p2p::{PeerId, ask, full},
};
use pki::{
    chain::{ClaimChain, ClaimLink},
    claim::default_expiry,
    wire::{
        Body as _,
        block_group::{BlockFormat, BlockGroup},
        call::{Call as CallName, Home},
        champ_lookup::{ChampCap, ChampCaps},
        signup::{SentLinks, UpdateChainRequest},
    },
};

use super::switchboard::{Hop, Switchboard, peer};
use crate::conformance::{
    account::{Account, cbor_block, private_raw, sign_block},
    harness::{NOW, TestNode, config},
};

/// Two nodes; alice lives on the first, and the second knows it.
struct Pair {
    board: Arc<Switchboard>,
    home: TestNode,
    other: TestNode,
    home_id: PeerId,
    other_id: PeerId,
    alice: Account,
}

pub(super) async fn open(
    board: &Arc<Switchboard>,
    id: PeerId,
    change: impl FnOnce(&mut Config),
) -> TestNode {
    let clock = Arc::new(ManualClock::at(NOW));
    let mut config = Config {
        clock: clock.clone(),
        ..config()
    };
    change(&mut config);
    TestNode::of(board.open(id, config).await, clock)
}

/// Tells a node by its own name table where somebody lives.
pub(crate) async fn tell(node: &TestNode, account: &Account, seed: u8, home: PeerId) {
    Account::sign_up(node, &account.name, seed).await;
    let link = ClaimLink::sign(
        &account.name.parse().unwrap(),
        default_expiry(NOW / 1000),
        home.to_cid(),
        account.identity.secret(),
    )
    .unwrap();
    let update = UpdateChainRequest {
        username: account.name.clone(),
        chain: SentLinks::new(ClaimChain::single(link)),
        proof: pki::proof_of_work::ProofOfWork::empty().encode().into(),
        token: String::new(),
    };
    let done = node.ok("peergos/v0/core/updateChain", update.to_body());
    assert_eq!(done.await, [1]);
}

impl Pair {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change_other: impl FnOnce(&mut Config)) -> Self {
        let board = Switchboard::new();
        let (home_id, other_id) = (peer(1), peer(2));
        let home = open(&board, home_id, |_| {}).await;
        let other = open(&board, other_id, change_other).await;
        let alice = Account::sign_up(&home, "alice", 7).await;
        tell(&other, &alice, 7, home_id).await;
        board.take_hops();
        Self {
            board,
            home,
            other,
            home_id,
            other_id,
            alice,
        }
    }

    fn hop(&self, path: &str) -> Hop {
        Hop {
            from: self.other_id,
            to: self.home_id,
            path: format!("/{path}"),
        }
    }
}

#[tokio::test]
async fn a_client_of_another_node_reaches_the_home_for_everything() {
    let pair = Pair::new().await;
    let alice = &pair.alice;
    let bat = Bat::from_secret([3; 32]);
    let block = private_raw(&bat, None, &[9; 5000]);
    let cid = BlockFormat::Raw.cid(&block);
    let answer = alice
        .put(
            &pair.other,
            &alice.home,
            BlockFormat::Raw,
            std::slice::from_ref(&block),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.message());
    // It is where it belongs, and only there.
    let token = bat.with_calculated_id();
    let read = format!("{}&bat={}", alice.get_target(&cid), token.to_text());
    assert_eq!(pair.home.ok(&read, "").await, block);
    assert_eq!(pair.other.ok(&read, "").await, block);
    assert_eq!(
        pair.board.take_hops(),
        [
            pair.hop("api/v0/block/put/bulk"),
            pair.hop("api/v0/block/get")
        ]
    );
    let pointer = alice.pointer(&pair.other, &alice.home.writer()).await;
    assert_eq!(
        pointer,
        alice.pointer(&pair.home, &alice.home.writer()).await
    );
    let answer = alice.get_login(&pair.other, &alice.login, NOW, "").await;
    assert_eq!(answer.status, 200, "{}", answer.message());
    assert_eq!(
        alice.usage(&pair.other, "").await,
        alice.usage(&pair.home, "").await
    );
}

#[tokio::test]
async fn refusals_of_the_home_come_in_its_words() {
    let pair = Pair::new().await;
    let alice = &pair.alice;
    let root = alice.home_root().await.cid();
    let write = crate::conformance::account::update(&alice.home, None, Some(&root), Some(1));
    let here = alice.set(&pair.home, &write).await;
    let there = alice.set(&pair.other, &write).await;
    assert!(here.message().starts_with("PointerCAS:"), "{here:?}");
    assert_eq!(
        (there.status, there.message()),
        (here.status, here.message())
    );
    assert_eq!(there.header("content-type"), Some("text/plain"));
}

#[tokio::test]
async fn a_home_that_is_gone_is_said_in_words() {
    let pair = Pair::new().await;
    pair.board.cut(pair.home_id);
    let target = format!(
        "peergos/v0/mutable/getPointer?owner={}&writer={}",
        pair.alice.owner(),
        pair.alice.home.writer()
    );
    let message = pair.other.refused(&target, "").await;
    assert_eq!(
        message,
        "The home server of this user cannot be reached, please try again later"
    );
    pair.board.heal(pair.home_id);
    pair.other.ok(&target, "").await;
}

#[tokio::test]
async fn log_9_logins_of_foreign_users_can_be_turned_away() {
    let pair = Pair::with(|config| config.p2p.allows_foreign_logins = false).await;
    let answer = pair
        .alice
        .get_login(&pair.other, &pair.alice.login, NOW, "")
        .await;
    assert_eq!(answer.message(), "Please login on your home server");
    assert_eq!(pair.board.take_hops(), []);
}

/// Each of two nodes takes the other for the home. Every call that is passed on makes one request from node to node, also
/// when its parameters are nonsense otherwise, and ends in a refusal.
#[tokio::test]
async fn p2p_1_requests_never_go_in_circles() {
    let board = Switchboard::new();
    let (one, two) = (peer(1), peer(2));
    let first = open(&board, one, |_| {}).await;
    let second = open(&board, two, |_| {}).await;
    let alice = Account::new("alice", 7);
    tell(&first, &alice, 7, two).await;
    tell(&second, &alice, 7, one).await;
    board.take_hops();
    let owner = alice.owner();
    let writer = alice.home.writer();
    let root = alice.home_root().await.cid();
    let bat = alice.mirror_with_id().to_text();
    let auth = alice.time(NOW);
    let block = cbor_block("x", &[]);
    let signed = sign_block(&alice.home, block.cid());
    let group = BlockGroup::new(vec![block.bytes().clone()], vec![signed]).unwrap();
    let put = alice.put_target(&writer, BlockFormat::DagCbor.as_str());
    let query = put.split_once('?').unwrap().1.to_owned();
    let caps = ChampCaps::new(vec![ChampCap {
        map_key: [1; 32],
        bat: None,
    }]);
    let caps = caps.unwrap().to_parameter();
    let of_user = |call: CallName| {
        let target = alice.signed(call.path(), NOW);
        target.split_once('?').unwrap().1.to_owned()
    };
    for call in CallName::ALL {
        if call.home() != Home::Forwarded {
            continue;
        }
        let (query, body) = match call {
            CallName::LinkCounts => (format!("owner=alice&after=0&bat={bat}"), Bytes::new()),
            CallName::ChampGetBulk | CallName::ChampGet => (
                format!("arg={root}&owner={owner}&caps={caps}"),
                Bytes::new(),
            ),
            CallName::BlockPutBulk => (query.clone(), group.to_body().into()),
            // The legacy form is read before it is passed on as the other one.
            CallName::BlockPut => continue,
            CallName::GetUserBats | CallName::AddBat => (of_user(*call), Bytes::new()),
            _ if call.path().starts_with("peergos/v0/login/") => (of_user(*call), Bytes::new()),
            _ => (
                format!("owner={owner}&writer={writer}&arg={root}&label=5&auth={auth}"),
                Bytes::new(),
            ),
        };
        for asked in [&first, &second] {
            let target = format!("{}?{query}", call.path());
            let answer = asked.post(&target, body.clone()).await;
            assert_eq!(answer.status, 400, "{target}: {answer:?}");
            assert_eq!(board.take_hops().len(), 1, "{target}");
        }
    }
}

/// Two nodes each of which was told that the other gives names out: neither does, and nobody is asked twice.
#[tokio::test]
async fn p2p_1_authorities_that_name_each_other_end_at_once() {
    let board = Switchboard::new();
    let (one, two) = (peer(1), peer(2));
    let owner = Account::new("peergos", 99).owner();
    let follows = |node| {
        let owner = owner.hash().clone();
        move |config: &mut Config| {
            config.name_authority = Some(NameAuthority { owner, node });
            config.mirror.is_automatic = false;
        }
    };
    let first = open(&board, one, follows(two)).await;
    let _second = open(&board, two, follows(one)).await;
    let alice = Account::new("alice", 7);
    let request = alice.request(&first).await;
    board.take_hops();
    let refused = first.refused("peergos/v0/core/signup", request.to_body());
    assert!(refused.await.contains("name authority cannot be reached"));
    let hops = board.take_hops();
    assert!(hops.iter().all(|hop| hop.from == one), "{hops:?}");
    assert_eq!(hops.len(), 1, "{hops:?}");
}

#[tokio::test]
async fn p2p_2_a_peer_reaches_calls_of_the_list_and_nothing_else() {
    let board = Switchboard::new();
    let (one, two) = (peer(1), peer(2));
    let node = open(&board, one, |_| {}).await;
    let line = board.line(two);
    let status = async |target: &str| match ask(line.as_ref(), &one, target, "", 1 << 20).await {
        Ok(_) => 200,
        Err(node::p2p::PeerError::Refused { status, .. }) => status,
        Err(other) => panic!("{target}: {other}"),
    };
    assert_eq!(status("/api/v0/id").await, 200);
    for target in [
        "/",
        "/index.html",
        "/p2p/x/http/api/v0/id",
        "/public/alice/x",
        "/peergos/v0/admin/version",
        "/peergos/v0/admin/pending?admin=a&instance=b&auth=00",
        "/peergos/v0/server-message/retrieve?username=a&auth=00",
        "/peergos/v0/core/signup",
        "/peergos/v0/core/mirror",
        "/peergos/v0/config/set",
        "/peergos/v0/stop/",
        "/peergos/v0/sync/",
        "/peergos/v0/mount/",
        "http://169.254.169.254/api/v0/id",
    ] {
        assert_eq!(status(target).await, 404, "{target}");
    }
    for host in ["127.0.0.1:8000", "localhost:8000", "x", ""] {
        let request = Request::post("/api/v0/id").header("host", host);
        let answer = node.node.answer_peer(two, request.body(full("")).unwrap());
        assert_eq!(answer.await.status(), 404, "{host}");
    }
    let request = Request::get("/api/v0/id").header("host", one.to_string());
    let answer = node.node.answer_peer(two, request.body(full("")).unwrap());
    assert_eq!(answer.await.status(), 405);
}

#[tokio::test]
async fn peers_write_only_for_users_who_live_here() {
    let pair = Pair::new().await;
    let line = pair.board.line(peer(3));
    let target = format!(
        "/{}",
        pair.alice.put_target(&pair.alice.home.writer(), "raw")
    );
    let error = ask(line.as_ref(), &pair.other_id, &target, "", 100).await;
    let error = error.unwrap_err().to_string();
    // She once had space on this node by this test's doing, and does not live here any more.
    assert!(error.contains("400"), "{error}");
}
