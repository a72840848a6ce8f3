//! Blocks that the scrub found damaged, healed by nodes that have good copies (Spec: 12 §5, 40 REL-6).
//!
//! Who has copies is known without being told: of users of other nodes their home, of users of this node whoever
//! asks with the user's mirror token. A damaged copy stays where it is until a good one is here, and every block that comes is
//! compared with its name, so the worst that a lying node achieves is nothing.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use champ::{Block, Cid};
use parking_lot::Mutex;
use pki::username::Username;

use super::{Mirroring, Remote};
use crate::{
    bats,
    check::{self, BlockSupply, Finding, RepairOptions, Report, SupplyError},
    directory::User,
    error::{Refusal, chain},
    p2p::PeerId,
    state::State,
};

/// Most nodes that are remembered to have copies of one user, and of all users.
const MAX_HOLDERS: usize = 8;
/// Most users for whom they are remembered.
const MAX_USERS: usize = 50_000;

/// Nodes that have copies of users of this node, as far as they have asked since it was started: they do so each minute.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    of_user: Mutex<BTreeMap<Username, Vec<PeerId>>>,
    of_all: Mutex<Vec<PeerId>>,
}

impl Holders {
    /// Notes a node that has shown the mirror token of a user; true for news.
    pub(crate) fn of_user(&self, name: &Username, peer: PeerId) -> bool {
        let mut known = self.of_user.lock();
        if known.len() >= MAX_USERS && !known.contains_key(name) {
            return false;
        }
        note(known.entry(name.clone()).or_default(), peer)
    }

    /// Notes a node that has shown the token for all users; true for news.
    pub(crate) fn of_all(&self, peer: PeerId) -> bool {
        note(&mut self.of_all.lock(), peer)
    }

    fn known(&self, name: &Username) -> Vec<PeerId> {
        let mut found = self.of_user.lock().get(name).cloned().unwrap_or_default();
        found.extend(self.of_all.lock().iter().copied());
        found
    }
}

fn note(known: &mut Vec<PeerId>, peer: PeerId) -> bool {
    if known.contains(&peer) {
        return false;
    }
    if known.len() >= MAX_HOLDERS {
        known.remove(0);
    }
    known.push(peer);
    true
}

/// Replaces what can be replaced; returns the findings that are settled.
///
/// # Errors
/// Failures of this machine. A node that is away or has nothing is no failure.
pub(crate) async fn heal(
    state: &Arc<State>,
    findings: &[Finding],
) -> Result<Vec<Finding>, Refusal> {
    let mut settled = Vec::new();
    let mut away = HashSet::new();
    for finding in findings {
        let Some(block) = good_copy(state, finding, &mut away).await? else {
            continue;
        };
        let report = Report {
            findings: vec![finding.clone()],
            ..Report::default()
        };
        let options = RepairOptions {
            is_dry_run: false,
            supply: Some(&Fetched(block)),
        };
        let repaired = check::repair(&*state.store, &report, options).await?;
        if repaired.healed > 0 {
            tracing::warn!(
                user = finding.user.as_deref().unwrap_or_default(),
                cid = finding.cid.as_deref().unwrap_or_default(),
                "scrub: a damaged block was replaced by the copy of another node"
            );
        }
        settled.push(finding.clone());
    }
    Ok(settled)
}

/// Asks the nodes that may have a block, but none of `away`.
async fn good_copy(
    state: &Arc<State>,
    finding: &Finding,
    away: &mut HashSet<PeerId>,
) -> Result<Option<Block>, Refusal> {
    let (Some(name), Some(cid)) = (&finding.user, &finding.cid) else {
        return Ok(None);
    };
    let (Ok(cid), Some(peers)) = (cid.parse::<Cid>(), state.peers.get()) else {
        return Ok(None);
    };
    let user = match state.directory.named(name).await {
        Ok(user) => user,
        // A space of no user: nobody has copies of that.
        Err(Refusal::UnknownName | Refusal::NoHome(_)) => return Ok(None),
        Err(refusal) => return Err(refusal),
    };
    let token = bats::newest(state, &user.name).await?;
    for peer in holders(state, &user).await? {
        if away.contains(&peer) {
            continue;
        }
        let pace = Arc::clone(&state.mirrors.pace);
        let owner = user.identity.clone();
        let remote = Remote::new(Arc::clone(peers), peer, owner, token.clone(), pace);
        match remote.block(&cid).await {
            Ok(block) => return Ok(Some(block)),
            Err(error) => {
                if error.is_unreachable() {
                    away.insert(peer);
                }
                let error = chain(&error);
                tracing::info!(%peer, %cid, error, "no good copy of a damaged block there");
            }
        }
    }
    Ok(None)
}

async fn holders(state: &State, user: &User) -> Result<Vec<PeerId>, Refusal> {
    if user.is_local {
        return Ok(state.mirrors.holders.known(&user.name));
    }
    let row = Mirroring(state).user(user.name.as_str()).await?;
    let from = row.and_then(|row| row.from?.parse().ok());
    let home = PeerId::from_cid(&user.home).ok();
    let mut found: Vec<PeerId> = from.into_iter().chain(home).collect();
    found.dedup();
    Ok(found)
}

/// One block.
struct Fetched(Block);

#[async_trait::async_trait]
impl BlockSupply for Fetched {
    async fn block(&self, _user: &str, cid: &Cid) -> Result<Option<Block>, SupplyError> {
        Ok((self.0.cid() == cid).then(|| self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_number_of_nodes_is_remembered_the_newest_last() {
        let holders = Holders::default();
        let name: Username = "alice".parse().unwrap();
        let peer = |seed: u8| {
            let key = pki::keys::SecretSigningKey::from_seed(&[seed; 32]).public();
            PeerId::from_cid(&pki::node_identity::id_of_key(&key)).unwrap()
        };
        assert!(holders.known(&name).is_empty());
        for seed in 0..20 {
            assert!(holders.of_user(&name, peer(seed)));
            assert!(!holders.of_user(&name, peer(seed)));
        }
        assert!(holders.of_all(peer(100)));
        let known = holders.known(&name);
        assert_eq!(known.len(), MAX_HOLDERS + 1);
        assert!(known.contains(&peer(19)) && !known.contains(&peer(0)));
        assert_eq!(known.last(), Some(&peer(100)));
        assert_eq!(holders.known(&"bob".parse().unwrap()), [peer(100)]);
    }
}
