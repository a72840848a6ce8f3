//! Enrolment of second factors, under `/peergos/v0/login/` (Spec: 08 §4.1).

use std::sync::Arc;

use champ::cbor::Value;
use pki::wire::second_factor::{FactorName, MethodKind, MultiFactorResponse};

use super::read;
use crate::{
    auth::{Window, signed_request},
    directory::User,
    error::Refusal,
    http::{Call, Reply, RequestBody},
    second_factors,
};

pub(super) async fn answer(
    call: &Call<'_>,
    body: &mut RequestBody,
) -> Result<Option<Reply>, Refusal> {
    let state = call.state;
    Ok(Some(match call.name {
        "listMfa" => {
            let user = authorised(call, Window::DAY).await?;
            Reply::record(&second_factors::list(state, &user.name).await?)
        }
        "addTotp" => {
            let user = authorised(call, Window::CHANGE).await?;
            let key = second_factors::add(state, &user.name, FactorName::default(), false).await?;
            Reply::text(key.to_text())
        }
        "addMount" => {
            let user = authorised(call, Window::CHANGE).await?;
            let name = FactorName::parse(call.query.required("name")?)
                .map_err(|error| Refusal::rule(error.to_string()))?;
            let key = second_factors::add(state, &user.name, name, true).await?;
            Reply::text(key.to_text())
        }
        "enableTotp" => enable(call, MethodKind::Totp).await?,
        "enableMount" => enable(call, MethodKind::Mount).await?,
        "genBackupCodes" => {
            let user = authorised(call, Window::CHANGE).await?;
            Reply::record(&second_factors::make_backup_codes(state, &user.name).await?)
        }
        "registerWebauthnStart" => {
            let user = authorised(call, Window::CHANGE).await?;
            let challenge = second_factors::start_webauthn(state, &user.name).await?;
            Reply::bytes(challenge.0.to_vec())
        }
        "registerWebauthnComplete" => {
            let user = authorised(call, Window::CHANGE).await?;
            let name = FactorName::parse(call.query.required("keyname")?)
                .map_err(|_| Refusal::rule("Max second factor name length is 32 characters"))?;
            let answer = read::<MultiFactorResponse>(body).await?;
            let rp = call.relying_party;
            second_factors::complete_webauthn(state, &user.name, name, &answer, rp).await?;
            done()
        }
        "deleteMfa" => {
            let user = authorised(call, Window::CHANGE).await?;
            let id = call.query.hex("credid")?;
            second_factors::delete(state, &user.name, &id).await?;
            done()
        }
        _ => return Ok(None),
    }))
}

/// Returns the user whose identity key signed the call's own path.
async fn authorised(call: &Call<'_>, window: Window) -> Result<Arc<User>, Refusal> {
    let auth = call.query.hex("auth")?;
    let user = call
        .state
        .directory
        .named(call.query.required("username")?)
        .await?;
    let key = call.state.identity_key(&user).await?;
    let path = format!("peergos/v0/login/{}", call.name);
    signed_request(&key, &auth, &path, call.state.clock.now_millis(), window)?;
    if !user.is_local {
        return Err(Refusal::NotHome);
    }
    Ok(user)
}

async fn enable(call: &Call<'_>, kind: MethodKind) -> Result<Reply, Refusal> {
    let user = authorised(call, Window::CHANGE).await?;
    let id = call.query.hex("credid")?;
    let code = call.query.required("code")?;
    second_factors::enable(call.state, &user.name, &id, code, kind).await?;
    Ok(done())
}

fn done() -> Reply {
    Reply::cbor(&Value::Bool(true))
}
