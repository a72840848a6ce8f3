//! The bytes of blocks as objects of a bucket.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use champ::{Block, Cid, MAX_BLOCK_BYTES};
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutPayload, aws::AmazonS3, path::Path,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    failure::{Answer, failed},
    names::Names,
};
use crate::store::{
    Partition, StoreError,
    split::{BlockBytes, BlockHead, HEAD_BYTES, ListedBytes},
};

/// Deletions of single objects that one call has in flight.
const PARALLEL_DELETIONS: usize = 16;

/// A bucket, or the part of it below a prefix.
pub(super) struct Objects {
    pub(super) store: AmazonS3,
    /// The same bucket, for services that cannot delete many objects at once.
    pub(super) one_by_one: AmazonS3,
    pub(super) names: Names,
    /// Bounds the requests of all calls together.
    pub(super) slots: Semaphore,
    /// The service has refused to delete many objects at once.
    pub(super) is_bulk_refused: AtomicBool,
}

impl Objects {
    async fn slot(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        self.slots.acquire().await.map_err(|_| StoreError::Closed)
    }

    /// Reads an object, or its beginning; `None` when it is not there.
    async fn fetch(
        &self,
        path: &Path,
        range: Option<GetRange>,
    ) -> Result<Option<(u64, Bytes)>, StoreError> {
        let _slot = self.slot().await?;
        let options = GetOptions {
            range,
            ..GetOptions::default()
        };
        let operation = "read a block";
        let result = match self.store.get_opts(path, options).await {
            Ok(result) => result,
            Err(error) => {
                let answer = Answer::of(&error);
                if answer.is_absent_object(&error) {
                    return Ok(None);
                }
                // The range of an empty object cannot be satisfied; no block is empty.
                if answer.status == Some(416) {
                    return Ok(Some((0, Bytes::new())));
                }
                return Err(failed(operation, error));
            }
        };
        let size = result.meta.size;
        let bytes = result
            .bytes()
            .await
            .map_err(|error| failed(operation, error))?;
        Ok(Some((size, bytes)))
    }

    async fn remove_all(
        &self,
        store: &AmazonS3,
        paths: &[Path],
    ) -> Vec<object_store::Result<Path>> {
        let paths = stream::iter(paths.to_vec()).map(Ok).boxed();
        store.delete_stream(paths).collect().await
    }

    async fn remove_singly(&self, paths: &[Path]) -> Vec<Result<(), StoreError>> {
        // Each on its own: a stream of deletions ends with the first failure.
        let deletions: Vec<_> = paths.iter().map(|path| self.remove_one(path)).collect();
        stream::iter(deletions)
            .buffered(PARALLEL_DELETIONS)
            .collect()
            .await
    }

    async fn remove_one(&self, path: &Path) -> Result<(), StoreError> {
        let _slot = self.slot().await?;
        match self.one_by_one.delete(path).await {
            Ok(()) => Ok(()),
            Err(error) if Answer::of(&error).is_absent_object(&error) => Ok(()),
            Err(error) => Err(failed("delete a block", error)),
        }
    }
}

#[async_trait::async_trait]
impl BlockBytes for Objects {
    async fn put(&self, partition: &Partition, block: &Block) -> Result<(), StoreError> {
        let path = self.names.block(partition, block.cid());
        let _slot = self.slot().await?;
        self.store
            .put(&path, PutPayload::from(block.bytes().clone()))
            .await
            .map(drop)
            .map_err(|error| failed("write a block", error))
    }

    async fn get(&self, partition: &Partition, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        let path = self.names.block(partition, cid);
        // One byte more than any block has shows that an object is too long, without reading all of it.
        let range = GetRange::Bounded(0..MAX_BLOCK_BYTES as u64 + 1);
        let found = self.fetch(&path, Some(range)).await?;
        Ok(found.map(|(_, bytes)| bytes))
    }

    async fn head(
        &self,
        partition: &Partition,
        cid: &Cid,
    ) -> Result<Option<BlockHead>, StoreError> {
        let path = self.names.block(partition, cid);
        let range = GetRange::Bounded(0..HEAD_BYTES as u64);
        let found = self.fetch(&path, Some(range)).await?;
        Ok(found.map(|(size_bytes, head)| BlockHead { size_bytes, head }))
    }

    fn list(&self) -> BoxStream<'_, Result<ListedBytes, StoreError>> {
        let objects = self.store.list(self.names.root().as_ref());
        let listed = objects.try_filter_map(move |object| async move {
            // What is no block's name is nobody's business here: it may be of another program.
            let block = self.names.parsed(&object.location);
            Ok(block.map(|(partition, cid)| ListedBytes {
                partition,
                cid,
                size_bytes: object.size,
                modified: object.last_modified.into(),
            }))
        });
        listed
            .map_err(|error| failed("list the blocks", error))
            .boxed()
    }

    async fn remove(&self, partition: &Partition, cids: &[Cid]) -> Vec<Result<(), StoreError>> {
        let paths: Vec<Path> = cids
            .iter()
            .map(|cid| self.names.block(partition, cid))
            .collect();
        if paths.is_empty() {
            return Vec::new();
        }
        if self.is_bulk_refused.load(Ordering::Relaxed) {
            return self.remove_singly(&paths).await;
        }
        let results = match self.slot().await {
            Ok(_slot) => self.remove_all(&self.store, &paths).await,
            Err(error) => return vec![Err(error); paths.len()],
        };
        if results.len() == paths.len() && results.iter().all(Result::is_ok) {
            return vec![Ok(()); paths.len()];
        }
        // The request failed as a whole, or some of its objects did.
        if let Some(error) = results.iter().find_map(|result| result.as_ref().err())
            && Answer::of(error).is_unknown_call()
        {
            tracing::warn!("the object store deletes only one object at a time");
            self.is_bulk_refused.store(true, Ordering::Relaxed);
            return self.remove_singly(&paths).await;
        }
        if results.len() == paths.len() {
            return results
                .into_iter()
                .map(|result| {
                    result
                        .map(drop)
                        .map_err(|error| failed("delete a block", error))
                })
                .collect();
        }
        let failure = results
            .into_iter()
            .find_map(Result::err)
            .map(|error| failed("delete blocks", error))
            .unwrap_or(StoreError::Contended);
        vec![Err(failure); paths.len()]
    }
}
