//! The key under which second factor secrets lie in the store (Spec: 08 §5).
//!
//! Whoever has only the database, a stolen copy of it or a page of a disk, has no codes: rows are sealed with
//! a key that lives in a file of its own, and are bound to the user they belong to. The node holds that key
//! while it runs; this is no secret from the operator.
//!
//! This is the one place of the node that seals anything. It never touches what clients seal.

use bytes::Bytes;
use champ::cbor::decode;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::{
    error::Refusal,
    random::random,
    store::{Batch, Store, tables},
};

/// First byte of a sealed row; rows of before began with the head of a CBOR list.
const SEALED: u8 = 1;
/// Row that tells which key this data folder belongs to.
const CHECK_ROW: &[u8] = b"second factor key";
/// Row of the key itself, for nodes that keep everything in memory.
const KEY_ROW: &[u8] = b"second factor key in memory";
/// What the check row holds, sealed.
const CHECK: &[u8] = b"kastro second factors";
/// Attempts at sealing a row that somebody else changes meanwhile.
const MAX_ATTEMPTS: usize = 10;

/// Seals and opens rows of second factors.
pub(crate) struct FactorKey(LessSafeKey);

/// A key that does not belong to the stored rows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FactorKeyError {
    /// There are sealed rows and no key file.
    #[error("the key file of second factors is missing; restore it from a backup")]
    Missing,
    /// The rows were sealed with another key.
    #[error("the key file of second factors is not the one these accounts were stored with")]
    Wrong,
}

impl std::fmt::Debug for FactorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FactorKey(..)")
    }
}

impl FactorKey {
    fn new(bytes: &[u8; 32]) -> Result<Self, Refusal> {
        // 32 bytes are what the cipher takes.
        UnboundKey::new(&CHACHA20_POLY1305, bytes)
            .map(|key| Self(LessSafeKey::new(key)))
            .map_err(|_| Refusal::internal("cipher refuses its key"))
    }

    /// Seals a row of `name`: version, nonce, cipher text with its tag.
    pub(super) fn seal(&self, name: &[u8], row: &[u8]) -> Result<Bytes, Refusal> {
        let nonce: [u8; NONCE_LEN] = random();
        let mut cipher = row.to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(name),
                &mut cipher,
            )
            .map_err(|_| Refusal::internal("a row of second factors cannot be sealed"))?;
        let mut sealed = Vec::with_capacity(1 + nonce.len() + cipher.len());
        sealed.push(SEALED);
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut cipher);
        Ok(sealed.into())
    }

    /// Opens a row of `name`.
    pub(super) fn open(&self, name: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let damaged = || Refusal::internal("a row of second factors cannot be opened");
        let (nonce, cipher) = sealed
            .split_first()
            .filter(|(version, _)| **version == SEALED)
            .and_then(|(_, rest)| rest.split_first_chunk::<NONCE_LEN>())
            .ok_or_else(damaged)?;
        let mut row = Zeroizing::new(cipher.to_vec());
        let length = self
            .0
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(name),
                &mut row,
            )
            .map_err(|_| damaged())?
            .len();
        row.truncate(length);
        Ok(row)
    }
}

/// Returns true when this store holds rows that need a key file.
pub(crate) async fn needs_key(store: &dyn Store) -> Result<bool, Refusal> {
    Ok(store.get(tables::NODE, CHECK_ROW).await?.is_some())
}

/// Returns the key of a node without data folder, which lives and dies with its store.
pub(crate) async fn key_in_memory(store: &dyn Store) -> Result<Zeroizing<[u8; 32]>, Refusal> {
    if let Some(row) = store.get(tables::NODE, KEY_ROW).await? {
        return <[u8; 32]>::try_from(row.as_ref())
            .map(Zeroizing::new)
            .map_err(Refusal::internal);
    }
    let key = Zeroizing::new(random::<32>());
    let batch = Batch::new().put(tables::NODE, KEY_ROW, key.to_vec());
    let _ = store.commit(batch).await?;
    Ok(key)
}

