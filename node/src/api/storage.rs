//! `/api/v0/`: the node, blocks, transactions, champ look-ups (Spec: 06).

use std::{future::Future, time::Duration};

use champ::{
    Block, Codec,
    access::BatWithId,
    block::is_block_cid,
    map::{ChampError, LookupError, LookupKey, lookup_blocks},
    text,
};
use pki::{
    keys::Writer,
    wire::{
        Body as _,
        block_group::{BlockFormat, BlockGroup},
        champ_lookup::{ChampCaps, ChampLookupReply},
        node_info::IdentityRecord,
        put_reply::PutReply,
    },
};

use super::{read, read_bytes, wire};
use crate::{
    blocks::{self, AuthorisedBlocks, BlockWriteCall, source_refusal},
    error::Refusal,
    http::{Call, Origin, Query, Reply, RequestBody},
    p2p::{self, PeerId},
    random::uuid,
    store::TransactionId,
};

/// Longest multipart body of the legacy upload: four blocks and their framing.
const MAX_MULTIPART_BYTES: usize = 4 * champ::MAX_BLOCK_BYTES + (64 << 10);
/// Longest key of a legacy champ look-up, in bytes.
const MAX_KEY_BYTES: usize = 1024;
/// Blocks of this size and more are left out of champ look-ups (Spec: 06 §5.3).
const MAX_LOOKUP_BLOCK_BYTES: usize = 1 << 20;

/// How long the refusal of a source with too many of them is held back.
const HELD_BACK: Duration = Duration::from_secs(1);

pub(super) fn id(call: &Call<'_>) -> Reply {
    Reply::json(format!("{{\"ID\":\"{}\"}}", call.state.identity.current()))
}

pub(super) fn ids(call: &Call<'_>) -> Reply {
    Reply::json(format!("{{\"IDS\":[{}]}}", quoted_ids(call)))
}

fn quoted_ids(call: &Call<'_>) -> String {
    let ids: Vec<_> = call
        .state
        .identity
        .all()
        .iter()
        .map(|id| format!("\"{id}\""))
        .collect();
    ids.join(",")
}

pub(super) async fn link_host(call: &Call<'_>) -> Result<Reply, Refusal> {
    call.state.directory.local(&call.query.owner()?).await?;
    Ok(Reply::text(call.site))
}

/// The signed identity record of a node: of an own id from the store, of others from the network (Spec: 11 §1, §2).
pub(super) async fn identity_record(call: &Call<'_>) -> Result<Reply, Refusal> {
    let text = call
        .query
        .argument(0)
        .ok_or(Refusal::MissingParameter("arg"))?;
    let id: PeerId = text
        .parse()
        .map_err(|_| Refusal::malformed("Invalid server id"))?;
    let state = call.state;
    let own = match state.identity.is_own(&id.to_cid()) {
        true => p2p::stored_record(state, &id).await?,
        false => None,
    };
    let record = match (own, state.peers()) {
        // One is there without a network as well: of an id that the node had before.
        (Some(own), _) => Some(own),
        (None, None) => return Err(Refusal::Unimplemented("Unimplemented!")),
        // Peers look in the network themselves.
        (None, Some(_)) if matches!(call.origin, Origin::Peer(_)) => None,
        (None, Some(_)) if state.identity.is_own(&id.to_cid()) => None,
        (None, Some(peers)) => {
            let copies = peers.identity_record(&id).await;
            p2p::newest(&id, copies, state.clock.now_seconds())
        }
    };
    let record = record.ok_or(Refusal::rule("No identity record found"))?;
    let record = IdentityRecord {
        data: record.data.to_vec(),
        signature: record.signature.to_vec(),
    };
    Ok(Reply::json(record.to_body()))
}

/// Opening a transaction stores nothing: a put under an id is what protects blocks.
pub(super) async fn start_transaction(call: &Call<'_>) -> Result<Reply, Refusal> {
    call.state.directory.local(&call.query.owner()?).await?;
    let now = call.state.clock.steady_seconds();
    if let Some(address) = call.origin.address()
        && !call.state.guards.transactions.record(&address, now)
    {
        return Err(Refusal::RateLimit("Too many transactions"));
    }
    Ok(Reply::text(uuid()))
}

