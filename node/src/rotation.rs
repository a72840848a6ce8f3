//! A node takes a new identity and goes on answering for the one before (Spec: 11 §2.4).
//!
//! In this order: the next key is written beside the present one; the present one is written under a name of its own, to
//! sign the record of its id with as long as somebody's claim names it; one commit stores that record, which names the
//! next identity, the first record of that, and the list of the node's keys; the next key gets the name of the present
//! one. Whatever step a run ends at, [`finish`] goes on from there when the node starts, so there is no moment at
//! which the node does not know who it is.

use std::{fs, io, path::Path};

use libp2p::identity::Keypair;
use pki::{
    keys::{PublicSigningKey, SecretSigningKey},
    node_identity::id_of_key,
};

use crate::{
    error::Refusal,
    identity::{KeyFileError, load_or_create_key, write_durably},
    node::OpenError,
    node_keys::{NODE_KEY, public_row, remembered},
    p2p::{self, PeerId},
    store::{Batch, Store, tables},
};

/// File of the key that is to follow the present one.
pub(crate) const NEXT_KEY: &str = "node.key.next";

/// Gives the node of a data folder a new identity, used from its next start on; returns the new id.
///
/// Nothing else may change the keys of the folder meanwhile.
///
/// # Errors
/// What reading and writing files and rows can fail with. Once the next key is written, the next start finishes what
/// was begun.
pub(crate) async fn rotate(
    folder: &Path,
    store: &dyn Store,
    now_seconds: i64,
) -> Result<PeerId, OpenError> {
    let next = load_or_create_key(folder, NEXT_KEY)?;
    finish(folder, store, now_seconds).await?;
    PeerId::from_cid(&id_of_key(&next.public())).map_err(|error| Refusal::internal(error).into())
}

/// Finishes a change of identity that was begun; nothing to do when none was.
///
/// # Errors
/// As [`rotate`].
pub(crate) async fn finish(
    folder: &Path,
    store: &dyn Store,
    now_seconds: i64,
) -> Result<(), OpenError> {
    if !folder.join(NEXT_KEY).exists() {
        return Ok(());
    }
    let next = load_or_create_key(folder, NEXT_KEY)?;
    let is_there = folder.join(NODE_KEY).exists();
    let present = is_there.then(|| load_or_create_key(folder, NODE_KEY));
    let row = store.get(tables::NODE, &public_row(NODE_KEY)).await?;
    let known = remembered(row.as_deref())?;
    let last = known.last();
    match present.transpose()? {
        Some(present) if last == Some(&present.public()) => {
            keep(folder, &present)?;
            commit(store, row, &present, &next, now_seconds).await?;
        }
        // Committed: only the name is missing.
        _ if last == Some(&next.public()) => {}
        // The key was lost or exchanged, and whoever reads it says so.
        _ => return Ok(()),
    }
    let (from, to) = (folder.join(NEXT_KEY), folder.join(NODE_KEY));
    fs::rename(&from, &to)
        .and_then(|()| fs::File::open(folder)?.sync_all())
        .map_err(|source| KeyFileError::Io { path: from, source })?;
    tracing::info!(id = %id_of_key(&next.public()), "this node has a new identity");
    Ok(())
}

/// Keeps a key that is about to be replaced.
fn keep(folder: &Path, key: &SecretSigningKey) -> Result<(), OpenError> {
    let file = file_of(&key.public());
    let path = folder.join(&file);
    if path.exists() && load_or_create_key(folder, &file)?.public() == key.public() {
        return Ok(());
    }
    write_durably(folder, &file, key.seed().as_slice())
        .map_err(|source| KeyFileError::Io { path, source }.into())
}

