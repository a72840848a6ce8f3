//! Uploading a file (Spec: 21 §9, §10.4).

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use futures_util::AsyncRead;

use super::{
    Session,
    conflict::conflict_name,
    draft::Draft,
    folder::Folder,
    nodes::{self, NewNode, Opened},
    path::RemotePath,
    session::Account,
    snapshot::{Item, Snapshot},
    transfer::{ChunkSource, ChunkUpload, FilePlan},
    version::Version,
};
use crate::{
    api::TransactionId,
    capability::MapKey,
    chunk_chain::{CHUNK_BYTES, ChunkPlace, StreamSecret, chunk_count},
    directory::ItemKeys,
    error::ClientError,
    hash_tree::{HashTree, HashTreeBuilder, LIST_HASHES},
    mime::{HEADER_BYTES, mime_type},
    properties::{FileName, FileProperties, Thumbnail, Timestamp},
};

/// What to do when the name is taken by a file. A folder of that name is always an error.
///
/// A file is replaced in one step, and capabilities to it stay valid. What another device does to it in the meantime
/// is never overwritten: then the content goes beside it, as a conflict copy (see [`Uploaded`]). A file that another
/// device deletes in the meantime is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfExists {
    /// Fail with [`ClientError::Exists`].
    #[default]
    Fail,
    /// Leave it alone, and put the content beside it, as a conflict copy.
    Beside,
    /// Replace what is there when the upload begins.
    Replace,
    /// Replace this state of the file; one in any other state keeps its name.
    ReplaceVersion(Version),
    /// Replace this state of the file, or fail with [`ClientError::ChangedElsewhere`].
    ReplaceExactly(Version),
}

/// How a file is uploaded.
#[derive(Debug, Clone, Default)]
pub struct UploadOptions {
    /// When the content was changed; now, when absent.
    pub modified: Option<Timestamp>,
    /// What to do when the name is taken.
    pub if_exists: IfExists,
    /// Do not show it by default.
    pub is_hidden: bool,
    /// What this device is called in the names of conflict copies, for example `laptop`; may be empty.
    pub device: String,
    /// A small picture of the content, to be shown in listings. It is shown by the official clients too.
    pub thumbnail: Option<Thumbnail>,
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Where the content is: at the path asked for, or at that of the conflict copy.
    pub path: String,
    /// The state of the file there.
    pub version: Version,
    /// Another device had written the path asked for: its content is there, and ours is beside it.
    pub is_conflict_copy: bool,
}

/// Progress: bytes stored so far, and in total when known.
pub type Progress<'a> = &'a mut (dyn FnMut(u64, Option<u64>) + Send);

impl Session {
    /// Uploads `content` to `path`.
    ///
    /// Up to 5 MiB are committed in one step together with the folder's entry. More is committed as it goes,
    /// under an upload record: uploading the same file of the same size and modification time to the same path
    /// again continues an interrupted upload, from this or another machine. Content of unknown size (`size`
    /// absent) is committed at the end and not resumed. Memory stays bounded. Dropping the future leaves the
    /// old state and, for large files, a record to continue from.
    ///
    /// Content that another device wrote to the same path in the meantime is never overwritten: see
    /// [`IfExists`] and [`Uploaded::is_conflict_copy`].
    ///
    /// # Errors
    /// [`ClientError::NotFound`] for the folder, [`ClientError::Exists`], [`ClientError::ReadOnly`],
    /// [`ClientError::QuotaReached`], [`ClientError::SourceChanged`] when `content` is not `size` bytes long or is
    /// not what an earlier attempt sent, [`ClientError::Local`].
    pub async fn upload(
        &self,
        path: &str,
        content: &mut (dyn AsyncRead + Unpin + Send),
        size: Option<u64>,
        options: &UploadOptions,
        progress: Progress<'_>,
    ) -> Result<Uploaded, ClientError> {
        let path: RemotePath = path.parse()?;
        let Some((folder, name)) = path.split_last() else {
            return Err(ClientError::IsADirectory {
                path: path.to_string(),
            });
        };
        let upload = Upload {
            account: &self.account,
            path: &path,
            folder: &folder,
            name,
            options,
        };
        progress(0, size);
        if size.is_some_and(|size| size > CHUNK_BYTES) {
            return upload
                .with_record(content, size.unwrap_or(0), progress)
                .await;
        }
        let mut source = ChunkSource::new(content, size);
        let Some((first, is_last)) = source.next().await? else {
            return Err(ClientError::Internal("a source without chunks"));
        };
        if is_last {
            let uploaded = upload.small(&first).await?;
            progress(first.len() as u64, size);
            return Ok(uploaded);
        }
        upload.at_once(first, source, progress).await
    }
}

