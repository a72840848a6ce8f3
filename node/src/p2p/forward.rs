//! Passing a client's request on to the home of the user it is about (Spec: 11 §5, §6).
//!
//! Whose home it is says the user's claim, nothing in the request does. The answer of the home node is a stranger's:
//! status and body stay as they are, content types come from a list, of other headers only the message of a refusal
//! is kept, and a block must have the hash that was asked for.
//!
//! Bodies are complete here before they go on, in both directions, though [`Peers`] takes and gives them as streams. What
//! a client sends arrives at the client's pace, over minutes if need be; the exchange with the home has 15 seconds in
//! all, and one of 50 places. What the home answers must be complete for a block to be compared with its name, for
//! a copy to answer in its place when it breaks off, and so that a client that reads slowly takes up
//! neither. The price is memory, of which there is a bound: everything counts as buffered from its first byte on.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use pki::{
    claim::placeholder_provider,
    wire::{
        Body as _,
        call::{Call as CallName, Home},
        champ_lookup::{ChampCaps, ChampLookupReply},
        trailer::encode_trailer,
    },
};

use super::{
    Body, MAX_BODY_BYTES, MAX_REQUEST_LINE_BYTES, PeerError, PeerId, Peers,
    body::collect_each,
    full, refusal_text,
    route::{HOME_HEADER, OWNER_HAS_MOVED},
};
use crate::{
    error::Refusal,
    http::{Admission, Call, Origin, Reply, RequestBody},
    names,
};

/// What a request line holds besides the target.
const LINE_FRAME_BYTES: usize = "POST  HTTP/1.1".len();
/// Content types that answers of the API have.
const CONTENT_TYPES: [&str; 4] = [
    "application/octet-stream",
    "application/cbor",
    "application/json",
    "text/plain",
];

/// Returns the node that a call is to be passed on to; `None` when it is answered here.
pub(crate) async fn home_elsewhere(call: &Call<'_>) -> Option<PeerId> {
    call.state.peers()?;
    if call.what.home() != Home::Forwarded || matches!(call.origin, Origin::Peer(_)) {
        return None;
    }
    // Replicas and estimates are about this node, whoever the user is.
    let is_here = matches!(call.what, CallName::SetLogin | CallName::Usage);
    if is_here && call.query.flag("local") {
        return None;
    }
    home_of(call).await
}

/// Returns the home of the user that a call is about, when that is another node.
pub(super) async fn home_of(call: &Call<'_>) -> Option<PeerId> {
    // Whatever is wrong with the parameters, the call itself says so in the right words.
    let directory = &call.state.directory;
    let user = match call.query.optional("username") {
        Some(name) => directory.named(name).await.ok()?,
        None if call.what == CallName::LinkCounts => {
            directory.named(call.query.optional("owner")?).await.ok()?
        }
        None => directory.user(&call.query.owner().ok()?).await.ok()?,
    };
    let is_ours = user.is_local
        || call.state.identity.is_own(&user.home)
        || user.home == placeholder_provider();
    if is_ours {
        return None;
    }
    PeerId::from_cid(&user.home).ok()
}

/// Passes a call on and returns the answer.
///
/// # Errors
/// When the request cannot be sent, or no usable answer came.
pub(crate) async fn forward(
    call: &Call<'_>,
    home: PeerId,
    raw_query: &str,
    body: &mut RequestBody,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let Some(peers) = call.state.peers() else {
        return Err(Refusal::NotHome);
    };
    if call.what == CallName::GetLogin && !call.state.config.p2p.allows_foreign_logins {
        return Err(Refusal::rule("Please login on your home server"));
    }
    match call.what {
        CallName::BlockPut => {
            let (query, group) = crate::api::legacy_put(call, body).await?;
            let target = format!("/{}?{query}", CallName::BlockPutBulk.path());
            one(peers, call, home, target, group.to_body().into()).await
        }
        CallName::ChampGet | CallName::ChampGetBulk => lookups(peers, call, home, raw_query).await,
        _ => {
            let max = call.what.max_body_bytes().unwrap_or(0);
            let bytes = body.read(max).await?;
            let target = format!("/{}?{raw_query}", call.what.path());
            one(peers, call, home, target, bytes).await
        }
    }
}

