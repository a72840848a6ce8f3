//! Who asks: the user whose identity key has signed the call.

use std::sync::Arc;

use pki::keys::Owner;

use crate::{
    auth::{Window, signed_request, signed_time},
    directory::User,
    error::Refusal,
    http::Call,
};

/// Returns the user of `username`, whose identity key signed the call's own path, and when, in milliseconds since 1970.
pub(super) async fn by_path(call: &Call<'_>, window: Window) -> Result<(Arc<User>, i64), Refusal> {
    let auth = call.query.hex("auth")?;
    let name = call.query.required("username")?;
    let user = call.state.directory.named(name).await?;
    let key = call.state.identity_key(&user).await?;
    let now = call.state.clock.now_millis();
    let millis = signed_request(&key, &auth, call.what.path(), now, window)?;
    Ok((user, millis))
}

/// Returns the owner, whose key signed the time, and the user of this node that it belongs to.
pub(super) async fn by_time(call: &Call<'_>) -> Result<(Owner, Arc<User>), Refusal> {
    let owner = call.query.owner()?;
    let auth = call.query.hex("auth")?;
    let user = call.state.directory.local(&owner).await?;
    let key = call.state.writing_key(&user, &owner.as_writer()).await?;
    let now = call.state.clock.now_millis();
    signed_time(&key, &auth, now, Window::MINUTES_5)?;
    Ok((owner, user))
}
