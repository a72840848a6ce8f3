//! Security keys through the calls, with an authenticator made of software (Spec: 08 §4.4).

use std::sync::Arc;

use bytes::Bytes;
use champ::{cbor::Record as _, text::to_hex};
use node::{
    Config, Node,
    clock::ManualClock,
    store::{MemoryStore, MetaStore as _, tables},
};
use pki::{
    keys::SecretSigningKey,
    wire::{
        login_data::LoginResponse,
        second_factor::{
            BackupCodes, FactorAnswer, MethodKind, MultiFactorMethods, MultiFactorRequest,
            MultiFactorResponse,
        },
    },
};

use super::{
    account::{Account, unique_millis},
    accounts::{code, enrol},
    harness::{Answer, NOW, TestNode, config},
};
use crate::webauthn::authenticator::{ALGORITHMS, Algorithm, Authenticator};

const TOO_MANY: &str = "Too many multi factor auth methods. Please delete some.";
const UNKNOWN_CHALLENGE: &str = "Security key refused: unknown challenge";
const UNKNOWN_ID: &str = "Unknown credential id for user alice";

/// A node whose store the test can look into.
async fn node_and_store() -> (TestNode, Arc<MemoryStore>) {
    let clock = Arc::new(ManualClock::at(NOW));
    let store = Arc::new(MemoryStore::new());
    let config = Config {
        clock: clock.clone(),
        ..config()
    };
    let node = Node::with_store(config, store.clone()).await.unwrap();
    (TestNode::of(node, clock), store)
}

async fn alice(node: &TestNode) -> Account {
    Account::sign_up(node, "alice", 7).await
}

/// An authenticator that knows the in-process node as `localhost`.
fn authenticator(algorithm: Algorithm, id: u8) -> Authenticator {
    Authenticator::new(algorithm, id, "localhost", "http://localhost:8000")
}

fn signed(node: &TestNode, account: &Account, call: &str, more: &str) -> String {
    use node::clock::Clock as _;
    let path = format!("peergos/v0/login/{call}");
    let millis = unique_millis(node.clock.now_millis());
    format!("{}{more}", account.signed(&path, millis))
}

async fn start(node: &TestNode, account: &Account) -> Vec<u8> {
    let target = signed(node, account, "registerWebauthnStart", "");
    let challenge = node.ok(&target, "").await;
    assert_eq!(challenge.len(), 32);
    challenge
}

async fn complete(
    node: &TestNode,
    account: &Account,
    name: &str,
    response: &MultiFactorResponse,
) -> Answer {
    let more = format!("&keyname={name}");
    let target = signed(node, account, "registerWebauthnComplete", &more);
    node.post(&target, response.encode()).await
}

async fn register(node: &TestNode, account: &Account, name: &str, key: &Authenticator) {
    let challenge = start(node, account).await;
    let answer = complete(node, account, name, &key.register(&challenge)).await;
    assert_eq!(answer.status, 200, "{}", answer.message());
    assert_eq!(answer.body, [0xf5]);
}

async fn delete(node: &TestNode, account: &Account, id: &[u8]) {
    let more = format!("&credid={}", to_hex(id));
    let target = signed(node, account, "deleteMfa", &more);
    assert_eq!(node.ok(&target, "").await, [0xf5]);
}

async fn factors(node: &TestNode, account: &Account) -> MultiFactorMethods {
    let target = signed(node, account, "listMfa", "");
    MultiFactorMethods::decode(&node.ok(&target, "").await).unwrap()
}

/// `getLogin` with the right password and nothing else.
async fn ask(node: &TestNode, account: &Account) -> LoginResponse {
    let answer = account.get_login(node, &account.login, NOW, "").await;
    assert_eq!(answer.status, 200, "{}", answer.message());
    LoginResponse::decode(&answer.body).unwrap()
}

async fn asked(node: &TestNode, account: &Account) -> MultiFactorRequest {
    match ask(node, account).await {
        LoginResponse::SecondFactor(request) => request,
        LoginResponse::Record(_) => panic!("no second factor is wanted"),
    }
}

