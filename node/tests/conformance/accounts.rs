//! Login data, password change, second factors (Spec: 08).

use champ::{cbor::Record as _, text::to_hex};
use hmac::{Hmac, KeyInit as _, Mac as _};
use pki::{
    keys::SecretSigningKey,
    signed::SignedTime,
    wire::{
        block_group::BlockFormat,
        login_data::{LoginData, LoginResponse, RootChange},
        op_log::BlockWrite,
        second_factor::{
            BackupCodes, FactorAnswer, MethodKind, MultiFactorMethods, MultiFactorResponse, TotpKey,
        },
    },
};

use super::{
    account::{Account, key, sign_block, unique_millis, update},
    harness::{Answer, NOW, TestNode},
};

const WRONG: &str = "Incorrect username or password";

async fn alice(node: &TestNode) -> Account {
    Account::sign_up(node, "alice", 7).await
}

fn record(answer: &Answer) -> u8 {
    match LoginResponse::decode(&answer.body).unwrap() {
        LoginResponse::Record(record) => record.nonce[0],
        LoginResponse::SecondFactor(_) => panic!("a second factor is wanted"),
    }
}

#[tokio::test]
async fn log_2_login_data_needs_key_and_time() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    assert_eq!(
        record(&alice.get_login(&node, &alice.login, NOW, "").await),
        1
    );
    let day = 86_400_000;
    for good in [NOW - day, NOW + day] {
        assert_eq!(
            alice.get_login(&node, &alice.login, good, "").await.status,
            200
        );
    }
    for stale in [NOW - day - 1, NOW + day + 1] {
        let answer = alice.get_login(&node, &alice.login, stale, "").await;
        assert_eq!(answer.message(), "Stale auth time, is your clock accurate?");
    }
    let other = SecretSigningKey::from_seed(&[99; 32]);
    assert_eq!(
        alice.get_login(&node, &other, NOW, "").await.message(),
        WRONG
    );
    // The author's key with a time signed by another.
    let time = SignedTime { epoch_millis: NOW };
    let forged = format!(
        "peergos/v0/login/getLogin?username=alice&author={}&auth={}",
        to_hex(&alice.login.public().encode()),
        to_hex(&time.sign(&other))
    );
    assert_eq!(node.refused(&forged, "").await, "Invalid signature");
    let nobody = Account::new("nobody", 9);
    assert_eq!(
        nobody.get_login(&node, &other, NOW, "").await.message(),
        "No value present"
    );
    for bad in [
        "?username=x",
        "?auth=00",
        "?username=x&author=zz&auth=00",
        "?username=x&author=ff&auth=00",
        "?username=x&author=00&auth=0",
    ] {
        node.refused(&format!("peergos/v0/login/getLogin{bad}"), "")
            .await;
    }
    for bad in ["&mfa=ff", "&mfa=zz", "&mfaTypes=x"] {
        assert_eq!(
            alice.get_login(&node, &alice.login, NOW, bad).await.status,
            400
        );
    }
}

#[tokio::test]
async fn login_data_is_replaced_only_by_its_owner_and_old_data_does_not_come_back() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let second = SecretSigningKey::from_seed(&[50; 32]);
    let old = alice.login_data(&alice.login, 1);
    let new = alice.login_data(&second, 2);
    let mallory = Account {
        name: "alice".to_owned(),
        ..Account::new("alice", 66)
    };
    assert_eq!(
        mallory.set_login(&node, &new).await.message(),
        "Invalid signature"
    );
    assert_eq!(alice.set_login(&node, &new).await.body, [1]);
    assert_eq!(record(&alice.get_login(&node, &second, NOW, "").await), 2);
    assert_eq!(
        alice
            .get_login(&node, &alice.login, NOW, "")
            .await
            .message(),
        WRONG
    );
    // A recorded request of the old password is a replay.
    assert_eq!(alice.set_login(&node, &old).await.status, 400);
    assert_eq!(record(&alice.get_login(&node, &second, NOW, "").await), 2);
    // The same key with new content is no replay.
    assert_eq!(
        alice
            .set_login(&node, &alice.login_data(&second, 3))
            .await
            .body,
        [1]
    );
    let nobody = Account::new("nobody", 9);
    let data = nobody.login_data(&second, 1);
    assert_eq!(
        nobody.set_login(&node, &data).await.message(),
        "No value present"
    );
    let target = "peergos/v0/login/setLogin?username=alice&auth=00";
    assert_eq!(
        node.refused(target, vec![0; 16_385]).await,
        "Input exceeds maximum size of 16384 bytes"
    );
    node.refused("peergos/v0/login/setLogin?username=alice", old.encode())
        .await;
    node.refused(target, &b"\xff"[..]).await;
    for n in 0..20 {
        let answer = alice.set_login(&node, &alice.login_data(&second, n)).await;
        if answer.status == 429 {
            return;
        }
    }
    panic!("writes of login data are not limited");
}

