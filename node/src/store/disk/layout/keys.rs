//! Keys of the rows.

use champ::Cid;

use super::damaged;
use crate::store::{Partition, StoreError, Table, TransactionId};

/// Longest binary CID of a block: version, codec, hash code, length, digest.
pub(super) const MAX_CID_BYTES: usize = 36;

/// Returns the key of a metadata row.
pub(in crate::store::disk) fn meta_key(table: Table, key: &[u8]) -> Vec<u8> {
    let name = table.name().as_bytes();
    let mut out = Vec::with_capacity(name.len() + 1 + key.len());
    out.extend_from_slice(name);
    out.push(0);
    out.extend_from_slice(key);
    out
}

/// Returns the key of a row of the engine itself.
pub(super) fn engine_key(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![b'.', 0];
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// Key of the sequence row.
pub(in crate::store::disk) fn sequence_key() -> Vec<u8> {
    engine_key(&[b"s"])
}

/// Key of the seal of the log.
pub(in crate::store::disk) fn seal_key() -> Vec<u8> {
    engine_key(&[b"l"])
}

/// Key of the number of partitions.
pub(in crate::store::disk) fn partition_count_key() -> Vec<u8> {
    engine_key(&[b"n"])
}

/// Key of a partition; without a name the prefix of all.
pub(in crate::store::disk) fn partition_key(name: &str) -> Vec<u8> {
    engine_key(&[b"p", name.as_bytes()])
}

/// Returns the name in the key of a partition.
pub(in crate::store::disk) fn partition_name(key: &[u8]) -> Result<Partition, StoreError> {
    let name = key
        .strip_prefix(b".\0p")
        .and_then(|name| std::str::from_utf8(name).ok());
    name.and_then(|name| Partition::new(name).ok())
        .ok_or(damaged("partition"))
}

/// Prefix of the transaction rows of a partition.
pub(in crate::store::disk) fn transactions_prefix(partition: PartitionNumber) -> Vec<u8> {
    engine_key(&[b"t", &partition.0.to_be_bytes()])
}

/// Prefix of the rows of one transaction.
pub(in crate::store::disk) fn transaction_prefix(
    partition: PartitionNumber,
    id: &TransactionId,
) -> Vec<u8> {
    let id = id.as_str().as_bytes();
    let len = u8::try_from(id.len()).unwrap_or(u8::MAX);
    engine_key(&[b"t", &partition.0.to_be_bytes(), &[len], id])
}

/// Key of the row of one put under a transaction.
pub(in crate::store::disk) fn transaction_key(
    partition: PartitionNumber,
    id: &TransactionId,
    sequence: u64,
) -> Vec<u8> {
    let mut key = transaction_prefix(partition, id);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

/// Prefix of the files to be removed.
pub(in crate::store::disk) fn unlink_prefix() -> Vec<u8> {
    engine_key(&[b"u"])
}

/// Prefix of the records of quarantined blocks.
pub(in crate::store::disk) fn quarantine_prefix() -> Vec<u8> {
    engine_key(&[b"q"])
}

/// Key of the record of a quarantined block.
pub(in crate::store::disk) fn quarantine_key(partition: PartitionNumber, cid: &[u8]) -> Vec<u8> {
    engine_key(&[b"q", &partition.0.to_be_bytes(), cid])
}

/// Splits the key of a metadata row into table and key; `None` for a row of the engine itself.
pub(in crate::store::disk) fn meta_table(key: &[u8]) -> Result<Option<(&str, &[u8])>, StoreError> {
    let mut parts = key.splitn(2, |byte| *byte == 0);
    let table = parts.next().and_then(|name| std::str::from_utf8(name).ok());
    match (table, parts.next()) {
        (Some("."), _) => Ok(None),
        (Some(table), Some(key)) => Ok(Some((table, key))),
        _ => Err(damaged("metadata")),
    }
}

/// Key of a block in the index.
pub(in crate::store::disk) fn index_key(partition: PartitionNumber, cid: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + cid.len());
    out.extend_from_slice(&partition.0.to_be_bytes());
    out.extend_from_slice(cid);
    out
}

/// Returns the CID in a key of the index.
pub(in crate::store::disk) fn index_cid(key: &[u8]) -> Result<Cid, StoreError> {
    let cid = key.get(4..).and_then(|bytes| Cid::decode(bytes).ok());
    cid.ok_or(damaged("index"))
}

/// The number that stands for a partition in keys and file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::store::disk) struct PartitionNumber(pub(in crate::store::disk) u32);

impl PartitionNumber {
    /// Returns the number in a key of the index.
    pub(in crate::store::disk) fn of_key(key: &[u8]) -> Result<Self, StoreError> {
        let number = key.first_chunk().ok_or(damaged("index"))?;
        Ok(Self(u32::from_be_bytes(*number)))
    }

    /// Returns the prefix of the partition's keys in the index.
    pub(in crate::store::disk) const fn prefix(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}