pub(super) async fn close_transaction(call: &Call<'_>) -> Result<Reply, Refusal> {
    let user = call.state.directory.local(&call.query.owner()?).await?;
    let id = call
        .query
        .argument(0)
        .ok_or(Refusal::MissingParameter("arg"))?;
    // An id that nobody can have used closes nothing.
    if let Ok(transaction) = TransactionId::new(id) {
        call.state
            .store
            .close_transaction(&user.partition, &transaction)
            .await?;
        call.state
            .usage
            .transaction_closed(call.state, &user, &transaction)
            .await?;
    }
    Ok(Reply::text("1"))
}

/// The parameters that block writes share.
struct WriteParameters {
    owner: pki::keys::Owner,
    writer: Writer,
    transaction: TransactionId,
    format: BlockFormat,
}

fn write_parameters(query: &Query<'_>) -> Result<WriteParameters, Refusal> {
    let transaction = query.required("transaction")?;
    Ok(WriteParameters {
        transaction: TransactionId::new(transaction)
            .map_err(|error| Refusal::malformed(format!("Invalid transaction id: {error}")))?,
        writer: query.writer()?,
        format: BlockFormat::from_parameter(query.required("format")?),
        owner: query.owner()?,
    })
}

pub(super) async fn put_bulk(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let parameters = write_parameters(&call.query)?;
    let group = read::<BlockGroup>(body).await?;
    put(call, parameters, group).await
}

async fn put(
    call: &Call<'_>,
    parameters: WriteParameters,
    group: BlockGroup,
) -> Result<Reply, Refusal> {
    let user = call.state.directory.local(&parameters.owner).await?;
    let write = BlockWriteCall {
        writer: parameters.writer,
        transaction: parameters.transaction,
        format: parameters.format,
        group,
    };
    let cids = blocks::write(call.state, &user, write).await?;
    Ok(Reply::json(PutReply(cids).to_body()))
}

pub(super) async fn put_multipart(
    call: &Call<'_>,
    body: &mut RequestBody,
) -> Result<Reply, Refusal> {
    let parameters = write_parameters(&call.query)?;
    let group = multipart_group(call, body).await?;
    put(call, parameters, group).await
}

/// Reads a legacy upload as the query and the body of the call that replaced it.
pub(crate) async fn legacy_put(
    call: &Call<'_>,
    body: &mut RequestBody,
) -> Result<(String, BlockGroup), Refusal> {
    let parameters = write_parameters(&call.query)?;
    let query = format!(
        "format={}&owner={}&transaction={}&writer={}",
        parameters.format.as_str(),
        parameters.owner.cid(),
        parameters.transaction.as_str(),
        parameters.writer.cid(),
    );
    Ok((query, multipart_group(call, body).await?))
}

