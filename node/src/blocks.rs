//! Blocks: storing what a writer signed, reading what a token opens (Spec: 06 §4, §5, §6).

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use champ::{
    Block, BlockError, BlockSource, Cid, SourceError,
    access::{BatWithId, split_raw},
    block::is_block_cid,
    cbor::scan_block,
};
use pki::{
    block_access::{Held, Protection, Tokens},
    keys::{PublicSigningKey, SIGNATURE_BYTES, Writer},
    wire::block_group::{BlockFormat, BlockGroup},
};

use crate::{directory::User, error::Refusal, state::State, store::TransactionId};

/// Groups above this many bytes are hashed and verified off the threads that serve connections.
const INLINE_WORK_BYTES: usize = 64 << 10;
/// The same in signatures.
const INLINE_WORK_BLOCKS: usize = 8;
/// Most different blocks that one block may link to (Spec: 40 DOS-4).
const MAX_LINKS: usize = 5000;

/// The blocks of one user as somebody outside may read them: every read is authorised by its token.
#[derive(Clone, Copy)]
pub(crate) struct AuthorisedBlocks<'a> {
    pub(crate) state: &'a State,
    pub(crate) user: &'a User,
}

#[async_trait::async_trait]
impl BlockSource for AuthorisedBlocks<'_> {
    async fn block(
        &self,
        cid: &Cid,
        token: Option<&BatWithId>,
    ) -> Result<Option<Block>, SourceError> {
        let Some(block) = stored(self.state, self.user, cid).await? else {
            return Ok(None);
        };
        authorise(self.state, &block, token).map_err(|_| SourceError::Rejected {
            cid: cid.clone(),
            reason: Refusal::Unauthorised.to_string(),
        })?;
        Ok(Some(block))
    }
}

/// The blocks of one user as the node itself reads them, to count and to walk.
#[derive(Clone, Copy)]
pub(crate) struct StoredBlocks<'a> {
    pub(crate) state: &'a State,
    pub(crate) user: &'a User,
}

#[async_trait::async_trait]
impl BlockSource for StoredBlocks<'_> {
    async fn block(
        &self,
        cid: &Cid,
        _token: Option<&BatWithId>,
    ) -> Result<Option<Block>, SourceError> {
        stored(self.state, self.user, cid).await
    }
}

async fn stored(state: &State, user: &User, cid: &Cid) -> Result<Option<Block>, SourceError> {
    if !is_block_cid(cid) {
        return Ok(None);
    }
    state
        .store
        .block(&user.partition, cid)
        .await
        .map_err(|error| SourceError::Failed(Arc::new(error)))
}

/// Turns a failed internal read into an answer: a refusal by token stays one.
pub(crate) fn source_refusal(error: SourceError) -> Refusal {
    match error {
        SourceError::Rejected { .. } => Refusal::Unauthorised,
        other => Refusal::internal(other),
    }
}

/// Decides whether whoever presents `token` may read `block`.
pub(crate) fn authorise(
    state: &State,
    block: &Block,
    token: Option<&BatWithId>,
) -> Result<(), Refusal> {
    // Tokens stored for a user are hashes of their secrets, so the block itself tells whether one fits, and
    // the token store needs no look-up.
    let tokens = Tokens {
        stored: None,
        instance: state.config.instance_bat.as_ref(),
        held: Held::Locally,
    };
    Protection::of(block)
        .map_err(|_| Refusal::Unauthorised)?
        .check(token, &tokens)
        .map_err(|_| Refusal::Unauthorised)
}

/// Reads one block for `block/get`.
pub(crate) async fn read(
    state: &State,
    user: &User,
    cid: &Cid,
    token: Option<&BatWithId>,
) -> Result<Option<Block>, Refusal> {
    let Some(block) = state.store.block(&user.partition, cid).await? else {
        return Ok(None);
    };
    authorise(state, &block, token)?;
    Ok(Some(block))
}

/// Checks the signatures of a group and turns it into blocks: each is hashed exactly once.
pub(crate) async fn verified_group(
    key: PublicSigningKey,
    format: BlockFormat,
    group: BlockGroup,
) -> Result<Vec<Block>, Refusal> {
    let verify = move || {
        group
            .iter()
            .map(|(block, signature)| verified(&key, format, block, signature))
            .collect::<Result<Vec<_>, _>>()
    };
    verify_somewhere(verify).await
}

