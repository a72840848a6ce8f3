//! A change of one writing space that is being put together, and its commit (Spec: 21 §3, §13).
//!
//! Nothing is visible until the pointer moves. A draft starts from one verified state; whatever was built on
//! the way and is not reachable from the final root is never sent. A draft that is dropped leaves at most
//! unreferenced blocks, which the node collects.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use champ::{
    Block, Cid,
    cbor::Value,
    map::{Champ, MergeError, merge},
};
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use pki::{
    keys::{SecretKeyWithHash, Writer},
    pointer::{PointerUpdate, SignedPointer},
    wire::pointer_batch::PointerWrite,
    writer_data::WriterData,
};

use super::{
    nodes::NewNode,
    space::{OwnerView, SpaceState},
};
use crate::{
    api::{BlockFormat, MAX_POINTER_ATTEMPTS, PointerAnswer, TransactionId},
    capability::MapKey,
    error::{ClientError, Misbehavior},
};

/// Bytes of blocks after which a long operation should commit what it has (Spec: 21 §3.2).
pub(crate) const FLUSH_BYTES: usize = 10 << 20;
/// Sum of block bytes in one request (Spec: 06 §4.2).
const MAX_REQUEST_BLOCK_BYTES: usize = (1 << 20) + 100;
/// Blocks in one request.
const MAX_REQUEST_CBOR_BLOCKS: usize = 1000;
const MAX_REQUEST_RAW_BLOCKS: usize = 50;
/// Put requests of one commit in flight at once.
const PUTS_IN_FLIGHT: usize = 4;
/// Nodes of one commit kept in memory.
const MAX_REMEMBERED_NODES: usize = 64;
/// How often a commit is merged with somebody else's before the whole operation is run again.
const MAX_MERGES: u32 = 5;
/// Attempts at a whole operation (Spec: 21 §13.2).
pub(crate) const MAX_RUNS: u32 = 5;

/// An uncommitted change of one writing space.
pub(crate) struct Draft {
    view: OwnerView,
    signer: Arc<SecretKeyWithHash>,
    base: SpaceState,
    data: WriterData,
    tree: Champ,
    /// Nodes whose value the change relies on without changing it.
    guarded: HashMap<MapKey, Option<Cid>>,
    staged: HashMap<MapKey, NewNode>,
    extra: Vec<Block>,
    sent: HashSet<Cid>,
    transactions: Vec<TransactionId>,
}

impl Draft {
    /// Starts on `base`; `signer` must be the key of that space.
    ///
    /// # Errors
    /// [`ClientError::ReadOnly`] when the signer is for another writer.
    pub(crate) fn new(
        view: OwnerView,
        signer: Arc<SecretKeyWithHash>,
        base: SpaceState,
    ) -> Result<Self, ClientError> {
        if signer.writer() != base.writer {
            return Err(ClientError::ReadOnly {
                path: "this folder".to_owned(),
            });
        }
        Ok(Self {
            tree: base.data.tree.clone().map_or_else(Champ::empty, Champ::at),
            data: base.data.clone(),
            view,
            signer,
            base,
            guarded: HashMap::new(),
            staged: HashMap::new(),
            extra: Vec::new(),
            sent: HashSet::new(),
            transactions: Vec::new(),
        })
    }

    /// Returns the writing space.
    pub(crate) const fn writer(&self) -> &Writer {
        &self.base.writer
    }

    /// Uses a transaction under which blocks were sent already, and closes it after the commit.
    pub(crate) fn adopt(&mut self, transaction: TransactionId) {
        self.transactions.push(transaction);
    }

    async fn linked(&self, key: &MapKey) -> Result<Option<Cid>, ClientError> {
        match self.tree.get(key.bytes(), &self.view.blocks).await? {
            None => Ok(None),
            Some(Value::Link(cid)) => Ok(Some(cid)),
            Some(_) => Err(ClientError::bad_record("tree entry")),
        }
    }

    /// Puts a node; `expected` is the node that must be there now, none for a new key.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] when something else is there.
    pub(crate) async fn put(
        &mut self,
        node: NewNode,
        expected: Option<&Cid>,
    ) -> Result<(), ClientError> {
        let key = node.key;
        let current = self.linked(&key).await?;
        if current.as_ref() != expected {
            return Err(ClientError::Conflict);
        }
        let value = Value::Link(node.block.cid().clone());
        let current = current.map(Value::Link);
        self.tree
            .put(
                key.bytes().to_vec(),
                current.as_ref(),
                value,
                &self.view.blocks,
            )
            .await?;
        self.staged.insert(key, node);
        Ok(())
    }

