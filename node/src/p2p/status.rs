//! How a node stands with its network, for those who ask and those who wait.

use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// How it stands with a node's network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Listening has begun, or failed; nobody need wait for it.
    pub is_up: bool,
    /// Where the node listens, or tries to.
    pub places: Vec<Standing>,
    /// Whether others can dial it.
    pub reach: Reach,
    /// Connected peers.
    pub connected: usize,
    /// Those of them that are reached through a relay only.
    pub relayed: usize,
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

/// Whether others can dial a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Reach {
    /// Nobody could be asked so far.
    #[default]
    Unknown,
    /// The operator says so.
    Announced,
    /// Peers have dialed back.
    Public,
    /// Peers have tried to dial back in vain.
    Private,
}
