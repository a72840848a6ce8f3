//! Rows: how they are written, and that every other length is refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    damaged,
    keys::{MAX_CID_BYTES, PartitionNumber},
};
use crate::store::{BlockCounts, Generation, StoreError};

/// Row of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::disk) struct PartitionRow {
    pub(in crate::store::disk) number: PartitionNumber,
    pub(in crate::store::disk) counts: BlockCounts,
}

impl PartitionRow {
    pub(in crate::store::disk) fn encode(&self) -> [u8; 20] {
        let mut out = [0; 20];
        let (number, counts) = out.split_at_mut(4);
        let (blocks, bytes) = counts.split_at_mut(8);
        number.copy_from_slice(&self.number.0.to_be_bytes());
        blocks.copy_from_slice(&self.counts.blocks.to_be_bytes());
        bytes.copy_from_slice(&self.counts.bytes.to_be_bytes());
        out
    }

    pub(in crate::store::disk) fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut rest = Reader(row, "partition");
        let number = PartitionNumber(rest.u32()?);
        let (blocks, bytes) = (rest.u64()?, rest.u64()?);
        rest.end()?;
        let counts = BlockCounts { blocks, bytes };
        Ok(Self { number, counts })
    }
}

/// Row of the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::disk) struct SequenceRow {
    /// All numbers from here on are unused, except by leftovers of a torn write.
    pub(in crate::store::disk) reserved: u64,
    /// No run below this one holds leftovers.
    pub(in crate::store::disk) lowest_run: u64,
}

impl SequenceRow {
    pub(in crate::store::disk) fn encode(&self) -> [u8; 16] {
        let mut out = [0; 16];
        let (reserved, run) = out.split_at_mut(8);
        reserved.copy_from_slice(&self.reserved.to_be_bytes());
        run.copy_from_slice(&self.lowest_run.to_be_bytes());
        out
    }

    pub(in crate::store::disk) fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut rest = Reader(row, "sequence");
        let (reserved, lowest_run) = (rest.u64()?, rest.u64()?);
        rest.end()?;
        Ok(Self {
            reserved,
            lowest_run,
        })
    }
}

/// Reads the number of partitions.
pub(in crate::store::disk) fn decode_partition_count(row: &[u8]) -> Result<u32, StoreError> {
    let mut rest = Reader(row, "partition count");
    let count = rest.u32()?;
    rest.end()?;
    Ok(count)
}

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::disk) enum Place {
    /// In the table of small blocks, under this number.
    Inline(u64),
    /// In the file with this sequence number.
    File(u64),
}

impl Place {
    /// Returns the number of the inline block or of the file.
    pub(in crate::store::disk) const fn number(self) -> u64 {
        match self {
            Self::Inline(number) | Self::File(number) => number,
        }
    }

    fn encode(self) -> [u8; 9] {
        let (kind, location) = match self {
            Self::Inline(location) => (0, location),
            Self::File(location) => (1, location),
        };
        let mut out = [kind; 9];
        let (_, rest) = out.split_at_mut(1);
        rest.copy_from_slice(&location.to_be_bytes());
        out
    }
}

/// Record of a quarantined block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::disk) struct QuarantineRow {
    /// Time of the quarantine, seconds since 1970.
    pub(in crate::store::disk) since_seconds: u64,
    /// Where the damaged copy was.
    pub(in crate::store::disk) place: Place,
}

impl QuarantineRow {
    pub(in crate::store::disk) fn encode(&self) -> [u8; 17] {
        let mut out = [0; 17];
        let (since, place) = out.split_at_mut(8);
        since.copy_from_slice(&self.since_seconds.to_be_bytes());
        place.copy_from_slice(&self.place.encode());
        out
    }

    pub(in crate::store::disk) fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut rest = Reader(row, "quarantine");
        let since_seconds = rest.u64()?;
        let (kind, location) = (rest.u8()?, rest.u64()?);
        rest.end()?;
        let place = match kind {
            0 => Place::Inline(location),
            1 => Place::File(location),
            _ => return Err(damaged("quarantine")),
        };
        Ok(Self {
            since_seconds,
            place,
        })
    }

    /// Returns the time of the quarantine.
    pub(in crate::store::disk) fn since(&self) -> SystemTime {
        let since = Duration::from_secs(self.since_seconds);
        UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
    }
}

/// Row of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::disk) struct IndexRow {
    pub(in crate::store::disk) place: Place,
    pub(in crate::store::disk) size_bytes: u32,
    pub(in crate::store::disk) generation: Generation,
}

