//! Maintenance of the data folder: what [`Upkeep`] promises, on files and rows.

use std::collections::BTreeMap;

use champ::{Block, Cid};
use redb::ReadTransaction;

use super::{
    DiskStore,
    engine::{Engine, blocking, seconds},
    fault::{database_fault, io_fault},
    group::{Answer, Operation},
    layout::{
        BlockFile, INDEX, IndexRow, META, PartitionNumber, PartitionRow, Place, QuarantineRow,
        damaged, index_cid, index_key, partition_key, partition_name, quarantine_key,
        quarantine_prefix,
    },
};
use crate::store::{
    BlockCounts, Copy, MAX_QUARANTINE_PAGE, MAX_UNNAMED, Orphans, Partition, Quarantine,
    Quarantined, StoreError, Unnamed, UnnamedFile, Upkeep,
};

#[async_trait::async_trait]
impl Upkeep for DiskStore {
    async fn inspect(&self, partition: &Partition, cid: &Cid) -> Result<Copy, StoreError> {
        let Some(found) = self.engine.look_up(partition, cid)? else {
            return Ok(Copy::Absent);
        };
        let (engine, cid) = (self.engine.clone(), cid.clone());
        blocking(move || {
            let recorded = u64::from(found.row.size_bytes);
            let actual = match found.row.place {
                Place::Inline(_) => found.inline.as_ref().map(|bytes| bytes.len() as u64),
                Place::File(sequence) => engine.files.size(&BlockFile {
                    cid,
                    partition: found.partition,
                    sequence,
                })?,
            };
            Ok(match actual {
                None => Copy::Missing,
                Some(actual) if actual != recorded => Copy::WrongLength { actual, recorded },
                Some(_) => Copy::Present,
            })
        })
        .await
    }

    async fn quarantine(&self, partition: &Partition, cid: &Cid) -> Result<Quarantine, StoreError> {
        let Some(found) = self.engine.look_up(partition, cid)? else {
            return Ok(Quarantine::Absent);
        };
        let (number, place) = (found.partition, found.row.place);
        let file = BlockFile {
            cid: cid.clone(),
            partition: number,
            sequence: place.number(),
        };
        let (engine, copy) = (self.engine.clone(), file.clone());
        let (bytes, had_copy) = match blocking(move || engine.load(&copy.cid, found)).await {
            Ok(bytes) => (bytes.clone(), bytes.is_some()),
            // The disk cannot read the copy; it can still be moved.
            Err(StoreError::Io { .. }) => (None, true),
            Err(error) => return Err(error),
        };
        if let Some(bytes) = &bytes
            && Block::verified(cid.clone(), bytes.clone()).is_ok()
        {
            return Ok(Quarantine::Sound);
        }
        // A copy in the database is written to its file first; one in a file is moved after it is recorded.
        if let (Place::Inline(_), Some(bytes)) = (place, bytes) {
            let (engine, file) = (self.engine.clone(), file.clone());
            blocking(move || engine.files.set_aside(&file, &bytes)).await?;
        }
        let row = QuarantineRow {
            since_seconds: seconds((self.engine.options.clock)()),
            place,
        };
        let operation = Operation::Quarantine(number, cid.clone(), row);
        match self.engine.operate(operation).await? {
            Answer::Stale => return Ok(Quarantine::Sound),
            _ if !had_copy => return Ok(Quarantine::Recorded),
            _ => {}
        }
        if let Place::File(_) = place {
            let engine = self.engine.clone();
            blocking(move || engine.files.move_aside(&file)).await?;
        }
        Ok(Quarantine::Moved)
    }

