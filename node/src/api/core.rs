//! `/peergos/v0/core/`: names, sign-up, chain updates (Spec: 10 §6).

use std::io::Write as _;

use champ::cbor::Record as _;
use flate2::{Compression, write::GzEncoder};
use pki::{
    chain::ClaimChain,
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
    http::{Call, Origin, Reply, RequestBody},
    names::{self, Registered},
    signup::{self, Outcome},
};

/// Longest prefix of a name listing.
const MAX_PREFIX_BYTES: usize = 64;

pub(super) async fn get_chain(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let NameRequest(name) = read(body).await?;
    Ok(Reply::cbor_bytes(chain(call, &name).await?.encode()))
}

pub(super) async fn get_public_key(
    call: &Call<'_>,
    body: &mut RequestBody,
) -> Result<Reply, Refusal> {
    let NameRequest(name) = read(body).await?;
    let chain = chain(call, &name).await?;
    let key = chain.identity().map(|identity| identity.hash().clone());
    Ok(Reply::bytes(PublicKeyReply(key).to_body()))
}

/// Looks a name up, in the table that is here.
async fn chain(call: &Call<'_>, name: &str) -> Result<ClaimChain, Refusal> {
    match call.origin {
        // No other node is asked for what a peer asks.
        Origin::Peer(_) => call.state.directory.chain(name).await,
        Origin::InProcess | Origin::Address(_) => names::look_up(call.state, name).await,
    }
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
        Outcome::MoreWork(difficulty) => work_wanted(difficulty.into()),
    })
}

/// Renewal, change of server, change of key. First registrations come through sign-up, or from the node that a
/// newcomer signs up at.
pub(super) async fn update_chain(
    call: &Call<'_>,
    body: &mut RequestBody,
) -> Result<Reply, Refusal> {
    let request = read::<UpdateChainRequest>(body).await?;
    let state = call.state;
    let is_peer = matches!(call.origin, Origin::Peer(_));
    if is_peer && state.names.follows.is_some() {
        return Err(Refusal::rule(names::NOT_THE_AUTHORITY));
    }
    Ok(match names::update(state, &request, is_peer).await? {
        Registered::Done => accepted(),
        Registered::MoreWork(difficulty) => work_wanted(difficulty),
    })
}

fn work_wanted(difficulty: i32) -> Reply {
    Reply::bytes(SignupReply::MoreWork(difficulty).to_body())
}

fn accepted() -> Reply {
    Reply::bytes(SignupReply::Accepted.to_body())
}
