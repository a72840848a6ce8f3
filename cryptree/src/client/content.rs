//! The content of a remote file as something to read from: what a copy is uploaded from.

use futures_util::{AsyncRead, FutureExt, future::BoxFuture};

use super::file::{ChunkReader, RemoteFile};
use crate::error::ClientError;

/// The content of a remote file as something to read from.
pub(super) struct Content<'a> {
    next: Option<BoxFuture<'a, Fetched<'a>>>,
    reader: Option<ChunkReader<'a>>,
    rest: bytes::Bytes,
}

type Fetched<'a> = (ChunkReader<'a>, Result<Option<bytes::Bytes>, ClientError>);

impl<'a> Content<'a> {
    pub(super) fn new(file: &'a RemoteFile) -> Self {
        Self {
            next: None,
            reader: Some(file.chunks(0)),
            rest: bytes::Bytes::new(),
        }
    }
}

impl AsyncRead for Content<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut [u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        use std::task::Poll;
        while self.rest.is_empty() {
            if let Some(mut reader) = self.reader.take() {
                self.next = Some(
                    async move {
                        let chunk = reader.next().await;
                        (reader, chunk)
                    }
                    .boxed(),
                );
            }
            let Some(next) = &mut self.next else {
                return Poll::Ready(Ok(0));
            };
            let (reader, chunk) = std::task::ready!(next.poll_unpin(context));
            self.next = None;
            match chunk {
                Ok(Some(chunk)) if chunk.is_empty() => self.reader = Some(reader),
                Ok(Some(chunk)) => {
                    self.rest = chunk;
                    self.reader = Some(reader);
                }
                Ok(None) => return Poll::Ready(Ok(0)),
                Err(error) => return Poll::Ready(Err(std::io::Error::other(error))),
            }
        }
        let n = buffer.len().min(self.rest.len());
        let taken = self.rest.split_to(n);
        if let Some(target) = buffer.get_mut(..n) {
            target.copy_from_slice(&taken);
        }
        Poll::Ready(Ok(n))
    }
}
