//! WEB-11, PGS-01-003: what every answer of the node says about itself.

use std::time::Duration;

use champ::{
    Cid, Codec, Multihash,
    access::Bat,
    cbor::{Record as _, Value},
    map::Champ,
    text::{to_hex, to_multibase},
};
use node::Config;
use pki::{
    signed::SignedTime,
    wire::{block_group::BlockFormat, champ_lookup::ChampCap},
};

use crate::conformance::{
    account::{Account, private_raw},
    harness::{Answer, NOW, TestNode, config, parse},
};

const FOR_ALL: &str = "public, max-age=31622400 immutable";
const FOR_ONE: &str = "private, max-age=31622400 immutable";
const NOT_AT_ALL: &str = "no-store";

fn public() -> Config {
    Config {
        is_public: true,
        public_host: Some("example.org".to_owned()),
        ..config()
    }
}

/// Answers to POST are what official clients compare; answers to GET are what caches in between keep.
#[tokio::test]
async fn web_11_only_what_a_hash_names_is_cached_and_what_a_token_opens_by_nobody_else() {
    let node = TestNode::with(public()).await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let bat = Bat::from_secret([5; 32]);
    let protected = private_raw(&bat, Some(&alice.mirror), b"cipher text");
    let open = bytes::Bytes::from_static(b"anybody's");
    let blocks = [protected.clone(), open.clone()];
    let put = alice.put(&node, &alice.home, BlockFormat::Raw, &blocks);
    assert_eq!(put.await.status, 200);
    let (protected, open) = (Cid::of_raw(&protected), Cid::of_raw(&open));
    let token = bat.with_calculated_id().to_text();
    let owner = alice.owner();
    let mut champ = Champ::empty();
    let source = champ::MemoryBlocks::new();
    let value = Value::from(&open);
    champ.put(vec![2; 32], None, value, &source).await.unwrap();
    let (root, nodes) = champ.finish().unwrap();
    let nodes: Vec<_> = nodes.iter().map(|node| node.bytes().clone()).collect();
    let put = alice.put(&node, &alice.home, BlockFormat::DagCbor, &nodes);
    assert_eq!(put.await.status, 200);
    let cap = ChampCap {
        map_key: [1; 32],
        bat: None,
    };
    let caps = to_multibase(&Value::List(vec![cap.to_value()]).encode());
    let inline = Multihash::identity(b"inline").unwrap();
    let inline = Cid::v1(Codec::Raw, inline);
    let get = |cid: &Cid, more: &str| format!("{}{more}", alice.get_target(cid));
    let stat = |cid: &Cid| format!("api/v0/block/stat?arg={cid}&owner={owner}");
    let with_token = format!("&bat={token}");
    let absent = Cid::of_raw(b"absent");
    let served = node.serve().await;
    let secret = [
        format!("peergos/v0/mutable/getPointer?owner={owner}&writer={owner}"),
        "peergos/v0/core/getChain?username=alice".to_owned(),
        "peergos/v0/core/getUsernamesGzip/".to_owned(),
        format!(
            "peergos/v0/bats/getUserBats?username=alice&auth={}",
            alice.signed("peergos/v0/bats/getUserBats", NOW)
        ),
        format!(
            "peergos/v0/social/getFollowRequests?owner={owner}&auth={}",
            alice.time(NOW)
        ),
        format!(
            "peergos/v0/storage/usage?owner={owner}&auth={}",
            alice.time(NOW)
        ),
        format!(
            "peergos/v0/storage/quota?owner={owner}&auth={}",
            alice.time(NOW)
        ),
        login(&alice),
        format!(
            "api/v0/link/counts?after=0&owner=alice&bat={}",
            alice.mirror_with_id().to_text()
        ),
        format!("api/v0/transaction/start?owner={owner}"),
        "api/v0/id".to_owned(),
    ];
    let mut asked: Vec<(String, &str, &str, Option<&Cid>)> = vec![
        (get(&open, ""), FOR_ALL, FOR_ALL, Some(&open)),
        (get(&open, &with_token), FOR_ALL, FOR_ONE, Some(&open)),
        (
            get(&protected, &with_token),
            FOR_ALL,
            FOR_ONE,
            Some(&protected),
        ),
        (get(&inline, ""), FOR_ALL, FOR_ALL, Some(&inline)),
        (stat(&protected), FOR_ALL, FOR_ALL, Some(&protected)),
        (
            format!("api/v0/champ/get/bulk?arg={root}&owner={owner}&caps={caps}"),
            FOR_ALL,
            FOR_ONE,
            Some(&root),
        ),
        // Refused and absent: nobody may keep that.
        (get(&protected, ""), NOT_AT_ALL, NOT_AT_ALL, None),
        (get(&absent, ""), NOT_AT_ALL, NOT_AT_ALL, None),
        (get(&absent, &with_token), NOT_AT_ALL, NOT_AT_ALL, None),
        (stat(&absent), NOT_AT_ALL, NOT_AT_ALL, None),
        (
            "api/v0/no/such/call".to_owned(),
            NOT_AT_ALL,
            NOT_AT_ALL,
            None,
        ),
    ];
    asked.extend(secret.map(|target| (target, NOT_AT_ALL, NOT_AT_ALL, None)));
    for (target, to_post, to_get, tag) in asked {
        for (method, expected) in [("POST", to_post), ("GET", to_get)] {
            let host = ["Host: example.org"];
            let answer = served
                .request(method, &format!("/{target}"), &host, b"")
                .await;
            let what = format!("{method} {target}: {} {}", answer.status, answer.message());
            assert_eq!(answer.header("cache-control"), Some(expected), "{what}");
            let tag = tag.map(|cid| format!("\"{cid}\""));
            assert_eq!(answer.header("etag"), tag.as_deref(), "{what}");
            let is_refused = answer.status != 200;
            assert!(!is_refused || expected == NOT_AT_ALL, "{what}");
        }
    }
    served.stop().await;
}