    async fn quarantined(
        &self,
        after: Option<(&Partition, &Cid)>,
    ) -> Result<Vec<Quarantined>, StoreError> {
        let after = after.map(|(partition, cid)| (partition.clone(), cid.to_bytes()));
        let engine = self.engine.clone();
        blocking(move || {
            engine.read(|transaction| {
                let names = partition_names(transaction)?;
                let meta = transaction.open_table(META).map_err(database_fault)?;
                let prefix = quarantine_prefix();
                let mut start = prefix.clone();
                if let Some((partition, cid)) = &after
                    && let Some((number, _)) = names.iter().find(|(_, name)| *name == partition)
                {
                    start = quarantine_key(*number, cid);
                }
                let mut rows = Vec::new();
                for row in meta.range(start.as_slice()..).map_err(database_fault)? {
                    let (key, value) = row.map_err(database_fault)?;
                    let key = key.value();
                    let Some(block) = key.strip_prefix(prefix.as_slice()) else {
                        break;
                    };
                    if rows.len() >= MAX_QUARANTINE_PAGE {
                        break;
                    }
                    if after.is_some() && key == start.as_slice() {
                        continue;
                    }
                    let number = PartitionNumber::of_key(block)?;
                    let partition = names.get(&number).ok_or(damaged("quarantine"))?;
                    rows.push(Quarantined {
                        partition: partition.clone(),
                        cid: index_cid(block)?,
                        since: QuarantineRow::decode(value.value())?.since(),
                    });
                }
                Ok(rows)
            })
        })
        .await
    }

    async fn orphans(&self, remove: bool) -> Result<Orphans, StoreError> {
        let engine = self.engine.clone();
        blocking(move || {
            let mut orphans = Orphans::default();
            for run in engine.files.runs()? {
                for file in engine.files.list_run(run)? {
                    // In this order: a file that is no longer open has its row, if it will ever have one.
                    if engine.files.is_open(file.sequence) || engine.is_named(&file)? {
                        continue;
                    }
                    let Some(bytes) = engine.files.size(&file)? else {
                        continue;
                    };
                    orphans.found.blocks += 1;
                    orphans.found.bytes += bytes;
                    if remove {
                        engine.files.remove(&file)?;
                        orphans.removed += 1;
                    }
                }
                engine.files.remove_empty_run(run);
            }
            Ok(orphans)
        })
        .await
    }

    async fn unnamed(&self) -> Result<Unnamed, StoreError> {
        let engine = self.engine.clone();
        blocking(move || {
            let names = engine.read(partition_names)?;
            let mut unnamed = Unnamed::new();
            for run in engine.files.runs()? {
                for file in engine.files.list_run(run)? {
                    if engine.files.is_open(file.sequence) || engine.is_named(&file)? {
                        continue;
                    }
                    let Some(partition) = names.get(&file.partition) else {
                        continue;
                    };
                    if unnamed.len() < MAX_UNNAMED {
                        let place = UnnamedFile {
                            partition: file.partition.0,
                            sequence: file.sequence,
                        };
                        unnamed.insert((partition.clone(), file.cid), place);
                    }
                }
            }
            Ok(unnamed)
        })
        .await
    }

    async fn unnamed_block(
        &self,
        file: UnnamedFile,
        cid: &Cid,
    ) -> Result<Option<Block>, StoreError> {
        let engine = self.engine.clone();
        let file = BlockFile {
            cid: cid.clone(),
            partition: PartitionNumber(file.partition),
            sequence: file.sequence,
        };
        blocking(move || {
            let bytes = engine.files.read(&file)?;
            Ok(bytes.and_then(|bytes| Block::verified(file.cid, bytes).ok()))
        })
        .await
    }

    async fn recount(
        &self,
        partition: &Partition,
        correct: bool,
    ) -> Result<(BlockCounts, BlockCounts), StoreError> {
        if correct {
            let operation = Operation::Recount(partition.clone());
            return match self.engine.operate(operation).await? {
                Answer::Recounted(before, after) => Ok((before, after)),
                _ => Err(StoreError::Closed),
            };
        }
        let (engine, partition) = (self.engine.clone(), partition.clone());
        blocking(move || {
            engine.read(|transaction| {
                let meta = transaction.open_table(META).map_err(database_fault)?;
                let key = partition_key(partition.as_str());
                let Some(row) = meta.get(key.as_slice()).map_err(database_fault)? else {
                    return Ok(Default::default());
                };
                let row = PartitionRow::decode(row.value())?;
                let index = transaction.open_table(INDEX).map_err(database_fault)?;
                Ok((row.counts, count(&index, row.number)?))
            })
        })
        .await
    }

