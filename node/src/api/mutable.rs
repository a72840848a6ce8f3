//! `/peergos/v0/mutable/`: pointers (Spec: 07).

use pki::wire::pointer_batch::{MAX_SET_POINTER_BYTES, PointerBatch, PointerWrite};

use super::{read, read_bytes};
use crate::{
    blocks::AuthorisedBlocks,
    error::Refusal,
    http::{Call, Reply, RequestBody},
    pointers::{self, NotPlanned},
    store::Batch,
};

pub(super) async fn get(call: &Call<'_>) -> Result<Reply, Refusal> {
    let owner = call.query.owner()?;
    let writer = call.query.writer()?;
    call.readable(&owner).await?;
    let signed = pointers::stored(call.state, &writer).await?;
    Ok(signed.map_or_else(Reply::empty, Reply::bytes))
}

pub(super) async fn set(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let owner = call.query.owner()?;
    let writer = call.query.writer()?;
    let signed = read_bytes(body, MAX_SET_POINTER_BYTES).await?;
    let user = call.state.directory.local(&owner).await?;
    let blocks = AuthorisedBlocks {
        state: call.state,
        user: &user,
    };
    let write = PointerWrite { signed, writer };
    let plan = match pointers::plan(call.state, &user, &write, &blocks).await {
        Ok(plan) => plan,
        Err(NotPlanned::Signature | NotPlanned::Controller) => {
            return Ok(Reply::byte_boolean(false));
        }
        Err(NotPlanned::Refused(refusal)) => return Err(refusal),
    };
    pointers::commit(call.state, &user, vec![plan], Batch::new()).await?;
    Ok(Reply::byte_boolean(true))
}

pub(super) async fn set_all(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let owner = call.query.owner()?;
    let batch = read::<PointerBatch>(body).await?;
    let user = call.state.directory.local(&owner).await?;
    let blocks = AuthorisedBlocks {
        state: call.state,
        user: &user,
    };
    let mut plans = Vec::with_capacity(batch.as_slice().len());
    for write in batch.as_slice() {
        let plan = pointers::plan(call.state, &user, write, &blocks)
            .await
            .map_err(|error| error.into_refusal(&write.writer))?;
        plans.push(plan);
    }
    if !plans.is_empty() {
        pointers::commit(call.state, &user, plans, Batch::new()).await?;
    }
    Ok(Reply::byte_boolean(true))
}
