//! PGS, PRG and PKI rows: names, chains, proofs of work.

use champ::{
    cbor::{Record as _, Value},
    data_stream::Writer,
    map::{Champ, KeyHash},
};
use node::{Config, store::MetaStore as _, store::tables};
use pki::{
    chain::ClaimChain,
    keys::PublicKeyHash,
    pointer::PointerUpdate,
    proof_of_work::{Difficulty, Search},
    wire::{
        Body as _,
        signup::{SentLinks, UpdateChainRequest},
    },
    writer_data::{PKI_NAME, WriterData},
};
use serde_json::Value as Json;

use super::{node_and_store, still_serves};
use crate::conformance::{
    account::Account,
    harness::{Remote, TestNode, config},
};

const SIGNUP: &str = "peergos/v0/core/signup";

/// The names of the row and all refused ones of the vectors: nothing is reserved, no row is made.
#[tokio::test]
async fn pgs_01_002_names_are_checked_whole_and_refused_ones_leave_nothing() {
    let json: Json =
        serde_json::from_str(include_str!("../../../../pki/tests/vectors/usernames.json")).unwrap();
    let (node, store) = node_and_store(config()).await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let mut names: Vec<String> = [
        "Alice",
        "a b",
        "-a",
        "a-",
        "a--b",
        "a_b",
        "..",
        "a/b",
        "",
        "alice\n",
        "alice\r",
        "alice\0",
        "\u{ff41}lice",
        "constructor",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ]
    .map(str::to_owned)
    .into();
    let before = names.len();
    for case in json["cases"].as_array().unwrap() {
        let name = case["username"].as_str().or(case["name"].as_str());
        if case["valid"] == false
            && let Some(name) = name
        {
            names.push(name.to_owned());
        }
    }
    assert!(names.len() >= before);
    let rows = async || {
        let mut rows = Vec::new();
        for table in [tables::CHAINS, tables::KEYS, tables::QUOTAS, tables::LOGINS] {
            rows.push(store.scan(table, b"", None, 10_000).await.unwrap().len());
        }
        rows
    };
    let expected = rows().await;
    for name in names {
        let mut request = Account::new("dave", 20).request(&node).await;
        request.username.clone_from(&name);
        assert_eq!(
            node.refused(SIGNUP, request.to_body()).await,
            "Invalid username",
            "{name:?}"
        );
        let update = UpdateChainRequest {
            username: name.clone(),
            chain: SentLinks::new(ClaimChain::single(Account::new("dave", 20).link(&node))),
            proof: request.proof.clone(),
            token: String::new(),
        };
        node.refused("peergos/v0/core/updateChain", update.to_body())
            .await;
        assert_eq!(rows().await, expected, "{name:?}");
    }
    still_serves(&node, &alice, 1).await;
}

#[tokio::test]
async fn prg_013_a_name_like_a_built_in_property_cannot_be_registered() {
    let node = TestNode::new().await;
    for name in ["constructor", "__proto__", "hasOwnProperty", "toString"] {
        let mut request = Account::new("dave", 20).request(&node).await;
        request.username = name.to_owned();
        assert_eq!(
            node.refused(SIGNUP, request.to_body()).await,
            "Invalid username"
        );
    }
}

/// Every entry of the name table lies where the BLAKE2b hash of its name leads, and nowhere else.
#[tokio::test]
async fn pgs_01_005_the_name_table_is_placed_by_hashes() {
    let node = TestNode::new().await;
    let mut names = Vec::new();
    for n in 0..20u8 {
        let name = format!("user-{n}");
        Account::sign_up(&node, &name, 100 + n).await;
        names.push(name);
    }
    let body = Writer::new().string("peergos").finish();
    let owner = node.ok("peergos/v0/core/getPublicKey", body).await;
    let owner = PublicKeyHash::decode(&owner[5..]).unwrap();
    let root = async |writer: &PublicKeyHash| {
        let target = format!("peergos/v0/mutable/getPointer?owner={owner}&writer={writer}");
        let signed = node.ok(&target, "").await;
        let update = PointerUpdate::decode(&signed[64..]).unwrap();
        let cid = update.updated().unwrap().clone();
        let block = node
            .ok(&format!("api/v0/block/get?arg={cid}&owner={owner}"), "")
            .await;
        WriterData::decode(&block).unwrap()
    };
    let table = root(root(&owner).await.named[PKI_NAME].owned()).await;
    let source = Remote(&node, &owner);
    let tree = table.tree.unwrap();
    let by_hash = Champ::at(tree.clone()).hashed_by(KeyHash::Blake2b512);
    let by_name = Champ::at(tree);
    let mut misplaced = 0;
    for name in &names {
        let found = by_hash.get(name.as_bytes(), &source).await.unwrap();
        assert!(matches!(found, Some(Value::Link(_))), "{name}");
        // A table placed by the letters of names would be found by them.
        misplaced += usize::from(!matches!(
            by_name.get(name.as_bytes(), &source).await,
            Ok(Some(_))
        ));
    }
    assert!(misplaced > 0);
}

