//! Known writers: which signing keys may write into whose space (Spec: 06 §4.3, 07 §5).
//!
//! A writer is registered when a committed root block first proves that it is owned, or when a search from the
//! identity key finds it. It stays registered afterwards; whether its bytes count is the accounting's matter.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use champ::{
    Cid, SourceError,
    cbor::{Fields, Map, RecordError, Value, decode},
};
use parking_lot::Mutex;
use pki::{
    keys::{PublicKeyHash, Writer},
    owned::{Owned, OwnershipWalk, PointerSource, WalkLimits, directly_owned},
    username::Username,
    writer_data::WriterData,
};

use crate::{
    blocks::{AuthorisedBlocks, StoredBlocks},
    directory::User,
    error::Refusal,
    pointers::stored_update,
    state::State,
    store::{Batch, StoreError, tables},
};

/// How long a failed search is not repeated for an owner.
const MISS_MEMORY: Duration = Duration::from_secs(60);
/// Owners whose failed searches are remembered.
const MAX_MISSES: usize = 10_000;
/// Users of writers kept in memory.
const MAX_KNOWN: usize = 100_000;

/// What is stored about a writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WriterRow {
    /// Whose writer it is.
    pub(crate) user: Username,
    /// The writer whose root block proves it; none for the identity key.
    pub(crate) parent: Option<Writer>,
    /// Root block up to which its bytes are counted.
    pub(crate) accounted: Option<Cid>,
    /// Bytes counted for it.
    pub(crate) bytes: u64,
    /// No longer owned: its bytes are not counted.
    pub(crate) is_detached: bool,
}

impl WriterRow {
    /// Starts a writer of which nothing is counted yet.
    pub(crate) const fn new(user: Username, parent: Option<Writer>) -> Self {
        Self {
            user,
            parent,
            accounted: None,
            bytes: 0,
            is_detached: false,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut map = Map::new();
        map.insert_some("p", self.parent.as_ref().map(|p| p.cid().to_bytes()));
        map.insert_some("r", self.accounted.as_ref().map(Cid::to_bytes));
        map.insert("s", i64::try_from(self.bytes).unwrap_or(i64::MAX));
        map.insert("u", self.user.as_str());
        map.insert_some("x", self.is_detached.then_some(true));
        Value::Map(map).encode().into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut fields = Fields::of(decode(bytes)?, "writer")?;
        let user = fields.required("u")?.into_text("u")?;
        Ok(Self {
            user: Username::parse(&user).map_err(|_| RecordError::OutOfRange { field: "u" })?,
            parent: fields
                .optional("p")
                .map(|value| value.into_cid_bytes("p").and_then(writer_of))
                .transpose()?,
            accounted: fields
                .optional("r")
                .map(|value| value.into_cid_bytes("r"))
                .transpose()?,
            bytes: u64::try_from(fields.required("s")?.into_int("s")?).unwrap_or(0),
            is_detached: fields.flag("x")?,
        })
    }
}

/// Reads the key hash of a writer.
pub(crate) fn writer_of(cid: Cid) -> Result<Writer, RecordError> {
    PublicKeyHash::try_new(cid).map(Writer)
}

/// Returns the row of a writer, with its bytes for a conditional change.
pub(crate) async fn read_row(
    state: &State,
    writer: &Writer,
) -> Result<Option<(Bytes, WriterRow)>, Refusal> {
    let Some(bytes) = state
        .store
        .get(tables::WRITERS, &writer.cid().to_bytes())
        .await?
    else {
        return Ok(None);
    };
    let row = WriterRow::decode(&bytes).map_err(Refusal::internal)?;
    Ok(Some((bytes, row)))
}

/// Returns the writers that are registered for a user.
///
/// # Errors
/// Failures of the store, and rows that cannot be understood.
pub(crate) async fn of_user(state: &State, name: &Username) -> Result<Vec<Writer>, Refusal> {
    let mut prefix = name.as_str().as_bytes().to_vec();
    prefix.push(0);
    let mut found = Vec::new();
    let mut after: Option<Bytes> = None;
    loop {
        let page = state
            .store
            .scan(tables::USER_WRITERS, &prefix, after.as_deref(), 1000)
            .await?;
        let Some((last, _)) = page.last() else {
            return Ok(found);
        };
        after = Some(last.clone());
        for (key, _) in &page {
            let cid = Cid::decode(key.get(prefix.len()..).unwrap_or_default());
            let writer = cid.ok().and_then(|cid| writer_of(cid).ok());
            let damaged = StoreError::DamagedRow { row: "user writer" };
            found.push(writer.ok_or(damaged)?);
        }
    }
}

/// Adds the registration of a new writer to a batch.
pub(crate) fn register(batch: Batch, writer: &Writer, row: &WriterRow) -> Batch {
    let key = writer.cid().to_bytes();
    let mut index = row.user.as_str().as_bytes().to_vec();
    index.push(0);
    index.extend_from_slice(&key);
    batch
        .expect_absent(tables::WRITERS, key.clone())
        .put(tables::WRITERS, key, row.encode())
        .put(tables::USER_WRITERS, index, Bytes::new())
}

/// The known writers.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    known: Mutex<HashMap<Writer, Username>>,
    misses: Mutex<HashMap<Username, Instant>>,
}