/// `getLogin` with the right password and this answer.
async fn log_in(node: &TestNode, account: &Account, response: &MultiFactorResponse) -> Answer {
    let more = format!("&mfa={}", to_hex(&response.encode()));
    account.get_login(node, &account.login, NOW, &more).await
}

fn is_in(answer: &Answer) -> bool {
    answer.status == 200
        && matches!(
            LoginResponse::decode(&answer.body),
            Ok(LoginResponse::Record(_))
        )
}

#[tokio::test]
async fn keys_of_every_algorithm_register_and_log_in() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let mut keys = Vec::new();
    for (n, algorithm) in ALGORITHMS.into_iter().enumerate() {
        let key = authenticator(algorithm, 10 + n as u8);
        register(&node, &alice, &format!("key%20{n}"), &key).await;
        keys.push(key);
    }
    let listed = factors(&node, &alice).await.0;
    assert_eq!(listed.len(), 3);
    for (n, method) in listed.iter().enumerate() {
        assert_eq!(method.kind, MethodKind::WebAuthn);
        assert_eq!(method.name.as_str(), format!("key {n}"));
        assert_eq!(method.credential_id, keys[n].credential_id);
        assert_eq!(method.created_epoch_day, NOW / 86_400_000);
        assert!(method.is_enabled);
    }
    for key in &mut keys {
        for _ in 0..2 {
            let request = asked(&node, &alice).await;
            assert_eq!(request.methods.0, listed);
            let answer = log_in(&node, &alice, &key.assert(&request.challenge)).await;
            assert!(is_in(&answer), "{}", answer.message());
        }
    }
    // Not offered to clients that cannot use them, and asked for all the same.
    let answer = alice
        .get_login(&node, &alice.login, NOW, "&mfaTypes=1,3")
        .await;
    match LoginResponse::decode(&answer.body).unwrap() {
        LoginResponse::SecondFactor(request) => assert!(request.methods.0.is_empty()),
        LoginResponse::Record(_) => panic!("the record without a second factor"),
    }
}

/// Over a socket, where the origin has the port of the listener; and the answer of a page elsewhere.
#[tokio::test]
async fn a_listener_is_its_own_origin() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let served = node.serve().await;
    let origin = format!("http://{}", served.host());
    let mut key = Authenticator::new(Algorithm::Es256, 3, "localhost", &origin);
    let post = async |target: String, body: Vec<u8>| {
        served
            .request("POST", &format!("/{target}"), &[], &body)
            .await
    };
    let challenge = post(signed(&node, &alice, "registerWebauthnStart", ""), vec![]).await;
    assert_eq!(challenge.body.len(), 32);
    let target = signed(&node, &alice, "registerWebauthnComplete", "&keyname=k");
    let answer = post(target, key.register(&challenge.body).encode()).await;
    assert_eq!(answer.body, [0xf5], "{}", answer.message());
    let request = asked(&node, &alice).await;
    let login = |response: &MultiFactorResponse| {
        let time = pki::signed::SignedTime { epoch_millis: NOW };
        format!(
            "peergos/v0/login/getLogin?username=alice&author={}&auth={}&mfa={}",
            to_hex(&alice.login.public().encode()),
            to_hex(&time.sign(&alice.login)),
            to_hex(&response.encode())
        )
    };
    let answer = post(login(&key.assert(&request.challenge)), vec![]).await;
    assert!(is_in(&answer), "{}", answer.message());
    let request = asked(&node, &alice).await;
    key.origin = "http://localhost:1".to_owned();
    let answer = post(login(&key.assert(&request.challenge)), vec![]).await;
    assert_eq!(
        answer.message(),
        "Security key refused: origin is not that of this server"
    );
    served.stop().await;
}

#[tokio::test]
async fn a_public_node_is_known_by_its_host() {
    let mut config = config();
    config.public_host = Some("kastro.example.org".to_owned());
    let node = TestNode::with(config.clone()).await;
    let alice = alice(&node).await;
    let site = "https://kastro.example.org";
    let mut key = Authenticator::new(Algorithm::EdDsa, 3, "kastro.example.org", site);
    register(&node, &alice, "k", &key).await;
    let request = asked(&node, &alice).await;
    assert!(is_in(
        &log_in(&node, &alice, &key.assert(&request.challenge)).await
    ));
    config.public_host = Some("https://kastro.example.org".to_owned());
    let refused = Node::open(config).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "public host \"https://kastro.example.org\" is not a host name with an optional port"
    );
}

