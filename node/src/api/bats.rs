//! `/peergos/v0/bats/`: mirror access tokens (Spec: 09 §5).

use std::sync::Arc;

use champ::{
    Cid,
    access::{Bat, BatId},
    cbor::Value,
};

use crate::{
    auth::{Window, signed_request},
    bats,
    directory::User,
    error::Refusal,
    http::{Call, Reply},
};

pub(super) async fn list(call: &Call<'_>) -> Result<Reply, Refusal> {
    // Whoever logs in at a copy reads with the tokens that it knows.
    let user = authorised(call).await?;
    let user = call.readable(&user.identity).await?;
    let bats = bats::of_user(call.state, &user.name).await?;
    Ok(Reply::cbor_bytes(bats::encode(&bats)))
}

pub(super) async fn add(call: &Call<'_>) -> Result<Reply, Refusal> {
    let user = authorised(call).await?;
    let id = call
        .query
        .required("batid")?
        .parse::<Cid>()
        .map_err(|error| Refusal::malformed(format!("Invalid BAT id: {error}")))?;
    let bat =
        Bat::parse(call.query.required("bat")?).map_err(|_| Refusal::malformed("Incorrect BAT"))?;
    let user = local(user)?;
    bats::add(call.state, &user, BatId::new(id), bat).await?;
    Ok(Reply::cbor(&Value::Bool(true)))
}

/// Returns the user whose identity key signed the call's own path.
async fn authorised(call: &Call<'_>) -> Result<Arc<User>, Refusal> {
    let auth = call.query.hex("auth")?;
    let user = call
        .state
        .directory
        .named(call.query.required("username")?)
        .await?;
    let key = call.state.identity_key(&user).await?;
    let now = call.state.clock.now_millis();
    signed_request(&key, &auth, call.what.path(), now, Window::MINUTES_5)?;
    Ok(user)
}

fn local(user: Arc<User>) -> Result<Arc<User>, Refusal> {
    if user.is_local {
        Ok(user)
    } else {
        Err(Refusal::NotHome)
    }
}
