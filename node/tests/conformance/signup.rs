//! Sign-up and names (Spec: 10).

use champ::{
    Cid,
    cbor::{Record as _, Value},
    data_stream::Writer,
    map::{Champ, KeyHash},
};
use node::Config;
use pki::{
    chain::{ClaimChain, ClaimLink},
    claim::{Claim, Date, default_expiry},
    keys::PublicKeyHash,
    pointer::PointerUpdate,
    proof_of_work::{Difficulty, ProofOfWork, Search},
    wire::{
        Body as _,
        op_log::Op,
        signup::{SentLinks, SignupRequest, UpdateChainRequest},
    },
    writer_data::{PKI_NAME, WriterData},
};

use super::{
    account::{Account, cbor_block, key, sign_block, update},
    harness::{NOW, Remote, TestNode, config},
};

const SIGNUP: &str = "peergos/v0/core/signup";

fn name_body(name: &str) -> Vec<u8> {
    Writer::new().string(name).finish()
}

async fn chain(node: &TestNode, name: &str) -> ClaimChain {
    let body = node.ok("peergos/v0/core/getChain", name_body(name)).await;
    ClaimChain::decode(&body).unwrap()
}

/// Expects a refusal and that nothing of the account is there afterwards: the honest request then succeeds.
async fn refused(what: &str, spoil: impl AsyncFnOnce(&TestNode, &mut SignupRequest)) -> String {
    let node = TestNode::new().await;
    let account = Account::new("alice", 7);
    let mut request = account.request(&node).await;
    spoil(&node, &mut request).await;
    let message = node.refused(SIGNUP, request.to_body()).await;
    assert!(chain(&node, "alice").await.is_empty(), "{what}");
    let free = node.ok("peergos/v0/admin/signups", "").await;
    assert_eq!(free, champ::text::from_hex("a26166f56170f4").unwrap());
    let honest = account.request(&node).await;
    assert_eq!(node.ok(SIGNUP, honest.to_body()).await, [1], "{what}");
    message
}

#[tokio::test]
async fn a_signed_up_account_is_whole() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    assert_eq!(
        chain(&node, "alice").await,
        ClaimChain::single(alice.link(&node))
    );
    let key = node
        .ok("peergos/v0/core/getPublicKey", name_body("alice"))
        .await;
    let expected = Writer::new()
        .boolean(true)
        .bytes(&alice.identity.hash().encode());
    assert_eq!(key, expected.finish());
    let body = Writer::new()
        .bytes(&alice.identity.hash().encode())
        .finish();
    let name = node.ok("peergos/v0/core/getUsername", body).await;
    assert_eq!(name, name_body("alice"));
    assert_eq!(alice.pointer(&node, &alice.home.writer()).await.len(), 105);
    let answer = alice.get_login(&node, &alice.login, NOW, "").await;
    assert_eq!(answer.status, 200, "{}", answer.message());
    let bats = node
        .ok(&alice.signed("peergos/v0/bats/getUserBats", NOW), "")
        .await;
    assert_eq!(
        bats,
        Value::List(vec![alice.mirror_with_id().to_value()]).encode()
    );
    let blocks = [alice.identity_root().await, alice.home_root().await];
    let mut bytes = 0;
    for root in blocks {
        bytes += root
            .all_blocks()
            .iter()
            .map(|b| b.bytes().len() as i64)
            .sum::<i64>();
        for block in root.all_blocks() {
            assert_eq!(
                node.ok(&alice.get_target(block.cid()), "").await,
                *block.bytes()
            );
        }
    }
    assert_eq!(alice.usage(&node, "").await, bytes);
}

#[tokio::test]
async fn unknown_names_and_keys_are_answered_as_the_reference_does() {
    let node = TestNode::new().await;
    assert_eq!(
        node.ok("peergos/v0/core/getChain", name_body("nobody"))
            .await,
        [0x80]
    );
    assert_eq!(
        node.ok("peergos/v0/core/getPublicKey", name_body("nobody"))
            .await,
        [0]
    );
    let stranger = key(1, 1);
    let body = Writer::new().bytes(&stranger.hash().encode()).finish();
    assert_eq!(
        node.refused("peergos/v0/core/getUsername", body).await,
        format!("Unknown identity key: {}", stranger.hash())
    );
    let body = Writer::new().bytes(&[5]).finish();
    node.refused("peergos/v0/core/getUsername", body).await;
    for bad in [
        &b""[..],
        &[0, 0, 0, 9, b'a'],
        &[0xff, 0xff, 0xff, 0xff],
        &[0, 0, 8, 0],
    ] {
        node.refused("peergos/v0/core/getChain", bad.to_vec()).await;
    }
}

