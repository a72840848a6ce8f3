//! Writing and deleting: planning of puts, files beside the database.

use std::{collections::HashSet, sync::Arc};

use champ::{Block, Cid};
use tokio::task::JoinSet;

use super::{
    super::{
        group::{Answer, Entry, Operation, Put, block_size},
        layout::{BlockFile, PartitionNumber, run_of},
        writer::Failure,
    },
    Engine, blocking, detached, lost_task, seconds,
};
use crate::store::{Deleted, Generation, Partition, StoreError, TransactionId};

/// Block files written and flushed at the same time: concurrent flushes share the work of the file system.
pub(super) const FILES_AT_ONCE: usize = 16;

/// Attempts of a put whose existing copies vanish under it before it writes all of them anew.
const MAX_SHARED_ATTEMPTS: u32 = 3;

impl Engine {
    /// Stores blocks without repetitions.
    pub(in crate::store::disk) async fn put(
        self: &Arc<Self>,
        partition: Partition,
        mut blocks: Vec<Block>,
        transaction: Option<TransactionId>,
    ) -> Result<(), StoreError> {
        let mut seen = HashSet::new();
        blocks.retain(|block| seen.insert(block.cid().clone()));
        let bytes = blocks.iter().map(|block| block.bytes().len()).sum();
        let permit = self.admit(bytes).await?;
        let transaction = transaction.map(|id| (id, seconds((self.options.clock)())));
        let engine = self.clone();
        detached(async move {
            let _permit = permit;
            engine.put_admitted(partition, blocks, transaction).await
        })
        .await
    }

    async fn put_admitted(
        self: &Arc<Self>,
        partition: Partition,
        blocks: Vec<Block>,
        transaction: Option<(TransactionId, u64)>,
    ) -> Result<(), StoreError> {
        let has_files = blocks.iter().any(|block| !self.is_inline(block));
        let number = if has_files {
            Some(self.number(&partition).await?)
        } else {
            None
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut written = Written::default();
            let share = attempt <= MAX_SHARED_ATTEMPTS;
            let entries = self.plan(number, &blocks, share, &mut written).await;
            let entries = match entries {
                Ok(entries) => entries,
                Err(error) => {
                    self.discard(written.0).await;
                    return Err(error);
                }
            };
            let put = Put {
                partition: partition.clone(),
                entries,
                transaction: transaction.clone(),
            };
            match self.decide(Operation::Put(put)).await {
                Ok(Answer::Stored { unneeded, retired }) => {
                    self.discard(unneeded).await;
                    written
                        .0
                        .iter()
                        .for_each(|file| self.files.settle(file.sequence));
                    self.remove_retired(retired).await;
                    return Ok(());
                }
                Ok(_) => self.discard(written.0).await,
                Err(Failure::Before(error)) => {
                    self.discard(written.0).await;
                    return Err(error);
                }
                // The rows may be there: the files must stay. They keep counting as possible leftovers, and the
                // next start finds out which they are.
                Err(Failure::Undecided(error)) => return Err(error),
            }
        }
    }

    pub(super) fn is_inline(&self, block: &Block) -> bool {
        block.bytes().len() < self.options.inline_below_bytes
    }

    /// Returns the number of a partition, which is given one if it has none.
    async fn number(&self, name: &Partition) -> Result<PartitionNumber, StoreError> {
        if let Some(row) = self.partition(name)? {
            return Ok(row.number);
        }
        match self.decide(Operation::Number(name.clone())).await {
            Ok(Answer::Number(number)) => Ok(number),
            Ok(_) => Err(StoreError::Closed),
            Err(failure) => Err(failure.into_error()),
        }
    }