#[tokio::test]
async fn log_3_challenges_are_single_use_bounded_and_expire() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let mut key = authenticator(Algorithm::Es256, 3);
    register(&node, &alice, "k", &key).await;
    // While alice touches her key, strangers ask, and so do her other devices.
    let mine = asked(&node, &alice).await.challenge;
    let stranger = SecretSigningKey::from_seed(&[99; 32]);
    for _ in 0..9 {
        let answer = alice.get_login(&node, &stranger, NOW, "").await;
        assert_eq!(answer.message(), "Incorrect username or password");
    }
    for _ in 0..4 {
        asked(&node, &alice).await;
    }
    let response = key.assert(&mine);
    assert!(is_in(&log_in(&node, &alice, &response).await));
    // Replayed: by itself, and with a counter that has grown.
    for replay in [response, key.assert(&mine)] {
        let answer = log_in(&node, &alice, &replay).await;
        assert_eq!(answer.message(), UNKNOWN_CHALLENGE);
    }
    // Never given out.
    let answer = log_in(&node, &alice, &key.assert(&[0; 32])).await;
    assert_eq!(answer.message(), UNKNOWN_CHALLENGE);
    // The sixth displaces the first.
    let first = asked(&node, &alice).await.challenge;
    for _ in 0..5 {
        asked(&node, &alice).await;
    }
    let answer = log_in(&node, &alice, &key.assert(&first)).await;
    assert_eq!(answer.message(), UNKNOWN_CHALLENGE);
    // Ten minutes.
    for (millis, is_good) in [(599_999, true), (600_000, false)] {
        let challenge = asked(&node, &alice).await.challenge;
        node.clock.advance(millis);
        let answer = log_in(&node, &alice, &key.assert(&challenge)).await;
        assert_eq!(is_in(&answer), is_good, "{}", answer.message());
    }
    // A refused answer uses its challenge up as well.
    let challenge = asked(&node, &alice).await.challenge;
    key.flags = 0;
    let answer = log_in(&node, &alice, &key.assert(&challenge)).await;
    assert_eq!(
        answer.message(),
        "Security key refused: user was not present"
    );
    key.flags = 1;
    let answer = log_in(&node, &alice, &key.assert(&challenge)).await;
    assert_eq!(answer.message(), UNKNOWN_CHALLENGE);
}

#[tokio::test]
async fn log_3_counters_only_grow_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    config.data = Some(folder.path().to_owned());
    let node = TestNode::with(config.clone()).await;
    let alice = alice(&node).await;
    let mut counting = authenticator(Algorithm::Es256, 3);
    counting.counter = 5;
    let mut silent = authenticator(Algorithm::EdDsa, 4);
    silent.is_counting = false;
    register(&node, &alice, "counting", &counting).await;
    register(&node, &alice, "silent", &silent).await;
    let try_with = async |node: &TestNode, key: &mut Authenticator, counter: u32| {
        let challenge = asked(node, &alice).await.challenge;
        key.counter = counter.wrapping_sub(u32::from(key.is_counting));
        log_in(node, &alice, &key.assert(&challenge)).await
    };
    assert!(is_in(&try_with(&node, &mut counting, 6).await));
    assert!(is_in(&try_with(&node, &mut silent, 0).await));
    for stale in [6, 5, 1, 0] {
        let answer = try_with(&node, &mut counting, stale).await;
        assert_eq!(
            answer.message(),
            format!("Security key refused: counter {stale} is not above 6")
        );
    }
    node.node.close().await.unwrap();
    drop(node);
    let node = TestNode::with(config).await;
    assert_eq!(try_with(&node, &mut counting, 6).await.status, 400);
    assert!(is_in(&try_with(&node, &mut counting, 7).await));
    assert!(is_in(&try_with(&node, &mut silent, 0).await));
    node.node.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_3_one_answer_logs_in_once_however_often_it_is_sent() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let mut key = authenticator(Algorithm::EdDsa, 3);
    register(&node, &alice, "k", &key).await;
    let challenge = asked(&node, &alice).await.challenge;
    let response = key.assert(&challenge);
    let answers =
        futures_util::future::join_all((0..64).map(|_| log_in(&node, &alice, &response))).await;
    assert_eq!(answers.iter().filter(|answer| is_in(answer)).count(), 1);
    // Two answers of a copied key with the same counter, each to a challenge of its own.
    let challenges = [asked(&node, &alice).await, asked(&node, &alice).await];
    key.is_counting = false;
    key.counter += 1;
    let responses = challenges.map(|request| key.assert(&request.challenge));
    let answers = futures_util::future::join_all(
        responses
            .iter()
            .map(|response| log_in(&node, &alice, response)),
    )
    .await;
    assert_eq!(answers.iter().filter(|answer| is_in(answer)).count(), 1);
}

