//! Copying the blocks that the backup does not have, each verified as it is read.

use std::sync::Arc;

use champ::{Block, Cid};
use futures_util::{StreamExt as _, stream};

use super::{
    super::{
        error::BackupError,
        folder::Folder,
        pack::{Known, PackWriter},
        rows::RowReader,
    },
    BackupProgress, Draft, blocking,
};
use crate::{
    check::user_of,
    store::{Hold, Partition, Store, StoreError},
};

/// Blocks read at the same time.
const READS_AT_ONCE: usize = 8;

/// Bytes of blocks gathered before they are written.
const BATCH_BYTES: u64 = 8 << 20;

/// Blocks gathered before they are written.
const BATCH_BLOCKS: usize = 256;

/// Damaged blocks that a manifest lists.
const MAX_DAMAGED: usize = 100_000;

/// What was copied.
#[derive(Default)]
pub(super) struct Copied {
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    pub(super) damaged: Vec<(String, String)>,
}

/// Copies the blocks of a draft that the backup does not have.
pub(super) async fn copy(
    store: &dyn Store,
    folder: &Arc<Folder>,
    draft: &Draft,
    known: Known,
    hold: Box<dyn Hold>,
    told: &mut (dyn FnMut(&BackupProgress) -> bool + Send),
) -> Result<Copied, BackupError> {
    let mut copier = Copier {
        store,
        writer: Some(PackWriter::new(folder.packs(), known.next)),
        known,
        copied: Copied::default(),
        batch: Vec::new(),
        batch_bytes: 0,
    };
    let mut progress = BackupProgress {
        all_blocks: draft.blocks.rows,
        all_bytes: draft.block_bytes,
        ..BackupProgress::default()
    };
    let list = draft.folder.join("blocks");
    let mut rows = RowReader::unchecked(&list, &draft.blocks)?;
    let mut at: Option<Partition> = None;
    loop {
        // A few thousand rows at a time, off the threads that serve.
        let (page, back) = blocking(move || {
            let mut page = Vec::new();
            while page.len() < 4_096 {
                match rows.block()? {
                    Some(row) => page.push(row),
                    None => break,
                }
            }
            Ok((page, rows))
        })
        .await?;
        rows = back;
        if page.is_empty() {
            break;
        }
        for (partition, cid, size) in page {
            if at.as_ref() != Some(&partition) {
                copier.flush().await?;
                if let Some(done) = at.replace(partition.clone()) {
                    hold.release(&done);
                }
            }
            progress.blocks += 1;
            progress.bytes += u64::from(size);
            copier.want(partition, cid, size);
            if copier.is_full() {
                copier.flush().await?;
                progress.copied_bytes = copier.copied.bytes;
                let is_kept = hold.is_kept();
                if !is_kept || !told(&progress) {
                    hold.end().await;
                    copier.close().await?;
                    return Err(match is_kept {
                        true => BackupError::Stopped,
                        false => BackupError::HoldLost,
                    });
                }
            }
        }
    }
    copier.flush().await?;
    let is_kept = hold.is_kept();
    hold.end().await;
    copier.close().await?;
    if !is_kept {
        return Err(BackupError::HoldLost);
    }
    progress.copied_bytes = copier.copied.bytes;
    told(&progress);
    Ok(copier.copied)
}

struct Copier<'a> {
    store: &'a dyn Store,
    writer: Option<PackWriter>,
    known: Known,
    copied: Copied,
    batch: Vec<(Partition, Cid)>,
    batch_bytes: u64,
}

impl Copier<'_> {
    fn want(&mut self, partition: Partition, cid: Cid, size: u32) {
        if !self.known.blocks.contains_key(&cid) {
            self.batch_bytes += u64::from(size);
            self.batch.push((partition, cid));
        }
    }

    fn is_full(&self) -> bool {
        self.batch.len() >= BATCH_BLOCKS || self.batch_bytes >= BATCH_BYTES
    }

    /// Reads the gathered blocks, several at a time, and writes them.
    async fn flush(&mut self) -> Result<(), BackupError> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let store = self.store;
        let reads = batch.into_iter().map(|(partition, cid)| async move {
            let block = store.block(&partition, &cid).await;
            (partition, cid, block)
        });
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
        let mut blocks: Vec<Block> = Vec::new();
        while let Some((partition, cid, block)) = reads.next().await {
            match block {
                Ok(Some(block)) => blocks.push(block),
                // Held, so it cannot have been deleted: it is as lost as a damaged one.
                Ok(None) | Err(StoreError::Damaged(_) | StoreError::Io { .. }) => {
                    if self.copied.damaged.len() < MAX_DAMAGED {
                        let lost = (user_of(&partition), cid.to_string());
                        self.copied.damaged.push(lost);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        let Some(mut writer) = self.writer.take() else {
            return Err(BackupError::Stopped);
        };
        let (writer, added) = blocking(move || {
            let mut added = Vec::with_capacity(blocks.len());
            for block in blocks {
                added.push((block.cid().clone(), writer.add(&block)?));
            }
            Ok((writer, added))
        })
        .await?;
        self.writer = Some(writer);
        for (cid, location) in added {
            // Two users may have it, in one batch.
            if self.known.blocks.insert(cid, location).is_none() {
                self.copied.blocks += 1;
                self.copied.bytes += u64::from(location.bytes);
            }
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<(), BackupError> {
        if let Some(mut writer) = self.writer.take() {
            blocking(move || writer.close()).await?;
        }
        Ok(())
    }
}