/// Makes one call and checks what came. Whose home the node is no longer, is looked up again, and asked there.
async fn one(
    peers: &dyn Peers,
    call: &Call<'_>,
    home: PeerId,
    target: String,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, Refusal> {
    match at(peers, call, home, &target, &body).await? {
        Answered::Response(response) => Ok(response),
        Answered::Moved(first) => {
            // A node that always says so must not make this one ask for the table all the time.
            let _ = names::refresh_if_older(call.state, 1).await;
            match home_of(call).await.filter(|now| *now != home) {
                Some(now) => match at(peers, call, now, &target, &body).await? {
                    Answered::Response(response) | Answered::Moved(response) => Ok(response),
                },
                None => Ok(first),
            }
        }
    }
}

/// What a node answered.
enum Answered {
    Response(Response<Full<Bytes>>),
    /// What a node answers that says it is not the home: a refusal, or what its copy has.
    Moved(Response<Full<Bytes>>),
}

/// Asks one node.
async fn at(
    peers: &dyn Peers,
    call: &Call<'_>,
    home: PeerId,
    target: &str,
    body: &Bytes,
) -> Result<Answered, Refusal> {
    if target.len() + LINE_FRAME_BYTES > MAX_REQUEST_LINE_BYTES {
        return Err(Refusal::rule("Request too long for the user's home server"));
    }
    let request = Request::post(target)
        .body(full(body.clone()))
        .map_err(|_| Refusal::malformed("Invalid request target"))?;
    let response = peers.call(&home, request).await;
    let response = response.map_err(|error| unreachable(&error))?;
    let (parts, mut body) = response.into_parts();
    let bytes = receive(&mut body, &call.state.admission).await?;
    if parts.status != StatusCode::OK {
        let text = refusal_text(&parts.headers);
        let response = refusal(parts.status, &text);
        return Ok(match text == OWNER_HAS_MOVED {
            true => Answered::Moved(response),
            false => Answered::Response(response),
        });
    }
    let response = if call.what == CallName::BlockGet && !bytes.is_empty() {
        let cid = call.query.cid_argument()?;
        if !cid.matches(&bytes) {
            tracing::warn!(peer = %home, "a peer sent another block than it was asked for");
            return Err(Refusal::HomeUnreachable);
        }
        Reply::bytes(bytes).immutable(cid).into_response()
    } else {
        success(parts.headers.get(header::CONTENT_TYPE), bytes)
    };
    // A block is the same wherever it is; everything else may be newer at home.
    let is_old = parts.headers.contains_key(HOME_HEADER) && call.what != CallName::BlockGet;
    Ok(match is_old {
        true => Answered::Moved(response),
        false => Answered::Response(response),
    })
}

/// Why an answer did not arrive.
enum NotReceived {
    Broken(PeerError),
    Refused(Refusal),
}

impl From<PeerError> for NotReceived {
    fn from(error: PeerError) -> Self {
        Self::Broken(error)
    }
}

/// Reads an answer. It counts as memory in use from its first byte until the client has taken the last one, so
/// that any number of answers side by side stays below the limit on buffered bytes.
async fn receive(body: &mut Body, admission: &Arc<Admission>) -> Result<Bytes, Refusal> {
    let mut held = admission.hold();
    let counted = |bytes| held.add(bytes).map_err(NotReceived::Refused);
    match collect_each(body, MAX_BODY_BYTES, counted).await {
        Ok(bytes) => Ok(held.keep(bytes)),
        Err(NotReceived::Broken(error)) => Err(unreachable(&error)),
        Err(NotReceived::Refused(refusal)) => Err(refusal),
    }
}

/// Passes on a look-up, in as many requests as its tokens need.
async fn lookups(
    peers: &dyn Peers,
    call: &Call<'_>,
    home: PeerId,
    raw_query: &str,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let path = CallName::ChampGetBulk.path();
    let target = format!("/{path}?{raw_query}");
    let fits = |target: &str| target.len() + LINE_FRAME_BYTES <= MAX_REQUEST_LINE_BYTES;
    let Some(caps) = call.query.optional("caps").filter(|_| !fits(&target)) else {
        return one(peers, call, home, target, Bytes::new()).await;
    };
    let root = call.query.cid_argument()?;
    let owner = call.query.required("owner")?;
    let caps =
        ChampCaps::from_parameter(caps).map_err(|error| Refusal::malformed(error.to_string()))?;
    let caps = caps.as_slice();
    let target_of = |some: &[_]| -> Option<String> {
        let some = ChampCaps::new(some.to_vec()).ok()?;
        Some(format!(
            "/{path}?arg={root}&owner={owner}&caps={}",
            some.to_parameter()
        ))
    };
    let mut blocks: Vec<Bytes> = Vec::new();
    let mut rest = caps;
    while !rest.is_empty() {
        let mut count = rest.len();
        let (target, some) = loop {
            let some = rest.get(..count).unwrap_or_default();
            match target_of(some) {
                Some(target) if fits(&target) || count == 1 => break (target, some.len()),
                _ if count <= 1 => return Err(Refusal::malformed("Invalid parameter caps")),
                _ => count /= 2,
            }
        };
        rest = rest.get(some..).unwrap_or_default();
        let response = one(peers, call, home, target, Bytes::new()).await?;
        if response.status() != StatusCode::OK {
            return Ok(response);
        }
        let reply = ChampLookupReply::from_body(&crate::http::whole(response.into_body()).await)
            .map_err(|_| Refusal::HomeUnreachable)?;
        for block in reply.0 {
            if !blocks.contains(&block) {
                blocks.push(block);
            }
        }
    }
    let reply = ChampLookupReply(blocks);
    Ok(Reply::cbor_bytes(reply.to_body()).into_response())
}

/// Builds the answer to a call that the home node accepted.
pub(super) fn success(content_type: Option<&HeaderValue>, bytes: Bytes) -> Response<Full<Bytes>> {
    let given = content_type.and_then(|given| given.to_str().ok());
    let known = CONTENT_TYPES
        .into_iter()
        .find(|known| Some(*known) == given);
    let mut response = Reply::bytes(bytes).into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(known.unwrap_or("application/octet-stream")),
    );
    response
}

