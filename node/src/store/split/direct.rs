//! Permits for clients: what is allowed is noted before anybody is allowed anything.

use champ::{Cid, access::BatId};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Inner, MAX_ATTEMPTS, PARALLEL_TRANSFERS, SplitStore,
    index::{Change, distinct},
    row::{Row, State},
};
use crate::store::{
    AnnouncedBlock, DirectAccess, DirectOffer, Partition, SignedRequest, StoreError, TransactionId,
};

/// Signs requests to the place where bytes are kept.
#[async_trait::async_trait]
pub trait RequestSigner: Send + Sync {
    /// Returns what is offered.
    fn offer(&self) -> DirectOffer;

    /// Allows to write exactly the bytes with this hash and this length.
    ///
    /// # Errors
    /// When there are no credentials to sign with.
    async fn sign_write(
        &self,
        partition: &Partition,
        cid: &Cid,
        size_bytes: u32,
    ) -> Result<SignedRequest, StoreError>;

    /// Allows to read one block.
    ///
    /// # Errors
    /// When there are no credentials to sign with.
    async fn sign_read(
        &self,
        partition: &Partition,
        cid: &Cid,
    ) -> Result<SignedRequest, StoreError>;
}

impl Inner {
    fn signer(&self) -> Result<&dyn RequestSigner, StoreError> {
        self.signer.as_deref().ok_or(StoreError::Closed)
    }

    async fn ids_of(
        &self,
        partition: &Partition,
        cid: &Cid,
        row: Option<Row>,
    ) -> Result<Option<Vec<BatId>>, StoreError> {
        Ok(match row {
            Some(row) if row.is_live() => row.ids,
            Some(row) if row.state == State::Expected => {
                let row = self.arrived(partition, cid, row).await?;
                row.and_then(|row| row.ids)
            }
            _ => None,
        })
    }

    /// Notes blocks as expected, and protects those that are stored already.
    async fn expect(
        &self,
        partition: &Partition,
        blocks: &[(Cid, AnnouncedBlock)],
        transaction: &TransactionId,
    ) -> Result<(), StoreError> {
        let cids: Vec<Cid> = blocks.iter().map(|(cid, _)| cid.clone()).collect();
        for _ in 0..MAX_ATTEMPTS {
            let rows = self.quiet_rows(partition, &cids).await?;
            let changes: Vec<Change> = blocks
                .iter()
                .zip(rows)
                .map(|((cid, block), old)| {
                    let new = match &old {
                        Some(row) if row.is_live() => row.clone(),
                        _ => Row {
                            state: State::Expected,
                            generation: 0,
                            since: 0,
                            size_bytes: block.size_bytes,
                            ids: Some(block.ids.clone()),
                        },
                    };
                    Change {
                        cid: cid.clone(),
                        new: Some(Row {
                            generation: self.index.next_generation(old.as_ref()),
                            since: self.index.seconds(),
                            ..new
                        }),
                        old,
                    }
                })
                .collect();
            if self
                .index
                .change(partition, &changes, Some(transaction))
                .await?
            {
                return Ok(());
            }
        }
        Err(StoreError::Contended)
    }
}

#[async_trait::async_trait]
impl DirectAccess for SplitStore {
    fn offer(&self) -> DirectOffer {
        match &self.inner.signer {
            Some(signer) => signer.offer(),
            None => DirectOffer {
                writes: false,
                reads: false,
                base_url: String::new(),
                origin: String::new(),
            },
        }
    }

    async fn authorise_writes(
        &self,
        partition: &Partition,
        blocks: Vec<AnnouncedBlock>,
        transaction: &TransactionId,
    ) -> Result<Vec<SignedRequest>, StoreError> {
        self.inner.check_open()?;
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        let noted = distinct(
            blocks
                .iter()
                .map(|block| (block.cid.clone(), block.clone())),
        );
        self.inner.expect(partition, &noted, transaction).await?;
        let signer = self.inner.signer()?;
        let mut requests = Vec::with_capacity(blocks.len());
        for block in &blocks {
            requests.push(
                signer
                    .sign_write(partition, &block.cid, block.size_bytes)
                    .await?,
            );
        }
        Ok(requests)
    }

    async fn access_ids(
        &self,
        partition: &Partition,
        cids: &[Cid],
    ) -> Result<Vec<Option<Vec<BatId>>>, StoreError> {
        self.inner.check_open()?;
        let inner = &self.inner;
        let rows = inner.index.rows(partition, cids.iter()).await?;
        let looked_up: Vec<_> = cids
            .iter()
            .zip(rows)
            .map(|(cid, row)| inner.ids_of(partition, cid, row))
            .collect();
        stream::iter(looked_up)
            .buffered(PARALLEL_TRANSFERS)
            .try_collect()
            .await
    }

    async fn authorise_reads(
        &self,
        partition: &Partition,
        cids: &[Cid],
    ) -> Result<Vec<SignedRequest>, StoreError> {
        self.inner.check_open()?;
        let signer = self.inner.signer()?;
        let mut requests = Vec::with_capacity(cids.len());
        for cid in cids {
            requests.push(signer.sign_read(partition, cid).await?);
        }
        Ok(requests)
    }
}
