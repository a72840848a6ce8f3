//! Recorded exchanges of the official clients, replayed against a fresh node.
//!
//! What can be replayed is what the recordings hold completely: a sign-up carries the whole account, later
//! uploads were cut. Each case that is not compared says why.

use std::{collections::BTreeMap, sync::Arc};

use champ::cbor::{Record as _, Value};
use node::{
    Config, Node,
    clock::ManualClock,
    store::{Batch, MemoryStore, MetaStore as _, tables},
};
use pki::{
    chain::ClaimLink,
    claim::default_expiry,
    keys::{Owner, SecretSigningKey},
};
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use super::harness::{Answer, NOW, TestNode, config};

const TRACES: [(&str, &str); 40] = include!("traces.in");

fn trace(name: &str) -> Vec<Json> {
    let (_, text) = TRACES.iter().find(|(known, _)| *known == name).unwrap();
    let json: Json = serde_json::from_str(text).unwrap();
    let cases = json["cases"].as_array().unwrap().clone();
    assert!(!cases.is_empty(), "{name}");
    cases
}

/// The body of a recorded request; `None` when it was cut.
fn body(case: &Json) -> Option<Vec<u8>> {
    let body = &case["body"];
    match body["hex"].as_str() {
        Some(hex) => Some(champ::text::from_hex(hex).unwrap()),
        None if body["len"] == 0 => Some(Vec::new()),
        None => None,
    }
}

/// The time in a signed time or request of the target, if any: the last eight bytes of `auth` or `req`.
fn signed_millis(case: &Json) -> Option<i64> {
    let target = case["target"].as_str().unwrap();
    let (_, query) = target.split_once('?')?;
    let auth = query
        .split('&')
        .find_map(|part| part.strip_prefix("auth="))?;
    let millis = auth.get(auth.len().checked_sub(16)?..)?;
    let millis = i64::from_str_radix(millis, 16).ok()?;
    (1_700_000_000_000..1_900_000_000_000)
        .contains(&millis)
        .then_some(millis)
}

/// Compares status, the headers the recording kept, and the body.
fn compare(name: &str, case: &Json, answer: &Answer) {
    let what = format!("{name} {} {}", case["n"], case["target"]);
    assert_eq!(
        Json::from(answer.status),
        case["status"],
        "{what}: {}",
        answer.message()
    );
    for (header, value) in case["headers"].as_object().unwrap() {
        if header == "transfer-encoding" {
            continue;
        }
        assert_eq!(answer.header(header), value.as_str(), "{what}");
    }
    let expected = &case["response"];
    assert_eq!(Json::from(answer.body.len()), expected["len"], "{what}");
    if let Some(hash) = expected["sha256"].as_str() {
        let actual = champ::text::to_hex(&Sha256::digest(&answer.body));
        assert_eq!(actual, hash, "{what}");
    }
}

/// Calls whose replies hold fresh random bytes or the version of the server: only the status and the length,
/// where the length is fixed, are compared.
fn is_random(target: &str) -> bool {
    [
        "transaction/start",
        "login/addTotp",
        "login/addMount",
        "login/genBackupCodes",
        "login/registerWebauthnStart",
    ]
    .iter()
    .any(|call| target.contains(call))
}

async fn replay(node: &TestNode, name: &str, case: &Json) {
    let Some(body) = body(case) else {
        panic!("{name}: body was cut")
    };
    if let Some(millis) = signed_millis(case) {
        node.clock.set(millis);
    }
    let target = case["target"].as_str().unwrap();
    let answer = node.post(target, body).await;
    if is_random(target) {
        assert_eq!(answer.status, 200, "{target}: {}", answer.message());
        assert_eq!(
            Json::from(answer.body.len()),
            case["response"]["len"],
            "{target}"
        );
        return;
    }
    compare(name, case, &answer);
}

/// Signs carol up as the official Java client did.
async fn carol() -> TestNode {
    let mut config = config();
    config.default_quota_bytes = 0x19_0000_0000;
    let node = TestNode::with(config).await;
    for case in trace("java_signup").iter().take(2) {
        replay(&node, "java_signup", case).await;
    }
    node
}

