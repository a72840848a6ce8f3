//! Which addresses are dialed, and the address book (Spec: 11 §3.1, 40 P2P-4).
//!
//! Addresses that strangers tell are bait: they could make this node knock at machines that only it can reach. So
//! whatever was not configured must be public, on an ordinary port, and is checked again when it is dialed, after
//! names in it were resolved.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// Most peers whose addresses are kept.
pub(super) const MAX_PEERS: usize = 1000;
/// Most addresses of one peer.
pub(super) const MAX_ADDRESSES: usize = 32;
/// Longest address in bytes.
const MAX_ADDRESS_BYTES: usize = 256;

/// How far the node goes to reach peers that others told it of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DialScope {
    /// Public addresses only.
    #[default]
    Public,
    /// Those, and private networks: for nodes of one house or company.
    Private,
    /// Those, and this machine: for tests.
    Any,
}

/// Text that is no [`DialScope`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected \"public\", \"private\" or \"any\"")]
pub struct NotAScope;

impl FromStr for DialScope {
    type Err = NotAScope;

    fn from_str(text: &str) -> Result<Self, NotAScope> {
        match text {
            "public" => Ok(Self::Public),
            "private" => Ok(Self::Private),
            "any" => Ok(Self::Any),
            _ => Err(NotAScope),
        }
    }
}

impl fmt::Display for DialScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Any => "any",
        })
    }
}

/// Decides what may be dialed.
#[derive(Debug)]
pub(super) struct Gate {
    scope: DialScope,
    /// From the settings: dialed whatever they are.
    configured: BTreeSet<(IpAddr, u16)>,
}

impl Gate {
    pub(super) fn new<'a>(
        scope: DialScope,
        configured: impl IntoIterator<Item = &'a Multiaddr>,
    ) -> Self {
        Self {
            scope,
            configured: configured.into_iter().filter_map(endpoint).collect(),
        }
    }

    /// Returns true for an address that may be dialed; names pass, and are looked at again once resolved.
    pub(super) fn lets_pass(&self, address: &Multiaddr) -> bool {
        if address.len() > MAX_ADDRESS_BYTES {
            return false;
        }
        let Some((ip, port)) = endpoint(address) else {
            return is_named(address);
        };
        if self.configured.contains(&(ip, port)) {
            return true;
        }
        let is_ordinary = port >= 1024 || port == 80 || port == 443;
        is_ordinary
            && match reach(ip) {
                Reach::Public => true,
                Reach::Private => self.scope != DialScope::Public,
                Reach::Machine => self.scope == DialScope::Any,
                Reach::Nowhere => false,
            }
    }
}

/// Where an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Public,
    Private,
    Machine,
    Nowhere,
}

fn reach(ip: IpAddr) -> Reach {
    match ip.to_canonical() {
        IpAddr::V4(ip) => reach_v4(ip),
        IpAddr::V6(ip) => reach_v6(ip),
    }
}

fn reach_v4(ip: Ipv4Addr) -> Reach {
    let [a, b, c, _] = ip.octets();
    if ip.is_loopback() {
        Reach::Machine
    } else if ip.is_unspecified()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip.is_documentation()
        || a == 0
        || a >= 240
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19))
    {
        Reach::Nowhere
    } else if ip.is_private() || (a == 100 && (64..128).contains(&b)) {
        Reach::Private
    } else {
        Reach::Public
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    let [first, second, ..] = ip.segments();
    if ip.is_loopback() {
        Reach::Machine
    } else if ip.is_unique_local() {
        Reach::Private
    } else if first & 0xe000 != 0x2000 || (first == 0x2001 && second == 0x0db8) || first == 0x2002 {
        // Whatever is no global unicast, documentation, and tunnels that hide another address.
        Reach::Nowhere
    } else {
        Reach::Public
    }
}

/// Returns the address of a machine.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    endpoint(address).map(|(ip, _)| ip)
}

/// Returns address and port of a TCP or QUIC address, whatever follows.
fn endpoint(address: &Multiaddr) -> Option<(IpAddr, u16)> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some((ip.to_canonical(), port)),
        _ => None,
    }
}

fn is_named(address: &Multiaddr) -> bool {
    matches!(
        address.iter().next(),
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_))
    )
}

/// Returns the id at the end of an address.
pub(super) fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last()? {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    }
}

/// Addresses by peer.
#[derive(Debug, Default)]
pub(super) struct AddressBook {
    by_peer: BTreeMap<PeerId, Vec<Multiaddr>>,
    /// From the settings: never forgotten.
    configured: BTreeSet<PeerId>,
    has_changed: bool,
}

impl AddressBook {
    /// Takes an address of the settings.
    pub(super) fn configure(&mut self, address: &Multiaddr) {
        if let Some(peer) = peer_of(address) {
            self.configured.insert(peer);
            self.insert(peer, address.clone());
        }
    }

    /// Takes an address that was found good.
    pub(super) fn insert(&mut self, peer: PeerId, address: Multiaddr) {
        let Ok(address) = address.with_p2p(peer) else {
            // It ends in the id of somebody else.
            return;
        };
        if !self.by_peer.contains_key(&peer) && self.by_peer.len() >= MAX_PEERS {
            let mut known = self.by_peer.keys();
            let Some(oldest) = known.find(|known| !self.configured.contains(known)) else {
                return;
            };
            let oldest = *oldest;
            self.by_peer.remove(&oldest);
        }
        let addresses = self.by_peer.entry(peer).or_default();
        if !addresses.contains(&address) {
            if addresses.len() >= MAX_ADDRESSES {
                addresses.remove(0);
            }
            addresses.push(address);
            self.has_changed = true;
        }
    }

