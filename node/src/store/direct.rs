//! Transfers between clients and the place where a store keeps bytes (Spec: 06 §9).

use std::fmt;

use champ::{Cid, access::BatId};

use super::{Partition, StoreError, TransactionId};

/// What a client says about a raw block that it wants to write directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnouncedBlock {
    /// Name.
    pub cid: Cid,
    /// Size in bytes, at most [`champ::MAX_BLOCK_BYTES`].
    pub size_bytes: u32,
    /// Ids of the tokens in its prefix.
    pub ids: Vec<BatId>,
}

/// A request that whoever holds it can make, once and for a short time.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedRequest {
    /// Where.
    pub url: String,
    /// Headers to send.
    pub headers: Vec<(String, String)>,
}

impl fmt::Debug for SignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedRequest(..)")
    }
}

/// What a store offers to clients besides itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectOffer {
    /// Raw blocks may be written directly.
    pub writes: bool,
    /// Raw blocks may be read directly.
    pub reads: bool,
    /// Base of all requests, ends in `/`.
    pub base_url: String,
    /// Origin of all requests, for the browser's content policy (Spec: 13 §5).
    pub origin: String,
}

/// A store whose raw blocks clients may transfer directly.
#[async_trait::async_trait]
pub trait DirectAccess: Send + Sync {
    /// Returns what is offered.
    fn offer(&self) -> DirectOffer;

    /// Protects blocks under a transaction, notes what is said about them, and only then allows to write them.
    ///
    /// A block counts as stored once the node has seen it in its place; until then it is absent.
    ///
    /// # Errors
    /// Failures of the store.
    async fn authorise_writes(
        &self,
        partition: &Partition,
        blocks: Vec<AnnouncedBlock>,
        transaction: &TransactionId,
    ) -> Result<Vec<SignedRequest>, StoreError>;

    /// Returns the ids of the tokens that open each raw block, taken from the stored block; `None` for one that
    /// is absent.
    ///
    /// # Errors
    /// Failures of the store.
    async fn access_ids(
        &self,
        partition: &Partition,
        cids: &[Cid],
    ) -> Result<Vec<Option<Vec<BatId>>>, StoreError>;

    /// Allows to read blocks; whoever calls this has checked that it is.
    ///
    /// # Errors
    /// Failures of the store.
    async fn authorise_reads(
        &self,
        partition: &Partition,
        cids: &[Cid],
    ) -> Result<Vec<SignedRequest>, StoreError>;
}
