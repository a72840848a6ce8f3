//! A peer that speaks by hand: libp2p makes its connections, and everything on its streams is bytes.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::StreamExt as _;
use libp2p::{
    Multiaddr, Transport as _,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox},
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent},
        upgrade::Version,
    },
    identity::Keypair,
    multiaddr::Protocol,
    noise, tcp, yamux,
};
use node::p2p::PeerId;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{mpsc, oneshot},
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

/// A stream, after the connection's own negotiations.
pub(super) type Stream = Compat<SubstreamBox>;

type Order = oneshot::Sender<SubstreamBox>;

const NEGOTIATION: &str = "/multistream/1.0.0";
const HTTP: &str = "/http";

fn transport(key: &Keypair) -> Boxed<(libp2p::PeerId, StreamMuxerBox)> {
    tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(key).unwrap())
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed()
}

/// A connection to a node.
pub(super) struct Connection {
    orders: mpsc::Sender<Order>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub(super) async fn dial(key: &Keypair, mut address: Multiaddr) -> Self {
        if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
            address.pop();
        }
        let options = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let dial = transport(key).dial(address, options).unwrap();
        let (_, muxer) = dial.await.unwrap();
        let (orders, given) = mpsc::channel(16);
        // What the node wants to know: nothing of it is known here.
        let refuse: Answer = Arc::new(|_| Vec::new());
        let driver = tokio::spawn(drive(muxer, given, refuse));
        Self { orders, driver }
    }

    /// Opens a stream for one request; none when the node closed the connection, or the stream.
    pub(super) async fn open(&self) -> Option<Stream> {
        let mut stream = self.open_silent().await?;
        stream.write_all(&message(NEGOTIATION)).await.ok()?;
        stream.write_all(&message(HTTP)).await.ok()?;
        stream.flush().await.ok()?;
        for expected in [NEGOTIATION, HTTP] {
            assert_eq!(read_message(&mut stream).await?, expected);
        }
        Some(stream)
    }

    /// Opens a stream, and says nothing on it.
    pub(super) async fn open_silent(&self) -> Option<Stream> {
        let (order, opened) = oneshot::channel();
        self.orders.send(order).await.ok()?;
        Some(opened.await.ok()?.compat())
    }
}

/// Proposes protocols that nobody speaks, one after the other, until the node has enough; returns how many.
pub(super) async fn propose(mut stream: Stream) -> Option<u32> {
    stream.write_all(&message(NEGOTIATION)).await.ok()?;
    for number in 0.. {
        let proposed = message(&format!("/nothing/{number}"));
        let is_sent = stream.write_all(&proposed).await.is_ok() && stream.flush().await.is_ok();
        if !is_sent || read_message(&mut stream).await.is_none() {
            return Some(number);
        }
    }
    None
}

/// What a hostile node says to a request, head and body; the stream is closed behind it.
pub(super) type Answer = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// A node that answers with whatever bytes it likes.
pub(super) struct HostileNode {
    pub(super) id: PeerId,
    /// With its id.
    pub(super) address: Multiaddr,
    listener: tokio::task::JoinHandle<()>,
}

impl Drop for HostileNode {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl HostileNode {
    pub(super) async fn listen(answer: Answer) -> Self {
        let key = Keypair::generate_ed25519();
        let mut transport = transport(&key);
        let any = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        transport.listen_on(ListenerId::next(), any).unwrap();
        let address = loop {
            if let TransportEvent::NewAddress { listen_addr, .. } =
                transport.select_next_some().await
            {
                break listen_addr;
            }
        };
        let listener = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                if let TransportEvent::Incoming { upgrade, .. } = transport.select_next_some().await
                {
                    let answer = Arc::clone(&answer);
                    connections.spawn(async move {
                        if let Ok((_, muxer)) = upgrade.await {
                            let (_never, orders) = mpsc::channel(16);
                            drive(muxer, orders, answer).await;
                        }
                    });
                }
            }
        });
        let id = key.public().to_peer_id();
        Self {
            id: PeerId::from_bytes(&id.to_bytes()).unwrap(),
            address: address.with(Protocol::P2p(id)),
            listener,
        }
    }
}

/// Keeps a connection going until it breaks: opens what is ordered, answers what is opened.
async fn drive(mut muxer: StreamMuxerBox, mut orders: mpsc::Receiver<Order>, answer: Answer) {
    let mut streams = tokio::task::JoinSet::new();
    let mut order = None;
    poll_fn(|context| {
        loop {
            match advance(&mut muxer, &mut orders, &mut order, context) {
                Ok(Some(arrived)) => {
                    streams.spawn(serve(arrived.compat(), Arc::clone(&answer)));
                }
                Ok(None) => return Poll::Pending,
                Err(Broken) => return Poll::Ready(()),
            }
        }
    })
    .await;
}

/// The connection is over.
struct Broken;

/// Goes on until a stream arrives (`Some`), or nothing more can be done for now (`None`).
fn advance(
    muxer: &mut StreamMuxerBox,
    orders: &mut mpsc::Receiver<Order>,
    order: &mut Option<Order>,
    context: &mut Context<'_>,
) -> Result<Option<SubstreamBox>, Broken> {
    loop {
        if order.is_none()
            && let Poll::Ready(Some(next)) = orders.poll_recv(context)
        {
            *order = Some(next);
        }
        if order.is_some() {
            match muxer.poll_outbound_unpin(context) {
                Poll::Ready(Ok(stream)) => {
                    drop(order.take().unwrap().send(stream));
                    continue;
                }
                Poll::Ready(Err(_)) => return Err(Broken),
                Poll::Pending => {}
            }
        }
        match muxer.poll_inbound_unpin(context) {
            Poll::Ready(Ok(stream)) => return Ok(Some(stream)),
            Poll::Ready(Err(_)) => return Err(Broken),
            Poll::Pending => {}
        }
        match muxer.poll_unpin(context) {
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => return Err(Broken),
            Poll::Pending => return Ok(None),
        }
    }
}

/// Answers one request in whatever way; protocols other than `/http` are not spoken.
async fn serve(mut stream: Stream, answer: Answer) -> Option<()> {
    assert_eq!(read_message(&mut stream).await?, NEGOTIATION);
    stream.write_all(&message(NEGOTIATION)).await.ok()?;
    if read_message(&mut stream).await? != HTTP {
        stream.write_all(&message("na")).await.ok()?;
        return stream.flush().await.ok();
    }
    stream.write_all(&message(HTTP)).await.ok()?;
    stream.flush().await.ok()?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.ok()?);
    }
    stream.write_all(&answer(&request)).await.ok()?;
    stream.shutdown().await.ok()
}

/// A message of the negotiation.
fn message(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).unwrap();
    [&[length], text.as_bytes(), b"\n"].concat()
}

/// Reads one; these are short enough for a length of one byte.
async fn read_message(stream: &mut Stream) -> Option<String> {
    let length = stream.read_u8().await.ok()?;
    let mut text = vec![0; usize::from(length)];
    stream.read_exact(&mut text).await.ok()?;
    let text = String::from_utf8(text).unwrap();
    Some(text.strip_suffix('\n').unwrap().to_owned())
}