/// A password change to this login key: new root block, pointer and login data in one call.
async fn change(
    alice: &Account,
    reader: &SecretSigningKey,
    original: Option<&champ::Cid>,
    sequence: i64,
) -> LoginData {
    let mut root = alice.identity_root().await;
    root.data.public = Some(champ::Cid::of_cbor(&[sequence as u8]));
    let block = root.data.to_block().unwrap();
    let mut data = alice.login_data(reader, sequence as u8);
    data.root_change = Some(RootChange {
        block: BlockWrite {
            block: block.bytes().clone(),
            format: BlockFormat::DagCbor,
            signature: sign_block(&alice.identity, block.cid()),
            writer: alice.identity.writer(),
        },
        pointer: update(&alice.identity, original, Some(block.cid()), Some(sequence)),
    });
    data
}

#[tokio::test]
async fn log_7_a_password_change_is_whole_or_not_at_all() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let root = alice.identity_root().await.cid();
    let second = SecretSigningKey::from_seed(&[50; 32]);
    let before = alice.pointer(&node, &alice.identity.writer()).await;
    // Stale: the new password does not log in, not even from some staging area.
    let stale = change(&alice, &second, None, 2).await;
    let answer = alice.set_login(&node, &stale).await;
    assert_eq!(answer.message(), format!("PointerCAS:{root},1,EMPTY"));
    // Block and pointer that do not belong together, or to somebody else.
    let good = change(&alice, &second, Some(&root), 2).await;
    let mut spoiled = Vec::new();
    for part in 0..5 {
        let mut data = good.clone();
        let parts = data.root_change.as_mut().unwrap();
        match part {
            0 => parts.block.signature = sign_block(&alice.home, &parts.block.cid()),
            1 => parts.block.writer = alice.home.writer(),
            2 => parts.pointer.writer = alice.home.writer(),
            3 => parts.block.format = BlockFormat::Raw,
            _ => parts.pointer = update(&alice.identity, Some(&root), None, Some(2)),
        }
        spoiled.push(data);
    }
    for data in spoiled {
        assert_eq!(alice.set_login(&node, &data).await.status, 400);
    }
    assert_eq!(alice.pointer(&node, &alice.identity.writer()).await, before);
    assert_eq!(
        record(&alice.get_login(&node, &alice.login, NOW, "").await),
        1
    );
    assert_eq!(
        alice.get_login(&node, &second, NOW, "").await.message(),
        WRONG
    );
    // And now the real one.
    assert_eq!(alice.set_login(&node, &good).await.body, [1]);
    let pointer = &good.root_change.as_ref().unwrap().pointer;
    assert_eq!(
        alice.pointer(&node, &alice.identity.writer()).await,
        pointer.signed
    );
    assert_eq!(record(&alice.get_login(&node, &second, NOW, "").await), 2);
    assert_eq!(
        alice
            .get_login(&node, &alice.login, NOW, "")
            .await
            .message(),
        WRONG
    );
    // Back to the old password with a new root is a change like any other.
    let current = good.root_change.as_ref().unwrap().block.cid();
    let back = change(&alice, &alice.login, Some(&current), 3).await;
    assert_eq!(alice.set_login(&node, &back).await.body, [1]);
    assert_eq!(
        record(&alice.get_login(&node, &alice.login, NOW, "").await),
        3
    );
}

