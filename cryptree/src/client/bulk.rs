//! Many files in few commits (Spec: 21 §9.2, §3.2).
//!
//! Small files are sealed as they come and committed together: one request carries hundreds of nodes, and a
//! folder's page is rewritten once per commit however many entries it gained. The cost per file does not grow
//! with the folder or the account.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use futures_util::AsyncRead;

use super::{
    Session,
    draft::{Draft, FLUSH_BYTES},
    folder::Folder,
    nodes::{self, NewNode, Opened},
    path::RemotePath,
    session::Account,
    snapshot::{Item, Snapshot},
    transfer::{ChunkSource, FilePlan},
    upload::UploadOptions,
};
use crate::{
    capability::ChildEntry,
    chunk_chain::{CHUNK_BYTES, ChunkPlace, StreamSecret},
    directory::{ChildList, ItemKeys},
    error::ClientError,
    hash_tree::HashTreeBuilder,
    mime::{HEADER_BYTES, mime_type},
    properties::{FileName, FileProperties, Timestamp},
};

/// Entries waiting for a commit at most; bounds the memory for tiny files.
const MAX_PENDING: usize = 8192;
/// Content above this is sealed on a spare processor.
const INLINE_COMPUTE_BYTES: usize = 64 << 10;

/// An upload of many files and folders below one folder.
///
/// What was added is safe only after the [`flush`](Self::flush) or [`finish`](Self::finish) that follows it.
/// Dropping it loses what was not flushed and leaves nothing half visible.
pub struct BulkUpload<'a> {
    session: &'a Session,
    root: RemotePath,
    folders: HashMap<RemotePath, Target>,
    nodes: Vec<NewNode>,
    entries: Vec<(RemotePath, ChildEntry)>,
    pending_bytes: usize,
    committed: u64,
}

struct Target {
    item: Item,
    folder: Folder,
    /// Made by this upload and not yet committed.
    is_new: bool,
}

impl std::fmt::Debug for BulkUpload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BulkUpload")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Starts uploading many files and folders into the folder at `path`, which must exist.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::NotADirectory`], [`ClientError::ReadOnly`].
    pub async fn bulk(&self, path: &str) -> Result<BulkUpload<'_>, ClientError> {
        let root: RemotePath = path.parse()?;
        let mut bulk = BulkUpload {
            session: self,
            folders: HashMap::new(),
            nodes: Vec::new(),
            entries: Vec::new(),
            pending_bytes: 0,
            committed: 0,
            root: root.clone(),
        };
        bulk.open(&root).await?;
        Ok(bulk)
    }
}

