//! Blocks in a bucket of any S3-compatible store; metadata stays in another engine.
//!
//! The store sees ciphertext, sizes and times, and user names as folders: what a disk would show. It is never
//! asked what it holds: the index knows. Every block is checked against its name when it is read.
//! How to use it: `docs/s3.md`.
//!
//! Spec: 06 §9, 12 §1, §4.4, 40 PRV-11, P2P-2.

mod cache;
mod credentials;
mod failure;
mod http;
mod names;
mod objects;
mod options;
mod probe;
mod sign;
mod signer;

pub use cache::CacheCounts;
pub use credentials::{S3Credentials, S3Key};
pub use options::{BadS3Url, S3Options};
pub(crate) use probe::MARKER_KEY as BUCKET_ROW;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut},
};
use tokio::sync::Semaphore;

use self::{cache::Cached, http::Connector, names::Names, objects::Objects, signer::Signer};
use super::{
    Clock, MetaEngine, StoreError,
    split::{BlockBytes, RequestSigner, SplitStore},
};

/// Attempts of the questions asked at start: somebody is waiting for the answer.
const PROBE_RETRIES: usize = 2;

/// An open bucket: what a [`SplitStore`] is made of.
pub struct S3Blocks {
    bytes: Arc<dyn BlockBytes>,
    signer: Option<Arc<dyn RequestSigner>>,
    cache: Option<Arc<CacheCounts>>,
}

impl std::fmt::Debug for S3Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Blocks").finish_non_exhaustive()
    }
}

impl S3Blocks {
    /// Checks that the bucket works and belongs to this metadata.
    ///
    /// `cache_folder` is used when the options ask for a cache; what is in it from before is kept.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] with what to do about it, and failures of metadata and disk.
    pub async fn open(
        options: &S3Options,
        meta: &dyn MetaEngine,
        cache_folder: Option<PathBuf>,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let names = Names::new(&options.prefix).map_err(|error| StoreError::Unusable {
            reason: error.to_string(),
        })?;
        options.check()?;
        let quick = client(options, PROBE_RETRIES, false)?;
        probe::works(&quick, &names, options).await?;
        probe::is_ours(&quick, &names, options, meta).await?;
        let store = client(options, options.max_retries, false)?;
        let signer = options.direct_access.then(|| {
            let credentials = Arc::clone(store.credentials());
            Arc::new(Signer::new(options, names.clone(), credentials, clock))
                as Arc<dyn RequestSigner>
        });
        let objects = Objects {
            store,
            one_by_one: client(options, options.max_retries, true)?,
            names,
            slots: Semaphore::new(options.max_requests.clamp(1, 1024)),
            is_bulk_refused: AtomicBool::new(false),
        };
        let objects: Arc<dyn BlockBytes> = Arc::new(objects);
        let (bytes, cache) = match cache_folder.filter(|_| options.cache_bytes > 0) {
            Some(folder) => {
                let cached = Cached::open(objects, folder, options.cache_bytes).await?;
                let counts = cached.counts();
                (Arc::new(cached) as Arc<dyn BlockBytes>, Some(counts))
            }
            None => (objects, None),
        };
        tracing::info!(place = %options.place(), direct = options.direct_access, cache_bytes = options.cache_bytes, "blocks are kept in an object store");
        Ok(Self {
            bytes,
            signer,
            cache,
        })
    }

    /// Returns the counters of the read cache, if there is one.
    pub fn cache(&self) -> Option<Arc<CacheCounts>> {
        self.cache.clone()
    }

    /// Joins the bucket with the metadata that it was opened for.
    pub fn with_metadata(self, meta: Arc<dyn MetaEngine>, clock: Clock) -> SplitStore {
        SplitStore::new(meta, self.bytes, self.signer, clock)
    }
}

fn client(
    options: &S3Options,
    max_retries: usize,
    one_by_one: bool,
) -> Result<AmazonS3, StoreError> {
    let unusable = |error: object_store::Error| StoreError::Unusable {
        reason: error.to_string(),
    };
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: options.first_retry_delay,
            max_backoff: options.first_retry_delay * 32,
            base: 2.0,
        },
        max_retries,
        // Below the life of a signature, which is not renewed between attempts.
        retry_timeout: std::time::Duration::from_secs(180),
    };
    let url = options.base_url();
    let builder = AmazonS3Builder::new()
        .with_bucket_name(&options.bucket)
        .with_region(options.region())
        .with_virtual_hosted_style_request(!options.is_path_style())
        .with_endpoint(match options.is_path_style() {
            true => options.endpoint_url(),
            false => url.trim_end_matches('/').to_owned(),
        })
        .with_allow_http(url.starts_with("http://"))
        .with_client_options(ClientOptions::new().with_allow_http(url.starts_with("http://")))
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_disable_tagging(true)
        .with_disable_bulk_delete(one_by_one)
        .with_retry(retry)
        .with_http_connector(Connector {
            request_timeout: options.request_timeout,
        });
    options
        .credentials
        .apply(builder)?
        .build()
        .map_err(unusable)
}
