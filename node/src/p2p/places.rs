//! Places for the exchanges that peers begin (Spec: 11 §4.3, 40 P2P-5).
//!
//! A stream has its place from the moment it is there: before anything was sent on it, and until it is closed. Whoever
//! opens many and says nothing would otherwise keep everybody else out. Ids cost nothing to make, so an address has a share
//! too, as it has of the connections (see [`doorman`](super::doorman)).

use std::{collections::HashMap, hash::Hash, net::IpAddr, sync::Arc};

use libp2p::PeerId;
use parking_lot::Mutex;

/// Exchanges of all peers.
pub(super) const MAX_SERVED: usize = 1000;
/// Exchanges of one peer. More than requests of one source that are let in by default, so that those above are told that
/// there are too many; streams above this are reset.
const MAX_OF_PEER: usize = 192;
/// Exchanges of one address (of one /64 in IPv6), whatever ids it has.
const MAX_OF_ADDRESS: usize = 400;

/// Who has how many.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of_peer: HashMap<PeerId, usize>,
    of_address: HashMap<IpAddr, usize>,
}

/// A place; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    peer: PeerId,
    address: Option<IpAddr>,
}

impl Places {
    /// Takes a place. `address` is `None` for what comes through a relay, which is few by nature.
    pub(super) fn take(self: &Arc<Self>, peer: PeerId, address: Option<IpAddr>) -> Option<Place> {
        let mut taken = self.0.lock();
        let of_peer = taken.of_peer.get(&peer).copied().unwrap_or(0);
        let of_address = address.and_then(|address| taken.of_address.get(&address).copied());
        let is_free = taken.all < MAX_SERVED
            && of_peer < MAX_OF_PEER
            && of_address.unwrap_or(0) < MAX_OF_ADDRESS;
        if !is_free {
            return None;
        }
        taken.all += 1;
        taken.of_peer.insert(peer, of_peer + 1);
        if let Some(address) = address {
            *taken.of_address.entry(address).or_default() += 1;
        }
        Some(Place {
            places: Arc::clone(self),
            peer,
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock();
        taken.all = taken.all.saturating_sub(1);
        leave(&mut taken.of_peer, &self.peer);
        if let Some(address) = &self.address {
            leave(&mut taken.of_address, address);
        }
    }
}

fn leave<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p2p_5_a_peer_and_an_address_have_their_shares_of_exchanges() {
        let places = Arc::new(Places::default());
        let address = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
        let take_all = |peer: &dyn Fn() -> PeerId, address| -> Vec<Place> {
            std::iter::from_fn(|| places.take(peer(), address)).collect()
        };
        let one = PeerId::random();
        let of_one = take_all(&|| one, address(1));
        assert_eq!(of_one.len(), MAX_OF_PEER);
        // Other ids of the same machine get the rest of its share, and not more.
        let of_many = take_all(&PeerId::random, address(1));
        assert_eq!(of_one.len() + of_many.len(), MAX_OF_ADDRESS);
        assert!(places.take(PeerId::random(), address(2)).is_some());
        // The node has a limit too.
        let relayed = take_all(&PeerId::random, None);
        assert_eq!(of_one.len() + of_many.len() + relayed.len(), MAX_SERVED);
        assert!(places.take(PeerId::random(), address(2)).is_none());
        drop((of_one, of_many, relayed));
        let taken = places.0.lock();
        assert_eq!(taken.all, 0);
        assert!(taken.of_peer.is_empty() && taken.of_address.is_empty());
    }
}
