//! What lies on the disk: second factor secrets are sealed, and authorisations stay used after a restart.

use std::{fs, path::Path};

use champ::cbor::Record as _;
use node::{Config, FactorKeyError, Node, OpenError, store::FreeFloor};
use pki::wire::second_factor::{BackupCodes, backup_code_hash, normalize_backup_code};

use super::{
    account::{Account, unique_millis},
    accounts::{code, enrol, signed},
    harness::{NOW, TestNode, config},
};

fn on_disk(folder: &Path) -> Config {
    Config {
        data: Some(folder.join("data")),
        free_floor: FreeFloor::Bytes(0),
        ..config()
    }
}

/// All bytes of all files below a folder.
fn everything(folder: &Path, out: &mut Vec<u8>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => everything(&path, out),
            false => out.extend(fs::read(path).unwrap()),
        }
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[tokio::test]
async fn second_factor_secrets_are_sealed_with_a_key_file_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::with(on_disk(folder.path())).await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let totp = enrol(&node, &alice, "addTotp", "enableTotp", "").await;
    let codes = node.ok(&signed(&alice, "genBackupCodes", ""), "").await;
    let codes: Vec<[u8; 32]> = BackupCodes::decode(&codes)
        .unwrap()
        .codes
        .iter()
        .map(|code| backup_code_hash(&normalize_backup_code(code)))
        .collect();
    assert_eq!(codes.len(), 10);
    node.node.close().await.unwrap();
    drop(node);
    let mut stored = Vec::new();
    everything(folder.path(), &mut stored);
    assert!(!contains(&stored, &totp.key));
    for digest in codes {
        assert!(!contains(&stored, &digest));
    }
    let file = folder.path().join("data/second-factors.key");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
    // After a restart the same factor is asked for and answers.
    let node = TestNode::with(on_disk(folder.path())).await;
    let asked = alice.get_login(&node, &alice.login, NOW, "").await;
    assert_eq!(asked.body[..4], [0xa2, 0x61, b'a', 0xf4]);
    let disable = format!(
        "&credid={}&code={}",
        champ::text::to_hex(&totp.credential_id),
        code(&totp, NOW)
    );
    node.ok(&signed(&alice, "enableTotp", &disable), "").await;
    node.node.close().await.unwrap();
    drop(node);
    // Without the key file, or with another, the node does not start, and makes no new one.
    let right = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let refused = Node::open(on_disk(folder.path())).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::SecondFactors(FactorKeyError::Missing)),
        "{refused}"
    );
    assert!(!file.exists());
    fs::write(&file, [9; 32]).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let refused = Node::open(on_disk(folder.path())).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::SecondFactors(FactorKeyError::Wrong)),
        "{refused}"
    );
    fs::write(&file, right).unwrap();
    let node = TestNode::with(on_disk(folder.path())).await;
    node.node.close().await.unwrap();
}

/// 08 §4: an authorisation that somebody saw changes nothing else, for as long as it would be fresh.
#[tokio::test]
async fn log_6_an_authorisation_works_once_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::with(on_disk(folder.path())).await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let millis = unique_millis(NOW);
    let add = alice.signed("peergos/v0/login/addMount", millis);
    node.ok(&format!("{add}&name=one"), "").await;
    let again = "This authorisation was used before";
    assert_eq!(node.refused(&format!("{add}&name=two"), "").await, again);
    node.node.close().await.unwrap();
    drop(node);
    let node = TestNode::with(on_disk(folder.path())).await;
    assert_eq!(node.refused(&format!("{add}&name=two"), "").await, again);
    // Forgotten ones are stale by then.
    node.clock.advance(3_600_001);
    assert_eq!(
        node.refused(&format!("{add}&name=two"), "").await,
        "Stale auth time, is your clock accurate?"
    );
    // Reading calls may repeat.
    let list = alice.signed("peergos/v0/login/listMfa", NOW);
    node.ok(&list, "").await;
    node.ok(&list, "").await;
    node.node.close().await.unwrap();
}
