//! Good copies of damaged blocks from other nodes (Spec: 40 REL-6).

use std::sync::Arc;

use champ::{Block, Cid, access::BatWithId};

use super::{MirrorError, Pace, Remote};
use crate::{
    bats,
    check::{BlockSupply, SupplyError},
    p2p::PeerId,
    state::State,
};

/// The copies that other nodes have: the home of users who are mirrored here, or a mirror that is named.
pub(crate) struct PeerBlocks<'a> {
    state: &'a State,
    /// The node to ask for every user; the user's home when absent.
    from: Option<PeerId>,
    pace: Arc<Pace>,
}

impl<'a> PeerBlocks<'a> {
    /// Asks `from`, or the home of each user.
    pub(crate) fn new(state: &'a State, from: Option<PeerId>) -> Self {
        Self {
            state,
            from,
            pace: Arc::default(),
        }
    }

    async fn fetch(&self, user: &str, cid: &Cid) -> Result<Option<Block>, MirrorError> {
        let peers = self.state.peers.get().cloned();
        let peers = peers.ok_or(MirrorError::Offline)?;
        let user = self.state.directory.named(user).await?;
        let home = PeerId::from_cid(&user.home).ok().filter(|_| !user.is_local);
        let Some(peer) = self.from.or(home) else {
            return Ok(None);
        };
        let token: Option<BatWithId> = bats::newest(self.state, &user.name).await?;
        let owner = user.identity.clone();
        let remote = Remote::new(peers, peer, owner, token, Arc::clone(&self.pace));
        match remote.block(cid).await {
            Ok(block) => Ok(Some(block)),
            Err(MirrorError::Missing(_) | MirrorError::WrongBlock(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait::async_trait]
impl BlockSupply for PeerBlocks<'_> {
    async fn block(&self, user: &str, cid: &Cid) -> Result<Option<Block>, SupplyError> {
        self.fetch(user, cid).await.map_err(|error| SupplyError {
            supply: self
                .from
                .map_or_else(|| "the home node".to_owned(), |peer| peer.to_string()),
            source: Arc::new(error),
        })
    }
}
