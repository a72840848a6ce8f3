//! `/peergos/v0/social/`: pending follow requests (Spec: 22 §3).

use champ::{
    cbor::{Value, decode_canonical},
    data_stream::Writer,
};
use pki::{boxing::PublicBoxingKey, keys::SIGNATURE_BYTES};

use super::{asker, read_bytes};
use crate::{
    error::Refusal,
    follow_requests,
    http::{Call, Reply, RequestBody},
};

/// Longest sealed request.
const MAX_REQUEST_BYTES: usize = 4096;
/// Shortest cipher text inside one.
const MIN_CIPHER_BYTES: usize = 32;

pub(super) async fn send(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let owner = call.query.owner()?;
    let request = read_bytes(body, MAX_REQUEST_BYTES).await?;
    let user = call.state.directory.local(&owner).await?;
    if !is_sealed_request(&request) {
        return Err(Refusal::malformed("Not a follow request"));
    }
    if let Some(address) = call.origin.address()
        && !call
            .state
            .guards
            .follow_requests
            .record(&*call.state.store, &address, call.state.limit_seconds())
            .await?
    {
        return Err(Refusal::RateLimit("Too many follow requests"));
    }
    let stored = follow_requests::add(call.state, &user, &owner, request).await?;
    Ok(Reply::byte_boolean(stored))
}

/// Exactly one canonical map of a cipher text and the key to answer to.
fn is_sealed_request(bytes: &[u8]) -> bool {
    let Ok(Value::Map(map)) = decode_canonical(bytes) else {
        return false;
    };
    let has_cipher = matches!(map.get("f"), Some(Value::Bytes(f)) if f.len() >= MIN_CIPHER_BYTES);
    let has_key = map.get("k").is_some_and(|key| {
        <PublicBoxingKey as champ::cbor::Record>::from_value(key.clone()).is_ok()
    });
    map.len() == 2 && has_cipher && has_key
}

pub(super) async fn list(call: &Call<'_>) -> Result<Reply, Refusal> {
    let (owner, _) = asker::by_time(call).await?;
    let values = follow_requests::list(call.state, &owner)
        .await?
        .iter()
        .filter_map(|request| decode_canonical(request).ok())
        .collect();
    let list = Value::List(values).encode();
    Ok(Reply::bytes(Writer::new().bytes(&list).finish()))
}

pub(super) async fn remove(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let owner = call.query.owner()?;
    let signed = read_bytes(body, MAX_REQUEST_BYTES + SIGNATURE_BYTES).await?;
    let user = call.state.directory.local(&owner).await?;
    let key = call.state.writing_key(&user, &owner.as_writer()).await?;
    let Ok(request) = key.verify_attached(&signed) else {
        return Ok(Reply::byte_boolean(false));
    };
    follow_requests::remove(call.state, &owner, request).await?;
    Ok(Reply::byte_boolean(true))
}
