//! The node that a user moves to (Spec: 12 §7.2).

use std::sync::Arc;

use bytes::Bytes;
use pki::{
    chain::ClaimChain,
    username::Username,
    wire::{
        Body as _,
        call::Call,
        mirror::{FROM_THE_BEGINNING, MigrateRequest},
        refusal::text,
        snapshot::UserSnapshot,
    },
};

use super::{Move, Phase, check_chain, of_user, replace};
use crate::{
    bats,
    directory::{Removal, User},
    error::{Refusal, chain},
    follow_requests,
    mirror::{self, Copying, Fetching, MirrorError, Remote},
    names,
    p2p::{PeerError, PeerId, ask},
    state::State,
    store::{Batch, tables},
    usage::{quota_row, stored_quota},
};

/// The account is larger than its space here.
const NO_ROOM: &str = "Not enough space for user to migrate user to this server!";

/// Moves a user here, step by step. After a failure the same call goes on where it was.
///
/// # Errors
/// What the client is told; before the claim is published the user stays where the data is.
pub(crate) async fn arrive(
    state: &Arc<State>,
    request: &MigrateRequest,
) -> Result<UserSnapshot, Refusal> {
    let names_us = request
        .chain
        .home()
        .is_some_and(|home| home.hash() == state.identity.current().hash());
    if !names_us {
        return Err(Refusal::rule("The new claim names another server"));
    }
    // Without the name authority nobody moves: said now, and not after hours of copying.
    names::refresh(state).await?;
    let source = PeerId::from_cid(&request.current_server)
        .map_err(|_| Refusal::malformed("Invalid server id"))?;
    let existing = state.directory.chain(&request.username).await?;
    let user = state.directory.named(&request.username).await?;
    if let Some((_, moved)) = of_user(state, &user.name).await?
        && moved.phase == Phase::Arriving
        && moved.chain()? == request.chain
    {
        return finish(state, &user.name).await;
    }
    check_chain(&user.name, &existing, &request.chain)?;
    admit(state, &user, request).await?;
    if let Some(bat) = &request.bat {
        bats::add_copy(state, &user.name, bat).await?;
    }
    // Twice: what changes during the first pass, which may take hours, is little for the second.
    for _ in 0..2 {
        let remote = remote(state, &user, source).await?;
        mirror::pass(state, &user, &remote).await.map_err(told)?;
    }
    let snapshot = call_source(state, &user, source, &request.chain, false).await;
    store(state, &user, source, &snapshot.map_err(told)?).await?;
    let before = of_user(state, &user.name).await?.map(|(row, _)| row);
    let arriving = Move::new(Phase::Arriving, &source, &request.chain, state);
    state.directory.arrivals.add(&user.name);
    if !replace(state, &user.name, before, Some(&arriving)).await? {
        return Err(Refusal::Moving);
    }
    finish(state, &user.name).await
}

/// Gives a user who is not here yet space, if there is a place.
async fn admit(state: &State, user: &User, request: &MigrateRequest) -> Result<(), Refusal> {
    let stored = stored_quota(state, &user.name).await?;
    if stored.is_none() && state.users.count(state).await? >= state.config.max_users {
        return Err(Refusal::rule(text::MIGRATIONS_CLOSED));
    }
    let quota = match stored {
        Some(quota) => quota,
        None => crate::operator::quota::default_bytes(state).await?,
    };
    if u64::try_from(request.usage_bytes).unwrap_or(0) > quota {
        return Err(Refusal::rule(NO_ROOM));
    }
    let removal = state.directory.removal(&user.name).await?;
    if removal == Some(Removal::Going) {
        return Err(Refusal::rule(
            "This server is still removing what it had of this user, please try again later",
        ));
    }
    if stored.is_none() {
        let key = user.name.as_str().as_bytes().to_vec();
        let mut batch = Batch::new().expect_absent(tables::QUOTAS, key.clone()).put(
            tables::QUOTAS,
            key.clone(),
            quota_row(quota),
        );
        if removal.is_some() {
            // Who was removed has no home here, whatever the claim says. That ends now, before there is such a claim.
            batch = batch.remove(tables::REMOVED, key);
        }
        if state.store.commit(batch).await?.is_committed() {
            state.users.added();
            state.usage.quota_changed(state, user, quota).await?;
        }
        let chain = state.directory.chain(user.name.as_str()).await?;
        state.directory.forget(&chain);
    }
    Ok(())
}

async fn remote(state: &State, user: &User, source: PeerId) -> Result<Remote, Refusal> {
    let peers = state.peers.get().cloned();
    let peers = peers.ok_or(Refusal::HomeUnreachable)?;
    let token = bats::newest(state, &user.name).await?;
    let pace = Arc::clone(&state.mirrors.pace);
    let owner = user.identity.clone();
    Ok(Remote::new(peers, source, owner, token, pace))
}

