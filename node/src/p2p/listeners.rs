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
mod tests {
    use super::*;

    /// Listens at whatever it is told to, but not at what is busy.
    #[derive(Default)]
    struct Machine {
        busy: Vec<Multiaddr>,
        asked: Vec<(Multiaddr, ListenerId)>,
    }

    impl Listen for Machine {
        fn listen(&mut self, address: Multiaddr) -> Result<ListenerId, String> {
            if self.busy.contains(&address) {
                return Err("in use".to_owned());
            }
            let id = ListenerId::next();
            self.asked.push((address, id));
            Ok(id)
        }
    }

    impl Machine {
        fn last(&self) -> (Multiaddr, ListenerId) {
            self.asked.last().unwrap().clone()
        }
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn place_at(relay: PeerId, host: &str) -> Multiaddr {
        address(&format!("/ip4/{host}/tcp/4001/p2p/{relay}/p2p-circuit"))
    }

    fn start(addresses: &[Multiaddr]) -> (Listeners, Machine, Instant) {
        let now = Instant::now();
        let mut listeners = Listeners::new(addresses, now);
        let mut machine = Machine::default();
        listeners.advance(&mut machine, now);
        (listeners, machine, now)
    }

    fn refusal() -> Result<(), io::Error> {
        Err(io::Error::other("no"))
    }

