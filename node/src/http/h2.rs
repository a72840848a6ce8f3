//! HTTP/2, on TLS connections that ask for it (Spec: 40 DOS-10).
//!
//! The library bounds streams, headers and resets; what it leaves open is closed here: a connection that asks for
//! nothing, one that never takes its answers, and one that takes them a little at a time for ever. Answers are
//! handed over in slices, so that what waits is counted and no more than a slice of it is copied.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use hyper::server::conn::http2;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::head::MAX_HEAD_BYTES;
use crate::config::Limits;

/// Requests at the same time on one connection.
const MAX_STREAMS: u32 = 128;
/// Requests that the client took back before they were looked at, and those that broke the protocol.
const MAX_RESETS: usize = 64;
/// Bytes of one body that may be under way without our leave.
const STREAM_WINDOW: u32 = 256 << 10;
/// Bytes of all bodies of a connection that may be.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of one answer that the library copies.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Wait for the answer to a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Returns the settings of the library.
pub(super) fn builder<E>(executor: E, limits: &Limits) -> http2::Builder<E>
where
    E: Clone,
{
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(hyper_util::rt::TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(limits.keep_alive)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Puts the host of the request where HTTP/1 has it.
pub(super) fn name_host<B>(request: &mut Request<B>) {
    if request.headers().contains_key(header::HOST) {
        return;
    }
    let authority = request.uri().authority();
    if let Some(host) = authority.and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// What happens on a connection.
#[derive(Debug)]
pub(super) struct Activity(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    /// Requests at work and answers under way, with the times they began.
    open: BTreeMap<u64, Instant>,
    next: u64,
    /// When the last of them ended.
    last: Instant,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Seen {
            open: BTreeMap::new(),
            next: 0,
            last: Instant::now(),
        })))
    }

    /// Notes a request; it lasts until what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        let mut seen = self.0.lock();
        let number = seen.next;
        seen.next += 1;
        seen.open.insert(number, Instant::now());
        Exchange {
            activity: Arc::clone(self),
            number,
        }
    }

    /// Resolves when nothing happened for `idle`, or when something has been under way for `longest`.
    pub(super) async fn is_over(&self, idle: Duration, longest: Duration) {
        loop {
            let deadline = {
                let seen = self.0.lock();
                match seen.open.values().min() {
                    Some(oldest) => *oldest + longest,
                    None => seen.last + idle,
                }
            };
            let now = Instant::now();
            if deadline <= now {
                return;
            }
            tokio::time::sleep_until(deadline.min(now + idle)).await;
        }
    }
}

/// One request and its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    activity: Arc<Activity>,
    number: u64,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut seen = self.activity.0.lock();
        seen.open.remove(&self.number);
        seen.last = Instant::now();
    }
}

/// An answer that is handed over in slices.
#[derive(Debug)]
pub(super) struct Sliced {
    rest: Bytes,
    _exchange: Exchange,
}

impl Sliced {
    /// Takes over the body of an answer.
    pub(super) fn of(response: Response<Full<Bytes>>, exchange: Exchange) -> Response<Self> {
        response.map(|body| {
            let rest = match body.collect().now_or_never() {
                Some(Ok(body)) => body.to_bytes(),
                // A body in memory is always ready.
                _ => Bytes::new(),
            };
            Self {
                rest,
                _exchange: exchange,
            }
        })
    }
}

impl Body for Sliced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let count = SEND_BUFFER_BYTES.min(self.rest.len());
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(count)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn dos_10_a_connection_ends_when_nothing_happens_or_one_thing_takes_too_long() {
        let (idle, longest) = (Duration::from_secs(60), Duration::from_secs(600));
        let activity = Activity::new();
        let begun = Instant::now();
        activity.is_over(idle, longest).await;
        assert_eq!(begun.elapsed().as_secs(), 60);
        let activity = Activity::new();
        let begun = Instant::now();
        let exchange = activity.begin();
        let other = activity.begin();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(100)).await;
            drop(other);
        });
        activity.is_over(idle, longest).await;
        assert_eq!(begun.elapsed().as_secs(), 600);
        drop(exchange);
    }

    #[tokio::test]
    async fn answers_are_sliced() {
        let response = Response::new(Full::new(Bytes::from(vec![7; 200_000])));
        let activity = Activity::new();
        let mut body = Sliced::of(response, activity.begin()).into_body();
        let mut sizes = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            sizes.push(frame.data_ref().unwrap().len());
        }
        assert_eq!(sizes, [65_536, 65_536, 65_536, 3_392]);
        assert_eq!(activity.0.lock().open.len(), 1);
        drop(body);
        assert!(activity.0.lock().open.is_empty());
    }
}