fn login(who: &Account) -> String {
    let time = SignedTime { epoch_millis: NOW };
    format!(
        "peergos/v0/login/getLogin?username={}&author={}&auth={}",
        who.name,
        to_hex(&who.login.public().encode()),
        to_hex(&time.sign(&who.login)),
    )
}

const MARKUP: &str = "%3Csvg%20onload=alert(1)%3E";

/// The statuses that a stranger gets to see, each with hostile text wherever a request has room for some.
#[tokio::test]
async fn pgs_01_003_every_answer_has_a_type_and_is_not_guessed_and_refusals_show_nothing() {
    let node = TestNode::with(public()).await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let owner = alice.owner();
    let served = node.serve().await;
    let long = "y".repeat(70_000);
    let requests = [
        (
            400,
            "POST",
            format!("/peergos/v0/mutable/test.html;{MARKUP}?owner={owner}&writer={owner}"),
            "",
        ),
        (
            400,
            "POST",
            format!("/api/v0/block/get?arg={MARKUP}&owner={owner}"),
            "",
        ),
        (
            400,
            "POST",
            format!("/peergos/v0/login/getLogin?username={MARKUP}&auth=00"),
            "",
        ),
        (400, "GET", format!("/public/{MARKUP}/{MARKUP}"), ""),
        (404, "GET", format!("/{MARKUP}.html"), ""),
        (404, "GET", "/%00".to_owned(), ""),
        (404, "POST", format!("/api/v0/id?{MARKUP}"), "Host: <svg>"),
        (405, "DELETE", format!("/api/v0/{MARKUP}"), ""),
        (405, "PUT", "/api/v0/id".to_owned(), ""),
        (
            414,
            "POST",
            format!("/api/v0/id?{}{MARKUP}", &long[..40_000]),
            "",
        ),
        (431, "POST", "/api/v0/id".to_owned(), "X: "),
        (
            400,
            "POST",
            "/peergos/v0/login/setLogin?username=a&auth=00".to_owned(),
            "Content-Length: 99999999",
        ),
        (200, "POST", "/api/v0/id".to_owned(), ""),
        (
            200,
            "POST",
            format!("/api/v0/block/get?arg={}&owner={owner}", Cid::of_raw(b"no")),
            "",
        ),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for (status, method, target, header) in requests {
        let host = match header.starts_with("Host") {
            true => String::new(),
            false => "Host: example.org\r\n".to_owned(),
        };
        let header = match header {
            "" => String::new(),
            "X: " => format!("X: {long}\r\n"),
            header => format!("{header}\r\n"),
        };
        let text = format!("{method} {target} HTTP/1.1\r\n{host}{header}Connection: close\r\n\r\n");
        let raw = tokio::time::timeout(Duration::from_secs(20), served.raw(text.as_bytes()));
        let raw = raw.await.unwrap();
        let answer = parse(raw.as_bytes());
        let what = format!(
            "{method} {} {header:.20}: {raw:.200}",
            &target[..target.len().min(100)]
        );
        assert_eq!(answer.status, status, "{what}");
        seen.insert(status);
        is_plain(&answer, &what);
        // Encoded, in the trailer, is where request text may be.
        assert!(!raw.contains('<') && !raw.contains(MARKUP), "{what}");
    }
    assert_eq!(seen.len(), 6);
    served.stop().await;
}

/// The two headers are there; a refusal is plain text without any.
fn is_plain(answer: &Answer, what: &str) {
    assert_eq!(
        answer.header("x-content-type-options"),
        Some("nosniff"),
        "{what}"
    );
    let kind = answer.header("content-type").expect(what);
    if answer.status >= 400 {
        assert_eq!(kind, "text/plain", "{what}");
        assert!(answer.body.is_empty(), "{what}");
    } else {
        assert!(!kind.contains("html"), "{what}");
    }
}
