//! Sealed follow requests waiting for their receivers (Spec: 22 §3).

use std::collections::HashSet;

use bytes::Bytes;
use champ::cbor::Record as _;
use pki::{keys::Owner, wire::social::FollowRequest};

use crate::{
    directory::User,
    error::Refusal,
    migration,
    state::State,
    store::{Batch, tables},
};

/// Requests of one owner up to which another one is stored.
const MAX_PENDING: usize = 100;
/// Attempts at a change that other changes overtake.
const MAX_ATTEMPTS: usize = 400;

/// Stores a request; false when the inbox is full. A copy of a pending request is accepted and not stored.
pub(crate) async fn add(
    state: &State,
    user: &User,
    owner: &Owner,
    request: Bytes,
) -> Result<bool, Refusal> {
    add_as(state, Some(user), owner, request).await
}

/// As [`add`], for a request that another node has kept.
pub(crate) async fn add_copy(
    state: &State,
    owner: &Owner,
    request: Bytes,
) -> Result<bool, Refusal> {
    add_as(state, None, owner, request).await
}

async fn add_as(
    state: &State,
    user: Option<&User>,
    owner: &Owner,
    request: Bytes,
) -> Result<bool, Refusal> {
    let prefix = owner.cid().to_bytes();
    for _ in 0..MAX_ATTEMPTS {
        let rows = pending(state, &prefix).await?;
        if rows.iter().any(|(_, known)| *known == request) {
            return Ok(true);
        }
        if rows.len() > MAX_PENDING {
            return Ok(false);
        }
        let last = rows.last().map_or(0, |(key, _)| number(key));
        let mut key = prefix.clone();
        key.extend_from_slice(&last.saturating_add(1).to_be_bytes());
        // Only one of those who counted the same rows gets the next number.
        let batch = Batch::new()
            .expect_absent(tables::FOLLOW_REQUESTS, key.clone())
            .put(tables::FOLLOW_REQUESTS, key, request.clone());
        let batch = match user {
            Some(user) => migration::guard(state, user, batch).await?,
            None => batch,
        };
        if state.store.commit(batch).await?.is_committed() {
            return Ok(true);
        }
    }
    Err(Refusal::RateLimit("Too many follow requests"))
}

/// Returns the pending requests in order of arrival.
pub(crate) async fn list(state: &State, owner: &Owner) -> Result<Vec<Bytes>, Refusal> {
    let rows = pending(state, &owner.cid().to_bytes()).await?;
    Ok(rows.into_iter().map(|(_, request)| request).collect())
}

/// Removes every copy of a request.
pub(crate) async fn remove(state: &State, owner: &Owner, request: &[u8]) -> Result<(), Refusal> {
    let batch = pending(state, &owner.cid().to_bytes())
        .await?
        .into_iter()
        .filter(|(_, known)| known == request)
        .fold(Batch::new(), |batch, (key, _)| {
            batch.remove(tables::FOLLOW_REQUESTS, key)
        });
    if !batch.is_empty() {
        let _ = state.store.commit(batch).await?;
    }
    Ok(())
}

/// Removes the requests that are not among these: those who waited here before the owner came back, and were answered
/// elsewhere.
pub(crate) async fn keep_only(
    state: &State,
    owner: &Owner,
    kept: &[FollowRequest],
) -> Result<(), Refusal> {
    let kept: HashSet<Vec<u8>> = kept.iter().map(FollowRequest::encode).collect();
    for request in list(state, owner).await? {
        if !kept.contains(request.as_ref()) {
            remove(state, owner, &request).await?;
        }
    }
    Ok(())
}

async fn pending(state: &State, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, Refusal> {
    let mut rows: Vec<(Bytes, Bytes)> = Vec::new();
    loop {
        let after = rows.last().map(|(key, _)| key.clone());
        let page = state
            .store
            .scan(tables::FOLLOW_REQUESTS, prefix, after.as_deref(), 1000)
            .await?;
        if page.is_empty() {
            return Ok(rows);
        }
        rows.extend(page);
    }
}

fn number(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |n| u64::from_be_bytes(*n))
}
