//! Passing on connections to nodes that cannot be reached otherwise, within narrow limits (Spec: 11 §3).
//!
//! Done only while this node is reachable from outside itself. The library counts a reservation that is renewed as one more, so
//! a relay without a free place would renew none; places are counted here, by peer.

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    relay,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};
use parking_lot::Mutex;

/// Most nodes that have a place here.
const MAX_PLACES: usize = 5;
/// Connections of one node that may hold its place: a lost one is noticed late.
const MAX_PER_PEER: usize = 2;
/// How long a place is kept without being renewed.
const RESERVATION: Duration = Duration::from_secs(3600);
/// Longest connection that is passed on.
const MAX_CIRCUIT: Duration = Duration::from_secs(120);
/// Most bytes that one connection carries, in both directions together.
const MAX_CIRCUIT_BYTES: u64 = 1 << 20;

/// Who has a place, and since when.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Arc<Mutex<BTreeMap<PeerId, Instant>>>);

impl Places {
    /// Gives a place, or renews it; false when none is left.
    fn take(&self, peer: PeerId, now: Instant) -> bool {
        let mut places = self.0.lock();
        places.retain(|_, since| now.saturating_duration_since(*since) < RESERVATION);
        if places.len() >= MAX_PLACES && !places.contains_key(&peer) {
            return false;
        }
        places.insert(peer, now);
        true
    }

    /// Takes back the place of a peer that is gone.
    pub(super) fn free(&self, peer: &PeerId) {
        self.0.lock().remove(peer);
    }
}

/// The library's relay, which is told of direct connections only.
///
/// Of a connection that itself comes through a relay it would tell the handler whether relaying is on, and there the handler is
/// one that is told nothing: it panics, and the connection stays in the books for ever, dead, so that its peer is never
/// dialed again.
pub(super) struct Relaying(relay::Behaviour);

impl Relaying {
    /// Says whether this node is a relay.
    pub(super) fn set_status(&mut self, status: relay::Status) {
        self.0.set_status(Some(status));
    }
}

impl NetworkBehaviour for Relaying {
    type ConnectionHandler = <relay::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = relay::Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        here: &Multiaddr,
        there: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let relay = &mut self.0;
        relay.handle_established_inbound_connection(id, peer, here, there)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let relay = &mut self.0;
        relay.handle_established_outbound_connection(id, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let is_relayed = match &event {
            FromSwarm::ConnectionEstablished(event) => event.endpoint.is_relayed(),
            FromSwarm::ConnectionClosed(event) => event.endpoint.is_relayed(),
            _ => false,
        };
        if !is_relayed {
            self.0.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.0.on_connection_handler_event(peer, id, event);
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.0.poll(context)
    }
}

/// Makes the behaviour, which passes nothing on until it is told to, and its places.
pub(super) fn relay(id: PeerId) -> (Relaying, Places) {
    let places = Places::default();
    let mut config = relay::Config {
        // Never reached: `places` is asked last, and more strictly.
        max_reservations: MAX_PLACES * MAX_PER_PEER + 1,
        // The library allows one more.
        max_reservations_per_peer: MAX_PER_PEER - 1,
        reservation_duration: RESERVATION,
        max_circuit_duration: MAX_CIRCUIT,
        max_circuit_bytes: MAX_CIRCUIT_BYTES,
        ..relay::Config::default()
    };
    let asked = places.clone();
    config
        .reservation_rate_limiters
        .push(Box::new(move |peer, _: &Multiaddr, now| {
            asked.take(peer, now)
        }));
    let mut relay = relay::Behaviour::new(id, config);
    relay.set_status(Some(relay::Status::Disable));
    (Relaying(relay), places)
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker;
    use libp2p::{core::ConnectedPoint, swarm::behaviour::ConnectionEstablished};

    use super::*;

    /// Returns how many connections are told that this node is a relay from now on, after one with `local` was made.
    fn told(local: &str) -> usize {
        let (mut relay, _) = relay(PeerId::random());
        let endpoint = ConnectedPoint::Listener {
            local_addr: local.parse().unwrap(),
            send_back_addr: "/ip4/192.0.2.7/tcp/4001".parse().unwrap(),
        };
        relay.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: PeerId::random(),
            connection_id: ConnectionId::new_unchecked(1),
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
        relay.set_status(relay::Status::Enable);
        let waker = noop_waker();
        let mut context = Context::from_waker(&waker);
        let mut told = 0;
        while let Poll::Ready(event) = relay.poll(&mut context) {
            told += usize::from(matches!(event, ToSwarm::NotifyHandler { .. }));
        }
        told
    }

    /// The handler of such a connection panics when it is told anything.
    #[test]
    fn a_connection_through_a_relay_is_told_nothing_about_relaying() {
        assert_eq!(told("/ip4/192.0.2.1/tcp/4001"), 1);
        let id = PeerId::random();
        let through = format!("/ip4/192.0.2.1/tcp/4001/p2p/{id}/p2p-circuit");
        assert_eq!(told(&through), 0);
    }

    #[test]
    fn places_are_few_renewed_and_given_back() {
        let places = Places::default();
        let start = Instant::now();
        let peers: Vec<_> = (0..=MAX_PLACES).map(|_| PeerId::random()).collect();
        let (last, first) = peers.split_last().unwrap();
        for peer in first {
            assert!(places.take(*peer, start));
        }
        assert!(!places.take(*last, start));
        let later = start + RESERVATION / 2;
        for peer in &first[1..] {
            assert!(places.take(*peer, later), "renewed though all are taken");
        }
        assert!(!places.take(*last, later));
        // Gone without a word: the place is kept for as long as was promised.
        assert!(places.take(*last, start + RESERVATION));
        places.free(last);
        assert!(places.take(first[0], start + RESERVATION));
        assert!(!places.take(*last, start + RESERVATION));
    }
}
