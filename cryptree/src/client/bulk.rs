//! Many files in few commits (Spec: 21 §9.2, §3.2).
//!
//! Small files are sealed as they come and committed together: one request carries hundreds of nodes, and a
//! folder's page is rewritten once per commit however many entries it gained. The cost per file does not grow
//! with the folder or the account.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::AsyncRead;

use super::{
    Session,
    conflict::conflict_name,
    draft::{Draft, FLUSH_BYTES},
    folder::Folder,
    nodes::{self, NewNode, Opened},
    path::RemotePath,
    session::Account,
    snapshot::{Item, Snapshot},
    transfer::{ChunkSource, FilePlan},
    upload::{IfExists, UploadOptions},
};
use crate::{
    capability::AbsoluteCapability,
    chunk_chain::{CHUNK_BYTES, ChunkPlace, StreamSecret},
    directory::{ChildList, ItemKeys},
    error::ClientError,
    hash_tree::HashTreeBuilder,
    mime::{HEADER_BYTES, mime_type},
    properties::{FileName, FileProperties, Thumbnail, Timestamp},
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
    pending: Vec<Pending>,
    pending_bytes: usize,
    committed: u64,
    device: String,
    conflict_copies: Vec<ConflictCopy>,
}

/// A file or folder that waits for a commit.
struct Pending {
    parent: RemotePath,
    capability: AbsoluteCapability,
    properties: FileProperties,
    node: NewNode,
}