    #[test]
    fn waits_grow_up_to_a_limit() {
        let waits: Vec<_> = (0..12)
            .map(|failures| wait_after(failures).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(wait_after(u32::MAX), MAX_WAIT);
    }

    #[test]
    fn a_closed_listener_is_tried_again_for_ever() {
        let (mut listeners, mut machine, mut now) = start(&[address("/ip4/10.0.0.1/tcp/4001")]);
        for round in 0..40 {
            assert_eq!(machine.asked.len(), round + 1);
            listeners.closed(machine.last().1, refusal(), now);
            let standing = listeners.standings().remove(0);
            assert_eq!(standing.trouble.as_deref(), Some("no"));
            let due = standing.next_try.unwrap();
            assert_eq!(due - now, wait_after(u32::try_from(round).unwrap()));
            listeners.advance(&mut machine, due - Duration::from_millis(1));
            assert_eq!(machine.asked.len(), round + 1, "too early");
            now = due;
            listeners.advance(&mut machine, now);
        }
        let (place, id) = machine.last();
        listeners.opened(id, place.clone(), now);
        let standing = listeners.standings().remove(0);
        assert_eq!((standing.open, standing.trouble), (vec![place], None));
        assert_eq!(listeners.due(), None);
        // Closed soon after: it goes on where it was. After a good time it begins anew.
        listeners.closed(id, Ok(()), now);
        assert_eq!(listeners.standings()[0].next_try, Some(now + MAX_WAIT));
        now += MAX_WAIT;
        listeners.advance(&mut machine, now);
        let (place, id) = machine.last();
        listeners.opened(id, place, now);
        now += GOOD_AFTER;
        listeners.closed(id, Ok(()), now);
        assert_eq!(listeners.standings()[0].next_try, Some(now + FIRST_WAIT));
    }

    #[test]
    fn a_busy_port_is_replaced_and_one_that_cannot_be_had_is_waited_for() {
        let now = Instant::now();
        let wanted = address("/ip4/10.0.0.1/udp/4001/quic-v1");
        let free = address("/ip4/10.0.0.1/udp/0/quic-v1");
        let mut listeners = Listeners::new(std::slice::from_ref(&wanted), now);
        let mut machine = Machine {
            busy: vec![wanted.clone(), free.clone()],
            ..Machine::default()
        };
        listeners.advance(&mut machine, now);
        assert!(machine.asked.is_empty() && listeners.is_settled());
        // The interface comes up.
        machine.busy.pop();
        listeners.advance(&mut machine, now + FIRST_WAIT);
        let (asked, id) = machine.last();
        assert_eq!(asked, free);
        let got = address("/ip4/10.0.0.1/udp/5555/quic-v1");
        listeners.opened(id, got.clone(), now);
        let more = address("/ip4/10.0.0.2/udp/5555/quic-v1");
        listeners.opened(id, more.clone(), now);
        listeners.opened(id, more.clone(), now);
        listeners.expired(id, &got);
        let standing = listeners.standings().remove(0);
        assert_eq!((standing.address, standing.open), (wanted, vec![more]));
    }

    #[test]
    fn a_busy_port_is_told_while_another_one_is_used() {
        let now = Instant::now();
        let wanted = address("/ip4/10.0.0.1/tcp/4001");
        let mut listeners = Listeners::new(std::slice::from_ref(&wanted), now);
        let mut machine = Machine {
            busy: vec![wanted],
            ..Machine::default()
        };
        listeners.advance(&mut machine, now);
        let (_, id) = machine.last();
        listeners.opened(id, address("/ip4/10.0.0.1/tcp/5555"), now);
        let standing = listeners.standings().remove(0);
        assert_eq!(
            standing.trouble.as_deref(),
            Some("in use; a free port was taken instead")
        );
    }

    /// The start of a node whose bootstrap node is its relay: both dial it, and the reservation's dial is dropped.
    #[test]
    fn a_relay_is_asked_again_once_it_is_connected() {
        let relay = PeerId::random();
        let (mut listeners, mut machine, now) = start(&[place_at(relay, "10.0.0.1")]);
        listeners.closed(machine.last().1, Ok(()), now);
        assert!(!listeners.is_settled());
        listeners.connected(&PeerId::random(), &mut machine, now);
        assert_eq!(machine.asked.len(), 1);
        listeners.connected(&relay, &mut machine, now);
        assert_eq!(machine.asked.len(), 2);
        listeners.connected(&relay, &mut machine, now);
        assert_eq!(machine.asked.len(), 2, "asked already");
        // Whoever refuses is not asked with every connection.
        listeners.closed(machine.last().1, refusal(), now);
        assert!(listeners.is_settled());
        listeners.connected(&relay, &mut machine, now);
        assert_eq!(machine.asked.len(), 2);
        let due = listeners.due().unwrap();
        listeners.advance(&mut machine, due.max(now + wait_after(1)));
        assert_eq!(machine.asked.len(), 3);
    }

    #[test]
    fn one_relay_has_one_listener_and_its_addresses_take_turns() {
        let relay = PeerId::random();
        let two = [place_at(relay, "10.0.0.1"), place_at(relay, "10.0.0.2")];
        let (mut listeners, mut machine, mut now) = start(&two);
        for round in 0..4 {
            assert_eq!(machine.asked.len(), round + 1);
            assert_eq!(machine.last().0, two[round % 2]);
            listeners.unreachable(&PeerId::random(), "another peer");
            listeners.unreachable(&relay, "connection refused");
            listeners.closed(machine.last().1, Ok(()), now);
            let standing = listeners.standings().remove(0);
            assert_eq!(
                standing.trouble.as_deref(),
                Some("the relay cannot be reached: connection refused")
            );
            now = standing.next_try.unwrap();
            listeners.advance(&mut machine, now);
        }
        let open = two[0].clone();
        listeners.opened(machine.last().1, open, now);
        listeners.closed(machine.last().1, Ok(()), now);
        let standing = listeners.standings().remove(0);
        assert_eq!(
            standing.trouble.as_deref(),
            Some("the connection with the relay is gone")
        );
    }

    #[test]
    fn nobody_waits_for_ever_for_a_listener_that_tells_nothing() {
        let (mut listeners, mut machine, now) = start(&[address("/ip6/::/tcp/4001")]);
        assert!(!listeners.is_settled());
        assert_eq!(listeners.due(), Some(now + SETTLED_AFTER));
        listeners.advance(&mut machine, now + SETTLED_AFTER);
        assert!(listeners.is_settled());
        assert_eq!(listeners.due(), None);
        assert_eq!(machine.asked.len(), 1);
        // Of its own accord it is settled at once.
        let (mut listeners, machine, now) = start(&[address("/ip6/::/tcp/4001")]);
        listeners.opened(machine.last().1, address("/ip6/::1/tcp/4001"), now);
        assert!(listeners.is_settled());
    }

    #[test]
    fn places_of_the_nodes_own_choice_are_left() {
        let relays: [PeerId; 3] = std::array::from_fn(|_| PeerId::random());
        let [fixed, first, second] = relays.map(|relay| place_at(relay, "10.0.0.1"));
        let (mut listeners, mut machine, mut now) = start(&[fixed]);
        listeners.opened(machine.last().1, address("/ip4/10.0.0.1/tcp/1"), now);
        listeners.reserve(vec![first], now);
        listeners.advance(&mut machine, now);
        assert_eq!(listeners.relays(), 2);
        for _ in 0..MAX_TRIES {
            assert!(listeners.leave_failing().is_empty());
            listeners.closed(machine.last().1, refusal(), now);
            now += MAX_WAIT;
            if listeners.places[1].failures < MAX_TRIES {
                listeners.advance(&mut machine, now);
            }
        }
        assert_eq!(listeners.leave_failing(), [relays[1]]);
        assert!(!listeners.has_relay(&relays[1]));
        listeners.reserve(vec![second], now);
        listeners.advance(&mut machine, now);
        listeners.opened(machine.last().1, address("/ip4/10.0.0.1/tcp/2"), now);
        assert_eq!(listeners.leave(), [relays[2]]);
        assert!(listeners.leave().is_empty(), "once");
        listeners.closed(machine.last().1, Ok(()), now);
        assert!(!listeners.has_relay(&relays[2]) && listeners.has_relay(&relays[0]));
        // One that was waited for is left at once.
        listeners.reserve(vec![place_at(relays[1], "10.0.0.1")], now);
        assert!(listeners.leave().is_empty() && !listeners.has_relay(&relays[1]));
    }

    #[test]
    fn relays_are_read_off_addresses() {
        let (relay, node) = (PeerId::random(), PeerId::random());
        let text = format!("/ip4/10.0.0.1/tcp/4001/p2p/{relay}/p2p-circuit/p2p/{node}");
        assert_eq!(relay_of(&address(&text)), Some(relay));
        assert_eq!(relay_of(&place_at(relay, "10.0.0.1")), Some(relay));
        let direct = address(&format!("/ip4/10.0.0.1/tcp/4001/p2p/{relay}"));
        assert_eq!(relay_of(&direct), None);
        assert_eq!(relay_of(&address("/p2p-circuit")), None);
    }
}
