//! The way of a file's bytes to the node: cut, sealed and stored chunk by chunk, in constant memory
//! (Spec: 21 §9.2).
//!
//! Chunks are read in order, sealed on spare processors and stored while the next ones are read. Their
//! fragments are protected by a transaction from the moment they are stored until the commit that reaches
//! them; each group of chunks has its own, so that none grows old. Nothing here waits alone: reading, storing and
//! the commit of the group before go on beside each other, so that neither the disk nor the node is idle for the
//! sake of the other.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll};

use bytes::{Bytes, BytesMut};
use champ::access::BatId;
use futures_util::{
    AsyncRead, AsyncReadExt, FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered,
};
use pki::keys::SecretKeyWithHash;
use sha2::Digest as _;

use super::{
    draft::Sender,
    nodes::{self, NewNode},
    session::Account,
};
use crate::{
    api::{BlockFormat, TransactionId},
    capability::{AbsoluteCapability, RelativeCapability},
    chunk_chain::{CHUNK_BYTES, ChunkPlace, StreamSecret},
    directory::ItemKeys,
    error::ClientError,
    file::NewChunk,
    hash_tree::{ContentHash, HashTreeBuilder},
    properties::FileProperties,
};

/// Chunks being sealed and stored at once; each costs up to three times 5 MiB of memory.
const CHUNKS_IN_FLIGHT: usize = 2;
/// Chunks per commit: what an interruption costs at most, with those in flight and those that ran ahead of a commit.
pub(crate) const GROUP_CHUNKS: u64 = 8;
/// Chunks started while a commit is under way: enough to keep both sides busy for as long as one takes, and few
/// enough that not much is lost with it.
const CHUNKS_AHEAD_OF_A_COMMIT: usize = 3;
/// Length of a full chunk.
const CHUNK: usize = 5 << 20;
const _: () = assert!(CHUNK as u64 == CHUNK_BYTES);

/// What the chunks of one file have in common.
#[derive(Clone)]
pub(crate) struct FilePlan {
    pub(crate) keys: ItemKeys,
    pub(crate) secret: StreamSecret,
    pub(crate) capability: AbsoluteCapability,
    /// As written on every chunk; the hash tree is added at the end.
    pub(crate) properties: FileProperties,
    /// The folder, or the link node in between.
    pub(crate) up: Option<RelativeCapability>,
    /// The file holds the signing key of its space.
    pub(crate) starts_space: bool,
    pub(crate) mirror: Option<BatId>,
    /// The keys are new; otherwise they are those of the file that is replaced.
    pub(crate) is_new: bool,
    /// Signs the blocks.
    pub(crate) signer: Arc<SecretKeyWithHash>,
}

impl FilePlan {
    /// Seals the chunk at `place`.
    pub(crate) fn seal(
        &self,
        index: u64,
        place: &ChunkPlace,
        properties: FileProperties,
        content: &[u8],
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<NewNode, ClientError> {
        nodes::new_chunk(self.chunk(index, place, properties), content, rng)
    }

    /// What the chunk at `place` consists of but for its content.
    pub(crate) fn chunk<'a>(
        &'a self,
        index: u64,
        place: &'a ChunkPlace,
        properties: FileProperties,
    ) -> NewChunk<'a> {
        NewChunk {
            keys: &self.keys,
            stream_secret: &self.secret,
            place,
            properties,
            parent: self.up.clone(),
            signer: (self.starts_space && index == 0).then_some(&*self.signer),
            mirror: self.mirror.as_ref(),
        }
    }
}

/// The content to be sent, cut into chunks.
///
/// Waiting for the next chunk may be given up and taken up again at any time; nothing that was read is lost.
pub(crate) struct ChunkSource<'a> {
    reader: &'a mut (dyn AsyncRead + Unpin + Send),
    /// Announced size, when known.
    size: Option<u64>,
    /// A chunk that was given back.
    before: Option<Bytes>,
    /// A chunk being read, and how much of it is there.
    filling: Option<(BytesMut, usize)>,
    /// A chunk that was read, as long as it is not known whether it is the last.
    current: Option<Bytes>,
    /// The chunk after the one handed out last, read to learn that there is one.
    ahead: Option<Bytes>,
    read: u64,
    is_finished: bool,
}

impl<'a> ChunkSource<'a> {
    pub(crate) fn new(reader: &'a mut (dyn AsyncRead + Unpin + Send), size: Option<u64>) -> Self {
        Self {
            reader,
            size,
            before: None,
            filling: None,
            current: None,
            ahead: None,
            read: 0,
            is_finished: false,
        }
    }

    /// Gives back a chunk that was not the last; it is returned next.
    pub(crate) fn put_back(&mut self, chunk: Bytes) {
        self.before = Some(chunk);
    }

