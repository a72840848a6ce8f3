//! `/api/v0/blockstore/`: transfers of raw blocks between clients and the object store (Spec: 06 §9).

use champ::{Block, Cid, Codec, MAX_BLOCK_BYTES, Multihash};
use pki::{
    block_access::{Held, Protection, Tokens},
    keys::PublicSigningKey,
    wire::{
        block_group::BlockFormat,
        direct_store::{
            BlockStoreProperties, BlockWriteAuth, PresignedRequest, PresignedRequests,
            ReadAuthRequest, WriteAuthRequest,
        },
        refusal,
    },
};

use super::read;
use crate::{
    error::Refusal,
    http::{Call, Reply, RequestBody},
    state::State,
    store::{AnnouncedBlock, DirectAccess, SignedRequest, TransactionId},
};

/// What a store that keeps its blocks to itself answers.
const UNIMPLEMENTED: Refusal = Refusal::Unimplemented(refusal::text::UNIMPLEMENTED);

pub(super) fn properties(call: &Call<'_>) -> Reply {
    let offer = call.state.store.direct().map(DirectAccess::offer);
    Reply::record(&match offer {
        Some(offer) => BlockStoreProperties {
            direct_writes: offer.writes,
            authorized_reads: offer.reads,
            authorized_url: Some(offer.base_url),
            ..BlockStoreProperties::default()
        },
        None => BlockStoreProperties::default(),
    })
}

/// `blockstore/auth`: permits to write.
pub(super) async fn write(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    // Read first, so that malformed requests get the same answers on every kind of node.
    let request = read::<WriteAuthRequest>(body).await?;
    let owner = call.query.owner()?;
    let Some(direct) = call.state.store.direct() else {
        return Err(UNIMPLEMENTED);
    };
    let transaction = TransactionId::new(call.query.required("transaction")?)
        .map_err(|error| Refusal::malformed(format!("Invalid transaction id: {error}")))?;
    let writer = call.query.writer()?;
    let is_raw = call.query.optional("raw") == Some("true");
    let user = call.state.directory.local(&owner).await?;
    let key = call.state.writing_key(&user, &writer).await?;
    let blocks = request
        .as_slice()
        .iter()
        .map(|block| announced(&key, block))
        .collect::<Result<Vec<_>, _>>()?;
    if !is_raw {
        return Err(Refusal::rule(
            "Only raw blocks can be pre-authed for writes",
        ));
    }
    call.state
        .writers
        .ensure(call.state, &user, &writer)
        .await?;
    let size = blocks
        .iter()
        .fold(0_u64, |sum, block| sum + u64::from(block.size_bytes));
    let reserved = call
        .state
        .usage
        .reserve(
            call.state,
            &user,
            &writer,
            &transaction,
            size,
            BlockFormat::Raw,
        )
        .await?;
    let requests = direct
        .authorise_writes(&user.partition, blocks, &transaction)
        .await?;
    reserved.keep();
    Ok(permits(requests))
}

/// Checks one block of a request to write.
fn announced(key: &PublicSigningKey, block: &BlockWriteAuth) -> Result<AnnouncedBlock, Refusal> {
    if usize::try_from(block.size_bytes).map_or(true, |size| size > MAX_BLOCK_BYTES) {
        return Err(Refusal::BlockTooBig);
    }
    if block.size_bytes == 0 {
        return Err(Refusal::malformed("Empty block!"));
    }
    let digest: [u8; 32] = key
        .verify_attached(&block.signature)
        .map_err(|_| Refusal::Signature)?
        .try_into()
        .map_err(|_| Refusal::BlockSignature)?;
    Ok(AnnouncedBlock {
        cid: Cid::v1(Codec::Raw, Multihash::from_sha2_256(digest)),
        size_bytes: block.size_bytes,
        ids: block.bat_ids.clone(),
    })
}

/// `blockstore/auth-reads`: permits to read.
pub(super) async fn reads(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let request = read::<ReadAuthRequest>(body).await?;
    let owner = call.query.owner()?;
    let Some(direct) = call.state.store.direct() else {
        return Err(UNIMPLEMENTED);
    };
    let user = call.state.directory.local(&owner).await?;
    let caps = request.as_slice();
    if caps
        .iter()
        .any(|cap| cap.cid.codec() != Codec::Raw || !champ::block::is_block_cid(&cap.cid))
    {
        return Err(Refusal::rule(
            "Can only auth read for raw blocks, not cbor!",
        ));
    }
    if caps.iter().any(|cap| Block::inline(&cap.cid).is_some()) {
        return Err(Refusal::malformed(
            "A block that is its own cid is not stored!",
        ));
    }
    let cids: Vec<Cid> = caps.iter().map(|cap| cap.cid.clone()).collect();
    let known = direct.access_ids(&user.partition, &cids).await?;
    for (cap, ids) in caps.iter().zip(known) {
        // Nothing is signed for what is not there: later it might be something else.
        let ids = ids.ok_or_else(|| Refusal::malformed("Block not present!"))?;
        check(call.state, ids, cap.bat.as_ref())?;
    }
    count(call.state, user.name.as_str(), cids.len())?;
    let requests = direct.authorise_reads(&user.partition, &cids).await?;
    Ok(permits(requests))
}

fn check(
    state: &State,
    ids: Vec<champ::access::BatId>,
    token: Option<&champ::access::BatWithId>,
) -> Result<(), Refusal> {
    let tokens = Tokens {
        stored: None,
        instance: state.config.instance_bat.as_ref(),
        held: Held::Locally,
    };
    Protection::new(Codec::Raw, ids)
        .check(token, &tokens)
        .map_err(|_| Refusal::Unauthorised)
}

/// Bounds how many permits to read one user's blocks are given.
fn count(state: &State, user: &str, permits: usize) -> Result<(), Refusal> {
    let now = state.clock.steady_seconds();
    for _ in 0..permits {
        if !state.guards.direct_reads.record(&user.to_owned(), now) {
            return Err(Refusal::RateLimit("User request limit exceeded"));
        }
    }
    Ok(())
}

fn permits(requests: Vec<SignedRequest>) -> Reply {
    let requests = requests
        .into_iter()
        .map(|request| PresignedRequest {
            url: request.url,
            headers: request.headers,
        })
        .collect();
    Reply::record(&PresignedRequests(requests))
}
