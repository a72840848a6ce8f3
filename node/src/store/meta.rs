//! The interface to metadata: named tables of byte keys and values, changed in atomic batches.

use std::collections::BTreeSet;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Misuse, StoreError};

/// Longest key in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// Longest value in bytes: a little more than the longest user snapshot row of Spec: 12 §6.
pub const MAX_VALUE_BYTES: usize = 8 << 20;
/// Most conditions and writes in one batch: a condition and a write for each block of the largest put, and some.
pub const MAX_BATCH_ROWS: usize = 30_100;
/// Most rows one scan returns; longer limits are cut to this.
pub const MAX_SCAN_ROWS: usize = 10_000;

/// Most tables that one stored file may name.
const MAX_STORED_NAMES: usize = 1_000;

/// The name of a table. Names are part of the stored format: never rename one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(&'static str);

impl Table {
    /// Names a table: 1 to 32 characters of `a-z`, `0-9` and `_`.
    ///
    /// # Panics
    /// When the name is anything else; use it in a `const` so that the compiler finds out.
    #[expect(clippy::panic, reason = "evaluated in constants")]
    #[expect(
        clippy::indexing_slicing,
        reason = "index below the length; const code has no iterators"
    )]
    pub const fn new(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            if !matches!(bytes[at], b'a'..=b'z' | b'0'..=b'9' | b'_') {
                panic!("table names are made of a-z, 0-9 and _");
            }
            at += 1;
        }
        if bytes.is_empty() || bytes.len() > 32 {
            panic!("table names have 1 to 32 characters");
        }
        Self(name)
    }

    /// Returns the table of a stored name, also of one that a later version made; `None` for what cannot be a
    /// name, and for names that are unknown when too many of them have been seen.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let is_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if name.is_empty() || name.len() > 32 || !name.bytes().all(is_name) {
            return None;
        }
        // Names live as long as the process: there are a few dozen of them.
        static SEEN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let mut seen = SEEN.lock();
        if let Some(known) = seen.get(name) {
            return Some(Self(known));
        }
        if seen.len() >= MAX_STORED_NAMES {
            return None;
        }
        let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
        seen.insert(name);
        Some(Self(name))
    }

    /// Returns the name.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

/// A condition of a batch: this key has exactly this value, or is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Table of the key.
    pub table: Table,
    /// Key.
    pub key: Bytes,
    /// The value that must be committed now; `None`: the key must be absent.
    pub expected: Option<Bytes>,
}

/// One change of a batch: set this key, or remove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Table of the key.
    pub table: Table,
    /// Key.
    pub key: Bytes,
    /// New value; `None` removes the key.
    pub value: Option<Bytes>,
}

/// Changes that happen together or not at all, guarded by conditions.
///
/// Later writes of one key win over earlier ones. Every condition sees the state before the batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    conditions: Vec<Condition>,
    writes: Vec<Write>,
}

impl Batch {
    /// Makes an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requires that `key` has exactly this value, or is absent for `None`.
    #[must_use]
    pub fn expect(
        mut self,
        table: Table,
        key: impl Into<Bytes>,
        expected: Option<impl Into<Bytes>>,
    ) -> Self {
        self.conditions.push(Condition {
            table,
            key: key.into(),
            expected: expected.map(Into::into),
        });
        self
    }

    /// Requires that `key` is absent.
    #[must_use]
    pub fn expect_absent(self, table: Table, key: impl Into<Bytes>) -> Self {
        self.expect(table, key, None::<Bytes>)
    }

    /// Sets `key` to `value`.
    #[must_use]
    pub fn put(mut self, table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.writes.push(Write {
            table,
            key: key.into(),
            value: Some(value.into()),
        });
        self
    }

    /// Removes `key`; removing an absent key is no error.
    #[must_use]
    pub fn remove(mut self, table: Table, key: impl Into<Bytes>) -> Self {
        self.writes.push(Write {
            table,
            key: key.into(),
            value: None,
        });
        self
    }

    /// Appends the conditions and writes of `other`.
    pub fn append(&mut self, mut other: Self) {
        self.conditions.append(&mut other.conditions);
        self.writes.append(&mut other.writes);
    }

    /// Returns the conditions.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// Returns the writes.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Returns true when there is nothing to check and nothing to change.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty() && self.writes.is_empty()
    }

    /// Checks the limits; every engine calls this first.
    pub(crate) fn checked(&self) -> Result<(), Misuse> {
        let rows = self.conditions.len() + self.writes.len();
        if rows > MAX_BATCH_ROWS {
            return Err(Misuse::TooManyRows(rows));
        }
        let keys = self.conditions.iter().map(|c| &c.key);
        for key in keys.chain(self.writes.iter().map(|w| &w.key)) {
            if key.len() > MAX_KEY_BYTES {
                return Err(Misuse::KeyTooLong(key.len()));
            }
        }
        for value in self.writes.iter().filter_map(|w| w.value.as_ref()) {
            if value.len() > MAX_VALUE_BYTES {
                return Err(Misuse::ValueTooLong(value.len()));
            }
        }
        Ok(())
    }
}

/// How a batch ended, when the store itself did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum CommitOutcome {
    /// All writes are on stable storage.
    Committed,
    /// Nothing was changed.
    ConditionFailed {
        /// Position of the first condition that does not hold.
        index: usize,
        /// What is committed under its key.
        actual: Option<Bytes>,
    },
}

impl CommitOutcome {
    /// Returns true when the batch was committed.
    pub const fn is_committed(&self) -> bool {
        matches!(self, Self::Committed)
    }
}

/// Metadata: pointers, accounts, quotas, the name mirror, the node's own settings.
///
/// Contract:
/// * A batch is atomic, isolated (batches behave as if one ran after the other, in some order) and on stable
///   storage before its future resolves. Conditions and writes happen in one step.
/// * A read sees every batch whose commit resolved before the read began.
/// * A batch commits after every put of blocks that resolved before the commit began, also after a crash.
/// * Dropping the future of a commit leaves it undecided whether the batch happens; nothing else is harmed.
///   Dropping a read is safe.
#[async_trait::async_trait]
pub trait MetaStore: Send + Sync {
    /// Returns true when other processes may change the same data: nothing that can change may be remembered.
    fn is_shared(&self) -> bool {
        false
    }

    /// Returns the value of a key.
    ///
    /// # Errors
    /// [`StoreError`], never for an absent key.
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Returns the values of several keys, in their order; not necessarily of one moment.
    ///
    /// # Errors
    /// [`StoreError`], never for an absent key.
    async fn get_many(
        &self,
        table: Table,
        keys: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            values.push(self.get(table, key).await?);
        }
        Ok(values)
    }

    /// Returns rows whose key starts with `prefix`, in ascending byte order of keys, strictly after the key
    /// `after`; at most `limit` and at most [`MAX_SCAN_ROWS`]. Fewer than asked for means the end, except
    /// that an engine may also stop early, after at least one row, when the values get large; an empty
    /// answer always means the end.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// Checks the conditions and applies the writes.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing is acknowledged, and the batch has happened as a whole or not at all.
    async fn commit(&self, batch: Batch) -> Result<CommitOutcome, StoreError>;
}