impl BulkUpload<'_> {
    /// Returns how many files and folders are committed.
    pub const fn committed(&self) -> u64 {
        self.committed
    }

    /// Returns true when something has that path below the root, committed or not.
    ///
    /// # Errors
    /// Whatever keeps the folder from being read; a missing folder means no.
    pub async fn contains(&mut self, relative: &str) -> Result<bool, ClientError> {
        let path = self.below(relative)?;
        let Some((parent, name)) = path.split_last() else {
            return Ok(true);
        };
        match self.open(&parent).await {
            Ok(()) => Ok(self.target(&parent)?.folder.contains(name)),
            Err(ClientError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds a folder, and those above it, unless they are there.
    ///
    /// # Errors
    /// [`ClientError::NotADirectory`] when a file is in the way.
    pub async fn folder(&mut self, relative: &str) -> Result<(), ClientError> {
        let path = self.below(relative)?;
        self.ensure(&path).await
    }

    /// Adds a file at a path below the root; missing folders are made.
    ///
    /// Content above 5 MiB is uploaded at once, as [`Session::upload`] does it, after what was added before.
    ///
    /// # Errors
    /// [`ClientError::Exists`], [`ClientError::SourceChanged`] when `content` is not `size` bytes long, and those of
    /// a commit.
    pub async fn file(
        &mut self,
        relative: &str,
        content: &mut (dyn AsyncRead + Unpin + Send),
        size: Option<u64>,
        modified: Option<Timestamp>,
    ) -> Result<(), ClientError> {
        let path = self.below(relative)?;
        let Some((parent, name)) = path.split_last() else {
            return Err(exists(&path));
        };
        self.ensure(&parent).await?;
        if self.target(&parent)?.folder.contains(name) {
            return Err(exists(&path));
        }
        if size.is_none_or(|size| size > CHUNK_BYTES) {
            self.flush().await?;
            let options = UploadOptions {
                modified,
                ..UploadOptions::default()
            };
            let path = path.to_string();
            self.session
                .upload(&path, content, size, &options, &mut |_, _| {})
                .await?;
            // The folder has changed behind our back.
            self.folders.remove(&parent);
            self.committed += 1;
            return Ok(());
        }
        let mut source = ChunkSource::new(content, size);
        let Some((content, true)) = source.next().await? else {
            return Err(ClientError::Internal("one chunk expected"));
        };
        self.small(&parent, name.clone(), content, modified).await?;
        if self.pending_bytes >= FLUSH_BYTES || self.entries.len() >= MAX_PENDING {
            self.flush().await?;
        }
        Ok(())
    }

    /// Commits what was added. It is durable when this returns.
    ///
    /// # Errors
    /// [`ClientError::Exists`] when somebody else took one of the names in the meantime; then nothing of this
    /// batch was committed. [`ClientError::QuotaReached`], [`ClientError::Network`] and others as for any commit.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let account = Arc::clone(&self.session.account);
        let mut runs = account.runs();
        loop {
            let done = self.commit(&account).await;
            match done {
                Ok(()) => break,
                Err(error) => runs.again_after(error).await?,
            }
            self.reload(&account).await?;
        }
        self.committed += self.entries.len() as u64;
        self.entries.clear();
        self.nodes.clear();
        self.pending_bytes = 0;
        for target in self.folders.values_mut() {
            target.is_new = false;
        }
        Ok(())
    }

    /// Commits the rest and returns how many files and folders were committed in all.
    ///
    /// # Errors
    /// As [`BulkUpload::flush`].
    pub async fn finish(mut self) -> Result<u64, ClientError> {
        self.flush().await?;
        Ok(self.committed)
    }

    fn below(&self, relative: &str) -> Result<RemotePath, ClientError> {
        let mut path = self.root.clone();
        for part in relative.split('/').filter(|part| !part.is_empty()) {
            let name = FileName::parse(part).map_err(|_| ClientError::IllegalName {
                name: part.to_owned(),
            })?;
            path = path.join(name);
        }
        Ok(path)
    }

    fn target(&self, path: &RemotePath) -> Result<&Target, ClientError> {
        const UNKNOWN: ClientError = ClientError::Internal("a folder that was not opened");
        self.folders.get(path).ok_or(UNKNOWN)
    }

    fn target_mut(&mut self, path: &RemotePath) -> Result<&mut Target, ClientError> {
        const UNKNOWN: ClientError = ClientError::Internal("a folder that was not opened");
        self.folders.get_mut(path).ok_or(UNKNOWN)
    }

    /// Loads an existing folder.
    async fn open(&mut self, path: &RemotePath) -> Result<(), ClientError> {
        if self.folders.contains_key(path) {
            return Ok(());
        }
        let mut snapshot = Snapshot::new(&self.session.account);
        let item = snapshot.folder(path).await?;
        item.writable(path)?;
        let folder = Folder::load(&mut snapshot, &item).await?;
        let target = Target {
            item,
            folder,
            is_new: false,
        };
        self.folders.insert(path.clone(), target);
        Ok(())
    }

    /// Makes sure that a folder is there, or will be with the next commit.
    async fn ensure(&mut self, path: &RemotePath) -> Result<(), ClientError> {
        let mut missing = Vec::new();
        let mut current = path.clone();
        loop {
            if self.folders.contains_key(&current) {
                break;
            }
            // A folder that will be made has nothing on the node to be looked for.
            let parent = current.split_last();
            let parent_is_new = parent
                .as_ref()
                .and_then(|(parent, _)| self.folders.get(parent))
                .is_some_and(|parent| parent.is_new);
            if !parent_is_new {
                match self.open(&current).await {
                    Ok(()) => break,
                    Err(ClientError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            let Some((parent, name)) = parent else {
                return Err(ClientError::not_found(path.to_string()));
            };
            missing.push((parent.clone(), name.clone()));
            current = parent;
        }
        for (parent, name) in missing.into_iter().rev() {
            self.make(&parent, name)?;
        }
        Ok(())
    }

    /// Adds a new, empty folder.
    fn make(&mut self, parent: &RemotePath, name: FileName) -> Result<(), ClientError> {
        let account = Arc::clone(&self.session.account);
        let rng = &mut *account.random();
        let above = self.target(parent)?;
        let keys = ItemKeys::random(rng);
        let near = above.item.capability();
        let capability = keys.capability(near.owner.clone(), near.writer.clone());
        let properties = FileProperties::directory(name.clone(), account.now(), false);
        let node = nodes::new_directory(
            &keys,
            properties.clone(),
            Some(above.item.opened.link_from_below(&capability.writer)),
            None,
            account.mirror_for(&above.item.opened).as_ref(),
            &ChildList::new(),
            rng,
        )?;
        let entry = nodes::entry(near, &capability, &properties, rng)?;
        let opened = Opened::open(&node.block, &capability)?;
        let item = Item {
            properties,
            signer: above.item.signer.clone(),
            link: None,
            opened: opened.clone(),
        };
        let path = parent.join(name);
        let target = Target {
            item,
            folder: Folder::empty(opened),
            is_new: true,
        };
        self.folders.insert(path, target);
        self.add(parent, entry, vec![node])
    }

    fn add(
        &mut self,
        parent: &RemotePath,
        entry: ChildEntry,
        nodes: Vec<NewNode>,
    ) -> Result<(), ClientError> {
        self.target_mut(parent)?.folder.add(entry.clone())?;
        self.entries.push((parent.clone(), entry));
        self.pending_bytes += nodes.iter().map(NewNode::bytes).sum::<usize>();
        self.nodes.extend(nodes);
        Ok(())
    }

    async fn small(
        &mut self,
        parent: &RemotePath,
        name: FileName,
        content: Bytes,
        modified: Option<Timestamp>,
    ) -> Result<(), ClientError> {
        let account = Arc::clone(&self.session.account);
        let mut rng = account.random();
        let target = self.target(parent)?;
        let folder = target.item.capability();
        let keys = ItemKeys::random(&mut *rng);
        let secret = StreamSecret::random(&mut *rng);
        let header = content.get(..HEADER_BYTES).unwrap_or(&content);
        let properties = FileProperties::file(
            name.clone(),
            mime_type(name.as_str(), header),
            content.len() as u64,
            modified.unwrap_or(account.now()),
            secret.clone(),
        );
        let capability = keys.capability(folder.owner.clone(), folder.writer.clone());
        let plan = FilePlan {
            is_new: true,
            up: Some(target.item.opened.link_from_below(&capability.writer)),
            mirror: account.mirror_for(&target.item.opened),
            signer: target.item.writable(parent)?,
            starts_space: false,
            keys,
            secret,
            capability,
            properties,
        };
        let entry = nodes::entry(folder, &plan.capability, &plan.properties, &mut *rng)?;
        let is_small = content.len() <= INLINE_COMPUTE_BYTES;
        let mut seal = move || {
            let mut hashes = HashTreeBuilder::new();
            hashes.push_chunk(&content);
            let mut properties = plan.properties.clone();
            properties.tree_hash = Some(hashes.finish().branch(0));
            let place = ChunkPlace::first(&plan.capability);
            plan.seal(0, &place, properties, &content, &mut *rng)
        };
        let node = if is_small {
            seal()
        } else {
            account.compute(seal).await?
        };
        self.add(parent, entry, vec![node?])
    }

    async fn commit(&mut self, account: &Arc<Account>) -> Result<(), ClientError> {
        let root = self.target(&self.root)?;
        let signer = root.item.writable(&self.root)?;
        let writer = signer.writer();
        let lock = account.locks.of(&writer);
        let _writing = lock.lock().await;
        let space = account.view.space(&writer).await?;
        let space = space.ok_or_else(|| ClientError::not_found(self.root.to_string()))?;
        let mut draft = Draft::new(account.view.clone(), signer, space)?;
        draft.put_new(self.nodes.clone()).await?;
        let rng = &mut *account.random();
        for target in self.folders.values_mut() {
            if target.folder.is_changed() {
                target.folder.write(&mut draft, rng).await?;
            }
        }
        draft.commit().await.map(|_| ())
    }

    /// Reads the folders anew and adds what is pending to them.
    async fn reload(&mut self, account: &Arc<Account>) -> Result<(), ClientError> {
        let mut snapshot = Snapshot::new(account);
        for (path, target) in &mut self.folders {
            if target.is_new {
                target.folder = Folder::empty(target.item.opened.clone());
                continue;
            }
            let item = snapshot.folder(path).await?;
            if item.capability() != target.item.capability() {
                return Err(ClientError::not_found(path.to_string()));
            }
            target.folder = Folder::load(&mut snapshot, &item).await?;
            target.item = item;
        }
        for (parent, entry) in self.entries.clone() {
            let name = entry.name.clone();
            let target = self.target_mut(&parent)?;
            target
                .folder
                .add(entry)
                .map_err(|_| exists(&parent.join(name)))?;
        }
        Ok(())
    }
}

fn exists(path: &RemotePath) -> ClientError {
    ClientError::Exists {
        path: path.to_string(),
    }
}
