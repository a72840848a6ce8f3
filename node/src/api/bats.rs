//! `/peergos/v0/bats/`: mirror access tokens (Spec: 09 §5).

use std::sync::Arc;

use champ::{
    Cid,
    access::{Bat, BatId},
    cbor::Value,
};

use super::asker;
use crate::{
    auth::Window,
    bats,
    directory::User,
    error::Refusal,
    http::{Call, Reply},
};

pub(super) async fn list(call: &Call<'_>) -> Result<Reply, Refusal> {
    // Whoever logs in at a copy reads with the tokens that it knows.
    let (user, _) = asker::by_path(call, Window::MINUTES_5).await?;
    let user = call.readable(&user.identity).await?;
    let bats = bats::of_user(call.state, &user.name).await?;
    Ok(Reply::cbor_bytes(bats::encode(&bats)))
}

pub(super) async fn add(call: &Call<'_>) -> Result<Reply, Refusal> {
    let (user, _) = asker::by_path(call, Window::MINUTES_5).await?;
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

fn local(user: Arc<User>) -> Result<Arc<User>, Refusal> {
    if user.is_local {
        Ok(user)
    } else {
        Err(Refusal::NotHome)
    }
}
