//! Uploads a folder: entries come in as the walk finds them, parents first.
//!
//! Folders that are there already are listed once, so that what is done is skipped without asking for each file.
//! Small files are gathered and committed together; large ones go up by themselves and can be resumed.

use std::collections::HashMap;

use cryptree::{
    ClientError,
    client::{BulkUpload, Detail, Entry},
};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::{
    commands::{
        put::{Decision, LocalFile, Upload, timestamp},
        tally::Tally,
    },
    exit::{Class, Failure},
    local::walk::Found,
    remote_path::absolute,
};

/// An upload of one local folder.
pub(crate) struct FolderUpload<'a> {
    upload: &'a Upload<'a>,
    /// Remote path of the folder.
    base: Vec<String>,
    /// What is there already, for the folder being walked and those above it; `None` for a folder that could
    /// not be made, whose content is left out.
    known: Vec<Option<HashMap<String, Entry>>>,
    /// What is gathered for the next commit.
    bulk: Option<BulkUpload<'a>>,
    /// Files and bytes in it that are not yet counted.
    gathered: (u64, u64),
}

impl<'a> FolderUpload<'a> {
    /// Starts an upload to the remote path `base`.
    pub(crate) const fn new(upload: &'a Upload<'a>, base: Vec<String>) -> Self {
        Self {
            upload,
            base,
            known: Vec::new(),
            bulk: None,
            gathered: (0, 0),
        }
    }

    /// Takes the next entry of the walk.
    ///
    /// # Errors
    ///
    /// Only what makes going on useless; everything else is reported and counted.
    pub(crate) async fn take(&mut self, found: Found, tally: &mut Tally) -> Result<(), Failure> {
        match found {
            Found::Problem { path, reason } => {
                let failure = Failure::new(Class::Local, reason);
                self.upload
                    .problem(tally, &path.display().to_string(), &failure);
                Ok(())
            }
            Found::Folder { names } => self.folder(&names, tally).await,
            Found::File {
                names,
                path,
                size,
                modified,
            } => {
                let file = LocalFile {
                    path,
                    size,
                    modified,
                };
                self.file(&names, file, tally).await
            }
        }
    }

    /// Finishes what was gathered.
    ///
    /// # Errors
    ///
    /// As [`Self::take`].
    pub(crate) async fn finish(mut self, tally: &mut Tally) -> Result<(), Failure> {
        self.commit(tally).await
    }

    /// Commits what was gathered; it is durable and counted when this returns.
    async fn commit(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        if let Some(bulk) = self.bulk.take() {
            Box::pin(bulk.finish()).await?;
        }
        let (files, bytes) = std::mem::take(&mut self.gathered);
        tally.files += files;
        tally.bytes += bytes;
        Ok(())
    }

