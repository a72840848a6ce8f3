//! The log of recent commits: what makes one commit durable with one flush, and a start after any crash quick.
//!
//! A commit of redb that can be recovered quickly costs two flushes and a copy of its allocator state; one that costs
//! a single flush makes the next start verify the whole file. So most commits are not flushed in the database at all:
//! their row changes are appended here and flushed, and now and then one commit of the quick kind makes all of them
//! durable in the database (a *settling* commit), after which the log is written from its beginning again.
//! Opening the database after a crash finds the last settled state and applies the log.
//!
//! Which records count is told by the *seal* of the log: 16 random bytes in a row of the database, new with every
//! settling commit. The checksum of a record covers the seal, so neither older records nor bytes that a stranger
//! managed to get into the file are ever applied. The layout is in `docs/storage-format.md`.
//!
//! Spec: 40 §11.2.

use redb::{StorageBackend, WriteTransaction};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    fault::{database_fault, io_fault},
    layout::{INDEX, INLINE, META, damaged},
};
use crate::store::StoreError;

/// Records begin at multiples of this, so that writing one never touches the last.
const ALIGN: usize = 4096;
/// Sequence number (u64), length of the payload (u32), checksum.
const HEADER_BYTES: usize = 8 + 4 + CHECKSUM_BYTES;
const CHECKSUM_BYTES: usize = 20;
/// Length of the log after which the database is settled.
const MAX_LOG_BYTES: u64 = 8 << 20;
/// Changed rows after which it is settled: each has to be applied at start, in a few microseconds.
const MAX_LOG_ROWS: usize = 4096;
/// A single commit that changes more than this is settled at once: writing it twice costs more than a flush.
pub(super) const MAX_RECORD_BYTES: usize = 1 << 20;

/// Tells the records of one settled state from all others.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seal(pub(super) [u8; 16]);

impl Seal {
    /// Draws a new one.
    pub(super) fn random() -> Self {
        Self(crate::random::random())
    }
}

/// Which table a change concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Target {
    Meta = 0,
    Index = 1,
    Inline = 2,
}

/// The row changes of one commit, in the order they were made.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// For each change: table (u8), 1 for a value or 0 for a removal (u8), length of the key (u32), key, and for a
    /// value: length (u32), value.
    bytes: Vec<u8>,
    rows: usize,
    /// More than a record may hold: the bytes are not kept.
    is_large: bool,
}

impl Changes {
    /// Notes a row that was written.
    pub(super) fn set(&mut self, target: Target, key: &[u8], value: &[u8]) {
        self.note(target, key, Some(value));
    }

    /// Notes a row that was removed.
    pub(super) fn unset(&mut self, target: Target, key: &[u8]) {
        self.note(target, key, None);
    }

    fn note(&mut self, target: Target, key: &[u8], value: Option<&[u8]>) {
        if self.is_large {
            return;
        }
        let len = self.bytes.len() + 10 + key.len() + value.map_or(0, <[u8]>::len);
        if len > MAX_RECORD_BYTES {
            self.is_large = true;
            self.bytes = Vec::new();
            return;
        }
        self.rows += 1;
        self.bytes.extend([target as u8, u8::from(value.is_some())]);
        push(&mut self.bytes, key);
        if let Some(value) = value {
            push(&mut self.bytes, value);
        }
    }
}

fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    // Bounded by the length of a record.
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend(len.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// The open log.
pub(super) struct Log {
    file: Box<dyn StorageBackend>,
    seal: Seal,
    /// Number of the next record.
    sequence: u64,
    /// Where it goes.
    end: u64,
    /// Changed rows of all records so far.
    rows: usize,
}

impl Log {
    /// Reads the records under this seal and hands the changes of each to `apply`, in order.
    pub(super) fn open(
        file: Box<dyn StorageBackend>,
        seal: Seal,
        mut apply: impl FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let mut log = Self {
            file,
            seal,
            sequence: 0,
            end: 0,
            rows: 0,
        };
        let len = log.file.len().map_err(|error| fault("measure", error))?;
        while let Some(payload) = log.record_at(log.end, len, Some(log.sequence))? {
            apply(&payload)?;
            log.rows += changes(&payload).count();
            log.sequence += 1;
            log.end += aligned(payload.len());
        }
        log.refuse_a_gap(len)?;
        Ok(log)
    }

    /// The last record may be torn, and none comes behind it. If one does, bytes in the middle were damaged, and
    /// going on would lose what was acknowledged.
    fn refuse_a_gap(&self, len: u64) -> Result<(), StoreError> {
        let mut at = self.end + ALIGN as u64;
        while at < len {
            if self.record_at(at, len, None)?.is_some() {
                return Err(StoreError::DamagedRow { row: "log" });
            }
            at += ALIGN as u64;
        }
        Ok(())
    }

    /// Returns the payload of the record at this offset if there is a whole one under our seal, with this number.
    fn record_at(
        &self,
        at: u64,
        len: u64,
        sequence: Option<u64>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        if at + HEADER_BYTES as u64 > len {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES];
        self.read(at, &mut header)?;
        let (fields, checksum) = header.split_at(12);
        let (number, payload_len) = fields.split_at(8);
        let (Ok(number), Ok(payload_len)) = (number.try_into(), payload_len.try_into()) else {
            return Ok(None);
        };
        let number = u64::from_be_bytes(number);
        let Ok(payload_len) = usize::try_from(u32::from_be_bytes(payload_len)) else {
            return Ok(None);
        };
        let start = at + HEADER_BYTES as u64;
        if payload_len == 0
            || payload_len > MAX_RECORD_BYTES
            || start + payload_len as u64 > len
            || sequence.is_some_and(|sequence| sequence != number)
        {
            return Ok(None);
        }
        let mut payload = vec![0; payload_len];
        self.read(start, &mut payload)?;
        let sound: bool = self.checksum(number, &payload).ct_eq(checksum).into();
        Ok(sound.then_some(payload))
    }

    fn read(&self, at: u64, out: &mut [u8]) -> Result<(), StoreError> {
        self.file
            .read(at, out)
            .map_err(|error| fault("read", error))
    }

    fn checksum(&self, sequence: u64, payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let mut hash = Sha256::new();
        hash.update(self.seal.0);
        hash.update(sequence.to_be_bytes());
        hash.update(payload);
        let mut out = [0; CHECKSUM_BYTES];
        for (out, byte) in out.iter_mut().zip(hash.finalize()) {
            *out = byte;
        }
        out
    }

    /// Returns true when these changes can be appended; otherwise they have to be settled.
    pub(super) fn has_room(&self, changes: &Changes) -> bool {
        !changes.is_large
            && self.end + aligned(changes.bytes.len()) <= MAX_LOG_BYTES
            && (self.rows == 0 || self.rows + changes.rows <= MAX_LOG_ROWS)
    }

    /// Returns true when nothing has been appended since the database was settled.
    pub(super) const fn is_empty(&self) -> bool {
        self.sequence == 0
    }

    /// Writes the changes and flushes them.
    pub(super) fn append(&mut self, changes: &Changes) -> Result<(), StoreError> {
        let payload = &changes.bytes;
        if payload.is_empty() {
            return Ok(());
        }
        let len = u32::try_from(payload.len()).map_err(|_| damaged("log"))?;
        let padded = aligned(payload.len());
        let mut record = Vec::with_capacity(usize::try_from(padded).unwrap_or(0));
        record.extend(self.sequence.to_be_bytes());
        record.extend(len.to_be_bytes());
        record.extend(self.checksum(self.sequence, payload));
        record.extend_from_slice(payload);
        record.resize(usize::try_from(padded).unwrap_or(record.len()), 0);
        let written = self.file.write(self.end, &record);
        written.map_err(|error| fault("write", error))?;
        let flushed = self.file.sync_data();
        flushed.map_err(|error| fault("flush", error))?;
        self.sequence += 1;
        self.end += padded;
        self.rows += changes.rows;
        Ok(())
    }

    /// Starts anew: everything so far is settled in the database, under this seal.
    pub(super) fn restart(&mut self, seal: Seal) {
        self.seal = seal;
        (self.sequence, self.end, self.rows) = (0, 0, 0);
    }
}

/// Returns the bytes that a record takes.
const fn aligned(payload: usize) -> u64 {
    (HEADER_BYTES + payload).next_multiple_of(ALIGN) as u64
}

fn fault(operation: &'static str, error: std::io::Error) -> StoreError {
    io_fault(operation, super::LOG_NAME.as_ref(), error)
}

/// One change: table, key, and the value unless the row was removed.
type Change<'p> = (u8, &'p [u8], Option<&'p [u8]>);

/// Splits a payload into its changes; ends with an error where it cannot be understood.
fn changes(payload: &[u8]) -> impl Iterator<Item = Result<Change<'_>, StoreError>> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let change = take_change(&mut rest);
        if change.is_none() {
            rest = &[];
        }
        Some(change.ok_or(damaged("log")))
    })
}