pub(super) fn code(key: &TotpKey, millis: i64) -> String {
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(&key.key).unwrap();
    mac.update(&(millis / 30_000).to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let at = usize::from(digest[19] & 15);
    let word = u32::from_be_bytes(digest[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", word % 1_000_000)
}

async fn factors(node: &TestNode, alice: &Account, millis: i64) -> MultiFactorMethods {
    let target = alice.signed("peergos/v0/login/listMfa", millis);
    MultiFactorMethods::decode(&node.ok(&target, "").await).unwrap()
}

/// A call with an authorisation of its own: each works once.
pub(super) fn signed(alice: &Account, call: &str, more: &str) -> String {
    format!(
        "{}{more}",
        alice.signed(&format!("peergos/v0/login/{call}"), unique_millis(NOW))
    )
}

/// Enrols a time based factor and returns its key.
pub(super) async fn enrol(
    node: &TestNode,
    alice: &Account,
    add: &str,
    enable: &str,
    more: &str,
) -> TotpKey {
    let text = node.ok(&signed(alice, add, more), "").await;
    let key: TotpKey = String::from_utf8(text).unwrap().parse().unwrap();
    let more = format!(
        "&credid={}&code={}",
        to_hex(&key.credential_id),
        code(&key, NOW - 30_000)
    );
    assert_eq!(node.ok(&signed(alice, enable, &more), "").await, [0xf5]);
    key
}

fn answer(id: &[u8], code: &str) -> String {
    let response = MultiFactorResponse {
        credential_id: bytes::Bytes::copy_from_slice(id),
        answer: FactorAnswer::Code(code.to_owned()),
    };
    format!("&mfaTypes=1,2,3,4&mfa={}", to_hex(&response.encode()))
}

#[tokio::test]
async fn log_6_factor_calls_need_the_identity_and_their_own_path() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    assert!(factors(&node, &alice, NOW).await.0.is_empty());
    let list = "peergos/v0/login/listMfa";
    for (path, text) in [
        (
            "peergos/v0/login/addTotp",
            "Illegal path for signed request: peergos/v0/login/addTotp",
        ),
        (
            "/peergos/v0/login/listMfa",
            "Illegal path for signed request: /peergos/v0/login/listMfa",
        ),
    ] {
        let target = alice.signed(path, NOW).replace(path, list);
        assert_eq!(node.refused(&target, "").await, text);
    }
    let stale = alice.signed(list, NOW - 86_400_001);
    assert_eq!(
        node.refused(&stale, "").await,
        "Stale auth time, is your clock accurate?"
    );
    let mallory = Account {
        name: "alice".to_owned(),
        ..Account::new("alice", 66)
    };
    assert_eq!(
        node.refused(&mallory.signed(list, NOW), "").await,
        "Invalid signature"
    );
    assert_eq!(
        node.refused(&Account::new("nobody", 9).signed(list, NOW), "")
            .await,
        "No value present"
    );
    // Changing calls take a shorter window.
    let old = alice.signed("peergos/v0/login/addTotp", NOW - 3_600_001);
    assert_eq!(
        node.refused(&old, "").await,
        "Stale auth time, is your clock accurate?"
    );
    let unknown = signed(
        &alice,
        "enableTotp",
        &format!("&credid={}&code=000000", "00".repeat(32)),
    );
    assert_eq!(
        node.refused(&unknown, "").await,
        "Unknown credential id for user alice"
    );
    assert_eq!(
        node.refused(&signed(&alice, "genBackupCodes", ""), "")
            .await,
        "Please set up an authenticator app or security key before generating backup codes."
    );
    let long = signed(&alice, "addMount", &format!("&name={}", "x".repeat(33)));
    assert_eq!(
        node.refused(&long, "").await,
        "Second factor names must be smaller than 33 characters"
    );
    assert_eq!(
        node.ok(&signed(&alice, "registerWebauthnStart", ""), "")
            .await
            .len(),
        32
    );
    let complete = signed(&alice, "registerWebauthnComplete", "&keyname=k");
    assert_eq!(
        node.refused(&complete, vec![0; 2049]).await,
        "Input exceeds maximum size of 2048 bytes"
    );
    node.refused(&complete, &b"\xa0"[..]).await;
    assert_eq!(
        node.ok(
            &signed(&alice, "deleteMfa", &format!("&credid={}", "00".repeat(32))),
            ""
        )
        .await,
        [0xf5]
    );
}

#[tokio::test]
async fn log_4_codes_are_checked_once_and_logins_wait_for_them() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    // An unverified factor changes nothing.
    node.ok(&signed(&alice, "addTotp", ""), "").await;
    assert_eq!(
        record(&alice.get_login(&node, &alice.login, NOW, "").await),
        1
    );
    let key = enrol(&node, &alice, "addTotp", "enableTotp", "").await;
    let listed = factors(&node, &alice, NOW).await.0;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (
            listed[0].kind,
            listed[0].name.as_str(),
            listed[0].is_enabled
        ),
        (MethodKind::Totp, "", true)
    );
    // LOG-2: a wrong password learns nothing about factors.
    let other = SecretSigningKey::from_seed(&[99; 32]);
    assert_eq!(
        alice.get_login(&node, &other, NOW, "").await.message(),
        WRONG
    );
    let asked = alice
        .get_login(&node, &alice.login, NOW, "&mfaTypes=1,2,3,4")
        .await;
    let LoginResponse::SecondFactor(request) = LoginResponse::decode(&asked.body).unwrap() else {
        panic!()
    };
    assert_eq!(request.methods.0, listed);
    let none = alice
        .get_login(&node, &alice.login, NOW, "&mfaTypes=2")
        .await;
    let LoginResponse::SecondFactor(request) = LoginResponse::decode(&none.body).unwrap() else {
        panic!()
    };
    assert!(request.methods.0.is_empty());
    let log_in = async |code: &str| {
        alice
            .get_login(&node, &alice.login, NOW, &answer(&key.credential_id, code))
            .await
    };
    let wrong = format!(
        "Invalid TOTP code for credId {}",
        to_hex(&key.credential_id)
    );
    assert_eq!(log_in(&code(&key, NOW + 30_000)).await.message(), wrong);
    assert_eq!(record(&log_in(&code(&key, NOW)).await), 1);
    assert_eq!(log_in(&code(&key, NOW)).await.message(), wrong);
    assert_eq!(log_in(&code(&key, NOW - 30_000)).await.message(), wrong);
    let unknown = alice
        .get_login(&node, &alice.login, NOW, &answer(&[0; 32], "123456"))
        .await;
    assert_eq!(unknown.message(), "Unknown credential id for user alice");
    // Five wrong ones: no more until the window has passed.
    assert_eq!(log_in("123456").await.message(), wrong);
    let limited = log_in(&code(&key, NOW)).await;
    assert_eq!(limited.status, 429);
    assert!(
        limited
            .header("trailer")
            .unwrap()
            .starts_with("Rate+Limit%3A+")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_5_backup_codes_work_once_and_go_with_the_last_factor() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let key = enrol(&node, &alice, "addTotp", "enableTotp", "").await;
    let body = node.ok(&signed(&alice, "genBackupCodes", ""), "").await;
    let codes = BackupCodes::decode(&body).unwrap();
    assert_eq!(codes.codes.len(), 10);
    let listed = factors(&node, &alice, NOW).await.0;
    assert_eq!(listed[1].name.as_str(), "10");
    let entered = codes.codes[0].to_ascii_uppercase();
    let entered = format!("{}-{}", &entered[..5], &entered[5..]);
    let more = answer(&codes.credential_id, &entered);
    let answers = futures_util::future::join_all(
        (0..4).map(|_| alice.get_login(&node, &alice.login, NOW, &more)),
    )
    .await;
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 200).count(),
        1
    );
    let used = format!(
        "Invalid backup code for credId {}",
        to_hex(&codes.credential_id)
    );
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(refused.message(), used);
    }
    // A wrong password burns nothing.
    let other = SecretSigningKey::from_seed(&[99; 32]);
    let second = answer(&codes.credential_id, &codes.codes[1]);
    assert_eq!(
        alice.get_login(&node, &other, NOW, &second).await.message(),
        WRONG
    );
    assert_eq!(
        alice
            .get_login(&node, &alice.login, NOW, &second)
            .await
            .status,
        200
    );
    assert_eq!(factors(&node, &alice, NOW).await.0[1].name.as_str(), "8");
    let delete = signed(
        &alice,
        "deleteMfa",
        &format!("&credid={}", to_hex(&key.credential_id)),
    );
    assert_eq!(node.ok(&delete, "").await, [0xf5]);
    assert!(factors(&node, &alice, NOW).await.0.is_empty());
    assert_eq!(
        record(&alice.get_login(&node, &alice.login, NOW, "").await),
        1
    );
}

