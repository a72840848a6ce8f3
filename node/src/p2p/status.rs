//! How a node stands with its network, for those who ask and those who wait.

use libp2p::Multiaddr;
use tokio::time::Instant;

/// How it stands with a node's network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Listening has begun, or failed; nobody need wait for it.
    pub is_up: bool,
    /// Where the node listens, or tries to.
    pub places: Vec<Standing>,
    /// Connected peers.
    pub connected: usize,
}

/// How it stands with one place at which a node listens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// The address that the settings name, or that the node chose itself.
    pub address: Multiaddr,
    /// Addresses at which others reach the node through it; none while it is not open.
    pub open: Vec<Multiaddr>,
    /// What is wrong, in words.
    pub trouble: Option<String>,
    /// When it is tried again; `None` while it is open or just being tried.
    pub next_try: Option<Instant>,
}
