//! The connection below the HTTP library: cuts off clients that do not read (Spec: 40 DOS-5).
//!
//! An answer that waits in memory for its reader costs memory, and a reader that takes a byte now and then could
//! hold it for hours. So the time in which a connection waits to write is counted, and over each such
//! [`Pacing::slow_after`] the client must have taken [`Pacing::min_rate`]. Time in which there is nothing to write
//! does not count.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// How slow a client may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pacing {
    /// Over this much waiting the rate is measured.
    pub(super) slow_after: Duration,
    /// Least bytes a second.
    pub(super) min_rate: u64,
}

impl Pacing {
    /// Returns true when `bytes` in `time` are fewer than the least rate.
    pub(super) fn is_too_slow(self, bytes: u64, time: Duration) -> bool {
        time >= self.slow_after
            && u128::from(bytes) * 1000 < u128::from(self.min_rate) * time.as_millis()
    }
}

/// A connection whose writes are watched.
#[derive(Debug)]
pub(super) struct Paced<S> {
    inner: S,
    pacing: Pacing,
    /// Waiting in this window, without the wait that is under way.
    waited: Duration,
    /// Bytes written since the window began.
    written: u64,
    /// When the wait that is under way began.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// When something was last written.
    last_write: Instant,
}

impl<S> Paced<S> {
    pub(super) fn new(inner: S, pacing: Pacing) -> Self {
        Self {
            inner,
            pacing,
            waited: Duration::ZERO,
            written: 0,
            since: None,
            timer: None,
            last_write: Instant::now(),
        }
    }

    /// Returns when something was last written, or when the connection was made.
    pub(super) const fn last_write(&self) -> Instant {
        self.last_write
    }

    fn watch<T: Copy>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
        count: impl FnOnce(T) -> usize,
    ) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Ready(Ok(value)) => {
                self.last_write = Instant::now();
                if let Some(since) = self.since.take() {
                    self.waited += self.last_write - since;
                }
                if self.waited.is_zero() {
                    return outcome;
                }
                self.written += count(value) as u64;
                if self.is_cut_off(self.waited) {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                outcome
            }
            Poll::Ready(Err(_)) => outcome,
            Poll::Pending => {
                let now = Instant::now();
                let since = *self.since.get_or_insert(now);
                let deadline = since + self.pacing.slow_after.saturating_sub(self.waited);
                if !self.is_past(context, deadline) {
                    return Poll::Pending;
                }
                if self.is_cut_off(self.waited + since.elapsed()) {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                self.since = Some(Instant::now());
                // Asked again at once, to have the timer armed for the next window.
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Judges a window once it is long enough, and begins the next.
    fn is_cut_off(&mut self, waited: Duration) -> bool {
        if waited < self.pacing.slow_after {
            return false;
        }
        let is_too_slow = self.pacing.is_too_slow(self.written, waited);
        (self.waited, self.written) = (Duration::ZERO, 0);
        is_too_slow
    }

    fn is_past(&mut self, context: &mut Context<'_>, deadline: Instant) -> bool {
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(context).is_ready()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.watch(context, outcome, |count| count)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll_write_vectored(context, slices);
        this.watch(context, outcome, |count| count)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll_flush(context);
        this.watch(context, outcome, |()| 0)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll_shutdown(context);
        this.watch(context, outcome, |()| 0)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PACING: Pacing = Pacing {
        slow_after: Duration::from_secs(30),
        min_rate: 1024,
    };

    #[tokio::test(start_paused = true)]
    async fn dos_5_a_client_that_does_not_read_is_cut_off() {
        let (near, _far) = tokio::io::duplex(1000);
        let begun = Instant::now();
        let error = Paced::new(near, PACING)
            .write_all(&[0; 5000])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn dos_5_a_client_that_reads_a_byte_a_second_is_cut_off_and_a_slow_line_is_not() {
        for (bytes_per_second, is_cut) in [(1, true), (900, true), (1200, false)] {
            let (near, mut far) = tokio::io::duplex(1000);
            let reader = tokio::spawn(async move {
                let mut buffer = vec![0; bytes_per_second];
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if far.read_exact(&mut buffer).await.is_err() {
                        return;
                    }
                }
            });
            let outcome = Paced::new(near, PACING).write_all(&[0; 100_000]).await;
            assert_eq!(outcome.is_err(), is_cut, "{bytes_per_second}");
            reader.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_with_nothing_to_write_does_not_count() {
        let (near, mut far) = tokio::io::duplex(10);
        let mut near = Paced::new(near, PACING);
        for _ in 0..20 {
            let reader = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                far.read_exact(&mut [0; 20]).await.unwrap();
            };
            let (written, ()) = tokio::join!(near.write_all(&[0; 20]), reader);
            written.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }
}
