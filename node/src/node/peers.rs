//! The node among others: joining their network, and the way to them.

use std::sync::Arc;

use super::Node;
use crate::{
    p2p::{self, PeerId},
    rotation,
    state::State,
};

impl Node {
    /// Begins to take part in the peer-to-peer network that the settings describe, if they ask for one. Done by
    /// [`Self::serve`] too; once is enough.
    ///
    /// Nothing that goes wrong there stops the node: it is logged.
    pub fn join(&self) {
        let state = &self.state;
        if !state.config.p2p.is_enabled || state.config.p2p.peers.is_some() {
            return;
        }
        let Some(key) = &state.node_key else {
            tracing::warn!(
                "server_ids are set: without their key this node cannot prove them to others"
            );
            return;
        };
        let Ok(key) = rotation::pair(key) else {
            return;
        };
        let before = state.keys_before.iter();
        let before = before.filter_map(|key| rotation::pair(key).ok()).collect();
        let network = state
            .network
            .get_or_init(|| p2p::start(state, &self.hosts, key, before));
        // Set already when this is the second call.
        let _ = state.peers.set(following(state, Arc::clone(network) as _));
        // Nobody could be asked for good copies before.
        state.scrub.look_again();
    }

    /// Returns the addresses at which other nodes reach this one, each with its id; waits until it listens. None for
    /// a node that has not joined a network.
    pub async fn peer_addresses(&self) -> Vec<p2p::Multiaddr> {
        match self.state.network.get() {
            Some(network) => network.addresses().await,
            None => Vec::new(),
        }
    }

    /// Returns how it stands with the network; `None` for a node that has not joined one.
    pub fn peer_status(&self) -> Option<p2p::PeerStatus> {
        self.state.network.get().map(|network| network.status())
    }

    /// Waits until something is so of how it stands with the network, and returns how it stands then. `None` for a
    /// node that has not joined one, or is closed meanwhile.
    pub async fn peer_status_when(
        &self,
        is_so: impl FnMut(&p2p::PeerStatus) -> bool + Send,
    ) -> Option<p2p::PeerStatus> {
        self.state.network.get()?.when(is_so).await
    }

    /// Tells the node an address of another one, as the network would.
    pub async fn know_peer(&self, peer: &PeerId, address: p2p::Multiaddr) {
        if let Some(network) = self.state.network.get() {
            network.know(peer, address).await;
        }
    }

    /// Returns the way to other nodes; `None` for a node that takes no part in a network.
    pub fn peers(&self) -> Option<&dyn p2p::Peers> {
        self.state.peers()
    }
}

/// Returns the way to other nodes that follows them to new identities.
pub(super) fn following(state: &State, peers: Arc<dyn p2p::Peers>) -> Arc<dyn p2p::Peers> {
    p2p::Following::new(peers, Arc::clone(&state.clock))
}
