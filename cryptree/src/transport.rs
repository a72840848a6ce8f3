//! The one door through which a client talks to a node.
//!
//! Implemented over HTTP and in process by whoever has sockets or a router; everything in this crate is
//! written against the trait, so it runs on any executor and in the browser. Spec: 05.

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;

/// One API call. Always sent as POST.
#[derive(Clone)]
pub struct ApiRequest {
    /// Path without leading slash, for example `api/v0/block/get`.
    pub path: Cow<'static, str>,
    /// Query parameters in order, not yet percent-encoded.
    pub query: Vec<(Cow<'static, str>, String)>,
    /// Request body; absent is the same as empty.
    pub body: Option<Bytes>,
    /// The caller accepts at most this many bytes of reply body; more is an error, not a truncation.
    pub max_reply_bytes: usize,
    /// The node may work on it for hours: only a lost connection ends the wait for a reply.
    pub is_long: bool,
}

impl ApiRequest {
    /// Starts a call without parameters or body.
    pub fn new(path: impl Into<Cow<'static, str>>, max_reply_bytes: usize) -> Self {
        Self {
            path: path.into(),
            query: Vec::new(),
            body: None,
            max_reply_bytes,
            is_long: false,
        }
    }

    /// Waits for the reply as long as the connection holds.
    #[must_use]
    pub const fn long(mut self) -> Self {
        self.is_long = true;
        self
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((Cow::Borrowed(name), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Returns path and query as sent: names and values percent-encoded, blanks as `%20`.
    pub fn target(&self) -> String {
        let mut target = self.path.to_string();
        for (i, (name, value)) in self.query.iter().enumerate() {
            target.push(if i == 0 { '?' } else { '&' });
            percent_encode(name, &mut target);
            target.push('=');
            percent_encode(value, &mut target);
        }
        target
    }
}

impl fmt::Debug for ApiRequest {
    /// Shows the path only: parameters carry access tokens and signatures (Spec: 05, security check 8).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiRequest")
            .field("path", &self.path)
            .field("body_bytes", &self.body.as_ref().map_or(0, Bytes::len))
            .finish_non_exhaustive()
    }
}

/// What came back.
#[derive(Clone)]
pub struct ApiResponse {
    /// HTTP status.
    pub status: u16,
    /// The `Trailer` header as received: the form-encoded error message (Spec: 05 §7.1).
    pub trailer: Option<String>,
    /// Reply body.
    pub body: Bytes,
}

impl fmt::Debug for ApiResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiResponse")
            .field("status", &self.status)
            .field("trailer", &self.trailer)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// Why no reply arrived.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection could be made; the request was not processed.
    #[error("the node cannot be reached")]
    Unreachable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The connection broke after the request may have been processed.
    #[error("the connection to the node was lost")]
    Interrupted(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// No reply within the transport's time limit; the request may have been processed.
    #[error("the node did not answer in time")]
    TimedOut,
    /// The reply is larger than the call allows.
    #[error("the node's reply is larger than {max} bytes")]
    ReplyTooLarge {
        /// The limit of the call.
        max: usize,
    },
}

/// A way to reach one node.
///
/// Contract: the request is sent as POST with the given query; the reply is returned for every status, the
/// `Trailer` header undecoded; every wait is bounded; a reply body above `max_reply_bytes` is refused
/// without buffering more than that. At most [`MAX_IN_FLIGHT`] calls are made at once. Dropping the future is
/// safe: the request may or may not have been processed, which every caller here can cope with.
#[async_trait::async_trait]
pub trait Transport: Send + Sync {
    /// Makes one call.
    async fn call(&self, request: ApiRequest) -> Result<ApiResponse, TransportError>;
}

#[async_trait::async_trait]
impl<T: Transport + ?Sized> Transport for Arc<T> {
    async fn call(&self, request: ApiRequest) -> Result<ApiResponse, TransportError> {
        (**self).call(request).await
    }
}

/// Requests a client keeps in flight at most (Spec: 05 §8).
pub const MAX_IN_FLIGHT: usize = 50;

fn percent_encode(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for nibble in [byte >> 4, byte & 15] {
                out.push(
                    HEX.get(usize::from(nibble))
                        .map_or('0', |digit| char::from(*digit)),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_encodes_everything_but_unreserved_bytes() {
        let request = ApiRequest::new("peergos/v0/login/addMount", 10)
            .with("username", "a+b")
            .with("name", "my key/\u{e9}&=");
        assert_eq!(
            request.target(),
            "peergos/v0/login/addMount?username=a%2Bb&name=my%20key%2F%C3%A9%26%3D"
        );
    }

    #[test]
    fn debug_output_hides_parameters() {
        let request = ApiRequest::new("api/v0/block/get", 10).with("bat", "zSECRET");
        assert!(!format!("{request:?}").contains("SECRET"));
    }
}
