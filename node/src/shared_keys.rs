//! The node's secrets when several processes are the same node (Spec: 01 §3.4).
//!
//! A key file in the data folder counts, whatever the store. Without one, a node that is alone makes the file; nodes
//! that share a data set keep the secret in it, so that a process needs nothing but the way to the database. The
//! data set remembers a digest of every secret in use and refuses a process that comes with another one.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{
    identity::{KeyFileError, load_or_create_secret},
    node::SECOND_FACTOR_KEY,
    node_keys::{NODE_KEY, TABLE_OWNER_KEY, TABLE_WRITER_KEY},
    random::random,
    store::{Batch, Store, StoreError, Table, tables},
};

/// How the keys of rows with secrets begin.
const ROW_START: &[u8] = b"shared key ";

/// A secret of a shared data set that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedKeyError {
    /// A key file cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The store failed.
    #[error("cannot read the keys of the data set")]
    Store(#[from] StoreError),
    /// The other processes of this data set use another key.
    #[error(
        "{file} is not the key that this data set is used with; give every node the same file, or none of them"
    )]
    Different {
        /// Name of the file.
        file: &'static str,
    },
    /// The data set is used with a key file that this process was not given.
    #[error("this data set is used with a key file {file}; copy it into the data folder")]
    Missing {
        /// Name of the file.
        file: &'static str,
    },
}

/// Returns a secret of 32 bytes that all processes on `store` have in common.
pub(crate) async fn shared_secret(
    store: &dyn Store,
    folder: Option<&Path>,
    file: &'static str,
) -> Result<Zeroizing<[u8; 32]>, SharedKeyError> {
    if let Some(folder) = folder
        && folder.join(file).exists()
    {
        let secret = load_or_create_secret(folder, file)?;
        return checked(store, file, secret).await;
    }
    let (row, digest_row) = (row(file), digest_row(file));
    // Two attempts: whoever loses the race for the first one reads what the winner stored.
    for _ in 0..2 {
        if let Some(stored) = store.get(tables::NODE, &row).await? {
            let secret = <[u8; 32]>::try_from(stored.as_ref())
                .map_err(|_| StoreError::DamagedRow { row: "key" })?;
            return checked(store, file, Zeroizing::new(secret)).await;
        }
        let secret = Zeroizing::new(random::<32>());
        let batch = Batch::new()
            .expect_absent(tables::NODE, row.clone())
            .expect_absent(tables::NODE, digest_row.clone())
            .put(tables::NODE, row.clone(), secret.to_vec())
            .put(tables::NODE, digest_row.clone(), digest(file, &secret));
        if store.commit(batch).await?.is_committed() {
            return Ok(secret);
        }
    }
    Err(SharedKeyError::Missing { file })
}

/// Compares a secret with what the data set is used with, or makes it that.
async fn checked(
    store: &dyn Store,
    file: &'static str,
    secret: Zeroizing<[u8; 32]>,
) -> Result<Zeroizing<[u8; 32]>, SharedKeyError> {
    let expected = digest(file, &secret);
    let batch = Batch::new()
        .expect_absent(tables::NODE, digest_row(file))
        .put(tables::NODE, digest_row(file), expected.clone());
    let _ = store.commit(batch).await?;
    let known = store.get(tables::NODE, &digest_row(file)).await?;
    let is_same = known.is_some_and(|known| bool::from(known.ct_eq(&expected)));
    if is_same {
        Ok(secret)
    } else {
        Err(SharedKeyError::Different { file })
    }
}

fn digest(file: &str, secret: &[u8; 32]) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(b"kastro data set key ");
    hash.update(file);
    hash.update([0]);
    hash.update(secret);
    hash.finalize().to_vec()
}

fn row(file: &str) -> Vec<u8> {
    [ROW_START, file.as_bytes()].concat()
}

/// Returns the file that a node which is alone keeps the secret of a row in; `None` for other rows.
pub(crate) fn shared_key_file(table: Table, key: &[u8]) -> Option<&'static str> {
    let name = key
        .strip_prefix(ROW_START)
        .filter(|_| table == tables::NODE)?;
    let files = [
        NODE_KEY,
        TABLE_OWNER_KEY,
        TABLE_WRITER_KEY,
        SECOND_FACTOR_KEY,
    ];
    files.into_iter().find(|file| file.as_bytes() == name)
}

fn digest_row(file: &str) -> Vec<u8> {
    [b"digest of key ", file.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::write_durably, store::MemoryStore};

    #[tokio::test]
    async fn processes_agree_on_a_secret_and_strangers_are_refused() {
        let store = MemoryStore::new();
        let folder = tempfile::tempdir().unwrap();
        let stored = shared_secret(&store, None, "a.key").await.unwrap();
        let again = shared_secret(&store, Some(folder.path()), "a.key")
            .await
            .unwrap();
        assert_eq!(stored, again);
        assert!(!folder.path().join("a.key").exists());
        write_durably(folder.path(), "a.key", &[7; 32]).unwrap();
        assert!(matches!(
            shared_secret(&store, Some(folder.path()), "a.key").await,
            Err(SharedKeyError::Different { .. })
        ));
        write_durably(folder.path(), "a.key", &*stored).unwrap();
        assert_eq!(
            shared_secret(&store, Some(folder.path()), "a.key")
                .await
                .unwrap(),
            stored
        );
    }

    #[tokio::test]
    async fn a_key_file_is_never_copied_into_the_data_set() {
        let store = MemoryStore::new();
        let folder = tempfile::tempdir().unwrap();
        write_durably(folder.path(), "b.key", &[9; 32]).unwrap();
        let secret = shared_secret(&store, Some(folder.path()), "b.key")
            .await
            .unwrap();
        assert_eq!(*secret, [9; 32]);
        assert!(matches!(
            shared_secret(&store, None, "b.key").await,
            Err(SharedKeyError::Missing { .. })
        ));
        for (_, value) in store_rows(&store).await {
            assert_ne!(value.as_ref(), [9; 32]);
        }
    }

    async fn store_rows(store: &MemoryStore) -> Vec<(bytes::Bytes, bytes::Bytes)> {
        use crate::store::MetaStore as _;
        store.scan(tables::NODE, b"", None, 100).await.unwrap()
    }
}
