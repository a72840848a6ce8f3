//! HTTP as such: hosts, methods, framing, limits, the error channel (Spec: 05).

use std::{net::SocketAddr, time::Duration};

use node::Config;
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{Answer, TestNode, config};

/// The `http/` cases of the recorded HTTP examples, with the port of this listener.
#[tokio::test]
async fn recorded_http_behaviour_is_kept() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    let json: Json = serde_json::from_str(include_str!("../vectors/http_examples.json")).unwrap();
    let mut compared = 0;
    for case in json["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        if !name.starts_with("http/")
            && !matches!(
                name,
                "id" | "ids"
                    | "core-getChain-unknown"
                    | "core-getPublicKey-unknown"
                    | "api-v0-without-trailing-slash"
                    | "bom-admin-no-trailing-slash"
                    | "peergos-v0-admin-root"
                    | "link-host-no-owner"
            )
        {
            continue;
        }
        let port = served.address.port().to_string();
        let headers: Vec<String> = case["request"]["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line.as_str().unwrap().replace("9700", &port))
            .collect();
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let body = champ::text::from_hex(case["request"]["body"]["hex"].as_str().unwrap()).unwrap();
        let answer = served
            .request(
                case["request"]["method"].as_str().unwrap(),
                case["request"]["target"].as_str().unwrap(),
                &headers,
                &body,
            )
            .await;
        compare(name, case, &answer);
        compared += 1;
    }
    assert!(compared > 35, "{compared}");
    served.stop().await;
}

fn compare(name: &str, case: &Json, answer: &Answer) {
    let expected = &case["response"];
    assert_eq!(
        answer.header("x-content-type-options"),
        Some("nosniff"),
        "{name}"
    );
    assert!(answer.header("access-control-allow-origin").is_none());
    if expected["closed_without_response"] == true {
        // Must be an answer with a message (Spec: 05 §7.2).
        assert_eq!(answer.status, 400, "{name}");
        assert!(!answer.message().is_empty(), "{name}");
        return;
    }
    assert_eq!(
        Json::from(answer.status),
        expected["status"],
        "{name} {answer:?}"
    );
    if answer.status == 400 {
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        let text = expected["headers"]["trailer"].as_str().unwrap();
        // Texts of the runtime, and texts that show the input, have no meaning to any client.
        if !text.starts_with('(') && !text.contains("CborLong") && !text.contains("simple+type") {
            assert_eq!(answer.header("trailer"), Some(text), "{name}");
        }
        assert!(
            answer
                .header("trailer")
                .is_some_and(|text| !text.is_empty()),
            "{name}"
        );
    }
    let has_own_version = name.contains("trailing-slash-method") || name.contains("extra-path");
    if answer.status == 200 && !has_own_version {
        let body = champ::text::to_hex(&answer.body);
        assert_eq!(Json::from(body), expected["body"]["hex"], "{name}");
    }
    if answer.status != 200 {
        assert!(answer.body.is_empty(), "{name}");
    }
}