#[tokio::test]
async fn registrations_that_are_not_what_was_asked_for_are_refused() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let bob = Account::sign_up(&node, "bob", 8).await;
    let key = || authenticator(Algorithm::Es256, 3);
    let refused = async |response: MultiFactorResponse, why: &str| {
        let answer = complete(&node, &alice, "k", &response).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.message(), format!("Security key refused: {why}"));
        assert!(factors(&node, &alice).await.0.is_empty());
    };
    refused(key().register(&[0; 32]), "unknown challenge").await;
    let of_bob = start(&node, &bob).await;
    refused(key().register(&of_bob), "unknown challenge").await;
    let old = start(&node, &alice).await;
    node.clock.advance(600_000);
    refused(key().register(&old), "unknown challenge").await;
    let mut elsewhere = key();
    elsewhere.origin = "https://evil.example".to_owned();
    let challenge = start(&node, &alice).await;
    let response = elsewhere.register(&challenge);
    refused(response, "origin is not that of this server").await;
    refused(key().register(&challenge), "unknown challenge").await;
    let mut other_site = key();
    other_site.rp_id = "evil.example".to_owned();
    let response = other_site.register(&start(&node, &alice).await);
    refused(response, "relying party is not this server").await;
    let mut untouched = key();
    untouched.flags = 0b100;
    let response = untouched.register(&start(&node, &alice).await);
    refused(response, "user was not present").await;
    let mut renamed = key().register(&start(&node, &alice).await);
    renamed.credential_id = Bytes::from_static(&[4; 20]);
    refused(renamed, "credential id differs from the attested one").await;
    // A log-in is no registration.
    let response = key().assert(&start(&node, &alice).await);
    refused(
        response,
        "client data is of another type than webauthn.create",
    )
    .await;

    let challenge = start(&node, &alice).await;
    let answer = complete(&node, &alice, &"x".repeat(33), &key().register(&challenge)).await;
    assert_eq!(
        answer.message(),
        "Max second factor name length is 32 characters"
    );
    let code = MultiFactorResponse {
        credential_id: Bytes::from_static(&[3; 20]),
        answer: FactorAnswer::Code("123456".to_owned()),
    };
    assert_eq!(complete(&node, &alice, "k", &code).await.status, 400);
    let mut long = key().register(&challenge);
    if let FactorAnswer::WebAuthn { signature, .. } = &mut long.answer {
        *signature = vec![0; 2048].into();
    }
    assert_eq!(
        complete(&node, &alice, "k", &long).await.message(),
        "Input exceeds maximum size of 2048 bytes"
    );
    // None of that used the challenge.
    let longest = "x".repeat(32);
    let answer = complete(&node, &alice, &longest, &key().register(&challenge)).await;
    assert_eq!(answer.body, [0xf5], "{}", answer.message());
}

