//! Calls of mirrors and of users who move (Spec: 10 §6, 12 §5 to §7).
//!
//! This node takes the mirror token of a user who has space here; it does not copy users of other nodes
//! itself yet, nor hand users over, and says so instead of pretending.

use pki::wire::{
    mirror::{MigrateRequest, MirrorRequest, SnapshotsRequest},
    refusal::text,
};
use subtle::ConstantTimeEq as _;

use super::read;
use crate::{
    auth::{Window, signed_time},
    bats,
    error::Refusal,
    http::{Call, Reply, RequestBody},
    usage::stored_quota,
};

/// A quota of at most this many bytes counts as none (Spec: 12 §5.1).
const NO_SPACE_BYTES: u64 = 1 << 20;

/// The checks in the order of Spec: 12 §5.1.
pub(super) async fn mirror(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let request = read::<MirrorRequest>(body).await?;
    let state = call.state;
    let user = state.directory.named(&request.username).await?;
    if stored_quota(state, &user.name).await?.unwrap_or(0) <= NO_SPACE_BYTES {
        return Err(Refusal::rule("Not enough space quota!"));
    }
    let key = state.identity_key(&user).await?;
    let now = state.clock.now_millis();
    signed_time(&key, &request.auth, now, Window::MINUTES_10)?;
    bats::check_id(&request.bat)?;
    if !user.is_local {
        return Err(Refusal::Unimplemented("This server does not mirror users"));
    }
    bats::add(state, &user.name, request.bat.id, request.bat.bat).await?;
    Ok(Reply::byte_boolean(true))
}

pub(super) async fn snapshots(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let request = read::<SnapshotsRequest>(body).await?;
    let Some(instance) = &call.state.config.instance_bat else {
        return Err(Refusal::rule("This server does not have an instance bat."));
    };
    if !bool::from(instance.secret().ct_eq(request.instance_bat.bat.secret())) {
        return Err(Refusal::MirrorToken);
    }
    Err(Refusal::Unimplemented(
        "This server does not hand out snapshots",
    ))
}

pub(super) async fn migrate(body: &mut RequestBody) -> Result<Reply, Refusal> {
    read::<MigrateRequest>(body).await?;
    Err(Refusal::Unimplemented(text::MIGRATIONS_CLOSED))
}
