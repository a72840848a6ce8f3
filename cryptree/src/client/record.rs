//! Large uploads: committed as they go, under a record from which they can be continued (Spec: 21 §9.3 to §9.7).

use std::{collections::HashSet, sync::Arc};

use champ::cbor::Record as _;
use futures_util::AsyncRead;

use super::{
    Session,
    draft::Draft,
    folder::Folder,
    list::Detail,
    nodes::{NewNode, Opened},
    path::RemotePath,
    session::Account,
    snapshot::Snapshot,
    transfer::{ChunkSource, ChunkUpload, FilePlan, StoredChunk},
    upload::{Base, IfExists, Progress, Target, Upload, UploadOptions, Uploaded, heads, with_hash},
    version::Version,
};
use crate::{
    api::TransactionId,
    capability::MapKey,
    chunk_chain::{ChunkPlace, chunk_count},
    error::ClientError,
    hash_tree::{ContentHash, HashTree},
    properties::{FileName, FileProperties},
    upload_record::UploadRecord,
};

/// Folder of the records, in the home folder.
const RECORDS: &str = ".transactions";
/// Largest record that is read: the hash tree of a 5 TiB file is 33 MB, which is not kept.
const MAX_RECORD_BYTES: u64 = 4 << 20;
/// Places probed at once when looking for the first missing chunk.
const PROBES: u64 = 8;

/// An upload that was begun and not finished.
#[derive(Debug, Clone)]
pub struct UnfinishedUpload {
    /// Where the file was going.
    pub path: String,
    /// When it was begun, in milliseconds since 1970.
    pub started_epoch_millis: i64,
    /// Size of the whole file in bytes.
    pub size_bytes: u64,
    file_name: FileName,
}

impl Session {
    /// Lists uploads that were begun and not finished, by any client of the account.
    ///
    /// # Errors
    /// Whatever keeps the records from being read; a missing folder of records means none.
    pub async fn unfinished_uploads(&self) -> Result<Vec<UnfinishedUpload>, ClientError> {
        let folder = self.account.records_path()?;
        let listing = match self.list(&folder.to_string(), Detail::Quick).await {
            Err(ClientError::NotFound { .. }) => return Ok(Vec::new()),
            listing => listing?,
        };
        let mut uploads = Vec::new();
        for entry in listing.entries {
            let Ok(file_name) = FileName::parse(entry.name) else {
                continue;
            };
            // Files that are no upload records belong to other clients.
            if let Ok(Some(record)) = self.account.read_record(&file_name).await {
                uploads.push(UnfinishedUpload {
                    path: format!("/{}", record.path.trim_start_matches('/')),
                    started_epoch_millis: record.started_epoch_millis,
                    size_bytes: record.size_bytes,
                    file_name,
                });
            }
        }
        Ok(uploads)
    }

    /// Removes the chunks and the record of an unfinished upload.
    ///
    /// # Errors
    /// Whatever keeps them from being removed. An upload that was finished in the meantime is left alone.
    pub async fn discard_upload(&self, upload: &UnfinishedUpload) -> Result<(), ClientError> {
        match self.account.read_record(&upload.file_name).await? {
            Some(record) => self.account.discard(&upload.file_name, &record).await,
            None => Ok(()),
        }
    }
}

impl Account {
    pub(super) fn records_path(&self) -> Result<RemotePath, ClientError> {
        let name = FileName::parse(RECORDS)
            .map_err(|_| ClientError::Internal("a folder name is illegal"))?;
        Ok(RemotePath::home(self.name.as_str()).join(name))
    }

    async fn read_record(
        self: &Arc<Self>,
        name: &FileName,
    ) -> Result<Option<UploadRecord>, ClientError> {
        let path = self.records_path()?.join(name.clone());
        let session = Session {
            account: Arc::clone(self),
        };
        let content = match session.read(&path.to_string(), MAX_RECORD_BYTES).await {
            Err(ClientError::NotFound { .. }) => return Ok(None),
            content => content?,
        };
        // Another type of record, or damaged: not ours to touch.
        Ok(UploadRecord::decode(&content).ok())
    }