/// Stores in one step what the change of identity is: both records, and which keys the node has had.
async fn commit(
    store: &dyn Store,
    row: Option<bytes::Bytes>,
    present: &SecretSigningKey,
    next: &SecretSigningKey,
    now_seconds: i64,
) -> Result<(), OpenError> {
    let (old, new) = (pair(present)?, pair(next)?);
    let id = |key: &Keypair| PeerId::from(key.public().to_peer_id());
    let (old_row, new_row) = (p2p::record_row(&id(&old)), p2p::record_row(&id(&new)));
    let before = store.get(tables::NODE, &old_row).await?;
    let unsigned =
        || Refusal::rule("The identity record names another identity to follow this one, for good");
    let record =
        p2p::rotated(&old, before.as_deref(), id(&new), now_seconds).ok_or_else(unsigned)?;
    let first = p2p::first_record(&new, now_seconds).ok_or_else(unsigned)?;
    let public = public_row(NODE_KEY);
    let mut keys = row.as_deref().unwrap_or_default().to_vec();
    keys.extend_from_slice(next.public().as_bytes());
    let batch = Batch::new()
        .expect(tables::NODE, public.clone(), row)
        .expect(tables::NODE, old_row.clone(), before)
        .put(tables::NODE, public, keys)
        .put(tables::NODE, old_row, record)
        .put(tables::NODE, new_row, first);
    match store.commit(batch).await?.is_committed() {
        true => Ok(()),
        // The record was renewed at the same moment.
        false => Err(Refusal::Busy.into()),
    }
}

/// Returns the keys of identities that a node has no more, of those whose files are there.
pub(crate) fn keys_before(
    folder: &Path,
    before: &[PublicSigningKey],
) -> Result<Vec<SecretSigningKey>, KeyFileError> {
    let mut found = Vec::new();
    for public in before {
        let file = file_of(public);
        let path = folder.join(&file);
        if !path.exists() {
            continue;
        }
        let key = load_or_create_key(folder, &file)?;
        if key.public() != *public {
            return Err(KeyFileError::Exchanged { path });
        }
        found.push(key);
    }
    Ok(found)
}

/// Returns the name of the file that keeps a key when another one has taken its place.
fn file_of(key: &PublicSigningKey) -> String {
    format!("node-{}.key", id_of_key(key).bare_multihash_text())
}

