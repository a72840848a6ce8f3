//! The local way to other nodes: `POST /p2p/<id>/http/<path>` (Spec: 11 §4.2, 40 P2P-2).
//!
//! Off unless the operator asks for it, and then for programs of this machine only: whoever reaches it chooses which
//! node is asked what. Pages of other sites cannot.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::Full;

use super::{
    MAX_BODY_BYTES, PeerError, PeerId, collect,
    forward::{refusal, success},
    full, refusal_text,
};
use crate::{
    error::Refusal,
    http::{Origin, RequestBody},
    state::State,
};

/// Begins the paths that lead to other nodes.
pub(crate) const GATEWAY: &str = "/p2p/";

/// Asks the node that the path names, and returns its answer.
///
/// # Errors
/// When this caller may not, or no answer came.
pub(crate) async fn gateway(
    state: &State,
    parts: &Parts,
    body: &mut RequestBody,
    origin: Origin,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let is_near = match origin {
        Origin::InProcess => true,
        Origin::Address(address) => address.is_loopback(),
        Origin::Peer(_) => false,
    };
    if !state.config.p2p.has_gateway || !is_near {
        return Err(Refusal::NotFound);
    }
    if parts.method != Method::POST || comes_from_a_page(parts) {
        return Ok(refusal(StatusCode::FORBIDDEN, "Forbidden"));
    }
    let path = parts.uri.path().strip_prefix(GATEWAY).unwrap_or_default();
    let (id, rest) = path.split_once('/').ok_or(Refusal::NotFound)?;
    let rest = rest.strip_prefix("http/").ok_or(Refusal::NotFound)?;
    let peer: PeerId = id
        .parse()
        .map_err(|_| Refusal::malformed("Invalid server id"))?;
    let target = match parts.uri.query() {
        Some(query) => format!("/{rest}?{query}"),
        None => format!("/{rest}"),
    };
    let mut request = Request::post(target);
    if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    let request = request
        .body(full(body.read(MAX_BODY_BYTES).await?))
        .map_err(|_| Refusal::malformed("Invalid request target"))?;
    let answered = async {
        let peers = state.peers().ok_or(PeerError::Off)?;
        if state.identity.is_own(&peer.to_cid()) {
            return Err(PeerError::Own(peer));
        }
        let (parts, body) = peers.call(&peer, request).await?.into_parts();
        Ok((parts, collect(body, MAX_BODY_BYTES).await?))
    };
    let (parts, bytes) = answered
        .await
        .map_err(|error| Refusal::rule(error.to_string()))?;
    Ok(match parts.status {
        StatusCode::OK => success(parts.headers.get(header::CONTENT_TYPE), bytes),
        status => refusal(status, &refusal_text(&parts.headers)),
    })
}

/// Returns true when a browser says that a page of another site asks.
fn comes_from_a_page(parts: &Parts) -> bool {
    let site = parts.headers.get("sec-fetch-site");
    let is_foreign = site.is_some_and(|site| site != "same-origin" && site != "none");
    is_foreign || parts.headers.contains_key(header::ORIGIN)
}
