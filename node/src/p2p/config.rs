//! What an operator may choose about other nodes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use libp2p::{Multiaddr, multiaddr::Protocol};

use super::{DialScope, Peers};

/// Where nodes listen for each other.
const PORT: u16 = 4001;

/// Settings of the peer side.
#[derive(Debug, Clone)]
pub struct P2pConfig {
    /// True to take part in a peer-to-peer network at all. The library's default is not to.
    pub is_enabled: bool,
    /// Where to listen, as multiaddresses; port 0 takes any free port. An address behind a relay ends in
    /// `/p2p-circuit`.
    pub listen: Vec<Multiaddr>,
    /// Addresses to tell others, for a node behind a forwarded port.
    pub announce: Vec<Multiaddr>,
    /// Nodes that lead into a network, each with its `/p2p/` id; none: no global network.
    pub bootstrap: Vec<Multiaddr>,
    /// Addresses of known nodes, each with its `/p2p/` id.
    pub known: Vec<Multiaddr>,
    /// Which addresses to dial that the network tells of; those of the settings are dialed whatever they are.
    pub dials: DialScope,
    /// True to be a relay for nodes that cannot be dialed, within narrow limits, while this one can be.
    pub is_relay: bool,
    /// True to pass on the logins of users whose home is elsewhere (Spec: 40 LOG-9).
    pub allows_foreign_logins: bool,
    /// True to let programs of this machine reach other nodes by `POST /p2p/<id>/http/<path>`.
    pub has_gateway: bool,
    /// Other nodes by other means than libp2p: for tests and simulations.
    pub peers: Option<Arc<dyn Peers>>,
}

impl P2pConfig {
    /// Takes part in a network, listening where nodes of this network are expected (Spec: 11 §3): on all addresses,
    /// port 4001. No other node is known.
    pub fn listening() -> Self {
        let everywhere: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let listen = everywhere.into_iter().flat_map(|ip| {
            let tcp = Multiaddr::from(ip).with(Protocol::Tcp(PORT));
            let quic = Multiaddr::from(ip)
                .with(Protocol::Udp(PORT))
                .with(Protocol::QuicV1);
            [tcp, quic]
        });
        Self {
            is_enabled: true,
            listen: listen.collect(),
            ..Self::default()
        }
    }
}

impl Default for P2pConfig {
    fn default() -> Self {
        Self {
            is_enabled: false,
            listen: Vec::new(),
            announce: Vec::new(),
            bootstrap: Vec::new(),
            known: Vec::new(),
            dials: DialScope::default(),
            is_relay: true,
            allows_foreign_logins: true,
            has_gateway: false,
            peers: None,
        }
    }
}
