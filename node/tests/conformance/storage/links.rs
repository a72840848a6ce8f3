//! Secret links (Spec: 06 §7).

use champ::{
    Block,
    access::{Bat, BatWithId},
    cbor::{Record as _, Value},
    map::Champ,
    text::to_hex,
};
use pki::wire::{
    link::{EncryptedCapability, LinkLabel, SecretLinkTarget},
    login_data::OpaqueCipherText,
};

use super::alice;
use crate::conformance::account::{Account, update};
use crate::conformance::harness::{NOW, TestNode};

/// Publishes one link in alice's identity root.
async fn publish(node: &TestNode, alice: &Account, label: u32, target: &SecretLinkTarget) {
    let label = LinkLabel::new(label).unwrap();
    let block = Block::cbor(target.encode()).unwrap();
    let mut links = Champ::empty_private(alice.mirror.secret_hash_id());
    let source = champ::MemoryBlocks::new();
    links
        .put(
            label.champ_key().to_vec(),
            None,
            Value::from(block.cid()),
            &source,
        )
        .await
        .unwrap();
    let (links, nodes) = links.finish().unwrap();
    let before = alice.identity_root().await;
    let mut root = alice.identity_root().await;
    root.data.links = Some(links);
    root.blocks.extend(nodes);
    root.blocks.push(block);
    alice.put_root(node, &alice.identity, &root).await;
    let write = update(
        &alice.identity,
        Some(&before.cid()),
        Some(&root.cid()),
        Some(2),
    );
    assert_eq!(alice.set(node, &write).await.body, [1]);
}

fn link_target(expiry: Option<i64>, max: Option<i64>) -> SecretLinkTarget {
    SecretLinkTarget {
        capability: EncryptedCapability {
            cipher_text: OpaqueCipherText {
                nonce: [1; 24],
                cipher: vec![2; 50].into(),
            },
            needs_password: false,
        },
        expiry_epoch_seconds: expiry,
        max_retrievals: max,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lnk_1_links_are_counted_atomically() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let owner = alice.owner();
    let get = |label: &str| format!("api/v0/link/get?label={label}&owner={owner}");
    assert_eq!(
        node.refused(&get("1"), "").await,
        "No secret link published!"
    );
    let target = link_target(None, Some(1));
    publish(&node, &alice, 77, &target).await;
    let answers = futures_util::future::join_all((0..64).map(|_| {
        let get = get("77");
        let node = &node;
        async move { node.post(&get, "").await }
    }))
    .await;
    let served: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 200)
        .collect();
    assert_eq!(served.len(), 1);
    assert_eq!(served[0].body, target.capability.encode());
    assert_eq!(served[0].header("cache-control"), Some("no-store"));
    assert!(
        answers
            .iter()
            .any(|answer| answer.message() == "Maximum link retrievals exceed!")
    );
    for (label, text) in [
        ("0", "Link labels must be positive!"),
        ("-5", "Link labels must be positive!"),
        ("1", "No secret link present!"),
    ] {
        assert_eq!(node.refused(&get(label), "").await, text);
    }
    node.refused(&get("abc"), "").await;
    let counts = |bat: &BatWithId, joint: &str| {
        format!(
            "api/v0/link/counts?after=0{joint}bat={}&owner=alice",
            bat.to_text()
        )
    };
    let expected = format!("a1616483184d011a{:08x}", NOW / 1000);
    for joint in ["&", "?"] {
        let body = node.ok(&counts(&alice.mirror_with_id(), joint), "").await;
        assert_eq!(to_hex(&body), expected);
    }
    let wrong = Bat::from_secret([6; 32]);
    assert_eq!(
        node.refused(&counts(&wrong.with_calculated_id(), "&"), "")
            .await,
        "Unauthorized!"
    );
}

#[tokio::test]
async fn lnk_1_expired_links_are_refused_and_lnk_2_guessing_is_slowed_down() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    publish(&node, &alice, 77, &link_target(Some(NOW / 1000 + 10), None)).await;
    let get = |label: u32| format!("api/v0/link/get?label={label}&owner={}", alice.owner());
    node.ok(&get(77), "").await;
    node.ok(&get(77), "").await;
    node.clock.advance(11_000);
    assert_eq!(node.refused(&get(77), "").await, "Secret link expired!");
    for guess in 1000..1010 {
        assert_eq!(
            node.refused(&get(guess), "").await,
            "No secret link present!"
        );
    }
    let limited = node.post(&get(1010), "").await;
    assert_eq!(limited.status, 429);
    assert!(
        limited
            .header("trailer")
            .unwrap()
            .starts_with("Rate+Limit%3A+")
    );
}
