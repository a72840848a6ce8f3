//! Blocks as rows, for small data sets: a few gigabytes, one server to back up and nothing else.

use std::time::{SystemTime, UNIX_EPOCH};

use champ::{Block, Cid};

use super::{PostgresStore, column, meta::bytes_of, statements};
use crate::store::{
    BlockCounts, BlockInfo, BlockStore, Deleted, Generation, MAX_DELETE_BLOCKS, MAX_LIST_BLOCKS,
    Misuse, Partition, StoreError, TransactionId, block::check_put,
};

#[async_trait::async_trait]
impl BlockStore for PostgresStore {
    async fn put_blocks(
        &self,
        partition: &Partition,
        mut blocks: Vec<Block>,
        transaction: Option<&TransactionId>,
    ) -> Result<(), StoreError> {
        check_put(&blocks)?;
        if blocks.is_empty() {
            return Ok(());
        }
        // One statement cannot change a row twice.
        blocks.sort_by(|a, b| a.cid().cmp(b.cid()));
        blocks.dedup_by(|a, b| a.cid() == b.cid());
        let cids: Vec<Vec<u8>> = blocks.iter().map(|block| block.cid().to_bytes()).collect();
        let contents: Vec<&[u8]> = blocks.iter().map(|block| block.bytes().as_ref()).collect();
        let now = millis((self.clock)());
        let transaction = transaction.map(TransactionId::as_str);
        self.write(
            statements::PUT_BLOCKS,
            &[&partition.as_str(), &transaction, &now, &cids, &contents],
        )
        .await?;
        Ok(())
    }

    async fn block(&self, partition: &Partition, cid: &Cid) -> Result<Option<Block>, StoreError> {
        let rows = self
            .read(statements::BLOCK, &[&partition.as_str(), &cid.to_bytes()])
            .await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Block::verified(cid.clone(), bytes_of(row, 0)?)
            .map(Some)
            .map_err(|_| StoreError::Damaged(cid.clone()))
    }

    async fn block_size(
        &self,
        partition: &Partition,
        cid: &Cid,
    ) -> Result<Option<u32>, StoreError> {
        let rows = self
            .read(
                statements::BLOCK_SIZE,
                &[&partition.as_str(), &cid.to_bytes()],
            )
            .await?;
        rows.first().map(|row| size(column(row, 0)?)).transpose()
    }

    async fn list_blocks(
        &self,
        partition: &Partition,
        after: Option<&Cid>,
        limit: usize,
    ) -> Result<Vec<BlockInfo>, StoreError> {
        let after = after.map(Cid::to_bytes).unwrap_or_default();
        let limit = i64::try_from(limit.min(MAX_LIST_BLOCKS)).unwrap_or(i64::MAX);
        let rows = self
            .read(
                statements::LIST_BLOCKS,
                &[&partition.as_str(), &after, &limit],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(BlockInfo {
                    cid: cid_of(column(row, 0)?)?,
                    size_bytes: size(column(row, 1)?)?,
                    generation: Generation(count(column(row, 2)?)?),
                })
            })
            .collect()
    }

    async fn delete_blocks(
        &self,
        partition: &Partition,
        candidates: Vec<(Cid, Generation)>,
    ) -> Result<Deleted, StoreError> {
        if candidates.len() > MAX_DELETE_BLOCKS {
            return Err(Misuse::TooManyRows(candidates.len()).into());
        }
        // Held until the blocks are gone.
        let Some(_begun) = self.gate.enter(partition).await else {
            return Ok(Deleted {
                kept: candidates.len() as u64,
                ..Deleted::default()
            });
        };
        let (cids, generations): (Vec<Vec<u8>>, Vec<i64>) = candidates
            .into_iter()
            .map(|(cid, generation)| {
                let generation = i64::try_from(generation.0).unwrap_or(i64::MAX);
                (cid.to_bytes(), generation)
            })
            .unzip();
        let rows = self
            .write(
                statements::DELETE_BLOCKS,
                &[&partition.as_str(), &cids, &generations],
            )
            .await?;
        let row = rows.first().ok_or_else(damaged)?;
        Ok(Deleted {
            removed: BlockCounts {
                blocks: count(column(row, 0)?)?,
                bytes: count(column(row, 1)?)?,
            },
            kept: count(column(row, 2)?)?,
        })
    }

    async fn block_counts(&self, partition: &Partition) -> Result<BlockCounts, StoreError> {
        let rows = self
            .read(statements::BLOCK_COUNTS, &[&partition.as_str()])
            .await?;
        let row = rows.first().ok_or_else(damaged)?;
        Ok(BlockCounts {
            blocks: count(column(row, 0)?)?,
            bytes: count(column(row, 1)?)?,
        })
    }

    async fn partitions(
        &self,
        after: Option<&Partition>,
        limit: usize,
    ) -> Result<Vec<Partition>, StoreError> {
        let after = after.map_or("", Partition::as_str);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.read(statements::SPACES, &[&after, &limit]).await?;
        rows.iter()
            .map(|row| Partition::new(column(row, 0)?).map_err(|_| damaged()))
            .collect()
    }

    async fn close_transaction(
        &self,
        partition: &Partition,
        transaction: &TransactionId,
    ) -> Result<(), StoreError> {
        self.write(
            statements::CLOSE_TRANSACTION,
            &[&partition.as_str(), &transaction.as_str()],
        )
        .await?;
        Ok(())
    }

    async fn expire_transactions(
        &self,
        partition: &Partition,
        before: SystemTime,
    ) -> Result<(), StoreError> {
        self.write(
            statements::EXPIRE_TRANSACTIONS,
            &[&partition.as_str(), &millis(before)],
        )
        .await?;
        Ok(())
    }

    async fn protected_blocks(&self, partition: &Partition) -> Result<Vec<Cid>, StoreError> {
        let rows = self
            .read(statements::PROTECTED_BLOCKS, &[&partition.as_str()])
            .await?;
        rows.iter().map(|row| cid_of(column(row, 0)?)).collect()
    }
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn cid_of(bytes: &[u8]) -> Result<Cid, StoreError> {
    Cid::decode(bytes).map_err(|_| damaged())
}

fn size(stored: i32) -> Result<u32, StoreError> {
    u32::try_from(stored).map_err(|_| damaged())
}

fn count(stored: i64) -> Result<u64, StoreError> {
    u64::try_from(stored).map_err(|_| damaged())
}

const fn damaged() -> StoreError {
    StoreError::DamagedRow { row: "block" }
}
