//! The steps of a change: look at the file, change some chunks, commit; again when somebody else was faster.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::lock::Mutex;

use super::{
    chunks::{Chunk, Chunks},
    piece::{Piece, Written},
};
use crate::{
    chunk_chain::{CHUNK_BYTES, ChunkPlace, chunk_count, chunk_index, chunk_length},
    client::{
        Session,
        blocks::Wanted,
        content::Content,
        nodes::Opened,
        path::RemotePath,
        remove::later_chunk_keys,
        session::Account,
        snapshot::{Item, Snapshot},
        upload::{IfExists, UploadOptions},
    },
    error::ClientError,
    hash_tree::{HashBranch, HashTreeBuilder, LIST_HASHES},
};

/// What to write next, by the size of the file at that moment.
pub(super) type Next<'a> = &'a (dyn Fn(u64) -> Result<Piece, ClientError> + Sync);

/// A file that is being changed.
pub(super) struct Change<'a> {
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
    pub(super) async fn of(session: &'a Session, path: &str) -> Result<Self, ClientError> {
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

    pub(super) async fn step(&self, next: Next<'_>) -> Result<Written, ClientError> {
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

    pub(super) async fn cut(&self, size: u64) -> Result<(), ClientError> {
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