/// Returns a key as the network uses it.
pub(crate) fn pair(key: &SecretSigningKey) -> Result<Keypair, Refusal> {
    let mut seed = key.seed();
    Keypair::ed25519_from_bytes(seed.as_mut()).map_err(|error| {
        // Any 32 bytes are a key.
        Refusal::internal(io::Error::other(error))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Config, Node, clock::ManualClock, store::MemoryStore};

    const NOW: i64 = 1_795_305_600;

    /// A node that was started once.
    struct Place {
        folder: tempfile::TempDir,
        store: Arc<MemoryStore>,
    }

    impl Place {
        async fn new() -> (Self, PeerId) {
            let place = Self {
                folder: tempfile::tempdir().unwrap(),
                store: Arc::new(MemoryStore::new()),
            };
            let id = place.start().await.current();
            (place, id)
        }

        async fn open(&self) -> Result<Node, OpenError> {
            let config = Config {
                data: Some(self.folder.path().to_path_buf()),
                clock: Arc::new(ManualClock::at(NOW * 1000)),
                ..Config::default()
            };
            Node::with_store(config, self.store.clone()).await
        }

        async fn start(&self) -> Started {
            Started(self.open().await.unwrap())
        }

        fn key(&self, file: &str) -> SecretSigningKey {
            assert!(self.folder.path().join(file).exists(), "{file}");
            load_or_create_key(self.folder.path(), file).unwrap()
        }

        async fn known(&self) -> Option<bytes::Bytes> {
            use crate::store::MetaStore as _;
            let row = public_row(NODE_KEY);
            self.store.get(tables::NODE, &row).await.unwrap()
        }
    }

    struct Started(Node);

    impl Started {
        fn ids(&self) -> Vec<PeerId> {
            let ids = self.0.state().identity.all().iter();
            ids.map(|id| PeerId::from_cid(id).unwrap()).collect()
        }

        fn current(&self) -> PeerId {
            *self.ids().last().unwrap()
        }

        /// Checks that the node goes by `new` and that the record of `old` leads there.
        async fn has_moved(&self, old: PeerId, new: PeerId) {
            assert_eq!(self.ids(), [old, new]);
            let state = self.0.state();
            let record = p2p::stored_record(state, &old).await.unwrap().unwrap();
            assert!(record.resolution.is_rotated);
            assert_eq!(record.next(), Some(new));
            let record = p2p::stored_record(state, &new).await.unwrap().unwrap();
            assert!(!record.resolution.is_rotated);
            assert_eq!(
                (record.resolution.next, record.resolution.sequence),
                (None, 1)
            );
            let proven = state.node_key.as_ref().unwrap().public();
            assert_eq!(PeerId::from_cid(&id_of_key(&proven)), Ok(new));
            let before: Vec<_> = state.keys_before.iter().map(|key| key.public()).collect();
            let before: Vec<_> = before
                .iter()
                .map(id_of_key)
                .map(|id| id.to_string())
                .collect();
            assert_eq!(before, [old.to_cid().to_string()]);
        }
    }

    #[tokio::test]
    async fn a_node_takes_a_new_identity_and_keeps_the_one_before() {
        let (place, old) = Place::new().await;
        let folder = place.folder.path();
        let new = rotate(folder, &*place.store, NOW).await.unwrap();
        assert!(!folder.join(NEXT_KEY).exists());
        place.start().await.has_moved(old, new).await;
        place.start().await.has_moved(old, new).await;
        // Once more: each record leads one step on.
        let newest = rotate(folder, &*place.store, NOW + 1).await.unwrap();
        let started = place.start().await;
        assert_eq!(started.ids(), [old, new, newest]);
        for (from, to) in [(old, new), (new, newest)] {
            let record = p2p::stored_record(started.0.state(), &from).await;
            assert_eq!(record.unwrap().unwrap().moved_to(), Some(to));
        }
        assert_eq!(started.0.state().keys_before.len(), 2);
    }

    /// Every state in which a run can leave the folder and the store.
    #[tokio::test]
    async fn a_change_that_breaks_off_anywhere_is_finished_at_the_next_start() {
        for step in 0..4 {
            let (place, old) = Place::new().await;
            let folder = place.folder.path();
            // What is written first may be there in part.
            fs::write(folder.join(".node.key.next.new"), [1; 7]).unwrap();
            if step == 0 {
                assert_eq!(place.start().await.ids(), [old]);
                continue;
            }
            let next = load_or_create_key(folder, NEXT_KEY).unwrap();
            let new = PeerId::from_cid(&id_of_key(&next.public())).unwrap();
            let present = place.key(NODE_KEY);
            if step >= 2 {
                keep(folder, &present).unwrap();
            }
            if step >= 3 {
                let row = place.known().await;
                commit(&*place.store, row, &present, &next, NOW)
                    .await
                    .unwrap();
            }
            place.start().await.has_moved(old, new).await;
            assert!(!folder.join(NEXT_KEY).exists(), "step {step}");
            place.start().await.has_moved(old, new).await;
        }
    }

    #[tokio::test]
    async fn rel_23_a_key_that_is_lost_or_exchanged_is_not_replaced_by_the_next_one() {
        let (place, _) = Place::new().await;
        let folder = place.folder.path();
        load_or_create_key(folder, NEXT_KEY).unwrap();
        let kept = fs::read(folder.join(NODE_KEY)).unwrap();
        fs::remove_file(folder.join(NODE_KEY)).unwrap();
        assert!(matches!(
            place.open().await,
            Err(OpenError::Key(KeyFileError::Missing { .. }))
        ));
        load_or_create_key(folder, NODE_KEY).unwrap();
        assert!(matches!(
            place.open().await,
            Err(OpenError::Key(KeyFileError::Exchanged { .. }))
        ));
        fs::remove_file(folder.join(NODE_KEY)).unwrap();
        write_durably(folder, NODE_KEY, &kept).unwrap();
        assert_eq!(place.start().await.ids().len(), 2);
    }

    #[tokio::test]
    async fn an_identity_that_was_announced_is_not_replaced_by_another_one() {
        let (place, _) = Place::new().await;
        let present = pair(&place.key(NODE_KEY)).unwrap();
        let announced = pair(&SecretSigningKey::from_seed(&[9; 32])).unwrap();
        let announced = PeerId::from(announced.public().to_peer_id());
        let record = p2p::rotated(&present, None, announced, NOW).unwrap();
        let other = PeerId::from(present.public().to_peer_id());
        assert!(p2p::rotated(&present, Some(&record), other, NOW + 1).is_none());
        assert!(p2p::rotated(&present, Some(&record), announced, NOW + 1).is_some());
    }
}