#[tokio::test]
async fn java_network_build_is_served() {
    let node = TestNode::new().await;
    for case in trace("java_network_build").iter().skip(1) {
        replay(&node, "java_network_build", case).await;
    }
    // The list of names differs with the users of a server, and gzip output with its implementation.
    let answer = node.post("peergos/v0/core/getUsernamesGzip/", "").await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let mut json = String::new();
    std::io::Read::read_to_string(
        &mut flate2::read::GzDecoder::new(answer.body.as_slice()),
        &mut json,
    )
    .unwrap();
    assert_eq!(json, "[\"peergos\"]");
}

/// Everything up to the first upload, whose body was cut; what the uploads changed is left out after it.
#[tokio::test]
async fn java_signup_is_served_byte_for_byte() {
    let node = TestNode::with(config()).await;
    let cases = trace("java_signup");
    let whole = cases.iter().position(|case| body(case).is_none()).unwrap();
    assert!(whole >= 11, "{whole}");
    for case in &cases[..whole] {
        replay(&node, "java_signup", case).await;
    }
    // Reads below the roots that sign-up made are as good after it.
    let roots: Vec<_> = cases[..whole]
        .iter()
        .filter_map(|case| case["target"].as_str().unwrap().split_once("arg=z"))
        .map(|(_, rest)| rest.split('&').next().unwrap().to_owned())
        .collect();
    let mut later = 0;
    for case in &cases[whole..] {
        let target = case["target"].as_str().unwrap();
        let is_old_root = roots.iter().any(|root| target.contains(root.as_str()));
        if target.contains("getUserBats") || (is_old_root && target.contains("champ/get")) {
            replay(&node, "java_signup", case).await;
            later += 1;
        }
    }
    assert!(later > 0);
}

#[tokio::test]
async fn java_second_factors_are_served() {
    let node = carol().await;
    let cases = trace("java_totp_enrol_and_backup_codes");
    let add = &cases[0];
    replay(&node, "java_totp", add).await;
    // The code and credential of the recording belong to the key it was given.
    let enable = node.post(cases[1]["target"].as_str().unwrap(), "").await;
    assert_eq!(enable.message(), "Unknown credential id for user carol");
    let start = trace("java_mfa_delete_webauthn_start_mount_factor");
    for case in &start {
        let target = case["target"].as_str().unwrap();
        let is_independent = ["deleteMfa", "registerWebauthnStart", "addMount"]
            .iter()
            .any(|call| target.contains(call));
        if is_independent {
            replay(&node, "java_mfa", case).await;
        }
    }
}

/// Bob's sign-up was cut, so his name is put into the store: a claim by somebody else, with his key in its place.
async fn bob() -> TestNode {
    let clock = Arc::new(ManualClock::at(NOW));
    let store = Arc::new(MemoryStore::new());
    let config = Config {
        clock: clock.clone(),
        ..config()
    };
    let cases = trace("rust_signin");
    let target = cases[1]["target"].as_str().unwrap();
    let owner = target.split(['=', '&']).nth(1).unwrap();
    let owner: Owner = Owner(owner.parse().unwrap());
    let mut link = ClaimLink::sign(
        &"bob".parse().unwrap(),
        default_expiry(NOW / 1000),
        config.server_ids[0].clone(),
        &SecretSigningKey::from_seed(&[1; 32]),
    )
    .unwrap();
    link.owner = owner.clone();
    let chain = Value::List(vec![link.to_value()]).encode();
    let rows = Batch::new()
        .put(tables::CHAINS, &b"bob"[..], chain)
        .put(tables::KEYS, owner.cid().to_bytes(), &b"bob"[..])
        .put(tables::QUOTAS, &b"bob"[..], Value::Int(1 << 30).encode());
    let node = Node::with_store(config, store.clone()).await.unwrap();
    assert!(store.commit(rows).await.unwrap().is_committed());
    TestNode::of(node, clock)
}