impl Writers {
    /// Makes sure that `writer` may write for `user`, searching the user's ownership once if need be.
    ///
    /// # Errors
    /// [`Refusal::UnknownWriter`], also for a writer of somebody else.
    pub(crate) async fn ensure(
        &self,
        state: &State,
        user: &User,
        writer: &Writer,
    ) -> Result<(), Refusal> {
        let unknown = || Refusal::UnknownWriter(writer.cid().clone());
        if let Some(known) = self.user_of(state, writer).await? {
            return if known == user.name {
                Ok(())
            } else {
                Err(unknown())
            };
        }
        if *writer == user.identity.as_writer() {
            return self.add(state, user, [(writer.clone(), None)]).await;
        }
        if self.missed_lately(&user.name) {
            return Err(unknown());
        }
        let pointers = StoredPointers(state);
        let blocks = AuthorisedBlocks { state, user };
        let mut walk =
            OwnershipWalk::new(&user.identity, &pointers, &blocks, WalkLimits::default());
        let mut found = Vec::new();
        while let Some(owned) = walk.next().await.map_err(Refusal::internal)? {
            found.push((owned, None));
        }
        let is_owned = found.iter().any(|(owned, _)| owned == writer);
        self.add(state, user, found).await?;
        if is_owned {
            return Ok(());
        }
        let mut misses = self.misses.lock();
        if misses.len() >= MAX_MISSES {
            misses.retain(|_, since| since.elapsed() < MISS_MEMORY);
            if misses.len() >= MAX_MISSES {
                misses.clear();
            }
        }
        misses.insert(user.name.clone(), Instant::now());
        Err(unknown())
    }

    /// Returns true when `writer` is registered for `user`.
    pub(crate) async fn is_known(
        &self,
        state: &State,
        user: &User,
        writer: &Writer,
    ) -> Result<bool, Refusal> {
        Ok(self.user_of(state, writer).await?.as_ref() == Some(&user.name))
    }

    /// Forgets failed searches of a user whose ownership changed.
    pub(crate) fn ownership_changed(&self, user: &User) {
        self.misses.lock().remove(&user.name);
    }

