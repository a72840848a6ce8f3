//! Accounts made by official clients and by us (Spec: 21 §5, §6, §14).

use bytes::Bytes;
use champ::{Block, Cid, access::BatWithId, cbor::Record};
use cryptree::{ClientError, Session, client::Detail};
use data_encoding::BASE64;
use pki::{
    chain::{ClaimChain, ClaimLink},
    keys::{Owner, PublicSigningKey, Writer},
    wire::login_data::OpaqueCipherText,
};
use serde_json::Value as Json;

use super::{PASSWORD, client, empty_machine, signed_up};
use crate::fake::FakeNode;

pub(super) struct Account {
    pub(super) node: std::sync::Arc<FakeNode>,
    pub(super) case: Json,
}

/// Loads an account as a server would hold it.
pub(super) fn load(file: &str) -> Account {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let json: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let case = json["cases"][0].clone();
    let bytes =
        |field: &Json| Bytes::from(BASE64.decode(field.as_str().unwrap().as_bytes()).unwrap());
    let node = FakeNode::new();
    {
        let mut state = node.state.lock().unwrap();
        let owner: Owner = case["identity"].as_str().unwrap().parse().unwrap();
        let name = case["username"].as_str().unwrap().to_owned();
        let link = ClaimLink::decode(&bytes(&case["claimChainLinkCbor"])).unwrap();
        state.chains.insert(name.clone(), ClaimChain::single(link));
        let mut space = std::collections::HashMap::new();
        for (cid, block) in case["blocks"].as_object().unwrap() {
            let cid: Cid = cid.parse().unwrap();
            space.insert(cid.clone(), Block::verified(cid, bytes(block)).unwrap());
        }
        state.blocks.insert(owner.clone(), space);
        for pointer in case["pointers"].as_array().unwrap() {
            let writer: Writer = pointer["writer"].as_str().unwrap().parse().unwrap();
            state.writers.insert(writer.clone(), owner.clone());
            state.pointers.insert(writer, bytes(&pointer["signed"]));
        }
        let bats = case["mirrorBats"].as_array().unwrap().iter().map(|bat| {
            let cbor = data_encoding::HEXLOWER.decode(bat["cbor"].as_str().unwrap().as_bytes());
            BatWithId::decode(&cbor.unwrap()).unwrap()
        });
        state.bats.insert(name.clone(), bats.collect());
        if !case["loginData"].is_null() {
            let reader = data_encoding::HEXLOWER
                .decode(case["loginPublicKeyCbor"].as_str().unwrap().as_bytes())
                .unwrap();
            let record = OpaqueCipherText::decode(&bytes(&case["userStaticData"])).unwrap();
            let reader = PublicSigningKey::decode(&reader).unwrap();
            state.logins.insert(name, (reader, record));
        }
    }
    Account { node, case }
}

/// Walks everything below `path` and describes it as the vectors do.
async fn tree(session: &Session, path: String, out: &mut Vec<Json>) {
    let entry = session.stat(&path).await.unwrap();
    let mut described = serde_json::json!({
        "path": path,
        "name": entry.name,
        "isDirectory": entry.is_directory,
        "size": entry.size_bytes.unwrap(),
        "mimeType": entry.mime_type.unwrap(),
        "isHidden": entry.is_hidden.unwrap(),
        "modifiedEpochSeconds": entry.modified.unwrap().epoch_seconds(),
        "modifiedNanos": entry.modified.unwrap().nanos(),
        "createdEpochSeconds": entry.created.unwrap().epoch_seconds(),
        "createdNanos": entry.created.unwrap().nanos(),
        "capability": session.capability_link(&path).await.unwrap(),
    });
    if entry.is_directory {
        out.push(described);
        let listing = session.list(&path, Detail::Full).await.unwrap();
        assert!(listing.damaged.is_empty());
        let mut names: Vec<String> = listing.entries.into_iter().map(|e| e.name).collect();
        names.sort();
        for name in names {
            Box::pin(tree(session, format!("{path}/{name}"), out)).await;
        }
    } else {
        let content = session.read(&path, 1 << 30).await.unwrap();
        let digest = Cid::of_raw(&content).hash().digest().to_vec();
        described["sha256"] = data_encoding::HEXLOWER.encode(&digest).into();
        out.push(described);
    }
}

async fn opens_as_stated(file: &str) {
    let Account { node, case } = load(file);
    let name = case["username"].as_str().unwrap();
    let password = case["password"].as_str().unwrap();
    let client = client(&node, 7);
    let wrong = client.sign_in(name, "not the password").await;
    assert!(
        matches!(wrong, Err(ClientError::WrongCredentials)),
        "{wrong:?}"
    );
    let session = client
        .sign_in(name, password)
        .await
        .unwrap()
        .done()
        .unwrap();
    has_expected_tree(&session, &case).await;
}