#[tokio::test]
async fn pki_2_bad_first_claims_are_refused() {
    let other_key = refused("claim by another key", async |node, request| {
        let mallory = Account::new("alice", 66);
        let mut link = mallory.link(node);
        link.owner = Account::new("alice", 7).owner();
        request.link = SentLinks::new(link);
    })
    .await;
    assert!(!other_key.is_empty());
    refused("another name in the claim", async |node, request| {
        request.link = SentLinks::new(Account::new("bob", 7).link(node));
    })
    .await;
    let wrong = refused("another server", async |_, request| {
        let account = Account::new("alice", 7);
        let link = ClaimLink::sign(
            &"alice".parse().unwrap(),
            default_expiry(NOW / 1000),
            Cid::parse_peer_id("12D3KooWEnCzE4uSeniFaCGXQuV1UnYkvqvbQJnYC363S2abgknr").unwrap(),
            account.identity.secret(),
        );
        request.link = SentLinks::new(link.unwrap());
    })
    .await;
    assert!(
        wrong.starts_with("Trying to signup to wrong host! "),
        "{wrong}"
    );
    // Signed by the right key, each of them.
    for count in [0, 2] {
        refused("no server, or two", async |node, request| {
            let account = Account::new("alice", 7);
            let mut link = account.link(node);
            link.claim = Claim::sign(
                &"alice".parse().unwrap(),
                default_expiry(NOW / 1000),
                vec![node.node.id().clone(); count],
                account.identity.secret(),
            )
            .unwrap();
            request.link = SentLinks::new(link);
        })
        .await;
    }
    refused("a damaged signature", async |node, request| {
        let mut link = Account::new("alice", 7).link(node);
        let mut signed = link.claim.signed.to_vec();
        signed[10] ^= 1;
        link.claim.signed = signed.into();
        request.link = SentLinks::new(link);
    })
    .await;
    refused("elements that were not signed", async |node, request| {
        let mut link = Account::new("alice", 7).link(node);
        link.claim.expiry = link.claim.expiry.plus_days(1);
        request.link = SentLinks::new(link);
    })
    .await;
    refused("a key change to somebody else", async |node, request| {
        let account = Account::new("alice", 7);
        let mut link = account.link(node);
        let next = Account::new("alice", 66).owner();
        let change = account
            .identity
            .secret()
            .sign_attached(&next.hash().encode());
        link.keychange = Some(change.into());
        link.owner = next;
        request.link = SentLinks::new(link);
    })
    .await;
    for expiry in [
        Date::new(2020, 1, 1).unwrap(),
        Date::new(2099, 1, 1).unwrap(),
    ] {
        refused("expiry out of range", async |node, request| {
            let account = Account::new("alice", 7);
            let id = node.node.id().clone();
            let link = ClaimLink::sign(
                &"alice".parse().unwrap(),
                expiry,
                id,
                account.identity.secret(),
            );
            request.link = SentLinks::new(link.unwrap());
        })
        .await;
    }
}

#[tokio::test]
async fn pki_8_every_damage_to_an_op_log_refuses_all_of_it() {
    let message = refused("login data of another name", async |_, request| {
        let bob = Account::new("bob", 7);
        let login = request.ops.login.as_mut().unwrap();
        login.data.username = "bob".parse().unwrap();
        login.auth = bob.identity.secret().sign_detached(&login.data.encode());
    })
    .await;
    assert_eq!(message, "Invalid signup data!");
    refused("login data signed by another key", async |_, request| {
        let mallory = Account::new("alice", 66);
        let login = request.ops.login.as_mut().unwrap();
        login.auth = mallory
            .identity
            .secret()
            .sign_detached(&login.data.encode());
    })
    .await;
    refused("token signed for another call", async |_, request| {
        let alice = Account::new("alice", 7);
        let auth = alice.request_auth("peergos/v0/bats/getUserBats", NOW);
        request.ops.mirror_bat.as_mut().unwrap().auth = auth.into();
    })
    .await;
    refused("token with another id", async |_, request| {
        let bat = request.ops.mirror_bat.as_mut().unwrap();
        bat.bat.id = champ::access::Bat::from_secret([1; 32]).secret_hash_id();
    })
    .await;
    refused("a block signed by another key", async |_, request| {
        let Some(Op::Block(write)) = request.ops.ops.first_mut() else {
            panic!()
        };
        write.signature = sign_block(&key(66, 1), &write.cid());
    })
    .await;
    refused("a changed block", async |_, request| {
        let Some(Op::Block(write)) = request.ops.ops.first_mut() else {
            panic!()
        };
        write.block = cbor_block("other", &[]).bytes().clone();
    })
    .await;
    let stranger = refused(
        "a block of a writer that nobody owns",
        async |_, request| {
            let mallory = key(66, 2);
            let block = cbor_block("mine", &[]);
            request
                .ops
                .ops
                .push(Op::Block(pki::wire::op_log::BlockWrite {
                    block: block.bytes().clone(),
                    format: pki::wire::block_group::BlockFormat::DagCbor,
                    signature: sign_block(&mallory, block.cid()),
                    writer: mallory.writer(),
                }));
        },
    )
    .await;
    assert!(stranger.starts_with("Writer not present on this server: "));
    refused("a pointer that does not follow", async |_, request| {
        let alice = Account::new("alice", 7);
        let root = alice.home_root().await.cid();
        let again = update(&alice.home, None, Some(&root), Some(2));
        request.ops.ops.push(Op::Pointer(again));
    })
    .await;
    refused("a root that was not sent", async |_, request| {
        request.ops.ops.retain(|op| match op {
            Op::Block(write) => WriterData::decode(&write.block).is_err(),
            Op::Pointer(_) => true,
        });
    })
    .await;
    refused("no proof of ownership", async |_, request| {
        let alice = Account::new("alice", 7);
        request.ops.ops.retain(|op| match op {
            Op::Block(write) => write.writer == alice.home.writer(),
            Op::Pointer(write) => write.writer == alice.home.writer(),
        });
    })
    .await;
}

