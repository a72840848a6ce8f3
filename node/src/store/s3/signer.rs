//! Permits to transfer single blocks, signed with the node's key (Spec: 06 §9.4, 40 PRV-11).

use std::sync::Arc;

use champ::Cid;
use object_store::aws::AwsCredentialProvider;

use super::{
    S3Options,
    names::Names,
    sign::{Key, Target, presigned_get, presigned_put},
};
use crate::store::{
    Clock, DirectOffer, Partition, SignedRequest, StoreError, split::RequestSigner,
};

pub(super) struct Signer {
    scheme: String,
    host: String,
    /// Path of the bucket: `/`, or `/<bucket>/`.
    base_path: String,
    region: String,
    base_url: String,
    names: Names,
    credentials: AwsCredentialProvider,
    clock: Clock,
}

impl Signer {
    pub(super) fn new(
        options: &S3Options,
        names: Names,
        credentials: AwsCredentialProvider,
        clock: Clock,
    ) -> Self {
        let (scheme, host) = options.scheme_and_host();
        Self {
            base_path: match options.is_path_style() {
                true => format!("/{}/", options.bucket),
                false => "/".to_owned(),
            },
            region: options.region().to_owned(),
            base_url: options.base_url(),
            scheme,
            host,
            names,
            credentials,
            clock,
        }
    }

    async fn key(&self) -> Result<Key, StoreError> {
        let credential =
            self.credentials
                .get_credential()
                .await
                .map_err(|error| StoreError::Objects {
                    operation: "find credentials",
                    source: Arc::new(error),
                })?;
        Ok(Key {
            id: credential.key_id.clone(),
            secret: credential.secret_key.clone(),
            session: credential.token.clone(),
        })
    }

    fn path(&self, partition: &Partition, cid: &Cid) -> String {
        format!("{}{}", self.base_path, self.names.block(partition, cid))
    }

    fn target<'a>(&'a self, path: &'a str) -> Target<'a> {
        Target {
            scheme: &self.scheme,
            host: &self.host,
            path,
            region: &self.region,
        }
    }
}

#[async_trait::async_trait]
impl RequestSigner for Signer {
    fn offer(&self) -> DirectOffer {
        DirectOffer {
            writes: true,
            reads: true,
            base_url: self.base_url.clone(),
            origin: format!("{}://{}", self.scheme, self.host),
        }
    }

    async fn sign_write(
        &self,
        partition: &Partition,
        cid: &Cid,
        size_bytes: u32,
    ) -> Result<SignedRequest, StoreError> {
        let digest = cid
            .hash()
            .sha2_256_digest()
            .ok_or(StoreError::Misuse(crate::store::Misuse::IdentityBlock))?;
        let path = self.path(partition, cid);
        let (key, now) = (self.key().await?, (self.clock)());
        Ok(presigned_put(
            &key,
            self.target(&path),
            digest,
            size_bytes,
            now,
        ))
    }

    async fn sign_read(
        &self,
        partition: &Partition,
        cid: &Cid,
    ) -> Result<SignedRequest, StoreError> {
        let path = self.path(partition, cid);
        let (key, now) = (self.key().await?, (self.clock)());
        Ok(presigned_get(&key, self.target(&path), now))
    }
}