/// A file whose name another device took while it was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictCopy {
    /// The path it was meant for, which holds the other device's file.
    pub path: String,
    /// Where it is.
    pub copy: String,
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
            pending: Vec::new(),
            pending_bytes: 0,
            committed: 0,
            device: String::new(),
            conflict_copies: Vec::new(),
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

    /// Says what this device is called in the names of conflict copies.
    #[must_use]
    pub fn from_device(mut self, device: impl Into<String>) -> Self {
        self.device = device.into();
        self
    }

    /// Returns the files that did not get their names, so far.
    pub fn conflict_copies(&self) -> &[ConflictCopy] {
        &self.conflict_copies
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
        self.picture(relative, content, size, modified, None).await
    }

    /// Adds a file like [`BulkUpload::file`], with a small picture of it.
    ///
    /// # Errors
    /// As [`BulkUpload::file`].
    pub async fn picture(
        &mut self,
        relative: &str,
        content: &mut (dyn AsyncRead + Unpin + Send),
        size: Option<u64>,
        modified: Option<Timestamp>,
        thumbnail: Option<Thumbnail>,
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
                if_exists: IfExists::Beside,
                device: self.device.clone(),
                thumbnail,
                ..UploadOptions::default()
            };
            let path = path.to_string();
            let uploaded = self
                .session
                .upload(&path, content, size, &options, &mut |_, _| {})
                .await?;
            if uploaded.is_conflict_copy {
                let copy = uploaded.path;
                self.conflict_copies.push(ConflictCopy { path, copy });
            }
            // The folder has changed behind our back.
            self.folders.remove(&parent);
            self.committed += 1;
            return Ok(());
        }
        let mut source = ChunkSource::new(content, size);
        let Some((content, true)) = source.next().await? else {
            return Err(ClientError::Internal("one chunk expected"));
        };
        let modified = modified.unwrap_or(self.session.account.now());
        self.small(&parent, name.clone(), content, modified, thumbnail)
            .await?;
        if self.pending_bytes >= FLUSH_BYTES || self.pending.len() >= MAX_PENDING {
            self.flush().await?;
        }
        Ok(())
    }

    /// Commits what was added. It is durable when this returns.
    ///
    /// A folder that another device made in the meantime is joined with ours; a file that another device made is
    /// kept, and ours goes beside it (see [`BulkUpload::conflict_copies`]).
    ///
    /// # Errors
    /// [`ClientError::Exists`] when somebody else made a file where a folder of ours goes, or the other way round; then
    /// nothing of this batch was committed. [`ClientError::QuotaReached`], [`ClientError::Network`] and others as for
    /// any commit.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        if self.pending.is_empty() {
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
        self.committed += self.pending.len() as u64;
        self.pending.clear();
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
        let opened = Opened::open(&node.block, &capability)?;
        let item = Item {
            properties: properties.clone(),
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
        self.add(Pending {
            parent: parent.clone(),
            capability,
            properties,
            node,
        })
    }

    fn add(&mut self, pending: Pending) -> Result<(), ClientError> {
        self.enter(&pending)?;
        self.pending_bytes += pending.node.bytes();
        self.pending.push(pending);
        Ok(())
    }

    /// Adds the entry of a pending file or folder to the list of its folder.
    fn enter(&mut self, pending: &Pending) -> Result<(), ClientError> {
        let account = Arc::clone(&self.session.account);
        let target = self.target_mut(&pending.parent)?;
        let near = target.item.capability();
        let (capability, properties) = (&pending.capability, &pending.properties);
        let entry = nodes::entry(near, capability, properties, &mut *account.random())?;
        target.folder.add(entry)
    }

    async fn small(
        &mut self,
        parent: &RemotePath,
        name: FileName,
        content: Bytes,
        modified: Timestamp,
        thumbnail: Option<Thumbnail>,
    ) -> Result<(), ClientError> {
        let account = Arc::clone(&self.session.account);
        let mut rng = account.random();
        let target = self.target(parent)?;
        let folder = target.item.capability();
        let keys = ItemKeys::random(&mut *rng);
        let secret = StreamSecret::random(&mut *rng);
        let header = content.get(..HEADER_BYTES).unwrap_or(&content);
        let mut properties = FileProperties::file(
            name.clone(),
            mime_type(name.as_str(), header),
            content.len() as u64,
            modified,
            secret.clone(),
        );
        properties.thumbnail = thumbnail;
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
        let (capability, properties) = (plan.capability.clone(), plan.properties.clone());
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
        self.add(Pending {
            parent: parent.clone(),
            capability,
            properties,
            node: node?,
        })
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
        let nodes = self.pending.iter().map(|pending| pending.node.clone());
        draft.put_new(nodes.collect()).await?;
        let rng = &mut *account.random();
        for target in self.folders.values_mut() {
            if target.folder.is_changed() {
                target.folder.write(&mut draft, rng).await?;
            }
        }
        draft.commit().await.map(|_| ())
    }

    /// Reads the folders anew, joins those of ours that others have made too, and adds what is pending to them.
    async fn reload(&mut self, account: &Arc<Account>) -> Result<(), ClientError> {
        let mut snapshot = Snapshot::new(account);
        let mut paths: Vec<RemotePath> = self.folders.keys().cloned().collect();
        // From above, since a new folder is in what became of the one above it.
        paths.sort_by_key(|path| path.names().len());
        let mut joined = HashSet::new();
        for path in paths {
            let known = self.target(&path)?;
            let (was_new, capability) = (known.is_new, known.item.capability().clone());
            let found = match (was_new, snapshot.resolve(&path).await) {
                (true, Err(ClientError::NotFound { .. })) => None,
                (_, found) => Some(found?.0),
            };
            let Some(item) = found else {
                let target = self.target_mut(&path)?;
                target.folder = Folder::empty(target.item.opened.clone());
                continue;
            };
            if !item.properties.is_directory {
                return Err(exists(&path));
            }
            if *item.capability() != capability {
                if !was_new {
                    return Err(ClientError::not_found(path.to_string()));
                }
                item.writable(&path)?;
                self.pending
                    .retain(|pending| pending.capability != capability);
                joined.insert(path.clone());
            }
            let folder = Folder::load(&mut snapshot, &item).await?;
            let target = self.target_mut(&path)?;
            *target = Target {
                item,
                folder,
                is_new: false,
            };
        }
        for mut pending in std::mem::take(&mut self.pending) {
            let folder = &self.target(&pending.parent)?.folder;
            let is_taken = folder.contains(&pending.properties.name);
            if is_taken || joined.contains(&pending.parent) {
                self.settle(account, &mut pending, is_taken)?;
            }
            self.enter(&pending)?;
            self.pending.push(pending);
        }
        Ok(())
    }

    /// Seals what is known above an item anew: another folder, and another name when its own is taken.
    fn settle(
        &mut self,
        account: &Arc<Account>,
        pending: &mut Pending,
        is_taken: bool,
    ) -> Result<(), ClientError> {
        let target = self.target(&pending.parent)?;
        let path = pending.parent.join(pending.properties.name.clone());
        if is_taken {
            if pending.properties.is_directory {
                return Err(exists(&path));
            }
            let is_taken = |name: &FileName| target.folder.contains(name);
            let name = conflict_name(
                &pending.properties.name,
                &self.device,
                account.now(),
                is_taken,
            )?;
            pending.properties.name = name;
        }
        let opened = Opened::open(&pending.node.block, &pending.capability)?;
        let properties = FileProperties {
            name: pending.properties.name.clone(),
            ..opened.properties.clone()
        };
        let writer = &pending.capability.writer;
        let up = target.item.opened.link_from_below(writer);
        let settled = opened.with_properties(properties, Some(up), &mut *account.random())?;
        pending.node.block = settled.block;
        if is_taken {
            self.conflict_copies.push(ConflictCopy {
                path: path.to_string(),
                copy: pending
                    .parent
                    .join(pending.properties.name.clone())
                    .to_string(),
            });
        }
        if pending.properties.is_directory {
            let opened = Opened::open(&pending.node.block, &pending.capability)?;
            let inner = self.target_mut(&path)?;
            inner.folder = Folder::empty(opened.clone());
            inner.item.opened = opened;
        }
        Ok(())
    }
}

fn exists(path: &RemotePath) -> ClientError {
    ClientError::Exists {
        path: path.to_string(),
    }
}
