//! The local way to other nodes (Spec: 11 §4.2).

use bytes::Bytes;
use http::Request;

use super::{
    forwarding::open,
    switchboard::{Switchboard, peer},
};

#[tokio::test]
async fn p2p_2_the_gateway_is_off_until_asked_for_and_for_this_machine_only() {
    let board = Switchboard::new();
    let (one, two, three) = (peer(1), peer(2), peer(3));
    let _asked = open(&board, one, |_| {}).await;
    let plain = open(&board, two, |_| {}).await;
    let gateway = open(&board, three, |config| config.p2p.has_gateway = true).await;
    let target = format!("p2p/{one}/http/api/v0/id");
    assert_eq!(plain.post(&target, "").await.status, 404);
    let expected = format!("{{\"ID\":\"{}\"}}", one.to_cid());
    assert_eq!(gateway.ok(&target, "").await, expected.as_bytes());
    let by_cid = format!("p2p/{}/http/api/v0/id?", one.to_cid());
    assert_eq!(gateway.ok(&by_cid, "").await, expected.as_bytes());

    for (id, message) in [
        (three.to_string(), "is this node itself"),
        (peer(9).to_string(), "cannot be reached"),
        ("nonsense".to_owned(), "Invalid server id"),
    ] {
        let refused = gateway
            .refused(&format!("p2p/{id}/http/api/v0/id"), "")
            .await;
        assert!(refused.contains(message), "{refused}");
    }
    // What the other node refuses comes in its words.
    let target_of_other = format!("p2p/{one}/http/peergos/v0/mutable/getPointer");
    assert_eq!(
        gateway.refused(&target_of_other, "").await,
        "No value present"
    );

    let status = async |request: http::request::Builder| {
        let request = request.body(Bytes::new()).unwrap();
        gateway.node.call(request).await.status().as_u16()
    };
    let path = format!("/{target}");
    assert_eq!(status(Request::get(&path)).await, 403);
    assert_eq!(
        status(Request::post(&path).header("origin", "http://evil.example")).await,
        403
    );
    assert_eq!(
        status(Request::post(&path).header("sec-fetch-site", "cross-site")).await,
        403
    );
    assert_eq!(status(Request::post(format!("/p2p/{one}/x"))).await, 404);
}
