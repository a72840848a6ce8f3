//! What is asked wrongly, slowly, or for somebody else.

use http::Method;
use serde_json::Value as Json;
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::{Config, Node, p2p::MAX_REQUEST_LINE_BYTES};

const PEER: &str = "12D3KooWC4T1AXU2s2YBgGJ2FeaYVtsKoHZWJeubnWe9SnuSE7Zb";
const ASKER: &str = "12D3KooWQbb6k91VYokt5K45RdSVM4oyN3QhkCNwwfqy1L3DWbsz";

async fn node() -> Node {
    let config = Config {
        server_ids: vec![PEER.parse::<PeerId>().unwrap().to_cid()],
        ..Config::default()
    };
    Node::open(config).await.unwrap()
}

/// Sends bytes on a stream; returns what comes back until it is closed.
async fn send(node: &Node, bytes: &[u8]) -> String {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (mut read, mut write) = tokio::io::split(far);
    let asker = ASKER.parse().unwrap();
    let (state, hosts) = (node.state(), node.hosts());
    let (done, (), answer) = tokio::join!(
        respond(state, hosts, asker, near),
        async { drop(write.write_all(bytes).await) },
        async {
            let mut answer = Vec::new();
            read.read_to_end(&mut answer).await.unwrap();
            answer
        }
    );
    done.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    let status = answer.strip_prefix("HTTP/1.1 ").unwrap().get(..3);
    status.unwrap().parse().unwrap()
}

fn request(line: &str, headers: &str) -> Vec<u8> {
    format!("{line}\r\nhost: {PEER}\r\n{headers}\r\n").into_bytes()
}

/// Every request of the vectors, as a responder; texts stand for bytes where there are none.
#[tokio::test]
async fn recorded_requests_are_understood() {
    let json: Json =
        serde_json::from_str(include_str!("../../../tests/vectors/http_over_p2p.json")).unwrap();
    let mut understood = 0;
    for case in json["cases"].as_array().unwrap() {
        if case["kind"] != "exchange" {
            continue;
        }
        let bytes = match (&case["stream_request"], &case["stream_request_text"]) {
            (Json::String(hex), _) => champ::text::from_hex(hex).unwrap(),
            (_, Json::String(text)) => text.replace("\\r\\n", "\r\n").into_bytes(),
            // A line of this length.
            _ => {
                let length = case["request_line_length"].as_u64().unwrap();
                let length = usize::try_from(length).unwrap();
                let line = format!("POST /{} HTTP/1.1", "a".repeat(length - 15));
                assert_eq!(line.len(), length);
                request(&line, "")
            }
        };
        understood += 1;
        let mut read = &bytes[..];
        let mut buffer = BytesMut::new();
        let found = read_head(&mut read, &mut buffer).await.unwrap();
        let note = case["note"].as_str().unwrap();
        if note.starts_with("request line longer") {
            assert!(matches!(found, Err(Refusal::Head { status, .. }) if status == 414));
            continue;
        }
        let head = found.unwrap();
        let parsed = parse(&bytes[..head]);
        if note.starts_with("announced body over") {
            assert!(matches!(parsed, Err(Refusal::Head { status, .. }) if status == 413));
            continue;
        }
        let (request, length) = parsed.unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let target = text.split(' ').nth(1).unwrap();
        assert_eq!(request.uri().to_string(), target);
        assert_eq!(request.method(), Method::POST);
        assert_eq!(usize::try_from(length).unwrap(), bytes.len() - head);
        // All that is left: identity comes from the connection alone.
        assert_eq!(request.headers().len(), 1);
        assert_eq!(request.headers()["host"], PEER);
    }
    assert_eq!(understood, 8);
}

#[tokio::test]
async fn answers_are_framed_as_recorded() {
    assert_eq!(
        head(StatusCode::BAD_GATEWAY, &HeaderMap::new(), 0),
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"
    );
    let node = node().await;
    let answer = send(
        &node,
        &request("POST /api/v0/id HTTP/1.1", "content-length: 0\r\n"),
    )
    .await;
    let id = PEER.parse::<PeerId>().unwrap().to_cid();
    let body = format!("{{\"ID\":\"{id}\"}}");
    let expected = format!("content-length: {}\r\n\r\n{body}", body.len());
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with(&expected), "{answer}");
}

#[tokio::test]
async fn h2c_offers_and_claims_about_the_asker_are_ignored() {
    let node = node().await;
    let answer = send(
        &node,
        &request(
            "POST /api/v0/id HTTP/1.1",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n\
             Source: 12D3KooWspoofed\r\nX-Forwarded-For: 127.0.0.1\r\nContent-Length: 0\r\n",
        ),
    )
    .await;
    assert_eq!(status(&answer), 200);
}

