//! Changing the content of a file in place: ranges, the end, the size (Spec: 21 §10.1 to §10.3).
//!
//! Only the chunks concerned are read and sealed again, under the file's own data key. Every commit also brings
//! chunk 0 up to date and takes back the content hashes that are no longer true. There are never holes: what
//! lies between the old end and new bytes is written as zeros.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures_util::lock::Mutex;

use super::{
    Session,
    blocks::Wanted,
    edit::Content,
    nodes::{self, NewNode, Opened},
    path::RemotePath,
    remove::later_chunk_keys,
    session::Account,
    snapshot::{Item, Snapshot},
    upload::{IfExists, UploadOptions},
};
use crate::{
    capability::MapKey,
    chunk_chain::{
        CHUNK_BYTES, ChunkPlace, MAX_CHUNKS, StreamSecret, chunk_count, chunk_index, chunk_length,
        fit_chunk,
    },
    crypto::SymmetricKey,
    directory::ItemKeys,
    error::ClientError,
    file::NewChunk,
    hash_tree::{HashBranch, HashTreeBuilder, LIST_HASHES},
    properties::FileProperties,
};

/// Chunks changed in one commit: what a change costs in memory, with what is made of it.
const STEP_CHUNKS: u64 = 4;
/// Largest file.
const MAX_FILE_BYTES: u64 = MAX_CHUNKS * CHUNK_BYTES;

impl Session {
    /// Writes `bytes` into the file at `offset`, over what is there and past its end; a gap is filled with zeros.
    ///
    /// Up to four chunks (20 MiB) are changed in one step, which happens whole or not at all; longer writes are
    /// several steps, in order. Chunks that are not concerned are neither read nor written.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::IsADirectory`], [`ClientError::ReadOnly`],
    /// [`ClientError::TooLarge`] beyond 5 PiB, [`ClientError::QuotaReached`].
    pub async fn write_at(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<(), ClientError> {
        let end = end_of(offset, bytes.len())?;
        let change = Change::of(self, path).await?;
        let mut at = offset;
        let mut rest = bytes;
        loop {
            let written = change
                .step(&|size| {
                    Ok(match rest.is_empty() {
                        false if size < at => Piece::after_zeros(size, at, rest),
                        _ => Piece::of(at, rest),
                    })
                })
                .await?;
            // Nothing of it, when zeros were all that one step could write on the way to the offset.
            let done = written.range.end.saturating_sub(at);
            at += done;
            let done = usize::try_from(done).unwrap_or(usize::MAX);
            rest = rest.get(done..).unwrap_or_default();
            if at >= end {
                return Ok(());
            }
        }
    }

    /// Adds `bytes` to the end of the file and returns its new size.
    ///
    /// With `expected_size` the file must have that size; without it the bytes go to wherever the end is, also
    /// when other devices append at the same time. Up to four chunks are added in one step.
    ///
    /// # Errors
    /// As [`Session::write_at`]; [`ClientError::SourceChanged`] when the size is not the expected one, or
    /// changes between two steps.
    pub async fn append(
        &self,
        path: &str,
        bytes: &[u8],
        expected_size: Option<u64>,
    ) -> Result<u64, ClientError> {
        let change = Change::of(self, path).await?;
        let mut expected = expected_size;
        let mut rest = bytes;
        loop {
            let written = change
                .step(&|size| {
                    if expected.is_some_and(|expected| expected != size) {
                        return Err(ClientError::SourceChanged {
                            path: path.to_owned(),
                        });
                    }
                    end_of(size, rest.len())?;
                    Ok(Piece::of(size, rest))
                })
                .await?;
            rest = rest.get(written.len()..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(written.size);
            }
            expected = Some(written.size);
        }
    }

    /// Makes the file exactly `size` bytes long: cuts it, or fills it up with zeros.
    ///
    /// # Errors
    /// As [`Session::write_at`].
    pub async fn set_size(&self, path: &str, size: u64) -> Result<(), ClientError> {
        end_of(size, 0)?;
        let change = Change::of(self, path).await?;
        loop {
            let reached = change
                .step(&|now| Ok(Piece::zeros(now.min(size), size)))
                .await?
                .size;
            if reached > size {
                return change.cut(size).await;
            }
            if reached == size {
                return Ok(());
            }
        }
    }
}

fn end_of(offset: u64, length: usize) -> Result<u64, ClientError> {
    let end = offset.checked_add(length as u64);
    end.filter(|end| *end <= MAX_FILE_BYTES)
        .ok_or(ClientError::TooLarge {
            what: "the file",
            max: MAX_FILE_BYTES,
        })
}

/// Bytes of one step.
struct Piece {
    at: u64,
    bytes: Bytes,
}

impl Piece {
    /// Takes as much of `bytes` as one step may change.
    fn of(at: u64, bytes: &[u8]) -> Self {
        let most = (chunk_index(at) + STEP_CHUNKS) * CHUNK_BYTES - at;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Self {
            at,
            bytes: Bytes::copy_from_slice(bytes.get(..most).unwrap_or(bytes)),
        }
    }

