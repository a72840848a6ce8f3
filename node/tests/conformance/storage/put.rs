//! Storing blocks, and the transactions that protect them (Spec: 06 §4).

use bytes::Bytes;
use champ::{Cid, cbor::Value, text::to_hex};
use pki::wire::{
    Body as _,
    block_group::{BlockFormat, BlockGroup},
};

use super::{alice, group};
use crate::conformance::account::{key, sign_block};
use crate::conformance::harness::TestNode;

#[tokio::test]
async fn wr_1_and_wr_4_bad_writes_store_nothing() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let used = alice.usage(&node, "&local=true").await;
    let one = Value::from("one").encode();
    let two = Value::from("two").encode();
    let (a, b) = (Cid::of_cbor(&one), Cid::of_cbor(&two));
    let sign = |cid: &Cid| sign_block(&alice.home, cid);
    let refused = async |blocks: &[&[u8]], signatures: Vec<Bytes>| {
        let answer = group(&node, &alice, "dag-cbor", blocks, signatures).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        answer.message()
    };
    assert_eq!(
        refused(&[&one, &two], vec![sign(&a)]).await,
        "Different number of of blocks and signatures! 2 != 1"
    );
    assert_eq!(
        refused(&[&one, &two], vec![sign(&b), sign(&a)]).await,
        "Invalid signature for block!"
    );
    let over_block: Bytes = alice.home.secret().sign_attached(&one).into();
    assert_eq!(
        refused(&[&one], vec![over_block]).await,
        "Invalid signature for block!"
    );
    assert_eq!(
        refused(&[&one], vec![sign_block(&key(66, 2), &a)]).await,
        "Invalid signature"
    );
    for cut in [0, 63, 95] {
        refused(&[&one], vec![sign(&a).slice(..cut)]).await;
    }
    let long = Bytes::from([sign(&a).as_ref(), &[0]].concat());
    refused(&[&one], vec![long]).await;
    for bad in [
        &[][..],
        &[0xff],
        &[0x81, 0x01, 0xff],
        &[0xa2, 0x61, 0x62, 0x01, 0x61, 0x61, 0x02],
        &[0xbf, 0xff],
        &[0x18, 0x01],
        &[0xf9, 0, 0],
        &[0xc0, 0],
        &[0xa1, 0x64, b'b', b'a', b't', b's', 0x01],
    ] {
        refused(&[bad], vec![sign(&Cid::of_cbor(bad))]).await;
    }
    let magic = [0x71, 0x1d, 0x10, 0xcf, 0x3d, 0x32, 0x2f, 0x2b];
    for bad in [magic.to_vec(), [&magic[..], &[0x81, 0x41, 0x01]].concat()] {
        let cid = Cid::of_raw(&bad);
        let answer = group(&node, &alice, "raw", &[&bad], vec![sign(&cid)]).await;
        assert_eq!(answer.status, 400);
    }
    for cid in [a, b] {
        assert!(node.ok(&alice.get_target(&cid), "").await.is_empty());
    }
    assert_eq!(alice.usage(&node, "&local=true").await, used);
    let target = alice.put_target(&alice.home.writer(), "raw");
    for body in [&b""[..], b"\xff", b"\x80", b"\xa0"] {
        node.refused(&target, body.to_vec()).await;
    }
    for missing in ["format", "owner", "transaction", "writer"] {
        let spoiled = target.replace(missing, "other");
        node.refused(&spoiled, "").await;
    }
}

#[tokio::test]
async fn wr_3_the_largest_block_passes_and_one_byte_more_does_not() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let largest = Bytes::from(vec![3; 1_048_676]);
    let answer = alice
        .put(
            &node,
            &alice.home,
            BlockFormat::Raw,
            std::slice::from_ref(&largest),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.message());
    assert_eq!(
        node.ok(&alice.get_target(&Cid::of_raw(&largest)), "").await,
        largest
    );
    let larger = Bytes::from(vec![3; 1_048_677]);
    let answer = alice
        .put(&node, &alice.home, BlockFormat::Raw, &[larger])
        .await;
    assert_eq!(answer.message(), "Block too big!");
}

#[tokio::test]
async fn legacy_multipart_uploads_are_accepted() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    let alice = alice(&node).await;
    let one = Value::from("one").encode();
    let cid = Cid::of_cbor(&one);
    let signature = to_hex(&sign_block(&alice.home, &cid));
    let target = format!(
        "/{}&signatures={signature}",
        alice
            .put_target(&alice.home.writer(), "dag-cbor")
            .replace("put/bulk", "put")
    );
    let body = |boundary: &str| {
        [
            format!("--{boundary}\r\nContent-Disposition: form-data\r\n\r\n").as_bytes(),
            &one,
            format!("\r\n--{boundary}--\r\n").as_bytes(),
        ]
        .concat()
    };
    let kind = "Content-Type: multipart/form-data; boundary=x123";
    let answer = served
        .request("POST", &target, &[kind], &body("x123"))
        .await;
    assert_eq!(
        answer.body,
        format!("{{\"Hash\":\"{cid}\"}}").as_bytes(),
        "{}",
        answer.message()
    );
    let answer = served
        .request("POST", &target, &[kind], &body("other"))
        .await;
    assert_eq!(answer.message(), "Incorrect boundary! x123 != other");
    assert_eq!(
        served
            .request("POST", &target, &[], &body("x123"))
            .await
            .status,
        400
    );
    served.stop().await;
}

#[tokio::test]
async fn groups_without_body_limits_do_not_exist() {
    assert_eq!(<BlockGroup as pki::wire::Body>::MAX_BYTES, 4 << 20);
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let target = alice.put_target(&alice.home.writer(), "raw");
    let message = node.refused(&target, vec![0; (4 << 20) + 1]).await;
    assert_eq!(message, "Input exceeds maximum size of 4194304 bytes");
    assert!(BlockGroup::new(vec![], vec![]).unwrap().to_body().len() < 10);
}

#[tokio::test]
async fn transactions_are_opened_and_closed_by_anybody_who_knows_them() {
    let node = TestNode::new().await;
    let alice = alice(&node).await;
    let owner = alice.owner();
    let id = node
        .ok(&format!("api/v0/transaction/start?owner={owner}"), "")
        .await;
    assert_eq!(id.len(), 36);
    let id = String::from_utf8(id).unwrap();
    for arg in [id.as_str(), &id, "nosuch", "not%20legal"] {
        let close = format!("api/v0/transaction/close?arg={arg}&owner={owner}");
        assert_eq!(node.ok(&close, "").await, b"1");
    }
    assert_eq!(
        node.refused("api/v0/transaction/start", "").await,
        "No value present"
    );
    let stranger = key(66, 1);
    assert_eq!(
        node.refused(
            &format!("api/v0/transaction/start?owner={}", stranger.hash()),
            ""
        )
        .await,
        format!("Unknown identity key: {}", stranger.hash())
    );
}
