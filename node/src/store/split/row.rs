//! Keys and rows of the block index, as they are stored.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `block_index` | partition, `00`, binary CID | state (u8), generation (u64), since (u64, seconds), size (u32), ids known (u8), access ids (CBOR list) |
//! | `block_counts` | partition, `00`, shard (u8) | blocks (i64), bytes (i64): the sum over all shards counts |
//! | `block_restless` | partition, `00`, binary CID | empty: the block's row in the index is of another state than stored |
//! | `block_restless` | partition, `00` | time of the last pass over the whole index (u64, seconds) |
//! | `block_transactions` | partition, `00`, transaction, `00`, time (u64, seconds), random (8 bytes) | length of CID (u8), binary CID, and so on |
//!
//! All integers are big endian.

use bytes::{Buf as _, Bytes};
use champ::{
    Block, Cid, Codec,
    access::{BatId, split_raw},
    cbor::{Record as _, Value, decode},
};

use crate::store::{BlockCounts, Generation, Partition, StoreError, TransactionId};

/// Shards of the counts of a partition: writers that commit at once seldom meet in one.
pub(super) const COUNT_SHARDS: u8 = 64;

/// What the index says about a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Stored.
    Live,
    /// A client may write it directly, or has done so: nobody has looked yet.
    Expected,
    /// No longer stored; its bytes are being removed.
    Deleting,
    /// Removed. Such a row stays for a while, so that a put that began before notices.
    Deleted,
}

/// One row of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) state: State,
    /// Moves on with every put and with every deletion.
    pub(super) generation: u64,
    /// Seconds since 1970 since when the block is in this state.
    pub(super) since: u64,
    /// Size in bytes; as claimed while it is only expected.
    pub(super) size_bytes: u32,
    /// Ids of the tokens that open a raw block; `None`: the block itself must be asked.
    pub(super) ids: Option<Vec<BatId>>,
}

impl Row {
    /// Describes a block that has been stored.
    pub(super) fn of(block: &Block) -> Self {
        let ids = match block.cid().codec() {
            Codec::Raw => split_raw(block.bytes()).ok().map(|(ids, _)| ids),
            _ => None,
        };
        Self {
            state: State::Live,
            generation: 0,
            since: 0,
            size_bytes: u32::try_from(block.bytes().len()).unwrap_or(u32::MAX),
            ids,
        }
    }

    pub(super) const fn generation(&self) -> Generation {
        Generation(self.generation)
    }

    pub(super) fn is_live(&self) -> bool {
        self.state == State::Live
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(22);
        out.push(match self.state {
            State::Live => 1,
            State::Expected => 2,
            State::Deleting => 3,
            State::Deleted => 4,
        });
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.since.to_be_bytes());
        out.extend_from_slice(&self.size_bytes.to_be_bytes());
        out.push(u8::from(self.ids.is_some()));
        if let Some(ids) = self.ids.as_deref().filter(|ids| !ids.is_empty()) {
            Value::List(ids.iter().map(BatId::to_value).collect()).write(&mut out);
        }
        out.into()
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::DamagedRow { row: "block index" };
        let bytes = &mut bytes;
        let state = match bytes.try_get_u8().map_err(|_| damaged())? {
            1 => State::Live,
            2 => State::Expected,
            3 => State::Deleting,
            4 => State::Deleted,
            _ => return Err(damaged()),
        };
        let generation = bytes.try_get_u64().map_err(|_| damaged())?;
        let since = bytes.try_get_u64().map_err(|_| damaged())?;
        let size_bytes = bytes.try_get_u32().map_err(|_| damaged())?;
        let ids = match (bytes.try_get_u8().map_err(|_| damaged())?, bytes.is_empty()) {
            (0, true) => None,
            (1, true) => Some(Vec::new()),
            (1, false) => Some(decode_ids(bytes).ok_or_else(damaged)?),
            _ => return Err(damaged()),
        };
        Ok(Self {
            state,
            generation,
            since,
            size_bytes,
            ids,
        })
    }
}

fn decode_ids(bytes: &[u8]) -> Option<Vec<BatId>> {
    let ids = decode(bytes).ok()?.into_list("ids").ok()?;
    ids.into_iter()
        .map(|id| BatId::from_value(id).ok())
        .collect()
}

/// Key of everything in a partition.
pub(super) fn partition_prefix(partition: &Partition) -> Vec<u8> {
    let mut key = partition.as_str().as_bytes().to_vec();
    // Below every character of a name, so that partitions stand in the order of their names.
    key.push(0);
    key
}

pub(super) fn index_key(partition: &Partition, cid: &Cid) -> Bytes {
    let mut key = partition_prefix(partition);
    cid.write(&mut key);
    key.into()
}

/// Returns the CID in a key of the index.
pub(super) fn index_cid(partition: &Partition, key: &[u8]) -> Result<Cid, StoreError> {
    key.get(partition.as_str().len() + 1..)
        .and_then(|cid| Cid::decode(cid).ok())
        .ok_or(StoreError::DamagedRow { row: "block index" })
}

pub(super) fn count_key(partition: &Partition, shard: u8) -> Bytes {
    let mut key = partition_prefix(partition);
    key.push(shard);
    key.into()
}

/// Returns the partition in a key of the counts.
pub(super) fn count_partition(key: &[u8]) -> Result<Partition, StoreError> {
    let name = key.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(name)
        .ok()
        .and_then(|name| Partition::new(name).ok())
        .ok_or(StoreError::DamagedRow { row: "block count" })
}

