//! Where the node listens for others, and how it keeps at it (Spec: 11 §3, §3.2, §8).
//!
//! An address of this machine, or a place at a relay. What is not open is tried again for as long as the node runs,
//! after waits that grow: interfaces come up late, relays are restarted, reservations end.
//!
//! Invariant: one listener for each relay. A second one would take over the connection of the first, which is
//! closed then, is tried again, and so on for ever.

use std::{io, time::Duration};

use libp2p::{
    Multiaddr, PeerId, Swarm, core::transport::ListenerId, multiaddr::Protocol,
    swarm::NetworkBehaviour,
};
use tokio::time::Instant;

use super::{status::Standing, words};

/// Wait before the second try; doubles with each failure in a row.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between two tries.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// Tries in a row after which a relay that the node chose itself is left for another one.
const MAX_TRIES: u32 = 3;
/// A listener that was open for so long was a good one: the next failure waits [`FIRST_WAIT`] again.
const GOOD_AFTER: Duration = Duration::from_secs(60);
/// How long a listener may take to tell its first address before nobody waits for it: one of IPv6 on a machine
/// without such addresses never does.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// What listens: the swarm.
pub(super) trait Listen {
    /// Begins to listen. What comes of it is told by events.
    fn listen(&mut self, address: Multiaddr) -> Result<ListenerId, String>;
}

impl<B: NetworkBehaviour> Listen for Swarm<B> {
    fn listen(&mut self, address: Multiaddr) -> Result<ListenerId, String> {
        self.listen_on(address)
            .map_err(|error| words::of_transport(&error))
    }
}

#[derive(Debug)]
enum Stage {
    /// Not open; tried then.
    Waiting(Instant),
    /// There is a listener, which has told no address yet.
    Opening(ListenerId),
    Open {
        listener: ListenerId,
        addresses: Vec<Multiaddr>,
        since: Instant,
    },
}

/// Something to listen at.
#[derive(Debug)]
struct Place {
    /// Addresses of which one will do: a relay may have several.
    addresses: Vec<Multiaddr>,
    relay: Option<PeerId>,
    /// Not of the settings: left when it is of no use.
    is_own_choice: bool,
    /// Not tried again.
    is_left: bool,
    stage: Stage,
    /// Tries in a row that failed.
    failures: u32,
    /// It was refused, so that a new connection is no reason to try again.
    is_refused: bool,
    trouble: Option<String>,
    /// The log says that it is not open.
    is_told: bool,
    /// What is wrong even if the present try succeeds.
    flaw: Option<String>,
}

impl Place {
    fn new(address: Multiaddr, now: Instant) -> Self {
        Self {
            relay: relay_of(&address),
            addresses: vec![address],
            is_own_choice: false,
            is_left: false,
            stage: Stage::Waiting(now),
            failures: 0,
            is_refused: false,
            trouble: None,
            is_told: false,
            flaw: None,
        }
    }

    fn has(&self, id: ListenerId) -> bool {
        match &self.stage {
            Stage::Waiting(_) => false,
            Stage::Opening(listener) | Stage::Open { listener, .. } => *listener == id,
        }
    }

    /// The address whose turn it is.
    fn address(&self) -> Option<&Multiaddr> {
        self.addresses.first()
    }

    fn try_now(&mut self, swarm: &mut impl Listen, now: Instant) {
        let Some(address) = self.address().cloned() else {
            return;
        };
        self.flaw = None;
        let wanted = match swarm.listen(address.clone()) {
            Ok(listener) => {
                self.stage = Stage::Opening(listener);
                return;
            }
            Err(error) => error,
        };
        // A busy port is no reason to be alone: another one is announced as well.
        if let Some(free) = on_any_port(&address)
            && let Ok(listener) = swarm.listen(free)
        {
            tracing::warn!(%address, why = wanted, "cannot listen for peers there; took a free port");
            self.flaw = Some(format!("{wanted}; a free port was taken instead"));
            self.stage = Stage::Opening(listener);
            return;
        }
        self.fail(Some(wanted), now);
    }

    fn fail(&mut self, why: Option<String>, now: Instant) {
        let wait = wait_after(self.failures);
        if let Some(address) = self.address() {
            let why = why.as_deref().or(self.trouble.as_deref());
            let is_new = !self.is_told && why.is_some();
            if is_new {
                tracing::warn!(%address, why, "not listening for peers there; tried again");
            } else {
                tracing::debug!(%address, why, ?wait, "not listening for peers there");
            }
            self.is_told |= is_new;
        }
        if why.is_some() {
            self.trouble = why;
        }
        self.stage = Stage::Waiting(now + wait);
        self.failures = self.failures.saturating_add(1);
        let next = 1.min(self.addresses.len());
        self.addresses.rotate_left(next);
    }

