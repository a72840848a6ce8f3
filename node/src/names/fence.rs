//! An authority that comes back after another node took over must not give names out a second time.
//!
//! Before its first registration, an authority asks some of the nodes that follow its table which table they have. One
//! that is newer than its own, signed by the same key, means that this node has been replaced, or was restored from an
//! old copy: it gives out nothing until its operator decides. They are asked at the same time, and one that is away is not
//! waited for when another one answers.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use champ::cbor::Record as _;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use pki::{
    chain::ClaimChain,
    keys::{Owner, Writer},
    pointer::SignedPointer,
};
use tokio::time::timeout_at;

use crate::{
    error::Refusal,
    mirror::{Pace, Remote},
    p2p::PeerId,
    pointers,
    state::State,
    store::tables,
};

/// Nodes that are asked.
const MAX_ASKED: usize = 8;
/// Time after a start for which no name is given out as long as no other node answers: nodes that have just lost sight of
/// this one come back within it. Later they are taken to be gone.
const PATIENCE: Duration = Duration::from_secs(600);
/// Time between two rounds of questions: whoever asks for names must not make this node ask all the time.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Time that the others have once one has answered: who is away must not hold up everybody.
const LATECOMERS: Duration = Duration::from_secs(5);
/// Names that are looked through for nodes.
const MAX_NAMES: usize = 10_000;

/// Makes sure, after each start until somebody has answered, that no other node has gone on with the table.
///
/// # Errors
/// A rule when one has, and when there are nodes to ask and none has answered yet; after [`PATIENCE`] they stand in
/// nobody's way.
pub(crate) async fn check(state: &State, writer: &Writer) -> Result<(), Refusal> {
    if let Some(decided) = decided(state) {
        return decided;
    }
    let Some(peers) = state.peers.get() else {
        return Ok(());
    };
    // Who comes while others are asked waits for what they say.
    let mut asked = state.names.fence_asked.lock().await;
    if let Some(decided) = decided(state) {
        return decided;
    }
    if asked.is_some_and(|asked| asked.elapsed() < ASK_AGAIN) {
        return Err(unsure());
    }
    let own = pointers::stored_update(state, writer).await?;
    let own = own.as_ref().and_then(|update| update.sequence());
    let followers = followers(state).await?;
    let mut has_answer = followers.is_empty();
    let mut answers = followers
        .into_iter()
        .map(async |peer| {
            let owner = Owner(state.names.owner.hash().clone());
            let pace = Arc::<Pace>::default();
            let remote = Remote::new(Arc::clone(peers), peer, owner, None, pace);
            (peer, remote.pointer(writer).await)
        })
        .collect::<FuturesUnordered<_>>();
    let mut until = None;
    loop {
        let next = match until {
            None => answers.next().await,
            Some(until) => timeout_at(until, answers.next()).await.unwrap_or(None),
        };
        let Some((peer, answer)) = next else { break };
        let Ok(answer) = answer else { continue };
        has_answer = true;
        until.get_or_insert_with(|| tokio::time::Instant::now() + LATECOMERS);
        let key = writer.hash().inline_key();
        let theirs = match (answer, key) {
            (Some(bytes), Some(key)) => SignedPointer::verify(&key, bytes),
            _ => continue,
        };
        if theirs.is_ok_and(|theirs| theirs.update().sequence() > own) {
            tracing::error!(%peer, "another node has gone on with the table of names");
            *state.names.overtaken.lock() = Some(peer.to_string());
            return Err(overtaken(&peer.to_string()));
        }
    }
    if !has_answer && state.names.started.elapsed() < PATIENCE {
        *asked = Some(Instant::now());
        return Err(unsure());
    }
    state.names.is_fenced.store(true, Ordering::Release);
    Ok(())
}

/// Returns what was found out since the start.
fn decided(state: &State) -> Option<Result<(), Refusal>> {
    if let Some(by) = state.names.overtaken.lock().clone() {
        return Some(Err(overtaken(&by)));
    }
    let is_fenced = state.names.is_fenced.load(Ordering::Acquire);
    is_fenced.then_some(Ok(()))
}

/// What an authority says that does not know yet whether it is one.
const UNSURE: &str = "This server gives out names when one of the others that know them answers, please try again in some minutes";
/// What one says that was replaced, before who has the newer table.
const OVERTAKEN: &str = "This server gives out no names: ";

/// Returns true when an authority that refuses with this text has not decided about the name.
pub(super) fn is_undecided(refusal: &str) -> bool {
    refusal == UNSURE || refusal.starts_with(OVERTAKEN)
}

fn unsure() -> Refusal {
    Refusal::rule(UNSURE)
}

fn overtaken(by: &str) -> Refusal {
    Refusal::rule(format!("{OVERTAKEN}{by} has a newer table"))
}

/// Returns nodes that are home to names of the table.
async fn followers(state: &State) -> Result<BTreeSet<PeerId>, Refusal> {
    let rows = state
        .store
        .scan(tables::CHAINS, b"", None, MAX_NAMES)
        .await?;
    let mut found = BTreeSet::new();
    for (_, row) in rows {
        let Ok(chain) = ClaimChain::decode(&row) else {
            continue;
        };
        let home = chain.home().filter(|home| !state.identity.is_own(home));
        found.extend(home.and_then(|home| PeerId::from_cid(home).ok()));
        if found.len() >= MAX_ASKED {
            break;
        }
    }
    Ok(found)
}