/// Proofs for something else, too weak or ill-formed: the name stays free, and the difficulty is told.
#[tokio::test]
async fn pki_1_only_a_proof_over_this_very_claim_counts() {
    let mut found = None;
    // Fewer sign-ups a day cost more work: take the first rate that asks for some.
    for max_signups_per_day in [1 << 24, 1 << 20, 1 << 18, 1 << 16] {
        let node = TestNode::with(Config {
            max_signups_per_day,
            ..config()
        })
        .await;
        for n in 0..20 {
            let request = Account::new(&format!("user-{n}"), n).request(&node).await;
            let answer = node.ok(SIGNUP, request.to_body()).await;
            if answer[0] == 0 {
                let wanted = i32::from_be_bytes(answer[1..5].try_into().unwrap());
                found = Some((node, request, wanted));
                break;
            }
        }
        if found.is_some() {
            break;
        }
    }
    let (node, request, wanted) = found.unwrap();
    assert!((1..=20).contains(&wanted), "{wanted}");
    let difficulty = Difficulty::try_new(wanted.into()).unwrap();
    let search = |data: Vec<u8>| {
        let mut search = Search::new(data, difficulty).unwrap();
        search.step(u32::MAX).unwrap().encode()
    };
    let other = Account::new("third", 90).request(&node).await;
    for proof in [
        search(other.link.proof_data()),
        search(request.username.as_bytes().to_vec()),
    ] {
        let mut wrong = request.clone();
        wrong.proof = proof.into();
        let answer = node.ok(SIGNUP, wrong.to_body()).await;
        // Told again; it may have risen meanwhile, and never falls within the same moment.
        assert_eq!(answer[0], 0);
        assert!(i32::from_be_bytes(answer[1..5].try_into().unwrap()) >= wanted);
    }
    let good = search(request.link.proof_data());
    let mut damaged = vec![
        Vec::new(),
        vec![0xff],
        vec![0xa0],
        good[..good.len() - 1].to_vec(),
    ];
    damaged.push(vec![0; 101]);
    damaged.push([&good[..], &[0]].concat());
    for proof in damaged {
        let mut wrong = request.clone();
        wrong.proof = proof.into();
        let answer = node.post(SIGNUP, wrong.to_body()).await;
        assert!(answer.status == 400 || answer.body[0] == 0, "{answer:?}");
    }
    let name = Writer::new().string(&request.username).finish();
    assert_eq!(node.ok("peergos/v0/core/getChain", name).await, [0x80]);
    let mut right = request;
    right.proof = good.into();
    assert_eq!(node.ok(SIGNUP, right.to_body()).await, [1]);
}

/// This node reserves nothing for people who have not paid, so there is nothing to fill up: whoever asks for a paid
/// sign-up is told that there is none, no row remembers it, and the name stays free.
#[tokio::test]
async fn pki_6_asking_for_paid_sign_ups_reserves_nothing() {
    use pki::wire::signup::StartPaidSignup;
    let (node, store) = node_and_store(config()).await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let rows = async || {
        let mut count = 0;
        for table in [
            tables::CHAINS,
            tables::KEYS,
            tables::QUOTAS,
            tables::LOGINS,
            tables::PENDING_SIGNUPS,
            tables::SPACE_REQUESTS,
        ] {
            count += store.scan(table, b"", None, 10_000).await.unwrap().len();
        }
        count
    };
    let before = rows().await;
    for n in 0..500 {
        let account = Account::new(&format!("user-{n}"), 9);
        let request = StartPaidSignup {
            username: account.name.clone(),
            link: SentLinks::new(account.link(&node)),
            proof: pki::proof_of_work::ProofOfWork::empty().encode().into(),
        };
        let answer = node.post("peergos/v0/core/startPaidSignup", request.to_body());
        assert!(answer.await.body.len() < 1000);
    }
    assert_eq!(rows().await, before);
    Account::sign_up(&node, "user-7", 8).await;
    still_serves(&node, &alice, 1).await;
}
