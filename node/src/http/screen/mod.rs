//! What stands between an HTTP/1 connection and the HTTP library.
//!
//! Inward: a request reaches the library only when its head is complete and was found good ([`crate::http::head`]). A bad
//! one is replaced by a harmless request that the service recognises by its number and answers with the refusal,
//! so that answers keep their order and refusals carry the headers that every answer has. A connection that sends
//! nothing, or a head too slowly, is closed (Spec: 40 §9, DOS-5, DOS-9).
//!
//! Outward: the library drops a `Trailer` header from HTTP/1.0 answers, but reverse proxies commonly speak
//! HTTP/1.0 to the node behind them and errors travel in that header (Spec: 05 §7.1). Such an answer is given a
//! stand-in header of the same length, which is put right here, on its way out.
//!
//! [`desk`] is what both directions share.

mod desk;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    framing::{Body, Heads},
    head::HeadRefusal,
    stream::Paced,
};

use desk::put_right;

pub(super) use desk::Desk;

/// What the HTTP library gets to see instead of a bad request.
const STAND_IN_REQUEST: &[u8] =
    b"GET /refused HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// Most bytes before a request line that are only line ends; old clients send one after a body.
const MAX_LEADING_BYTES: usize = 4;

/// What is read and thrown away after the last answer of a connection, so that the client sees it and not a reset.
const MAX_LINGER_BYTES: usize = 1 << 20;

/// How long that may take.
const MAX_LINGER: Duration = Duration::from_secs(2);

/// Time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a whole head, from the first byte of it or from the beginning of the connection.
    pub(super) head: Duration,
    /// Between an answer and the next request.
    pub(super) idle: Duration,
}

/// An HTTP/1 connection.
pub(super) struct Screen<S> {
    inner: Paced<S>,
    desk: Arc<Desk>,
    patience: Patience,
    reading: Reading,
    heads: Heads,
    /// Bytes that arrived and have not been passed on.
    buffer: BytesMut,
    /// How many of them may be.
    checked: usize,
    /// Line ends before the next request line.
    leading: usize,
    /// Heads passed on.
    passed: u64,
    /// When the head that is awaited began, or the connection.
    began: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    lingering: Option<Linger>,
}

#[derive(Debug)]
enum Reading {
    Head,
    Body(Body),
    /// Nothing more is taken from this connection.
    Refused,
}

struct Linger {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Screen<S> {
    pub(super) fn new(inner: Paced<S>, patience: Patience) -> (Self, Arc<Desk>) {
        let desk = Arc::new(Desk::default());
        let screen = Self {
            inner,
            desk: Arc::clone(&desk),
            patience,
            reading: Reading::Head,
            heads: Heads::default(),
            buffer: BytesMut::new(),
            checked: 0,
            leading: 0,
            passed: 0,
            began: Instant::now(),
            timer: None,
            lingering: None,
        };
        (screen, desk)
    }

    /// Checks what has arrived; false when more is needed.
    fn advance(&mut self) -> io::Result<bool> {
        match &mut self.reading {
            Reading::Refused => return Ok(false),
            Reading::Body(body) => {
                self.checked = body.pass(&self.buffer).map_err(malformed)?;
                if body.is_over() {
                    self.await_head();
                }
            }
            Reading::Head => {
                while self.leading < MAX_LEADING_BYTES
                    && matches!(self.buffer.first(), Some(b'\r' | b'\n'))
                {
                    self.buffer.advance(1);
                    self.leading += 1;
                }
                match self.heads.next(&self.buffer) {
                    Ok(None) => return Ok(false),
                    Ok(Some((head, length))) => {
                        self.checked = length;
                        self.passed += 1;
                        let body = Body::new(head.framing);
                        if body.is_over() {
                            self.await_head();
                        } else {
                            self.reading = Reading::Body(body);
                        }
                    }
                    Err(refusal) => self.refuse(refusal),
                }
            }
        }
        Ok(self.checked > 0)
    }

    fn await_head(&mut self) {
        self.reading = Reading::Head;
        self.leading = 0;
        self.began = Instant::now();
    }

