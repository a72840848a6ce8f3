//! The node's own signing keys, and the store's memory of them (Spec: 40 REL-23).
//!
//! A key lives in a file of the data folder. The store remembers the public keys it was used with, so that a
//! lost or exchanged file is noticed: a new identity would leave every user without a home, and a new owner of
//! the name table would contradict every name. Keys of before stay known, so a node that was given a new
//! identity on purpose is still the home that its users' claims name.

use std::path::Path;

use pki::keys::{PublicSigningKey, SecretSigningKey};

use crate::{
    config::Config,
    error::Refusal,
    identity::{KeyFileError, NodeIdentity, load_or_create_key, peer_id},
    node::OpenError,
    random::OsRandom,
    shared_keys::shared_secret,
    store::{Batch, Store, tables},
};

/// File of the key behind the node's server id.
const NODE_KEY: &str = "node.key";
/// File of the key that owns the node's name table.
const TABLE_OWNER_KEY: &str = "names-owner.key";
/// File of the key that signs the node's name table.
const TABLE_WRITER_KEY: &str = "names-writer.key";
/// Bytes of a public key in the store's memory.
const PUBLIC_BYTES: usize = 32;

/// The keys of a node.
pub(crate) struct NodeKeys {
    /// The server ids.
    pub(crate) identity: NodeIdentity,
    /// The key behind the current one; none when the ids were given.
    pub(crate) node: Option<SecretSigningKey>,
    /// Owns the name table.
    pub(crate) table_owner: SecretSigningKey,
    /// Signs the name table.
    pub(crate) table_writer: SecretSigningKey,
}

impl NodeKeys {
    /// Reads the keys, and makes them on a first start.
    ///
    /// # Errors
    /// [`KeyFileError::Missing`] and [`KeyFileError::Exchanged`] when the store knows another key, and what
    /// reading and writing files and rows can fail with.
    pub(crate) async fn open(config: &Config, store: &dyn Store) -> Result<Self, OpenError> {
        if store.is_shared() {
            return Self::shared(config, store).await;
        }
        let Some(folder) = config.data.as_deref() else {
            // Nothing to keep them in: keys of this process.
            let key = || SecretSigningKey::generate(&mut OsRandom);
            let node = config.server_ids.is_empty().then(key);
            let ids = NodeIdentity::from_ids(config.server_ids.clone());
            let own = || node.as_ref().map(|key| NodeIdentity::of_key(&key.public()));
            return Ok(Self {
                identity: ids
                    .or_else(own)
                    .unwrap_or_else(|| NodeIdentity::of_key(&key().public())),
                node,
                table_owner: key(),
                table_writer: key(),
            });
        };
        let table_owner = key(folder, TABLE_OWNER_KEY, store, false).await?.0;
        let table_writer = key(folder, TABLE_WRITER_KEY, store, false).await?.0;
        let (identity, node) = match NodeIdentity::from_ids(config.server_ids.clone()) {
            Some(identity) => (identity, None),
            None => {
                let (key, before) =
                    key(folder, NODE_KEY, store, config.allows_new_identity).await?;
                let current = peer_id(&key.public());
                let ids = before.iter().map(peer_id).chain([current]).collect();
                // There is at least the current one.
                let identity = NodeIdentity::from_ids(ids)
                    .unwrap_or_else(|| NodeIdentity::of_key(&key.public()));
                (identity, Some(key))
            }
        };
        Ok(Self {
            identity,
            node,
            table_owner,
            table_writer,
        })
    }
}

impl NodeKeys {
    /// Reads the keys that all processes on a data set have in common.
    async fn shared(config: &Config, store: &dyn Store) -> Result<Self, OpenError> {
        let folder = config.data.as_deref();
        let key = async |file| {
            let seed = shared_secret(store, folder, file).await?;
            Ok::<_, OpenError>(SecretSigningKey::from_seed(&seed))
        };
        let (identity, node) = match NodeIdentity::from_ids(config.server_ids.clone()) {
            Some(identity) => (identity, None),
            None => {
                let key = key(NODE_KEY).await?;
                (NodeIdentity::of_key(&key.public()), Some(key))
            }
        };
        Ok(Self {
            identity,
            node,
            table_owner: key(TABLE_OWNER_KEY).await?,
            table_writer: key(TABLE_WRITER_KEY).await?,
        })
    }
}

