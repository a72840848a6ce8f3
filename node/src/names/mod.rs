//! The table of names: given out by one node of a network, followed and checked by all others (Spec: 10 §8).
//!
//! A node on its own is its own authority. One that was told of a network keeps a complete copy of that network's
//! table, answers every look-up from it, and asks the authority for nothing but new names and changes of claims.
//! Invariant: what is believed about a name only ever grows by what its holder signed, whatever the authority does;
//! a table that goes back or contradicts itself is refused as a whole and reported.

mod authority;
mod fence;
mod follow;
mod network;
mod pending;

use std::sync::Arc;

use parking_lot::Mutex;
use pki::{chain::ClaimChain, keys::Owner, username::PKI_OWNER};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Refusal, chain},
    mirror::MirrorError,
    p2p::PeerId,
    state::State,
    store::{Batch, Store, tables},
    workers::WorkerError,
};

pub(crate) use authority::{NOT_THE_AUTHORITY, Registered, forward, publish, update};
pub(crate) use fence::check as check_fence;
pub use network::{NameAuthority, NotAnAuthority};
pub(crate) use pending::{keep as keep_pending, waiting, withdraw as withdraw_pending};

/// Time between two rounds (Spec: 10 §8.2).
const ROUND: std::time::Duration = std::time::Duration::from_secs(60);
/// Most milliseconds that are added to it, so that nodes do not ask all at once.
const JITTER_MILLIS: u64 = 10_000;
/// As long as there is no table, one is asked for no more often than this when somebody looks up a name.
const FIRST_FILL_SECONDS: i64 = 5;
/// Row of the node's table with the owner of the names that are stored here.
const OWNER_ROW: &[u8] = b"names owner";
/// Row of a node that took over as the authority: the owner of the table.
const AUTHORITY_ROW: &[u8] = b"names authority here";
/// Row with the network that is followed, as text: what was once said by a setting holds also for commands and starts
/// that are not told again.
const NETWORK_ROW: &[u8] = b"names network";
/// Row with another node to get the table from.
const SOURCE_ROW: &[u8] = b"names source";
/// Row with what the last rounds came to.
const STATUS_ROW: &[u8] = b"names status";
/// Refused changes that are remembered.
const MAX_REFUSED: usize = 50;

/// Where this node's names come from.
#[derive(Debug)]
pub(crate) struct Names {
    /// The network whose table is followed; `None` on the authority itself.
    pub(crate) follows: Option<NameAuthority>,
    /// Who owns the table.
    pub(crate) owner: Owner,
    /// One round at a time.
    running: tokio::sync::Mutex<()>,
    status: Mutex<Status>,
    /// When a request last made this node look at the table, seconds since 1970.
    tried_seconds: Mutex<i64>,
    /// Set when another node was found to have newer names: nothing is given out any more.
    pub(crate) overtaken: Mutex<Option<String>>,
    started: std::time::Instant,
    /// When other nodes were last asked whether one has taken over.
    fence_asked: tokio::sync::Mutex<Option<std::time::Instant>>,
    /// True once it is known that no other node has taken over.
    pub(crate) is_fenced: std::sync::atomic::AtomicBool,
    /// What is known of sign-ups that wait.
    waiting: tokio::sync::Mutex<pending::Waiting>,
}

/// How following the table goes; kept over restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When the last round without failure ended, seconds since 1970.
    pub in_step_seconds: Option<i64>,
    /// Sequence of the table that is in force.
    pub sequence: Option<i64>,
    /// Names in it whose change was refused, with the reason; the newest last.
    pub refused: Vec<(String, String)>,
    /// Why the last round failed.
    pub error: Option<String>,
    /// The authority's table went back or contradicted what was seen: nothing of it was taken.
    pub alarm: Option<String>,
}

impl Names {
    pub(crate) fn new(follows: Option<NameAuthority>, owner: Owner, status: Status) -> Self {
        Self {
            follows,
            owner,
            running: tokio::sync::Mutex::default(),
            status: Mutex::new(status),
            tried_seconds: Mutex::new(i64::MIN),
            overtaken: Mutex::default(),
            started: std::time::Instant::now(),
            fence_asked: tokio::sync::Mutex::new(None),
            is_fenced: std::sync::atomic::AtomicBool::new(false),
            waiting: tokio::sync::Mutex::default(),
        }
    }

    /// Returns how following goes.
    pub(crate) fn status(&self) -> Status {
        self.status.lock().clone()
    }

    /// Returns true as long as this node follows a table of which it has nothing yet.
    fn is_empty(&self) -> bool {
        self.follows.is_some() && self.status.lock().in_step_seconds.is_none()
    }
}

/// What a node is to its network, decided at start.
pub(crate) enum Role {
    /// Gives names out.
    Authority,
    /// Follows the table of another node.
    Follows(NameAuthority),
}

