//! Limits on what one address takes up before and after it has proved an id (Spec: 40 P2P-5).
//!
//! Ids cost nothing to make, so limits by id stop nobody. An address has a share of the handshakes and of the
//! connections, whoever comes from it; the rest stays for others.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::IpAddr,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, ListenFailure,
        NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};

use super::addresses::ip_of;
use crate::http::source;

/// Handshakes of one address (of one /64 in IPv6) under way.
const MAX_HANDSHAKES: usize = 16;
/// Connections that one address has made.
const MAX_CONNECTIONS: usize = 64;

/// An address that has its share.
#[derive(Debug, thiserror::Error)]
#[error("too many connections from one address")]
struct Full;

/// What of one kind is open, by connection.
#[derive(Debug, Default)]
struct Shares {
    of: HashMap<ConnectionId, IpAddr>,
    counts: HashMap<IpAddr, usize>,
}

impl Shares {
    fn enter(&mut self, id: ConnectionId, from: IpAddr, max: usize) -> Result<(), Full> {
        let count = self.counts.entry(from).or_default();
        if *count >= max {
            return Err(Full);
        }
        *count += 1;
        self.of.insert(id, from);
        Ok(())
    }

    fn leave(&mut self, id: ConnectionId) {
        let Some(from) = self.of.remove(&id) else {
            return;
        };
        if let Some(count) = self.counts.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&from);
            }
        }
    }
}

/// The behaviour.
#[derive(Debug, Default)]
pub(super) struct Doorman {
    handshakes: Shares,
    connections: Shares,
}

impl NetworkBehaviour for Doorman {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        // What comes through a relay has no address; it is few by nature.
        let Some(ip) = ip_of(remote) else {
            return Ok(());
        };
        self.handshakes
            .enter(id, source(ip), MAX_HANDSHAKES)
            .map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handshakes.leave(id);
        if let Some(ip) = ip_of(remote) {
            self.connections
                .enter(id, source(ip), MAX_CONNECTIONS)
                .map_err(ConnectionDenied::new)?;
        }
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.handshakes.leave(connection_id);
                self.connections.leave(connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.connections.leave(connection_id);
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

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p2p_5_an_address_has_its_share_and_no_more() {
        let mut doorman = Doorman::default();
        let knock = |doorman: &mut Doorman, id: usize, from: &str| {
            let id = ConnectionId::new_unchecked(id);
            let from = from.parse().unwrap();
            let local = "/ip4/0.0.0.0/tcp/4001".parse().unwrap();
            doorman.handle_pending_inbound_connection(id, &local, &from)
        };
        for id in 0..MAX_HANDSHAKES {
            knock(&mut doorman, id, "/ip4/192.0.2.1/tcp/5").unwrap();
        }
        assert!(knock(&mut doorman, 100, "/ip4/192.0.2.1/tcp/6").is_err());
        knock(&mut doorman, 101, "/ip4/192.0.2.2/tcp/6").unwrap();
        doorman.handshakes.leave(ConnectionId::new_unchecked(0));
        knock(&mut doorman, 102, "/ip4/192.0.2.1/tcp/6").unwrap();
        for id in 0..200 {
            doorman.handshakes.leave(ConnectionId::new_unchecked(id));
        }
        assert!(doorman.handshakes.of.is_empty() && doorman.handshakes.counts.is_empty());
    }
}
