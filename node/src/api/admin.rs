//! `/peergos/v0/admin/`: what anybody may ask of a node, and what its administrators may do (Spec: 09 §2).

use bytes::Bytes;
use champ::{Cid, cbor::Value};
use pki::{
    keys::Owner,
    wire::admin::{AllowedSignups, VersionInfo, is_email},
};

use crate::{
    error::Refusal,
    http::{Call, Reply},
    space,
    store::{Batch, tables},
};

/// Most addresses on the waiting list.
const MAX_WAITING: usize = 1_000_000;

pub(super) fn version() -> Reply {
    Reply::record(&VersionInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build: String::new(),
    })
}

pub(super) async fn signups(call: &Call<'_>) -> Result<Reply, Refusal> {
    Ok(Reply::record(&AllowedSignups {
        free: call.state.users.count(call.state).await? < call.state.config.max_users,
        paid: false,
    }))
}

pub(super) async fn waitlist(call: &Call<'_>) -> Result<Reply, Refusal> {
    Ok(Reply::cbor(&Value::Bool(wait(call).await?)))
}

pub(super) async fn pending(call: &Call<'_>) -> Result<Reply, Refusal> {
    let admin = admin(call)?;
    let auth = call.query.hex("auth")?;
    let requests = space::pending(call.state, &admin, &auth).await?;
    Ok(Reply::record(&requests))
}

pub(super) async fn approve(call: &Call<'_>) -> Result<Reply, Refusal> {
    let admin = admin(call)?;
    let request = call.query.hex("req")?;
    space::approve(call.state, &admin, &request).await?;
    Ok(Reply::cbor(&Value::Bool(true)))
}

/// Reads who asks, and checks that this node is meant.
fn admin(call: &Call<'_>) -> Result<Owner, Refusal> {
    let admin = call.query.required("admin")?;
    let admin = admin
        .parse::<Owner>()
        .map_err(|error| Refusal::malformed(format!("Invalid public key hash: {error}")))?;
    let instance = Cid::parse_peer_id(call.query.required("instance")?)
        .map_err(|_| Refusal::malformed("Invalid server id"))?;
    if !call.state.identity.is_own(&instance) {
        return Err(Refusal::rule("This is another server"));
    }
    Ok(admin)
}

async fn wait(call: &Call<'_>) -> Result<bool, Refusal> {
    let email = call.query.required("email")?;
    let state = call.state;
    if !state.config.waiting_list || !is_email(email) {
        return Ok(false);
    }
    let row = Bytes::copy_from_slice(email.as_bytes());
    if state.store.get(tables::WAITING_LIST, &row).await?.is_some() {
        return Ok(true);
    }
    if let Some(address) = call.origin.address()
        && !state
            .guards
            .waiting_list
            .record(&*state.store, &address, state.limit_seconds())
            .await?
    {
        return Err(Refusal::RateLimit("Too many waiting list entries"));
    }
    if is_full(call).await? {
        return Ok(false);
    }
    let batch = Batch::new().put(tables::WAITING_LIST, row, Bytes::new());
    Ok(state.store.commit(batch).await?.is_committed())
}

async fn is_full(call: &Call<'_>) -> Result<bool, Refusal> {
    let mut count = 0;
    let mut after: Option<Bytes> = None;
    loop {
        let page = call
            .state
            .store
            .scan(tables::WAITING_LIST, b"", after.as_deref(), 10_000)
            .await?;
        let Some((last, _)) = page.last() else {
            return Ok(false);
        };
        after = Some(last.clone());
        count += page.len();
        if count >= MAX_WAITING {
            return Ok(true);
        }
    }
}
