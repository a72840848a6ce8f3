//! One request and its answer on a stream, from the side that asks (Spec: 11 §4.1, §4.3).

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::{
    body::{Frame, Incoming, SizeHint},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use libp2p::core::upgrade::NegotiationError;
use pki::wire::call::Call as CallName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, Sleep, sleep, sleep_until, timeout_at},
};

use super::{Body, MAX_BODY_BYTES, MAX_REQUEST_LINE_BYTES, PeerError, PeerId, streams::NotOpened};

/// What a request line holds besides the target.
const LINE_FRAME_BYTES: usize = "POST  HTTP/1.1".len();
/// Longest head of an answer.
const MAX_ANSWER_HEAD_BYTES: usize = 16 << 10;
/// Most header lines of an answer.
const MAX_ANSWER_HEADERS: usize = 64;
/// Longest exchange, unless the call has a time of its own.
const EXCHANGE_TIME: Duration = Duration::from_secs(15);
/// Longest exchange of calls that wait for signatures and proofs.
const LONG_TIME: Duration = Duration::from_secs(60);
/// Time to close a stream in good order. Who answers without reading the request would have what is left of it kept for as
/// long as the connection lasts.
const CLOSING_TIME: Duration = Duration::from_secs(1);
/// Longest exchange of calls that move a user.
const MOVE_TIME: Duration = Duration::from_secs(600);

/// Returns how long an exchange of a call may take.
pub(super) fn exchange_time(path: &str) -> Duration {
    let path = path.trim_start_matches('/');
    let is = |calls: &[CallName]| calls.iter().any(|call| call.path() == path);
    if is(&[CallName::GetUserSnapshots, CallName::MigrateUser]) {
        MOVE_TIME
    } else if is(&[
        CallName::SetPointer,
        CallName::SetPointers,
        CallName::Signup,
    ]) {
        LONG_TIME
    } else {
        EXCHANGE_TIME
    }
}

/// Makes of a request what is sent: POST, path and query, `host`, `content-length`, and nothing of what the caller
/// brought but the type of the content.
///
/// # Errors
/// [`PeerError::Unsendable`], [`PeerError::TooLarge`].
pub(super) fn prepare(
    peer: &PeerId,
    request: Request<Body>,
) -> Result<(Request<Body>, String), PeerError> {
    let (parts, body) = request.into_parts();
    let target = parts
        .uri
        .path_and_query()
        .map(ToString::to_string)
        .filter(|target| target.starts_with('/'))
        .ok_or(PeerError::Unsendable("the target is no path"))?;
    if target.len() + LINE_FRAME_BYTES > MAX_REQUEST_LINE_BYTES {
        return Err(PeerError::Unsendable("the request line is too long"));
    }
    let length = body
        .size_hint()
        .exact()
        .ok_or(PeerError::Unsendable("the length of the body is not known"))?;
    if length > MAX_BODY_BYTES as u64 {
        return Err(PeerError::TooLarge {
            max: MAX_BODY_BYTES,
        });
    }
    let path = parts.uri.path().to_owned();
    let mut sent = Request::new(body);
    *sent.method_mut() = Method::POST;
    *sent.uri_mut() = target
        .parse::<Uri>()
        .map_err(|_| PeerError::Unsendable("the target is none"))?;
    let headers = sent.headers_mut();
    let host = HeaderValue::from_str(&peer.to_string())
        .map_err(|_| PeerError::Unsendable("the id is no host name"))?;
    headers.insert(header::HOST, host);
    headers.insert(header::CONTENT_LENGTH, length.into());
    if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
        headers.insert(header::CONTENT_TYPE, kind.clone());
    }
    Ok((sent, path))
}

/// Sends a request that [`prepare`] made, and returns the answer, whose body arrives while it is read.
///
/// # Errors
/// [`PeerError`].
pub(super) async fn exchange<S>(
    stream: S,
    peer: PeerId,
    request: Request<Body>,
    deadline: Instant,
    seat: OwnedSemaphorePermit,
) -> Result<Response<Body>, PeerError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(MAX_ANSWER_HEAD_BYTES)
        .max_headers(MAX_ANSWER_HEADERS);
    let broken = |error| failed(peer, error);
    let talk = async {
        let (mut sender, connection) = builder
            .handshake::<_, Body>(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends with the exchange: its other half is the sender, which the answer's body keeps.
        let (open, over) = oneshot::channel::<Infallible>();
        tokio::spawn(async move {
            let closing = async {
                let _ = over.await;
                sleep(CLOSING_TIME).await;
            };
            tokio::select! {
                done = connection => if let Err(error) = done {
                    tracing::debug!(%error, "an exchange ended early");
                },
                () = closing => tracing::debug!("a peer did not read the rest of a request"),
            }
        });
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok((response, (sender, open)))
    };
    let (response, open) = timeout_at(deadline, talk)
        .await
        .map_err(|_| PeerError::TimedOut(peer))??;
    let (mut parts, body) = response.into_parts();
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(PeerError::TooLarge {
            max: MAX_BODY_BYTES,
        });
    }
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
    ] {
        parts.headers.remove(name);
    }
    let body = Answer {
        body,
        peer,
        until: Box::pin(sleep_until(deadline)),
        received: 0,
        _exchange: open,
        _seat: seat,
    };
    Ok(Response::from_parts(parts, body.boxed_unsync()))
}

