//! Users who move from node to node, without losing a write or having two homes (Spec: 12 §7).
//!
//! Each side keeps one row about a move under way. At the node that is left the row stops all writes of the user in
//! the same step in which it is stored, because every write is conditional on its absence; only then the new claim
//! is published and the last state handed over. At the node that is moved to the row keeps the user waiting until that
//! last state is stored. So no write is accepted by both, and none that was acknowledged stays behind.

mod source;
mod target;

use std::{collections::HashSet, sync::Arc};

use champ::cbor::Record as _;
use parking_lot::RwLock;
use pki::{
    chain::{ClaimChain, OwnerKeys},
    username::Username,
};
use serde::{Deserialize, Serialize};

use crate::{
    directory::User,
    error::Refusal,
    p2p::PeerId,
    state::State,
    store::{Batch, tables},
};

pub(crate) use source::{give_up, hand_over, is_dispensable, settle_leaving};
pub(crate) use target::{arrive, complete_arrival};

/// How long a node answers again for a move that it has handed over, in seconds.
const REPEAT_SECONDS: i64 = 7 * 86_400;

/// Where a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// At the source: writes have stopped, the new claim may be published.
    Leaving,
    /// At the source: the new claim is published.
    Left,
    /// At the target: the new claim may be published, and the last state is not here yet.
    Arriving,
}

/// A move, as one of its two nodes remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Move {
    /// Where it is.
    pub(crate) phase: Phase,
    /// The other node, as text.
    pub(crate) other: String,
    /// The new chain in hex.
    pub(crate) chain: String,
    /// When it came this far, seconds since 1970.
    pub(crate) since_seconds: i64,
}

impl Move {
    fn new(phase: Phase, other: &PeerId, chain: &ClaimChain, state: &State) -> Self {
        Self {
            phase,
            other: other.to_string(),
            chain: champ::text::to_hex(&chain.encode()),
            since_seconds: state.clock.now_seconds(),
        }
    }

    fn chain(&self) -> Result<ClaimChain, Refusal> {
        let bytes = champ::text::from_hex(&self.chain).map_err(Refusal::internal)?;
        ClaimChain::decode(&bytes).map_err(Refusal::internal)
    }
}

/// Users who are arriving: nothing of them is served before their last state is here.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(RwLock<HashSet<Username>>);

impl Arrivals {
    /// Returns true for a user whose last state is not here yet.
    pub(crate) fn contains(&self, name: &Username) -> bool {
        let arriving = self.0.read();
        !arriving.is_empty() && arriving.contains(name)
    }

    fn add(&self, name: &Username) {
        self.0.write().insert(name.clone());
    }

    fn remove(&self, name: &Username) {
        self.0.write().remove(name);
    }
}

/// Reads the row of a user's move.
pub(crate) async fn of_user(
    state: &State,
    name: &Username,
) -> Result<Option<(bytes::Bytes, Move)>, Refusal> {
    let key = name.as_str().as_bytes();
    let Some(row) = state.store.get(tables::MIGRATIONS, key).await? else {
        return Ok(None);
    };
    let moved = serde_json::from_slice(&row).map_err(Refusal::internal)?;
    Ok(Some((row, moved)))
}

/// Returns the moves that are not complete, by name.
async fn open(state: &State) -> Result<Vec<(Username, Phase)>, Refusal> {
    let mut found = Vec::new();
    let mut after: Option<bytes::Bytes> = None;
    loop {
        let page = state
            .store
            .scan(tables::MIGRATIONS, b"", after.as_deref(), 1000)
            .await?;
        let Some((last, _)) = page.last() else {
            return Ok(found);
        };
        after = Some(last.clone());
        for (name, row) in page {
            let name = std::str::from_utf8(&name).map_err(Refusal::internal)?;
            let name = Username::parse(name).map_err(Refusal::internal)?;
            let moved: Move = serde_json::from_slice(&row).map_err(Refusal::internal)?;
            if moved.phase != Phase::Left {
                found.push((name, moved.phase));
            }
        }
    }
}

/// Returns true while a move from or to this node is not complete.
pub(crate) async fn is_any_open(state: &State) -> Result<bool, Refusal> {
    Ok(!open(state).await?.is_empty())
}

/// Adds to a batch of a user's writes that the user is not moving when it is committed.
///
/// # Errors
/// [`Refusal::Moving`].
pub(crate) async fn guard(state: &State, user: &User, batch: Batch) -> Result<Batch, Refusal> {
    let key = user.name.as_str().as_bytes().to_vec();
    let row = match of_user(state, &user.name).await? {
        None => None,
        // Who left and has come back, on whatever way, is not moving.
        Some((row, moved)) if moved.phase == Phase::Left && user.is_local => Some(row),
        Some(_) => return Err(Refusal::Moving),
    };
    Ok(batch.expect(tables::MIGRATIONS, key, row))
}

/// Replaces the row of a move; false when somebody else was faster.
async fn replace(
    state: &State,
    name: &Username,
    before: Option<bytes::Bytes>,
    after: Option<&Move>,
) -> Result<bool, Refusal> {
    let key = name.as_str().as_bytes().to_vec();
    let batch = Batch::new().expect(tables::MIGRATIONS, key.clone(), before);
    let batch = match after {
        Some(moved) => {
            let row = serde_json::to_vec(moved).map_err(Refusal::internal)?;
            batch.put(tables::MIGRATIONS, key, row)
        }
        None => batch.remove(tables::MIGRATIONS, key),
    };
    Ok(state.store.commit(batch).await?.is_committed())
}

/// Takes up the moves that were under way when the node stopped.
pub(crate) async fn remember(state: &State) -> Result<(), Refusal> {
    for (name, phase) in open(state).await? {
        if phase == Phase::Arriving {
            state.directory.arrivals.add(&name);
        }
    }
    Ok(())
}

/// Goes on with the moves that are not complete; returns how many are left.
pub(crate) async fn round(state: &Arc<State>) -> Result<u64, Refusal> {
    let mut left = 0;
    for (name, phase) in open(state).await? {
        let done = match phase {
            Phase::Leaving => settle_leaving(state, &name).await,
            Phase::Arriving => complete_arrival(state, &name).await,
            Phase::Left => Ok(true),
        };
        match done {
            Ok(true) => {}
            Ok(false) => left += 1,
            Err(error) => {
                left += 1;
                tracing::warn!(user = name.as_str(), %error, "a move is not complete");
            }
        }
    }
    Ok(left)
}

/// Checks that `new` moves the user of `existing` to another node (Spec: 12 §7.2 step 3).
fn check_chain(name: &Username, existing: &ClaimChain, new: &ClaimChain) -> Result<(), Refusal> {
    let (Some(old), Some(last)) = (existing.last(), new.last()) else {
        return Err(Refusal::UnknownName);
    };
    if last.claim.expiry < old.claim.expiry {
        return Err(Refusal::rule(
            "Migration claim has earlier expiry than current one!",
        ));
    }
    let merged = ClaimChain::merge(existing, new, name, &OwnerKeys::inline_only())
        .map_err(|error| Refusal::rule(error.to_string()))?;
    let is_same_home = match (existing.home(), new.home()) {
        (Some(old), Some(new)) => old.hash() == new.hash(),
        _ => true,
    };
    if merged == *existing || merged != *new || is_same_home {
        return Err(Refusal::rule(
            "The new claim does not move the user to another server",
        ));
    }
    Ok(())
}