/// Builds the answer to a call that the home node refused, in its words.
pub(super) fn refusal(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let status = match status.as_u16() {
        429 | 502 | 503 | 504 => StatusCode::TOO_MANY_REQUESTS,
        400..=599 => status,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if let Ok(message) = HeaderValue::from_str(&encode_trailer(message)) {
        headers.insert(header::TRAILER, message);
    }
    response
}

fn unreachable(error: &PeerError) -> Refusal {
    tracing::debug!(%error, "a request could not be passed on");
    match error {
        PeerError::Busy(_) => Refusal::TooManyRequests,
        _ => Refusal::HomeUnreachable,
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::Frame;

    use super::*;
    use crate::config::Limits;

    /// A body of pieces of 10 KB.
    fn pieces(count: usize) -> Body {
        let piece = || Ok(Frame::data(Bytes::from(vec![7; 10_000])));
        let pieces: Vec<Result<_, PeerError>> = (0..count).map(|_| piece()).collect();
        StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync()
    }

    #[tokio::test]
    async fn answers_side_by_side_stay_below_the_limit_on_memory() {
        let admission = Admission::new(Limits {
            buffered_bytes: 100_000,
            ..Limits::default()
        });
        let mut received = Vec::new();
        let mut refused = 0;
        for _ in 0..8 {
            match receive(&mut pieces(3), &admission).await {
                Ok(bytes) => {
                    assert_eq!(bytes.len(), 30_000);
                    received.push(bytes);
                }
                Err(refusal) => {
                    assert!(matches!(refusal, Refusal::Busy), "{refusal}");
                    refused += 1;
                }
            }
            assert!(admission.buffered() <= 100_000);
        }
        assert_eq!((received.len(), refused), (3, 5));
        assert_eq!(admission.buffered(), 90_000);
        received.pop();
        assert!(receive(&mut pieces(3), &admission).await.is_ok());
        drop(received);
        assert_eq!(admission.buffered(), 0);
        // Longer than any answer may be: refused when it is, not when it is over.
        let endless = Admission::new(Limits::default());
        let refusal = receive(&mut pieces(900), &endless).await.unwrap_err();
        assert!(matches!(refusal, Refusal::HomeUnreachable), "{refusal}");
        assert_eq!(endless.buffered(), 0);
    }
}
