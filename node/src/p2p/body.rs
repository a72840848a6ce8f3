//! Bodies of requests and answers between nodes: streams of bytes with a known or bounded length.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;

use super::PeerError;

/// A body that arrives or is sent piece by piece.
pub type Body = UnsyncBoxBody<Bytes, PeerError>;

/// Returns a body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Returns a body of no bytes.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Reads a whole body of at most `max` bytes; more is refused before it is kept.
///
/// # Errors
/// [`PeerError::TooLarge`], and whatever ends the body early.
pub async fn collect(mut body: Body, max: usize) -> Result<Bytes, PeerError> {
    collect_each(&mut body, max, |_| Ok(())).await
}

/// As [`collect`], and tells `arrived` of each piece before it is kept; that may refuse it.
///
/// # Errors
/// As [`collect`], and what `arrived` returns.
pub(super) async fn collect_each<E: From<PeerError>>(
    body: &mut Body,
    max: usize,
    mut arrived: impl FnMut(usize) -> Result<(), E>,
) -> Result<Bytes, E> {
    let declared = body.size_hint().exact();
    if declared.is_some_and(|length| length > max as u64) {
        return Err(PeerError::TooLarge { max }.into());
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if first.len() + all.len() + data.len() > max {
            return Err(PeerError::TooLarge { max }.into());
        }
        arrived(data.len())?;
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            let expected = declared.and_then(|length| usize::try_from(length).ok());
            all.reserve(expected.unwrap_or(0).max(first.len() + data.len()));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Hands a body out so that it can be had back as long as nobody has begun to read it.
pub(super) fn lend(body: Body) -> (Body, Loan) {
    let lent = Lent {
        hint: body.size_hint(),
        is_over: body.is_end_stream(),
        taken: None,
        place: Arc::new(Mutex::new(Some(body))),
    };
    let loan = Loan(Arc::clone(&lent.place));
    (lent.boxed_unsync(), loan)
}

/// The way back to a body that was lent.
pub(super) struct Loan(Arc<Mutex<Option<Body>>>);

impl Loan {
    /// Returns the body, whole; `None` when somebody has begun to read it.
    pub(super) fn back(self) -> Option<Body> {
        self.0.lock().take()
    }
}

/// A body that is taken from its place when it is first read.
struct Lent {
    place: Arc<Mutex<Option<Body>>>,
    taken: Option<Body>,
    hint: SizeHint,
    is_over: bool,
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = PeerError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PeerError>>> {
        let this = self.get_mut();
        if this.taken.is_none() {
            this.taken = this.place.lock().take();
        }
        match &mut this.taken {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.taken
            .as_ref()
            .map_or(self.is_over, http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let taken = self.taken.as_ref().map(http_body::Body::size_hint);
        taken.unwrap_or(self.hint)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    #[tokio::test]
    async fn a_lent_body_comes_back_until_it_is_read() {
        let (lent, loan) = lend(full("abc"));
        assert_eq!(lent.size_hint().exact(), Some(3));
        assert!(!lent.is_end_stream());
        let back = loan.back().unwrap();
        assert_eq!(collect(back, 3).await.unwrap(), "abc");
        let (lent, loan) = lend(full("abc"));
        assert_eq!(collect(lent, 3).await.unwrap(), "abc");
        assert!(loan.back().is_none());
        assert!(lend(empty()).0.is_end_stream());
    }

    #[tokio::test]
    async fn bodies_are_read_whole_or_not_at_all() {
        assert_eq!(collect(empty(), 0).await.unwrap(), Bytes::new());
        assert_eq!(collect(full("abc"), 3).await.unwrap(), "abc");
        assert!(matches!(
            collect(full("abc"), 2).await,
            Err(PeerError::TooLarge { max: 2 })
        ));
        let pieces = || {
            let pieces = ["ab", "cd", "e"].map(|piece| Ok(Frame::data(Bytes::from(piece))));
            StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync()
        };
        assert_eq!(collect(pieces(), 5).await.unwrap(), "abcde");
        assert!(collect(pieces(), 4).await.is_err());
    }
}