#[tokio::test]
async fn taken_reserved_and_malformed_names_are_refused() {
    let node = TestNode::new().await;
    Account::sign_up(&node, "alice", 7).await;
    let again = Account::new("alice", 8).request(&node).await;
    assert_eq!(
        node.refused(SIGNUP, again.to_body()).await,
        "User already exists: Invalid key change attempt!"
    );
    // One key, one name.
    let second = Account::new("alice-too", 7).request(&node).await;
    assert!(
        node.refused(SIGNUP, second.to_body())
            .await
            .contains("already has a username")
    );
    for (seed, name) in ["Alice", "-a", "a-", "a--b", "a_b", "constructor", "admin"]
        .iter()
        .enumerate()
    {
        let request = Account::new(name, 100 + seed as u8).request(&node).await;
        assert_eq!(
            node.refused(SIGNUP, request.to_body()).await,
            "Invalid username",
            "{name}"
        );
    }
    let mut newline = Account::new("carol", 9).request(&node).await;
    newline.username.push('\n');
    assert_eq!(
        node.refused(SIGNUP, newline.to_body()).await,
        "Invalid username"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pki_7_one_token_admits_exactly_one_user() {
    let node = TestNode::with(Config {
        max_users: 0,
        signup_tokens: vec!["t0ken".to_owned()],
        ..config()
    })
    .await;
    let closed = Account::new("alice", 7).request(&node).await;
    assert_eq!(
        node.refused(SIGNUP, closed.to_body()).await,
        "This server is not currently accepting new sign ups. Please try again later"
    );
    assert_eq!(
        node.ok("peergos/v0/admin/signups", "").await,
        champ::text::from_hex("a26166f46170f4").unwrap()
    );
    let mut attempts = Vec::new();
    for seed in 0..16 {
        let mut request = Account::new(&format!("user{seed}"), seed)
            .request(&node)
            .await;
        request.token = "t0ken".to_owned();
        attempts.push(request.to_body());
    }
    let answers =
        futures_util::future::join_all(attempts.into_iter().map(|body| node.post(SIGNUP, body)))
            .await;
    let admitted = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(admitted, 1);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(answer.message(), "Invalid signup token.");
    }
}

#[tokio::test]
async fn pki_1_many_sign_ups_cost_work_and_none_are_free_when_none_are_allowed() {
    let node = TestNode::with(Config {
        max_signups_per_day: 1,
        ..config()
    })
    .await;
    Account::sign_up(&node, "first", 1).await;
    let mut request = Account::new("second", 2).request(&node).await;
    let answer = node.ok(SIGNUP, request.to_body()).await;
    assert_eq!(answer[0], 0);
    let difficulty = i32::from_be_bytes(answer[1..5].try_into().unwrap());
    assert!((1..=40).contains(&difficulty), "{difficulty}");
    assert!(chain(&node, "second").await.is_empty());
    if difficulty <= 20 {
        let wanted = Difficulty::try_new(difficulty.into()).unwrap();
        let mut search = Search::new(request.link.proof_data(), wanted).unwrap();
        let proof = search.step(u32::MAX).unwrap();
        request.proof = proof.encode().into();
        assert_eq!(node.ok(SIGNUP, request.to_body()).await, [1]);
    }
    let closed = TestNode::with(Config {
        max_signups_per_day: 0,
        ..config()
    })
    .await;
    let request = Account::new("third", 3).request(&closed).await;
    assert_eq!(closed.ok(SIGNUP, request.to_body()).await, [0, 0, 0, 1, 0]);
    let mut body = Writer::new()
        .string("paid")
        .bytes(&request.link.get().encode());
    body = body.bytes(&ProofOfWork::empty().encode());
    let paid = closed
        .ok("peergos/v0/core/startPaidSignup", body.finish())
        .await;
    assert_eq!(paid, [0, 0, 0, 1, 0]);
}

#[tokio::test]
async fn pki_3_chains_are_renewed_and_never_rolled_back() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let existing = chain(&node, "alice").await;
    let name = "alice".parse().unwrap();
    let renew = |expiry| {
        existing
            .with_last_claim(
                &name,
                expiry,
                node.node.id().clone(),
                alice.identity.secret(),
            )
            .unwrap()
    };
    let send = |name: &str, chain: &ClaimChain| {
        UpdateChainRequest {
            username: name.to_owned(),
            chain: SentLinks::new(chain.clone()),
            proof: ProofOfWork::empty().encode().into(),
            token: String::new(),
        }
        .to_body()
    };
    let later = renew(default_expiry(NOW / 1000).plus_days(30));
    let update = "peergos/v0/core/updateChain";
    assert_eq!(node.ok(update, send("alice", &later)).await, [1]);
    assert_eq!(chain(&node, "alice").await, later);
    assert_eq!(node.ok(update, send("alice", &later)).await, [1]);
    assert_eq!(
        node.refused(update, send("alice", &existing)).await,
        "New claim chain expiry before existing!"
    );
    let mallory = Account::new("alice", 66);
    let foreign = ClaimChain::single(mallory.link(&node));
    let foreign = foreign
        .with_last_claim(
            &name,
            Date::NEVER,
            node.node.id().clone(),
            mallory.identity.secret(),
        )
        .unwrap();
    node.refused(update, send("alice", &foreign)).await;
    node.refused(update, send("nobody", &later)).await;
    assert_eq!(chain(&node, "alice").await, later);
}

