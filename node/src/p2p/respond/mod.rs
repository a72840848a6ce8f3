//! One request and its answer on a stream, from the side that is asked (Spec: 11 §4.1, §7).
//!
//! Everything about the request is bounded before it is kept: request line, headers, body, time. Headers that could
//! claim who asks never reach the calls; the id that the connection proved is the only source of that.
//!
//! * [`head`][]: reading and checking the head;
//! * [`arriving`][]: the body as it comes.

mod arriving;
mod head;

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use super::{MAX_BODY_BYTES, PeerId};
use crate::{
    error::Refusal,
    http::{Hosts, Origin, RequestBody, answer, finish, whole},
    state::State,
};

use arriving::arriving;
use head::{parse, read_head};

/// Most bytes of a body that are read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Longest work on a request.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// Longest work on a request that moves a user.
const MOVE_TIME: Duration = Duration::from_secs(600);

/// Longest wait for a peer to take the next piece of an answer.
const WRITE_TIME: Duration = Duration::from_secs(30);

/// Answers the one request of a stream, and closes it.
///
/// # Errors
/// When the stream breaks, or the peer is too slow.
pub(in crate::p2p) async fn respond<S>(
    state: &Arc<State>,
    hosts: &Hosts,
    peer: PeerId,
    stream: S,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut read, mut write) = tokio::io::split(stream);
    let mut buffer = BytesMut::new();
    let patience = state.config.limits.header_timeout;
    let found = timeout(patience, read_head(&mut read, &mut buffer)).await??;
    let seat = state.admission.request(Some(peer.stand_in().into()));
    let response = match (found, &seat) {
        // 503 also where one client would be told 429: the peer asks for many.
        (_, Err(_)) => refused(Refusal::Busy),
        (Err(refusal), _) => refused(refusal),
        (Ok(length), Ok(_)) => {
            let head = buffer.split_to(length).freeze();
            take(state, hosts, peer, (&head, buffer.freeze(), read)).await?
        }
    };
    let (parts, body) = response.into_parts();
    let bytes = whole(body).await;
    let sent = async {
        write
            .write_all(&head(parts.status, &parts.headers, bytes.len()))
            .await?;
        for piece in bytes.chunks(PIECE_BYTES) {
            timeout(WRITE_TIME, write.write_all(piece)).await??;
        }
        write.shutdown().await
    };
    sent.await
}

/// Has a request answered, given its head, what came with it, and where the rest comes from.
async fn take<R>(
    state: &Arc<State>,
    hosts: &Hosts,
    peer: PeerId,
    (head, first, read): (&[u8], Bytes, R),
) -> io::Result<Response<Full<Bytes>>>
where
    R: AsyncRead + Send + Unpin + 'static,
{
    let (request, length) = match parse(head) {
        Ok(parsed) => parsed,
        Err(refusal) => return Ok(refused(refusal)),
    };
    let time = match request.uri().path() {
        "/peergos/v0/core/getUserSnapshots" | "/peergos/v0/core/migrateUser" => MOVE_TIME,
        _ => ANSWER_TIME,
    };
    let body = arriving(read, first, length);
    let request = request.map(|()| RequestBody::of_peer(body, &state.admission));
    let answered = timeout(time, answer(state, hosts, request, Origin::Peer(peer))).await;
    let Ok(response) = answered else {
        return Ok(bare(StatusCode::BAD_GATEWAY));
    };
    let (parts, body) = response.into_parts();
    let body = whole(body).await;
    if body.len() > MAX_BODY_BYTES {
        return Ok(refused(Refusal::rule("Answer too long for a peer")));
    }
    Ok(match state.admission.hold_answer(body) {
        Ok(body) => Response::from_parts(parts, Full::new(body)),
        Err(refusal) => refused(refusal),
    })
}

fn refused(refusal: Refusal) -> Response<Full<Bytes>> {
    let mut response = refusal.into_response();
    finish(&mut response);
    response
}

/// An answer of nothing but a status.
fn bare(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// Returns the head of an answer.
fn head(status: StatusCode, headers: &HeaderMap, length: usize) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or("Unknown");
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
    head
}

#[cfg(test)]
mod tests {
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
        String::from_utf8(answer).unwrap()
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
            serde_json::from_str(include_str!("../../../tests/vectors/http_over_p2p.json"))
                .unwrap();
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
}