    /// Returns the next chunk and whether it is the last. An empty source has one empty chunk.
    ///
    /// # Errors
    /// [`ClientError::SourceChanged`] when the source is not as long as announced.
    pub(crate) async fn next(&mut self) -> Result<Option<(Bytes, bool)>, ClientError> {
        if let Some(chunk) = self.before.take() {
            return Ok(Some((chunk, false)));
        }
        if self.is_finished {
            return Ok(None);
        }
        let length = match &self.current {
            Some(chunk) => chunk.len(),
            None => {
                let chunk = match self.ahead.take() {
                    Some(chunk) => chunk,
                    None => self.fill().await?,
                };
                self.current.insert(chunk).len()
            }
        };
        let is_last = match self.size {
            Some(size) => {
                if self.read > size || (length < CHUNK && self.read < size) {
                    return Err(changed());
                }
                if self.read == size && !self.at_end().await? {
                    return Err(changed());
                }
                self.read == size
            }
            None if length < CHUNK => true,
            None => {
                let ahead = self.fill().await?;
                let is_last = ahead.is_empty();
                self.ahead = Some(ahead);
                is_last
            }
        };
        self.is_finished = is_last;
        Ok(self.current.take().map(|chunk| (chunk, is_last)))
    }

    async fn fill(&mut self) -> Result<Bytes, ClientError> {
        let announced = self.size.map(|size| size.saturating_sub(self.read));
        let wanted = announced.and_then(|n| usize::try_from(n).ok());
        let wanted = wanted.unwrap_or(CHUNK).min(CHUNK);
        let (chunk, filled) = self
            .filling
            .get_or_insert_with(|| (BytesMut::zeroed(wanted), 0));
        while let Some(rest) = chunk.get_mut(*filled..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest).await? {
                0 => break,
                n => *filled += n,
            }
        }
        chunk.truncate(*filled);
        self.read += *filled as u64;
        let whole = self.filling.take().map(|(chunk, _)| chunk.freeze());
        Ok(whole.unwrap_or_default())
    }

    async fn at_end(&mut self) -> Result<bool, ClientError> {
        Ok(self.reader.read(&mut [0]).await? == 0)
    }
}

fn changed() -> ClientError {
    ClientError::SourceChanged {
        path: "the local file".to_owned(),
    }
}

/// A chunk whose fragments are stored.
pub(crate) struct StoredChunk {
    pub(crate) index: u64,
    pub(crate) place: ChunkPlace,
    /// Its node, to be committed; `None` when the chunk was there already.
    pub(crate) node: Option<NewNode>,
    pub(crate) hash: ContentHash,
    pub(crate) bytes: u64,
    /// Protects the fragments until the commit; the last chunk of a group closes it.
    pub(crate) transaction: Option<TransactionId>,
    pub(crate) ends_group: bool,
}

/// The chunks of one file on their way.
pub(crate) struct ChunkUpload<'a> {
    account: Arc<Account>,
    plan: Arc<FilePlan>,
    source: ChunkSource<'a>,
    /// Chunks below this are there already and only hashed.
    first_missing: u64,
    next: (u64, ChunkPlace),
    transaction: Option<TransactionId>,
    in_flight: FuturesOrdered<BoxFuture<'static, Result<StoredChunk, ClientError>>>,
    /// The commit of the group before.
    commit: Option<BoxFuture<'a, Result<(), ClientError>>>,
    /// Chunks started since that commit began.
    ahead: usize,
    hashes: HashTreeBuilder,
}

/// What happened first.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, and looked at at once"
)]
enum Step {
    Read(Result<Option<(Bytes, bool)>, ClientError>),
    Stored(Result<StoredChunk, ClientError>),
    Committed(Result<(), ClientError>),
}

impl<'a> ChunkUpload<'a> {
    pub(crate) fn new(
        account: &Arc<Account>,
        plan: Arc<FilePlan>,
        source: ChunkSource<'a>,
        first_missing: u64,
    ) -> Self {
        let place = ChunkPlace::first(&plan.capability);
        Self {
            account: Arc::clone(account),
            plan,
            source,
            first_missing,
            next: (0, place),
            transaction: None,
            in_flight: FuturesOrdered::new(),
            commit: None,
            ahead: 0,
            hashes: HashTreeBuilder::new(),
        }
    }