    fn refuse(&mut self, refusal: HeadRefusal) {
        *self.desk.refused.lock() = Some((self.passed, refusal));
        self.passed += 1;
        self.reading = Reading::Refused;
        self.buffer.clear();
        self.buffer.extend_from_slice(STAND_IN_REQUEST);
        self.checked = STAND_IN_REQUEST.len();
    }

    /// Takes bytes that were read into the library's own buffer, beginning at `before`.
    fn take(&mut self, target: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let Some(arrived) = target.filled().get(before..) else {
            return Ok(());
        };
        let passed = match &mut self.reading {
            Reading::Body(body) => body.pass(arrived).map_err(malformed)?,
            Reading::Head | Reading::Refused => 0,
        };
        let rest = arrived.get(passed..).unwrap_or_default();
        if matches!(&self.reading, Reading::Body(body) if body.is_over()) {
            self.await_head();
        } else if self.buffer.is_empty() && passed == 0 {
            self.began = Instant::now();
        }
        self.buffer.extend_from_slice(rest);
        target.set_filled(before + passed);
        Ok(())
    }

    /// Looks at the clock while nothing arrives; true when the wait is over.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        loop {
            let deadline = self.deadline();
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            // A timer that rings early costs less than one that is set anew for each request.
            if timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(context).is_pending() {
                return false;
            }
            if Instant::now() >= deadline {
                return true;
            }
            timer.as_mut().reset(deadline);
        }
    }

    fn deadline(&self) -> Instant {
        if !self.buffer.is_empty() || self.passed == 0 {
            self.began + self.patience.head
        } else if self.desk.answered.load(Ordering::Acquire) < self.passed {
            // Somebody is at work, and it is not the client that is waited for.
            Instant::now() + self.patience.idle
        } else {
            self.began.max(self.inner.last_write()) + self.patience.idle
        }
    }
}

