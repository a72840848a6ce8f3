//! One owner's data at another node, read over the calls that any client uses and believed for nothing but
//! hashes and signatures (Spec: 12 §5.3, 40 INT-15).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use champ::{Block, Cid, MAX_BLOCK_BYTES, access::BatWithId};
use pki::{
    keys::{Owner, Writer},
    pointer::MAX_SIGNED_BYTES,
    username::Username,
    wire::{Body as _, call::Call, link::LinkCounts, query::encode_query},
};
use tokio::time::Instant;

use super::MirrorError;
use crate::p2p::{PeerError, PeerId, Peers, ask};

/// Longest answer with retrieval counts of links, in bytes.
const MAX_COUNTS_BYTES: usize = LinkCounts::MAX_BYTES;

/// Keeps what is read from other nodes below a rate.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Bytes a second; 0 for no bound.
    bytes_per_second: u64,
    /// When what was read so far is paid for.
    paid: parking_lot::Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second: bytes_per_second.unwrap_or(0),
            paid: parking_lot::Mutex::default(),
        }
    }

    /// Waits as long as reading `bytes` takes at this rate.
    async fn spend(&self, bytes: usize) {
        if self.bytes_per_second == 0 {
            return;
        }
        let micros = (bytes as u64).saturating_mul(1_000_000) / self.bytes_per_second;
        let until = {
            let mut paid = self.paid.lock();
            let now = Instant::now();
            let until = paid.map_or(now, |paid| paid.max(now)) + Duration::from_micros(micros);
            *paid = Some(until);
            until
        };
        tokio::time::sleep_until(until).await;
    }
}

/// One owner's data at a peer.
#[derive(Debug)]
pub(crate) struct Remote {
    peers: Arc<dyn Peers>,
    peer: PeerId,
    owner: Owner,
    token: Option<BatWithId>,
    pace: Arc<Pace>,
    blocks: AtomicU64,
    bytes: AtomicU64,
}

impl Remote {
    pub(crate) fn new(
        peers: Arc<dyn Peers>,
        peer: PeerId,
        owner: Owner,
        token: Option<BatWithId>,
        pace: Arc<Pace>,
    ) -> Self {
        Self {
            peers,
            peer,
            owner,
            token,
            pace,
            blocks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Returns how many blocks were asked for and how many bytes of them came.
    pub(crate) fn fetched(&self) -> (u64, u64) {
        (
            self.blocks.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }

    /// Returns the signed bytes of a writer's pointer, unverified; `None` when the peer has none.
    pub(crate) async fn pointer(&self, writer: &Writer) -> Result<Option<Bytes>, PeerError> {
        let (owner, writer) = (self.owner.to_string(), writer.to_string());
        let parameters = [("owner", owner.as_str()), ("writer", writer.as_str())];
        let signed = self
            .call(
                Call::GetPointer,
                &parameters,
                Bytes::new(),
                MAX_SIGNED_BYTES,
            )
            .await?;
        Ok((!signed.is_empty()).then_some(signed))
    }

    /// Returns a block whose bytes have been compared with its name.
    ///
    /// # Errors
    /// [`MirrorError::Missing`] when the peer does not have it, [`MirrorError::WrongBlock`] when it sends another.
    pub(crate) async fn block(&self, cid: &Cid) -> Result<Block, MirrorError> {
        let (arg, owner) = (cid.to_string(), self.owner.to_string());
        let token = self.token.as_ref().map(BatWithId::to_text);
        let mut parameters = vec![("arg", arg.as_str()), ("owner", owner.as_str())];
        parameters.extend(token.as_deref().map(|token| ("bat", token)));
        self.blocks.fetch_add(1, Ordering::Relaxed);
        let bytes = self
            .call(Call::BlockGet, &parameters, Bytes::new(), MAX_BLOCK_BYTES)
            .await?;
        if bytes.is_empty() {
            return Err(MirrorError::Missing(cid.clone()));
        }
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.pace.spend(bytes.len()).await;
        Block::verified(cid.clone(), bytes).map_err(MirrorError::WrongBlock)
    }

    /// Returns the retrieval counts of secret links that changed after a moment, in seconds since 1970.
    pub(crate) async fn link_counts(
        &self,
        name: &Username,
        token: &BatWithId,
        after: i64,
    ) -> Result<LinkCounts, MirrorError> {
        let (after, token) = (after.to_string(), token.to_text());
        let parameters = [
            ("after", after.as_str()),
            ("bat", token.as_str()),
            ("owner", name.as_str()),
        ];
        let body = self
            .call(
                Call::LinkCounts,
                &parameters,
                Bytes::new(),
                MAX_COUNTS_BYTES,
            )
            .await?;
        LinkCounts::from_body(&body).map_err(|_| MirrorError::Malformed("link counts"))
    }

    async fn call(
        &self,
        call: Call,
        parameters: &[(&str, &str)],
        body: Bytes,
        max: usize,
    ) -> Result<Bytes, PeerError> {
        let target = format!(
            "/{}?{}",
            call.path(),
            encode_query(parameters.iter().copied())
        );
        ask(&*self.peers, &self.peer, &target, body, max).await
    }
}
