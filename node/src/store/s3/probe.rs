//! The questions a node asks before it trusts a bucket: does it work, and is it ours.

use bytes::Bytes;
use champ::text::to_hex;
use object_store::{ObjectStoreExt as _, PutMode, PutOptions, PutPayload, aws::AmazonS3};

use super::{S3Options, failure::Answer, failure::explained, names::Names};
use crate::{
    random::random,
    store::{Batch, CommitOutcome, MetaEngine, StoreError, tables},
};

/// Name of the object that says which data set the blocks below a prefix belong to.
const MARKER: &str = "data-set";
/// Key of the same in the metadata.
pub(crate) const MARKER_KEY: &[u8] = b"object store data set";
/// What the metadata says before the marker is known to be written.
const UNCONFIRMED: u8 = b'?';

/// Writes, reads and deletes an object.
pub(super) async fn works(
    store: &AmazonS3,
    names: &Names,
    options: &S3Options,
) -> Result<(), StoreError> {
    let place = options.place();
    let explain = |error| explained(&error, &options.bucket, &place);
    let path = names.own(&format!("probe-{}", to_hex(&random::<8>())));
    let content = Bytes::copy_from_slice(&random::<32>());
    store
        .put(&path, PutPayload::from(content.clone()))
        .await
        .map_err(explain)?;
    let read = async { store.get(&path).await?.bytes().await };
    let read = read.await.map_err(explain)?;
    store.delete(&path).await.map_err(explain)?;
    if read != content {
        return Err(StoreError::Unusable {
            reason: format!("{place} answered with other bytes than were written"),
        });
    }
    Ok(())
}

/// Checks that the blocks below the prefix belong to this metadata, and claims a fresh prefix.
///
/// Two data sets below one prefix would delete each other's blocks (Spec: 12 §4.4). Nodes that share the
/// metadata share the data set.
pub(super) async fn is_ours(
    store: &AmazonS3,
    names: &Names,
    options: &S3Options,
    meta: &dyn MetaEngine,
) -> Result<(), StoreError> {
    let place = options.place();
    let explain = |error| explained(&error, &options.bucket, &place);
    let unusable = |reason: String| Err(StoreError::Unusable { reason });
    let path = names.own(MARKER);
    let known = meta.get(tables::NODE, MARKER_KEY).await?;
    let marker = match store.get(&path).await {
        Ok(found) => Some(found.bytes().await.map_err(explain)?),
        Err(error) if Answer::of(&error).is_absent_object(&error) => None,
        Err(error) => return Err(explain(error)),
    };
    let id = match known {
        Some(known) if known.first() != Some(&UNCONFIRMED) => {
            return match marker {
                Some(marker) if marker == known => Ok(()),
                Some(_) => unusable(format!(
                    "{place} holds the blocks of another data set; give each node a prefix of its own"
                )),
                None => unusable(format!(
                    "{place} does not hold the blocks of this node (its object {path} is missing); check bucket and prefix"
                )),
            };
        }
        // A start that broke off before it was certain.
        Some(unconfirmed) => unconfirmed.slice(1..),
        None => {
            let id = Bytes::from(to_hex(&random::<16>()));
            let noted = [&[UNCONFIRMED], id.as_ref()].concat();
            let batch = Batch::new().expect_absent(tables::NODE, MARKER_KEY).put(
                tables::NODE,
                MARKER_KEY,
                noted,
            );
            match meta.commit(batch).await? {
                CommitOutcome::Committed => id,
                // Another node began on the same metadata in this moment.
                CommitOutcome::ConditionFailed { actual, .. } => {
                    let theirs = actual.unwrap_or_default();
                    match theirs.first() {
                        Some(&UNCONFIRMED) => theirs.slice(1..),
                        _ => theirs,
                    }
                }
            }
        }
    };
    if marker.is_none() {
        let create = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        let payload = || PutPayload::from(id.clone());
        use object_store::ObjectStore as _;
        match store.put_opts(&path, payload(), create).await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
            // Not every service knows conditions; the read below shows who was last.
            Err(_) => {
                store.put(&path, payload()).await.map_err(explain)?;
            }
        }
    }
    let found = async { store.get(&path).await?.bytes().await };
    if found.await.map_err(explain)? != id {
        return unusable(format!(
            "{place} holds the blocks of another data set; give each node a prefix of its own"
        ));
    }
    let noted = [&[UNCONFIRMED], id.as_ref()].concat();
    let batch = Batch::new()
        .expect(tables::NODE, MARKER_KEY, Some(noted))
        .put(tables::NODE, MARKER_KEY, id);
    // Somebody else who was certain first came to the same end.
    let _ = meta.commit(batch).await?;
    Ok(())
}