#[tokio::test]
async fn a_credential_id_belongs_to_one_key_of_one_user() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let bob = Account::sign_up(&node, "bob", 8).await;
    let key = authenticator(Algorithm::Es256, 3);
    register(&node, &alice, "k", &key).await;
    let other = authenticator(Algorithm::EdDsa, 3);
    for account in [&alice, &bob] {
        let response = other.register(&start(&node, account).await);
        let answer = complete(&node, account, "other", &response).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.message(), "This security key is already registered");
    }
    assert_eq!(factors(&node, &alice).await.0.len(), 1);
    assert!(factors(&node, &bob).await.0.is_empty());
    // Somebody else's deletion frees nothing; the owner's does.
    delete(&node, &bob, &key.credential_id).await;
    let response = other.register(&start(&node, &bob).await);
    assert_eq!(complete(&node, &bob, "b", &response).await.status, 400);
    delete(&node, &alice, &key.credential_id).await;
    register(&node, &bob, "b", &other).await;
    // The id of a factor of another kind is taken as well.
    let totp = enrol(&node, &alice, "addTotp", "enableTotp", "").await;
    let mut copied = authenticator(Algorithm::EdDsa, 5);
    copied.credential_id = totp.credential_id.to_vec();
    let response = copied.register(&start(&node, &alice).await);
    assert_eq!(complete(&node, &alice, "c", &response).await.status, 400);
}

#[tokio::test]
async fn log_6_ten_factors_are_the_most() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    for n in 0..9 {
        register(&node, &alice, "k", &authenticator(Algorithm::EdDsa, n)).await;
    }
    let challenges = [start(&node, &alice).await, start(&node, &alice).await];
    let tenth = authenticator(Algorithm::EdDsa, 9).register(&challenges[0]);
    assert_eq!(complete(&node, &alice, "k", &tenth).await.status, 200);
    let eleventh = authenticator(Algorithm::EdDsa, 10).register(&challenges[1]);
    assert_eq!(
        complete(&node, &alice, "k", &eleventh).await.message(),
        TOO_MANY
    );
    for call in ["registerWebauthnStart", "addTotp", "addMount"] {
        let target = signed(&node, &alice, call, "&name=m");
        assert_eq!(node.refused(&target, "").await, TOO_MANY);
    }
    delete(&node, &alice, &[3; 20]).await;
    register(&node, &alice, "k", &authenticator(Algorithm::EdDsa, 10)).await;
}

#[tokio::test]
async fn backup_codes_go_with_the_last_key() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let keys = [3, 4].map(|id| authenticator(Algorithm::EdDsa, id));
    register(&node, &alice, "a", &keys[0]).await;
    register(&node, &alice, "b", &keys[1]).await;
    let body = node
        .ok(&signed(&node, &alice, "genBackupCodes", ""), "")
        .await;
    let codes = BackupCodes::decode(&body).unwrap();
    let kinds = async || -> Vec<_> {
        let listed = factors(&node, &alice).await.0;
        listed.iter().map(|method| method.kind).collect()
    };
    let response = MultiFactorResponse {
        credential_id: Bytes::copy_from_slice(&codes.credential_id),
        answer: FactorAnswer::Code(codes.codes[0].clone()),
    };
    assert!(is_in(&log_in(&node, &alice, &response).await));
    delete(&node, &alice, &keys[0].credential_id).await;
    assert_eq!(
        kinds().await,
        [MethodKind::WebAuthn, MethodKind::BackupCodes]
    );
    let totp = enrol(&node, &alice, "addTotp", "enableTotp", "").await;
    delete(&node, &alice, &keys[1].credential_id).await;
    assert_eq!(kinds().await, [MethodKind::BackupCodes, MethodKind::Totp]);
    delete(&node, &alice, &totp.credential_id).await;
    assert!(kinds().await.is_empty());
    assert!(matches!(ask(&node, &alice).await, LoginResponse::Record(_)));
}

