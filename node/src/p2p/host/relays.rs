//! What the host does about being reachable: it is a relay for others while it is, and takes places at relays while it
//! is not (Spec: 11 §3.2).

use libp2p::{Multiaddr, PeerId, autonat, identify, relay};
use tokio::time::Instant;

use super::{Host, PeerStatus};
use crate::p2p::{listeners::is_at_relay, reachability::RELAYS, status::Reach};

impl Host {
    /// An address of this node was found good.
    pub(super) fn on_confirmed(&mut self, address: &Multiaddr) {
        self.reachability.confirm(address, &self.gate);
        self.settle_relays();
    }

    pub(super) fn on_verdict(&mut self, event: autonat::v1::Event) {
        let autonat::v1::Event::StatusChanged { old, new } = event else {
            return;
        };
        match &new {
            autonat::NatStatus::Private => {
                tracing::warn!("other nodes cannot dial this one; is a port forwarded?");
            }
            new => tracing::info!(?new, "whether other nodes can dial this one"),
        }
        for address in self.reachability.judge(&old, &new) {
            self.swarm.remove_external_address(&address);
        }
        self.settle_relays();
    }

    /// Learns whether a peer is a relay.
    pub(super) fn on_offer(&mut self, peer: PeerId, info: &identify::Info) {
        let addresses = info.listen_addrs.iter();
        let addresses: Vec<_> = match info.protocols.contains(&relay::HOP_PROTOCOL_NAME) {
            true => addresses
                .filter(|address| !is_at_relay(address) && self.gate.lets_pass(address))
                .cloned()
                .collect(),
            false => Vec::new(),
        };
        self.reachability.learn(peer, addresses);
        self.settle_relays();
    }

    /// A peer is connected no more.
    pub(super) fn on_gone(&mut self, peer: &PeerId) {
        self.places.free(peer);
        self.reachability.forget(peer);
    }

    /// Brings in order what depends on being reachable.
    pub(super) fn settle_relays(&mut self) {
        let is_relay = self.is_relay && self.reachability.is_reachable();
        self.swarm
            .behaviour_mut()
            .relaying
            .set_status(match is_relay {
                true => relay::Status::Enable,
                false => relay::Status::Disable,
            });
        if self.reachability.reach() != Reach::Private {
            for relay in self.listeners.leave() {
                // The library cannot give a place back while it is being renewed.
                let _ = self.swarm.disconnect_peer_id(relay);
            }
            self.show();
            return;
        }
        for relay in self.listeners.leave_failing() {
            self.reachability.forget(&relay);
        }
        while self.listeners.relays() < RELAYS {
            let listeners = &self.listeners;
            let Some(places) = self
                .reachability
                .relay_but(|relay| listeners.has_relay(relay))
            else {
                break;
            };
            self.listeners.reserve(places, Instant::now());
        }
        self.advance();
    }

    /// Tells others how it stands.
    pub(super) fn show(&self) {
        let places = self.listeners.standings();
        let is_settled = self.listeners.is_settled();
        let reach = self.reachability.reach();
        self.status.send_if_modified(|status| {
            let now = PeerStatus {
                is_up: status.is_up || is_settled,
                places,
                reach,
                connected: status.connected,
                relayed: status.relayed,
            };
            let is_new = *status != now;
            *status = now;
            is_new
        });
    }
}