    /// True when there is nothing to wait for at the start. A relay that is being dialed by somebody else refuses the
    /// first time.
    fn is_settled(&self) -> bool {
        match self.stage {
            Stage::Open { .. } => true,
            Stage::Opening(_) | Stage::Waiting(_) => {
                self.failures > u32::from(self.relay.is_some())
            }
        }
    }
}

/// All places.
#[derive(Debug)]
pub(super) struct Listeners {
    places: Vec<Place>,
    /// When nobody waits any longer.
    settled_by: Option<Instant>,
}

impl Listeners {
    /// Takes the addresses of the settings, none of which is tried yet.
    pub(super) fn new(addresses: &[Multiaddr], now: Instant) -> Self {
        let mut listeners = Self {
            places: Vec::new(),
            settled_by: Some(now + SETTLED_AFTER),
        };
        for address in addresses {
            listeners.add(address.clone(), now);
        }
        listeners
    }

    fn add(&mut self, address: Multiaddr, now: Instant) {
        let relay = relay_of(&address);
        let mut places = self.places.iter_mut();
        match places.find(|place| relay.is_some() && place.relay == relay) {
            Some(place) => place.addresses.push(address),
            None => self.places.push(Place::new(address, now)),
        }
    }

    /// Takes a place at a relay, of which these are addresses, until [`Self::leave`].
    pub(super) fn reserve(&mut self, addresses: Vec<Multiaddr>, now: Instant) {
        let mut addresses = addresses.into_iter();
        if let Some(first) = addresses.next() {
            let mut place = Place::new(first, now);
            place.is_own_choice = true;
            place.addresses.extend(addresses);
            self.places.push(place);
        }
    }

    /// Leaves the places that [`Self::reserve`] took. Returns relays that must be disconnected for that.
    pub(super) fn leave(&mut self) -> Vec<PeerId> {
        self.places
            .retain(|place| !(place.is_own_choice && matches!(place.stage, Stage::Waiting(_))));
        let mut open = Vec::new();
        for place in &mut self.places {
            if place.is_own_choice && !std::mem::replace(&mut place.is_left, true) {
                open.extend(place.relay);
            }
        }
        open
    }

    /// Leaves those places that [`Self::reserve`] took and that are not to be had. Returns their relays.
    pub(super) fn leave_failing(&mut self) -> Vec<PeerId> {
        let is_failing = |place: &Place| {
            place.is_own_choice
                && place.failures >= MAX_TRIES
                && matches!(place.stage, Stage::Waiting(_))
        };
        let failing = self.places.iter().filter(|place| is_failing(place));
        let relays = failing.filter_map(|place| place.relay).collect();
        self.places.retain(|place| !is_failing(place));
        relays
    }

    /// Returns how many relays there are places at, or are to be.
    pub(super) fn relays(&self) -> usize {
        let at_relays = self.places.iter().filter(|place| place.relay.is_some());
        at_relays.count()
    }

    /// True if there is a place at this relay, or is to be.
    pub(super) fn has_relay(&self, relay: &PeerId) -> bool {
        let mut places = self.places.iter();
        places.any(|place| place.relay.as_ref() == Some(relay))
    }

