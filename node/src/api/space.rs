//! `/peergos/v0/storage/`: usage, quota, requests for more (Spec: 09 §1).

use std::sync::Arc;

use champ::cbor::Value;
use pki::wire::payment::PaymentProperties;

use super::asker;
use crate::{
    directory::User,
    error::Refusal,
    http::{Call, Reply},
    space,
};

pub(super) async fn quota(call: &Call<'_>) -> Result<Reply, Refusal> {
    let user = authorised(call).await?;
    Ok(integer(call.state.usage.quota(call.state, &user).await?))
}

pub(super) async fn payment_properties(call: &Call<'_>) -> Result<Reply, Refusal> {
    call.query.required("new-client-secret")?;
    let user = authorised(call).await?;
    properties(call, &user).await
}

pub(super) async fn request(call: &Call<'_>) -> Result<Reply, Refusal> {
    let user = call.state.directory.local(&call.query.owner()?).await?;
    space::request(call.state, &user, &call.query.hex("req")?).await?;
    properties(call, &user).await
}

pub(super) async fn usage(call: &Call<'_>) -> Result<Reply, Refusal> {
    let user = authorised(call).await?;
    let bytes = if call.query.flag("local") {
        call.state.usage.expected(call.state, &user).await?
    } else {
        call.state.usage.confirmed(call.state, &user).await?
    };
    Ok(integer(bytes))
}

/// Returns the user whose identity key signed the time.
async fn authorised(call: &Call<'_>) -> Result<Arc<User>, Refusal> {
    let (owner, user) = asker::by_time(call).await?;
    // A key that was replaced signs for nobody any more.
    if owner != user.identity {
        return Err(Refusal::UnknownOwner(owner.cid().clone()));
    }
    Ok(user)
}

async fn properties(call: &Call<'_>, user: &User) -> Result<Reply, Refusal> {
    let quota = call.state.usage.quota(call.state, user).await?;
    let quota = i64::try_from(quota).unwrap_or(i64::MAX);
    Ok(Reply::record(&PaymentProperties::free(quota)))
}

fn integer(bytes: u64) -> Reply {
    Reply::cbor(&Value::Int(i64::try_from(bytes).unwrap_or(i64::MAX)))
}
