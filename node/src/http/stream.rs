//! The connection below the HTTP library: cuts off clients that do not read, and lets error messages through
//! to HTTP/1.0 clients.
//!
//! The HTTP library drops a `Trailer` header from HTTP/1.0 answers, but reverse proxies commonly speak
//! HTTP/1.0 to the node behind them and errors travel in that header (Spec: 05 §7.1). Such an answer is
//! given a stand-in header of the same length, which is put right here, on its way out.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderName, header};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

const STAND_IN: &str = "x-trail";
const STAND_IN_LINE: &[u8] = b"\r\nx-trail: ";
const TRAILER_LINE: &[u8] = b"\r\ntrailer: ";

/// Tells the stream that the next answer holds a stand-in header.
#[derive(Debug, Clone, Default)]
pub(super) struct StandIn(Arc<AtomicBool>);

impl StandIn {
    /// Replaces the `Trailer` header of an HTTP/1.0 answer.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        if let Some(message) = headers.remove(header::TRAILER) {
            headers.insert(HeaderName::from_static(STAND_IN), message);
            self.0.store(true, Ordering::Release);
        }
    }
}

/// A TCP connection with a limit on how long a write may be stuck.
pub(super) struct GuardedStream {
    inner: TcpStream,
    stand_in: StandIn,
    write_timeout: Duration,
    /// Armed while a write is stuck.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl GuardedStream {
    pub(super) fn new(inner: TcpStream, write_timeout: Duration) -> (Self, StandIn) {
        let stand_in = StandIn::default();
        let stream = Self {
            inner,
            stand_in: stand_in.clone(),
            write_timeout,
            stuck: None,
        };
        (stream, stand_in)
    }

    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stuck = None;
            return outcome;
        }
        let timeout = self.write_timeout;
        let timer = self
            .stuck
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Returns a copy of `head` with the stand-in put right, if it is in there.
fn put_right(head: &[u8]) -> Option<Vec<u8>> {
    let at = head
        .windows(STAND_IN_LINE.len())
        .position(|window| window == STAND_IN_LINE)?;
    let mut fixed = head.to_vec();
    fixed
        .get_mut(at..at + TRAILER_LINE.len())?
        .copy_from_slice(TRAILER_LINE);
    Some(fixed)
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let fixed = this
            .stand_in
            .0
            .load(Ordering::Acquire)
            .then(|| put_right(bytes))
            .flatten();
        let outcome = match &fixed {
            Some(fixed) => Pin::new(&mut this.inner).poll_write(context, fixed),
            None => Pin::new(&mut this.inner).poll_write(context, bytes),
        };
        if fixed.is_some() && outcome.is_ready() {
            this.stand_in.0.store(false, Ordering::Release);
        }
        this.watch(context, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.stand_in.0.load(Ordering::Acquire) {
            // The head is the first slice; what follows is written by the next call.
            let first = slices.iter().find(|slice| !slice.is_empty());
            return self.poll_write(context, first.map_or(&[], |slice| slice));
        }
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll_write_vectored(context, slices);
        this.watch(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stand_in_has_the_length_of_the_header_it_stands_for() {
        assert_eq!(STAND_IN.len(), "trailer".len());
        assert_eq!(STAND_IN_LINE.len(), TRAILER_LINE.len());
        let fixed = put_right(b"HTTP/1.0 400 Bad Request\r\nx-trail: Unauthorised%21\r\n\r\n");
        assert_eq!(
            fixed.unwrap(),
            b"HTTP/1.0 400 Bad Request\r\ntrailer: Unauthorised%21\r\n\r\n"
        );
        assert!(put_right(b"HTTP/1.0 200 OK\r\n\r\n").is_none());
    }
}