fn malformed(error: super::framing::BadChunk) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Screen<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.checked > 0 || (!this.buffer.is_empty() && this.advance()?) {
                let count = this.checked.min(target.remaining());
                target.put_slice(this.buffer.get(..count).unwrap_or_default());
                this.buffer.advance(count);
                this.checked -= count;
                return Poll::Ready(Ok(()));
            }
            if matches!(this.reading, Reading::Refused) {
                return Poll::Pending;
            }
            let before = target.filled().len();
            match Pin::new(&mut this.inner).poll_read(context, target) {
                Poll::Ready(Ok(())) if target.filled().len() == before => {
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(())) => {
                    if let Err(error) = this.take(target, before) {
                        target.set_filled(before);
                        return Poll::Ready(Err(error));
                    }
                    if target.filled().len() > before {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if !matches!(this.reading, Reading::Head) || !this.is_late(context) {
                        return Poll::Pending;
                    }
                    if this.buffer.is_empty() {
                        // As if the client had closed.
                        return Poll::Ready(Ok(()));
                    }
                    this.refuse(HeadRefusal::TooSlow);
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Screen<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let fixed = this
            .desk
            .has_stand_in
            .load(Ordering::Acquire)
            .then(|| put_right(bytes))
            .flatten();
        let outcome =
            Pin::new(&mut this.inner).poll_write(context, fixed.as_deref().unwrap_or(bytes));
        if fixed.is_some() && outcome.is_ready() {
            this.desk.has_stand_in.store(false, Ordering::Release);
        }
        outcome
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.desk.has_stand_in.load(Ordering::Acquire) {
            // The head is the first slice; what follows is written by the next call.
            let first = slices.iter().find(|slice| !slice.is_empty());
            return self.poll_write(context, first.map_or(&[], |slice| slice));
        }
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    /// Closes our side, then reads what the client still sends: closing with unread bytes would reset the
    /// connection and could take the last answer with it.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(context))?;
            if matches!(this.reading, Reading::Head) && this.buffer.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this.lingering.get_or_insert_with(|| Linger {
            until: Box::pin(tokio::time::sleep(MAX_LINGER)),
            left: MAX_LINGER_BYTES,
        });
        let mut space = [0; 4096];
        while linger.left > 0 && linger.until.as_mut().poll(context).is_pending() {
            let mut target = ReadBuf::new(&mut space);
            match Pin::new(&mut this.inner).poll_read(context, &mut target) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !target.filled().is_empty() => {
                    linger.left = linger.left.saturating_sub(target.filled().len());
                }
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;
    use crate::http::stream::Pacing;

    fn screened() -> (Screen<DuplexStream>, Arc<Desk>, DuplexStream) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let pacing = Pacing {
            slow_after: Duration::from_secs(30),
            min_rate: 1024,
        };
        let patience = Patience {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
        };
        let (screen, desk) = Screen::new(Paced::new(near, pacing), patience);
        (screen, desk, far)
    }

    #[tokio::test]
    async fn good_requests_pass_byte_for_byte_in_any_pieces() {
        let text = b"\r\nPOST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloPOST /b HTTP/1.1\r\n\
            Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /c HTTP/1.1\r\n\r\n";
        for piece in [1, 2, 7, 50, 1000] {
            let (mut screen, desk, mut far) = screened();
            let sender = tokio::spawn(async move {
                for piece in text.chunks(piece) {
                    far.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
            let mut out = Vec::new();
            screen.read_to_end(&mut out).await.unwrap();
            // The empty line in front is dropped.
            assert_eq!(out, text[2..], "{piece}");
            assert!((0..3).all(|_| desk.take_request().is_none()));
            sender.await.unwrap();
        }
    }

    #[tokio::test]
    async fn dos_9_a_bad_request_behind_a_good_one_is_replaced() {
        let (mut screen, desk, mut far) = screened();
        let good = b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello";
        far.write_all(good).await.unwrap();
        far.write_all(
            b"GET /evil HTTP/1.1\r\nContent-Length: +5\r\n\r\nhelloGET /more HTTP/1.1\r\n\r\n",
        )
        .await
        .unwrap();
        let mut out = vec![0; good.len() + STAND_IN_REQUEST.len()];
        screen.read_exact(&mut out).await.unwrap();
        assert_eq!(out, [good, STAND_IN_REQUEST].concat());
        let more = tokio::time::timeout(Duration::from_millis(20), screen.read_u8()).await;
        assert!(more.is_err(), "nothing passes after a refusal");
        assert_eq!(desk.take_request(), None);
        assert_eq!(desk.take_request(), Some(HeadRefusal::Length));
    }

    #[tokio::test]
    async fn a_malformed_chunk_ends_the_connection() {
        let (mut screen, _, mut far) = screened();
        far.write_all(
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        )
        .await
        .unwrap();
        let error = screen.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test(start_paused = true)]
    async fn dos_5_heads_have_ten_seconds_and_idle_connections_sixty() {
        // Nothing at all: closed.
        let (mut screen, _, _far) = screened();
        let begun = Instant::now();
        assert_eq!(screen.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        assert_eq!(begun.elapsed().as_secs(), 10);
        // A head that trickles: refused ten seconds after its first byte.
        let (mut screen, desk, mut far) = screened();
        let sender = tokio::spawn(async move {
            for byte in b"POST /api/v0/id HTTP/1.1\r\nHost: localhost\r\n" {
                tokio::time::sleep(Duration::from_secs(5)).await;
                if far.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        });
        let begun = Instant::now();
        let mut out = vec![0; STAND_IN_REQUEST.len()];
        screen.read_exact(&mut out).await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 15);
        assert_eq!(desk.take_request(), Some(HeadRefusal::TooSlow));
        drop(screen);
        sender.await.unwrap();
        // After an answer: sixty seconds, which begin when the answer is ready.
        let (mut screen, desk, mut far) = screened();
        let request = b"GET / HTTP/1.1\r\n\r\n";
        far.write_all(request).await.unwrap();
        screen
            .read_exact(&mut vec![0; request.len()])
            .await
            .unwrap();
        let begun = Instant::now();
        let work = async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            desk.answered();
            100
        };
        let (read, worked) = tokio::join!(async { screen.read_u8().await.is_err() }, work);
        assert!(read);
        let waited = begun.elapsed().as_secs() - worked;
        assert!((20..=60).contains(&waited), "{waited}");
    }
}
