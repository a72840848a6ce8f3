//! Large uploads: committed as they go, under a record from which they can be continued (Spec: 21 §9.3, §9.7).

use std::sync::Arc;

use champ::cbor::Record as _;
use futures_util::{AsyncRead, FutureExt as _};
use rand_core::Rng as _;

use crate::{
    api::TransactionId,
    capability::MapKey,
    chunk_chain::{ChunkPlace, chunk_count},
    client::{
        Session,
        draft::Draft,
        folder::Folder,
        nodes::{self, NewNode, Opened},
        path::RemotePath,
        snapshot::Snapshot,
        transfer::{ChunkSource, ChunkUpload, FilePlan, StoredChunk},
        upload::{Base, Progress, Target, Upload, UploadOptions, Uploaded, heads, with_hash},
        version::Version,
    },
    error::ClientError,
    hash_tree::{ContentHash, HashTree},
    properties::{FileName, FileProperties},
    upload_record::UploadRecord,
};

/// Age from which a record of other content is taken for abandoned (Spec: 21 §9.6).
const ABANDONED_AFTER_MILLIS: i64 = 24 * 3600 * 1000;

impl Upload<'_> {
    /// Uploads more than one chunk of known size, continuing an earlier attempt when there is one.
    pub(in crate::client) async fn with_record(
        &self,
        content: &mut (dyn AsyncRead + Unpin + Send),
        size: u64,
        progress: Progress<'_>,
    ) -> Result<Uploaded, ClientError> {
        let mut snapshot = Snapshot::new(self.account);
        let (base, target) = self.first_target(&mut snapshot).await?;
        let mut source = ChunkSource::new(content, Some(size));
        let Some((first, is_last)) = source.next().await? else {
            return Err(ClientError::Internal("a source without chunks"));
        };
        if is_last {
            return Err(ClientError::Internal("one chunk needs no record"));
        }
        source.put_back(first.clone());
        if target.existing.is_some() {
            let first = (&target, base, &first);
            return self.replace(first, source, size, progress).await;
        }
        let fresh = self.plan(&target, size, &first)?;
        let (plan, name, first_missing) = self.begin(fresh).await?;
        let plan = Arc::new(plan);
        let mut chunks = ChunkUpload::new(self.account, Arc::clone(&plan), source, first_missing);
        let mut unsaved = Unsaved::default();
        let places = heads(&plan, chunk_count(size));
        let mut done = 0;
        while let Some(stored) = chunks.next().await? {
            done += stored.bytes;
            if stored.node.is_none() {
                self.check_unchanged(&plan, &stored, first_missing, &name)
                    .await?;
            }
            let is_full = unsaved.add(stored);
            if is_full && done < size {
                let save = self
                    .save(Arc::clone(&plan), std::mem::take(&mut unsaved))
                    .boxed();
                chunks.commit_beside(save).await?;
            }
            progress(done, Some(size));
        }
        chunks.committed().await?;
        let tree = chunks.into_hashes().finish();
        self.save(Arc::clone(&plan), unsaved).await?;
        self.enter(&plan, base, &places, &tree, &name).await
    }

    /// Replaces the content of an existing file: all of it becomes visible in one step.
    async fn replace(
        &self,
        (target, base, first): (&Target, Base, &bytes::Bytes),
        source: ChunkSource<'_>,
        size: u64,
        progress: Progress<'_>,
    ) -> Result<Uploaded, ClientError> {
        let plan = Arc::new(self.plan(target, size, first)?);
        let mut chunks = ChunkUpload::new(self.account, Arc::clone(&plan), source, 0);
        let mut nodes = Vec::new();
        let mut transactions = Vec::new();
        let mut done = 0;
        while let Some(stored) = chunks.next().await? {
            done += stored.bytes;
            progress(done, Some(size));
            if stored.ends_group {
                transactions.extend(stored.transaction.clone());
            }
            nodes.extend(stored.node);
        }
        let tree = chunks.into_hashes().finish();
        self.complete(&plan, base, size, &tree, nodes, transactions)
            .await
    }

    /// Writes the record of a new upload, or takes up an earlier one.
    ///
    /// A record of other content may be that of another device that is uploading at this moment: it is left alone until
    /// it is old, and ours goes under another name.
    async fn begin(&self, fresh: FilePlan) -> Result<(FilePlan, FileName, u64), ClientError> {
        let account = self.account;
        let folder = account.records_path()?;
        match account.make_folder(&folder, true).await {
            Ok(()) | Err(ClientError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
        let now = account.now();
        let now = now.epoch_seconds() * 1000 + i64::from(now.nanos() / 1_000_000);
        for path in self.record_paths(&fresh.properties) {
            let record = UploadRecord::new(
                path,
                now,
                fresh.capability.owner.clone(),
                (*fresh.signer).clone(),
                &fresh.keys,
                fresh.secret.clone(),
                fresh.properties.clone(),
            );
            let name = FileName::parse(record.file_name())
                .map_err(|_| ClientError::Internal("a record name is illegal"))?;
            // Once more when another device writes the same record at this moment.
            for _ in 0..2 {
                if let Some(earlier) = account.read_record(&name).await? {
                    if let Some(plan) = self.continued(&fresh, &earlier) {
                        let first_missing = account.first_missing(&earlier).await?;
                        return Ok((plan, name, first_missing));
                    }
                    if now.saturating_sub(earlier.started_epoch_millis) < ABANDONED_AFTER_MILLIS {
                        break;
                    }
                    account.discard(&name, &earlier).await?;
                }
                match self.write_record(&folder, &name, &record).await {
                    Ok(()) => return Ok((fresh, name, 0)),
                    Err(ClientError::Exists { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(ClientError::ChangedElsewhere {
            path: self.path.to_string(),
        })
    }

    /// Returns the paths under which the record may be kept, in the order in which they are tried: that of the file, as
    /// others look for it; one that the same file finds again; and one that is nobody's.
    fn record_paths(&self, properties: &FileProperties) -> [String; 3] {
        let path = self.folder.join(properties.name.clone()).to_string();
        let path = path.trim_start_matches('/').to_owned();
        let modified = properties.modified;
        let same = format!(
            "{path} ({} bytes of {}.{})",
            properties.size_bytes,
            modified.epoch_seconds(),
            modified.nanos()
        );
        let mut random = [0; 8];
        self.account.random().fill_bytes(&mut random);
        let unique = format!("{path} ({})", u64::from_le_bytes(random));
        [path, same, unique]
    }

    async fn write_record(
        &self,
        folder: &RemotePath,
        name: &FileName,
        record: &UploadRecord,
    ) -> Result<(), ClientError> {
        let upload = Upload {
            account: self.account,
            path: &folder.join(name.clone()),
            folder,
            name,
            options: &UploadOptions::default(),
        };
        upload.small(&record.encode().into()).await.map(|_| ())
    }

    /// Returns the plan of an earlier attempt when it was for the same content in the same place.
    fn continued(&self, fresh: &FilePlan, earlier: &UploadRecord) -> Option<FilePlan> {
        let resume = earlier.resume.as_ref()?;
        let same_file = earlier.size_bytes == fresh.properties.size_bytes
            && earlier.owner == fresh.capability.owner
            && earlier.writer.writer() == fresh.capability.writer
            && self.options.modified == Some(resume.properties.modified)
            && resume.properties.name == fresh.properties.name;
        let capability = earlier.capability().filter(|_| same_file)?;
        let mut plan = fresh.clone();
        plan.keys.map_key = earlier.map_key;
        plan.keys.bat = earlier.first_bat.clone()?;
        plan.keys.r_base = resume.r_base.clone();
        plan.keys.w_base = resume.w_base.clone();
        plan.keys.second_key = resume.data_key.clone();
        plan.secret = earlier.stream_secret.clone();
        plan.properties = resume.properties.clone();
        plan.capability = capability;
        Some(plan)
    }

    /// Compares the first and the last chunk that are there already with the local file: one that changed
    /// must not be continued.
    async fn check_unchanged(
        &self,
        plan: &FilePlan,
        chunk: &StoredChunk,
        first_missing: u64,
        record: &FileName,
    ) -> Result<(), ClientError> {
        if chunk.index != 0 && chunk.index + 1 != first_missing
            || self.is_there(plan, chunk).await?
        {
            return Ok(());
        }
        if let Some(earlier) = self.account.read_record(record).await? {
            self.account.discard(record, &earlier).await?;
        }
        Err(self.source_changed())
    }

    /// Returns true when what is in the place of a chunk has the content of the local file.
    async fn is_there(&self, plan: &FilePlan, chunk: &StoredChunk) -> Result<bool, ClientError> {
        let mut snapshot = Snapshot::new(self.account);
        let place = chunk.place.clone();
        let capability = plan.capability.at(place.map_key, place.bat);
        let node = snapshot.open(&capability, None).await?;
        let node = node.ok_or(ClientError::Conflict)?;
        let fragments = self.account.fragments(node.fragments()).await?;
        Ok(sha256(&node.content(&fragments)?) == chunk.hash)
    }

    fn source_changed(&self) -> ClientError {
        ClientError::SourceChanged {
            path: self.path.to_string(),
        }
    }

    /// Commits finished chunks; nothing points to them yet but the record.
    async fn save(&self, plan: Arc<FilePlan>, unsaved: Unsaved) -> Result<(), ClientError> {
        if unsaved.chunks.is_empty() {
            return Ok(());
        }
        let mut runs = self.account.runs();
        let mut may_be_there = false;
        loop {
            match self.save_once(&plan, &unsaved, may_be_there).await {
                Err(error) => runs.again_after(error).await?,
                done => return done,
            }
            may_be_there = true;
        }
    }

    async fn save_once(
        &self,
        plan: &FilePlan,
        unsaved: &Unsaved,
        may_be_there: bool,
    ) -> Result<(), ClientError> {
        let lock = self.account.locks.of(&plan.capability.writer);
        let _writing = lock.lock().await;
        let space = self.account.view.space(&plan.capability.writer).await?;
        let space = space.ok_or_else(|| ClientError::not_found(self.folder.to_string()))?;
        let mut nodes: Vec<NewNode> = unsaved.nodes().cloned().collect();
        if may_be_there {
            // Another device continues the same upload: its chunks are as good as ours when they are the same.
            let keys: Vec<MapKey> = nodes.iter().map(|node| node.key).collect();
            let there = self.account.present(&space, &keys).await?;
            for chunk in &unsaved.chunks {
                let is_taken = there.contains(&chunk.place.map_key);
                if is_taken && !self.is_there(plan, chunk).await? {
                    return Err(self.source_changed());
                }
            }
            nodes.retain(|node| !there.contains(&node.key));
        }
        let mut draft = Draft::new(self.account.view.clone(), Arc::clone(&plan.signer), space)?;
        for transaction in &unsaved.transactions {
            draft.adopt(transaction.clone());
        }
        draft.put_new(nodes).await?;
        draft.commit().await.map(|_| ())
    }

    /// Adds the finished file to its folder and removes the record, in one commit.
    async fn enter(
        &self,
        plan: &FilePlan,
        base: Base,
        places: &[(u64, ChunkPlace)],
        tree: &HashTree,
        record: &FileName,
    ) -> Result<Uploaded, ClientError> {
        let mut runs = self.account.runs();
        loop {
            match self.enter_once(plan, base, places, tree, record).await {
                Err(error) => runs.again_after(error).await?,
                done => return done,
            }
        }
    }

    async fn enter_once(
        &self,
        plan: &FilePlan,
        base: Base,
        places: &[(u64, ChunkPlace)],
        tree: &HashTree,
        record: &FileName,
    ) -> Result<Uploaded, ClientError> {
        let lock = self.account.locks.of(&plan.capability.writer);
        let _writing = lock.lock().await;
        let mut snapshot = Snapshot::new(self.account);
        let found = self.target(&mut snapshot).await?;
        if let Some(existing) = &found.existing
            && *existing.capability() == plan.capability
        {
            // Another device continued the same upload, and was faster.
            return Ok(self.uploaded(&found, existing.version()));
        }
        let mut target = self.since(base, found)?;
        if target.existing.is_some() {
            // It was deleted when the upload began and is back.
            target = self.beside(target)?;
        }
        let up = target.item.opened.link_from_below(&plan.capability.writer);
        if plan.up.as_ref() != Some(&up) {
            return Err(ClientError::not_found(self.folder.to_string()));
        }
        let properties = FileProperties {
            name: target.name.clone(),
            ..plan.properties.clone()
        };
        let mut version = None;
        let rng = &mut *self.account.random();
        let signer = Arc::clone(&plan.signer);
        let mut draft = self
            .account
            .draft(&mut snapshot, &target.item, signer)
            .await?;
        for (index, place) in places {
            let capability = plan.capability.at(place.map_key, place.bat.clone());
            let head = snapshot.open(&capability, None).await?;
            let head: Opened = head.ok_or(ClientError::Conflict)?;
            let properties = with_hash(&properties, tree, *index);
            let node = head.with_properties(properties, None, rng)?;
            version.get_or_insert(Version::of(node.block.cid()));
            draft.put(node, Some(&head.cid)).await?;
        }
        let folder = target.item.capability();
        let version = version.ok_or(ClientError::Internal("a file without its first chunk"))?;
        let uploaded = self.uploaded(&target, version);
        let entry = nodes::entry(folder, &plan.capability, &properties, rng)?;
        target.folder.add(entry)?;
        target.folder.write(&mut draft, rng).await?;
        let together = *draft.writer() == self.account.home.writer;
        if together
            && !self
                .remove_record(&mut snapshot, &mut draft, record)
                .await?
        {
            // Another device finished this upload, and the file is somewhere else by now; or discarded it.
            return Err(ClientError::ChangedElsewhere {
                path: self.path.to_string(),
            });
        }
        draft.commit().await?;
        if !together {
            let session = Session {
                account: Arc::clone(self.account),
            };
            let path = self.account.records_path()?.join(record.clone());
            session.delete(&path.to_string()).await?;
        }
        Ok(uploaded)
    }

    /// Removes a record in the same commit as whatever else is in the draft; false when it is not there.
    async fn remove_record(
        &self,
        snapshot: &mut Snapshot<'_>,
        draft: &mut Draft,
        record: &FileName,
    ) -> Result<bool, ClientError> {
        let path = self.account.records_path()?;
        let item = snapshot.folder(&path).await?;
        let mut folder = Folder::load(snapshot, &item).await?;
        let Some(child) = folder.find(snapshot, record).await? else {
            return Ok(false);
        };
        let Some(place) = child.capability().cloned() else {
            return Ok(false);
        };
        let found = snapshot
            .item(item.capability(), item.signer.as_ref(), &child)
            .await?;
        if let Some(found) = found {
            draft.remove(&found.capability().map_key).await?;
        }
        folder.remove(snapshot, record, &place).await?;
        folder.write(draft, &mut *self.account.random()).await?;
        Ok(true)
    }
}

fn sha256(bytes: &[u8]) -> ContentHash {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

/// Chunks that are stored and not yet committed.
#[derive(Default)]
struct Unsaved {
    chunks: Vec<StoredChunk>,
    transactions: Vec<TransactionId>,
}

impl Unsaved {
    /// Adds a chunk, unless it was there already; true when its group is complete.
    fn add(&mut self, stored: StoredChunk) -> bool {
        if stored.node.is_none() {
            return false;
        }
        let ends_group = stored.ends_group;
        if ends_group {
            self.transactions.extend(stored.transaction.clone());
        }
        self.chunks.push(stored);
        ends_group
    }

    fn nodes(&self) -> impl Iterator<Item = &NewNode> {
        self.chunks.iter().filter_map(|chunk| chunk.node.as_ref())
    }
}
