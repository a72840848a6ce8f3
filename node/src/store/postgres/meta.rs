//! Metadata: rows of one table, changed by one statement per batch.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio_postgres::Row;

use super::{PostgresStore, statements};
use crate::store::{Batch, CommitOutcome, MAX_SCAN_ROWS, MetaStore, StoreError, Table, Write};

/// Keys that a batch locks one by one; batches of more keys keep all others out while they run.
const MAX_LOCKS: usize = 32;
/// Bytes of values after which a scan stops early.
const MAX_SCAN_BYTES: i64 = 8 << 20;

#[async_trait::async_trait]
impl MetaStore for PostgresStore {
    fn is_shared(&self) -> bool {
        true
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let rows = self.read(statements::GET, &[&table.name(), &key]).await?;
        rows.first().map(|row| bytes_of(row, 0)).transpose()
    }

    async fn get_many(
        &self,
        table: Table,
        keys: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let wanted: Vec<&[u8]> = keys.iter().map(Bytes::as_ref).collect();
        let rows = self
            .read(statements::GET_MANY, &[&table.name(), &wanted])
            .await?;
        let mut found = std::collections::HashMap::with_capacity(rows.len());
        for row in &rows {
            found.insert(bytes_of(row, 0)?, bytes_of(row, 1)?);
        }
        // A key may be asked for twice.
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }

    async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let limit = i64::try_from(limit.min(MAX_SCAN_ROWS)).unwrap_or(i64::MAX);
        let start = match after {
            // The smallest key that is larger.
            Some(after) if after >= prefix => [after, &[0]].concat(),
            _ => prefix.to_vec(),
        };
        let name = table.name();
        let rows = match end_of(prefix) {
            Some(end) => {
                self.read(
                    statements::SCAN_TO,
                    &[&name, &start, &limit, &MAX_SCAN_BYTES, &end],
                )
                .await?
            }
            None => {
                self.read(statements::SCAN, &[&name, &start, &limit, &MAX_SCAN_BYTES])
                    .await?
            }
        };
        rows.iter()
            .map(|row| Ok((bytes_of(row, 0)?, bytes_of(row, 1)?)))
            .collect()
    }

    async fn commit(&self, batch: Batch) -> Result<CommitOutcome, StoreError> {
        batch.checked()?;
        let batch = Arranged::of(&batch);
        let rows = self
            .write(
                statements::COMMIT,
                &[
                    &self.lock_space,
                    &batch.locks,
                    &batch.condition_tables,
                    &batch.condition_keys,
                    &batch.condition_values,
                    &batch.removed_tables,
                    &batch.removed_keys,
                    &batch.put_tables,
                    &batch.put_keys,
                    &batch.put_values,
                ],
            )
            .await?;
        let row = rows
            .first()
            .ok_or(StoreError::DamagedRow { row: "outcome" })?;
        let failed: i32 = super::column(row, 0)?;
        let Ok(index) = usize::try_from(failed) else {
            return Ok(CommitOutcome::Committed);
        };
        let actual: Option<&[u8]> = super::column(row, 1)?;
        Ok(CommitOutcome::ConditionFailed {
            index,
            actual: actual.map(Bytes::copy_from_slice),
        })
    }
}

/// A batch as the statement takes it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Arranged<'a> {
    /// Numbers of the keys in ascending order; `None` for all keys.
    locks: Option<Vec<i32>>,
    condition_tables: Vec<&'static str>,
    condition_keys: Vec<&'a [u8]>,
    condition_values: Vec<Option<&'a [u8]>>,
    removed_tables: Vec<&'static str>,
    removed_keys: Vec<&'a [u8]>,
    put_tables: Vec<&'static str>,
    put_keys: Vec<&'a [u8]>,
    put_values: Vec<&'a [u8]>,
}