/// Compares everything in an account with what the vector says.
pub(super) async fn has_expected_tree(session: &Session, case: &Json) {
    let mut found = Vec::new();
    tree(session, format!("/{}", session.username()), &mut found).await;
    let expected = case["expectedTree"].as_array().unwrap();
    assert_eq!(found.len(), expected.len());
    for expected in expected {
        let found = found.iter().find(|f| f["path"] == expected["path"]);
        let found = found.unwrap_or_else(|| panic!("{} is not found", expected["path"]));
        for (field, value) in expected.as_object().unwrap() {
            if field != "contentHex" && field != "treeHashRoot" {
                assert_eq!(&found[field], value, "{} {field}", expected["path"]);
            }
        }
    }
}

#[tokio::test]
async fn account_of_the_official_native_client_opens_as_stated() {
    opens_as_stated("signup_account.json").await;
}

#[tokio::test]
async fn account_of_the_official_java_client_opens_as_stated() {
    opens_as_stated("signup_account_java.json").await;
}

#[tokio::test]
async fn account_of_the_old_layout_opens_as_stated() {
    opens_as_stated("signup_account_legacy.json").await;
}

#[tokio::test]
async fn own_account_signs_in_from_an_empty_machine() {
    let (node, session) = signed_up().await;
    let listing = session.list("/alice", Detail::Full).await.unwrap();
    let mut names: Vec<&str> = listing.entries.iter().map(|e| e.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, [".capabilitycache", ".transactions", "shared"]);
    assert!(
        listing
            .entries
            .iter()
            .all(|e| e.is_hidden == Some(true) && e.is_directory)
    );
    node.take_calls();
    let again = empty_machine(&node, 2).await.unwrap();
    assert_eq!(
        node.take_calls(),
        [
            "core/getPublicKey",
            "mutable/getPointer",
            "block/get",
            "login/getLogin",
            "block/get",
            "block/get",
            "bats/getUserBats",
            "mutable/getPointer",
            "block/get",
            "champ/get/bulk",
        ]
    );
    assert_eq!(
        again.list("/alice", Detail::Full).await.unwrap().entries,
        listing.entries
    );
    let stored = node.stored();
    assert_eq!(stored.0, 11, "blocks of a new account");
}

#[tokio::test]
async fn sign_up_refuses_bad_names_and_passwords_before_sending_anything() {
    let node = FakeNode::new();
    let client = client(&node, 1);
    for name in ["", "Alice", "a b", "-a", "admin", &"x".repeat(33)] {
        let error = client.sign_up(name, PASSWORD, "").await.unwrap_err();
        assert!(
            matches!(error, ClientError::IllegalUsername { .. }),
            "{name}: {error:?}"
        );
    }
    for password in ["", "alice", "ALICE", "alice1"] {
        let error = client.sign_up("alice", password, "").await.unwrap_err();
        assert!(matches!(error, ClientError::WeakPassword { .. }));
    }
    assert!(node.take_calls().is_empty());
}

#[tokio::test]
async fn taken_name_is_refused() {
    let (node, _) = signed_up().await;
    let error = client(&node, 3)
        .sign_up("alice", "another one", "")
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::NameTaken { .. }));
    let error = client(&node, 3).sign_in("nobody", "x").await.unwrap_err();
    assert!(matches!(error, ClientError::UnknownUser { .. }));
}

#[tokio::test]
async fn proof_of_work_is_done_when_asked_for_within_bounds() {
    let node = FakeNode::new();
    node.state.lock().unwrap().difficulty = 11;
    client(&node, 1)
        .sign_up("alice", PASSWORD, "")
        .await
        .unwrap();
    node.state.lock().unwrap().difficulty = 256;
    let error = client(&node, 1)
        .sign_up("bob", PASSWORD, "")
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        ClientError::TooMuchWork {
            difficulty: 256,
            max: 30
        }
    ));
}

#[tokio::test]
async fn second_factor_is_asked_for_and_wrong_codes_may_be_repeated() {
    use cryptree::client::{FactorCode, SignIn};
    let (node, _) = signed_up().await;
    node.state
        .lock()
        .unwrap()
        .totp
        .insert("alice".to_owned(), "123456".to_owned());
    let SignIn::SecondFactor(pending) = client(&node, 2).sign_in("alice", PASSWORD).await.unwrap()
    else {
        panic!("no second factor");
    };
    assert!(pending.accepts(FactorCode::OneTime("")) && !pending.accepts(FactorCode::Backup("")));
    let wrong = pending.answer(FactorCode::OneTime("000000")).await;
    assert!(matches!(
        wrong,
        Err(ClientError::SecondFactorRefused { .. })
    ));
    pending.answer(FactorCode::OneTime("123456")).await.unwrap();
}
