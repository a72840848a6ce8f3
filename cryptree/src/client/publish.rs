//! Making files public, and taking that back (Spec: 04 §7, 23).
//!
//! What was public once may have been copied: taking it back only ends the handing out.

use champ::cbor::Record as _;
use pki::published::{
    PublishError, PublishedCapability, PublishedPath, Rewritten, publish, unpublish,
};
use std::sync::Arc;

use super::{
    draft::Draft,
    path::RemotePath,
    session::{Account, Session},
    snapshot::Snapshot,
};
use crate::error::ClientError;

enum Change {
    Publish,
    Unpublish,
}

impl Session {
    /// Lets anybody, also without an account, read the file or folder at `path` and everything below it.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::Exists`] when a folder above is public already, and
    /// [`ClientError::IllegalPath`] for the home folder.
    pub async fn publish(&self, path: &str) -> Result<(), ClientError> {
        self.change_public(path, &Change::Publish).await
    }

    /// Takes a publication back. Whoever has the link may still read until the keys of the item change.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when it is not public.
    pub async fn unpublish(&self, path: &str) -> Result<(), ClientError> {
        self.change_public(path, &Change::Unpublish).await
    }

    async fn change_public(&self, path: &str, change: &Change) -> Result<(), ClientError> {
        let path: RemotePath = path.parse()?;
        let mut runs = self.account.runs();
        loop {
            match self.account.change_public_once(&path, change).await {
                Err(error) => runs.again_after(error).await?,
                done => return done,
            }
        }
    }
}

impl Account {
    async fn change_public_once(
        &self,
        path: &RemotePath,
        change: &Change,
    ) -> Result<(), ClientError> {
        let identity = self.owner().as_writer();
        let lock = self.locks.of(&identity);
        let _writing = lock.lock().await;
        let illegal = || ClientError::IllegalPath {
            path: path.to_string(),
        };
        if path.user() != self.name.as_str() || path.is_home() {
            return Err(illegal());
        }
        let name = PublishedPath::parse(&path.to_string()).map_err(|_| illegal())?;
        let space = self.view.space(&identity).await?;
        let space = space.ok_or_else(|| ClientError::AccountDeleted {
            name: self.name.to_string(),
        })?;
        let present = space.data.public.clone();
        let blocks = &self.view.blocks;
        let rewritten = match change {
            Change::Publish => {
                let (item, _) = Snapshot::new(self).resolve(path).await?;
                let capability = item.capability().read_only();
                let capability = PublishedCapability::from_value(capability.to_value())
                    .map_err(|_| ClientError::Internal("a capability could not be published"))?;
                publish(present.as_ref(), &name, capability, blocks).await
            }
            Change::Unpublish => {
                let present = present.ok_or_else(|| ClientError::not_found(path.to_string()))?;
                unpublish(&present, &name, blocks).await
            }
        };
        let Rewritten { public, blocks } = rewritten.map_err(|error| match error {
            PublishError::Home => illegal(),
            PublishError::Covered => ClientError::Exists {
                path: path.to_string(),
            },
            PublishError::NotPublished => ClientError::not_found(path.to_string()),
            _ => ClientError::bad_record("published tree"),
        })?;
        let mut draft = Draft::new(self.view.clone(), Arc::new(self.identity.clone()), space)?;
        draft.change_root(|data| data.public = Some(public), blocks);
        draft.commit().await?;
        Ok(())
    }
}
