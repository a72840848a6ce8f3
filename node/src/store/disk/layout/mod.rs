//! Names and rows of the data folder, format 2; the tables are in `docs/storage-format.md`.
//!
//! * [`keys`][]: the keys of rows;
//! * [`rows`][]: the rows;
//! * [`file`][]: files of blocks and their names.

mod file;
mod keys;
mod rows;

use redb::TableDefinition;

use crate::store::StoreError;

pub(super) use file::BlockFile;
pub(super) use keys::{
    PartitionNumber, index_cid, index_key, meta_key, meta_table, partition_count_key,
    partition_key, partition_name, quarantine_key, quarantine_prefix, seal_key, sequence_key,
    transaction_key, transaction_prefix, transactions_prefix, unlink_prefix,
};
pub(super) use rows::{
    IndexRow, PartitionRow, Place, QuarantineRow, SequenceRow, TransactionRow,
    decode_partition_count,
};

/// Content of the `format` file.
pub(super) const FORMAT_PREFIX: &str = "kastro store ";

/// The format this module writes, and the newest it reads.
pub(super) const FORMAT: u32 = 2;

/// The oldest format it reads: the same without a log.
pub(super) const OLDEST_FORMAT: u32 = 1;

/// Metadata and rows of the engine.
pub(super) const META: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("meta");

/// Where each block is.
pub(super) const INDEX: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("index");

/// Small blocks.
pub(super) const INLINE: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("inline");

/// Files in one folder, and how many sequence numbers are reserved at a time.
pub(super) const RUN: u64 = 1024;

/// Returns the run that a sequence number belongs to.
pub(super) const fn run_of(sequence: u64) -> u64 {
    sequence / RUN
}

/// The error for a row that cannot be understood.
pub(super) const fn damaged(row: &'static str) -> StoreError {
    StoreError::DamagedRow { row }
}