fn failed(peer: PeerId, error: hyper::Error) -> PeerError {
    if error.is_parse() || error.is_parse_too_large() {
        return PeerError::Malformed("it is no HTTP/1.1");
    }
    // The request left together with the question whether the peer speaks `/http`, so the answer to that comes here.
    let mut cause = std::error::Error::source(&error);
    while let Some(this) = cause {
        let is_refusal = |inner: &NegotiationError| matches!(inner, NegotiationError::Failed);
        let inner = this
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if inner.is_some_and(|inner| inner.downcast_ref().is_some_and(is_refusal)) {
            return PeerError::Unreachable {
                peer,
                reason: NotOpened::Unsupported.to_string(),
            };
        }
        cause = this.source();
    }
    PeerError::Broken(io::Error::other(error))
}

/// The body of an answer; the exchange is over when it is dropped.
struct Answer {
    body: Incoming,
    peer: PeerId,
    until: Pin<Box<Sleep>>,
    received: usize,
    /// Nothing is closed before the answer is complete.
    _exchange: (http1::SendRequest<Body>, oneshot::Sender<Infallible>),
    _seat: OwnedSemaphorePermit,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = PeerError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PeerError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if polled.is_pending() && this.until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(PeerError::TimedOut(this.peer))));
        }
        let Some(frame) = ready!(polled) else {
            return Poll::Ready(None);
        };
        let frame = frame.map_err(|error| failed(this.peer, error))?;
        this.received += frame.data_ref().map_or(0, Bytes::len);
        if this.received > MAX_BODY_BYTES {
            return Poll::Ready(Some(Err(PeerError::TooLarge {
                max: MAX_BODY_BYTES,
            })));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value as Json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
        sync::Semaphore,
    };

    use super::*;
    use crate::p2p::{collect, empty, full, refusal_text};

    const PEER: &str = "12D3KooWC4T1AXU2s2YBgGJ2FeaYVtsKoHZWJeubnWe9SnuSE7Zb";

    fn peer() -> PeerId {
        PEER.parse().unwrap()
    }

    /// Starts an exchange; returns its outcome to come and the far end of the stream.
    fn start(
        request: Request<Body>,
    ) -> (
        tokio::task::JoinHandle<Result<Response<Body>, PeerError>>,
        DuplexStream,
    ) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (request, path) = prepare(&peer(), request).unwrap();
        let deadline = Instant::now() + exchange_time(&path);
        let task = tokio::spawn(async move {
            let seat = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
            exchange(near, peer(), request, deadline, seat).await
        });
        (task, far)
    }

    async fn read_request(far: &mut DuplexStream, length: usize) -> String {
        let mut bytes = vec![0; length];
        far.read_exact(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Reads the request for nothing.
    async fn asked(far: &mut DuplexStream) {
        let text = format!("POST /x HTTP/1.1\r\nhost: {PEER}\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(read_request(far, text.len()).await, text);
    }

    fn vectors() -> Vec<Json> {
        let json: Json =
            serde_json::from_str(include_str!("../../tests/vectors/http_over_p2p.json")).unwrap();
        let cases = json["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 9);
        cases.clone()
    }

    #[tokio::test]
    async fn requests_are_the_minimal_ones_byte_for_byte() {
        let minimal = vectors()
            .into_iter()
            .find(|case| case["note"] == "minimal acceptable request")
            .unwrap();
        let bytes = champ::text::from_hex(minimal["stream_request"].as_str().unwrap()).unwrap();
        // Whatever a caller brings stays behind.
        let request = Request::get("/api/v0/id")
            .header("host", "localhost")
            .header("source", "12D3KooWspoofed")
            .header("authorization", "secret")
            .header("x-forwarded-for", "1.2.3.4")
            .header("connection", "upgrade")
            .body(empty())
            .unwrap();
        let (task, mut far) = start(request);
        let sent = read_request(&mut far, bytes.len()).await;
        assert_eq!(sent.as_bytes(), bytes);
        task.abort();
    }

    /// Every answer of the vectors, read as an initiator.
    #[tokio::test]
    async fn recorded_answers_are_read() {
        let mut read = 0;
        for case in vectors() {
            let Some(bytes) = case["stream_response"].as_str() else {
                continue;
            };
            let bytes = champ::text::from_hex(bytes).unwrap();
            let (task, mut far) = start(Request::post("/x").body(empty()).unwrap());
            asked(&mut far).await;
            far.write_all(&bytes).await.unwrap();
            let response = task.await.unwrap().unwrap();
            let text = case["stream_response_text"].as_str().unwrap();
            let (head, body) = text.split_once("\\r\\n\\r\\n").unwrap();
            let status = head.split(' ').nth(1).unwrap();
            assert_eq!(response.status().as_str(), status, "{case}");
            if head.contains("Trailer") {
                assert_eq!(refusal_text(response.headers()), "Storage quota reached!");
            }
            let gzip = head.contains("gzip");
            assert_eq!(response.headers().contains_key("content-encoding"), gzip);
            assert_eq!(collect(response.into_body(), 10).await.unwrap(), body);
            read += 1;
        }
        assert_eq!(read, 4);
    }

    #[tokio::test]
    async fn bodies_travel_both_ways_and_the_stream_closes_after_them() {
        let (task, mut far) = start(Request::post("/x?y=z+1").body(full("ping")).unwrap());
        let head =
            format!("POST /x?y=z+1 HTTP/1.1\r\nhost: {PEER}\r\ncontent-length: 4\r\n\r\nping");
        assert_eq!(read_request(&mut far, head.len()).await, head);
        far.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await
            .unwrap();
        let mut body = task.await.unwrap().unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "abc");
        far.write_all(b"2\r\nde\r\n0\r\n\r\n").await.unwrap();
        assert_eq!(collect(body, 2).await.unwrap(), "de");
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn streams_that_end_early_are_failures() {
        for sent in [
            &b""[..],
            b"HTTP/1.1 200",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
            b"SSH-2.0-x\r\n\r\n",
        ] {
            let (task, mut far) = start(Request::post("/x").body(empty()).unwrap());
            asked(&mut far).await;
            far.write_all(sent).await.unwrap();
            drop(far);
            let outcome = async { collect(task.await.unwrap()?.into_body(), 100).await };
            let error = outcome.await.unwrap_err();
            assert!(
                matches!(error, PeerError::Broken(_) | PeerError::Malformed(_)),
                "{error:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_answers_are_cut_off() {
        let (task, far) = start(Request::post("/x").body(empty()).unwrap());
        assert!(matches!(task.await.unwrap(), Err(PeerError::TimedOut(_))));
        drop(far);
        let (task, mut far) = start(Request::post("/x").body(empty()).unwrap());
        asked(&mut far).await;
        far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc")
            .await
            .unwrap();
        let response = task.await.unwrap().unwrap();
        let error = collect(response.into_body(), 100).await.unwrap_err();
        assert!(matches!(error, PeerError::TimedOut(_)));
    }

    /// The answer comes, and nobody takes the request: what is left of it is not kept.
    #[tokio::test(start_paused = true)]
    async fn dos_5_a_request_that_is_answered_unread_is_given_up() {
        for is_awaited in [true, false] {
            let (near, mut far) = tokio::io::duplex(1024);
            let request = Request::post("/x").body(full(vec![0; 1 << 20])).unwrap();
            let (request, _) = prepare(&peer(), request).unwrap();
            let deadline = Instant::now() + EXCHANGE_TIME;
            let task = tokio::spawn(async move {
                let seat = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
                exchange(near, peer(), request, deadline, seat).await
            });
            if is_awaited {
                // The head, or part of it: what comes before that is no answer.
                far.read_exact(&mut [0; 20]).await.unwrap();
                far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await
                    .unwrap();
                let response = task.await.unwrap().unwrap();
                assert_eq!(collect(response.into_body(), 2).await.unwrap(), "ok");
            } else {
                assert!(matches!(task.await.unwrap(), Err(PeerError::TimedOut(_))));
            }
            // The near end is gone soon: what was under way can be read to its end, which is not the request's.
            sleep(CLOSING_TIME * 2).await;
            let mut left = Vec::new();
            far.read_to_end(&mut left).await.unwrap();
            assert!(left.len() < 1 << 20, "{}", left.len());
        }
    }

    #[test]
    fn requests_that_older_nodes_misread_are_not_sent() {
        let prepared = |request: Request<Body>| prepare(&peer(), request).map(drop);
        let long = format!("/x?{}", "a".repeat(MAX_REQUEST_LINE_BYTES));
        assert!(prepared(Request::post(long).body(empty()).unwrap()).is_err());
        let big = full(vec![0; MAX_BODY_BYTES + 1]);
        assert!(matches!(
            prepared(Request::post("/x").body(big).unwrap()),
            Err(PeerError::TooLarge { .. })
        ));
        assert!(prepared(Request::post("*").body(empty()).unwrap()).is_err());
    }

    #[test]
    fn calls_have_the_time_they_need() {
        assert_eq!(exchange_time("/api/v0/id"), EXCHANGE_TIME);
        assert_eq!(exchange_time("/peergos/v0/mutable/setPointer"), LONG_TIME);
        assert_eq!(exchange_time("/peergos/v0/core/migrateUser"), MOVE_TIME);
    }
}
