//! Responses: the headers of every page, and bodies that are sent while they are read (Spec: 13 §9.2).

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use cryptree::client::RemoteFile;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use pki::wire::trailer::encode_trailer;
use tokio::{sync::mpsc, time::timeout};

use super::{
    admission::Admitted,
    failure::SiteFailure,
    site::{Content, Page, step},
};

/// The body of a response.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How long a browser may take to read a chunk.
const WRITE: Duration = Duration::from_secs(60);

/// Makes responses of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender {
    pub(super) is_head: bool,
    pub(super) is_public: bool,
}

impl Sender {
    /// Sends a page. `admitted` counts until the last byte of it is on its way.
    pub(super) async fn page(
        self,
        page: Page,
        policy: &HeaderValue,
        admitted: Admitted,
    ) -> Response<Body> {
        let body = match page.content {
            _ if self.is_head => empty(),
            Content::Small(bytes, _) => full(bytes),
            Content::Large(file) => match streamed(file, admitted).await {
                Ok(body) => body,
                Err(failure) => return self.refusal(&failure),
            },
        };
        let mut response = Response::new(body);
        if page.is_missing {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        let headers = response.headers_mut();
        self.add_headers(headers, policy);
        headers.insert(header::CONTENT_TYPE, page.kind.value);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(page.size));
        if page.kind.is_attachment {
            headers.insert(
                header::CONTENT_DISPOSITION,
                HeaderValue::from_static("attachment"),
            );
        }
        response
    }

    /// Says that nothing is there.
    pub(super) fn nothing(self, policy: &HeaderValue) -> Response<Body> {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        let headers = response.headers_mut();
        self.add_headers(headers, policy);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response
    }

    /// Says why there is no site.
    pub(super) fn refusal(self, failure: &SiteFailure) -> Response<Body> {
        let mut response = Response::new(empty());
        *response.status_mut() = failure.status();
        let headers = response.headers_mut();
        self.add_headers(headers, &HeaderValue::from_static("default-src 'none'"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(text) = HeaderValue::from_str(&encode_trailer(&failure.to_string())) {
            headers.insert(header::TRAILER, text);
        }
        response
    }

    fn add_headers(self, headers: &mut HeaderMap, policy: &HeaderValue) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
        for (name, value) in [
            ("x-frame-options", "sameorigin"),
            ("x-xss-protection", "1; mode=block"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("permissions-policy", "interest-cohort=()"),
        ] {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        if self.is_public {
            headers.insert(
                header::STRICT_TRANSPORT_SECURITY,
                HeaderValue::from_static("max-age=31536000"),
            );
        }
    }
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Reads the first chunk, and the rest while the browser reads; one that is not read goes nowhere.
async fn streamed(file: Arc<RemoteFile>, admitted: Admitted) -> Result<Body, SiteFailure> {
    let (first_sender, first) = tokio::sync::oneshot::channel();
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, io::Error>>(1);
    tokio::spawn(async move {
        let _admitted = admitted;
        let mut chunks = file.chunks(0);
        let mut first = Some(first_sender);
        loop {
            let next = step(chunks.next()).await;
            let next = match (next, first.take()) {
                (Ok(next), Some(first)) => {
                    let _ = first.send(Ok(()));
                    next
                }
                (Err(failure), Some(first)) => {
                    let _ = first.send(Err(failure));
                    return;
                }
                (Ok(next), None) => next,
                (Err(failure), None) => {
                    // The connection breaks off: the length that was promised is not reached.
                    let _ = sender.send(Err(io::Error::other(failure))).await;
                    return;
                }
            };
            let Some(chunk) = next else { return };
            let sent = timeout(WRITE, sender.send(Ok(Frame::data(chunk)))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    });
    first.await.map_err(|_| SiteFailure::TimedOut)??;
    let frames = stream::unfold(receiver, async |mut receiver| {
        let frame = receiver.recv().await?;
        Some((frame, receiver))
    });
    Ok(StreamBody::new(frames).boxed_unsync())
}