impl IndexRow {
    pub(in crate::store::disk) fn encode(&self) -> [u8; 21] {
        let (kind, location) = match self.place {
            Place::Inline(location) => (0, location),
            Place::File(location) => (1, location),
        };
        let mut out = [kind; 21];
        let (_, rest) = out.split_at_mut(1);
        let (size, rest) = rest.split_at_mut(4);
        let (at, generation) = rest.split_at_mut(8);
        size.copy_from_slice(&self.size_bytes.to_be_bytes());
        at.copy_from_slice(&location.to_be_bytes());
        generation.copy_from_slice(&self.generation.0.to_be_bytes());
        out
    }

    pub(in crate::store::disk) fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut rest = Reader(row, "index");
        let kind = rest.u8()?;
        let size_bytes = rest.u32()?;
        let location = rest.u64()?;
        let generation = Generation(rest.u64()?);
        rest.end()?;
        let place = match kind {
            0 => Place::Inline(location),
            1 => Place::File(location),
            _ => return Err(damaged("index")),
        };
        Ok(Self {
            place,
            size_bytes,
            generation,
        })
    }
}

/// The blocks of one put under a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::disk) struct TransactionRow {
    /// Time of the put, seconds since 1970.
    pub(in crate::store::disk) at_seconds: u64,
    /// Binary CIDs.
    pub(in crate::store::disk) cids: Vec<Vec<u8>>,
}

impl TransactionRow {
    pub(in crate::store::disk) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.cids.len() * (MAX_CID_BYTES + 1));
        out.extend_from_slice(&self.at_seconds.to_be_bytes());
        for cid in &self.cids {
            out.push(u8::try_from(cid.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(cid);
        }
        out
    }

    pub(in crate::store::disk) fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut rest = Reader(row, "transaction");
        let at_seconds = rest.u64()?;
        let mut cids = Vec::new();
        while !rest.0.is_empty() {
            let len = rest.u8()?;
            cids.push(rest.take(usize::from(len))?.to_vec());
        }
        Ok(Self { at_seconds, cids })
    }
}

/// Takes integers off the front of a row.
pub(super) struct Reader<'a>(pub(super) &'a [u8], pub(super) &'static str);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], StoreError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(damaged(self.1))?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(damaged(self.1))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, StoreError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, StoreError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, StoreError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn end(&self) -> Result<(), StoreError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(damaged(self.1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::layout::{meta_table, sequence_key};

    #[test]
    fn rows_survive_a_round_trip_and_refuse_other_lengths() {
        let partition = PartitionRow {
            number: PartitionNumber(7),
            counts: BlockCounts {
                blocks: 3,
                bytes: u64::MAX,
            },
        };
        assert_eq!(
            PartitionRow::decode(&partition.encode()).unwrap(),
            partition
        );
        let sequence = SequenceRow {
            reserved: 1 << 40,
            lowest_run: 5,
        };
        assert_eq!(SequenceRow::decode(&sequence.encode()).unwrap(), sequence);
        for place in [Place::Inline(9), Place::File(10)] {
            let row = IndexRow {
                place,
                size_bytes: 1 << 20,
                generation: Generation(11),
            };
            assert_eq!(IndexRow::decode(&row.encode()).unwrap(), row);
            assert!(IndexRow::decode(&row.encode()[1..]).is_err());
        }
        for place in [Place::Inline(9), Place::File(10)] {
            let row = QuarantineRow {
                since_seconds: 7,
                place,
            };
            assert_eq!(QuarantineRow::decode(&row.encode()).unwrap(), row);
            assert!(QuarantineRow::decode(&row.encode()[1..]).is_err());
        }
        assert!(QuarantineRow::decode(&[2; 17]).is_err());
        assert_eq!(
            meta_table(b"pointers\0k\0").unwrap(),
            Some(("pointers", &b"k\0"[..]))
        );
        assert_eq!(meta_table(&sequence_key()).unwrap(), None);
        assert!(meta_table(b"pointers").is_err());
        assert!(IndexRow::decode(&[2; 21]).is_err());
        assert!(SequenceRow::decode(&[0; 17]).is_err());
        assert!(PartitionRow::decode(&[0; 19]).is_err());
        let put = TransactionRow {
            at_seconds: 5,
            cids: vec![vec![1; 36], vec![2; 36]],
        };
        assert_eq!(TransactionRow::decode(&put.encode()).unwrap(), put);
        let torn = put.encode();
        assert!(TransactionRow::decode(&torn[..torn.len() - 1]).is_err());
    }
}