/// Reads a key, or makes it when the store knows none; returns those it replaced too.
async fn key(
    folder: &Path,
    file: &str,
    store: &dyn Store,
    allows_new: bool,
) -> Result<(SecretSigningKey, Vec<PublicSigningKey>), OpenError> {
    let path = folder.join(file);
    let row_key = format!("public {file}").into_bytes();
    let row = store.get(tables::NODE, &row_key).await?;
    let mut known = remembered(row.as_deref())?;
    let is_there = path.exists();
    // Folders of before this memory: whatever holds names belongs to a key.
    let is_used = !known.is_empty() || !store.scan(tables::CHAINS, b"", None, 1).await?.is_empty();
    if !is_there && is_used && !allows_new {
        return Err(KeyFileError::Missing { path }.into());
    }
    let key = load_or_create_key(folder, file)?;
    if known.last() == Some(&key.public()) {
        known.pop();
        return Ok((key, known));
    }
    if !known.is_empty() && !allows_new {
        return Err(KeyFileError::Exchanged { path }.into());
    }
    known.retain(|before| *before != key.public());
    let all: Vec<u8> = known
        .iter()
        .chain([&key.public()])
        .flat_map(|key| *key.as_bytes())
        .collect();
    let batch =
        Batch::new()
            .expect(tables::NODE, row_key.clone(), row)
            .put(tables::NODE, row_key, all);
    if !store.commit(batch).await?.is_committed() {
        return Err(Refusal::internal("two processes make the keys of one node").into());
    }
    Ok((key, known))
}

fn remembered(row: Option<&[u8]>) -> Result<Vec<PublicSigningKey>, OpenError> {
    let (keys, rest) = row.unwrap_or_default().as_chunks::<PUBLIC_BYTES>();
    if !rest.is_empty() {
        let damaged = crate::store::StoreError::DamagedRow { row: "public key" };
        return Err(damaged.into());
    }
    Ok(keys
        .iter()
        .copied()
        .map(PublicSigningKey::from_bytes)
        .collect())
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;
    use crate::{node::Node, store::MemoryStore};

    async fn open(
        folder: &Path,
        store: &Arc<MemoryStore>,
        allows_new_identity: bool,
    ) -> Result<Node, OpenError> {
        let config = Config {
            data: Some(folder.to_path_buf()),
            allows_new_identity,
            ..Config::default()
        };
        Node::with_store(config, store.clone()).await
    }

    #[tokio::test]
    async fn rel_23_a_lost_or_exchanged_identity_is_never_replaced_silently() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new());
        let first = open(folder.path(), &store, false)
            .await
            .unwrap()
            .id()
            .clone();
        let again = open(folder.path(), &store, false)
            .await
            .unwrap()
            .id()
            .clone();
        assert_eq!(first, again);

        let path = folder.path().join(NODE_KEY);
        let kept = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(matches!(
            open(folder.path(), &store, false).await,
            Err(OpenError::Key(KeyFileError::Missing { .. }))
        ));
        assert!(!path.exists(), "nothing was made");
        load_or_create_key(folder.path(), NODE_KEY).unwrap();
        assert!(matches!(
            open(folder.path(), &store, false).await,
            Err(OpenError::Key(KeyFileError::Exchanged { .. }))
        ));
        // On purpose it is: the id of before still names this node.
        let second = open(folder.path(), &store, true).await.unwrap();
        assert_ne!(*second.id(), first);
        assert_eq!(
            second.state().identity.all(),
            [first.clone(), second.id().clone()]
        );
        let third = open(folder.path(), &store, false).await.unwrap();
        assert_eq!(third.state().identity.all(), second.state().identity.all());
        // And the old key can come back the same way.
        fs::write(&path, kept).unwrap();
        assert!(open(folder.path(), &store, false).await.is_err());
        let back = open(folder.path(), &store, true).await.unwrap();
        assert_eq!(*back.id(), first);
    }

    #[tokio::test]
    async fn rel_23_the_name_table_keeps_its_keys_whatever_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new());
        open(folder.path(), &store, false).await.unwrap();
        for file in [TABLE_OWNER_KEY, TABLE_WRITER_KEY] {
            let path = folder.path().join(file);
            let kept = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            assert!(matches!(
                open(folder.path(), &store, true).await,
                Err(OpenError::Key(KeyFileError::Missing { .. }))
            ));
            fs::write(&path, kept).unwrap();
            set_private(&path);
        }
        open(folder.path(), &store, false).await.unwrap();
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn sc_7_keys_that_others_can_read_are_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new());
        open(folder.path(), &store, false).await.unwrap();
        for file in [NODE_KEY, TABLE_OWNER_KEY, TABLE_WRITER_KEY] {
            let path = folder.path().join(file);
            for mode in [0o644, 0o640, 0o604, 0o602] {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                assert!(matches!(
                    open(folder.path(), &store, false).await,
                    Err(OpenError::Key(KeyFileError::Exposed { .. }))
                ));
            }
            set_private(&path);
        }
        open(folder.path(), &store, false).await.unwrap();
    }

    fn set_private(path: &Path) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}