/// Decides what this node is, from its settings, from what they were before, and from what an operator did.
pub(crate) async fn role(
    store: &dyn Store,
    configured: Option<&NameAuthority>,
    own_ids: &crate::identity::NodeIdentity,
) -> Result<Role, Refusal> {
    let remembered = match configured {
        Some(_) => None,
        None => store.get(tables::NODE, NETWORK_ROW).await?,
    };
    let remembered = remembered.as_deref().map(std::str::from_utf8);
    let remembered = remembered.and_then(|text| text.ok()?.parse().ok());
    let Some(authority) = configured.or(remembered.as_ref()) else {
        return Ok(Role::Authority);
    };
    if own_ids.is_own(&authority.node.to_cid()) {
        return Ok(Role::Authority);
    }
    let here = store.get(tables::NODE, AUTHORITY_ROW).await?;
    if here.is_some_and(|owner| owner == authority.owner.cid().to_bytes()) {
        return Ok(Role::Authority);
    }
    Ok(Role::Follows(authority.clone()))
}

/// Binds the stored names to one owner for good; false when they are another one's.
pub(crate) async fn bind(store: &dyn Store, owner: &Owner) -> Result<bool, Refusal> {
    let key = owner.cid().to_bytes();
    let bound = store.get(tables::NODE, OWNER_ROW).await?;
    if let Some(bound) = bound {
        return Ok(bound == key);
    }
    // Names of before this row are the node's own.
    let table = store.get(tables::POINTERS, &key).await?;
    let has_names = !store.scan(tables::CHAINS, b"", None, 1).await?.is_empty();
    if has_names && table.is_none() {
        return Ok(false);
    }
    let batch = Batch::new().expect_absent(tables::NODE, OWNER_ROW).put(
        tables::NODE,
        OWNER_ROW,
        key.clone(),
    );
    if store.commit(batch).await?.is_committed() {
        return Ok(true);
    }
    let bound = store.get(tables::NODE, OWNER_ROW).await?;
    Ok(bound.is_some_and(|bound| bound == key))
}

/// Remembers the network that is followed.
pub(crate) async fn remember(store: &dyn Store, network: &NameAuthority) -> Result<(), Refusal> {
    let text = network.to_string().into_bytes();
    if store.get(tables::NODE, NETWORK_ROW).await?.as_deref() != Some(&text) {
        let batch = Batch::new().put(tables::NODE, NETWORK_ROW, text);
        let _ = store.commit(batch).await?;
    }
    Ok(())
}

/// Returns true once the stored names have an owner.
pub(crate) async fn is_bound(store: &dyn Store) -> Result<bool, Refusal> {
    Ok(store.get(tables::NODE, OWNER_ROW).await?.is_some())
}

/// Reads what earlier rounds came to.
pub(crate) async fn stored_status(store: &dyn Store) -> Result<Status, Refusal> {
    let row = store.get(tables::NODE, STATUS_ROW).await?;
    Ok(row
        .and_then(|row| serde_json::from_slice(&row).ok())
        .unwrap_or_default())
}

/// Makes this node the authority of the network it follows, from its next start on. The keys must be in place.
pub(crate) async fn become_authority(state: &State) -> Result<(), Refusal> {
    let owner = state.names.owner.cid().to_bytes();
    let batch = Batch::new().put(tables::NODE, AUTHORITY_ROW, owner);
    let _ = state.store.commit(batch).await?;
    Ok(())
}

/// Gets the table from `source` from now on, whatever node gives names out; `None` asks the authority again.
pub(crate) async fn set_source(state: &State, source: Option<&PeerId>) -> Result<(), Refusal> {
    let batch = match source {
        Some(peer) => Batch::new().put(tables::NODE, SOURCE_ROW, peer.to_string().into_bytes()),
        None => Batch::new().remove(tables::NODE, SOURCE_ROW),
    };
    let _ = state.store.commit(batch).await?;
    Ok(())
}

/// Returns the nodes that may be the authority, the likeliest first: whom the table itself names, whom the operator
/// named, whom the settings name.
pub(crate) async fn authorities(state: &State) -> Result<Vec<PeerId>, Refusal> {
    let mut found: Vec<PeerId> = Vec::new();
    let mut add = |peer: Option<PeerId>| {
        if let Some(peer) = peer
            && !state.identity.is_own(&peer.to_cid())
            && !found.contains(&peer)
        {
            found.push(peer);
        }
    };
    let source = state.store.get(tables::NODE, SOURCE_ROW).await?;
    add(source.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok()));
    let chain = state.directory.chain(PKI_OWNER).await?;
    // Only the configured key speaks for the table.
    if chain.identity() == Some(&state.names.owner) {
        add(chain.home().and_then(|home| PeerId::from_cid(home).ok()));
    }
    add(state.names.follows.as_ref().map(|network| network.node));
    Ok(found)
}