    /// Makes the commit depend on nodes being as given, also after a merge: names are unique over all pages
    /// of a folder, so adding one relies on the pages that are not touched.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] when they are not.
    pub(crate) async fn guard(
        &mut self,
        places: Vec<(MapKey, Option<Cid>)>,
    ) -> Result<(), ClientError> {
        let keys: Vec<MapKey> = places.iter().map(|(key, _)| *key).collect();
        self.prefetch(&keys).await?;
        for (key, expected) in places {
            if self.staged.contains_key(&key) {
                continue;
            }
            if self.linked(&key).await? != expected {
                return Err(ClientError::Conflict);
            }
            self.guarded.insert(key, expected);
        }
        Ok(())
    }

    /// Puts many new nodes at keys drawn at random.
    pub(crate) async fn put_new(&mut self, nodes: Vec<NewNode>) -> Result<(), ClientError> {
        let keys: Vec<MapKey> = nodes.iter().map(|node| node.key).collect();
        self.prefetch(&keys).await?;
        for node in nodes {
            self.put(node, None).await?;
        }
        Ok(())
    }

    /// Reads the trie nodes on the way to many keys, in parallel.
    pub(crate) async fn prefetch(&self, keys: &[MapKey]) -> Result<(), ClientError> {
        let keys: Vec<&[u8; 32]> = keys.iter().map(MapKey::bytes).collect();
        self.tree.load(&keys, &self.view.blocks).await?;
        Ok(())
    }

    /// Removes a node; an absent one is skipped.
    pub(crate) async fn remove(&mut self, key: &MapKey) -> Result<(), ClientError> {
        let Some(current) = self.linked(key).await? else {
            return Ok(());
        };
        let current = Value::Link(current);
        self.tree
            .remove(key.bytes(), Some(&current), &self.view.blocks)
            .await?;
        self.staged.remove(key);
        Ok(())
    }

    /// Removes many nodes; absent ones are skipped.
    pub(crate) async fn remove_all(&mut self, keys: &[MapKey]) -> Result<(), ClientError> {
        self.prefetch(keys).await?;
        for key in keys {
            self.remove(key).await?;
        }
        Ok(())
    }

    /// Changes the root block apart from its tree, with the new blocks it links to.
    ///
    /// Such a change is never merged with another one (Spec: 04 §8.4).
    pub(crate) fn change_root(&mut self, change: impl FnOnce(&mut WriterData), blocks: Vec<Block>) {
        change(&mut self.data);
        self.extra.extend(blocks);
    }

    /// Sends everything and moves the pointer; the new state is durable when this returns.
    ///
    /// Another device's change that touches other nodes is merged. Dropping the future midway leaves either
    /// the old or the new state.
    ///
    /// # Errors
    /// [`ClientError::Conflict`]: run the operation again on the new state. [`ClientError::QuotaReached`] and
    /// others: nothing changed. [`ClientError::Network`]: may have happened or not.
    pub(crate) async fn commit(mut self) -> Result<SpaceState, ClientError> {
        for _ in 0..=MAX_MERGES {
            let (tree, mut trie_blocks) = self.tree.finish()?;
            if self.data.tree.is_some() || !self.staged.is_empty() {
                self.data.tree = Some(tree);
            } else {
                // An identity keeps no nodes, and needs no empty tree to say so.
                trie_blocks.clear();
            }
            let root = self
                .data
                .to_block()
                .map_err(|_| ClientError::Internal("root block too large"))?;
            if *root.cid() == self.base.root {
                self.close().await;
                return Ok(self.base);
            }
            self.send_all(&trie_blocks, &root).await?;
            let proposed = self.view.memory().propose(
                self.writer(),
                Some(&self.base.pointer),
                Some(root.cid().clone()),
            );
            let update =
                proposed.map_err(|_| ClientError::Internal("pointer sequence exhausted"))?;
            match self.move_pointer(&update).await? {
                Outcome::Done(pointer) => {
                    self.remember(trie_blocks, &root).await;
                    self.close().await;
                    return Ok(SpaceState {
                        writer: self.base.writer,
                        pointer,
                        root: root.cid().clone(),
                        data: self.data,
                    });
                }
                Outcome::Overtaken(theirs) => self.rebase(*theirs).await?,
            }
        }
        Err(ClientError::Conflict)
    }

    /// Keeps what the next operation will read. The nodes of a bulk upload would push everything else out.
    async fn remember(&self, trie_blocks: Vec<Block>, root: &Block) {
        let nodes = self.staged.values().map(|node| node.block.clone());
        let nodes = nodes.take(MAX_REMEMBERED_NODES);
        for block in nodes.chain(trie_blocks).chain([root.clone()]) {
            self.view.blocks.remember(block).await;
        }
    }

