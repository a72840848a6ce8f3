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