    /// Zeros from `from` to `at`, then `bytes`: as much as one step may change.
    fn after_zeros(from: u64, at: u64, bytes: &[u8]) -> Self {
        let zeros = Self::zeros(from, at);
        if zeros.range().end < at {
            return zeros;
        }
        let most = (chunk_index(from) + STEP_CHUNKS) * CHUNK_BYTES - at;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut whole = BytesMut::from(&*zeros.bytes);
        whole.extend_from_slice(bytes.get(..most).unwrap_or(bytes));
        Self {
            at: from,
            bytes: whole.freeze(),
        }
    }

    /// Zeros from `from` towards `to`.
    fn zeros(from: u64, to: u64) -> Self {
        let most = (chunk_index(from) + STEP_CHUNKS) * CHUNK_BYTES;
        let length = to.min(most).saturating_sub(from);
        Self {
            at: from,
            bytes: vec![0; usize::try_from(length).unwrap_or(0)].into(),
        }
    }

    fn range(&self) -> Range<u64> {
        self.at..self.at + self.bytes.len() as u64
    }
}

/// What one step wrote, and the size of the file after it.
struct Written {
    range: Range<u64>,
    size: u64,
}

impl Written {
    fn len(&self) -> usize {
        usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX)
    }
}

/// What to write next, by the size of the file at that moment.
type Next<'a> = &'a (dyn Fn(u64) -> Result<Piece, ClientError> + Sync);

/// A file that is being changed.
struct Change<'a> {
    session: &'a Session,
    path: RemotePath,
    /// One change of the file's space at a time.
    lock: Arc<Mutex<()>>,
}

/// Whether a step could be made.
enum Outcome<T> {
    Done(T),
    /// Readers who lost access have its data key, or it is built as of old: seal it anew first.
    Unclean,
}

impl<'a> Change<'a> {
    async fn of(session: &'a Session, path: &str) -> Result<Self, ClientError> {
        let path: RemotePath = path.parse()?;
        let account = &session.account;
        // Which space it is in is all that is taken from this look; steps look again under the lock.
        let (item, _) = Snapshot::new(account).resolve(&path).await?;
        Ok(Self {
            session,
            path,
            lock: account.locks.of(&item.capability().writer),
        })
    }

