//! The body of a request, as it arrives.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{
    super::{Body, PeerError},
    PIECE_BYTES,
};

/// Returns the body that follows a head: first what came with the head.
pub(super) fn arriving<R>(read: R, first: Bytes, length: u64) -> Body
where
    R: AsyncRead + Send + Unpin + 'static,
{
    let begun = usize::try_from(length)
        .unwrap_or(usize::MAX)
        .min(first.len());
    let first = first.slice(..begun);
    let left = usize::try_from(length).unwrap_or(usize::MAX) - begun;
    if left == 0 {
        return super::super::full(first);
    }
    let pieces =
        futures_util::stream::try_unfold((read, first, left), async |(mut read, first, left)| {
            if !first.is_empty() {
                return Ok(Some((Frame::data(first), (read, Bytes::new(), left))));
            }
            if left == 0 {
                return Ok(None);
            }
            let mut piece = BytesMut::with_capacity(left.min(PIECE_BYTES));
            let mut limited = (&mut read).take(left.min(PIECE_BYTES) as u64);
            let count = limited
                .read_buf(&mut piece)
                .await
                .map_err(PeerError::Broken)?;
            if count == 0 {
                return Err(PeerError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(Some((
                Frame::data(piece.freeze()),
                (read, Bytes::new(), left - count),
            )))
        });
    Whole {
        inner: StreamBody::new(Box::pin(pieces)),
        length,
    }
    .boxed_unsync()
}

/// A body whose length is known before it has arrived.
struct Whole<B> {
    inner: B,
    length: u64,
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Whole<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, Bytes::len);
            this.length = this.length.saturating_sub(length as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.length == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
