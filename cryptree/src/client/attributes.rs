//! Times and flags of files and folders (Spec: 21 §12.1).

use super::{
    path::RemotePath,
    session::{Account, Session},
    snapshot::Snapshot,
};
use crate::{
    error::ClientError,
    properties::{FileProperties, Timestamp},
};

impl Session {
    /// Sets the modification time.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::ReadOnly`].
    pub async fn set_modified(&self, path: &str, modified: Timestamp) -> Result<(), ClientError> {
        self.set_properties(path, &move |properties| properties.modified = modified)
            .await
    }

    /// Sets whether an item is hidden.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::ReadOnly`].
    pub async fn set_hidden(&self, path: &str, is_hidden: bool) -> Result<(), ClientError> {
        self.set_properties(path, &move |properties| properties.is_hidden = is_hidden)
            .await
    }

    async fn set_properties(
        &self,
        path: &str,
        change: &(dyn Fn(&mut FileProperties) + Sync),
    ) -> Result<(), ClientError> {
        let path: RemotePath = path.parse()?;
        let mut runs = self.account.runs();
        loop {
            match self.account.set_properties_once(&path, change).await {
                Err(error) => runs.again_after(error).await?,
                done => return done,
            }
        }
    }
}

impl Account {
    /// Sets when the content of a file was changed, or whether an item is hidden.
    async fn set_properties_once(
        &self,
        path: &RemotePath,
        change: &(dyn Fn(&mut FileProperties) + Sync),
    ) -> Result<(), ClientError> {
        let lock = self.locks.of(&self.home.writer);
        let _writing = lock.lock().await;
        let mut snapshot = Snapshot::new(self);
        let (item, _) = snapshot.resolve(path).await?;
        let signer = item.writable(path)?;
        let mut properties = item.opened.properties.clone();
        change(&mut properties);
        let mut draft = self.draft(&mut snapshot, &item, signer).await?;
        let changed = item
            .opened
            .with_properties(properties, None, &mut *self.random())?;
        draft.put(changed, Some(&item.opened.cid)).await?;
        draft.commit().await.map(|_| ())
    }
}
