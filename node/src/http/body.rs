//! Request bodies: limited while they arrive, and cut off when nobody sends (Spec: 05 §8, 40 §9).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use crate::error::Refusal;

/// What is read and thrown away after a refusal, so that the client sees the message and not a reset.
const MAX_DISCARD_BYTES: u64 = 16 << 20;
/// How long that may take.
const MAX_DISCARD_TIME: Duration = Duration::from_secs(10);
/// Longest wait for the next piece of a body.
const IDLE: Duration = Duration::from_secs(20);
/// Longest wait for a whole body.
const WHOLE: Duration = Duration::from_secs(600);

/// The body of one request.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// Already in memory: calls inside the process.
    Ready(Bytes),
    /// Arriving on a connection.
    Arriving(Incoming),
}

impl RequestBody {
    /// Reads the whole body, refusing anything above `max` bytes before buffering it.
    pub(crate) async fn read(&mut self, max: usize) -> Result<Bytes, Refusal> {
        match self {
            Self::Ready(bytes) if bytes.len() > max => Err(Refusal::BodyTooLarge { max }),
            Self::Ready(bytes) => Ok(std::mem::take(bytes)),
            Self::Arriving(body) => receive(body, max).await,
        }
    }

    /// Reads and drops a bounded rest.
    pub(crate) async fn discard(&mut self) {
        let Self::Arriving(body) = self else { return };
        let deadline = Instant::now() + MAX_DISCARD_TIME;
        let mut left = MAX_DISCARD_BYTES;
        while !body.is_end_stream() && left > 0 {
            let Ok(Some(Ok(frame))) = tokio::time::timeout_at(deadline, body.frame()).await else {
                return;
            };
            let length = frame.data_ref().map_or(1, Bytes::len);
            left = left.saturating_sub(length as u64);
        }
    }

    /// Returns true when there is nothing more to read, or too much of it to be worth it.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Ready(_) => true,
            Self::Arriving(body) => {
                body.is_end_stream() || body.size_hint().lower() > MAX_DISCARD_BYTES
            }
        }
    }
}

async fn receive(body: &mut Incoming, max: usize) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::BodyTooLarge { max };
    let declared = body.size_hint().exact();
    if declared.is_some_and(|length| length > max as u64) {
        return Err(too_large());
    }
    let deadline = Instant::now() + WHOLE;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = timeout(IDLE.min(deadline - Instant::now()), body.frame())
        .await
        .map_err(|_| Refusal::BodyIncomplete)?
    {
        let frame = frame.map_err(|_| Refusal::BodyIncomplete)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.len() + all.len() + data.len() > max {
            return Err(too_large());
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