    async fn bulk(&mut self) -> Result<&mut BulkUpload<'a>, ClientError> {
        let bulk = match self.bulk.take() {
            Some(bulk) => bulk,
            None => {
                let root = absolute(&self.base);
                self.upload.connected.session.bulk(&root).await?
            }
        };
        Ok(self.bulk.insert(bulk))
    }

    async fn folder(&mut self, names: &[String], tally: &mut Tally) -> Result<(), Failure> {
        self.known.truncate(names.len());
        let path = self.path(names);
        let parent_is_missing = !names.is_empty() && !matches!(self.known.last(), Some(Some(_)));
        if parent_is_missing {
            self.known.push(None);
            return Ok(());
        }
        let known = match self.make_or_list(names, &path).await {
            Ok(known) => {
                tally.folders += 1;
                Some(known)
            }
            Err(failure) if names.is_empty() || is_hopeless(failure.class) => return Err(failure),
            Err(failure) => {
                self.upload.problem(tally, &path, &failure);
                None
            }
        };
        self.known.push(known);
        Ok(())
    }

    /// Makes a folder, or lists it when it is there.
    async fn make_or_list(
        &mut self,
        names: &[String],
        path: &str,
    ) -> Result<HashMap<String, Entry>, Failure> {
        let session = &self.upload.connected.session;
        let is_known_absent = match (names.last(), self.known.last()) {
            (Some(name), Some(Some(siblings))) => !siblings.contains_key(name),
            _ => false,
        };
        if is_known_absent {
            self.bulk().await?.folder(&names.join("/")).await?;
            return Ok(HashMap::new());
        }
        if !session.exists(path).await? {
            match session.make_folder(path).await {
                Ok(()) => return Ok(HashMap::new()),
                Err(ClientError::Exists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut known = HashMap::new();
        let mut reader = session.read_folder(path, Detail::Full).await?;
        while let Some(page) = reader.next().await? {
            known.extend(
                page.entries
                    .into_iter()
                    .map(|entry| (entry.name.clone(), entry)),
            );
        }
        Ok(known)
    }

    async fn file(
        &mut self,
        names: &[String],
        file: LocalFile,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        self.known.truncate(names.len());
        let (Some(name), Some(Some(siblings))) = (names.last(), self.known.last()) else {
            let failure = Failure::new(Class::NotFound, "its folder could not be made");
            self.upload
                .problem(tally, &file.path.display().to_string(), &failure);
            return Ok(());
        };
        let path = self.path(names);
        self.upload.progress.expect(file.size);
        let existing = siblings.get(name);
        let decision = match self
            .upload
            .decide(&path, existing, file.size, file.modified)
        {
            Ok(Decision::Skip) => {
                self.upload.progress.done(file.size);
                tally.skipped += 1;
                return Ok(());
            }
            Ok(decision) => decision,
            Err(failure) => {
                self.upload.problem(tally, &path, &failure);
                return Ok(());
            }
        };
        let done = if decision == Decision::Create && file.size <= MAX_GATHERED_BYTES {
            Box::pin(self.gather(&names.join("/"), &file)).await
        } else {
            // It is committed by itself, in a folder that has to be there.
            self.commit(tally).await?;
            let done = Box::pin(self.upload.file(&file, &path, decision)).await;
            done.inspect(|()| tally.file(file.size))
        };
        match done {
            Ok(()) => {}
            Err(failure) if is_hopeless(failure.class) => return Err(failure),
            Err(failure) => self.upload.problem(tally, &path, &failure),
        }
        Ok(())
    }

    /// Adds a small file to the next commit.
    async fn gather(&mut self, relative: &str, file: &LocalFile) -> Result<(), Failure> {
        self.upload.progress.at(relative);
        let read = |error| Failure::local("read", &file.path, &error);
        let mut source = tokio::fs::File::open(&file.path)
            .await
            .map_err(read)?
            .compat();
        let modified = Some(timestamp(file.modified));
        let thumbnail = self.upload.thumbnails.of(&file.path, file.size).await;
        let added = self
            .bulk()
            .await?
            .picture(relative, &mut source, Some(file.size), modified, thumbnail)
            .await;
        match added {
            Ok(()) => {}
            Err(ClientError::Local(error)) => {
                return Err(Failure::local("read", &file.path, &error));
            }
            Err(error) => return Err(error.into()),
        }
        self.upload.progress.done(file.size);
        self.gathered.0 += 1;
        self.gathered.1 += file.size;
        file.check_unchanged()
    }

    fn path(&self, names: &[String]) -> String {
        let mut path = self.base.clone();
        path.extend_from_slice(names);
        absolute(&path)
    }
}

/// Largest file that is committed together with others; more is one chunk no longer and can be resumed.
const MAX_GATHERED_BYTES: u64 = 5 << 20;

/// Returns true for failures that the next file would meet as well.
pub(crate) const fn is_hopeless(class: Class) -> bool {
    matches!(
        class,
        Class::NoSpace
            | Class::NoServer
            | Class::WrongServer
            | Class::Forged
            | Class::ReadOnly
            | Class::NoSession
    )
}
