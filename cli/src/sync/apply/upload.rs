//! Sending: small new files and folders together in few commits, the others one by one.

use std::{
    fs, io,
    pin::Pin,
    task::{Context, Poll},
};

use cryptree::{
    ClientError,
    client::{BulkUpload, IfExists, UploadOptions, Version as RemoteVersion},
};
use futures_util::AsyncRead;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::{Apply, is_overtaken};
use crate::{
    commands::upload_folder::is_hopeless,
    exit::Failure,
    sync::{
        here::{ContentHasher, stamp},
        plan::Action,
        tree::{Known, Local, RemoteFile, Stamp},
    },
};

/// Largest file that is committed together with others.
pub(super) const MAX_GATHERED_BYTES: u64 = 5 << 20;
/// Most items of one commit.
const MAX_GATHERED: usize = 2000;

impl Apply<'_> {
    /// Makes folders and sends small new files.
    pub(super) async fn gather(&mut self, actions: Vec<Action>) -> Result<(), Failure> {
        if actions.is_empty() {
            return Ok(());
        }
        let session = self.session;
        session.make_folders(self.remote_root).await?;
        let mut bulk = session.bulk(self.remote_root).await?;
        let mut waiting: Vec<(Action, Known)> = Vec::new();
        for action in actions {
            if self.has_failed(action.path()) {
                continue;
            }
            match Box::pin(self.add(&mut bulk, &action)).await {
                Ok(Some(known)) => waiting.push((action, known)),
                Ok(None) => self.is_overtaken = true,
                Err(failure) if is_hopeless(failure.class) => return Err(failure),
                Err(failure) => self.fail(action.path(), &failure),
            }
            if waiting.len() >= MAX_GATHERED && !self.commit(&mut bulk, &mut waiting).await? {
                return Ok(());
            }
        }
        self.commit(&mut bulk, &mut waiting).await?;
        Ok(())
    }

    /// Commits what was gathered and notes it; false when somebody else was faster.
    async fn commit(
        &mut self,
        bulk: &mut BulkUpload<'_>,
        waiting: &mut Vec<(Action, Known)>,
    ) -> Result<bool, Failure> {
        match Box::pin(bulk.flush()).await {
            Ok(()) => {}
            Err(error) if is_overtaken(&error) => {
                self.is_overtaken = true;
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        for (action, known) in waiting.drain(..) {
            self.agree(action.path(), known)?;
            self.report.done(&action)?;
        }
        self.state.flush()?;
        Ok(true)
    }

    /// Adds an item to the next commit; none when it is not what the plan saw.
    async fn add(
        &mut self,
        bulk: &mut BulkUpload<'_>,
        action: &Action,
    ) -> Result<Option<Known>, Failure> {
        let path = action.path();
        self.report.at(path);
        let Action::Upload {
            stamp: expected, ..
        } = action
        else {
            bulk.folder(path).await?;
            let inode = match self.local.get(path) {
                Some(Local::Folder { inode }) => *inode,
                _ => 0,
            };
            return Ok(Some(Known::Folder { inode, id: None }));
        };
        let local = self.here(path);
        let read = |error| Failure::local("read", &local, &error);
        let file = tokio::fs::File::open(&local).await.map_err(read)?;
        let found = file.metadata().await.map_err(read)?;
        if stamp(&found) != *expected {
            return Ok(None);
        }
        let thumbnail = self.thumbnails.of(&local, expected.size).await;
        let mut source = Hashing::new(file.compat());
        let (size, modified) = (Some(expected.size), Some(expected.modified));
        let added = bulk
            .picture(path, &mut source, size, modified, thumbnail)
            .await;
        match added {
            Ok(()) => {}
            Err(ClientError::Local(error)) => return Err(Failure::local("read", &local, &error)),
            Err(ClientError::Exists { .. } | ClientError::SourceChanged { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        self.report.transferred(expected.size);
        let known = source.known(expected, None);
        self.check_unchanged(path, expected);
        Ok(Some(known))
    }

    /// Sends one file by itself.
    pub(super) async fn upload(
        &mut self,
        path: &str,
        expected: &Stamp,
        replaces: Option<&RemoteFile>,
    ) -> Result<bool, Failure> {
        let local = self.here(path);
        let read = |error| Failure::local("read", &local, &error);
        let mut file = tokio::fs::File::open(&local).await.map_err(read)?;
        file.set_max_buf_size(READ_BYTES);
        let found = file.metadata().await.map_err(read)?;
        if stamp(&found) != *expected {
            return Ok(false);
        }
        let remote = self.there(path);
        if replaces.is_none()
            && let Some((folder, _)) = remote.rsplit_once('/')
        {
            self.session.make_folders(folder).await?;
        }
        let replaced = replaces.and_then(|file| file.version);
        let options = UploadOptions {
            modified: Some(expected.modified),
            if_exists: replaced.map_or(IfExists::Fail, |version| {
                IfExists::ReplaceVersion(RemoteVersion::from_bytes(version))
            }),
            device: self.device.to_owned(),
            thumbnail: self.thumbnails.of(&local, expected.size).await,
            ..UploadOptions::default()
        };
        let mut source = Hashing::new(file.compat());
        let (report, mut seen) = (&*self.report, 0);
        let uploaded = self
            .session
            .upload(
                &remote,
                &mut source,
                Some(expected.size),
                &options,
                &mut |done, _| {
                    report.transferred(done.saturating_sub(seen));
                    seen = done;
                },
            )
            .await;
        let uploaded = match uploaded {
            Ok(uploaded) => uploaded,
            Err(ClientError::Local(error)) => return Err(Failure::local("read", &local, &error)),
            Err(ClientError::SourceChanged { .. }) => return Ok(false),
            Err(error) if is_overtaken(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let known = source.known(expected, Some(*uploaded.version.as_bytes()));
        if !uploaded.is_conflict_copy {
            self.agree(path, known)?;
            self.check_unchanged(path, expected);
            return Ok(true);
        }
        // Somebody else wrote it during the transfer: what was sent is beside it, and so is the local file from now on.
        let copy = Self::sibling(path, &uploaded.path);
        let ((folder, name), (_, target)) = (self.place(path)?, self.place(&copy)?);
        match folder.rename(name, &folder, target) {
            Ok(()) => self.agree(&copy, known)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Failure::local("rename", &local, &error)),
        }
        self.state.forget(path)?;
        self.report.conflict(&copy);
        self.is_overtaken = true;
        Ok(true)
    }

    /// What changed while it was read is looked at again: it was sent as something in between.
    fn check_unchanged(&mut self, path: &str, expected: &Stamp) {
        let now = fs::symlink_metadata(self.here(path));
        if now.map(|found| stamp(&found)).ok().as_ref() != Some(expected) {
            self.is_overtaken = true;
        }
    }
}

/// A source that is hashed on its way.
struct Hashing<R> {
    inner: R,
    hasher: ContentHasher,
}

impl<R> Hashing<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: ContentHasher::new(),
        }
    }

    /// Returns what both sides are after the content was sent.
    fn known(self, stamp: &Stamp, version: Option<[u8; 32]>) -> Known {
        let hash = Some(self.hasher.finish());
        Known::File {
            stamp: *stamp,
            remote: RemoteFile {
                id: None,
                version,
                size: stamp.size,
                modified: stamp.modified,
                hash,
                is_verified: false,
            },
            hash,
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Hashing<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let Poll::Ready(Ok(n)) = &read {
            self.hasher.update(buffer.get(..*n).unwrap_or_default());
        }
        read
    }
}

/// Bytes read from a local file at once.
const READ_BYTES: usize = 1 << 20;
