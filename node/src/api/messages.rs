//! `/peergos/v0/server-message/`: the mailbox between operator and user (Spec: 09 §6).

use champ::cbor::Value;
use pki::wire::message::MAX_SEND_BYTES;

use super::read_bytes;
use crate::{
    auth::{Window, signed_request},
    error::Refusal,
    http::{Call, Reply, RequestBody},
    messages,
};

pub(super) async fn retrieve(call: &Call<'_>) -> Result<Reply, Refusal> {
    let state = call.state;
    let auth = call.query.hex("auth")?;
    let user = state
        .directory
        .named_local(call.query.required("username")?)
        .await?;
    let key = state.identity_key(&user).await?;
    let now = state.clock.now_millis();
    signed_request(&key, &auth, call.what.path(), now, Window::MINUTES_5)?;
    Ok(Reply::record(&messages::retrieve(state, &user.name).await?))
}

pub(super) async fn send(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let state = call.state;
    let name = call.query.required("username")?;
    let signed = read_bytes(body, MAX_SEND_BYTES).await?;
    let user = state.directory.named_local(name).await?;
    let key = state.identity_key(&user).await?;
    let message = key
        .verify_attached(&signed)
        .map_err(|_| Refusal::Signature)?;
    messages::send(state, &user.name, message).await?;
    Ok(Reply::cbor(&Value::Bool(true)))
}