/// The table is what every node of a network can read: identity, PKI writer, CHAMP, chain.
#[tokio::test]
async fn the_name_table_is_laid_out_for_mirrors() {
    let node = TestNode::new().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let body = node
        .ok("peergos/v0/core/getPublicKey", name_body("peergos"))
        .await;
    let owner = PublicKeyHash::decode(&body[5..]).unwrap();
    let root = async |writer: &PublicKeyHash| {
        let target = format!("peergos/v0/mutable/getPointer?owner={owner}&writer={writer}");
        let signed = node.ok(&target, "").await;
        let key = writer.inline_key().unwrap();
        let message = key.verify_attached(&signed).unwrap();
        let update = PointerUpdate::decode(message).unwrap();
        let cid = update.updated().unwrap().clone();
        let block = node
            .ok(&format!("api/v0/block/get?arg={cid}&owner={owner}"), "")
            .await;
        WriterData::decode(&block).unwrap()
    };
    let owner_root = root(&owner).await;
    let proof = &owner_root.named[PKI_NAME];
    proof
        .verify_with(&proof.owned().inline_key().unwrap(), &owner)
        .unwrap();
    let table = root(proof.owned()).await;
    let source = Remote(&node, &owner);
    let champ = Champ::at(table.tree.unwrap()).hashed_by(KeyHash::Blake2b512);
    let Some(Value::Link(entry)) = champ.get(b"alice", &source).await.unwrap() else {
        panic!()
    };
    let block = node
        .ok(&format!("api/v0/block/get?arg={entry}&owner={owner}"), "")
        .await;
    assert_eq!(
        ClaimChain::decode(&block).unwrap(),
        ClaimChain::single(alice.link(&node))
    );
}

/// REL-23: names, accounts and the node's own id survive a restart on the same folder.
#[tokio::test]
async fn rel_23_a_node_is_the_same_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = || Config {
        data: Some(folder.path().join("data")),
        free_floor: node::store::FreeFloor::Bytes(0),
        ..Config::default()
    };
    let node = TestNode::with(config()).await;
    let id = node.node.id().clone();
    let alice = Account::sign_up(&node, "alice", 7).await;
    let used = alice.usage(&node, "").await;
    let pointer = alice.pointer(&node, &alice.home.writer()).await;
    node.node.close().await.unwrap();
    drop(node);
    let node = TestNode::with(config()).await;
    assert_eq!(*node.node.id(), id);
    assert_eq!(alice.usage(&node, "").await, used);
    assert_eq!(alice.pointer(&node, &alice.home.writer()).await, pointer);
    assert_eq!(
        alice.get_login(&node, &alice.login, NOW, "").await.status,
        200
    );
    node.node.close().await.unwrap();
}