/// Every kind of answer against every kind of factor, and ids that are nobody's or somebody else's.
#[tokio::test]
async fn prg_012_the_stored_type_decides() {
    let (node, store) = node_and_store().await;
    let alice = alice(&node).await;
    let bob = Account::sign_up(&node, "bob", 8).await;
    let mut key = authenticator(Algorithm::Es256, 3);
    let mut key_of_bob = authenticator(Algorithm::Es256, 4);
    register(&node, &alice, "k", &key).await;
    register(&node, &bob, "k", &key_of_bob).await;
    let totp = enrol(&node, &alice, "addTotp", "enableTotp", "").await;
    let codes = node
        .ok(&signed(&node, &alice, "genBackupCodes", ""), "")
        .await;
    let codes = BackupCodes::decode(&codes).unwrap();
    let row = async || {
        store
            .get(tables::SECOND_FACTORS, b"alice")
            .await
            .unwrap()
            .unwrap()
    };
    let before = row().await;
    let assertion = async |key: &mut Authenticator, id: &[u8]| {
        let mut response = key.assert(&asked(&node, &alice).await.challenge);
        response.credential_id = Bytes::copy_from_slice(id);
        log_in(&node, &alice, &response).await
    };
    for id in [totp.credential_id, codes.credential_id] {
        let answer = assertion(&mut key, &id).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.message(), "Not a webauthn credential!");
    }
    let long = vec![3; 1023];
    let id_of_bob = key_of_bob.credential_id.clone();
    for id in [&[][..], &[9; 20], &id_of_bob, &long] {
        assert_eq!(assertion(&mut key, id).await.message(), UNKNOWN_ID);
        assert_eq!(assertion(&mut key_of_bob, id).await.message(), UNKNOWN_ID);
    }
    // The right id with somebody else's key.
    assert_eq!(
        assertion(&mut key_of_bob, &[3; 20]).await.message(),
        "Security key refused: signature does not verify"
    );
    let code_for = |id: &[u8], code: &str| MultiFactorResponse {
        credential_id: Bytes::copy_from_slice(id),
        answer: FactorAnswer::Code(code.to_owned()),
    };
    for code in [code(&totp, NOW), codes.codes[0].clone()] {
        let answer = log_in(&node, &alice, &code_for(&key.credential_id, &code)).await;
        assert_eq!(answer.message(), "Not a code based credential!");
    }
    let answer = log_in(&node, &alice, &code_for(&[], "123456")).await;
    assert_eq!(answer.message(), UNKNOWN_ID);
    // Longer than any id may be; one of a MiB is longer than a request line may be.
    let with_id = |length| {
        let response = code_for(&vec![3; length], "123456");
        format!("&mfa={}", to_hex(&response.encode()))
    };
    for length in [1024, 20_000] {
        let more = with_id(length);
        let answer = alice.get_login(&node, &alice.login, NOW, &more).await;
        assert_eq!(answer.status, 400);
        assert!(answer.message().starts_with("Invalid second factor"));
    }
    let served = node.serve().await;
    let target = format!(
        "/peergos/v0/login/getLogin?username=alice{}",
        with_id(1 << 20)
    );
    let answer = served.request("POST", &target, &[], &[]).await;
    assert!((400..500).contains(&answer.status), "{answer:?}");
    served.stop().await;
    assert_eq!(row().await, before);
    assert!(is_in(&assertion(&mut key, &[3; 20]).await));
    assert_ne!(row().await, before);
}

/// Who guesses codes locks codes, not keys; and a wrong password neither learns nor uses up anything.
#[tokio::test]
async fn log_1_a_key_opens_an_account_whose_codes_are_being_guessed() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let mut key = authenticator(Algorithm::EdDsa, 3);
    register(&node, &alice, "k", &key).await;
    let totp = enrol(&node, &alice, "addTotp", "enableTotp", "").await;
    let guess = MultiFactorResponse {
        credential_id: Bytes::copy_from_slice(&totp.credential_id),
        answer: FactorAnswer::Code("000000".to_owned()),
    };
    let mut last = 0;
    for _ in 0..6 {
        last = log_in(&node, &alice, &guess).await.status;
    }
    assert_eq!(last, 429);
    // Nor do refused keys lock anything.
    for _ in 0..6 {
        let answer = log_in(&node, &alice, &key.assert(&[0; 32])).await;
        assert_eq!(answer.message(), UNKNOWN_CHALLENGE);
    }
    let challenge = asked(&node, &alice).await.challenge;
    let response = key.assert(&challenge);
    let more = format!("&mfa={}", to_hex(&response.encode()));
    let stranger = SecretSigningKey::from_seed(&[99; 32]);
    let answer = alice.get_login(&node, &stranger, NOW, &more).await;
    assert_eq!(answer.message(), "Incorrect username or password");
    assert!(is_in(&log_in(&node, &alice, &response).await));
}