    fn account(&self) -> &'a Arc<Account> {
        &self.session.account
    }

    async fn step(&self, next: Next<'_>) -> Result<Written, ClientError> {
        let mut runs = self.account().runs();
        let mut is_cleaned = false;
        loop {
            match self.step_once(next).await {
                Ok(Outcome::Done(written)) => return Ok(written),
                Ok(Outcome::Unclean) => self.clean(&mut is_cleaned).await?,
                Err(error) => runs.again_after(error).await?,
            }
        }
    }

    async fn step_once(&self, next: Next<'_>) -> Result<Outcome<Written>, ClientError> {
        let _writing = self.lock.lock().await;
        let mut snapshot = Snapshot::new(self.account());
        let item = self.file(&mut snapshot).await?;
        let size = item.properties.size_bytes;
        let piece = next(size)?;
        let range = piece.range();
        let written = Written {
            size: size.max(range.end),
            range: range.clone(),
        };
        if range.is_empty() {
            return Ok(Outcome::Done(Written { size, ..written }));
        }
        let touched = chunk_index(range.start)..=chunk_index(range.end - 1);
        let Some(mut chunks) = self
            .load(&mut snapshot, item, touched.clone().collect())
            .await?
        else {
            return Ok(Outcome::Unclean);
        };
        for index in touched {
            let content = chunks.spliced(self.account(), index, size, &piece).await?;
            chunks.contents.insert(index, content);
        }
        let tree_hash = (range.start == 0 && range.end >= size).then(|| whole_hash(&piece.bytes));
        chunks
            .commit(self.account(), &mut snapshot, written.size, tree_hash, &[])
            .await?;
        Ok(Outcome::Done(written))
    }

    async fn cut(&self, size: u64) -> Result<(), ClientError> {
        let mut runs = self.account().runs();
        let mut is_cleaned = false;
        loop {
            match self.cut_once(size).await {
                Ok(Outcome::Done(())) => return Ok(()),
                Ok(Outcome::Unclean) => self.clean(&mut is_cleaned).await?,
                Err(error) => runs.again_after(error).await?,
            }
        }
    }

    async fn cut_once(&self, size: u64) -> Result<Outcome<()>, ClientError> {
        let _writing = self.lock.lock().await;
        let mut snapshot = Snapshot::new(self.account());
        let item = self.file(&mut snapshot).await?;
        let before = item.properties.size_bytes;
        if size >= before {
            return Ok(Outcome::Done(()));
        }
        let kept = chunk_count(size);
        let last = kept - 1;
        let Some(mut chunks) = self
            .load(&mut snapshot, item, BTreeSet::from([last]))
            .await?
        else {
            return Ok(Outcome::Unclean);
        };
        let doomed =
            later_chunk_keys(&mut snapshot, &chunks.item.opened, &chunks.secret, kept).await?;
        // Also an emptied file: what was in it must be gone, not only hidden by the size.
        if chunk_length(size, last) < chunk_length(before, last) {
            let mut content = chunks.old_content(self.account(), last, before).await?;
            content.truncate(usize::try_from(chunk_length(size, last)).unwrap_or(0));
            chunks.contents.insert(last, content);
        }
        chunks
            .commit(self.account(), &mut snapshot, size, None, &doomed)
            .await?;
        Ok(Outcome::Done(()))
    }

    /// Seals the whole file anew, in place, under keys that nobody else has.
    async fn clean(&self, is_cleaned: &mut bool) -> Result<(), ClientError> {
        if std::mem::replace(is_cleaned, true) {
            return Err(ClientError::Conflict);
        }
        let path = self.path.to_string();
        let file = self.session.open_file(&path).await?;
        let options = UploadOptions {
            modified: Some(file.properties().modified),
            if_exists: IfExists::ReplaceVersion(file.version()),
            is_hidden: file.properties().is_hidden,
            thumbnail: file.properties().thumbnail.clone(),
            ..UploadOptions::default()
        };
        let mut content = Content::new(&file);
        let cleaned = self
            .session
            .upload(
                &path,
                &mut content,
                Some(file.size()),
                &options,
                &mut |_, _| {},
            )
            .await?;
        if cleaned.is_conflict_copy {
            // Somebody wrote to it at the same time: what they wrote counts, ours was only a copy.
            self.session.delete(&cleaned.path).await?;
        }
        Ok(())
    }

    async fn file(&self, snapshot: &mut Snapshot<'_>) -> Result<Item, ClientError> {
        let (item, _) = snapshot.resolve(&self.path).await?;
        if item.properties.is_directory {
            return Err(ClientError::IsADirectory {
                path: self.path.to_string(),
            });
        }
        Ok(item)
    }

    /// Looks up the chunks to be changed, chunk 0, and those that carry hashes of them.
    async fn load(
        &self,
        snapshot: &mut Snapshot<'_>,
        item: Item,
        touched: BTreeSet<u64>,
    ) -> Result<Option<Chunks>, ClientError> {
        item.writable(&self.path)?;
        let data_key = item.opened.data_key()?;
        let secret = item.opened.properties.stream_secret.clone();
        let (Some(secret), false) = (secret, data_key.is_dirty()) else {
            return Ok(None);
        };
        let group = LIST_HASHES as u64;
        let mut indices: BTreeSet<u64> =
            touched.iter().map(|index| index - index % group).collect();
        indices.extend(touched);
        indices.remove(&0);
        let first = Chunk {
            place: ChunkPlace::first(item.capability()),
            node: Some(item.opened.clone()),
        };
        let mut places = Vec::new();
        let (mut at, mut place) = (0, first.place.clone());
        for index in indices {
            place = place
                .advance(&secret, index - at)
                .ok_or_else(|| ClientError::cannot_read(self.path.to_string()))?;
            at = index;
            places.push((index, place.clone()));
        }
        let wanted: Vec<Wanted> = places.iter().map(|(_, place)| wanted(place)).collect();
        let blocks = match wanted.is_empty() {
            true => Vec::new(),
            false => {
                snapshot
                    .nodes(&item.capability().writer, None, &wanted)
                    .await?
            }
        };
        let mut chunks = BTreeMap::from([(0, first)]);
        for ((index, place), block) in places.into_iter().zip(blocks) {
            let capability = item.capability().at(place.map_key, place.bat.clone());
            let node = block
                .map(|block| Opened::open(&block, &capability))
                .transpose()?;
            chunks.insert(index, Chunk { place, node });
        }
        Ok(Some(Chunks {
            item,
            path: self.path.clone(),
            secret,
            data_key,
            chunks,
            contents: BTreeMap::new(),
        }))
    }
}