/// PGS-01-001 and PGS-01-003: nothing of a request can end a header block or become content.
#[tokio::test]
async fn pgs_01_001_and_003_hostile_text_never_leaves_the_encoded_trailer() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    let evil = "meow%0d%0aX-Evil:1%0d%0a%0d%0a<b>a<svg%20onload=alert(1)>";
    let evil = evil.replace('<', "%3C").replace('>', "%3E");
    for prefix in [
        "/peergos/v0/core/",
        "/peergos/v0/mutable/",
        "/peergos/v0/social/",
        "/peergos/v0/login/",
        "/peergos/v0/bats/",
        "/peergos/v0/storage/",
        "/peergos/v0/admin/",
        "/peergos/v0/server-message/",
        "/api/v0/",
        "/public/",
        "/",
    ] {
        let answer = served
            .request("POST", &format!("{prefix}{evil}"), &[], b"")
            .await;
        assert!(answer.status >= 400, "{prefix}");
        assert!(answer.header("x-evil").is_none());
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert!(answer.body.is_empty());
    }
    for parameter in [
        "owner", "writer", "arg", "bat", "auth", "username", "caps", "label",
    ] {
        for call in [
            "/api/v0/block/get",
            "/peergos/v0/mutable/getPointer",
            "/peergos/v0/login/listMfa",
        ] {
            let target = format!("{call}?{parameter}={evil}");
            let answer = served.request("POST", &target, &[], b"").await;
            assert_eq!(answer.status, 400, "{target}");
            assert!(answer.header("x-evil").is_none());
            assert!(answer.body.is_empty());
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn web_5_only_post_reaches_a_local_listener() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    for target in [
        "/api/v0/id",
        "/api/v0/nosuch",
        "/api/v0/block/get?foo",
        "/peergos/v0/core/getChain",
        "/peergos/v0/admin/version",
        "/peergos/v0/login/getLogin",
        "/peergos/v0/mutable/nosuch",
    ] {
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"] {
            let answer = served.request(method, target, &[], b"").await;
            assert_eq!(answer.status, 405, "{method} {target}");
            assert!(answer.body.is_empty());
            assert!(answer.header("trailer").is_none());
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn web_5_a_public_node_takes_get_for_calls_without_body() {
    let node = TestNode::with(Config {
        is_public: true,
        public_host: Some("example.org".to_owned()),
        ..config()
    })
    .await;
    let served = node.serve().await;
    let host = "Host: example.org";
    for (target, status) in [
        ("/api/v0/id", 200),
        ("/peergos/v0/admin/version", 200),
        ("/peergos/v0/core/getUsernamesGzip/", 200),
        ("/peergos/v0/core/getChain", 405),
        ("/peergos/v0/mutable/setPointer", 405),
        ("/api/v0/block/put/bulk", 405),
        ("/peergos/v0/login/setLogin", 405),
    ] {
        let answer = served.request("GET", target, &[host], b"").await;
        assert_eq!(answer.status, status, "{target}");
        let answer = served.request("PUT", target, &[host], b"").await;
        assert_eq!(answer.status, 405, "{target}");
    }
    // The public name replaces localhost; 127.0.0.1 stays.
    let answer = served
        .request("POST", "/api/v0/id", &["Host: other.org"], b"")
        .await;
    assert_eq!(answer.status, 404);
    served.stop().await;
}

#[tokio::test]
async fn an_absolute_target_must_name_the_same_host() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    let host = served.host();
    let same = served
        .request("POST", &format!("http://{host}/api/v0/id"), &[], b"")
        .await;
    assert_eq!(same.status, 200);
    let other = served
        .request("POST", "http://evil.example/api/v0/id", &[], b"")
        .await;
    assert_eq!(other.status, 404);
    let none = served
        .raw(b"POST /api/v0/id HTTP/1.1\r\nConnection: close\r\n\r\n")
        .await;
    assert!(none.starts_with("HTTP/1.1 404 "), "{none}");
    served.stop().await;
}

#[tokio::test]
async fn http_1_0_clients_get_the_message_too() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    let request = format!(
        "POST /peergos/v0/admin/nosuch HTTP/1.0\r\nHost: {}\r\n\r\n",
        served.host()
    );
    let answer = served.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.0 400 "), "{answer}");
    assert!(
        answer.contains("\r\ntrailer: Unknown+method+in+admin+handler%21\r\n"),
        "{answer}"
    );
    assert!(!answer.contains("x-trail"), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn connections_are_kept_and_requests_pipelined_also_after_an_error() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    let host = served.host();
    let one =
        |target: &str, more: &str| format!("POST {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
    let answers = served
        .raw(
            [
                one("/peergos/v0/admin/nosuch", "Content-Length: 0\r\n"),
                one("/api/v0/id", ""),
                one("/nosuch", ""),
                one("/api/v0/ids", "Connection: close\r\n"),
            ]
            .concat()
            .as_bytes(),
        )
        .await;
    let statuses: Vec<_> = answers
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &answers[at + 9..at + 12])
        .collect();
    assert_eq!(statuses, ["400", "200", "404", "200"]);
    served.stop().await;
}

#[tokio::test]
async fn expect_continue_is_honoured_and_chunked_bodies_are_read() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    let mut stream = served.connect().await;
    let head = format!(
        "POST /peergos/v0/core/getChain HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: 9\r\nConnection: close\r\n\r\n",
        served.host()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 25];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"\0\0\0\x05carol").await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    let answer = super::harness::parse(&rest);
    assert_eq!((answer.status, answer.body.as_slice()), (200, &[0x80][..]));
    let chunked = format!(
        "POST /peergos/v0/core/getChain HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\n\0\0\0\x05\r\n5\r\ncarol\r\n0\r\n\r\n",
        served.host()
    );
    let answer = served.raw(chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    served.stop().await;
}

/// WR-3 and DOS-6: bodies are cut at the limit of their call, and the client sees why.
#[tokio::test]
async fn dos_6_bodies_above_the_limit_are_refused_with_the_message() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    let owner = "z59vuwzfFDp3ak75RXXATPGnpBRGsvv2EvsGZw3YmA5TedSJKHmTnwL";
    let target = format!("/peergos/v0/mutable/setPointer?owner={owner}&writer={owner}");
    let answer = served.request("POST", &target, &[], &[0; 1025]).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.message(), "Input exceeds maximum size of 1024 bytes");
    // A body that is far too large, in chunks, is still answered.
    let mut stream = served.connect().await;
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        served.host()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[0; 0x10000], b"\r\n"].concat();
    for _ in 0..32 {
        stream.write_all(&chunk).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut out = Vec::new();
    stream.read_to_end(&mut out).await.unwrap();
    let answer = super::harness::parse(&out);
    assert_eq!(answer.message(), "Input exceeds maximum size of 1024 bytes");
    // And one that claims ten gigabytes is refused at once.
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: 10000000000\r\n\r\n",
        served.host()
    );
    let mut stream = served.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut out = Vec::new();
    stream.read_to_end(&mut out).await.unwrap();
    let answer = super::harness::parse(&out);
    assert_eq!(answer.message(), "Input exceeds maximum size of 1024 bytes");
    served.stop().await;
}