impl<'a> Arranged<'a> {
    fn of(batch: &'a Batch) -> Self {
        let mut arranged = Self {
            locks: locks(batch),
            ..Self::default()
        };
        for condition in batch.conditions() {
            arranged.condition_tables.push(condition.table.name());
            arranged.condition_keys.push(&condition.key);
            arranged
                .condition_values
                .push(condition.expected.as_deref());
        }
        // One statement cannot change a row twice, and the last write of a key wins. In the order of keys, so
        // that pages are touched in order too.
        let mut writes: Vec<(usize, &Write)> = batch.writes().iter().enumerate().collect();
        writes.sort_by(|(at, a), (bt, b)| (a.table, &a.key, bt).cmp(&(b.table, &b.key, at)));
        writes.dedup_by(|(_, later), (_, kept)| later.table == kept.table && later.key == kept.key);
        for (_, write) in writes {
            match &write.value {
                Some(value) => {
                    arranged.put_tables.push(write.table.name());
                    arranged.put_keys.push(&write.key);
                    arranged.put_values.push(value);
                }
                None => {
                    arranged.removed_tables.push(write.table.name());
                    arranged.removed_keys.push(&write.key);
                }
            }
        }
        arranged
    }
}

fn locks(batch: &Batch) -> Option<Vec<i32>> {
    let conditions = batch.conditions().iter().map(|c| (c.table, &c.key));
    let writes = batch.writes().iter().map(|w| (w.table, &w.key));
    let mut keys: Vec<_> = conditions.chain(writes).collect();
    keys.sort_unstable();
    keys.dedup();
    if keys.len() > MAX_LOCKS {
        return None;
    }
    let mut locks: Vec<i32> = keys
        .into_iter()
        .map(|(table, key)| number(table, key))
        .collect();
    locks.sort_unstable();
    locks.dedup();
    Some(locks)
}

/// Returns the number of a key's lock: not negative, and the same in every process and version.
fn number(table: Table, key: &[u8]) -> i32 {
    let mut hash = Sha256::new();
    hash.update(table.name());
    hash.update([0]);
    hash.update(key);
    first_number(&hash.finalize())
}

/// Returns the first 31 bits of a digest.
pub(super) fn first_number(digest: &[u8]) -> i32 {
    let mut first = [0; 4];
    for (to, from) in first.iter_mut().zip(digest) {
        *to = *from;
    }
    i32::from_be_bytes(first) & i32::MAX
}

/// Returns the smallest key above all keys with a prefix; `None` when there is none.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

pub(super) fn bytes_of(row: &Row, column: usize) -> Result<Bytes, StoreError> {
    super::column::<&[u8]>(row, column).map(Bytes::copy_from_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tables;

    #[test]
    fn the_last_write_of_a_key_wins_and_keys_are_in_order() {
        let t = tables::POINTERS;
        let batch = Batch::new()
            .put(t, "b", "1")
            .put(t, "a", "2")
            .remove(t, "b")
            .put(t, "b", "3")
            .put(t, "c", "4")
            .remove(t, "c");
        let arranged = Arranged::of(&batch);
        assert_eq!(arranged.put_keys, [b"a", b"b"]);
        assert_eq!(arranged.put_values, [b"2", b"3"]);
        assert_eq!(arranged.removed_keys, [b"c"]);
        assert_eq!(arranged.locks.unwrap().len(), 3);
    }

    #[test]
    fn locks_are_ascending_and_bounded() {
        let mut batch = Batch::new();
        for n in 0..MAX_LOCKS {
            batch = batch.expect_absent(tables::WRITERS, n.to_be_bytes().to_vec());
        }
        let numbers = locks(&batch).unwrap();
        assert!(numbers.is_sorted() && numbers.iter().all(|number| *number >= 0));
        assert_eq!(locks(&batch.put(tables::NODE, "x", "")), None);
    }

    #[test]
    fn prefixes_end_before_the_next_one() {
        assert_eq!(end_of(b"a"), Some(b"b".to_vec()));
        assert_eq!(end_of(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(end_of(b"\xff"), None);
        assert_eq!(end_of(b""), None);
    }
}
