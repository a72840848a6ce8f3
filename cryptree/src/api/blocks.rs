//! Blocks, transactions and trie lookups (Spec: 06 §4, §5).

use bytes::Bytes;
use champ::{Block, Cid, MAX_BLOCK_BYTES, access::BatWithId};
use pki::{
    keys::{Owner, Writer},
    wire::{
        Body,
        block_group::BlockGroup,
        champ_lookup::{ChampCap, ChampCaps, ChampLookupReply},
        put_reply::PutReply,
    },
};

pub use pki::wire::block_group::BlockFormat;

use super::{Api, Repeat};
use crate::{
    error::{ClientError, Misbehavior},
    transport::ApiRequest,
};

/// Longest transaction id a node may hand out.
const MAX_TRANSACTION_ID_BYTES: usize = 64;

/// An open transaction: blocks put under it survive garbage collection until it is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionId(String);

impl Api {
    /// Opens a transaction.
    pub async fn start_transaction(&self, owner: &Owner) -> Result<TransactionId, ClientError> {
        const CALL: &str = "api/v0/transaction/start";
        let request =
            ApiRequest::new(CALL, MAX_TRANSACTION_ID_BYTES).with("owner", owner.to_string());
        let body = self.call(request, Repeat::Safe).await?;
        let id = std::str::from_utf8(&body).map_err(|_| ClientError::malformed(CALL))?;
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if id.is_empty() || !id.chars().all(legal) {
            return Err(ClientError::malformed(CALL));
        }
        Ok(TransactionId(id.to_owned()))
    }

    /// Closes a transaction. Nothing depends on the outcome: the node drops old ones by itself.
    pub async fn close_transaction(&self, owner: &Owner, id: &TransactionId) {
        let request = ApiRequest::new("api/v0/transaction/close", 16)
            .with("arg", id.0.as_str())
            .with("owner", owner.to_string());
        // Failing to close costs the node some bytes for a day, and the caller nothing.
        let _ = self.call(request, Repeat::Never).await;
    }

    /// Stores blocks of one writer and one format; `signatures` are attached, over each block's SHA-256.
    ///
    /// # Errors
    /// [`Misbehavior::WrongPutAnswer`] unless the reply names exactly these blocks in this order.
    pub async fn put_blocks(
        &self,
        owner: &Owner,
        writer: &Writer,
        transaction: &TransactionId,
        format: BlockFormat,
        blocks: &[Block],
        signatures: Vec<Bytes>,
    ) -> Result<(), ClientError> {
        let group = BlockGroup::new(
            blocks.iter().map(|block| block.bytes().clone()).collect(),
            signatures,
        )
        .map_err(|_| ClientError::Internal("a block group could not be built"))?;
        let request = ApiRequest::new("api/v0/block/put/bulk", PutReply::MAX_BYTES)
            .with("format", format.as_str())
            .with("owner", owner.to_string())
            .with("transaction", transaction.0.as_str())
            .with("writer", writer.to_string())
            .with_body(group.to_body());
        let reply = self.call(request, Repeat::Safe).await?;
        let reply = PutReply::from_body(&reply).map_err(|_| Misbehavior::WrongPutAnswer)?;
        if !reply.0.iter().eq(blocks.iter().map(Block::cid)) {
            return Err(Misbehavior::WrongPutAnswer.into());
        }
        self.counters().blocks_written(blocks.len());
        Ok(())
    }

    /// Fetches one block and checks it; `None` when the node says that it has no such block.
    ///
    /// # Errors
    /// [`Misbehavior::HashMismatch`] when the bytes are not the block asked for.
    pub async fn block(
        &self,
        owner: &Owner,
        cid: &Cid,
        token: Option<&BatWithId>,
    ) -> Result<Option<Block>, ClientError> {
        let mut request = ApiRequest::new("api/v0/block/get", MAX_BLOCK_BYTES)
            .with("arg", cid.to_string())
            .with("owner", owner.to_string());
        if let Some(token) = token {
            request = request.with("bat", token.to_text());
        }
        let body = self.call(request, Repeat::Safe).await?;
        self.counters().block_read();
        if body.is_empty() {
            return Ok(None);
        }
        Block::verified(cid.clone(), body)
            .map(Some)
            .map_err(|_| Misbehavior::HashMismatch { cid: cid.clone() }.into())
    }

    /// Walks a trie on the node for several keys and returns the bytes of every block it read.
    ///
    /// The reply proves nothing: callers hash the blocks and repeat the walk. At most
    /// [`MAX_LOOKUP_KEYS`](pki::wire::champ_lookup::MAX_LOOKUP_KEYS) keys.
    pub async fn lookup(
        &self,
        owner: &Owner,
        root: &Cid,
        keys: Vec<ChampCap>,
    ) -> Result<Vec<Bytes>, ClientError> {
        const CALL: &str = "api/v0/champ/get/bulk";
        let caps = ChampCaps::new(keys).map_err(|_| ClientError::Internal("too many keys"))?;
        let request = ApiRequest::new(CALL, ChampLookupReply::MAX_BYTES)
            .with("arg", root.to_string())
            .with("owner", owner.to_string())
            .with("caps", caps.to_parameter());
        let body = self.call(request, Repeat::Safe).await?;
        let reply = ChampLookupReply::from_body(&body).map_err(|_| ClientError::malformed(CALL))?;
        Ok(reply.0)
    }
}
