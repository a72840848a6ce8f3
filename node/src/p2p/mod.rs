//! Nodes among each other: who they are, how they reach each other, who passes what on to whom (Spec: 11).
//!
//! Nodes know each other by peer id, the hash of a public key. What they say to each other are the calls of the
//! client API, as HTTP/1.1 messages on libp2p streams. The rest of the node sees one trait, [`Peers`]: a request to
//! a peer, a response from it.
//!
//! Invariant: what arrived from a peer is never passed on to another one, whatever it says; a request of a client
//! makes at most one hop.

mod addresses;
mod behaviour;
mod body;
mod config;
mod doorman;
mod exchange;
mod following;
mod forward;
mod gateway;
mod host;
mod listeners;
mod network;
mod peer_id;
mod places;
mod reachability;
mod records;
mod relaying;
mod respond;
mod route;
mod status;
mod streams;
mod transport;
mod words;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, header};
use pki::wire::trailer::decode_trailer;

pub use addresses::{DialScope, NotAScope};
pub use body::{Body, collect, empty, full};
pub use config::P2pConfig;
pub(crate) use following::Following;
use forward::home_of;
pub(crate) use forward::{forward, home_elsewhere};
pub(crate) use gateway::{GATEWAY, gateway};
pub use libp2p::Multiaddr;
pub(crate) use network::{Network, record_row, start, stored_record};
pub use peer_id::{NotAPeerId, PeerId};
use records::successor;
pub(crate) use records::{first_record, newest, rotated};
pub(crate) use route::route;
pub use status::{PeerStatus, Reach, Standing};

/// Longest body of a request or an answer between nodes, in bytes.
pub const MAX_BODY_BYTES: usize = 8 << 20;
/// Longest request line that is sent: older nodes misread longer ones.
pub const MAX_REQUEST_LINE_BYTES: usize = 4096;
/// Longest text of a refusal that is taken from a peer, in bytes.
const MAX_REFUSAL_BYTES: usize = 1024;

/// Other nodes.
#[async_trait]
pub trait Peers: Send + Sync + std::fmt::Debug {
    /// Sends a request to a peer, which is dialed when there is no connection, and returns its answer.
    ///
    /// The target is a path with its query and at most [`MAX_REQUEST_LINE_BYTES`] long; of the headers only
    /// `content-type` is sent. The method is POST whatever the request says. The body's length must be known. The
    /// answer's status may be any; its body arrives while it is read, within the time the call has (Spec: 11 §4.3).
    /// Dropping the future or the body ends the exchange.
    ///
    /// # Errors
    /// [`PeerError`]: no answer came.
    async fn call(
        &self,
        peer: &PeerId,
        request: Request<Body>,
    ) -> Result<Response<Body>, PeerError>;

    /// Looks for the signed identity record of a peer in the network; returns whatever copies are found, none of
    /// them checked (Spec: 11 §2).
    async fn identity_record(&self, _peer: &PeerId) -> Vec<Bytes> {
        Vec::new()
    }
}

/// Why there is no answer from a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The peer is this node, under one of its ids.
    #[error("{0} is this node itself")]
    Own(PeerId),
    /// No address is known, or none answers.
    #[error("peer {peer} cannot be reached: {reason}")]
    Unreachable {
        /// The peer.
        peer: PeerId,
        /// Why, for the log.
        reason: String,
    },
    /// The peer was connected, and did not answer in time; or the last few times, so that it is left alone for a while.
    #[error("peer {0} did not answer in time")]
    TimedOut(PeerId),
    /// As many requests to this peer as are allowed are at work.
    #[error("too many requests to peer {0}")]
    Busy(PeerId),
    /// The request cannot be sent.
    #[error("the request cannot be sent to a peer: {0}")]
    Unsendable(&'static str),
    /// What came is no HTTP answer.
    #[error("the answer of the peer is malformed: {0}")]
    Malformed(&'static str),
    /// The stream broke before the answer was complete.
    #[error("the stream to the peer broke")]
    Broken(#[source] std::io::Error),
    /// The answer, or a body, is longer than allowed.
    #[error("body exceeds {max} bytes")]
    TooLarge {
        /// Limit in bytes.
        max: usize,
    },
    /// The peer answered with another status than success.
    #[error("the peer refused with status {status}: {message}")]
    Refused {
        /// Status code.
        status: u16,
        /// The decoded `Trailer`, at most 1 KiB: text of a stranger.
        message: String,
    },
    /// This node has stopped, or takes no part in a network.
    #[error("this node takes no part in a peer-to-peer network")]
    Off,
}

impl PeerError {
    /// Returns true when the request may never have reached the peer: another address or id may help.
    pub const fn is_transport(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::TimedOut(_) | Self::Broken(_) | Self::Busy(_)
        )
    }
}

/// Calls a peer and returns the whole body of a successful answer.
///
/// # Errors
/// [`PeerError`]; [`PeerError::Refused`] for every status but 200.
pub async fn ask(
    peers: &dyn Peers,
    peer: &PeerId,
    target: &str,
    body: impl Into<Bytes> + Send,
    max_answer_bytes: usize,
) -> Result<Bytes, PeerError> {
    let request = Request::post(target)
        .body(full(body))
        .map_err(|_| PeerError::Unsendable("the target is none"))?;
    let response = peers.call(peer, request).await?;
    if response.status() != http::StatusCode::OK {
        return Err(PeerError::Refused {
            status: response.status().as_u16(),
            message: refusal_text(response.headers()),
        });
    }
    collect(response.into_body(), max_answer_bytes).await
}

/// Returns the message of a refusal, cut to what is passed on.
pub(crate) fn refusal_text(headers: &http::HeaderMap) -> String {
    let value = headers.get(header::TRAILER);
    let mut text = value
        .and_then(|value| value.to_str().ok())
        .map(decode_trailer)
        .unwrap_or_default();
    let end = (0..=MAX_REFUSAL_BYTES.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_peers_are_cut() {
        let mut headers = http::HeaderMap::new();
        assert_eq!(refusal_text(&headers), "");
        headers.insert(header::TRAILER, "%C3%A9".repeat(2000).parse().unwrap());
        let text = refusal_text(&headers);
        assert!(text.len() <= MAX_REFUSAL_BYTES && text.starts_with('\u{e9}'));
    }
}
