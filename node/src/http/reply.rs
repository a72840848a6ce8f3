//! Successful answers (Spec: 05 §6).

use bytes::Bytes;
use champ::{
    Cid,
    cbor::{Record, Value},
};
use http::{HeaderValue, Response, header};
use http_body_util::Full;

/// The caching header of answers that are functions of a content hash: exactly these bytes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31622400 immutable");
/// The same for what a token opened: nobody in between may hand it to who has none.
const IMMUTABLE_FOR_ONE: HeaderValue =
    HeaderValue::from_static("private, max-age=31622400 immutable");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Keeps an answer out of caches that several people share (Spec: 40 WEB-11). For answers to GET: those to POST, which no
/// cache keeps, are compared with the bytes of 05 §6.
pub(crate) fn keep_private<B>(response: &mut Response<B>) {
    if let Some(value) = response.headers_mut().get_mut(header::CACHE_CONTROL)
        && *value == IMMUTABLE
    {
        *value = IMMUTABLE_FOR_ONE;
    }
}

/// A successful answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    content_type: &'static str,
    body: Bytes,
    hash: Option<Cid>,
    gzip: bool,
}

impl Reply {
    /// Raw bytes: blocks, pointers, data streams.
    pub(crate) fn bytes(body: impl Into<Bytes>) -> Self {
        Self {
            content_type: "application/octet-stream",
            body: body.into(),
            hash: None,
            gzip: false,
        }
    }

    /// No bytes: absent block, absent pointer.
    pub(crate) fn empty() -> Self {
        Self::bytes(Bytes::new())
    }

    /// One byte, `00` or `01`.
    pub(crate) fn byte_boolean(value: bool) -> Self {
        Self::bytes(Bytes::from_static(if value { &[1] } else { &[0] }))
    }

    /// A CBOR value.
    pub(crate) fn cbor(value: &Value) -> Self {
        Self::cbor_bytes(value.encode())
    }

    /// A record.
    pub(crate) fn record(record: &impl Record) -> Self {
        Self::cbor_bytes(record.encode())
    }

    /// Bytes that are CBOR already.
    pub(crate) fn cbor_bytes(body: impl Into<Bytes>) -> Self {
        Self {
            content_type: "application/cbor",
            ..Self::bytes(body)
        }
    }

    /// JSON text without blank space.
    pub(crate) fn json(body: impl Into<Bytes>) -> Self {
        Self {
            content_type: "application/json",
            ..Self::bytes(body)
        }
    }

    /// JSON that is gzipped whatever the request offers.
    pub(crate) fn gzipped_json(body: impl Into<Bytes>) -> Self {
        Self {
            gzip: true,
            ..Self::json(body)
        }
    }

    /// Plain text.
    pub(crate) fn text(body: impl Into<String>) -> Self {
        Self {
            content_type: "text/plain",
            ..Self::bytes(body.into())
        }
    }

    /// Marks the answer as a function of `cid`.
    pub(crate) fn immutable(mut self, cid: Cid) -> Self {
        self.hash = Some(cid);
        self
    }

    /// Builds the response.
    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        let headers = response.headers_mut();
        headers.reserve(6);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(self.content_type),
        );
        let etag = self
            .hash
            .and_then(|cid| HeaderValue::from_str(&format!("\"{cid}\"")).ok());
        match etag {
            Some(etag) => {
                headers.insert(header::CACHE_CONTROL, IMMUTABLE);
                headers.insert(header::ETAG, etag);
            }
            None => {
                headers.insert(header::CACHE_CONTROL, NO_STORE);
            }
        }
        if self.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}
