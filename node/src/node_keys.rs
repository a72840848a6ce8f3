//! The node's own signing keys, and the store's memory of them (Spec: 40 REL-23).
//!
//! A key lives in a file of the data folder. The store remembers the public keys it was used with, so that a
//! lost or exchanged file is noticed: a new identity would leave every user without a home, and a new owner of
//! the name table would contradict every name. Keys of before stay known, so a node that was given a new
//! identity on purpose ([`crate::rotation`]) is still the home that its users' claims name.

use std::path::Path;

use pki::{
    keys::{PublicSigningKey, SecretSigningKey},
    node_identity::id_of_key,
};

use crate::{
    config::Config,
    error::Refusal,
    identity::{KeyFileError, NodeIdentity, load_or_create_key, write_durably},
    names::{self, NameAuthority, Role},
    node::OpenError,
    random::OsRandom,
    rotation,
    shared_keys::shared_secret,
    store::{Batch, Store, tables},
};

/// File of the key behind the node's server id.
pub(crate) const NODE_KEY: &str = "node.key";
/// File of the key that owns the node's name table.
pub(crate) const TABLE_OWNER_KEY: &str = "names-owner.key";
/// File of the key that signs the node's name table.
pub(crate) const TABLE_WRITER_KEY: &str = "names-writer.key";
/// Bytes of a public key in the store's memory.
const PUBLIC_BYTES: usize = 32;

/// The keys of a node.
pub(crate) struct NodeKeys {
    /// The server ids.
    pub(crate) identity: NodeIdentity,
    /// The key behind the current one; none when the ids were given.
    pub(crate) node: Option<SecretSigningKey>,
    /// The keys behind those before, of which there are files.
    pub(crate) before: Vec<SecretSigningKey>,
    /// Whose names the node follows; `None` for one that gives them out itself.
    pub(crate) follows: Option<NameAuthority>,
    /// The keys of the name table, of a node that gives names out.
    pub(crate) table: Option<TableKeys>,
}

/// The keys of a table of names.
pub(crate) struct TableKeys {
    /// Owns it.
    pub(crate) owner: SecretSigningKey,
    /// Signs it.
    pub(crate) writer: SecretSigningKey,
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
        let folder = config.data.as_deref();
        let given = NodeIdentity::from_ids(config.server_ids.clone());
        let mut keys_before = Vec::new();
        let (identity, node) = match (given, folder) {
            (Some(identity), _) => (identity, None),
            // Nothing to keep keys in: they are this process's.
            (None, None) => {
                let key = SecretSigningKey::generate(&mut OsRandom);
                (NodeIdentity::of_key(&key.public()), Some(key))
            }
            (None, Some(folder)) => {
                rotation::finish(folder, store, config.clock.now_seconds()).await?;
                let (key, before) =
                    key(folder, NODE_KEY, store, config.allows_new_identity).await?;
                keys_before = rotation::keys_before(folder, &before)?;
                let current = id_of_key(&key.public());
                let ids = before.iter().map(id_of_key).chain([current]).collect();
                // There is at least the current one.
                let identity = NodeIdentity::from_ids(ids)
                    .unwrap_or_else(|| NodeIdentity::of_key(&key.public()));
                (identity, Some(key))
            }
        };
        let role = names::role(store, config.name_authority.as_ref(), &identity).await?;
        let (follows, table) = match (role, folder) {
            (Role::Follows(authority), _) => (Some(authority), None),
            (Role::Authority, None) => {
                let key = || SecretSigningKey::generate(&mut OsRandom);
                let (owner, writer) = (key(), key());
                (None, Some(TableKeys { owner, writer }))
            }
            (Role::Authority, Some(folder)) => {
                let known = public_row(TABLE_OWNER_KEY);
                let is_known = store.get(tables::NODE, &known).await?.is_some();
                if !is_known && names::is_bound(store).await? {
                    return Err(OpenError::OtherNames);
                }
                let owner = key(folder, TABLE_OWNER_KEY, store, false).await?.0;
                let writer = key(folder, TABLE_WRITER_KEY, store, false).await?.0;
                (None, Some(TableKeys { owner, writer }))
            }
        };
        Ok(Self {
            identity,
            node,
            before: keys_before,
            follows,
            table,
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
        let role = names::role(store, config.name_authority.as_ref(), &identity).await?;
        let (follows, table) = match role {
            Role::Follows(authority) => (Some(authority), None),
            Role::Authority => {
                let (owner, writer) = (key(TABLE_OWNER_KEY).await?, key(TABLE_WRITER_KEY).await?);
                (None, Some(TableKeys { owner, writer }))
            }
        };
        Ok(Self {
            identity,
            node,
            before: Vec::new(),
            follows,
            table,
        })
    }
}

/// Makes a store of one process know the keys in its data folder that it does not know: they come from a data set that
/// several nodes shared, which remembers its keys in another way.
///
/// # Errors
/// What reading files and writing rows can fail with.
pub(crate) async fn remember_keys(folder: &Path, store: &dyn Store) -> Result<(), OpenError> {
    for file in [NODE_KEY, TABLE_OWNER_KEY, TABLE_WRITER_KEY] {
        if !folder.join(file).exists() {
            continue;
        }
        let public = load_or_create_key(folder, file)?.public();
        let row_key = public_row(file);
        let batch = Batch::new()
            .expect_absent(tables::NODE, row_key.clone())
            .put(tables::NODE, row_key, public.as_bytes().to_vec());
        // What is known already stays: the start compares it.
        let _ = store.commit(batch).await.map_err(Refusal::from)?;
    }
    Ok(())
}

/// Puts the keys of a table of names into the data folder of a node that has none, and makes the store know them.
///
/// # Errors
/// When the node has other keys, and what writing files and rows can fail with.
pub(crate) async fn install_table_keys(
    folder: &Path,
    store: &dyn Store,
    keys: &TableKeys,
) -> Result<(), OpenError> {
    for (file, wanted) in [
        (TABLE_OWNER_KEY, &keys.owner),
        (TABLE_WRITER_KEY, &keys.writer),
    ] {
        let path = folder.join(file);
        if path.exists() {
            if load_or_create_key(folder, file)?.public() != wanted.public() {
                return Err(KeyFileError::Exchanged { path }.into());
            }
        } else {
            write_durably(folder, file, wanted.seed().as_slice())
                .map_err(|source| KeyFileError::Io { path, source })?;
        }
        let row_key = public_row(file);
        let row = wanted.public().as_bytes().to_vec();
        let batch = Batch::new().put(tables::NODE, row_key, row);
        if !store
            .commit(batch)
            .await
            .map_err(Refusal::from)?
            .is_committed()
        {
            return Err(Refusal::Busy.into());
        }
    }
    Ok(())
}

/// Reads a key, or makes it when the store knows none; returns those it replaced too.
async fn key(
    folder: &Path,
    file: &str,
    store: &dyn Store,
    allows_new: bool,
) -> Result<(SecretSigningKey, Vec<PublicSigningKey>), OpenError> {
    let path = folder.join(file);
    let row_key = public_row(file);
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

/// Returns the row with the public keys that the key of a file is the last of.
pub(crate) fn public_row(file: &str) -> Vec<u8> {
    format!("public {file}").into_bytes()
}

/// Reads such a row: the keys, oldest first.
pub(crate) fn remembered(row: Option<&[u8]>) -> Result<Vec<PublicSigningKey>, OpenError> {
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
