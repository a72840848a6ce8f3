//! Calls of mirrors and of users who move (Spec: 10 §6, 12 §5 to §7).

use pki::wire::mirror::{MigrateRequest, MirrorRequest, SnapshotsRequest};
use subtle::ConstantTimeEq as _;

use super::read;
use crate::{
    auth::{Window, signed_time},
    bats,
    error::Refusal,
    http::{Call, Origin, Reply, RequestBody},
    migration, mirror as copies,
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
    bats::add(state, &user, request.bat.id, request.bat.bat).await?;
    Ok(Reply::byte_boolean(true))
}

/// Hands the state of the users of this node to whoever has the node's own token (Spec: 12 §6).
pub(super) async fn snapshots(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let request = read::<SnapshotsRequest>(body).await?;
    let Some(instance) = &call.state.config.instance_bat else {
        return Err(Refusal::rule("This server does not have an instance bat."));
    };
    if !bool::from(instance.secret().ct_eq(request.instance_bat.bat.secret())) {
        return Err(Refusal::MirrorToken);
    }
    if let Origin::Peer(peer) = call.origin
        && call.state.mirrors.holders.of_all(peer)
    {
        call.state.scrub.look_again();
    }
    let after = request.after_epoch_seconds;
    let page = copies::snapshot_page(call.state, &request.cursor, after).await?;
    Ok(Reply::record(&page))
}

/// From a client the user moves here, from a node the user leaves (Spec: 12 §7).
pub(super) async fn migrate(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let request = read::<MigrateRequest>(body).await?;
    let snapshot = match call.origin {
        Origin::Peer(peer) => migration::hand_over(call.state, peer, &request).await?,
        Origin::InProcess | Origin::Address(_) => migration::arrive(call.state, &request).await?,
    };
    Ok(Reply::record(&snapshot))
}
