//! What an operator may choose about other nodes.

use std::sync::Arc;

use libp2p::Multiaddr;

use super::Peers;

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
    /// True to dial private addresses that the network tells of, not only those of the settings.
    pub dials_private: bool,
    /// True to pass on the logins of users whose home is elsewhere (Spec: 40 LOG-9).
    pub allows_foreign_logins: bool,
    /// Other nodes by other means than libp2p: for tests and simulations.
    pub peers: Option<Arc<dyn Peers>>,
}

impl Default for P2pConfig {
    fn default() -> Self {
        Self {
            is_enabled: false,
            listen: Vec::new(),
            announce: Vec::new(),
            bootstrap: Vec::new(),
            known: Vec::new(),
            dials_private: false,
            allows_foreign_logins: true,
            peers: None,
        }
    }
}