    /// Forgets writers whose rows were removed.
    pub(crate) fn forget<'a>(&self, writers: impl Iterator<Item = &'a Writer>) {
        let mut known = self.known.lock();
        for writer in writers {
            known.remove(writer);
        }
    }

    /// Registers writers that are not registered yet.
    async fn add(
        &self,
        state: &State,
        user: &User,
        writers: impl IntoIterator<Item = (Writer, Option<Writer>)>,
    ) -> Result<(), Refusal> {
        for (writer, parent) in writers {
            if self.user_of(state, &writer).await?.is_some() {
                continue;
            }
            let row = WriterRow::new(user.name.clone(), parent);
            // Losing this race means that somebody else registered the writer: the row decides.
            let _ = state
                .store
                .commit(register(Batch::new(), &writer, &row))
                .await?;
        }
        Ok(())
    }

    async fn user_of(&self, state: &State, writer: &Writer) -> Result<Option<Username>, Refusal> {
        // Another process may let go of a writer, with the account it belongs to.
        let is_shared = state.store.is_shared();
        if !is_shared && let Some(user) = self.known.lock().get(writer) {
            return Ok(Some(user.clone()));
        }
        let Some((_, row)) = read_row(state, writer).await? else {
            return Ok(None);
        };
        if is_shared {
            return Ok(Some(row.user));
        }
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(writer.clone(), row.user.clone());
        Ok(Some(row.user))
    }

    fn missed_lately(&self, user: &Username) -> bool {
        self.misses
            .lock()
            .get(user)
            .is_some_and(|since| since.elapsed() < MISS_MEMORY)
    }
}

/// The pointers of this node, for walks over ownership.
#[derive(Clone, Copy)]
pub(crate) struct StoredPointers<'a>(pub(crate) &'a State);

#[async_trait::async_trait]
impl PointerSource for StoredPointers<'_> {
    async fn root(&self, writer: &Writer) -> Result<Option<Cid>, SourceError> {
        let update = stored_update(self.0, writer)
            .await
            .map_err(|error| SourceError::Failed(Arc::new(error)))?;
        Ok(update.and_then(|update| update.updated().cloned()))
    }
}

/// Returns the writers that `writer` owns under the old root and not under the new one, and the reverse.
///
/// Nothing counts as removed when the new record cannot be read completely.
///
/// # Errors
/// Failures of the store.
pub(crate) async fn owned_change(
    state: &State,
    user: &User,
    writer: &Writer,
    old: Option<&Cid>,
    new: Option<&Cid>,
) -> Result<(Vec<Writer>, Vec<Writer>), Refusal> {
    let old = read_root(state, user, writer, old).await?;
    let new = read_root(state, user, writer, new).await?;
    let same_owned = |a: &WriterData, b: &WriterData| a.owned == b.owned && a.named == b.named;
    if let (Some(old), Some(new)) = (&old, &new)
        && same_owned(old, new)
    {
        return Ok((Vec::new(), Vec::new()));
    }
    let before = owned_by(state, user, old.as_ref()).await?;
    let after = owned_by(state, user, new.as_ref()).await?;
    let removed: BTreeSet<Writer> = if after.damage.is_empty() {
        before.writers.difference(&after.writers).cloned().collect()
    } else {
        BTreeSet::new()
    };
    let added = after.writers.difference(&before.writers).cloned().collect();
    Ok((removed.into_iter().collect(), added))
}

async fn owned_by(state: &State, user: &User, root: Option<&WriterData>) -> Result<Owned, Refusal> {
    let Some(root) = root else {
        return Ok(Owned::default());
    };
    let blocks = StoredBlocks { state, user };
    directly_owned(root, &blocks, WalkLimits::default())
        .await
        .map_err(Refusal::internal)
}

/// Reads a root block; `None` for none, a missing one and one of another writer.
async fn read_root(
    state: &State,
    user: &User,
    writer: &Writer,
    root: Option<&Cid>,
) -> Result<Option<WriterData>, Refusal> {
    let Some(root) = root else { return Ok(None) };
    let Some(block) = state.store.block(&user.partition, root).await? else {
        return Ok(None);
    };
    Ok(WriterData::in_block(&block, writer).ok())
}

#[cfg(test)]
mod tests {
    use pki::keys::PublicSigningKey;

    use super::*;

    #[test]
    fn rows_survive_encoding() {
        let writer = Writer(PublicKeyHash::of(&PublicSigningKey::from_bytes([5; 32])));
        let mut row = WriterRow::new(Username::parse("alice").unwrap(), Some(writer));
        assert_eq!(WriterRow::decode(&row.encode()).unwrap(), row);
        row.accounted = Some(Cid::of_cbor(b"x"));
        row.bytes = 12;
        row.is_detached = true;
        row.parent = None;
        assert_eq!(WriterRow::decode(&row.encode()).unwrap(), row);
    }
}
