//! `/peergos/v0/core/`: names, sign-up, chain updates (Spec: 10 §6).

use std::io::Write as _;

use champ::cbor::Record as _;
use flate2::{Compression, write::GzEncoder};
use pki::{
    keys::Owner,
    wire::{
        Body as _,
        directory::{KeyRequest, NameRequest, PublicKeyReply, UsernameReply, Usernames},
        signup::{SignupReply, SignupRequest, UpdateChainRequest},
    },
};

use super::read;
use crate::{
    error::Refusal,
    http::{Call, Reply, RequestBody},
    registrar::{Decision, MAX_TURNS, Turn},
    signup::{self, Outcome},
    state::State,
};

/// Longest prefix of a name listing.
const MAX_PREFIX_BYTES: usize = 64;

pub(super) async fn get_chain(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let NameRequest(name) = read(body).await?;
    Ok(Reply::cbor_bytes(
        call.state.directory.chain(&name).await?.encode(),
    ))
}

pub(super) async fn get_public_key(
    call: &Call<'_>,
    body: &mut RequestBody,
) -> Result<Reply, Refusal> {
    let NameRequest(name) = read(body).await?;
    let chain = call.state.directory.chain(&name).await?;
    let key = chain.identity().map(|identity| identity.hash().clone());
    Ok(Reply::bytes(PublicKeyReply(key).to_body()))
}

pub(super) async fn get_username(
    call: &Call<'_>,
    body: &mut RequestBody,
) -> Result<Reply, Refusal> {
    let KeyRequest(key) = read(body).await?;
    let name = call
        .state
        .directory
        .name_of(&Owner(key.clone()))
        .await?
        .ok_or_else(|| Refusal::UnknownOwner(key.cid().clone()))?;
    Ok(Reply::bytes(
        UsernameReply(name.as_str().to_owned()).to_body(),
    ))
}

pub(super) async fn get_usernames(call: &Call<'_>) -> Result<Reply, Refusal> {
    let prefix = call.rest;
    let mut names = call.state.directory.names().await?;
    if !prefix.is_empty() && prefix.len() <= MAX_PREFIX_BYTES {
        names.retain(|name| name.starts_with(prefix));
    }
    let json = Usernames(names).to_body();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let compressed = gzip
        .write_all(&json)
        .and_then(|()| gzip.finish())
        .map_err(Refusal::internal)?;
    Ok(Reply::gzipped_json(compressed))
}

pub(super) async fn sign_up(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let request = read::<SignupRequest>(body).await?;
    Ok(match signup::sign_up(call.state, request).await? {
        Outcome::Done => accepted(),
        Outcome::MoreWork(difficulty) => work_wanted(difficulty),
    })
}

/// Renewal, change of server, change of key. First registrations come through sign-up.
pub(super) async fn update_chain(
    call: &Call<'_>,
    body: &mut RequestBody,
) -> Result<Reply, Refusal> {
    let request = read::<UpdateChainRequest>(body).await?;
    let state = call.state;
    let mut turn = state.registrar.turn().await;
    for _ in 0..MAX_TURNS {
        if let Some(reply) = try_update_chain(state, &mut turn, &request).await? {
            return Ok(reply);
        }
    }
    Err(Refusal::rule("The chain was changed by somebody else"))
}

/// Tries to update a chain; `None` when another process changed the table meanwhile.
async fn try_update_chain(
    state: &State,
    turn: &mut Turn<'_>,
    request: &UpdateChainRequest,
) -> Result<Option<Reply>, Refusal> {
    if state.directory.chain(&request.username).await?.is_empty() {
        return Err(Refusal::rule("Unknown user, please sign up"));
    }
    let decision = state
        .registrar
        .decide(
            turn,
            state,
            &request.username,
            request.chain.get(),
            &request.proof,
            request.chain.proof_data(),
        )
        .await?;
    let prepared = match decision {
        Decision::Unchanged => return Ok(Some(accepted())),
        Decision::MoreWork(difficulty) => return Ok(Some(work_wanted(difficulty))),
        Decision::Change(prepared) => prepared,
    };
    if !state
        .store
        .commit(prepared.batch.clone())
        .await?
        .is_committed()
    {
        state.registrar.abandoned(state, *prepared).await?;
        return Ok(None);
    }
    state.registrar.committed(turn, state, *prepared).await?;
    Ok(Some(accepted()))
}

fn work_wanted(difficulty: u16) -> Reply {
    Reply::bytes(SignupReply::MoreWork(difficulty.into()).to_body())
}

fn accepted() -> Reply {
    Reply::bytes(SignupReply::Accepted.to_body())
}