/// Takes the key into use: seals what was stored before there was one, and refuses the key of other rows.
///
/// # Errors
/// `Ok(Err(..))` for a key that does not belong to this store.
pub(crate) async fn unlock(
    store: &dyn Store,
    bytes: &[u8; 32],
) -> Result<Result<FactorKey, FactorKeyError>, Refusal> {
    let key = FactorKey::new(bytes)?;
    if store.get(tables::NODE, CHECK_ROW).await?.is_none() {
        seal_old_rows(store, &key).await?;
        let check = key.seal(CHECK_ROW, CHECK)?;
        let batch =
            Batch::new()
                .expect_absent(tables::NODE, CHECK_ROW)
                .put(tables::NODE, CHECK_ROW, check);
        // Losing this race means that another process was first: its key is the one that counts.
        let _ = store.commit(batch).await?;
    }
    let check = store
        .get(tables::NODE, CHECK_ROW)
        .await?
        .unwrap_or_default();
    let fits = key
        .open(CHECK_ROW, &check)
        .is_ok_and(|row| row.as_slice() == CHECK);
    Ok(if fits {
        Ok(key)
    } else {
        Err(FactorKeyError::Wrong)
    })
}

/// Seals, one by one, the rows of a store that was written before rows were sealed.
async fn seal_old_rows(store: &dyn Store, key: &FactorKey) -> Result<(), Refusal> {
    let mut after: Option<Bytes> = None;
    loop {
        let page = store
            .scan(tables::SECOND_FACTORS, b"", after.as_deref(), 1000)
            .await?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for (name, _) in page {
            seal_old_row(store, key, &name).await?;
        }
    }
}

async fn seal_old_row(store: &dyn Store, key: &FactorKey, name: &Bytes) -> Result<(), Refusal> {
    for _ in 0..MAX_ATTEMPTS {
        let row = store.get(tables::SECOND_FACTORS, name).await?;
        let Some(row) = row.filter(|row| row.first() != Some(&SEALED)) else {
            return Ok(());
        };
        decode(&row).map_err(Refusal::internal)?;
        let sealed = key.seal(name, &row)?;
        let batch = Batch::new()
            .expect(tables::SECOND_FACTORS, name.clone(), Some(row))
            .put(tables::SECOND_FACTORS, name.clone(), sealed);
        if store.commit(batch).await?.is_committed() {
            return Ok(());
        }
    }
    Err(Refusal::internal(
        "a row of second factors keeps changing while it is sealed",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, MetaStore as _};

    #[test]
    fn rows_open_for_their_user_and_key_only() {
        let key = FactorKey::new(&[1; 32]).unwrap();
        let sealed = key.seal(b"alice", b"secret").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_ne!(sealed, key.seal(b"alice", b"secret").unwrap());
        assert_eq!(key.open(b"alice", &sealed).unwrap().as_slice(), b"secret");
        assert!(key.open(b"bob", &sealed).is_err());
        let other = FactorKey::new(&[2; 32]).unwrap();
        assert!(other.open(b"alice", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut damaged = sealed.to_vec();
            damaged[at] ^= 1;
            assert!(key.open(b"alice", &damaged).is_err(), "{at}");
            assert!(key.open(b"alice", &sealed[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn sc_1_no_nonce_is_used_twice() {
        let key = FactorKey::new(&[1; 32]).unwrap();
        let nonces: std::collections::HashSet<Vec<u8>> = (0..10_000)
            .map(|_| key.seal(b"alice", b"secret").unwrap()[1..=NONCE_LEN].to_vec())
            .collect();
        assert_eq!(nonces.len(), 10_000);
    }

    #[tokio::test]
    async fn old_rows_are_sealed_in_place_once_and_by_one_key() {
        let store = MemoryStore::new();
        let old = Bytes::from_static(&[0x81, 0xa0]);
        let batch = Batch::new().put(tables::SECOND_FACTORS, &b"alice"[..], old.clone());
        let _ = store.commit(batch).await.unwrap();
        let key = unlock(&store, &[1; 32]).await.unwrap().unwrap();
        let row = store.get(tables::SECOND_FACTORS, b"alice").await.unwrap();
        let row = row.unwrap();
        assert_eq!(key.open(b"alice", &row).unwrap().as_slice(), old.as_ref());
        unlock(&store, &[1; 32]).await.unwrap().unwrap();
        let again = store.get(tables::SECOND_FACTORS, b"alice").await.unwrap();
        assert_eq!(again.unwrap(), row);
        assert!(matches!(
            unlock(&store, &[2; 32]).await.unwrap(),
            Err(FactorKeyError::Wrong)
        ));
        assert!(needs_key(&store).await.unwrap());
    }
}