    /// Removes the chunks of a record from the tree of its writer, then the record (Spec: 21 §9.6).
    async fn discard(
        self: &Arc<Self>,
        name: &FileName,
        record: &UploadRecord,
    ) -> Result<(), ClientError> {
        let mut runs = self.runs();
        loop {
            match self.discard_once(record).await {
                Err(error) => runs.again_after(error).await?,
                done => break done?,
            }
        }
        let session = Session {
            account: Arc::clone(self),
        };
        let path = self.records_path()?.join(name.clone());
        // The record is a file of its own: this does not touch what it describes.
        session.delete(&path.to_string()).await
    }

    async fn discard_once(&self, record: &UploadRecord) -> Result<(), ClientError> {
        let signer = Arc::new(record.writer.clone());
        let lock = self.locks.of(&signer.writer());
        let _writing = lock.lock().await;
        let Some(space) = self.view.space(&signer.writer()).await? else {
            return Ok(());
        };
        let mut keys = Vec::new();
        let mut place = record.first_chunk();
        let count = chunk_count(record.size_bytes);
        let mut index = 0;
        // The size in a record is not trusted more than any other: end where nothing is left.
        while index < count {
            let mut group = Vec::new();
            while index < count && group.len() < 160 {
                group.push(place.map_key);
                place = place.next(&record.stream_secret);
                index += 1;
            }
            let present = self.present(&space, &group).await?;
            let is_over = present.is_empty();
            keys.extend(present);
            if is_over {
                break;
            }
        }
        let mut draft = Draft::new(self.view.clone(), signer, space)?;
        draft.remove_all(&keys).await?;
        draft.commit().await.map(|_| ())
    }

    /// Returns the index of the first chunk that is not in the tree; chunks are committed in order.
    async fn first_missing(&self, record: &UploadRecord) -> Result<u64, ClientError> {
        let writer = record.writer.writer();
        let Some(space) = self.view.space(&writer).await? else {
            return Ok(0);
        };
        let (mut present, mut missing) = (0, chunk_count(record.size_bytes));
        let places = |index: u64| {
            record
                .first_chunk()
                .advance(&record.stream_secret, index)
                .map(|place| place.map_key)
        };
        // Everything below `present` is there; `missing` is not, or is the end.
        while present < missing {
            let step = (missing - present).div_ceil(PROBES).max(1);
            let probes: Vec<u64> = (0..PROBES)
                .map(|i| present + i * step)
                .filter(|index| *index < missing)
                .collect();
            let keys: Vec<MapKey> = probes.iter().filter_map(|index| places(*index)).collect();
            let found: HashSet<MapKey> = self.present(&space, &keys).await?.into_iter().collect();
            let mut next = (present, missing);
            for (index, key) in probes.iter().zip(&keys) {
                if found.contains(key) {
                    next.0 = index + 1;
                } else {
                    next.1 = *index;
                    break;
                }
            }
            if next == (present, missing) {
                break;
            }
            (present, missing) = next;
        }
        Ok(present)
    }
}

