//! Request bodies: limited while they arrive, and cut off when nobody sends (Spec: 05 §8, 40 §9).

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Instant, timeout};

use super::{
    admission::{Admission, Held},
    stream::Pacing,
};
use crate::{config::Limits, error::Refusal, p2p};

/// What is read and thrown away after a refusal, so that the client sees the message and not a reset.
const MAX_DISCARD_BYTES: u64 = 16 << 20;
/// How long that may take.
const MAX_DISCARD_TIME: Duration = Duration::from_secs(10);

/// The body of one request.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// Already in memory: calls inside the process.
    Ready(Bytes),
    /// Arriving on a connection.
    Arriving(Arriving),
}

/// Where a body comes from.
#[derive(Debug)]
enum Source {
    Connection(Incoming),
    Peer(p2p::Body),
}

impl http_body::Body for Source {
    type Data = Bytes;
    /// What went wrong does not matter: the body is incomplete.
    type Error = ();

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
        match self.get_mut() {
            Self::Connection(body) => Poll::Ready(
                ready!(Pin::new(body).poll_frame(context)).map(|frame| frame.map_err(drop)),
            ),
            Self::Peer(body) => Poll::Ready(
                ready!(Pin::new(body).poll_frame(context)).map(|frame| frame.map_err(drop)),
            ),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Connection(body) => body.is_end_stream(),
            Self::Peer(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Connection(body) => body.size_hint(),
            Self::Peer(body) => body.size_hint(),
        }
    }
}

/// A body that arrives on a connection.
#[derive(Debug)]
pub(crate) struct Arriving {
    body: Source,
    limits: Limits,
    /// What of it is in memory.
    held: Held,
    received: u64,
}

impl RequestBody {
    pub(super) fn arriving(body: Incoming, admission: &Arc<Admission>) -> Self {
        Self::of(Source::Connection(body), admission)
    }

    pub(crate) fn of_peer(body: p2p::Body, admission: &Arc<Admission>) -> Self {
        Self::of(Source::Peer(body), admission)
    }

    fn of(body: Source, admission: &Arc<Admission>) -> Self {
        Self::Arriving(Arriving {
            body,
            limits: *admission.limits(),
            held: admission.hold(),
            received: 0,
        })
    }

    /// Reads the whole body, refusing anything above `max` bytes before buffering it.
    pub(crate) async fn read(&mut self, max: usize) -> Result<Bytes, Refusal> {
        match self {
            Self::Ready(bytes) if bytes.len() > max => Err(Refusal::BodyTooLarge { max }),
            Self::Ready(bytes) => Ok(std::mem::take(bytes)),
            Self::Arriving(arriving) => arriving.receive(max).await,
        }
    }

    /// Reads and drops a bounded rest.
    pub(crate) async fn discard(&mut self) {
        let Self::Arriving(arriving) = self else {
            return;
        };
        let deadline = Instant::now() + MAX_DISCARD_TIME;
        let mut left = MAX_DISCARD_BYTES;
        while !arriving.body.is_end_stream() && left > 0 {
            let frame = tokio::time::timeout_at(deadline, arriving.body.frame()).await;
            let Ok(Some(Ok(frame))) = frame else {
                return;
            };
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            arriving.received += length;
            left = left.saturating_sub(length.max(1));
        }
    }

    /// Returns true when there is nothing more to read, or too much of it to be worth it.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Ready(_) => true,
            Self::Arriving(Arriving { body, .. }) => {
                body.is_end_stream() || body.size_hint().lower() > MAX_DISCARD_BYTES
            }
        }
    }

    /// Returns how many bytes have arrived.
    pub(crate) const fn received(&self) -> u64 {
        match self {
            Self::Ready(_) => 0,
            Self::Arriving(arriving) => arriving.received,
        }
    }
}

impl Arriving {
    async fn receive(&mut self, max: usize) -> Result<Bytes, Refusal> {
        let too_large = || Refusal::BodyTooLarge { max };
        let declared = self.body.size_hint().exact();
        if declared.is_some_and(|length| length > max as u64) {
            return Err(too_large());
        }
        let pacing = Pacing {
            slow_after: self.limits.slow_after,
            min_rate: self.limits.min_rate,
        };
        let begun = Instant::now();
        let deadline = begun + self.limits.body_time;
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        loop {
            let wait = self.limits.body_idle.min(deadline - Instant::now());
            let frame = timeout(wait, self.body.frame())
                .await
                .map_err(|_| Refusal::BodyIncomplete)?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|_| Refusal::BodyIncomplete)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            self.received += data.len() as u64;
            if first.len() + all.len() + data.len() > max {
                return Err(too_large());
            }
            self.held.add(data.len())?;
            if pacing.is_too_slow(self.received, begun.elapsed()) && !self.body.is_end_stream() {
                return Err(Refusal::BodyIncomplete);
            }
            if first.is_empty() && all.is_empty() {
                // Small bodies come in one piece and are never copied.
                first = data;
                continue;
            }
            if all.is_empty() {
                let expected = declared.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                all.reserve(expected.max(first.len() + data.len()));
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }
}
