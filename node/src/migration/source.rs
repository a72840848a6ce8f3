//! The node that a user leaves (Spec: 12 §7.3).

use std::sync::Arc;

use pki::{
    keys::Writer,
    username::Username,
    wire::{mirror::MigrateRequest, snapshot::UserSnapshot},
};

use super::{Move, Phase, REPEAT_SECONDS, check_chain, of_user, replace};
use crate::{
    directory::User,
    error::Refusal,
    mirror::{self, Remote},
    names::{self, Registered},
    p2p::PeerId,
    pointers,
    state::State,
};

/// Hands a user over to the node that the user's new claim names, which must be the one that asks.
///
/// # Errors
/// Nothing is handed out to anybody else. When publishing fails for good the user stays here and writes go on; when
/// its outcome is unknown writes stay stopped until it is known.
pub(crate) async fn hand_over(
    state: &Arc<State>,
    peer: PeerId,
    request: &MigrateRequest,
) -> Result<UserSnapshot, Refusal> {
    if !state.identity.is_own(&request.current_server) {
        return Err(Refusal::rule("This server is not the one the user is at"));
    }
    let home = request.chain.home();
    let is_target = home.is_some_and(|home| PeerId::from_cid(home) == Ok(peer));
    if !is_target || home.is_some_and(|home| state.identity.is_own(home)) {
        return Err(Refusal::Unauthorised);
    }
    let user = state.directory.named(&request.username).await?;
    let existing = state.directory.chain(&request.username).await?;
    let after = request.after_epoch_seconds;
    if existing == request.chain {
        if !is_repetition(state, &user.name, request).await? {
            return Err(Refusal::rule("Owner has moved"));
        }
        return mirror::snapshot(state, &user, after).await;
    }
    if !user.is_local || state.directory.arrivals.contains(&user.name) {
        return Err(Refusal::rule("Owner has moved"));
    }
    check_chain(&user.name, &existing, &request.chain)?;
    if request.commit {
        // Once writes have stopped they stay so until it is known whether the claim was published. So that is not
        // begun while the name authority is away.
        names::refresh(state).await?;
        stop_writes(state, &user.name, peer, request).await?;
        tracing::info!(user = user.name.as_str(), %peer, "a user is leaving");
        if !settle_leaving(state, &user.name).await? {
            // No refusal: the claim may be published yet.
            return Err(Refusal::Moving);
        }
    }
    mirror::snapshot(state, &user, after).await
}

/// Returns true when this node committed this very move, not too long ago.
async fn is_repetition(
    state: &State,
    name: &Username,
    request: &MigrateRequest,
) -> Result<bool, Refusal> {
    let Some((_, moved)) = of_user(state, name).await? else {
        return Ok(false);
    };
    let age = state
        .clock
        .now_seconds()
        .saturating_sub(moved.since_seconds);
    // The claim may have been published while its answer was lost.
    Ok(moved.phase != Phase::Arriving && age <= REPEAT_SECONDS && moved.chain()? == request.chain)
}

/// Returns true when nothing that is here of a user of another node is needed to complete a move.
///
/// Of who has left here that is so when the new home has every pointer as it is here.
pub(crate) async fn is_dispensable(
    state: &State,
    user: &User,
    writers: &[Writer],
) -> Result<bool, Refusal> {
    let Some((_, moved)) = of_user(state, &user.name).await? else {
        return Ok(true);
    };
    if moved.phase != Phase::Left {
        return Ok(false);
    }
    if moved.chain()? != state.directory.chain(user.name.as_str()).await? {
        // Has moved on since.
        return Ok(true);
    }
    let (Some(peers), Ok(peer)) = (state.peers.get(), moved.other.parse()) else {
        return Ok(false);
    };
    let pace = Arc::clone(&state.mirrors.pace);
    let home = Remote::new(Arc::clone(peers), peer, user.identity.clone(), None, pace);
    for writer in writers {
        let Some(here) = pointers::stored_update(state, writer).await? else {
            continue;
        };
        let Ok(Some(there)) = home.pointer(writer).await else {
            return Ok(false);
        };
        let there = pointers::read_update(&there)?;
        if there.sequence() < here.sequence() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives up an arrival that cannot be completed: what is here of the user is going to be removed.
pub(crate) async fn give_up(state: &State, name: &Username) -> Result<(), Refusal> {
    if let Some((row, moved)) = of_user(state, name).await?
        && moved.phase == Phase::Arriving
        && replace(state, name, Some(row), None).await?
    {
        state.directory.arrivals.remove(name);
    }
    Ok(())
}

/// Stores the row from which on no write of the user is accepted here.
async fn stop_writes(
    state: &Arc<State>,
    name: &Username,
    peer: PeerId,
    request: &MigrateRequest,
) -> Result<(), Refusal> {
    let before = match of_user(state, name).await? {
        None => None,
        Some((_, moved)) if moved.phase == Phase::Leaving => {
            // A move that may still be published comes first.
            return match moved.chain()? == request.chain {
                true => Ok(()),
                false => Err(Refusal::Moving),
            };
        }
        Some((row, _)) => Some(row),
    };
    let leaving = Move::new(Phase::Leaving, &peer, &request.chain, state);
    match replace(state, name, before, Some(&leaving)).await? {
        true => Ok(()),
        false => Err(Refusal::Moving),
    }
}

/// Publishes the claim of a user who is leaving, as often as needed to know the outcome; true when it is published.
///
/// # Errors
/// When the name authority refuses: the user stays, and writes go on.
pub(crate) async fn settle_leaving(state: &Arc<State>, name: &Username) -> Result<bool, Refusal> {
    let Some((row, moved)) = of_user(state, name).await? else {
        return Ok(false);
    };
    if moved.phase != Phase::Leaving {
        return Ok(moved.phase == Phase::Left);
    }
    let stays = async || replace(state, name, Some(row.clone()), None).await;
    match names::publish(state, name, &moved.chain()?).await {
        Ok(Registered::Done) => {
            let left = Move {
                phase: Phase::Left,
                since_seconds: state.clock.now_seconds(),
                ..moved
            };
            replace(state, name, Some(row), Some(&left)).await?;
            tracing::info!(user = name.as_str(), to = left.other, "a user has left");
            Ok(true)
        }
        Ok(Registered::MoreWork(_)) => {
            stays().await?;
            Err(Refusal::rule(
                "The name authority asks for work to move this user",
            ))
        }
        // Whether it is published is not known.
        Err(Refusal::AuthorityUnreachable | Refusal::Internal(_) | Refusal::Busy) => Ok(false),
        Err(refusal) => {
            stays().await?;
            Err(refusal)
        }
    }
}
