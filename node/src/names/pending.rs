//! Sign-ups that were sent to the name authority: kept until it is known what became of the name (Spec: 10 §7.3).
//!
//! Once the authority has taken a name its account must be made, however often this node stops in between. Where the
//! authority wants more work than the sign-up shows, the name is not taken: it is asked again each round, since what it
//! wants falls when fewer names are asked for. Until then such a sign-up keeps nobody out, neither from its name nor from
//! its place in the list. This node does not do the work itself: it is the price of a name, and strangers would have it paid
//! here.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use pki::{
    chain::ClaimChain,
    wire::{
        Body as _,
        signup::{SentLinks, SignupRequest, UpdateChainRequest},
    },
};

use super::{Registered, fence, forward};
use crate::{
    error::Refusal,
    signup,
    state::State,
    store::{Batch, tables},
};

/// Sign-ups that may wait at a time.
const MAX_PENDING: usize = 1000;
/// Answers that more work is wanted, after which the authority is asked no more in this round.
const MAX_IN_VAIN: usize = 16;
/// The difficulty that says: never.
const IMPOSSIBLE: i32 = 256;

/// What is known of sign-ups that wait; a node that has just started learns it in its first round.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Names of those of which the last answer was that they show too little work. Others may take their places. None is
    /// among them from the moment it is asked for again: if that answer is lost, the name may be taken.
    short: BTreeSet<String>,
}

/// Keeps a sign-up before it is sent; what was kept of the same name and key is the same sign-up. Returns what it took the
/// place of: a sign-up by another key that shows too little work.
///
/// # Errors
/// When another sign-up for the name waits, or too many do.
pub(crate) async fn keep(state: &State, request: &SignupRequest) -> Result<Option<Bytes>, Refusal> {
    let mut waiting = state.names.waiting.lock().await;
    let name = request.username.as_str();
    let key = name.as_bytes().to_vec();
    let before = state.store.get(tables::PENDING_SIGNUPS, &key).await?;
    let mut batch = Batch::new();
    let mut replaced = None;
    if let Some(before) = &before {
        let same = SignupRequest::from_body(before)
            .is_ok_and(|before| before.link.get().owner == request.link.get().owner);
        if !same && !waiting.short.contains(name) {
            return Err(Refusal::rule(
                "Another sign-up with this name is waiting for the name authority",
            ));
        }
        replaced = Some(before.clone()).filter(|_| !same);
    } else {
        let rows = state
            .store
            .scan(tables::PENDING_SIGNUPS, b"", None, MAX_PENDING)
            .await?;
        if rows.len() >= MAX_PENDING {
            let mut names = rows
                .iter()
                .filter_map(|(key, _)| std::str::from_utf8(key).ok());
            let given_up = names.find(|name| waiting.short.contains(*name));
            let given_up = given_up.ok_or(Refusal::Busy)?.to_owned();
            waiting.short.remove(&given_up);
            batch = batch.remove(tables::PENDING_SIGNUPS, given_up.into_bytes());
        }
    }
    let batch = batch
        .expect(tables::PENDING_SIGNUPS, key.clone(), before)
        .put(tables::PENDING_SIGNUPS, key, request.to_body());
    if !state.store.commit(batch).await?.is_committed() {
        return Err(Refusal::Busy);
    }
    waiting.short.remove(name);
    Ok(replaced)
}

/// Lets go of a sign-up that was not accepted; what it took the place of waits again.
pub(crate) async fn withdraw(
    state: &State,
    name: &str,
    replaced: Option<Bytes>,
) -> Result<(), Refusal> {
    let Some(replaced) = replaced else {
        let batch = Batch::new().remove(tables::PENDING_SIGNUPS, name.as_bytes().to_vec());
        let _ = state.store.commit(batch).await?;
        return Ok(());
    };
    let mut waiting = state.names.waiting.lock().await;
    let key = name.as_bytes().to_vec();
    let batch = Batch::new().put(tables::PENDING_SIGNUPS, key, replaced);
    let _ = state.store.commit(batch).await?;
    waiting.short.insert(name.to_owned());
    Ok(())
}

/// Returns how many sign-ups wait.
pub(crate) async fn waiting(state: &State) -> Result<u64, Refusal> {
    let rows = state
        .store
        .scan(tables::PENDING_SIGNUPS, b"", None, MAX_PENDING)
        .await?;
    Ok(rows.len() as u64)
}

