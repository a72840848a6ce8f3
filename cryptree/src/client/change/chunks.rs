//! The chunks that one step reads and writes.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::piece::Piece;
use crate::{
    capability::MapKey,
    chunk_chain::{CHUNK_BYTES, ChunkPlace, StreamSecret, chunk_length, fit_chunk},
    client::{
        nodes::{self, NewNode, Opened},
        path::RemotePath,
        session::Account,
        snapshot::{Item, Snapshot},
    },
    crypto::SymmetricKey,
    directory::ItemKeys,
    error::ClientError,
    file::NewChunk,
    hash_tree::HashBranch,
    properties::FileProperties,
};

pub(super) struct Chunk {
    pub(super) place: ChunkPlace,
    /// Absent where the file does not reach yet, or has a hole that another client left.
    pub(super) node: Option<Opened>,
}

/// The chunks of one step.
pub(super) struct Chunks {
    pub(super) item: Item,
    pub(super) path: RemotePath,
    pub(super) secret: StreamSecret,
    pub(super) data_key: SymmetricKey,
    pub(super) chunks: BTreeMap<u64, Chunk>,
    /// What chunks will hold.
    pub(super) contents: BTreeMap<u64, Bytes>,
}

impl Chunks {
    /// Returns the content that chunk `index` of a file of `size` bytes has now.
    pub(super) async fn old_content(
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
    pub(super) async fn spliced(
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
    pub(super) async fn commit(
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
