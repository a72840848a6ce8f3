//! Moving, deleting and comparing in the account.

use std::collections::BTreeMap;

use cryptree::ClientError;

use super::{Apply, is_overtaken};
use crate::{
    exit::Failure,
    sync::{
        here::ContentHasher,
        there,
        tree::{Known, Remote, RemoteFile},
    },
};

impl Apply<'_> {
    pub(super) async fn move_remote(&mut self, from: &str, to: &str) -> Result<bool, Failure> {
        let (old, new) = (self.there(from), self.there(to));
        if let Some((folder, _)) = new.rsplit_once('/') {
            self.session.make_folders(folder).await?;
        }
        self.session.move_to(&old, &new).await?;
        self.state.moved(from, to)?;
        // A move gives it another version, and its content is the same.
        if let Some(Known::File {
            stamp,
            mut remote,
            hash,
        }) = self.state.known().get(to).cloned()
            && remote.version.is_some()
        {
            let now = self.session.stat(&new).await?;
            if now.size_bytes == Some(remote.size) && now.modified == Some(remote.modified) {
                remote.version = now.version.map(|version| *version.as_bytes());
                let known = Known::File {
                    stamp,
                    remote,
                    hash,
                };
                self.agree(to, known)?;
            }
        }
        self.state.flush()?;
        Ok(true)
    }

    /// Deletes an item if it, and everything below it, is what the plan saw.
    pub(super) async fn delete_remote(
        &mut self,
        path: &str,
        expected: &[(String, Option<RemoteFile>)],
    ) -> Result<bool, Failure> {
        let remote = self.there(path);
        let entry = match self.session.stat(&remote).await {
            Ok(entry) => entry,
            Err(ClientError::NotFound { .. }) => {
                self.state.forget(path)?;
                return Ok(true);
            }
            Err(error) => return Err(error.into()),
        };
        let is_same = if entry.is_directory {
            let now = there::read(self.session, &remote).await?;
            let planned = expected.iter().filter(|(item, _)| item != path);
            let planned: BTreeMap<&str, &Option<RemoteFile>> = planned
                .filter_map(|(item, file)| Some((item.strip_prefix(path)?.get(1..)?, file)))
                .collect();
            now.excluded.is_empty()
                && now.tree.len() == planned.len()
                && now
                    .tree
                    .iter()
                    .all(|(item, found)| match (found, planned.get(item.as_str())) {
                        (Remote::Folder { .. }, Some(None)) => true,
                        (Remote::File(found), Some(Some(file))) => found.version == file.version,
                        _ => false,
                    })
        } else {
            let version = entry.version.map(|version| *version.as_bytes());
            matches!(expected, [(_, Some(file))] if file.version == version)
        };
        if !is_same {
            return Ok(false);
        }
        match self.session.delete(&remote).await {
            Ok(()) | Err(ClientError::NotFound { .. }) => {}
            Err(error) if is_overtaken(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        self.state.forget(path)?;
        self.state.flush()?;
        Ok(true)
    }

    /// Reads a remote file and remembers what is in it, for the next plan.
    pub(super) async fn compare(
        &mut self,
        path: &str,
        remote: &RemoteFile,
    ) -> Result<bool, Failure> {
        let file = self.session.open_file(&self.there(path)).await?;
        let version = *file.version().as_bytes();
        if remote.version != Some(version) {
            return Ok(false);
        }
        let mut hasher = ContentHasher::new();
        let mut chunks = file.chunks(0);
        while let Some(chunk) = chunks.next().await? {
            hasher.update(&chunk);
            self.report.transferred(chunk.len() as u64);
        }
        self.compared
            .insert(path.to_owned(), (version, hasher.finish()));
        Ok(true)
    }
}