/// Takes over what changed in the table. Nothing to do on the authority itself.
///
/// # Errors
/// [`Refusal::AuthorityUnreachable`] when no node gave the table.
pub(crate) async fn refresh(state: &Arc<State>) -> Result<(), Refusal> {
    if state.names.follows.is_none() {
        return Ok(());
    }
    match round(state).await {
        Ok(_) => Ok(()),
        Err(MirrorError::Here(refusal)) => Err(refusal),
        Err(_) => Err(Refusal::AuthorityUnreachable),
    }
}

/// Returns the chain of a name for a client that looks it up; an empty one for a name that nobody has.
///
/// Whether anybody has it a node does not know before it has the table (Spec: 10 §8.6).
///
/// # Errors
/// [`Refusal::AuthorityUnreachable`] when the table is not here yet and cannot be had.
pub(crate) async fn look_up(state: &Arc<State>, name: &str) -> Result<ClaimChain, Refusal> {
    let chain = state.directory.chain(name).await?;
    if !chain.is_empty() || !state.names.is_empty() {
        return Ok(chain);
    }
    refresh_if_older(state, FIRST_FILL_SECONDS).await?;
    match state.names.is_empty() {
        true => Err(Refusal::AuthorityUnreachable),
        false => state.directory.chain(name).await,
    }
}

/// Takes over what changed in the table, unless that was done less than so many seconds ago; tried no more often.
///
/// # Errors
/// As [`refresh`].
pub(crate) async fn refresh_if_older(state: &Arc<State>, seconds: i64) -> Result<(), Refusal> {
    let now = state.clock.now_seconds();
    let is_due = {
        let mut tried = state.names.tried_seconds.lock();
        let done = state.names.status.lock().in_step_seconds;
        let last = done.unwrap_or(i64::MIN).max(*tried);
        let age = now.saturating_sub(last);
        // What was done in the future was done before the clock was set back.
        let is_due = age >= seconds || age < 0;
        if is_due {
            *tried = now;
        }
        is_due
    };
    match is_due {
        true => refresh(state).await,
        false => Ok(()),
    }
}

/// One round over the table, and over what waited for it; returns how many names changed.
///
/// # Errors
/// [`MirrorError`]; the table before stays in force.
pub(crate) async fn round(state: &Arc<State>) -> Result<u64, MirrorError> {
    let _one = state.names.running.lock().await;
    let done = follow::round(state).await;
    let before = state.names.status();
    let mut status = before.clone();
    match &done {
        Ok(round) => {
            status.in_step_seconds = Some(state.clock.now_seconds());
            status.sequence = round.sequence;
            status.error = None;
            status.alarm = None;
            status.refused.extend(round.refused.iter().cloned());
            let excess = status.refused.len().saturating_sub(MAX_REFUSED);
            status.refused.drain(..excess);
        }
        Err(error) => {
            let text = chain(error);
            if let MirrorError::History(_) = error {
                tracing::error!(error = text, "the table of names contradicts what was seen");
                status.alarm = Some(text.clone());
            }
            status.error = Some(text);
        }
    }
    // The time alone is not worth a write to the disk each minute.
    let is_news = Status {
        in_step_seconds: before.in_step_seconds,
        ..status.clone()
    } != before
        || before.in_step_seconds.is_none();
    *state.names.status.lock() = status.clone();
    if is_news {
        let row = serde_json::to_vec(&status).unwrap_or_default();
        let batch = Batch::new().put(tables::NODE, STATUS_ROW, row);
        let _ = state.store.commit(batch).await?;
    }
    let round = done?;
    pending::settle(state).await?;
    Ok(round.changed)
}

/// Starts the background worker.
pub(crate) fn start(state: &Arc<State>) {
    let p2p = &state.config.p2p;
    let has_network = p2p.is_enabled || p2p.peers.is_some();
    if !has_network || !state.config.mirror.is_automatic {
        return;
    }
    let weak = Arc::downgrade(state);
    state.workers.spawn("names", move |run| {
        let weak = weak.clone();
        async move {
            loop {
                let Some(state) = weak.upgrade() else {
                    return Ok(());
                };
                let work = async {
                    let note = if state.names.follows.is_some() {
                        match round(&state).await {
                            Ok(changed) => format!("in step, {changed} names changed"),
                            Err(error) => format!("not in step: {}", chain(&error)),
                        }
                    } else {
                        pending::settle(&state).await?;
                        "this node gives out the names".to_owned()
                    };
                    crate::migration::round(&state).await?;
                    Ok::<_, Refusal>(note)
                };
                tokio::select! {
                    note = work => run.note(note.map_err(WorkerError::from)?),
                    () = run.stopping() => return Ok(()),
                }
                drop(state);
                let jitter = u64::from_be_bytes(crate::random::random()) % JITTER_MILLIS;
                let wait = ROUND + std::time::Duration::from_millis(jitter);
                if !run.pause(wait).await {
                    return Ok(());
                }
            }
        }
    });
}