/// One upload.
pub(super) struct Upload<'a> {
    pub(super) account: &'a Arc<Account>,
    pub(super) path: &'a RemotePath,
    pub(super) folder: &'a RemotePath,
    pub(super) name: &'a FileName,
    pub(super) options: &'a UploadOptions,
}

/// Where a file goes, on one state.
pub(super) struct Target {
    pub(super) item: Item,
    pub(super) folder: Folder,
    /// The file that has the name now and is to be replaced.
    pub(super) existing: Option<Item>,
    /// The name that the file gets.
    pub(super) name: FileName,
    pub(super) is_conflict_copy: bool,
}

/// The state that an upload replaces: none when nothing was there.
#[derive(Clone, Copy)]
pub(super) struct Base(Option<Version>);

impl Upload<'_> {
    /// Finds the folder and what has the name now.
    pub(super) async fn target(&self, snapshot: &mut Snapshot<'_>) -> Result<Target, ClientError> {
        let item = snapshot.folder(self.folder).await?;
        item.writable(self.folder)?;
        let mut folder = Folder::load(snapshot, &item).await?;
        let existing = match folder.find(snapshot, self.name).await? {
            Some(child) => {
                snapshot
                    .item(item.capability(), item.signer.as_ref(), &child)
                    .await?
            }
            None => None,
        };
        if let Some(existing) = &existing {
            if self.options.if_exists == IfExists::Fail {
                return Err(ClientError::Exists {
                    path: self.path.to_string(),
                });
            }
            if existing.properties.is_directory {
                return Err(ClientError::IsADirectory {
                    path: self.path.to_string(),
                });
            }
        }
        Ok(Target {
            item,
            folder,
            existing,
            name: self.name.clone(),
            is_conflict_copy: false,
        })
    }

    /// Finds the target when the upload begins, and says what it replaces.
    pub(super) async fn first_target(
        &self,
        snapshot: &mut Snapshot<'_>,
    ) -> Result<(Base, Target), ClientError> {
        let target = self.target(snapshot).await?;
        let base = self.base(&target);
        Ok((base, self.since(base, target)?))
    }

    /// Returns what the upload replaces, by what it finds when it begins.
    fn base(&self, target: &Target) -> Base {
        Base(match self.options.if_exists {
            IfExists::ReplaceVersion(version) | IfExists::ReplaceExactly(version) => Some(version),
            IfExists::Beside => None,
            IfExists::Fail | IfExists::Replace => target.existing.as_ref().map(Item::version),
        })
    }

    /// Finds the target again, on a state that others may have changed since the upload began.
    pub(super) async fn target_since(
        &self,
        base: Base,
        snapshot: &mut Snapshot<'_>,
    ) -> Result<Target, ClientError> {
        let target = self.target(snapshot).await?;
        self.since(base, target)
    }

    /// Decides where the content goes, given what the upload replaces and what is there now.
    pub(super) fn since(&self, base: Base, target: Target) -> Result<Target, ClientError> {
        let found = target.existing.as_ref().map(Item::version);
        if matches!(self.options.if_exists, IfExists::ReplaceExactly(_)) && found != base.0 {
            return Err(ClientError::ChangedElsewhere {
                path: self.path.to_string(),
            });
        }
        match &target.existing {
            Some(_) if found != base.0 => self.beside(target),
            Some(existing) => {
                existing.writable(self.path)?;
                Ok(target)
            }
            None => Ok(target),
        }
    }

    /// Leaves what is there alone and takes the name of a conflict copy.
    pub(super) fn beside(&self, target: Target) -> Result<Target, ClientError> {
        let now = self.account.now();
        let is_taken = |name: &FileName| target.folder.contains(name);
        let name = conflict_name(self.name, &self.options.device, now, is_taken)?;
        Ok(Target {
            existing: None,
            name,
            is_conflict_copy: true,
            ..target
        })
    }

    /// Draws the keys of a new file, or keeps the place and capability of the one that is replaced.
    pub(super) fn plan(
        &self,
        target: &Target,
        size: u64,
        header: &[u8],
    ) -> Result<FilePlan, ClientError> {
        let rng = &mut *self.account.random();
        let now = self.account.now();
        let header = header.get(..HEADER_BYTES).unwrap_or(header);
        let secret = StreamSecret::random(rng);
        let mut properties = FileProperties::file(
            target.name.clone(),
            mime_type(target.name.as_str(), header),
            size,
            self.options.modified.unwrap_or(now),
            secret.clone(),
        );
        properties.is_hidden = self.options.is_hidden;
        properties.thumbnail = self.options.thumbnail.clone();
        let mut keys = ItemKeys::random(rng);
        let Some(existing) = &target.existing else {
            let folder = target.item.capability();
            let capability = keys.capability(folder.owner.clone(), folder.writer.clone());
            return Ok(FilePlan {
                is_new: true,
                up: Some(target.item.opened.link_from_below(&capability.writer)),
                mirror: self.account.mirror_for(&target.item.opened),
                signer: target.item.writable(self.folder)?,
                starts_space: false,
                capability,
                keys,
                secret,
                properties,
            });
        };
        // Same place and outer keys, so shares keep working; a fresh data key and stream secret, so that
        // nobody who lost access reads what is written now.
        let capability = existing.capability().clone();
        let read_only = || ClientError::ReadOnly {
            path: self.path.to_string(),
        };
        keys.map_key = capability.map_key;
        keys.r_base = capability.r_base.clone();
        keys.w_base = capability.w_base.clone().ok_or_else(read_only)?;
        properties.name = existing.opened.properties.name.clone();
        properties.created = existing.opened.properties.created;
        properties.is_hidden = existing.opened.properties.is_hidden;
        Ok(FilePlan {
            is_new: false,
            up: existing.opened.parent_link().cloned(),
            mirror: self.account.mirror_for(&existing.opened),
            signer: existing.writable(self.path)?,
            starts_space: existing.opened.starts_space(),
            capability,
            keys,
            secret,
            properties,
        })
    }

    /// Uploads one chunk, in one commit.
    pub(super) async fn small(&self, content: &Bytes) -> Result<Uploaded, ClientError> {
        let mut hashes = HashTreeBuilder::new();
        hashes.push_chunk(content);
        let tree = hashes.finish();
        let mut base = None;
        let mut runs = self.account.runs();
        loop {
            match self.small_once(content, &tree, &mut base).await {
                Err(error) => runs.again_after(error).await?,
                done => return done,
            }
        }
    }

    async fn small_once(
        &self,
        content: &Bytes,
        tree: &HashTree,
        base: &mut Option<Base>,
    ) -> Result<Uploaded, ClientError> {
        let mut snapshot = Snapshot::new(self.account);
        let target = self.target(&mut snapshot).await?;
        let base = *base.get_or_insert_with(|| self.base(&target));
        let lock = self.account.locks.of(&target.item.capability().writer);
        let _writing = lock.lock().await;
        // The state may have moved on while others wrote.
        let mut snapshot = Snapshot::new(self.account);
        let target = self.target_since(base, &mut snapshot).await?;
        let plan = self.plan(&target, content.len() as u64, content)?;
        let mut properties = plan.properties.clone();
        properties.tree_hash = Some(tree.branch(0));
        let place = ChunkPlace::first(&plan.capability);
        let rng = &mut *self.account.random();
        let node = plan.seal(0, &place, properties, content, rng)?;
        self.finish(&mut snapshot, target, &plan, vec![node], Vec::new())
            .await
    }

    /// Uploads content of unknown size: everything is committed at the end.
    async fn at_once(
        &self,
        first: Bytes,
        source: ChunkSource<'_>,
        progress: Progress<'_>,
    ) -> Result<Uploaded, ClientError> {
        let mut snapshot = Snapshot::new(self.account);
        let (base, target) = self.first_target(&mut snapshot).await?;
        // The size is not known yet; chunk 0 gets it at the end, and only chunk 0 counts.
        let plan = Arc::new(self.plan(&target, 0, &first)?);
        drop(target);
        let mut source = source;
        source.put_back(first);
        let mut chunks = ChunkUpload::new(self.account, Arc::clone(&plan), source, 0);
        let mut size = 0;
        let mut nodes = Vec::new();
        let mut transactions = Vec::new();
        while let Some(stored) = chunks.next().await? {
            size += stored.bytes;
            progress(size, None);
            if stored.ends_group {
                transactions.extend(stored.transaction.clone());
            }
            nodes.extend(stored.node);
        }
        let tree = chunks.into_hashes().finish();
        self.complete(&plan, base, size, &tree, nodes, transactions)
            .await
    }

    /// Commits all chunks of a file and its entry in one step, on whatever the folder has become.
    pub(super) async fn complete(
        &self,
        plan: &FilePlan,
        base: Base,
        size: u64,
        tree: &HashTree,
        mut nodes: Vec<NewNode>,
        transactions: Vec<TransactionId>,
    ) -> Result<Uploaded, ClientError> {
        let plan = FilePlan {
            properties: FileProperties {
                size_bytes: size,
                ..plan.properties.clone()
            },
            ..plan.clone()
        };
        for (index, place) in heads(&plan, chunk_count(size)) {
            let position = usize::try_from(index).ok().and_then(|i| nodes.get_mut(i));
            let node = position.ok_or(ClientError::Internal("a chunk without node"))?;
            let opened = Opened::open(
                &node.block,
                &plan.capability.at(place.map_key, place.bat.clone()),
            )?;
            let rng = &mut *self.account.random();
            *node = opened.with_properties(with_hash(&plan.properties, tree, index), None, rng)?;
        }
        let mut runs = self.account.runs();
        loop {
            let lock = self.account.locks.of(&plan.capability.writer);
            let writing = lock.lock().await;
            let mut snapshot = Snapshot::new(self.account);
            let target = self.target_since(base, &mut snapshot).await?;
            let (plan, nodes) = match fits(&target, &plan) {
                true => (plan.clone(), nodes.clone()),
                false => self.moved(&target, &plan, &nodes)?,
            };
            let transactions = transactions.clone();
            let done = self
                .finish(&mut snapshot, target, &plan, nodes, transactions)
                .await;
            drop(writing);
            match done {
                Err(error) => runs.again_after(error).await?,
                done => return done,
            }
        }
    }

    /// Seals the nodes of a file anew, for another place and name than they were made for. What is stored of
    /// its content stays as it is.
    fn moved(
        &self,
        target: &Target,
        plan: &FilePlan,
        nodes: &[NewNode],
    ) -> Result<(FilePlan, Vec<NewNode>), ClientError> {
        let mut fresh = self.plan(target, plan.properties.size_bytes, &[])?;
        if fresh.capability.writer != plan.capability.writer {
            // The blocks were signed for another space.
            return Err(ClientError::not_found(self.folder.to_string()));
        }
        let renamed = |properties: &FileProperties| FileProperties {
            name: fresh.properties.name.clone(),
            created: fresh.properties.created,
            is_hidden: fresh.properties.is_hidden,
            ..properties.clone()
        };
        let properties = renamed(&plan.properties);
        let rng = &mut *self.account.random();
        fresh.keys.second_key = plan.keys.second_key.clone();
        fresh.secret = plan.secret.clone();
        let mut from = ChunkPlace::first(&plan.capability);
        let mut to = ChunkPlace::first(&fresh.capability);
        let mut moved = Vec::with_capacity(nodes.len());
        for (node, index) in nodes.iter().zip(0..) {
            let capability = plan.capability.at(from.map_key, from.bat.clone());
            let opened = Opened::open(&node.block, &capability)?;
            let chunk = fresh.chunk(index, &to, renamed(&opened.properties));
            moved.push(opened.moved(chunk, rng)?);
            from = from.next(&plan.secret);
            to = to.next(&plan.secret);
        }
        fresh.properties = properties;
        Ok((fresh, moved))
    }

    /// Puts the nodes of a file and its entry, or its new content in place of the old, and commits.
    pub(super) async fn finish(
        &self,
        snapshot: &mut Snapshot<'_>,
        mut target: Target,
        plan: &FilePlan,
        nodes: Vec<NewNode>,
        transactions: Vec<TransactionId>,
    ) -> Result<Uploaded, ClientError> {
        let first = nodes.iter().find(|node| node.key == plan.keys.map_key);
        let first = first.ok_or(ClientError::Internal("a file without its first chunk"))?;
        let uploaded = self.uploaded(&target, Version::of(first.block.cid()));
        let rng = &mut *self.account.random();
        let space = snapshot
            .space(
                &plan.capability.writer,
                Some(&target.item.capability().writer),
            )
            .await?;
        let mut draft = Draft::new(self.account.view.clone(), Arc::clone(&plan.signer), space)?;
        transactions
            .into_iter()
            .for_each(|transaction| draft.adopt(transaction));
        if let Some(existing) = &target.existing {
            let mut old = old_chunks(snapshot, existing).await?;
            old.remove(&plan.capability.map_key);
            for key in &old {
                draft.remove(key).await?;
            }
            for node in nodes {
                let expected =
                    (node.key == plan.capability.map_key).then(|| existing.opened.cid.clone());
                draft.put(node, expected.as_ref()).await?;
            }
        } else {
            draft.put_new(nodes).await?;
            let entry = nodes::entry(
                target.item.capability(),
                &plan.capability,
                &plan.properties,
                rng,
            )?;
            target.folder.add(entry)?;
            target.folder.write(&mut draft, rng).await?;
        }
        draft.commit().await?;
        Ok(uploaded)
    }

    pub(super) fn uploaded(&self, target: &Target, version: Version) -> Uploaded {
        Uploaded {
            path: self.folder.join(target.name.clone()).to_string(),
            version,
            is_conflict_copy: target.is_conflict_copy,
        }
    }
}