    /// Decides where each block goes and writes the files, several at a time.
    async fn plan(
        self: &Arc<Self>,
        partition: Option<PartitionNumber>,
        blocks: &[Block],
        share: bool,
        written: &mut Written,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::with_capacity(blocks.len());
        let mut tasks = JoinSet::new();
        let mut outcome = Ok(());
        for block in blocks {
            let Some(partition) = partition.filter(|_| !self.is_inline(block)) else {
                entries.push(Entry::Inline(block.clone()));
                continue;
            };
            let slot = self.file_slots.clone().acquire_owned().await;
            let slot = slot.map_err(|_| StoreError::Closed)?;
            let (engine, block) = (self.clone(), block.clone());
            tasks.spawn_blocking(move || {
                let _slot = slot;
                engine.place_file(partition, &block, share)
            });
        }
        while let Some(placed) = tasks.join_next().await {
            match placed.map_err(|error| lost_task(&error)) {
                Ok(Ok(entry)) => {
                    if let Entry::File { file, .. } = &entry {
                        written.0.push(file.clone());
                    }
                    entries.push(entry);
                }
                Ok(Err(error)) | Err(error) => outcome = Err(error),
            }
        }
        outcome.map(|()| entries)
    }

    /// Finds a good copy of a large block, or writes a new file.
    fn place_file(
        &self,
        partition: PartitionNumber,
        block: &Block,
        share: bool,
    ) -> Result<Entry, StoreError> {
        let cid = block.cid().clone();
        let found = self.find(partition, &cid)?;
        let place = found.as_ref().map(|found| found.row.place);
        if share && let (Some(found), Some(place)) = (found, place) {
            match self.load(&cid, found) {
                Ok(Some(bytes)) if bytes == block.bytes() => {
                    return Ok(Entry::Present { cid, place });
                }
                Ok(_) => {}
                // A copy that the disk cannot read is as good as none.
                Err(error) => {
                    tracing::warn!(%error, "writing a block anew whose copy is unreadable")
                }
            }
        }
        let sequence = self.files.open_number();
        let file = BlockFile {
            cid,
            partition,
            sequence,
        };
        if let Err(error) = self.files.write(&file, block.bytes()) {
            self.discard_file(&file);
            return Err(error);
        }
        Ok(Entry::File {
            file,
            size_bytes: block_size(block),
            replaces: place,
        })
    }

    /// Removes files that no row names.
    async fn discard(self: &Arc<Self>, files: Vec<BlockFile>) {
        if files.is_empty() {
            return;
        }
        let engine = self.clone();
        let done = blocking(move || {
            files.iter().for_each(|file| engine.discard_file(file));
            Ok(())
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, "leftover files stay until the next start");
        }
    }

    fn discard_file(&self, file: &BlockFile) {
        match self.files.remove(file) {
            Ok(()) => self.files.settle(file.sequence),
            // It goes on counting as a leftover, so the next start removes it.
            Err(error) => tracing::warn!(%error, "a leftover file stays until the next start"),
        }
    }

    /// Removes files whose rows are gone for good, and says so to the writer.
    async fn remove_retired(self: &Arc<Self>, files: Vec<BlockFile>) {
        if files.is_empty() {
            return;
        }
        let engine = self.clone();
        let done = blocking(move || {
            let mut removed = Vec::with_capacity(files.len());
            let mut runs = HashSet::new();
            for file in files {
                match engine.files.remove(&file) {
                    Ok(()) => {
                        runs.insert(run_of(file.sequence));
                        removed.push(file);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a deleted block keeps its file until the next start");
                    }
                }
            }
            runs.into_iter()
                .for_each(|run| engine.files.remove_empty_run(run));
            engine.writer.removed(removed);
            Ok(())
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, "deleted blocks keep their files until the next start");
        }
    }

    /// Deletes blocks and gives their space back.
    pub(in crate::store::disk) async fn delete(
        self: &Arc<Self>,
        partition: Partition,
        candidates: Vec<(Cid, Generation)>,
    ) -> Result<Deleted, StoreError> {
        let operation = Operation::Delete(partition, candidates);
        let permit = self.admit(operation.database_bytes()).await?;
        let engine = self.clone();
        detached(async move {
            let _permit = permit;
            match engine
                .decide(operation)
                .await
                .map_err(Failure::into_error)?
            {
                Answer::Deleted(deleted, files) => {
                    engine.remove_retired(files).await;
                    Ok(deleted)
                }
                _ => Ok(Deleted::default()),
            }
        })
        .await
    }
}

/// Files that a put has written.
#[derive(Default)]
struct Written(Vec<BlockFile>);
