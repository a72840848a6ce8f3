//! Looking after what is there: content against its hash tree, and entries that nobody can use (Spec: 20 §8, 40 PRG-004).

use super::{folder::Folder, path::RemotePath, session::Session, snapshot::Snapshot};
use crate::{error::ClientError, hash_tree::HashTreeBuilder};

/// What became of comparing a file with the content hash tree that it carries.
///
/// That the content is what its writer wrote is known before: every part of it is authenticated when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCheck {
    /// The hash tree is that of the content.
    Same,
    /// The hash tree is of other content: a client changed the file and left the tree as it was.
    Stale,
    /// The file has none, as after a change in the middle.
    None,
}

impl Session {
    /// Reads a file whole, telling `progress` the bytes done and in total, and compares it with its content hash tree.
    ///
    /// # Errors
    /// As [`Session::download`](super::Session::download): content that is damaged, withheld or missing is an error.
    pub async fn check_content(
        &self,
        path: &str,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<ContentCheck, ClientError> {
        let file = self.open_file(path).await?;
        let mut hashes = HashTreeBuilder::new();
        let mut chunks = file.chunks(0);
        let mut done = 0;
        while let Some(chunk) = chunks.next().await? {
            done += chunk.len() as u64;
            hashes.push_chunk(&chunk);
            progress(done, file.size());
        }
        Ok(match &file.properties().tree_hash {
            None => ContentCheck::None,
            Some(branch) if *branch == hashes.finish().branch(0) => ContentCheck::Same,
            Some(_) => ContentCheck::Stale,
        })
    }

    /// Removes the entries of a folder that no client can use, for example with a name that is not legal, and returns
    /// how many there were. Everything else in the folder stays.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::NotADirectory`], [`ClientError::ReadOnly`].
    pub async fn remove_unreadable(&self, path: &str) -> Result<usize, ClientError> {
        let path: RemotePath = path.parse()?;
        let mut runs = self.account.runs();
        loop {
            match self.remove_unreadable_once(&path).await {
                Err(error) => runs.again_after(error).await?,
                done => return done,
            }
        }
    }

    async fn remove_unreadable_once(&self, path: &RemotePath) -> Result<usize, ClientError> {
        let account = &self.account;
        let lock = account.locks.of(&account.home.writer);
        let _writing = lock.lock().await;
        let mut snapshot = Snapshot::new(account);
        let item = snapshot.folder(path).await?;
        let signer = item.writable(path)?;
        let mut folder = Folder::load(&mut snapshot, &item).await?;
        let removed = folder.remove_unreadable(&snapshot).await?;
        if removed > 0 {
            let mut draft = account.draft(&mut snapshot, &item, signer).await?;
            folder.write(&mut draft, &mut *account.random()).await?;
            draft.commit().await?;
        }
        Ok(removed)
    }
}