/// Asks the source for the user's state; with `commit` it publishes the claim first.
async fn call_source(
    state: &State,
    user: &User,
    source: PeerId,
    chain: &ClaimChain,
    commit: bool,
) -> Result<UserSnapshot, MirrorError> {
    let peers = state.peers().ok_or(MirrorError::Offline)?;
    let usage = state.usage.confirmed(state, user).await?;
    let request = MigrateRequest {
        username: user.name.as_str().to_owned(),
        chain: chain.clone(),
        current_server: source.to_cid(),
        bat: bats::newest(state, &user.name).await?,
        // All of them: a limit on uses must not grow because two clocks differ.
        after_epoch_seconds: FROM_THE_BEGINNING,
        usage_bytes: i64::try_from(usage).unwrap_or(i64::MAX),
        commit,
    };
    let target = format!("/{}", Call::MigrateUser.path());
    let max = UserSnapshot::MAX_BYTES;
    let answer = ask(peers, &source, &target, request.to_body(), max).await?;
    let snapshot =
        UserSnapshot::from_body(&answer).map_err(|_| MirrorError::Malformed("snapshot"))?;
    if snapshot.username != user.name || snapshot.owner != user.identity {
        return Err(MirrorError::Malformed("snapshot"));
    }
    Ok(snapshot)
}

/// Stores a snapshot: what its pointers lead to, then the pointers, then the rest.
async fn store(
    state: &Arc<State>,
    user: &Arc<User>,
    source: PeerId,
    snapshot: &UserSnapshot,
) -> Result<(), Refusal> {
    let remote = remote(state, user, source).await?;
    let copying = Copying::start(state, user, &remote, "migration")
        .await
        .map_err(told)?;
    let blocks = Fetching::new(&copying);
    let mut open = Vec::new();
    for write in &snapshot.pointers {
        let signed = mirror::verified(&write.writer, write.signed.clone(), &blocks);
        open.push((write.writer.clone(), signed.await.map_err(told)?));
    }
    blocks.flush().await.map_err(told)?;
    mirror::store_snapshot_pointers(state, user, &copying, open)
        .await
        .map_err(told)?;
    mirror::apply_snapshot(state, user, snapshot).await?;
    copying.close().await.map_err(told)
}

/// The last steps, which can be repeated until they are done: have the claim published, fetch the last state.
async fn finish(state: &Arc<State>, name: &Username) -> Result<UserSnapshot, Refusal> {
    let Some((row, moved)) = of_user(state, name).await? else {
        return Err(Refusal::Moving);
    };
    let user = state.directory.named(name.as_str()).await?;
    let source: PeerId = moved.other.parse().map_err(Refusal::internal)?;
    let new = moved.chain()?;
    let snapshot = match call_source(state, &user, source, &new, true).await {
        Ok(snapshot) => snapshot,
        Err(error) => {
            let is_refused = matches!(
                &error,
                MirrorError::Peer(PeerError::Refused { status: 400, .. })
            );
            // The table of names decides, not the source: its answer may have been lost.
            if is_refused && matches!(is_published(state, name, &new).await, Ok(false)) {
                forget(state, name, row).await?;
            }
            return Err(told(error));
        }
    };
    store(state, &user, source, &snapshot).await?;
    // What was answered at the other node while this one had an older state.
    follow_requests::keep_only(state, &user.identity, &snapshot.follow_requests).await?;
    if !is_published(state, name, &new).await? {
        return Err(Refusal::AuthorityUnreachable);
    }
    forget(state, name, row).await?;
    tracing::info!(
        user = name.as_str(),
        from = moved.other,
        "a user has arrived"
    );
    Ok(snapshot)
}

/// Looks in the table of names, as it is at the authority now, whether a chain is in force.
async fn is_published(
    state: &Arc<State>,
    name: &Username,
    new: &ClaimChain,
) -> Result<bool, Refusal> {
    if state.directory.chain(name.as_str()).await? == *new {
        return Ok(true);
    }
    names::refresh(state).await?;
    Ok(state.directory.chain(name.as_str()).await? == *new)
}

async fn forget(state: &State, name: &Username, row: Bytes) -> Result<(), Refusal> {
    if replace(state, name, Some(row), None).await? {
        state.directory.arrivals.remove(name);
    }
    Ok(())
}

/// Goes on with an arrival that was cut off; true when it is complete or given up.
pub(crate) async fn complete_arrival(state: &Arc<State>, name: &Username) -> Result<bool, Refusal> {
    match finish(state, name).await {
        Ok(_) => Ok(true),
        // Refused by the source: there is nothing to wait for any more.
        Err(_) if of_user(state, name).await?.is_none() => Ok(true),
        Err(refusal) => Err(refusal),
    }
}

/// Says to the client, or to the log, what went wrong with the other node.
fn told(error: MirrorError) -> Refusal {
    match error {
        MirrorError::QuotaReached { .. } => Refusal::rule(NO_ROOM),
        MirrorError::Here(refusal) => refusal,
        MirrorError::Peer(PeerError::Refused { message, .. }) if !message.is_empty() => {
            Refusal::rule(message)
        }
        error if error.is_unreachable() => Refusal::HomeUnreachable,
        error => Refusal::rule(format!("The account cannot be copied: {}", chain(&error))),
    }
}