impl Upload<'_> {
    /// Uploads more than one chunk of known size, continuing an earlier attempt when there is one.
    pub(super) async fn with_record(
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
                self.save(&plan, &mut unsaved).await?;
            }
            progress(done, Some(size));
        }
        let tree = chunks.into_hashes().finish();
        self.save(&plan, &mut unsaved).await?;
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
    async fn begin(&self, fresh: FilePlan) -> Result<(FilePlan, FileName, u64), ClientError> {
        let account = self.account;
        let started = account.now();
        let path = self.folder.join(fresh.properties.name.clone()).to_string();
        let record = UploadRecord::new(
            path.trim_start_matches('/'),
            started.epoch_seconds() * 1000 + i64::from(started.nanos() / 1_000_000),
            fresh.capability.owner.clone(),
            (*fresh.signer).clone(),
            &fresh.keys,
            fresh.secret.clone(),
            fresh.properties.clone(),
        );
        let name = FileName::parse(record.file_name())
            .map_err(|_| ClientError::Internal("a record name is illegal"))?;
        if let Some(earlier) = account.read_record(&name).await? {
            if let Some(plan) = self.continued(&fresh, &earlier) {
                let first_missing = account.first_missing(&earlier).await?;
                return Ok((plan, name, first_missing));
            }
            account.discard(&name, &earlier).await?;
        }
        let folder = account.records_path()?;
        match account.make_folder(&folder, true).await {
            Ok(()) | Err(ClientError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
        let path = folder.join(name.clone());
        let options = UploadOptions {
            if_exists: IfExists::Fail,
            ..UploadOptions::default()
        };
        let upload = Upload {
            account,
            path: &path,
            folder: &folder,
            name: &name,
            options: &options,
        };
        upload.small(&record.encode().into()).await?;
        Ok((fresh, name, 0))
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
        if chunk.index != 0 && chunk.index + 1 != first_missing {
            return Ok(());
        }
        let mut snapshot = Snapshot::new(self.account);
        let capability = plan
            .capability
            .at(chunk.place.map_key, chunk.place.bat.clone());
        let node = snapshot.open(&capability, None).await?;
        let node = node.ok_or(ClientError::Conflict)?;
        let fragments = self.account.fragments(node.fragments()).await?;
        if sha256(&node.content(&fragments)?) == chunk.hash {
            return Ok(());
        }
        if let Some(earlier) = self.account.read_record(record).await? {
            self.account.discard(record, &earlier).await?;
        }
        Err(ClientError::SourceChanged {
            path: self.path.to_string(),
        })
    }

    /// Commits finished chunks; nothing points to them yet but the record.
    async fn save(&self, plan: &FilePlan, unsaved: &mut Unsaved) -> Result<(), ClientError> {
        let (nodes, transactions) = unsaved.take();
        if nodes.is_empty() {
            return Ok(());
        }
        let mut runs = self.account.runs();
        loop {
            match self
                .save_once(plan, nodes.clone(), transactions.clone())
                .await
            {
                Err(error) => runs.again_after(error).await?,
                done => return done,
            }
        }
    }

    async fn save_once(
        &self,
        plan: &FilePlan,
        nodes: Vec<NewNode>,
        transactions: Vec<TransactionId>,
    ) -> Result<(), ClientError> {
        let lock = self.account.locks.of(&plan.capability.writer);
        let _writing = lock.lock().await;
        let space = self.account.view.space(&plan.capability.writer).await?;
        let space = space.ok_or_else(|| ClientError::not_found(self.folder.to_string()))?;
        let mut draft = Draft::new(self.account.view.clone(), Arc::clone(&plan.signer), space)?;
        transactions
            .into_iter()
            .for_each(|transaction| draft.adopt(transaction));
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
        let mut target = self.target_since(base, &mut snapshot).await?;
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
        let entry = super::nodes::entry(folder, &plan.capability, &properties, rng)?;
        target.folder.add(entry)?;
        target.folder.write(&mut draft, rng).await?;
        let together = *draft.writer() == self.account.home.writer;
        if together {
            self.remove_record(&mut snapshot, &mut draft, record)
                .await?;
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

    /// Removes a record in the same commit as whatever else is in the draft.
    async fn remove_record(
        &self,
        snapshot: &mut Snapshot<'_>,
        draft: &mut Draft,
        record: &FileName,
    ) -> Result<(), ClientError> {
        let path = self.account.records_path()?;
        let item = snapshot.folder(&path).await?;
        let mut folder = Folder::load(snapshot, &item).await?;
        let Some(child) = folder.find(snapshot, record).await? else {
            return Ok(());
        };
        let Some(place) = child.capability().cloned() else {
            return Ok(());
        };
        let found = snapshot
            .item(item.capability(), item.signer.as_ref(), &child)
            .await?;
        if let Some(found) = found {
            draft.remove(&found.capability().map_key).await?;
        }
        folder.remove(snapshot, record, &place).await?;
        folder.write(draft, &mut *self.account.random()).await
    }
}

fn sha256(bytes: &[u8]) -> ContentHash {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

/// Chunks that are stored and not yet committed.
#[derive(Default)]
struct Unsaved {
    nodes: Vec<NewNode>,
    transactions: Vec<TransactionId>,
}

impl Unsaved {
    /// Adds a chunk; true when its group is complete.
    fn add(&mut self, stored: StoredChunk) -> bool {
        let is_new = stored.node.is_some();
        self.nodes.extend(stored.node);
        if stored.ends_group && is_new {
            self.transactions.extend(stored.transaction);
        }
        stored.ends_group && is_new
    }

    fn take(&mut self) -> (Vec<NewNode>, Vec<TransactionId>) {
        (
            std::mem::take(&mut self.nodes),
            std::mem::take(&mut self.transactions),
        )
    }
}