#[tokio::test]
async fn p2p_3_requests_that_can_be_read_in_two_ways_are_refused() {
    let node = node().await;
    for (headers, expected) in [
        ("content-length: 1\r\ncontent-length: 2\r\n", 400),
        ("content-length: 0\r\ntransfer-encoding: chunked\r\n", 400),
        ("transfer-encoding: chunked\r\n", 411),
        ("content-length: +1\r\n", 400),
        ("bad header\r\n", 400),
        ("host: localhost:8000\r\n", 404),
    ] {
        let answer = send(&node, &request("POST /api/v0/id HTTP/1.1", headers)).await;
        assert_eq!(status(&answer), expected, "{headers}");
    }
    for (line, expected) in [
        ("GET http://169.254.169.254/ HTTP/1.1", 404),
        ("CONNECT localhost:80 HTTP/1.1", 404),
        ("GET /api/v0/id HTTP/1.1", 405),
        ("POST / HTTP/1.1", 404),
        ("POST /p2p/x/http/api/v0/id HTTP/1.1", 404),
        ("nonsense", 400),
    ] {
        let answer = send(&node, &request(line, "content-length: 0\r\n")).await;
        assert_eq!(status(&answer), expected, "{line}");
    }
    let other = format!("POST /api/v0/id HTTP/1.1\r\nhost: {ASKER}\r\n\r\n");
    assert_eq!(status(&send(&node, other.as_bytes()).await), 404);
}

/// Targets that mean another path, another host or another line to somebody else.
#[tokio::test]
async fn p2p_3_no_spelling_of_a_target_leads_elsewhere() {
    let node = node().await;
    for (target, expected) in [
        ("//api/v0/id", 404),
        ("//169.254.169.254/api/v0/id", 404),
        ("http://169.254.169.254/api/v0/id", 404),
        ("https://localhost/api/v0/id", 404),
        ("/api/v0/../v0/id", 404),
        ("/api/v0/%2e%2e/v0/id", 404),
        ("/api/v0/./id", 404),
        ("/api/v0//id", 404),
        ("/api%2fv0%2fid%2f..%2f..%2fadmin", 404),
        ("/api/v0/id%0d%0aX-Injected:%201", 404),
        ("/api/v0/id%00", 404),
        ("/API/v0/id", 404),
        ("/api/v0/id;x=y", 404),
        ("/peergos/v0/admin/..%2fmutable/getPointer", 404),
        ("*", 404),
        ("api/v0/id", 400),
        ("/api/v0/id\tx", 400),
        ("/api/v0/id x", 400),
        ("/api/v0/\u{e9}", 400),
        // A parameter is text, whatever it holds: the answer is the one of the call.
        ("/api/v0/id?x=%0d%0aX-Injected:%201", 200),
        ("/api/v0/id?x=//host/../..", 200),
        ("/api/v0/id?//host/../..", 400),
        (
            "/peergos/v0/mutable/getPointer?owner=%0d%0aX-Injected:%201&writer=%0a",
            400,
        ),
        ("/api/v0/block/get?arg=%0d%0aX-Injected:%201", 400),
        ("/api/v0/ipns/get?arg=..%2f..%2f%0d%0aX-Injected:%201", 400),
    ] {
        let line = format!("POST {target} HTTP/1.1");
        let answer = send(&node, &request(&line, "content-length: 0\r\n")).await;
        assert_eq!(status(&answer), expected, "{target}: {answer}");
        let (head, _) = answer.split_once("\r\n\r\n").unwrap();
        let mut names = head.lines().map(|line| line.split(':').next().unwrap());
        assert!(
            !names.any(|name| name.eq_ignore_ascii_case("x-injected")),
            "{answer}"
        );
    }
    // Lines that end in one of both, and a request behind the request in the same bytes.
    for bare in [
        format!("POST /api/v0/id HTTP/1.1\nhost: {PEER}\n\n\r\n\r\n"),
        format!("POST /api/v0/id HTTP/1.1\r\nhost: {PEER}\nx: y\r\n\r\n"),
        format!("POST /api/v0/id HTTP/1.1\r\nhost: {PEER}\r\n x: y\r\n\r\n"),
        format!("POST /api/v0/id HTTP/1.1\r\nhost : {PEER}\r\n\r\n"),
    ] {
        assert_eq!(status(&send(&node, bare.as_bytes()).await), 400, "{bare}");
    }
}