/// Forgets a sign-up that was refused, unless another one has its place by now.
async fn forget(state: &State, name: &str, row: Bytes) -> Result<(), Refusal> {
    let key = name.as_bytes().to_vec();
    let batch = Batch::new()
        .expect(tables::PENDING_SIGNUPS, key.clone(), Some(row))
        .remove(tables::PENDING_SIGNUPS, key);
    let _ = state.store.commit(batch).await?;
    Ok(())
}

/// Finds out what became of sign-ups whose answer was lost, and makes the accounts whose names were taken.
pub(super) async fn settle(state: &Arc<State>) -> Result<(), Refusal> {
    let mut rows = state
        .store
        .scan(tables::PENDING_SIGNUPS, b"", None, MAX_PENDING)
        .await?;
    {
        let mut waiting = state.names.waiting.lock().await;
        let is_kept = |name: &String| rows.iter().any(|(key, _)| key == name.as_bytes());
        waiting.short.retain(is_kept);
        // Each round begins elsewhere, so that those in front do not keep the ones behind from ever being asked for.
        let begin = usize::from_be_bytes(crate::random::random()) % rows.len().max(1);
        rows.rotate_left(begin);
        let is_short =
            |key: &[u8]| std::str::from_utf8(key).is_ok_and(|name| waiting.short.contains(name));
        rows.sort_by_key(|(key, _)| is_short(key));
    }
    let mut in_vain = 0;
    for (key, row) in rows {
        let name = String::from_utf8_lossy(&key).into_owned();
        let Ok(request) = SignupRequest::from_body(&row) else {
            forget(state, &name, row).await?;
            continue;
        };
        match settle_one(state, &name, &row, request).await {
            Ok(Settled::Short) => in_vain += 1,
            Ok(Settled::Other) => {}
            Err(error) => tracing::warn!(name, %error, "a sign-up is not complete"),
        }
        if in_vain >= MAX_IN_VAIN {
            break;
        }
    }
    Ok(())
}

/// What became of a sign-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    /// It waits until less work is wanted.
    Short,
    /// It is complete, given up, or still unknown.
    Other,
}

async fn settle_one(
    state: &Arc<State>,
    name: &str,
    row: &Bytes,
    request: SignupRequest,
) -> Result<Settled, Refusal> {
    let chain = ClaimChain::single(request.link.get().clone());
    let known = state.directory.chain(name).await?;
    let is_ours = known.identity() == chain.identity();
    if !known.is_empty() && !is_ours {
        // Somebody else was faster.
        forget(state, name, row.clone()).await?;
        return Ok(Settled::Other);
    }
    if known.is_empty() && state.names.follows.is_none() {
        // This node gives out the names now; the client asks again.
        forget(state, name, row.clone()).await?;
        return Ok(Settled::Other);
    }
    if known.is_empty() {
        {
            // From here on nobody takes its place: what is asked for must be what is kept.
            let mut waiting = state.names.waiting.lock().await;
            let kept = state.store.get(tables::PENDING_SIGNUPS, name.as_bytes());
            if kept.await?.as_ref() != Some(row) {
                return Ok(Settled::Other);
            }
            waiting.short.remove(name);
        }
        // Asked again it says the same: taken by this very claim, or refused.
        let update = UpdateChainRequest {
            username: name.to_owned(),
            chain: SentLinks::new(chain.clone()),
            proof: request.proof.clone(),
            token: String::new(),
        };
        match forward(state, &update).await {
            Ok(Registered::Done) => {}
            Ok(Registered::MoreWork(difficulty)) if difficulty < IMPOSSIBLE => {
                let mut waiting = state.names.waiting.lock().await;
                waiting.short.insert(name.to_owned());
                return Ok(Settled::Short);
            }
            Err(Refusal::Rule(text)) if fence::is_undecided(&text) => return Ok(Settled::Other),
            Err(Refusal::AuthorityUnreachable) => return Ok(Settled::Other),
            Ok(_) | Err(Refusal::Rule(_)) => {
                forget(state, name, row.clone()).await?;
                return Ok(Settled::Other);
            }
            // Trouble here says nothing about the name.
            Err(error) => return Err(error),
        }
    }
    signup::complete(state, request).await?;
    Ok(Settled::Other)
}