async fn verify_somewhere(
    verify: impl FnOnce() -> Result<Vec<Block>, Refusal> + Send + 'static,
) -> Result<Vec<Block>, Refusal> {
    tokio::task::spawn_blocking(verify)
        .await
        .map_err(Refusal::internal)?
}

/// Returns true when a group is so small that moving it to another thread costs more than the work.
pub(crate) fn is_small(group: &BlockGroup) -> bool {
    group.len() <= INLINE_WORK_BLOCKS && group.block_bytes() <= INLINE_WORK_BYTES
}

/// Checks one block of a write: its size, the writer's signature over its digest, and that it is well formed.
pub(crate) fn verified(
    key: &PublicSigningKey,
    format: BlockFormat,
    bytes: &Bytes,
    signature: &[u8],
) -> Result<Block, Refusal> {
    if signature.len() != SIGNATURE_BYTES + 32 {
        return Err(Refusal::BlockSignature);
    }
    let made = match format {
        BlockFormat::Raw => Block::raw(bytes.clone()),
        BlockFormat::DagCbor => Block::cbor(bytes.clone()),
    };
    let block = made.map_err(|error| match error {
        BlockError::TooLarge { .. } => Refusal::BlockTooBig,
        other => Refusal::malformed(other.to_string()),
    })?;
    let message = key
        .verify_attached(signature)
        .map_err(|_| Refusal::Signature)?;
    if Some(message)
        != block
            .cid()
            .hash()
            .sha2_256_digest()
            .map(<[u8; 32]>::as_slice)
    {
        return Err(Refusal::BlockSignature);
    }
    check_content(format, block.bytes())?;
    Ok(block)
}

/// Refuses what no reader could use: empty blocks, cbor that readers would hash differently, unreadable tokens.
fn check_content(format: BlockFormat, bytes: &Bytes) -> Result<(), Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::malformed("Empty block!"));
    }
    match format {
        BlockFormat::Raw => split_raw(bytes)
            .map(drop)
            .map_err(|_| Refusal::malformed("Invalid block access prefix!")),
        BlockFormat::DagCbor => {
            let links = scan_block(bytes)
                .map_err(|error| Refusal::malformed(format!("Invalid cbor block! {error}")))?
                .links;
            if links.len() > MAX_LINKS && links.iter().collect::<HashSet<_>>().len() > MAX_LINKS {
                return Err(Refusal::rule("Too many links in block!"));
            }
            Ok(())
        }
    }
}

/// One authorised write of blocks.
#[derive(Debug)]
pub(crate) struct BlockWriteCall {
    pub(crate) writer: Writer,
    pub(crate) transaction: TransactionId,
    pub(crate) format: BlockFormat,
    pub(crate) group: BlockGroup,
}

/// Stores a group of blocks: everything is checked before anything is stored (Spec: 06 §4.2).
pub(crate) async fn write(
    state: &Arc<State>,
    user: &Arc<User>,
    call: BlockWriteCall,
) -> Result<Vec<Cid>, Refusal> {
    let key = state.writing_key(user, &call.writer).await?;
    let size = call.group.block_bytes() as u64;
    let blocks = if is_small(&call.group) {
        call.group
            .iter()
            .map(|(block, signature)| verified(&key, call.format, block, signature))
            .collect::<Result<Vec<_>, _>>()?
    } else {
        verified_group(key, call.format, call.group).await?
    };
    state.writers.ensure(state, user, &call.writer).await?;
    let cids: Vec<Cid> = blocks.iter().map(|block| block.cid().clone()).collect();
    if blocks.is_empty() {
        return Ok(cids);
    }
    let reserved = state
        .usage
        .reserve(
            state,
            user,
            &call.writer,
            &call.transaction,
            size,
            call.format,
        )
        .await?;
    state
        .store
        .put_blocks(&user.partition, blocks, Some(&call.transaction))
        .await?;
    reserved.keep();
    Ok(cids)
}