/// What follows a request on its stream is nobody's: one exchange, one answer.
#[tokio::test]
async fn p2p_3_a_second_request_on_a_stream_is_not_looked_at() {
    let node = node().await;
    let one = request("POST /api/v0/id HTTP/1.1", "content-length: 0\r\n");
    let next = request("POST /api/v0/ids HTTP/1.1", "content-length: 0\r\n");
    for behind in [next.clone(), vec![b'x'; 100_000]] {
        let answer = send(&node, &[&one[..], &behind].concat()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.contains("{\"ID\":") && !answer.contains("IDS"));
    }
    // As the body of a call that takes none: not looked at either.
    let length = format!("content-length: {}\r\n", next.len());
    let one = request("POST /api/v0/id HTTP/1.1", &length);
    let answer = send(&node, &[&one[..], &next].concat()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

/// A body that is shorter than announced is no body, and what is behind a shorter length does not belong to it.
#[tokio::test(start_paused = true)]
async fn dos_5_a_body_that_does_not_come_is_not_waited_for() {
    let node = node().await;
    let head = request(
        "POST /peergos/v0/core/getChain HTTP/1.1",
        "content-length: 9\r\n",
    );
    let body = b"\0\0\0\x05alice";
    let answer = send(&node, &[&head[..], body].concat()).await;
    assert_eq!(status(&answer), 200);
    // The rest never comes: the stream stays open, and the wait has an end.
    let (near, far) = tokio::io::duplex(1 << 20);
    let (mut read, mut write) = tokio::io::split(far);
    write
        .write_all(&[&head[..], &body[..4]].concat())
        .await
        .unwrap();
    let asker = ASKER.parse().unwrap();
    let (done, answer) = tokio::join!(respond(node.state(), node.hosts(), asker, near), async {
        let mut answer = String::new();
        read.read_to_string(&mut answer).await.unwrap();
        answer
    });
    done.unwrap();
    assert!(status(&answer) >= 400, "{answer}");
    drop(write);
    // A byte every few seconds does not help.
    let (near, far) = tokio::io::duplex(1 << 20);
    let (mut read, mut write) = tokio::io::split(far);
    let trickle = async {
        let long = request(
            "POST /api/v0/block/put/bulk?format=raw HTTP/1.1",
            "content-length: 100000\r\n",
        );
        write.write_all(&long).await.unwrap();
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    };
    let answered = async {
        let (done, answer) =
            tokio::join!(respond(node.state(), node.hosts(), asker, near), async {
                let mut answer = String::new();
                read.read_to_string(&mut answer).await.unwrap();
                answer
            });
        done.unwrap();
        answer
    };
    let answer = tokio::select! {
        answer = answered => answer,
        () = trickle => unreachable!("the answer comes first"),
    };
    assert!(status(&answer) >= 400, "{answer}");
}

/// Neither is one who does not take the answer.
#[tokio::test(start_paused = true)]
async fn dos_5_a_peer_that_does_not_read_is_left() {
    let node = node().await;
    let asker = ASKER.parse().unwrap();
    let sent = request("POST /api/v0/id HTTP/1.1", "content-length: 0\r\n");
    for pause in [None, Some(Duration::from_secs(5))] {
        // Room for the request; the answer goes through byte by byte.
        let (near, far) = Narrow::pair(sent.clone());
        let reading = async {
            let mut far = far;
            loop {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
                if far.read_u8().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let begun = tokio::time::Instant::now();
        let outcome = tokio::select! {
            outcome = respond(node.state(), node.hosts(), asker, near) => outcome,
            () = reading => unreachable!("it never ends"),
        };
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() <= ANSWER_TIME + Duration::from_secs(1));
    }
}

/// A stream that has a request to read, and room for one byte of the answer.
struct Narrow {
    request: io::Cursor<Vec<u8>>,
    answer: tokio::io::DuplexStream,
}

impl Narrow {
    fn pair(request: Vec<u8>) -> (Self, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1);
        let narrow = Self {
            request: io::Cursor::new(request),
            answer: near,
        };
        (narrow, far)
    }
}

impl AsyncRead for Narrow {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.request).poll_read(context, buffer)
    }
}

impl AsyncWrite for Narrow {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.answer).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.answer).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.answer).poll_shutdown(context)
    }
}

#[tokio::test]
async fn heads_and_bodies_that_are_too_long_are_refused_early() {
    let node = node().await;
    let line = format!("POST /{}", "a".repeat(5000));
    assert_eq!(status(&send(&node, line.as_bytes()).await), 414);
    let headers = format!("x: {}", "a".repeat(9000));
    let head = request("POST /api/v0/id HTTP/1.1", &headers);
    assert_eq!(status(&send(&node, &head).await), 431);
    let length = format!("content-length: {}\r\n", MAX_BODY_BYTES + 1);
    let head = request("POST /api/v0/block/put/bulk HTTP/1.1", &length);
    assert_eq!(status(&send(&node, &head).await), 413);
    let whole = request(
        &format!(
            "POST /api/v0/id?x={} HTTP/1.1",
            "a".repeat(MAX_REQUEST_LINE_BYTES - 28)
        ),
        &format!("x: {}\r\n", "a".repeat(8000)),
    );
    assert_eq!(status(&send(&node, &whole).await), 200);
}

#[tokio::test(start_paused = true)]
async fn dos_5_a_peer_that_sends_nothing_is_left() {
    let node = node().await;
    let asker = ASKER.parse().unwrap();
    for sent in [&b""[..], b"POST /api/v0/id HT"] {
        let (near, mut far) = tokio::io::duplex(100);
        far.write_all(sent).await.unwrap();
        let outcome = respond(node.state(), node.hosts(), asker, near).await;
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}

#[tokio::test]
async fn a_peer_with_too_many_requests_is_told_so() {
    let config = Config {
        limits: crate::Limits {
            requests_per_address: 0,
            ..crate::Limits::default()
        },
        ..Config::default()
    };
    let node = Node::open(config).await.unwrap();
    let answer = send(&node, b"POST /api/v0/id HTTP/1.1\r\n\r\n").await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("trailer: Queue+full"), "{answer}");
}
