//! Passing on connections to nodes that cannot be reached otherwise, within narrow limits (Spec: 11 §3).
//!
//! Done only while this node is reachable from outside itself. The library counts a reservation that is renewed as one more, so
//! a relay without a free place would renew none; places are counted here, by peer.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, relay};
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

/// Makes the behaviour, which passes nothing on until it is told to, and its places.
pub(super) fn relay(id: PeerId) -> (relay::Behaviour, Places) {
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
    (relay, places)
}

#[cfg(test)]
mod tests {
    use super::*;

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