    /// Returns the next chunk in order, once it is stored; `None` after the last.
    ///
    /// # Errors
    /// Of reading, of storing, and of a commit that goes on beside them.
    pub(crate) async fn next(&mut self) -> Result<Option<StoredChunk>, ClientError> {
        loop {
            if self.source.is_finished && self.in_flight.is_empty() {
                return Ok(None);
            }
            // What runs ahead of a commit is lost with it.
            let may_run_ahead = self.commit.is_none() || self.ahead < CHUNKS_AHEAD_OF_A_COMMIT;
            let has_room = self.in_flight.len() < CHUNKS_IN_FLIGHT
                && !self.source.is_finished
                && may_run_ahead;
            match self.step(has_room).await {
                Step::Read(chunk) => {
                    if let Some((content, is_last)) = chunk? {
                        self.send(content, is_last).await?;
                    }
                }
                Step::Stored(stored) => {
                    let stored = stored?;
                    self.hashes.push_hash(&stored.hash);
                    return Ok(Some(stored));
                }
                Step::Committed(done) => {
                    self.commit = None;
                    done?;
                }
            }
        }
    }

    /// Lets everything go on until one thing is done.
    async fn step(&mut self, has_room: bool) -> Step {
        let mut read = pin!(self.source.next());
        let (in_flight, commit) = (&mut self.in_flight, &mut self.commit);
        poll_fn(|context| {
            if let Some(commit) = commit
                && let Poll::Ready(done) = commit.poll_unpin(context)
            {
                return Poll::Ready(Step::Committed(done));
            }
            // Before what is ready is taken: the disk is to be busy meanwhile.
            if has_room && let Poll::Ready(chunk) = read.as_mut().poll(context) {
                return Poll::Ready(Step::Read(chunk));
            }
            match in_flight.poll_next_unpin(context) {
                Poll::Ready(Some(stored)) => Poll::Ready(Step::Stored(stored)),
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Starts sealing and storing a chunk.
    async fn send(&mut self, content: Bytes, is_last: bool) -> Result<(), ClientError> {
        let (index, place) = self.next.clone();
        self.next = (index + 1, place.next(&self.plan.secret));
        let is_missing = index >= self.first_missing;
        if is_missing && (index % GROUP_CHUNKS == 0 || self.transaction.is_none()) {
            let api = self.account.api();
            self.transaction = Some(api.start_transaction(self.account.owner()).await?);
        }
        let job = Job {
            account: Arc::clone(&self.account),
            plan: Arc::clone(&self.plan),
            index,
            place,
            content,
            transaction: self.transaction.clone().filter(|_| is_missing),
            ends_group: is_last || (index + 1).is_multiple_of(GROUP_CHUNKS),
        };
        self.in_flight.push_back(job.run().boxed());
        self.ahead += 1;
        Ok(())
    }

    /// Lets a commit go on beside the chunks that follow, once the one before it is done.
    ///
    /// # Errors
    /// Of the commit before.
    pub(crate) async fn commit_beside(
        &mut self,
        commit: BoxFuture<'a, Result<(), ClientError>>,
    ) -> Result<(), ClientError> {
        self.committed().await?;
        self.commit = Some(commit);
        self.ahead = 0;
        Ok(())
    }

    /// Waits for the commit that goes on.
    ///
    /// # Errors
    /// Its own.
    pub(crate) async fn committed(&mut self) -> Result<(), ClientError> {
        match self.commit.take() {
            Some(commit) => commit.await,
            None => Ok(()),
        }
    }

    /// Returns the hashes of all chunks that were handed out.
    pub(crate) fn into_hashes(self) -> HashTreeBuilder {
        self.hashes
    }
}

/// One chunk to be sealed and stored.
struct Job {
    account: Arc<Account>,
    plan: Arc<FilePlan>,
    index: u64,
    place: ChunkPlace,
    content: Bytes,
    transaction: Option<TransactionId>,
    ends_group: bool,
}

impl Job {
    async fn run(self) -> Result<StoredChunk, ClientError> {
        let Self {
            account,
            plan,
            index,
            place,
            content,
            transaction,
            ends_group,
        } = self;
        let bytes = content.len() as u64;
        let (sealer, at) = (Arc::clone(&plan), place.clone());
        let mut rng = account.random();
        let is_missing = transaction.is_some();
        let sealed = account.compute(move || {
            let hash: ContentHash = sha2::Sha256::digest(&content).into();
            let mut properties = sealer.properties.clone();
            properties.thumbnail = properties.thumbnail.filter(|_| index == 0);
            let node = is_missing.then(|| sealer.seal(index, &at, properties, &content, &mut *rng));
            (hash, node)
        });
        let (hash, node) = sealed.await?;
        let mut node = node.transpose()?;
        if let (Some(node), Some(transaction)) = (&mut node, &transaction) {
            let sender = Sender {
                view: &account.view,
                signer: &plan.signer,
                transaction,
            };
            let fragments = std::mem::take(&mut node.fragments);
            sender.send(BlockFormat::Raw, &fragments).await?;
        }
        Ok(StoredChunk {
            index,
            place,
            node,
            hash,
            bytes,
            transaction,
            ends_group,
        })
    }
}
