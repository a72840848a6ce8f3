//! Names and rows of the data folder, format 2; the tables are in `docs/storage-format.md`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use champ::{Cid, text};
use redb::TableDefinition;

use crate::store::{BlockCounts, Generation, Partition, StoreError, Table, TransactionId};

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

/// Longest binary CID of a block: version, codec, hash code, length, digest.
const MAX_CID_BYTES: usize = 36;

/// Returns the run that a sequence number belongs to.
pub(super) const fn run_of(sequence: u64) -> u64 {
    sequence / RUN
}

/// Returns the key of a metadata row.
pub(super) fn meta_key(table: Table, key: &[u8]) -> Vec<u8> {
    let name = table.name().as_bytes();
    let mut out = Vec::with_capacity(name.len() + 1 + key.len());
    out.extend_from_slice(name);
    out.push(0);
    out.extend_from_slice(key);
    out
}

/// Returns the key of a row of the engine itself.
fn engine_key(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![b'.', 0];
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// Key of the sequence row.
pub(super) fn sequence_key() -> Vec<u8> {
    engine_key(&[b"s"])
}

/// Key of the seal of the log.
pub(super) fn seal_key() -> Vec<u8> {
    engine_key(&[b"l"])
}

/// Key of the number of partitions.
pub(super) fn partition_count_key() -> Vec<u8> {
    engine_key(&[b"n"])
}

/// Key of a partition; without a name the prefix of all.
pub(super) fn partition_key(name: &str) -> Vec<u8> {
    engine_key(&[b"p", name.as_bytes()])
}

/// Returns the name in the key of a partition.
pub(super) fn partition_name(key: &[u8]) -> Result<Partition, StoreError> {
    let name = key
        .strip_prefix(b".\0p")
        .and_then(|name| std::str::from_utf8(name).ok());
    name.and_then(|name| Partition::new(name).ok())
        .ok_or(damaged("partition"))
}

/// Prefix of the transaction rows of a partition.
pub(super) fn transactions_prefix(partition: PartitionNumber) -> Vec<u8> {
    engine_key(&[b"t", &partition.0.to_be_bytes()])
}

/// Prefix of the rows of one transaction.
pub(super) fn transaction_prefix(partition: PartitionNumber, id: &TransactionId) -> Vec<u8> {
    let id = id.as_str().as_bytes();
    let len = u8::try_from(id.len()).unwrap_or(u8::MAX);
    engine_key(&[b"t", &partition.0.to_be_bytes(), &[len], id])
}

/// Key of the row of one put under a transaction.
pub(super) fn transaction_key(
    partition: PartitionNumber,
    id: &TransactionId,
    sequence: u64,
) -> Vec<u8> {
    let mut key = transaction_prefix(partition, id);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

/// Prefix of the files to be removed.
pub(super) fn unlink_prefix() -> Vec<u8> {
    engine_key(&[b"u"])
}

/// Prefix of the records of quarantined blocks.
pub(super) fn quarantine_prefix() -> Vec<u8> {
    engine_key(&[b"q"])
}

/// Key of the record of a quarantined block.
pub(super) fn quarantine_key(partition: PartitionNumber, cid: &[u8]) -> Vec<u8> {
    engine_key(&[b"q", &partition.0.to_be_bytes(), cid])
}

/// Splits the key of a metadata row into table and key; `None` for a row of the engine itself.
pub(super) fn meta_table(key: &[u8]) -> Result<Option<(&str, &[u8])>, StoreError> {
    let mut parts = key.splitn(2, |byte| *byte == 0);
    let table = parts.next().and_then(|name| std::str::from_utf8(name).ok());
    match (table, parts.next()) {
        (Some("."), _) => Ok(None),
        (Some(table), Some(key)) => Ok(Some((table, key))),
        _ => Err(damaged("metadata")),
    }
}

/// Key of a block in the index.
pub(super) fn index_key(partition: PartitionNumber, cid: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + cid.len());
    out.extend_from_slice(&partition.0.to_be_bytes());
    out.extend_from_slice(cid);
    out
}

/// Returns the CID in a key of the index.
pub(super) fn index_cid(key: &[u8]) -> Result<Cid, StoreError> {
    let cid = key.get(4..).and_then(|bytes| Cid::decode(bytes).ok());
    cid.ok_or(damaged("index"))
}

/// The number that stands for a partition in keys and file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartitionNumber(pub(super) u32);

impl PartitionNumber {
    /// Returns the number in a key of the index.
    pub(super) fn of_key(key: &[u8]) -> Result<Self, StoreError> {
        let number = key.first_chunk().ok_or(damaged("index"))?;
        Ok(Self(u32::from_be_bytes(*number)))
    }

    /// Returns the prefix of the partition's keys in the index.
    pub(super) const fn prefix(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}

/// Row of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartitionRow {
    pub(super) number: PartitionNumber,
    pub(super) counts: BlockCounts,
}

impl PartitionRow {
    pub(super) fn encode(&self) -> [u8; 20] {
        let mut out = [0; 20];
        let (number, counts) = out.split_at_mut(4);
        let (blocks, bytes) = counts.split_at_mut(8);
        number.copy_from_slice(&self.number.0.to_be_bytes());
        blocks.copy_from_slice(&self.counts.blocks.to_be_bytes());
        bytes.copy_from_slice(&self.counts.bytes.to_be_bytes());
        out
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, StoreError> {
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
pub(super) struct SequenceRow {
    /// All numbers from here on are unused, except by leftovers of a torn write.
    pub(super) reserved: u64,
    /// No run below this one holds leftovers.
    pub(super) lowest_run: u64,
}

impl SequenceRow {
    pub(super) fn encode(&self) -> [u8; 16] {
        let mut out = [0; 16];
        let (reserved, run) = out.split_at_mut(8);
        reserved.copy_from_slice(&self.reserved.to_be_bytes());
        run.copy_from_slice(&self.lowest_run.to_be_bytes());
        out
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, StoreError> {
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
pub(super) fn decode_partition_count(row: &[u8]) -> Result<u32, StoreError> {
    let mut rest = Reader(row, "partition count");
    let count = rest.u32()?;
    rest.end()?;
    Ok(count)
}

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the table of small blocks, under this number.
    Inline(u64),
    /// In the file with this sequence number.
    File(u64),
}

impl Place {
    /// Returns the number of the inline block or of the file.
    pub(super) const fn number(self) -> u64 {
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
pub(super) struct QuarantineRow {
    /// Time of the quarantine, seconds since 1970.
    pub(super) since_seconds: u64,
    /// Where the damaged copy was.
    pub(super) place: Place,
}

impl QuarantineRow {
    pub(super) fn encode(&self) -> [u8; 17] {
        let mut out = [0; 17];
        let (since, place) = out.split_at_mut(8);
        since.copy_from_slice(&self.since_seconds.to_be_bytes());
        place.copy_from_slice(&self.place.encode());
        out
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, StoreError> {
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
    pub(super) fn since(&self) -> SystemTime {
        let since = Duration::from_secs(self.since_seconds);
        UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
    }
}

/// Row of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexRow {
    pub(super) place: Place,
    pub(super) size_bytes: u32,
    pub(super) generation: Generation,
}

impl IndexRow {
    pub(super) fn encode(&self) -> [u8; 21] {
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

    pub(super) fn decode(row: &[u8]) -> Result<Self, StoreError> {
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
pub(super) struct TransactionRow {
    /// Time of the put, seconds since 1970.
    pub(super) at_seconds: u64,
    /// Binary CIDs.
    pub(super) cids: Vec<Vec<u8>>,
}

impl TransactionRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.cids.len() * (MAX_CID_BYTES + 1));
        out.extend_from_slice(&self.at_seconds.to_be_bytes());
        for cid in &self.cids {
            out.push(u8::try_from(cid.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(cid);
        }
        out
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, StoreError> {
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

/// The name of one block file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockFile {
    pub(super) cid: Cid,
    pub(super) partition: PartitionNumber,
    pub(super) sequence: u64,
}

impl BlockFile {
    /// Returns the name of the folder of a run.
    pub(super) fn folder(run: u64) -> String {
        format!("{run:08x}")
    }

    /// Parses the name of the folder of a run.
    pub(super) fn parse_folder(name: &str) -> Option<u64> {
        (name.len() >= 8)
            .then(|| u64::from_str_radix(name, 16).ok())
            .flatten()
    }

    /// Returns the file name.
    pub(super) fn name(&self) -> String {
        format!(
            "{}-{:08x}-{:016x}",
            self.cid.storage_key(),
            self.partition.0,
            self.sequence
        )
    }

    /// Parses a file name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let cid = text::from_base32_upper(parts.next()?).ok()?;
        let cid = Cid::decode(&cid).ok()?;
        let partition = PartitionNumber(u32::from_str_radix(parts.next()?, 16).ok()?);
        let sequence = u64::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then_some(Self {
            cid,
            partition,
            sequence,
        })
    }

    /// Returns the key of the row that says that this file is to be removed.
    pub(super) fn unlink_key(&self) -> Vec<u8> {
        let sequence = self.sequence.to_be_bytes();
        let partition = self.partition.0.to_be_bytes();
        engine_key(&[b"u", &sequence, &partition, &self.cid.to_bytes()])
    }

    /// Reads such a key.
    pub(super) fn from_unlink_key(key: &[u8]) -> Result<Self, StoreError> {
        let mut rest = Reader(key, "removal");
        rest.take(3)?;
        let sequence = rest.u64()?;
        let partition = PartitionNumber(rest.u32()?);
        let cid = Cid::decode(rest.0).map_err(|_| damaged("removal"))?;
        Ok(Self {
            cid,
            partition,
            sequence,
        })
    }
}

/// The error for a row that cannot be understood.
pub(super) const fn damaged(row: &'static str) -> StoreError {
    StoreError::DamagedRow { row }
}

/// Takes integers off the front of a row.
struct Reader<'a>(&'a [u8], &'static str);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], StoreError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(damaged(self.1))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(damaged(self.1))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, StoreError> {
        self.array().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, StoreError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, StoreError> {
        self.array().map(u64::from_be_bytes)
    }

    fn end(&self) -> Result<(), StoreError> {
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

    #[test]
    fn file_names_and_removal_keys_survive_a_round_trip() {
        let file = BlockFile {
            cid: Cid::of_raw(b"x"),
            partition: PartitionNumber(0x1234),
            sequence: 0x5_6789,
        };
        assert_eq!(BlockFile::parse(&file.name()).unwrap(), file);
        assert_eq!(
            BlockFile::from_unlink_key(&file.unlink_key()).unwrap(),
            file
        );
        assert!(file.name().starts_with("AFK"));
        assert_eq!(BlockFile::parse(&format!("{}-0", file.name())), None);
        assert_eq!(BlockFile::parse("lost+found"), None);
        assert_eq!(
            BlockFile::parse_folder(&BlockFile::folder(0x56)),
            Some(0x56)
        );
        assert_eq!(BlockFile::parse_folder("x"), None);
    }
}
