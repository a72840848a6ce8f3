//! Sign-ups that were sent to the name authority: kept until it is known what became of the name (Spec: 10 §7.3).
//!
//! Once the authority has taken a name its account must be made, however often this node stops in between.

use std::sync::Arc;

use pki::{
    chain::ClaimChain,
    wire::{
        Body as _,
        signup::{SentLinks, SignupRequest, UpdateChainRequest},
    },
};

use super::{Registered, forward};
use crate::{
    error::Refusal,
    signup,
    state::State,
    store::{Batch, tables},
};

/// Sign-ups that may wait at a time.
const MAX_PENDING: usize = 1000;

/// Keeps a sign-up before it is sent; what was kept of the same name and key is the same sign-up.
///
/// # Errors
/// When another sign-up for the name waits, or too many do.
pub(crate) async fn keep(state: &State, request: &SignupRequest) -> Result<(), Refusal> {
    let key = request.username.as_bytes().to_vec();
    let before = state.store.get(tables::PENDING_SIGNUPS, &key).await?;
    if let Some(before) = &before {
        let same = SignupRequest::from_body(before)
            .is_ok_and(|before| before.link.get().owner == request.link.get().owner);
        if !same {
            return Err(Refusal::rule(
                "Another sign-up with this name is waiting for the name authority",
            ));
        }
    } else {
        let waiting = state
            .store
            .scan(tables::PENDING_SIGNUPS, b"", None, MAX_PENDING)
            .await?;
        if waiting.len() >= MAX_PENDING {
            return Err(Refusal::Busy);
        }
    }
    let batch = Batch::new()
        .expect(tables::PENDING_SIGNUPS, key.clone(), before)
        .put(tables::PENDING_SIGNUPS, key, request.to_body());
    match state.store.commit(batch).await?.is_committed() {
        true => Ok(()),
        false => Err(Refusal::Busy),
    }
}

/// Returns how many sign-ups wait.
pub(crate) async fn waiting(state: &State) -> Result<u64, Refusal> {
    let rows = state
        .store
        .scan(tables::PENDING_SIGNUPS, b"", None, MAX_PENDING)
        .await?;
    Ok(rows.len() as u64)
}

/// Forgets a sign-up that was refused.
pub(crate) async fn forget(state: &State, name: &str) -> Result<(), Refusal> {
    let batch = Batch::new().remove(tables::PENDING_SIGNUPS, name.as_bytes().to_vec());
    let _ = state.store.commit(batch).await?;
    Ok(())
}

/// Finds out what became of sign-ups whose answer was lost, and makes the accounts whose names were taken.
pub(super) async fn settle(state: &Arc<State>) -> Result<(), Refusal> {
    let waiting = state
        .store
        .scan(tables::PENDING_SIGNUPS, b"", None, MAX_PENDING)
        .await?;
    for (name, row) in waiting {
        let name = String::from_utf8_lossy(&name).into_owned();
        let Ok(request) = SignupRequest::from_body(&row) else {
            forget(state, &name).await?;
            continue;
        };
        if let Err(error) = settle_one(state, &name, request).await {
            tracing::warn!(name, %error, "a sign-up is not complete");
        }
    }
    Ok(())
}

async fn settle_one(state: &Arc<State>, name: &str, request: SignupRequest) -> Result<(), Refusal> {
    let chain = ClaimChain::single(request.link.get().clone());
    let known = state.directory.chain(name).await?;
    let is_ours = known.identity() == chain.identity();
    if !known.is_empty() && !is_ours {
        // Somebody else was faster.
        return forget(state, name).await;
    }
    if known.is_empty() && state.names.follows.is_none() {
        // This node gives out the names now; the client asks again.
        return forget(state, name).await;
    }
    if known.is_empty() {
        // Asked again it says the same: taken by this very claim, or refused.
        let update = UpdateChainRequest {
            username: name.to_owned(),
            chain: SentLinks::new(chain.clone()),
            proof: request.proof.clone(),
            token: String::new(),
        };
        match forward(state, &update).await {
            Ok(Registered::Done) => {}
            Err(Refusal::AuthorityUnreachable) => return Ok(()),
            Ok(Registered::MoreWork(_)) | Err(_) => return forget(state, name).await,
        }
    }
    signup::complete(state, request).await
}