#[tokio::test]
async fn mount_factors_answer_and_never_ask() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let mount = enrol(
        &node,
        &alice,
        "addMount",
        "enableMount",
        "&name=my%20laptop",
    )
    .await;
    assert_eq!(
        factors(&node, &alice, NOW).await.0[0].name.as_str(),
        "my laptop"
    );
    assert_eq!(
        record(&alice.get_login(&node, &alice.login, NOW, "").await),
        1
    );
    let totp = enrol(&node, &alice, "addTotp", "enableTotp", "").await;
    let wrong_kind = signed(
        &alice,
        "enableMount",
        &format!("&credid={}&code=000000", to_hex(&totp.credential_id)),
    );
    assert_eq!(
        node.refused(&wrong_kind, "").await,
        format!(
            "Second factor {} is not a MOUNT!",
            to_hex(&totp.credential_id)
        )
    );
    let asked = alice
        .get_login(&node, &alice.login, NOW, "&mfaTypes=1,2,3,4")
        .await;
    let LoginResponse::SecondFactor(request) = LoginResponse::decode(&asked.body).unwrap() else {
        panic!()
    };
    assert!(
        request
            .methods
            .0
            .iter()
            .all(|method| method.kind == MethodKind::Totp)
    );
    let more = answer(&mount.credential_id, &code(&mount, NOW));
    assert_eq!(
        record(&alice.get_login(&node, &alice.login, NOW, &more).await),
        1
    );
    // Eleven are too many.
    for n in 0..8 {
        node.ok(&signed(&alice, "addMount", &format!("&name=n{n}")), "")
            .await;
    }
    assert_eq!(
        node.refused(&signed(&alice, "addMount", "&name=one"), "")
            .await,
        "Too many multi factor auth methods. Please delete some."
    );
}

#[tokio::test(start_paused = true)]
async fn log_1_failed_logins_are_held_back_and_a_right_one_is_not() {
    let node = TestNode::in_memory().await;
    let alice = alice(&node).await;
    let other = SecretSigningKey::from_seed(&[99; 32]);
    let mut waited = Vec::new();
    for _ in 0..14 {
        let before = tokio::time::Instant::now();
        assert_eq!(
            alice.get_login(&node, &other, NOW, "").await.message(),
            WRONG
        );
        waited.push(before.elapsed().as_secs());
    }
    assert!(
        waited[..10].iter().all(|seconds| *seconds == 0),
        "{waited:?}"
    );
    assert!(waited[13] >= 8, "{waited:?}");
    let before = tokio::time::Instant::now();
    assert_eq!(
        record(&alice.get_login(&node, &alice.login, NOW, "").await),
        1
    );
    assert_eq!(before.elapsed().as_secs(), 0);
    assert_ne!(key(7, 1).hash(), key(7, 2).hash());
}