    /// Puts our change of the tree on top of theirs (Spec: 04 §8.4).
    async fn rebase(&mut self, theirs: SpaceState) -> Result<(), ClientError> {
        if !self.data.differs_in_tree_alone(&self.base.data) {
            return Err(ClientError::Conflict);
        }
        let at = |data: &WriterData| data.tree.clone().map_or_else(Champ::empty, Champ::at);
        // Trie nodes of ours that were sent can be read back; they are in memory anyway.
        let merged = merge(
            &at(&self.base.data),
            &self.tree,
            &at(&theirs.data),
            &self.view.blocks,
        )
        .await;
        let merged = merged.map_err(|error| match error {
            MergeError::Champ(error) => error.into(),
            _ => ClientError::Conflict,
        })?;
        let their_tree = at(&theirs.data);
        for (key, expected) in &self.guarded {
            let found = their_tree.get(key.bytes(), &self.view.blocks).await?;
            if found != expected.clone().map(Value::Link) {
                return Err(ClientError::Conflict);
            }
        }
        self.tree = merged;
        self.data = theirs.data.clone();
        self.base = theirs;
        Ok(())
    }

    /// Moves the pointer and finds out what happened when the answer is lost (Spec: 21 §13.3).
    async fn move_pointer(&self, update: &PointerUpdate) -> Result<Outcome, ClientError> {
        let signed = SignedPointer::sign(update.clone(), self.signer.secret());
        let write = PointerWrite {
            signed: signed.into_bytes(),
            writer: self.writer().clone(),
        };
        let api = &self.view.blocks.api;
        let mut lost = None;
        for attempt in 1..=MAX_POINTER_ATTEMPTS {
            let answer = api
                .set_pointers(self.view.owner(), vec![write.clone()])
                .await?;
            match answer {
                PointerAnswer::Done => {
                    let _ = self.view.memory().observe(self.writer(), Some(update));
                    return Ok(Outcome::Done(update.clone()));
                }
                PointerAnswer::Overtaken(_) => {}
                PointerAnswer::Unknown(error) => {
                    lost = Some(error);
                    api.pause(attempt).await;
                }
            }
            // The pointer itself decides; the text of a refusal is only a hint.
            let Some(theirs) = self.view.space(self.writer()).await? else {
                return Err(ClientError::not_found("the folder tree"));
            };
            if theirs.pointer == *update {
                api.counters().commit();
                return Ok(Outcome::Done(update.clone()));
            }
            if theirs.pointer != self.base.pointer {
                return match self.happened(update, &theirs).await? {
                    Some(true) => {
                        api.counters().commit();
                        Ok(Outcome::Done(update.clone()))
                    }
                    Some(false) => Ok(Outcome::Overtaken(Box::new(theirs))),
                    // Run again, it could happen twice.
                    None => match lost {
                        Some(error) => Err(ClientError::Network(error)),
                        None => Ok(Outcome::Overtaken(Box::new(theirs))),
                    },
                };
            }
        }
        match lost {
            Some(error) => Err(ClientError::Network(error)),
            // Refused again and again although the state is the one we started from.
            None => Err(Misbehavior::LostWrite {
                writer: self.writer().cid().clone(),
            }
            .into()),
        }
    }

    /// Finds out whether `update`, whose answer was lost or was a refusal, is part of the history of a later state;
    /// `None` when that cannot be told.
    async fn happened(
        &self,
        update: &PointerUpdate,
        theirs: &SpaceState,
    ) -> Result<Option<bool>, ClientError> {
        if update.updated().is_some() && theirs.pointer.original() == update.updated() {
            return Ok(Some(true));
        }
        if theirs.pointer.sequence() <= update.sequence() {
            return Ok(Some(false));
        }
        // Nodes are sealed with fresh nonces: one of ours in their tree can only have come with our commit.
        let tree = theirs
            .data
            .tree
            .clone()
            .map_or_else(Champ::empty, Champ::at);
        for (key, node) in self.staged.iter().take(MAX_REMEMBERED_NODES) {
            let found = tree.get(key.bytes(), &self.view.blocks).await?;
            if found.is_some_and(|found| found == Value::Link(node.block.cid().clone())) {
                return Ok(Some(true));
            }
        }
        Ok(None)
    }

    async fn close(&mut self) {
        for transaction in std::mem::take(&mut self.transactions) {
            self.view
                .blocks
                .api
                .close_transaction(self.view.owner(), &transaction)
                .await;
        }
    }

