//! Whether others can dial this node, and who passes connections on to nodes that nobody can dial (Spec: 11 §3.2).
//!
//! Peers are asked to dial back. The first version of AutoNAT gives the verdict: three answers that agree settle it,
//! and it is asked again every half hour. The second one tells which addresses are good, once for each. What the
//! operator announces is good whatever they say.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, autonat, multiaddr::Protocol};

use super::{
    addresses::{DialScope, Gate, MAX_ADDRESSES, ip_of},
    listeners::is_at_relay,
    status::Reach,
};

/// Relays at which a node takes a place while nobody can dial it.
pub(super) const RELAYS: usize = 2;
/// Addresses of one relay that are tried in turn.
const MAX_OF_RELAY: usize = 4;
/// Relays that are remembered.
const MAX_RELAYS: usize = 64;
/// Time from the start to the first question: some peers are connected by then. Not together with those of the second
/// version, after 5 s: the library takes any dial of the same peer that fails meanwhile for the answer.
const FIRST_PROBE: Duration = Duration::from_secs(8);
/// Time between questions until the verdict is settled, and between two questions to one peer.
const PROBE: Duration = Duration::from_secs(30);
/// Time between questions afterwards.
const REFRESH: Duration = Duration::from_secs(1800);
/// Answers that settle a verdict.
const ANSWERS: usize = 3;
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Time over which questions of others are counted.
const ASKED: Duration = Duration::from_secs(60);
/// Most questions of others that are answered in that time.
const MAX_ASKED: usize = 30;
/// Most questions of one peer that are answered in that time.
const MAX_ASKED_BY_PEER: usize = 3;
/// Most addresses of one question that are dialed.
const MAX_DIALED: usize = 8;

/// Makes the behaviour that asks, and answers others.
pub(super) fn verdict(id: PeerId, scope: DialScope) -> autonat::v1::Behaviour {
    let config = autonat::v1::Config {
        timeout: ANSWER,
        boot_delay: FIRST_PROBE,
        retry_interval: PROBE,
        refresh_interval: REFRESH,
        throttle_server_period: PROBE,
        confidence_max: ANSWERS,
        max_peer_addresses: MAX_DIALED,
        throttle_clients_period: ASKED,
        throttle_clients_global_max: MAX_ASKED,
        throttle_clients_peer_max: MAX_ASKED_BY_PEER,
        // In a network of its own, private addresses are as good as any.
        only_global_ips: scope == DialScope::Public,
        ..autonat::v1::Config::default()
    };
    autonat::v1::Behaviour::new(id, config)
}

/// What is known of how the node is reached.
#[derive(Debug, Default)]
pub(super) struct Reachability {
    announced: BTreeSet<Multiaddr>,
    /// Peers have said that they cannot dial it.
    is_private: bool,
    /// Addresses at which it was dialed back.
    confirmed: BTreeSet<Multiaddr>,
    /// Connected peers that pass connections on, in an order that nobody can foresee.
    relays: HashMap<PeerId, Vec<Multiaddr>>,
}

impl Reachability {
    pub(super) fn new(announced: &[Multiaddr]) -> Self {
        Self {
            announced: announced.iter().cloned().collect(),
            ..Self::default()
        }
    }

    /// Returns what is known.
    pub(super) fn reach(&self) -> Reach {
        if !self.announced.is_empty() {
            Reach::Announced
        } else if self.is_private {
            Reach::Private
        } else if self.confirmed.is_empty() {
            Reach::Unknown
        } else {
            Reach::Public
        }
    }

    /// True when others can rely on reaching the node at some address.
    pub(super) fn is_reachable(&self) -> bool {
        !self.announced.is_empty() || !self.confirmed.is_empty()
    }

    /// An address is good. Places at relays are no addresses of its own.
    pub(super) fn confirm(&mut self, address: &Multiaddr, gate: &Gate) {
        let is_own = !is_at_relay(address) && gate.lets_pass(address);
        if is_own && self.confirmed.len() < MAX_ADDRESSES {
            self.confirmed.insert(without_id(address));
        }
    }

    /// Takes a verdict. Returns the addresses that are good no more.
    pub(super) fn judge(
        &mut self,
        old: &autonat::NatStatus,
        new: &autonat::NatStatus,
    ) -> Vec<Multiaddr> {
        self.is_private = *new == autonat::NatStatus::Private;
        let autonat::NatStatus::Public(lost) = old else {
            return Vec::new();
        };
        // Peers dial the address from which they are asked: they know nothing of the other version of IP.
        let is_lost = |address: &Multiaddr| match (ip_of(lost), ip_of(address)) {
            (Some(lost), Some(ip)) => lost.is_ipv4() == ip.is_ipv4(),
            _ => false,
        };
        let (mut gone, good) = std::mem::take(&mut self.confirmed)
            .into_iter()
            .partition::<Vec<_>, _>(is_lost);
        self.confirmed = good.into_iter().collect();
        gone.push(lost.clone());
        gone.retain(|address| !self.announced.contains(address));
        gone
    }

