//! Requests for more space and their approval (Spec: 09 §1.1, §2.1).

use bytes::Bytes;
use champ::cbor::Record as _;
use parking_lot::Mutex;
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

/// The last time an administrator's question for pending requests was answered.
#[derive(Debug)]
pub(crate) struct AdminTimes(Mutex<i64>);

impl AdminTimes {
    /// Starts with the start of the node: older authorisations are replays.
    pub(crate) const fn starting_at(now_millis: i64) -> Self {
        Self(Mutex::new(now_millis))
    }
}

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
    let batch = Batch::new().put(tables::SPACE_REQUESTS, row, Bytes::copy_from_slice(signed));
    let _ = state.store.commit(batch).await?;
    Ok(())
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
    {
        let mut last = state.admin_times.0.lock();
        if time <= *last {
            return Err(Refusal::rule(
                "Replay attack? Stale auth time for getPendingSpaceRequests",
            ));
        }
        *last = time;
    }
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
    let request = read(labelled.signed.get(SIGNATURE_BYTES..).unwrap_or_default())?;
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