    async fn send_all(&mut self, trie_blocks: &[Block], root: &Block) -> Result<(), ClientError> {
        let transaction = match self.transactions.last() {
            Some(transaction) => transaction.clone(),
            None => {
                let api = &self.view.blocks.api;
                let transaction = api.start_transaction(self.view.owner()).await?;
                self.transactions.push(transaction.clone());
                transaction
            }
        };
        let staged = self.staged.values();
        let fragments = staged.clone().flat_map(|staged| &staged.fragments);
        let nodes = staged.map(|staged| &staged.block);
        let cbor = nodes.chain(&self.extra).chain(trie_blocks).chain([root]);
        let unsent = |block: &&Block| !self.sent.contains(block.cid());
        let raw: Vec<Block> = fragments.filter(unsent).cloned().collect();
        let cbor: Vec<Block> = cbor.filter(unsent).cloned().collect();
        let sender = Sender {
            view: &self.view,
            signer: &self.signer,
            transaction: &transaction,
        };
        sender.send(BlockFormat::Raw, &raw).await?;
        sender.send(BlockFormat::DagCbor, &cbor).await?;
        let now_sent = raw.into_iter().chain(cbor).map(|block| block.cid().clone());
        self.sent.extend(now_sent);
        Ok(())
    }
}

enum Outcome {
    Done(PointerUpdate),
    Overtaken(Box<SpaceState>),
}

/// Sends blocks of one writer under one transaction.
pub(crate) struct Sender<'a> {
    pub(crate) view: &'a OwnerView,
    pub(crate) signer: &'a SecretKeyWithHash,
    pub(crate) transaction: &'a TransactionId,
}

impl Sender<'_> {
    /// Signs and stores `blocks` in as few requests as the limits allow.
    pub(crate) async fn send(
        &self,
        format: BlockFormat,
        blocks: &[Block],
    ) -> Result<(), ClientError> {
        let puts: Vec<BoxFuture<'_, Result<(), ClientError>>> = batches(format, blocks)
            .into_iter()
            .map(|batch| self.put(format, batch).boxed())
            .collect();
        stream::iter(puts)
            .buffer_unordered(PUTS_IN_FLIGHT)
            .try_collect::<()>()
            .await
    }

    async fn put(&self, format: BlockFormat, batch: &[Block]) -> Result<(), ClientError> {
        let signatures = batch.iter().map(|block| self.signature(block)).collect();
        let api = &self.view.blocks.api;
        let (owner, writer) = (self.view.owner(), self.signer.writer());
        api.put_blocks(owner, &writer, self.transaction, format, batch, signatures)
            .await
    }

    fn signature(&self, block: &Block) -> Bytes {
        let digest = block.cid().hash().digest();
        self.signer.secret().sign_attached(digest).into()
    }
}

/// Cuts blocks into requests.
fn batches(format: BlockFormat, blocks: &[Block]) -> Vec<&[Block]> {
    let max_blocks = match format {
        BlockFormat::Raw => MAX_REQUEST_RAW_BLOCKS,
        BlockFormat::DagCbor => MAX_REQUEST_CBOR_BLOCKS,
    };
    let mut batches = Vec::new();
    let mut rest = blocks;
    while !rest.is_empty() {
        let mut bytes = 0;
        let mut count = 0;
        for block in rest.iter().take(max_blocks) {
            bytes += block.bytes().len();
            if count > 0 && bytes > MAX_REQUEST_BLOCK_BYTES {
                break;
            }
            count += 1;
        }
        let (batch, after) = rest.split_at(count.max(1).min(rest.len()));
        batches.push(batch);
        rest = after;
    }
    batches
}

/// Runs of an operation: counts, and waits a random, doubling time from 100 ms in between.
pub(crate) struct Runs<'a> {
    api: &'a crate::api::Api,
    run: u32,
}

impl<'a> Runs<'a> {
    pub(crate) const fn new(api: &'a crate::api::Api) -> Self {
        Self { api, run: 1 }
    }

    /// Waits when `error` is a conflict and runs are left; otherwise gives the error back.
    pub(crate) async fn again_after(&mut self, error: ClientError) -> Result<(), ClientError> {
        if !error.is_conflict() || self.run >= MAX_RUNS {
            return Err(error);
        }
        let base = Duration::from_millis(100) * (1 << (self.run - 1));
        let pause = self.api.jittered(base);
        self.api.environment().sleep(pause).await;
        self.run += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(bytes: usize) -> Block {
        Block::raw(vec![1; bytes]).unwrap()
    }

    #[test]
    fn requests_stay_within_the_limits_and_lose_nothing() {
        let full = MAX_REQUEST_BLOCK_BYTES;
        for (format, blocks, expected) in [
            (BlockFormat::Raw, vec![], vec![]),
            (BlockFormat::Raw, vec![raw(full); 3], vec![1, 1, 1]),
            (BlockFormat::Raw, vec![raw(full / 2); 3], vec![2, 1]),
            (BlockFormat::Raw, vec![raw(100); 120], vec![50, 50, 20]),
            (BlockFormat::DagCbor, vec![raw(100); 1001], vec![1000, 1]),
        ] {
            let sizes: Vec<usize> = batches(format, &blocks).iter().map(|b| b.len()).collect();
            assert_eq!(sizes, expected);
        }
    }
}