#[tokio::test]
async fn long_targets_and_header_blocks_are_accepted() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    let target = format!("/peergos/v0/admin/version?x={}", "a".repeat(20_000));
    assert_eq!(served.request("POST", &target, &[], b"").await.status, 200);
    let header = format!("X-Filler: {}", "a".repeat(40_000));
    let answer = served.request("POST", "/api/v0/id", &[&header], b"").await;
    assert_eq!(answer.status, 200);
    let target = format!("/peergos/v0/admin/version?x={}", "a".repeat(200_000));
    assert!(served.request("POST", &target, &[], b"").await.status >= 400);
    served.stop().await;
}

#[tokio::test]
async fn dos_5_a_connection_that_sends_nothing_is_closed() {
    let mut config = config();
    config.limits.header_timeout = Duration::from_millis(100);
    let node = TestNode::with(config).await;
    let served = node.serve().await;
    for begin in [&b""[..], b"POST /api/v0/id HTTP/1.1\r\nHos"] {
        let mut stream = served.connect().await;
        stream.write_all(begin).await.unwrap();
        let mut out = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut out))
            .await
            .expect("the node closes the connection")
            .unwrap();
    }
    served.stop().await;
}

#[tokio::test]
async fn rel_21_shutdown_answers_requests_in_flight() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    let mut stream = served.connect().await;
    let head = format!(
        "POST /peergos/v0/core/getChain HTTP/1.1\r\nHost: {}\r\nContent-Length: 9\r\n\r\n\0\0\0\x05",
        served.host()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The request has arrived when an answer to another one on the same listener has.
    assert_eq!(
        served.request("POST", "/api/v0/id", &[], b"").await.status,
        200
    );
    let stopping = tokio::spawn(served.stop());
    stream.write_all(b"carol").await.unwrap();
    let mut out = Vec::new();
    stream.read_to_end(&mut out).await.unwrap();
    assert_eq!(super::harness::parse(&out).body, [0x80]);
    stopping.await.unwrap();
}

/// Two hundred clients at once are served without an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_are_served() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    let address: SocketAddr = served.address;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..200 {
        clients.spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!(
                "POST /api/v0/id HTTP/1.1\r\nHost: localhost:{}\r\n\r\n",
                address.port()
            );
            for _ in 0..20 {
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = [0; 15];
                stream.read_exact(&mut answer).await.unwrap();
                assert_eq!(&answer, b"HTTP/1.1 200 OK");
                // The rest of the answer ends with the closing brace.
                while stream.read_u8().await.unwrap() != b'}' {}
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    served.stop().await;
}