/// Returns true when the chunks of `plan` were sealed for this target.
fn fits(target: &Target, plan: &FilePlan) -> bool {
    match &target.existing {
        Some(existing) => existing.capability() == &plan.capability,
        None => {
            let up = target.item.opened.link_from_below(&plan.capability.writer);
            plan.is_new && plan.up.as_ref() == Some(&up) && plan.properties.name == target.name
        }
    }
}

/// Returns the tree keys of all chunks of a file, by its claimed size, ending where the tree has no more.
pub(super) async fn old_chunks(
    snapshot: &mut Snapshot<'_>,
    file: &Item,
) -> Result<HashSet<MapKey>, ClientError> {
    super::remove::chunk_keys(snapshot, &file.opened).await
}

/// Returns the chunks that carry a branch of the hash tree: every 1,024th.
pub(super) fn heads(plan: &FilePlan, chunks: u64) -> Vec<(u64, ChunkPlace)> {
    let step = LIST_HASHES as u64;
    let mut heads = Vec::new();
    let mut place = ChunkPlace::first(&plan.capability);
    let mut index = 0;
    while index < chunks {
        heads.push((index, place.clone()));
        if index + step >= chunks {
            break;
        }
        for _ in 0..step {
            place = place.next(&plan.secret);
        }
        index += step;
    }
    heads
}

/// Returns properties with the branch for chunk `index`.
pub(super) fn with_hash(
    properties: &FileProperties,
    tree: &HashTree,
    index: u64,
) -> FileProperties {
    let mut properties = properties.clone();
    properties.thumbnail = properties.thumbnail.filter(|_| index == 0);
    properties.tree_hash = usize::try_from(index).ok().map(|index| tree.branch(index));
    properties
}
