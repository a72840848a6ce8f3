//! Reading blocks, and the tokens that open them (Spec: 06 §5, §6).

use bytes::Bytes;
use champ::{
    Cid, Codec, Multihash,
    access::{Bat, BatWithId},
    cbor::Value,
};
use pki::wire::block_group::BlockFormat;

use super::{CACHED, alice, group};
use crate::conformance::account::{Account, private_raw, sign_block};
use crate::conformance::harness::TestNode;

#[tokio::test]
async fn blocks_are_stored_and_served_with_exact_headers() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let one = Bytes::from(Value::from("block one").encode());
    let two = Bytes::from(Value::from("block two").encode());
    let (a, b) = (Cid::of_cbor(&one), Cid::of_cbor(&two));
    let answer = alice
        .put(
            &node,
            &alice.home,
            BlockFormat::DagCbor,
            &[one.clone(), two],
        )
        .await;
    let expected = format!("{{\"Hash\":\"{a}\"}}{{\"Hash\":\"{b}\"}}");
    assert_eq!(answer.body, expected.as_bytes());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let got = node.post(&alice.get_target(&a), "").await;
    assert_eq!(got.body, one);
    assert_eq!(got.header("cache-control"), CACHED);
    assert_eq!(got.header("etag"), Some(format!("\"{a}\"").as_str()));
    let absent = node
        .post(&alice.get_target(&Cid::of_cbor(b"none")), "")
        .await;
    assert_eq!((absent.status, absent.body.len()), (200, 0));
    assert_eq!(absent.header("cache-control"), Some("no-store"));
    assert!(absent.header("etag").is_none());
    let stat = |cid: &Cid| format!("api/v0/block/stat?arg={cid}&owner={}", alice.owner());
    let found = node.post(&stat(&a), "").await;
    assert_eq!(found.body, b"{\"Size\":10}");
    assert_eq!(found.header("cache-control"), CACHED);
    let missing = node.post(&stat(&Cid::of_cbor(b"none")), "").await;
    assert_eq!(missing.body, b"{\"Size\":0}");
    assert_eq!(missing.header("cache-control"), Some("no-store"));
    // The empty group, a repeated put, any other format name.
    assert!(
        group(&node, &alice, "dag-cbor", &[], vec![])
            .await
            .body
            .is_empty()
    );
    let signature = sign_block(&alice.home, &a);
    let again = group(&node, &alice, "whatever", &[&one], vec![signature]).await;
    assert_eq!(again.body, format!("{{\"Hash\":\"{a}\"}}").as_bytes());
    // Identity CIDs are answered with what they hold.
    let inline = Cid::v1(Codec::Raw, Multihash::identity(b"inline").unwrap());
    let got = node.post(&alice.get_target(&inline), "").await;
    assert_eq!(
        (got.body.as_slice(), got.header("cache-control")),
        (&b"inline"[..], CACHED)
    );
}

#[tokio::test]
async fn bat_1_reads_need_a_token_that_the_block_names() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let bob = Account::sign_up(&node, "bob", 8).await;
    let bat = Bat::from_secret([5; 32]);
    let block = private_raw(&bat, Some(&alice.mirror), b"cipher text");
    let cid = Cid::of_raw(&block);
    alice
        .put(
            &node,
            &alice.home,
            BlockFormat::Raw,
            std::slice::from_ref(&block),
        )
        .await;
    let get = |token: Option<&BatWithId>| match token {
        Some(token) => format!("{}&bat={}", alice.get_target(&cid), token.to_text()),
        None => alice.get_target(&cid),
    };
    assert_eq!(node.refused(&get(None), "").await, "Unauthorised!");
    let calculated = alice.mirror.with_calculated_id();
    for good in [bat.with_calculated_id(), alice.mirror_with_id(), calculated] {
        assert_eq!(node.ok(&get(Some(&good)), "").await, block);
    }
    let wrong = BatWithId {
        bat: Bat::from_secret([6; 32]),
        id: bat.calculated_id(),
    };
    for bad in [wrong, bob.mirror_with_id()] {
        assert_eq!(node.refused(&get(Some(&bad)), "").await, "Unauthorised!");
    }
    node.refused(&format!("{}&bat=zzz", get(None)), "").await;
    // An absent block is absent whatever is sent.
    let absent = format!(
        "{}&bat={}",
        alice.get_target(&Cid::of_raw(b"x")),
        bat.with_calculated_id().to_text()
    );
    assert!(node.ok(&absent, "").await.is_empty());
    // Spaces of users are separate.
    assert!(node.ok(&bob.get_target(&cid), "").await.is_empty());
    // BAT-2: the codec is part of the identity of a block.
    let other_codec = Cid::v1(Codec::DagCbor, cid.hash().clone());
    assert!(
        node.ok(&alice.get_target(&other_codec), "")
            .await
            .is_empty()
    );
    for codec in [Codec::DagPb, Codec::Libp2pKey] {
        node.refused(&alice.get_target(&Cid::v1(codec, cid.hash().clone())), "")
            .await;
    }
    for bad in ["arg=notacid", "arg=", "foo"] {
        node.refused(
            &format!("api/v0/block/get?{bad}&owner={}", alice.owner()),
            "",
        )
        .await;
    }
    assert_eq!(
        node.refused(&format!("api/v0/block/get?arg={cid}"), "")
            .await,
        "No value present"
    );
}
