//! Streams of the protocol `/http`, opened to and accepted from peers (Spec: 11 §3, §4).
//!
//! The general purpose crate for this (libp2p-stream) negotiates one stream of a connection at a time, so many
//! requests over a slow line wait for each other, and it drops streams that arrive in a burst. Here any number is
//! negotiated side by side, and what arrives takes one of a peer's places ([`Places`]) or is reset.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    fmt,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent,
        ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, StreamUpgradeError,
        SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::sync::{mpsc, oneshot};

use super::{
    addresses::ip_of,
    listeners::is_at_relay,
    places::{MAX_SERVED, Place, Places},
};
use crate::http::source;

/// The protocol that carries requests.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/http");
/// Longest negotiation of a stream.
const NEGOTIATION: Duration = Duration::from_secs(10);

/// Why a stream was not opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotOpened {
    /// The peer does not speak `/http`.
    #[error("the peer does not speak /http")]
    Unsupported,
    /// The negotiation took too long.
    #[error("the negotiation took too long")]
    TimedOut,
    /// The connection broke meanwhile; another one may work.
    #[error("the connection was closed")]
    Closed,
    /// No connection could be made.
    #[error("{0}")]
    NotConnected(String),
}

/// Where an opened stream goes.
pub(super) type Reply = oneshot::Sender<Result<Stream, NotOpened>>;

/// A stream that a peer opened.
pub(super) struct Arrived {
    pub(super) peer: PeerId,
    pub(super) stream: Stream,
    /// Kept until the exchange is over.
    pub(super) place: Place,
}

/// An order to open a stream.
pub(super) struct Open(Reply);

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Open")
    }
}

/// The behaviour.
pub(super) struct Streams {
    arrived: mpsc::Sender<Arrived>,
    places: Arc<Places>,
    /// Connections of each peer; direct ones first.
    connections: HashMap<PeerId, VecDeque<ConnectionId>>,
    orders: VecDeque<(PeerId, ConnectionId, Open)>,
}

impl Streams {
    /// Makes the behaviour, and the queue of what arrives.
    pub(super) fn new() -> (Self, mpsc::Receiver<Arrived>) {
        let (arrived, queue) = mpsc::channel(MAX_SERVED);
        let streams = Self {
            arrived,
            places: Arc::default(),
            connections: HashMap::new(),
            orders: VecDeque::new(),
        };
        (streams, queue)
    }

    fn handler(&self, peer: PeerId, address: &Multiaddr) -> Handler {
        Handler {
            peer,
            source: ip_of(address).filter(|_| !is_at_relay(address)).map(source),
            places: Arc::clone(&self.places),
            arrived: self.arrived.clone(),
            orders: VecDeque::new(),
        }
    }

    /// Opens a stream on a connection that exists; gives `reply` back when there is none.
    pub(super) fn open(&mut self, peer: PeerId, reply: Reply) -> Result<(), Reply> {
        let connection = self.connections.get(&peer).and_then(VecDeque::front);
        let Some(connection) = connection.copied() else {
            return Err(reply);
        };
        self.orders.push_back((peer, connection, Open(reply)));
        Ok(())
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, remote))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                let connections = self.connections.entry(peer_id).or_default();
                if endpoint.is_relayed() {
                    connections.push_back(connection_id);
                } else {
                    connections.push_front(connection_id);
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                if let Some(connections) = self.connections.get_mut(&peer_id) {
                    connections.retain(|known| *known != connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // Orders are given between two polls by whoever owns the swarm, which is polled again after that.
        match self.orders.pop_front() {
            Some((peer_id, connection, event)) => Poll::Ready(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(connection),
                event,
            }),
            None => Poll::Pending,
        }
    }
}

/// The part of the behaviour that sits on one connection.
pub(super) struct Handler {
    peer: PeerId,
    /// What the connection counts as; none for one through a relay.
    source: Option<IpAddr>,
    places: Arc<Places>,
    arrived: mpsc::Sender<Arrived>,
    orders: VecDeque<Open>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Open;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ()).with_timeout(NEGOTIATION)
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Open, Infallible>> {
        match self.orders.pop_front() {
            Some(order) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), order)
                    .with_timeout(NEGOTIATION),
            }),
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, order: Open) {
        self.orders.push_back(order);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Open>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: stream,
                ..
            }) => {
                let peer = self.peer;
                let place = self.places.take(peer, self.source);
                let taken = place.map(|place| Arrived {
                    peer,
                    stream,
                    place,
                });
                if taken.is_none_or(|arrived| self.arrived.try_send(arrived).is_err()) {
                    tracing::debug!(%peer, "too many streams at once; one was reset");
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: Open(reply),
            }) => drop(reply.send(Ok(stream))),
            ConnectionEvent::DialUpgradeError(DialUpgradeError {
                info: Open(reply),
                error,
            }) => {
                let error = match error {
                    StreamUpgradeError::Timeout => NotOpened::TimedOut,
                    StreamUpgradeError::NegotiationFailed => NotOpened::Unsupported,
                    StreamUpgradeError::Io(_) => NotOpened::Closed,
                    StreamUpgradeError::Apply(never) => match never {},
                };
                drop(reply.send(Err(error)));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The `multistream` case of the vectors.
    #[test]
    fn the_protocol_is_negotiated_under_its_name() {
        let json: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/http_over_p2p.json")).unwrap();
        let message = |text: &str| {
            let length = u8::try_from(text.len() + 1).unwrap();
            [&[length], text.as_bytes(), b"\n"].concat()
        };
        let expected = [message("/multistream/1.0.0"), message(PROTOCOL.as_ref())].concat();
        let case = json["cases"].as_array().unwrap().iter();
        let case = case.clone().find(|case| case["kind"] == "multistream");
        for side in ["initiator", "responder"] {
            let bytes = champ::text::from_hex(case.unwrap()[side].as_str().unwrap());
            assert_eq!(bytes.unwrap(), expected);
        }
    }
}