    /// Returns the addresses of a peer, those found last first.
    pub(super) fn of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let known = self.by_peer.get(peer).into_iter().flatten();
        known.rev().cloned().collect()
    }

    /// Returns all addresses in their binary form when they have changed since this was last asked.
    pub(super) fn take_changes(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.has_changed) {
            return None;
        }
        let mut row = Vec::new();
        for address in self.by_peer.values().flatten() {
            let Ok(length) = u16::try_from(address.len()) else {
                continue;
            };
            row.extend_from_slice(&length.to_be_bytes());
            row.extend_from_slice(address.as_ref());
        }
        Some(row)
    }

    /// Reads what [`Self::take_changes`] wrote; what cannot be read is left out.
    pub(super) fn restore(&mut self, mut row: &[u8]) {
        while let Some((length, rest)) = row.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some((address, rest)) = rest.split_at_checked(length) else {
                return;
            };
            row = rest;
            if let Ok(address) = Multiaddr::try_from(address.to_vec())
                && let Some(peer) = peer_of(&address)
            {
                self.insert(peer, address);
            }
        }
        self.has_changed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn p2p_4_strangers_cannot_name_machines_of_ours() {
        let own = address("/ip4/192.168.1.2/tcp/22");
        let gate = Gate::new(DialScope::Public, [&own]);
        for bait in [
            "/ip4/127.0.0.1/tcp/8000",
            "/ip4/127.0.0.1/tcp/22",
            "/ip4/169.254.169.254/tcp/80",
            "/ip4/10.0.0.1/tcp/4001",
            "/ip4/192.168.1.2/tcp/4001",
            "/ip4/172.16.3.4/udp/4001/quic-v1",
            "/ip4/100.64.1.1/tcp/4001",
            "/ip4/0.0.0.0/tcp/4001",
            "/ip4/224.0.0.1/udp/4001/quic-v1",
            "/ip4/255.255.255.255/tcp/4001",
            "/ip4/8.8.8.8/tcp/0",
            "/ip4/8.8.8.8/tcp/22",
            "/ip4/8.8.8.8/tcp/25",
            "/ip6/::1/tcp/4001",
            "/ip6/::/tcp/4001",
            "/ip6/fe80::1/tcp/4001",
            "/ip6/fd00::1/tcp/4001",
            "/ip6/ff02::1/udp/4001/quic-v1",
            "/ip6/::ffff:127.0.0.1/tcp/4001",
            "/ip6/::ffff:10.0.0.1/tcp/4001",
            "/ip6/2002:7f00:1::/tcp/4001",
            "/ip6/64:ff9b::7f00:1/tcp/4001",
            "/unix/tmp",
            "/memory/1",
        ] {
            assert!(!gate.lets_pass(&address(bait)), "{bait}");
        }
        for good in [
            "/ip4/8.8.8.8/tcp/4001",
            "/ip4/8.8.8.8/udp/443/quic-v1",
            "/ip6/2a01:7e01::f03c:92ff:fe26:f671/tcp/4001",
            "/dns4/localhost/tcp/4001",
            "/ip4/192.168.1.2/tcp/22",
        ] {
            assert!(gate.lets_pass(&address(good)), "{good}");
        }
        let wide = Gate::new(DialScope::Private, []);
        assert!(wide.lets_pass(&address("/ip4/10.0.0.1/tcp/4001")));
        assert!(!wide.lets_pass(&address("/ip4/127.0.0.1/tcp/4001")));
        assert!(!wide.lets_pass(&address("/ip4/169.254.169.254/tcp/4001")));
        let any = Gate::new(DialScope::Any, []);
        assert!(any.lets_pass(&address("/ip4/127.0.0.1/tcp/4001")));
    }

    #[test]
    fn the_book_is_bounded_and_survives() {
        let mut book = AddressBook::default();
        let fixed = PeerId::random();
        book.configure(&address(&format!("/ip4/127.0.0.1/tcp/1/p2p/{fixed}")));
        let peer = PeerId::random();
        for port in 0..100 {
            book.insert(peer, address(&format!("/ip4/8.8.8.8/tcp/{port}")));
        }
        assert_eq!(book.of(&peer).len(), MAX_ADDRESSES);
        let newest = address(&format!("/ip4/8.8.8.8/tcp/99/p2p/{peer}"));
        assert_eq!(book.of(&peer).first(), Some(&newest));
        let stranger = PeerId::random();
        book.insert(peer, address(&format!("/ip4/8.8.8.8/tcp/1/p2p/{stranger}")));
        assert!(book.of(&stranger).is_empty());
        let row = book.take_changes().unwrap();
        assert_eq!(book.take_changes(), None);
        let mut other = AddressBook::default();
        other.restore(&row);
        assert_eq!(other.by_peer, book.by_peer);
        other.restore(&row[..row.len() - 1]);
        other.restore(b"\0");
        for _ in 0..MAX_PEERS + 10 {
            book.insert(PeerId::random(), address("/ip4/8.8.8.8/tcp/4001"));
        }
        assert_eq!(book.by_peer.len(), MAX_PEERS);
        assert_eq!(book.of(&fixed).len(), 1);
    }
}