fn take_change<'p>(rest: &mut &'p [u8]) -> Option<Change<'p>> {
    let ([target, has_value], tail) = rest.split_first_chunk::<2>()?;
    *rest = tail;
    let key = take(rest)?;
    let value = match has_value {
        0 => None,
        _ => Some(take(rest)?),
    };
    Some((*target, key, value))
}

fn take<'p>(rest: &mut &'p [u8]) -> Option<&'p [u8]> {
    let (len, tail) = rest.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    let (bytes, tail) = tail.split_at_checked(len)?;
    *rest = tail;
    Some(bytes)
}

/// Makes the changes of a record in a transaction.
pub(super) fn apply(transaction: &WriteTransaction, payload: &[u8]) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META).map_err(database_fault)?;
    let mut index = transaction.open_table(INDEX).map_err(database_fault)?;
    let mut inline = transaction.open_table(INLINE).map_err(database_fault)?;
    for change in changes(payload) {
        let (target, key, value) = change?;
        if target == Target::Inline as u8 {
            let key = key.try_into().map_err(|_| damaged("log"))?;
            let key = u64::from_be_bytes(key);
            match value {
                Some(value) => drop(inline.insert(key, value).map_err(database_fault)?),
                None => drop(inline.remove(key).map_err(database_fault)?),
            }
            continue;
        }
        let table = match target {
            0 => &mut meta,
            1 => &mut index,
            _ => return Err(damaged("log")),
        };
        match value {
            Some(value) => drop(table.insert(key, value).map_err(database_fault)?),
            None => drop(table.remove(key).map_err(database_fault)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use redb::backends::InMemoryBackend;

    use super::*;

    /// A file that outlives the log.
    #[derive(Debug, Clone, Default)]
    struct Shared(Arc<InMemoryBackend>);

    impl StorageBackend for Shared {
        fn len(&self) -> std::io::Result<u64> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.0.set_len(len)
        }
        fn sync_data(&self) -> std::io::Result<()> {
            Ok(())
        }
        fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            if self.0.len()? < offset + data.len() as u64 {
                self.0.set_len(offset + data.len() as u64)?;
            }
            self.0.write(offset, data)
        }
    }

    const SEAL: Seal = Seal([7; 16]);

    fn some(n: u8, len: usize) -> Changes {
        let mut changes = Changes::default();
        changes.set(Target::Meta, &[n], &vec![n; len]);
        changes.unset(Target::Index, &[n, 1]);
        changes.set(Target::Inline, &u64::from(n).to_be_bytes(), &[n]);
        changes
    }

    fn open(file: &Shared, seal: Seal) -> Result<(Log, Vec<Vec<u8>>), StoreError> {
        let mut found = Vec::new();
        let log = Log::open(Box::new(file.clone()), seal, |payload| {
            found.push(payload.to_vec());
            Ok(())
        })?;
        Ok((log, found))
    }

    /// Writes records of these lengths.
    fn filled(lens: &[usize]) -> (Shared, Vec<Vec<u8>>) {
        let file = Shared::default();
        let (mut log, _) = open(&file, SEAL).unwrap();
        let mut written = Vec::new();
        for (n, len) in (0..).zip(lens) {
            let changes = some(n, *len);
            log.append(&changes).unwrap();
            written.push(changes.bytes);
        }
        (file, written)
    }

    #[test]
    fn records_come_back_in_order_and_are_continued() {
        let (file, mut written) = filled(&[10, 5_000, 1]);
        let (mut log, found) = open(&file, SEAL).unwrap();
        assert_eq!(found, written);
        assert_eq!((log.sequence, log.end, log.rows), (3, 4 * 4096, 9));
        let more = some(9, 20);
        log.append(&more).unwrap();
        written.push(more.bytes);
        assert_eq!(open(&file, SEAL).unwrap().1, written);
    }

    #[test]
    fn another_seal_sees_nothing_and_writes_over_it() {
        let (file, _) = filled(&[10, 5_000, 1]);
        let other = Seal([8; 16]);
        let (mut log, found) = open(&file, other).unwrap();
        assert!(found.is_empty() && log.is_empty());
        log.append(&some(1, 1)).unwrap();
        assert_eq!(open(&file, other).unwrap().1.len(), 1);
        log.restart(SEAL);
        log.append(&some(2, 1)).unwrap();
        // The second record of the first round is still there, and is none of this one's.
        assert_eq!(open(&file, Seal([9; 16])).unwrap().1.len(), 0);
    }

    #[test]
    fn a_torn_end_is_cut_and_a_hole_in_the_middle_refused() {
        for byte in [3, 9, 20, 40, 5_000] {
            let (file, written) = filled(&[10, 8_000, 30]);
            // In the last record.
            let at = 3 * 4096 + (byte % 60);
            file.write(at, &[0xee]).unwrap();
            assert_eq!(open(&file, SEAL).unwrap().1, written[..2]);
            // In the second.
            let (file, _) = filled(&[10, 8_000, 30]);
            file.write(4096 + byte, &[0xee]).unwrap();
            assert!(matches!(
                open(&file, SEAL),
                Err(StoreError::DamagedRow { row: "log" })
            ));
        }
        // The file ends inside of a record.
        let (file, written) = filled(&[10, 8_000]);
        file.set_len(4096 + 500).unwrap();
        assert_eq!(open(&file, SEAL).unwrap().1, written[..1]);
    }

    #[test]
    fn large_commits_and_long_logs_are_settled() {
        let (file, _) = filled(&[]);
        let (mut log, _) = open(&file, SEAL).unwrap();
        assert!(log.has_room(&some(1, MAX_RECORD_BYTES / 2)));
        let large = some(1, MAX_RECORD_BYTES);
        assert!(large.is_large && large.bytes.is_empty());
        assert!(!log.has_room(&large));
        let mut records = 0;
        while log.has_room(&some(1, MAX_RECORD_BYTES / 2)) {
            log.append(&some(1, MAX_RECORD_BYTES / 2)).unwrap();
            records += 1;
        }
        assert_eq!(records, 15);
        log.restart(SEAL);
        log.rows = MAX_LOG_ROWS;
        assert!(!log.has_room(&some(1, 1)));
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        for bytes in [&[0_u8][..], &[0, 1, 0, 0, 0, 9, 1], &[0, 1, 0, 0, 0, 0, 1]] {
            assert!(changes(bytes).any(|change| change.is_err()), "{bytes:?}");
        }
    }
}
