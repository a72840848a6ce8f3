//! Every failure of an API call, and the one place where it becomes an HTTP answer (Spec: 05 §7).
//!
//! The [`std::fmt::Display`] text of a [`Refusal`] is what the client is told, in the `Trailer` header; several
//! texts are parsed by clients and must stay exact. What the operator is told goes to the log instead, and
//! neither ever holds a token, an authorisation or any other secret parameter.

use std::borrow::Cow;

use bytes::Bytes;
use champ::Cid;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use pki::{pointer::PointerRejection, wire::refusal::text};

use crate::store::StoreError;

/// Longest message that is put into a header, in characters before encoding.
const MAX_MESSAGE_CHARS: usize = 512;

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Method not allowed on this listener: 405 with an empty body and no message.
    #[error("Method not allowed")]
    Method,
    /// Unknown path, host or call below `/api/v0/`: 404.
    #[error("Not found")]
    NotFound,
    /// A parameter that is missing.
    #[error("Missing parameter: {0}")]
    MissingParameter(&'static str),
    /// A parameter or body that cannot be read; the text says which, never what was in it.
    #[error("{0}")]
    Malformed(Cow<'static, str>),
    /// The call exists nowhere below its prefix.
    #[error("{0}")]
    UnknownCall(Cow<'static, str>),
    /// The body is longer than the call allows.
    #[error("Input exceeds maximum size of {max} bytes")]
    BodyTooLarge {
        /// Limit in bytes.
        max: usize,
    },
    /// The head of a request was refused.
    #[error("{text}")]
    Head {
        /// Status code of the answer.
        status: StatusCode,
        /// What is wrong with it; a fixed text.
        text: String,
    },
    /// The body did not arrive in time or the connection broke.
    #[error("Request body was not received")]
    BodyIncomplete,
    /// The owner is in no claim chain this node knows.
    #[error("{}{}", text::UNKNOWN_IDENTITY, .0)]
    UnknownOwner(Cid),
    /// The name is in no claim chain this node knows.
    #[error("No value present")]
    UnknownName,
    /// The owner has a chain but no server to send the call to.
    #[error("{}{}", text::NO_HOME, .0)]
    NoHome(Cid),
    /// The owner lives elsewhere, and this node does not forward.
    #[error("This server is not the home of the user and does not forward requests")]
    NotHome,
    /// The owner lives elsewhere, and the node there does not answer.
    #[error("The home server of this user cannot be reached, please try again later")]
    HomeUnreachable,
    /// The user is moving to another node, or arriving here: nothing is written until that is done.
    #[error("Queue full: this account is moving, please try again")]
    Moving,
    /// The name authority does not answer.
    #[error("The name authority cannot be reached, please try again later")]
    AuthorityUnreachable,
    /// The link's owner lives elsewhere.
    #[error("Please use the link owner's server")]
    ForeignLink,
    /// A signature that does not verify.
    #[error("{}", text::INVALID_SIGNATURE)]
    Signature,
    /// A block signature over something else.
    #[error("{}", text::INVALID_BLOCK_SIGNATURE)]
    BlockSignature,
    /// A signed time outside its window.
    #[error("{}", text::STALE_AUTH)]
    Stale,
    /// A signed time that is not an integer.
    #[error("Invalid cbor for time in authorisation!")]
    AuthorisationRecord,
    /// A signed request for another call.
    #[error("Illegal path for signed request: {0}")]
    AuthorisationPath(String),
    /// A block whose tokens do not allow the read.
    #[error("{}", text::UNAUTHORIZED)]
    Unauthorised,
    /// A mirror token that is not the user's.
    #[error("Unauthorized!")]
    MirrorToken,
    /// The root of a lookup is not in the owner's space.
    #[error("{}{}", text::CHAMP_ROOT_ABSENT, .0)]
    ChampRootAbsent(Cid),
    /// A writer that no ownership proof leads to.
    #[error("Writer not present on this server: {0}")]
    UnknownWriter(Cid),
    /// More than the legal size of a block.
    #[error("{}", text::BLOCK_TOO_BIG)]
    BlockTooBig,
    /// The user's space is full.
    #[error(
        "{message} \nUsed {used} out of {quota} bytes. Rejecting write of size {size}. \nPlease delete some files or request more space.",
        message = text::QUOTA_REACHED
    )]
    QuotaReached {
        /// Confirmed bytes.
        used: u64,
        /// Quota in bytes.
        quota: u64,
        /// Bytes of this write and what the writer had pending.
        size: u64,
    },
    /// The user uploaded more than the quota in the sliding window.
    #[error("{}", text::BANDWIDTH_EXCEEDED)]
    UploadRate,
    /// The disk is nearly full.
    #[error("Server disk full, please contact the operator of this server")]
    DiskFull,
    /// A pointer update that does not follow the current state.
    #[error(transparent)]
    Pointer(#[from] PointerRejection),
    /// The login record, key or name did not match.
    #[error("{}", text::BAD_LOGIN)]
    Login,
    /// Too many attempts; the text begins with `Rate Limit: `.
    #[error("{}{}. Please try again later", text::RATE_LIMIT, .0)]
    RateLimit(&'static str),
    /// Refused by a rule of the call; the text is for people or fixed by the spec.
    #[error("{0}")]
    Rule(Cow<'static, str>),
    /// A call that exists in the protocol but is not served by this node.
    #[error("{0}")]
    Unimplemented(&'static str),
    /// Too much is at work here. Clients retry on the first two words.
    #[error("Queue full: this server is busy, please try again")]
    Busy,
    /// Too much is at work for this address.
    #[error("Too Many Requests")]
    TooManyRequests,
    /// This machine failed: disk, store, clock.
    #[error("Internal server error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Refusal {
    /// Makes a refusal of unreadable input.
    pub(crate) fn malformed(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed(text.into())
    }

    /// Makes a refusal by a rule.
    pub(crate) fn rule(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Rule(text.into())
    }

    /// Makes an internal failure out of anything that can go wrong on this machine.
    pub(crate) fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(error.into())
    }

    /// Returns the status code (Spec: 05 §7.2).
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Head { status, .. } => *status,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::RateLimit(_) | Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy | Self::Moving => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Returns the seconds after which trying again makes sense.
    const fn retry_after(&self) -> Option<&'static str> {
        match self {
            Self::Busy | Self::Moving | Self::TooManyRequests => Some("1"),
            Self::RateLimit(_) => Some("60"),
            _ => None,
        }
    }

    /// Builds the answer: empty body, message in the `Trailer` header.
    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let status = self.status();
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if let Self::Internal(cause) = &self {
            tracing::error!(cause = %chain(cause.as_ref()), "call failed on this machine");
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        if !matches!(self, Self::Method | Self::NotFound) {
            let encoded = form_encode(&self.to_string());
            if let Ok(value) = HeaderValue::from_str(&encoded) {
                headers.insert(header::TRAILER, value);
            }
        }
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::NoSpace { .. }) {
            return Self::DiskFull;
        }
        Self::internal(error)
    }
}

/// Form-URL-encodes a message: blank is `+`, letters, digits and `-_.*` stay, all else is `%XX` (Spec: 05 §7.1).
pub(crate) fn form_encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len() + 16);
    let mut buffer = [0; 4];
    for character in text.chars().take(MAX_MESSAGE_CHARS) {
        match character {
            ' ' => out.push('+'),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' | '*' => out.push(character),
            other => {
                for byte in other.encode_utf8(&mut buffer).bytes() {
                    out.push('%');
                    for nibble in [byte >> 4, byte & 15] {
                        out.push(char::from(*HEX.get(usize::from(nibble)).unwrap_or(&b'0')));
                    }
                }
            }
        }
    }
    out
}

/// Renders an error with its sources, for the log.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_form_encoded_exactly() {
        assert_eq!(
            form_encode("Storage quota reached! \nUsed 1 out of 2 bytes."),
            "Storage+quota+reached%21+%0AUsed+1+out+of+2+bytes."
        );
        assert_eq!(form_encode("a-b_c.d*e~/é"), "a-b_c.d*e%7E%2F%C3%A9");
    }

    #[test]
    fn control_characters_never_reach_a_header() {
        let response = Refusal::malformed("a\r\nX-Evil: 1\0").into_response();
        assert_eq!(response.headers()[header::TRAILER], "a%0D%0AX-Evil%3A+1%00");
    }

    #[test]
    fn long_messages_are_cut() {
        assert_eq!(form_encode(&"a".repeat(10_000)).len(), MAX_MESSAGE_CHARS);
    }

    #[test]
    fn refused_hosts_and_methods_carry_no_message() {
        for refusal in [Refusal::Method, Refusal::NotFound] {
            let response = refusal.into_response();
            assert!(response.headers().get(header::TRAILER).is_none());
        }
    }
}
