//! Requests for more space and their approval (Spec: 09 §1.1, §2.1).

use bytes::Bytes;
use champ::cbor::Record as _;
use pki::{
    keys::{Owner, SIGNATURE_BYTES},
    wire::payment::{LabelledSpaceRequest, PendingSpaceRequests, SpaceRequest},
};

use crate::{
    auth::{Window, signed_time},
    directory::User,
    error::Refusal,
    state::State,
    store::{Batch, tables},
    usage::quota_row,
};

/// Longest signed space request: payment proof, name, numbers, signature.
const MAX_REQUEST_BYTES: usize = 8 << 10;
/// How old a request may be, in milliseconds; also how far in the future.
const MAX_AGE_MILLIS: i64 = 300_000;

/// Row of the signed time of the last answered question for pending requests.
const LAST_PENDING_ROW: &[u8] = b"last pending question";
/// Attempts at a change that other changes overtake.
const MAX_ATTEMPTS: usize = 100;

/// Files a request for more space; a newer one replaces an older one.
pub(crate) async fn request(state: &State, user: &User, signed: &[u8]) -> Result<(), Refusal> {
    let too_large = signed.len() > MAX_REQUEST_BYTES;
    if too_large {
        return Err(Refusal::BodyTooLarge {
            max: MAX_REQUEST_BYTES,
        });
    }
    let key = state.identity_key(user).await?;
    let message = key
        .verify_attached(signed)
        .map_err(|_| Refusal::Signature)?;
    let request = read(message)?;
    let now = state.clock.now_millis();
    let age = now.saturating_sub(request.epoch_millis);
    if !(-MAX_AGE_MILLIS..=MAX_AGE_MILLIS).contains(&age) {
        return Err(Refusal::rule("Stale auth time in space request! "));
    }
    if request.username != user.name {
        return Err(Refusal::rule("Space request is for another user"));
    }
    let row = user.name.as_str().as_bytes().to_vec();
    for _ in 0..MAX_ATTEMPTS {
        let before = state.store.get(tables::SPACE_REQUESTS, &row).await?;
        if let Some(before) = &before {
            let pending = read(before.get(SIGNATURE_BYTES..).unwrap_or_default())?;
            // An older request, sent again by whoever saw it, does not come back.
            if pending.epoch_millis > request.epoch_millis {
                return Ok(());
            }
        }
        let batch = Batch::new()
            .expect(tables::SPACE_REQUESTS, row.clone(), before)
            .put(
                tables::SPACE_REQUESTS,
                row.clone(),
                Bytes::copy_from_slice(signed),
            );
        if state.store.commit(batch).await?.is_committed() {
            return Ok(());
        }
    }
    Err(Refusal::RateLimit("Too many space requests at once"))
}

/// Reads a signed request; who signed it is the caller's matter.
pub(crate) fn read_signed(signed: &[u8]) -> Result<SpaceRequest, Refusal> {
    read(signed.get(SIGNATURE_BYTES..).unwrap_or_default())
}

fn read(message: &[u8]) -> Result<SpaceRequest, Refusal> {
    SpaceRequest::decode(message)
        .map_err(|error| Refusal::malformed(format!("Invalid space request: {error}")))
}

/// Returns the pending requests to an administrator, and an empty list to everybody else.
pub(crate) async fn pending(
    state: &State,
    admin: &Owner,
    auth: &[u8],
) -> Result<PendingSpaceRequests, Refusal> {
    let user = state.directory.user(admin).await?;
    if !is_admin(state, &user, admin) {
        return Ok(PendingSpaceRequests::default());
    }
    let key = state.identity_key(&user).await?;
    let now = state.clock.now_millis();
    let time = signed_time(&key, auth, now, Window::MINUTE)?;
    use_pending_time(state, time).await?;
    let mut requests = Vec::new();
    let mut after: Option<Bytes> = None;
    loop {
        let page = state
            .store
            .scan(tables::SPACE_REQUESTS, b"", after.as_deref(), 1000)
            .await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (name, signed) in page {
            let name = std::str::from_utf8(&name).map_err(Refusal::internal)?;
            requests.push(LabelledSpaceRequest {
                signed,
                username: name.parse().map_err(Refusal::internal)?,
            });
        }
    }
    Ok(PendingSpaceRequests(requests))
}

/// Accepts only times after every earlier one, also of another process on the same store, and after the start
/// of this one.
async fn use_pending_time(state: &State, time: i64) -> Result<(), Refusal> {
    for _ in 0..MAX_ATTEMPTS {
        let before = state.store.get(tables::NODE, LAST_PENDING_ROW).await?;
        let last = before
            .as_deref()
            .and_then(|row| <[u8; 8]>::try_from(row).ok())
            .map_or(i64::MIN, i64::from_be_bytes);
        if time <= last.max(state.started_millis) {
            break;
        }
        let batch = Batch::new()
            .expect(tables::NODE, LAST_PENDING_ROW, before)
            .put(tables::NODE, LAST_PENDING_ROW, time.to_be_bytes().to_vec());
        if state.store.commit(batch).await?.is_committed() {
            return Ok(());
        }
    }
    Err(Refusal::rule(
        "Replay attack? Stale auth time for getPendingSpaceRequests",
    ))
}

/// Grants a pending request (Spec: 09 §2.1).
pub(crate) async fn approve(state: &State, admin: &Owner, signed: &[u8]) -> Result<(), Refusal> {
    let not_admin = || Refusal::rule("User is not an admin on this instance!");
    let admin_user = state.directory.user(admin).await?;
    if !is_admin(state, &admin_user, admin) {
        return Err(not_admin());
    }
    let key = state.identity_key(&admin_user).await?;
    let message = key
        .verify_attached(signed)
        .map_err(|_| Refusal::Signature)?;
    let labelled = LabelledSpaceRequest::decode(message)
        .map_err(|error| Refusal::malformed(format!("Invalid space request: {error}")))?;
    let user = state
        .directory
        .named(labelled.username.as_str())
        .await
        .map_err(|_| Refusal::rule("Couldn't lookup user key!"))?;
    state
        .identity_key(&user)
        .await?
        .verify_attached(&labelled.signed)
        .map_err(|_| Refusal::Signature)?;
    let request = read_signed(&labelled.signed)?;
    if request.username != labelled.username || !user.is_local {
        return Err(Refusal::rule("Space request is for another user"));
    }
    let quota = u64::try_from(request.quota_bytes).unwrap_or(0);
    let row = user.name.as_str().as_bytes().to_vec();
    let batch = Batch::new()
        .expect(
            tables::SPACE_REQUESTS,
            row.clone(),
            Some(labelled.signed.clone()),
        )
        .remove(tables::SPACE_REQUESTS, row.clone())
        .put(tables::QUOTAS, row, quota_row(quota));
    if !state.store.commit(batch).await?.is_committed() {
        return Err(Refusal::rule("This space request is not pending"));
    }
    tracing::info!(
        user = user.name.as_str(),
        admin = admin_user.name.as_str(),
        quota_bytes = quota,
        "quota changed"
    );
    state.usage.quota_changed(state, &user, quota).await
}

/// An administrator is the present holder of a configured name.
fn is_admin(state: &State, user: &User, key: &Owner) -> bool {
    user.identity == *key && state.config.admins.contains(user.name.as_str())
}