fn wanted(place: &ChunkPlace) -> Wanted {
    Wanted {
        map_key: *place.map_key.bytes(),
        bat: place.bat.clone(),
    }
}

/// Hashes content that is the whole file.
fn whole_hash(content: &[u8]) -> HashBranch {
    let mut hashes = HashTreeBuilder::new();
    for chunk in content.chunks(usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX)) {
        hashes.push_chunk(chunk);
    }
    hashes.finish().branch(0)
}

struct Chunk {
    place: ChunkPlace,
    /// Absent where the file does not reach yet, or has a hole that another client left.
    node: Option<Opened>,
}

/// The chunks of one step.
struct Chunks {
    item: Item,
    path: RemotePath,
    secret: StreamSecret,
    data_key: SymmetricKey,
    chunks: BTreeMap<u64, Chunk>,
    /// What chunks will hold.
    contents: BTreeMap<u64, Bytes>,
}

impl Chunks {
    /// Returns the content that chunk `index` of a file of `size` bytes has now.
    async fn old_content(
        &self,
        account: &Arc<Account>,
        index: u64,
        size: u64,
    ) -> Result<Bytes, ClientError> {
        let node = self.chunks.get(&index).and_then(|chunk| chunk.node.clone());
        let Some(node) = node.filter(|_| chunk_length(size, index) > 0) else {
            return Ok(fit_chunk(Bytes::new(), size, index));
        };
        let fragments = account.fragments(node.fragments()).await?;
        account
            .compute(move || Ok(fit_chunk(node.content(&fragments)?, size, index)))
            .await?
    }

