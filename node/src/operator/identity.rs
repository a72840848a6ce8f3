//! Who the node is to others, and taking a new identity (Spec: 11 §1, §2).

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Failed, FailedKind, Operation, Report};
use crate::{
    error::Refusal,
    identity::load_or_create_key,
    migration,
    node::Node,
    node_keys::NODE_KEY,
    p2p::{self, PeerId, Reach, Standing},
    rotation,
};

/// Shows who the node is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ShowIdentity {}

/// Who the node is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdentityShown {
    /// The id that it goes by.
    pub id: String,
    /// Ids of before, which it answers for, oldest first.
    pub before: Vec<IdentityBefore>,
    /// Addresses at which others reach it, each with the id; none when it is not running.
    pub addresses: Vec<String>,
    /// Where it listens, or tries to; none when it is not running.
    pub places: Vec<PlaceShown>,
    /// Whether others can dial it.
    pub reach: Reach,
    /// Nodes that it is connected with now.
    pub connected: u64,
    /// Those of them that are reached through a relay only.
    pub relayed: u64,
}

/// A place at which the node listens for others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlaceShown {
    /// The address of the settings, or one that the node chose itself.
    pub address: String,
    /// Others reach the node through it.
    pub is_open: bool,
    /// What is wrong, in words.
    pub trouble: Option<String>,
    /// Seconds until it is tried again; `None` while it is open or just being tried.
    pub next_try_seconds: Option<u64>,
}

impl PlaceShown {
    fn of(standing: Standing, now: Instant) -> Self {
        let wait = standing.next_try;
        Self {
            address: standing.address.to_string(),
            is_open: !standing.open.is_empty(),
            trouble: standing.trouble,
            next_try_seconds: wait.map(|at| at.saturating_duration_since(now).as_secs()),
        }
    }
}

/// An id of before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdentityBefore {
    /// The id.
    pub id: String,
    /// The id that followed it, by the signed record that others find; `None` when there is no such record, so that
    /// nobody finds the node under this id.
    pub next: Option<String>,
}

impl Operation for ShowIdentity {
    const NAME: &'static str = "identity-show";
    type Outcome = IdentityShown;

    async fn run(self, node: &Node, _: &Report) -> Result<IdentityShown, Failed> {
        let state = node.state();
        let (current, earlier) = match state.identity.all().split_last() {
            Some((current, earlier)) => (current, earlier),
            None => (state.identity.current(), &[][..]),
        };
        let mut before = Vec::new();
        for id in earlier {
            let record = match PeerId::from_cid(id) {
                Ok(peer) => p2p::stored_record(state, &peer).await?,
                Err(_) => None,
            };
            let next = record.and_then(|record| record.moved_to());
            before.push(IdentityBefore {
                id: id.bare_multihash_text(),
                next: next.map(|next| next.to_string()),
            });
        }
        let addresses = node.peer_addresses().await;
        let status = node.peer_status().unwrap_or_default();
        let now = Instant::now();
        let places = status.places.into_iter();
        Ok(IdentityShown {
            id: current.bare_multihash_text(),
            before,
            addresses: addresses.iter().map(ToString::to_string).collect(),
            places: places.map(|place| PlaceShown::of(place, now)).collect(),
            reach: status.reach,
            connected: status.connected as u64,
            relayed: status.relayed as u64,
        })
    }
}

/// Gives the node a new identity from its next start on. It goes on answering for those before, and a signed record
/// leads others from each to the next.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RotateIdentity {}

/// A new identity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdentityRotated {
    /// The id before.
    pub from: String,
    /// The new one.
    pub to: String,
    /// How many identities the node has had with this one.
    pub identities: u64,
}

impl Operation for RotateIdentity {
    const NAME: &'static str = "identity-rotate";
    type Outcome = IdentityRotated;

    async fn run(self, node: &Node, _: &Report) -> Result<IdentityRotated, Failed> {
        let state = node.state();
        let _one = state.rotating.lock().await;
        let refused = |message: &str| Failed::new(FailedKind::Refused, message);
        if state.store.is_shared() {
            return Err(refused(
                "several processes may be this node, and all of them have its key",
            )
            .help("a node whose metadata is in PostgreSQL keeps its identity in this version"));
        }
        let (Some(key), Some(folder)) = (&state.node_key, &state.config.data) else {
            return Err(refused("this node's key is not in its data folder"));
        };
        let local = |error: crate::node::OpenError| Failed::of(FailedKind::Local, &error);
        let present = load_or_create_key(folder, NODE_KEY)
            .map_err(|error| Failed::of(FailedKind::Local, &error))?;
        if present.public() != key.public() {
            return Err(refused("this node has a new identity already")
                .help("restart it: it goes by the new one from then on"));
        }
        // Whoever is half way between two nodes has signed a claim that names this one by its id.
        if migration::is_any_open(state).await? {
            return Err(refused("an account is moving from or to this node")
                .help("try again in some minutes; `kastro mirror status` shows the moves"));
        }
        let from = PeerId::from_cid(state.identity.current()).map_err(Refusal::internal)?;
        let now = state.clock.now_seconds();
        let to = rotation::rotate(folder, &*state.store, now)
            .await
            .map_err(local)
            .map_err(|failed| {
                failed.help("what was begun is finished at the next start of the node")
            })?;
        // Whoever is connected now keeps the record, and finds this node by it after its restart.
        if let Some(network) = state.network.get() {
            for id in [&from, &to] {
                if let Some(record) = state
                    .store
                    .get(crate::store::tables::NODE, &p2p::record_row(id))
                    .await?
                {
                    network.publish(id, record).await;
                }
            }
        }
        Ok(IdentityRotated {
            from: from.to_string(),
            to: to.to_string(),
            identities: state.identity.all().len() as u64 + 1,
        })
    }
}