    /// Learns at which addresses a connected peer passes connections on; at none, if it does not.
    pub(super) fn learn(&mut self, relay: PeerId, addresses: Vec<Multiaddr>) {
        if addresses.is_empty() {
            self.relays.remove(&relay);
        } else if self.relays.len() < MAX_RELAYS || self.relays.contains_key(&relay) {
            self.relays.insert(relay, addresses);
        }
    }

    /// Forgets a peer that is gone, or at which there was no place.
    pub(super) fn forget(&mut self, relay: &PeerId) {
        self.relays.remove(relay);
    }

    /// Returns where to listen at some relay that is not left out.
    pub(super) fn relay_but(
        &self,
        is_left_out: impl Fn(&PeerId) -> bool,
    ) -> Option<Vec<Multiaddr>> {
        let mut relays = self.relays.iter();
        let (relay, addresses) = relays.find(|(relay, _)| !is_left_out(relay))?;
        let places = addresses.iter().take(MAX_OF_RELAY).map(|address| {
            without_id(address)
                .with(Protocol::P2p(*relay))
                .with(Protocol::P2pCircuit)
        });
        Some(places.collect())
    }
}

/// Returns an address without the id of the node at its end.
fn without_id(address: &Multiaddr) -> Multiaddr {
    let mut address = address.clone();
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

#[cfg(test)]
mod tests {
    use libp2p::autonat::NatStatus;

    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn gate() -> Gate {
        Gate::new(DialScope::Public, [])
    }

    #[test]
    fn places_at_relays_make_nobody_public() {
        let mut known = Reachability::default();
        let (relay, own) = (PeerId::random(), PeerId::random());
        for no in [
            format!("/ip4/8.8.8.8/tcp/4001/p2p/{relay}/p2p-circuit/p2p/{own}"),
            format!("/ip4/192.168.1.2/tcp/4001/p2p/{own}"),
            "/ip4/127.0.0.1/tcp/4001".to_owned(),
        ] {
            known.confirm(&address(&no), &gate());
            assert_eq!(
                (known.reach(), known.is_reachable()),
                (Reach::Unknown, false)
            );
        }
        let yes = format!("/ip4/8.8.8.8/tcp/4001/p2p/{own}");
        known.confirm(&address(&yes), &gate());
        assert_eq!((known.reach(), known.is_reachable()), (Reach::Public, true));
    }

    #[test]
    fn a_verdict_takes_back_what_was_good() {
        let mut known = Reachability::default();
        let [four, quic, six] = [
            "/ip4/8.8.8.8/tcp/4001",
            "/ip4/8.8.8.8/udp/4001/quic-v1",
            "/ip6/2a01:7e01::1/tcp/4001",
        ]
        .map(address);
        for good in [&four, &quic, &six] {
            known.confirm(good, &gate());
        }
        let public = NatStatus::Public(four.clone().with(Protocol::P2p(PeerId::random())));
        assert!(known.judge(&NatStatus::Unknown, &public).is_empty());
        assert_eq!(known.reach(), Reach::Public);
        let gone = known.judge(&public, &NatStatus::Private);
        assert!(gone.contains(&four) && gone.contains(&quic) && !gone.contains(&six));
        assert_eq!(
            (known.reach(), known.is_reachable()),
            (Reach::Private, true)
        );
        let NatStatus::Public(lost) = &public else {
            unreachable!()
        };
        assert!(gone.contains(lost), "as the library knows it");
        known.judge(&NatStatus::Private, &public);
        assert_eq!(known.reach(), Reach::Public);
    }

    #[test]
    fn what_is_announced_is_good_whatever_others_say() {
        let own = address("/ip4/8.8.8.8/tcp/4001");
        let mut known = Reachability::new(std::slice::from_ref(&own));
        let public = NatStatus::Public(own);
        assert!(known.judge(&public, &NatStatus::Private).is_empty());
        assert_eq!(
            (known.reach(), known.is_reachable()),
            (Reach::Announced, true)
        );
    }

    #[test]
    fn relays_are_bounded_and_found_unless_left_out() {
        let mut known = Reachability::default();
        let relay = PeerId::random();
        let at = address("/ip4/8.8.8.8/tcp/4001");
        known.learn(relay, vec![at.clone().with(Protocol::P2p(relay)); 10]);
        let places = known.relay_but(|_| false).unwrap();
        assert_eq!(places.len(), MAX_OF_RELAY);
        let expected = format!("{at}/p2p/{relay}/p2p-circuit");
        assert_eq!(places[0], address(&expected));
        assert_eq!(known.relay_but(|left_out| *left_out == relay), None);
        known.learn(relay, Vec::new());
        assert_eq!(known.relay_but(|_| false), None);
        for _ in 0..MAX_RELAYS + 10 {
            known.learn(PeerId::random(), vec![at.clone()]);
        }
        assert_eq!(known.relays.len(), MAX_RELAYS);
    }
}