    /// Returns what chunk `index` holds with `piece` written over it.
    async fn spliced(
        &self,
        account: &Arc<Account>,
        index: u64,
        size: u64,
        piece: &Piece,
    ) -> Result<Bytes, ClientError> {
        let chunk = index * CHUNK_BYTES..(index + 1) * CHUNK_BYTES;
        let range = piece.range();
        let (start, end) = (range.start.max(chunk.start), range.end.min(chunk.end));
        let inside = |at: u64| usize::try_from(at - chunk.start).unwrap_or(usize::MAX);
        let from_piece = usize::try_from(start - piece.at).unwrap_or(usize::MAX);
        let new = piece
            .bytes
            .slice(from_piece..from_piece + inside(end) - inside(start));
        if start == chunk.start && end - start >= chunk_length(size, index) {
            return Ok(new);
        }
        let mut content = BytesMut::from(&*self.old_content(account, index, size).await?);
        if content.len() < inside(end) {
            content.resize(inside(end), 0);
        }
        if let Some(target) = content.get_mut(inside(start)..inside(end)) {
            target.copy_from_slice(&new);
        }
        Ok(content.freeze())
    }

    /// Seals what changes and commits it, without the chunks at `doomed`.
    async fn commit(
        self,
        account: &Arc<Account>,
        snapshot: &mut Snapshot<'_>,
        size: u64,
        tree_hash: Option<HashBranch>,
        doomed: &[MapKey],
    ) -> Result<(), ClientError> {
        let signer = self.item.writable(&self.path)?;
        let mut draft = account.draft(snapshot, &self.item, signer).await?;
        let mut first = self.item.opened.properties.clone();
        first.size_bytes = size;
        first.modified = account.now();
        first.tree_hash = tree_hash;
        let mut rng = account.random();
        let mirror = account.mirror_for(&self.item.opened);
        let sealed = account.compute(move || {
            let mut nodes = Vec::new();
            for (index, chunk) in &self.chunks {
                let content = self.contents.get(index);
                let expected = chunk.node.as_ref().map(|node| node.cid.clone());
                let properties = properties_of(chunk, *index, &first);
                let node: NewNode = match (&chunk.node, content) {
                    (Some(node), Some(content)) => {
                        node.with_content(content, properties, &mut *rng)?
                    }
                    (Some(node), None)
                        if node.properties != properties && is_stale(node, *index) =>
                    {
                        node.with_properties(properties, None, &mut *rng)?
                    }
                    (None, Some(content)) => {
                        let new = NewChunk {
                            keys: &self.keys_at(&chunk.place, &mut *rng),
                            stream_secret: &self.secret,
                            place: &chunk.place,
                            properties,
                            parent: self.item.opened.parent_link().cloned(),
                            signer: None,
                            mirror: mirror.as_ref(),
                        };
                        nodes::new_chunk(new, content, &mut *rng)?
                    }
                    (_, None) => continue,
                };
                nodes.push((node, expected));
            }
            Ok::<_, ClientError>(nodes)
        });
        for (node, expected) in sealed.await?? {
            draft.put(node, expected.as_ref()).await?;
        }
        draft.remove_all(doomed).await?;
        draft.commit().await.map(|_| ())
    }

    /// The keys of a chunk that is added; the write key is only used on chunk 0.
    fn keys_at(&self, place: &ChunkPlace, rng: &mut dyn rand_core::CryptoRng) -> ItemKeys {
        ItemKeys {
            r_base: self.item.capability().r_base.clone(),
            second_key: self.data_key.clone(),
            map_key: place.map_key,
            ..ItemKeys::random(rng)
        }
    }
}

/// True for a chunk that is not written but whose properties are: the first, and one with hashes.
fn is_stale(node: &Opened, index: u64) -> bool {
    index == 0 || node.properties.tree_hash.is_some()
}

/// What is written on a chunk. Only chunk 0 counts; the others need no preview image.
fn properties_of(chunk: &Chunk, index: u64, first: &FileProperties) -> FileProperties {
    if index == 0 {
        return first.clone();
    }
    let mut properties = match &chunk.node {
        Some(node) => node.properties.clone(),
        None => FileProperties {
            thumbnail: None,
            ..first.clone()
        },
    };
    properties.size_bytes = first.size_bytes;
    properties.modified = first.modified;
    properties.tree_hash = None;
    properties
}
