//! How bytes travel: Noise and yamux on TCP, QUIC, and relayed connections (Spec: 11 §3, 40 PGS-01-007).
//!
//! On TCP nothing but Noise is offered; the TLS of libp2p exists inside QUIC. Whatever the way, the id that the
//! handshake proves must be the one that was dialed.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent},
        upgrade::Version,
    },
    dns,
    identity::Keypair,
    noise, quic, relay, tcp, yamux,
};

use super::addresses::Gate;

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The same over QUIC, where nothing tells that nobody listens: a dead peer must not take up all the time there is.
const QUIC_HANDSHAKE: Duration = Duration::from_secs(4);
/// Most streams of one connection at a time.
const MAX_STREAMS: usize = 256;

type Connection = (PeerId, StreamMuxerBox);

/// Builds the transport, and the behaviour that speaks to relays.
///
/// # Errors
/// When keys cannot be used, which does not happen with keys of ours.
pub(super) fn build(
    key: &Keypair,
    gate: &Arc<Gate>,
) -> io::Result<(Boxed<Connection>, relay::client::Behaviour)> {
    let named = match dns::tokio::Transport::system(direct(key, gate)?) {
        Ok(named) => named.boxed(),
        Err(error) => {
            tracing::warn!(%error, "names in addresses of peers cannot be resolved on this machine");
            direct(key, gate)?.boxed()
        }
    };
    let (relayed, relay) = relay::client::new(key.public().to_peer_id());
    let relayed = relayed
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key).map_err(io::Error::other)?)
        .multiplex(muxer())
        .timeout(HANDSHAKE)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let all = relayed
        .or_transport(named)
        .map(|either, _| either.into_inner())
        .boxed();
    Ok((all, relay))
}

/// TCP and QUIC to addresses that the gate lets pass.
fn direct(key: &Keypair, gate: &Arc<Gate>) -> io::Result<Guarded> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key).map_err(io::Error::other)?)
        .multiplex(muxer())
        .timeout(HANDSHAKE)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let mut config = quic::Config::new(key);
    config.handshake_timeout = QUIC_HANDSHAKE;
    let quic = quic::tokio::Transport::new(config)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let inner = quic
        .or_transport(tcp)
        .map(|either, _| either.into_inner())
        .boxed();
    Ok(Guarded {
        inner,
        gate: Arc::clone(gate),
    })
}

fn muxer() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(MAX_STREAMS);
    config
}

/// Dials what the gate lets pass, once names are resolved.
struct Guarded {
    inner: Boxed<Connection>,
    gate: Arc<Gate>,
}

impl Transport for Guarded {
    type Output = Connection;
    type Error = io::Error;
    type ListenerUpgrade = <Boxed<Connection> as Transport>::ListenerUpgrade;
    type Dial = <Boxed<Connection> as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        if !self.gate.lets_pass(&address) {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        self.inner.dial(address, options)
    }

    fn poll(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.get_mut().inner).poll(context)
    }
}