#[tokio::test]
async fn rust_second_factors_are_served() {
    let node = bob().await;
    replay(&node, "rust_totp", &trace("rust_totp_enrol")[0]).await;
    for case in &trace("rust_mfa_delete_webauthn_start") {
        replay(&node, "rust_mfa", case).await;
    }
}

#[tokio::test]
async fn java_space_and_messages_are_served() {
    let node = carol().await;
    for case in &trace("java_space_request_payment_version_signups_waitlist") {
        let target = case["target"].as_str().unwrap();
        if target.contains("admin/version") {
            continue; // ours
        }
        if target.contains("waitlist") {
            continue; // a setting; see `waiting_list_follows_the_vectors`
        }
        if let Some(request) = target.split("req=").nth(1) {
            // The request's time is inside the signed record: `t` is an eight byte integer.
            let hex = request.split('&').next().unwrap();
            let at = hex.find("61741b").unwrap() + 6;
            node.clock
                .set(i64::from_str_radix(&hex[at..at + 16], 16).unwrap());
        }
        replay(&node, "java_space", case).await;
    }
    let cases = trace("java_usage_quota");
    replay(&node, "java_quota", &cases[1]).await;
    let messages = trace("java_server_messages");
    for case in &messages {
        replay(&node, "java_messages", case).await;
    }
}

/// The account of `signup_account.json`: the official Rust client's request, byte for byte.
#[tokio::test]
async fn rust_signup_is_served() {
    let json: Json = serde_json::from_str(include_str!("../vectors/signup_account.json")).unwrap();
    let account = &json["cases"][0];
    let mut config = config();
    config.server_ids = vec![account["serverId"].as_str().unwrap().parse().unwrap()];
    let node = TestNode::with(config).await;
    let decode = |field: &Json| {
        data_encoding::BASE64
            .decode(field.as_str().unwrap().as_bytes())
            .unwrap()
    };
    // The account was made a moment before its first files were.
    node.clock.set(
        account["expectedTree"][0]["createdEpochSeconds"]
            .as_i64()
            .unwrap()
            * 1000,
    );
    let request = decode(&account["signupRequestBody"]);
    assert_eq!(
        node.ok("peergos/v0/core/signup", request.clone()).await,
        [1]
    );
    // The answer was lost and the client asks again.
    assert_eq!(node.ok("peergos/v0/core/signup", request).await, [1]);
    let owner = account["identity"].as_str().unwrap();
    let link = decode(&account["claimChainLinkCbor"]);
    let name = champ::data_stream::Writer::new()
        .string(account["username"].as_str().unwrap())
        .finish();
    let chain = node.ok("peergos/v0/core/getChain", name).await;
    assert_eq!(chain, [vec![0x81], link].concat());
    let mut found = 0;
    for (cid, bytes) in account["blocks"].as_object().unwrap() {
        let answer = node
            .post(&format!("api/v0/block/get?arg={cid}&owner={owner}"), "")
            .await;
        if answer.status == 200 && !answer.body.is_empty() {
            assert_eq!(answer.body, decode(bytes));
            found += 1;
        }
    }
    assert!(found >= 2, "{found}");
}

/// Every trace parses, and its calls exist: nothing answers "unknown method" or 404.
#[tokio::test]
async fn every_recorded_call_exists() {
    let node = TestNode::new().await;
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for (name, _) in TRACES {
        for case in trace(name) {
            let target = case["target"].as_str().unwrap();
            let call = target.split('?').next().unwrap().to_owned();
            *calls.entry(call).or_default() += 1;
            let answer = node.post(target, body(&case).unwrap_or_default()).await;
            assert_ne!(answer.status, 404, "{target}");
            assert_ne!(answer.status, 405, "{target}");
            assert_ne!(answer.status, 500, "{target}");
            assert!(!answer.message().contains("Unknown method"), "{target}");
        }
    }
    assert!(calls.len() > 30, "{calls:?}");
}