    /// Returns the moment at which [`Self::advance`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let tries = self.places.iter().filter_map(|place| match place.stage {
            Stage::Waiting(at) => Some(at),
            _ => None,
        });
        tries.chain(self.settled_by).min()
    }

    /// Tries whatever it is time for.
    pub(super) fn advance(&mut self, swarm: &mut impl Listen, now: Instant) {
        self.settled_by = self.settled_by.filter(|by| now < *by);
        for place in &mut self.places {
            if matches!(place.stage, Stage::Waiting(at) if at <= now) {
                place.try_now(swarm, now);
            }
        }
    }

    /// A listener has an address.
    pub(super) fn opened(&mut self, id: ListenerId, address: Multiaddr, now: Instant) {
        let mut places = self.places.iter_mut();
        let Some(place) = places.find(|place| place.has(id)) else {
            return;
        };
        if let Stage::Open { addresses, .. } = &mut place.stage {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
            return;
        }
        if std::mem::take(&mut place.is_told) {
            tracing::info!(%address, "listening for peers after all");
        }
        place.trouble = place.flaw.take();
        place.is_refused = false;
        place.stage = Stage::Open {
            listener: id,
            addresses: vec![address],
            since: now,
        };
    }

    /// A listener has lost an address; it may get others.
    pub(super) fn expired(&mut self, id: ListenerId, address: &Multiaddr) {
        for place in &mut self.places {
            if let Stage::Open {
                listener,
                addresses,
                ..
            } = &mut place.stage
                && *listener == id
            {
                addresses.retain(|known| known != address);
            }
        }
    }

    /// A listener is no more.
    pub(super) fn closed(&mut self, id: ListenerId, reason: Result<(), io::Error>, now: Instant) {
        let mut places = self.places.iter_mut();
        let Some(place) = places.find(|place| place.has(id)) else {
            return;
        };
        if let Stage::Open { since, .. } = place.stage {
            place.trouble = None;
            place.is_told = false;
            if now.saturating_duration_since(since) >= GOOD_AFTER {
                place.failures = 0;
            }
        }
        place.is_refused = reason.is_err();
        let lost = match (&place.stage, place.relay) {
            (Stage::Open { .. }, Some(_)) => {
                Some("the connection with the relay is gone".to_owned())
            }
            (Stage::Open { .. }, None) => Some("the listener was closed".to_owned()),
            _ => None,
        };
        let why = reason.err().as_ref().map(words::of_listener).or(lost);
        place.fail(why, now);
        self.places
            .retain(|place| !(place.is_left && matches!(place.stage, Stage::Waiting(_))));
    }

    /// A peer could not be dialed. If it is a relay, this is why there is no place there.
    pub(super) fn unreachable(&mut self, peer: &PeerId, why: &str) {
        let mut places = self.places.iter_mut();
        if let Some(place) = places.find(|place| place.relay.as_ref() == Some(peer))
            && !matches!(place.stage, Stage::Open { .. })
        {
            place.trouble = Some(format!("the relay cannot be reached: {why}"));
        }
    }

    /// There is a new connection with a peer. If it is a relay where a place is waited for, not because it refused, it is
    /// asked at once.
    pub(super) fn connected(&mut self, peer: &PeerId, swarm: &mut impl Listen, now: Instant) {
        let mut places = self.places.iter_mut();
        if let Some(place) = places.find(|place| place.relay.as_ref() == Some(peer))
            && matches!(place.stage, Stage::Waiting(_))
            && !place.is_refused
        {
            place.try_now(swarm, now);
        }
    }

    /// True when it is known of every place whether it works, or nobody should wait any longer.
    pub(super) fn is_settled(&self) -> bool {
        self.settled_by.is_none() || self.places.iter().all(Place::is_settled)
    }

    /// Returns how it stands with every place.
    pub(super) fn standings(&self) -> Vec<Standing> {
        let standing = |place: &Place| {
            let (open, next_try) = match &place.stage {
                Stage::Waiting(at) => (Vec::new(), Some(*at)),
                Stage::Opening(_) => (Vec::new(), None),
                Stage::Open { addresses, .. } => (addresses.clone(), None),
            };
            Some(Standing {
                address: place.address()?.clone(),
                open,
                trouble: place.trouble.clone(),
                next_try,
            })
        };
        self.places.iter().filter_map(standing).collect()
    }
}

fn wait_after(failures: u32) -> Duration {
    FIRST_WAIT
        .saturating_mul(1 << failures.min(16))
        .min(MAX_WAIT)
}

/// Returns the relay at which an address is a place.
fn relay_of(address: &Multiaddr) -> Option<PeerId> {
    let mut before = None;
    for part in address {
        match part {
            Protocol::P2p(peer) => before = Some(peer),
            Protocol::P2pCircuit => return before,
            _ => {}
        }
    }
    None
}

/// True for an address that is a place at a relay.
pub(super) fn is_at_relay(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Returns the same address with any port, if there is another one than itself.
fn on_any_port(address: &Multiaddr) -> Option<Multiaddr> {
    if is_at_relay(address) {
        return None;
    }
    let free: Multiaddr = address
        .iter()
        .map(|part| match part {
            Protocol::Tcp(_) => Protocol::Tcp(0),
            Protocol::Udp(_) => Protocol::Udp(0),
            other => other,
        })
        .collect();
    (free != *address).then_some(free)
}

#[cfg(test)]
mod tests;
