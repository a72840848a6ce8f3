//! Nodes among each other.

pub(crate) mod forwarding;
mod gateway;
mod hostile;
mod js;
mod network;
mod raw;
mod relayed;
mod round_trips;
mod spoken;
pub(crate) mod switchboard;

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use node::p2p::{Body, PeerError};
use tokio::sync::mpsc::Receiver;

/// A body of this length, of which pieces come when they are sent.
fn slow_body(pieces: Receiver<Result<Bytes, PeerError>>, length: u64) -> Body {
    struct Slow(Receiver<Result<Bytes, PeerError>>, u64);

    impl http_body::Body for Slow {
        type Data = Bytes;
        type Error = PeerError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, PeerError>>> {
            let piece = self.0.poll_recv(context);
            piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.1)
        }
    }

    Slow(pieces, length).boxed_unsync()
}