async fn multipart_group(call: &Call<'_>, body: &mut RequestBody) -> Result<BlockGroup, Refusal> {
    let signatures = call
        .query
        .required("signatures")?
        .split(',')
        .map(|signature| {
            text::from_hex(signature)
                .map(bytes::Bytes::from)
                .map_err(|_| Refusal::malformed("Invalid hex in parameter signatures"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let boundary = crate::http::multipart::boundary(call.headers)?;
    let bytes = read_bytes(body, MAX_MULTIPART_BYTES).await?;
    let parts = crate::http::multipart::parts(&bytes, &boundary)?;
    BlockGroup::new(parts, signatures).map_err(wire)
}

/// Counts a read that was refused for its token, and holds the answer back when the source has had too many of them
/// (Spec: 40 BAT-9): each takes one of the requests that the source may have at work. Who has the token never waits.
pub(super) async fn guarded(
    call: &Call<'_>,
    read: impl Future<Output = Result<Reply, Refusal>>,
) -> Result<Reply, Refusal> {
    let outcome = read.await;
    if matches!(outcome, Err(Refusal::Unauthorised))
        && let Some(address) = call.origin.address()
    {
        let refused = &call.state.guards.refused_reads;
        if !refused.record(&address, call.state.clock.steady_seconds()) {
            tokio::time::sleep(HELD_BACK).await;
        }
    }
    outcome
}

pub(super) async fn get(call: &Call<'_>) -> Result<Reply, Refusal> {
    let cid = call.query.cid_argument()?;
    let owner = call.query.owner()?;
    let token = call.query.bat()?;
    if let Some(block) = Block::inline(&cid) {
        return Ok(Reply::bytes(block.bytes().clone()).immutable(cid));
    }
    let user = call.readable(&owner).await?;
    if !is_block_cid(&cid) {
        return Err(Refusal::malformed("Not the cid of a block"));
    }
    match blocks::read(call.state, &user, &cid, token.as_ref()).await? {
        Some(block) => Ok(Reply::bytes(block.into_parts().1).immutable(cid)),
        None => Ok(Reply::empty()),
    }
}

pub(super) async fn stat(call: &Call<'_>) -> Result<Reply, Refusal> {
    let cid = call.query.cid_argument()?;
    let user = call.state.directory.local(&call.query.owner()?).await?;
    if let Some(address) = call.origin.address()
        && !call
            .state
            .guards
            .block_stats
            .record(&address, call.state.clock.steady_seconds())
    {
        return Err(Refusal::RateLimit(
            "Too many questions for the size of blocks",
        ));
    }
    let size = match cid.identity_content() {
        Some(content) => u32::try_from(content.len()).ok(),
        None if is_block_cid(&cid) => call.state.store.block_size(&user.partition, &cid).await?,
        None => None,
    };
    let reply = Reply::json(format!("{{\"Size\":{}}}", size.unwrap_or(0)));
    Ok(match size {
        Some(_) => reply.immutable(cid),
        None => reply,
    })
}

pub(super) async fn champ_lookup(call: &Call<'_>) -> Result<Reply, Refusal> {
    let root = call.query.cid_argument()?;
    let owner = call.query.owner()?;
    let keys = lookup_keys(&call.query)?;
    let user = call.readable(&owner).await?;
    let source = AuthorisedBlocks {
        state: call.state,
        user: &user,
    };
    let is_here = is_block_cid(&root) && root.codec() == Codec::DagCbor;
    if !is_here {
        return Err(Refusal::ChampRootAbsent(root));
    }
    let found = match lookup_blocks(&root, &keys, &source).await {
        Ok(found) => found,
        Err(LookupError::RootMissing(root)) => return Err(Refusal::ChampRootAbsent(root)),
        Err(LookupError::TooManyKeys { actual }) => {
            return Err(Refusal::rule(format!(
                "Too many caps in bulk champ get call! {actual}"
            )));
        }
        Err(LookupError::Champ(ChampError::Source(error))) => return Err(source_refusal(error)),
        Err(error) => {
            return Err(Refusal::malformed(format!(
                "Invalid cbor for CHAMP! {error}"
            )));
        }
    };
    // The reference answers nothing at all when nothing was asked for.
    let blocks = if keys.is_empty() { Vec::new() } else { found };
    let reply = ChampLookupReply(
        blocks
            .into_iter()
            .map(|block| block.into_parts().1)
            .filter(|bytes| bytes.len() < MAX_LOOKUP_BLOCK_BYTES)
            .collect(),
    );
    Ok(Reply::cbor_bytes(reply.to_body()).immutable(root))
}

/// Reads `caps`, or the older form with a hex key and `bat`.
fn lookup_keys(query: &Query<'_>) -> Result<Vec<LookupKey>, Refusal> {
    let Some(caps) = query.optional("caps") else {
        let key = query.argument(1).ok_or(Refusal::MissingParameter("caps"))?;
        let key =
            text::from_hex(key).map_err(|_| Refusal::malformed("Invalid hex in parameter arg"))?;
        if key.len() > MAX_KEY_BYTES {
            return Err(Refusal::malformed("Champ key too long"));
        }
        let value_token: Option<BatWithId> = query.bat()?;
        return Ok(vec![LookupKey {
            key: key.into(),
            value_token,
        }]);
    };
    // An empty list is answered like any other; the wire type is stricter for those who write one.
    if text::from_multibase(caps).is_ok_and(|bytes| bytes == [0x80]) {
        return Ok(Vec::new());
    }
    let caps = ChampCaps::from_parameter(caps).map_err(wire)?;
    Ok(caps
        .as_slice()
        .iter()
        .map(|cap| LookupKey {
            key: bytes::Bytes::copy_from_slice(&cap.map_key),
            value_token: cap.bat.clone(),
        })
        .collect())
}
