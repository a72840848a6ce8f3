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

/// Longest work on a request, and longest time in which a peer takes the answer: peers wait for 15 seconds, and for some
/// calls for 60.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// The same for requests that move a user.
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
    let (response, time) = match (found, &seat) {
        // 503 also where one client would be told 429: the peer asks for many.
        (_, Err(_)) => (refused(Refusal::Busy), ANSWER_TIME),
        (Err(refusal), _) => (refused(refusal), ANSWER_TIME),
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
    // All of it: whoever takes a byte now and then has a place, and memory, for no longer either.
    timeout(time, sent).await?
}

/// Has a request answered, given its head, what came with it, and where the rest comes from; returns also how long the peer
/// may take for the answer.
async fn take<R>(
    state: &Arc<State>,
    hosts: &Hosts,
    peer: PeerId,
    (head, first, read): (&[u8], Bytes, R),
) -> io::Result<(Response<Full<Bytes>>, Duration)>
where
    R: AsyncRead + Send + Unpin + 'static,
{
    let (request, length) = match parse(head) {
        Ok(parsed) => parsed,
        Err(refusal) => return Ok((refused(refusal), ANSWER_TIME)),
    };
    let time = match request.uri().path() {
        "/peergos/v0/core/getUserSnapshots" | "/peergos/v0/core/migrateUser" => MOVE_TIME,
        _ => ANSWER_TIME,
    };
    let body = arriving(read, first, length);
    let request = request.map(|()| RequestBody::of_peer(body, &state.admission));
    let answered = timeout(time, answer(state, hosts, request, Origin::Peer(peer))).await;
    let Ok(response) = answered else {
        return Ok((bare(StatusCode::BAD_GATEWAY), ANSWER_TIME));
    };
    let (parts, body) = response.into_parts();
    let body = whole(body).await;
    if body.len() > MAX_BODY_BYTES {
        let refusal = Refusal::rule("Answer too long for a peer");
        return Ok((refused(refusal), ANSWER_TIME));
    }
    let response = match state.admission.hold_answer(body) {
        Ok(body) => Response::from_parts(parts, Full::new(body)),
        Err(refusal) => refused(refusal),
    };
    Ok((response, time))
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
mod tests;
