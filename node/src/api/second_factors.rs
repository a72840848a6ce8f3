//! Enrolment of second factors, under `/peergos/v0/login/` (Spec: 08 §4.1).

use std::sync::Arc;

use champ::cbor::Value;
use pki::wire::second_factor::{FactorName, MethodKind, MultiFactorResponse};

use super::{asker, read};
use crate::{
    auth::{Window, use_once},
    directory::User,
    error::Refusal,
    http::{Call, Reply, RequestBody},
    second_factors,
};

pub(super) async fn list(call: &Call<'_>) -> Result<Reply, Refusal> {
    let (user, _) = authorised(call, Window::DAY).await?;
    let methods = second_factors::list(call.state, &user.name).await?;
    Ok(Reply::record(&methods))
}

pub(super) async fn add_totp(call: &Call<'_>) -> Result<Reply, Refusal> {
    let user = changing(call).await?;
    let name = FactorName::default();
    let key = second_factors::add(call.state, &user.name, name, false).await?;
    Ok(Reply::text(key.to_text()))
}

pub(super) async fn add_mount(call: &Call<'_>) -> Result<Reply, Refusal> {
    let user = changing(call).await?;
    let name = FactorName::parse(call.query.required("name")?)
        .map_err(|error| Refusal::rule(error.to_string()))?;
    let key = second_factors::add(call.state, &user.name, name, true).await?;
    Ok(Reply::text(key.to_text()))
}

pub(super) async fn make_backup_codes(call: &Call<'_>) -> Result<Reply, Refusal> {
    let user = changing(call).await?;
    let codes = second_factors::make_backup_codes(call.state, &user.name).await?;
    Ok(Reply::record(&codes))
}

pub(super) async fn start_webauthn(call: &Call<'_>) -> Result<Reply, Refusal> {
    let user = changing(call).await?;
    let challenge = second_factors::start_webauthn(call.state, &user.name).await?;
    Ok(Reply::bytes(challenge.0.to_vec()))
}

pub(super) async fn complete_webauthn(
    call: &Call<'_>,
    body: &mut RequestBody,
) -> Result<Reply, Refusal> {
    let user = changing(call).await?;
    let name = FactorName::parse(call.query.required("keyname")?)
        .map_err(|_| Refusal::rule("Max second factor name length is 32 characters"))?;
    let answer = read::<MultiFactorResponse>(body).await?;
    let rp = call.relying_party;
    second_factors::complete_webauthn(call.state, &user.name, name, &answer, rp).await?;
    Ok(done())
}

pub(super) async fn delete(call: &Call<'_>) -> Result<Reply, Refusal> {
    let user = changing(call).await?;
    let id = call.query.hex("credid")?;
    second_factors::delete(call.state, &user.name, &id).await?;
    Ok(done())
}

/// Returns the user whose identity key signed the call's own path, just now and for one change.
async fn changing(call: &Call<'_>) -> Result<Arc<User>, Refusal> {
    let (user, millis) = authorised(call, Window::CHANGE).await?;
    use_once(call.state, &call.query.hex("auth")?, millis).await?;
    Ok(user)
}

/// Returns the user of this node whose identity key signed the call's own path, and when.
async fn authorised(call: &Call<'_>, window: Window) -> Result<(Arc<User>, i64), Refusal> {
    let (user, millis) = asker::by_path(call, window).await?;
    if !user.is_local {
        return Err(Refusal::NotHome);
    }
    Ok((user, millis))
}

pub(super) async fn enable(call: &Call<'_>, kind: MethodKind) -> Result<Reply, Refusal> {
    let user = changing(call).await?;
    let id = call.query.hex("credid")?;
    let code = call.query.required("code")?;
    second_factors::enable(call.state, &user.name, &id, code, kind).await?;
    Ok(done())
}

fn done() -> Reply {
    Reply::cbor(&Value::Bool(true))
}