    async fn compact(&self) -> Result<(u64, u64), StoreError> {
        let engine = self.engine.clone();
        blocking(move || engine.compact()).await
    }

    async fn verify_pages(&self) -> Result<(), StoreError> {
        let engine = self.engine.clone();
        blocking(move || engine.verify_pages()).await
    }
}

/// Counts the rows of a partition.
pub(super) fn count(
    index: &impl redb::ReadableTable<&'static [u8], &'static [u8]>,
    partition: PartitionNumber,
) -> Result<BlockCounts, StoreError> {
    let mut counts = BlockCounts::default();
    let prefix = partition.prefix();
    for row in index.range(prefix.as_slice()..).map_err(database_fault)? {
        let (key, value) = row.map_err(database_fault)?;
        if !key.value().starts_with(&prefix) {
            break;
        }
        counts.blocks += 1;
        counts.bytes += u64::from(IndexRow::decode(value.value())?.size_bytes);
    }
    Ok(counts)
}

/// Returns the names of all partitions by number.
pub(super) fn partition_names(
    transaction: &ReadTransaction,
) -> Result<BTreeMap<PartitionNumber, Partition>, StoreError> {
    let meta = transaction.open_table(META).map_err(database_fault)?;
    let prefix = partition_key("");
    let mut names = BTreeMap::new();
    for row in meta.range(prefix.as_slice()..).map_err(database_fault)? {
        let (key, value) = row.map_err(database_fault)?;
        if !key.value().starts_with(&prefix) {
            break;
        }
        let row = PartitionRow::decode(value.value())?;
        names.insert(row.number, partition_name(key.value())?);
    }
    Ok(names)
}

impl Engine {
    /// Returns true when a row names this very file, or says that it is to be removed.
    fn is_named(&self, file: &BlockFile) -> Result<bool, StoreError> {
        self.read(|transaction| {
            let index = transaction.open_table(INDEX).map_err(database_fault)?;
            let key = index_key(file.partition, &file.cid.to_bytes());
            let row = index.get(key.as_slice()).map_err(database_fault)?;
            let row = row.map(|row| IndexRow::decode(row.value())).transpose()?;
            if row.is_some_and(|row| row.place == Place::File(file.sequence)) {
                return Ok(true);
            }
            let meta = transaction.open_table(META).map_err(database_fault)?;
            let removal = meta.get(file.unlink_key().as_slice());
            Ok(removal.map_err(database_fault)?.is_some())
        })
    }
}

impl super::files::BlockFiles {
    /// Writes the damaged bytes of an inline block into the quarantine.
    fn set_aside(&self, file: &BlockFile, bytes: &[u8]) -> Result<(), StoreError> {
        let folder = self.prepare_quarantine()?;
        let path = folder.join(file.name());
        // A copy from an attempt that was cut short has the same bytes or fewer.
        match self.disk().remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_fault("remove", &path, error));
            }
            _ => {}
        }
        let written = self.disk().write_new(&path, bytes);
        written.map_err(|error| io_fault("write", &path, error))?;
        let synced = self.disk().sync_folder(&folder);
        synced.map_err(|error| io_fault("flush", &folder, error))
    }

    /// Moves a damaged block file into the quarantine.
    fn move_aside(&self, file: &BlockFile) -> Result<(), StoreError> {
        let folder = self.prepare_quarantine()?;
        let (from, to) = (self.path(file), folder.join(file.name()));
        match self.disk().rename(&from, &to) {
            // Removed meanwhile: the block has been put again or deleted.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            moved => moved.map_err(|error| io_fault("move", &from, error))?,
        }
        let synced = self.disk().sync_folder(&folder);
        synced.map_err(|error| io_fault("flush", &folder, error))
    }
}
