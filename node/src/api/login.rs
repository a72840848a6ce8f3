//! `/peergos/v0/login/`: login data; second factors are next door (Spec: 08).

use champ::{cbor::Record as _, text};
use pki::{
    keys::PublicSigningKey,
    wire::{
        login_data::LoginData,
        second_factor::{MethodKind, MultiFactorResponse},
    },
};

use super::{read, wire};
use crate::{
    accounts::{self, LoginAttempt},
    error::Refusal,
    http::{Call, Reply, RequestBody},
};

pub(super) async fn set_login(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let signature = call.query.hex("auth")?;
    let data = read::<LoginData>(body).await?;
    let is_replica = call.query.flag("local");
    let done = accounts::set_login(call.state, data, &signature, is_replica).await?;
    Ok(Reply::byte_boolean(done))
}

pub(super) async fn get_login(call: &Call<'_>) -> Result<Reply, Refusal> {
    let auth = call.query.hex("auth")?;
    let author = PublicSigningKey::decode(&call.query.hex("author")?).map_err(|error| {
        Refusal::malformed(format!("Invalid cbor for PublicSigningKey! {error}"))
    })?;
    let answer = call
        .query
        .optional("mfa")
        .map(|answer| {
            let bytes = text::from_hex(answer)
                .map_err(|_| Refusal::malformed("Invalid hex in parameter mfa"))?;
            MultiFactorResponse::decode(&bytes)
                .map_err(|error| Refusal::malformed(format!("Invalid second factor: {error}")))
        })
        .transpose()?;
    let attempt = LoginAttempt {
        username: call.query.required("username")?,
        author,
        auth: &auth,
        kinds: MethodKind::parse_list(call.query.optional("mfaTypes")).map_err(wire)?,
        answer,
        is_proxied: call.query.flag("proxy"),
        origin: call.origin,
        relying_party: call.relying_party,
    };
    let response = accounts::login(call.state, attempt).await?;
    Ok(Reply::record(&response))
}