/// One shard of the counts; differences, so it may be negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) blocks: i64,
    pub(super) bytes: i64,
}

impl Count {
    pub(super) fn of(size_bytes: u32) -> Self {
        Self {
            blocks: 1,
            bytes: i64::from(size_bytes),
        }
    }

    #[must_use]
    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            blocks: self.blocks.saturating_add(other.blocks),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    #[must_use]
    pub(super) const fn minus(self, other: Self) -> Self {
        Self {
            blocks: self.blocks.saturating_sub(other.blocks),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    pub(super) fn encode(self) -> Bytes {
        let mut out = self.blocks.to_be_bytes().to_vec();
        out.extend_from_slice(&self.bytes.to_be_bytes());
        out.into()
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = |_| StoreError::DamagedRow { row: "block count" };
        let bytes = &mut bytes;
        Ok(Self {
            blocks: bytes.try_get_i64().map_err(damaged)?,
            bytes: bytes.try_get_i64().map_err(damaged)?,
        })
    }
}

impl From<Count> for BlockCounts {
    fn from(count: Count) -> Self {
        Self {
            blocks: u64::try_from(count.blocks).unwrap_or(0),
            bytes: u64::try_from(count.bytes).unwrap_or(0),
        }
    }
}

/// Key of all rows of one transaction.
pub(super) fn transaction_prefix(partition: &Partition, transaction: &TransactionId) -> Vec<u8> {
    let mut key = partition_prefix(partition);
    key.extend_from_slice(transaction.as_str().as_bytes());
    key.push(0);
    key
}

pub(super) fn transaction_key(
    partition: &Partition,
    transaction: &TransactionId,
    seconds: u64,
    unique: [u8; 8],
) -> Bytes {
    let mut key = transaction_prefix(partition, transaction);
    key.extend_from_slice(&seconds.to_be_bytes());
    key.extend_from_slice(&unique);
    key.into()
}

/// Returns the time in a key of the transactions.
pub(super) fn transaction_time(key: &[u8]) -> Result<u64, StoreError> {
    key.len()
        .checked_sub(16)
        .and_then(|at| key.get(at..at + 8))
        .and_then(|time| time.try_into().ok())
        .map(u64::from_be_bytes)
        .ok_or(StoreError::DamagedRow { row: "transaction" })
}

pub(super) fn encode_cids<'a>(cids: impl Iterator<Item = &'a Cid>) -> Bytes {
    let mut out = Vec::new();
    for cid in cids {
        let cid = cid.to_bytes();
        // No CID of a block is longer than 36 bytes.
        out.push(u8::try_from(cid.len()).unwrap_or(0));
        out.extend_from_slice(&cid);
    }
    out.into()
}

pub(super) fn decode_cids(mut bytes: &[u8]) -> Result<Vec<Cid>, StoreError> {
    let damaged = || StoreError::DamagedRow { row: "transaction" };
    let mut cids = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (cid, rest) = rest
            .split_at_checked(usize::from(*length))
            .ok_or_else(damaged)?;
        cids.push(Cid::decode(cid).map_err(|_| damaged())?);
        bytes = rest;
    }
    Ok(cids)
}

#[cfg(test)]
mod tests {
    use champ::access::{Bat, raw_prefix};

    use super::*;

    #[test]
    fn rows_read_back_and_garbage_is_damage() {
        let ids = vec![Bat::from_secret([7; 32]).inline_id(); 2];
        let mut bytes = raw_prefix(&ids);
        bytes.extend_from_slice(b"data");
        let block = Block::raw(bytes).unwrap();
        let mut row = Row::of(&block);
        assert_eq!(row.ids.as_deref(), Some(ids.as_slice()));
        (row.generation, row.since) = (u64::MAX, 9);
        for state in [
            State::Live,
            State::Expected,
            State::Deleting,
            State::Deleted,
        ] {
            row.state = state;
            assert_eq!(Row::decode(&row.encode()).unwrap(), row);
        }
        let open = Row::of(&Block::raw(b"open".as_slice()).unwrap());
        assert_eq!(open.ids, Some(Vec::new()));
        assert_eq!(Row::decode(&open.encode()).unwrap(), open);
        let cbor = Row::of(&Block::cbor(vec![0x80]).unwrap());
        assert_eq!(cbor.ids, None);
        assert_eq!(Row::decode(&cbor.encode()).unwrap(), cbor);
        let good = row.encode();
        for cut in 0..22 {
            assert!(Row::decode(&good[..cut]).is_err(), "{cut}");
        }
        assert!(Row::decode(&[good.as_ref(), b"x"].concat()).is_err());
        assert!(Row::decode(&[&[9], &good[1..]].concat()).is_err());
    }

    #[test]
    fn keys_tell_what_they_were_made_of() {
        let partition = Partition::new("u-alice").unwrap();
        let cid = Cid::of_raw(b"x");
        let key = index_key(&partition, &cid);
        assert_eq!(index_cid(&partition, &key).unwrap(), cid);
        assert_eq!(
            count_partition(&count_key(&partition, 0)).unwrap(),
            partition
        );
        let id = TransactionId::new("t").unwrap();
        let key = transaction_key(&partition, &id, 77, [1; 8]);
        assert_eq!(transaction_time(&key).unwrap(), 77);
        assert!(transaction_time(b"short").is_err());
        let cids = [cid, Cid::of_cbor(b"y")];
        assert_eq!(decode_cids(&encode_cids(cids.iter())).unwrap(), cids);
        assert!(decode_cids(&[5, 1]).is_err());
    }
}
