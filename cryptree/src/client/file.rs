//! Reading files: whole, in part, and as a stream with chunks fetched ahead (Spec: 20 §7.3, 21 §11).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{
    AsyncWrite, AsyncWriteExt, FutureExt, StreamExt,
    future::{BoxFuture, join},
    stream::FuturesOrdered,
};

use super::{
    blocks::Wanted,
    nodes::Opened,
    path::RemotePath,
    session::{Reading, Session},
    snapshot::Snapshot,
    space::SpaceState,
    version::Version,
};
use crate::{
    chunk_chain::{CHUNK_BYTES, ChunkPlace, MAX_CHUNKS, chunk_count, chunk_index, fit_chunk},
    error::ClientError,
    properties::FileProperties,
};

/// Chunks being fetched and opened at once; each costs up to two times 5 MiB of memory.
const CHUNKS_IN_FLIGHT: usize = 2;
/// Chunks skipped at once on the way to one far away: 320 GiB.
const CHUNKS_PER_LEG: u64 = 1 << 16;
/// Chunk nodes looked up per request.
const NODES_PER_LOOKUP: u64 = 20;

/// A file opened for reading, on the state it had when it was opened.
///
/// Nothing of a chunk is returned before all of it has authenticated. A read is one lookup and at most five
/// fragments, wherever in the file it is.
pub struct RemoteFile {
    reading: Arc<Reading>,
    path: String,
    space: SpaceState,
    first: Opened,
    properties: FileProperties,
    /// The chunk read last.
    recent: Mutex<Option<(u64, Bytes)>>,
}

impl std::fmt::Debug for RemoteFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Opens a file.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::IsADirectory`].
    pub async fn open_file(&self, path: &str) -> Result<RemoteFile, ClientError> {
        let path: RemotePath = path.parse()?;
        let mut snapshot = Snapshot::new(&self.account);
        let (item, _) = snapshot.resolve(&path).await?;
        if item.properties.is_directory {
            return Err(ClientError::IsADirectory {
                path: path.to_string(),
            });
        }
        let space = snapshot.space(&item.capability().writer, None).await?;
        Ok(RemoteFile::new(
            Arc::clone(&self.account.reading),
            path.to_string(),
            space,
            item.opened,
            item.properties,
        ))
    }

    /// Downloads a file into `output`, telling `progress` the bytes done and in total, and returns its size.
    ///
    /// Memory stays bounded whatever the size. Dropping the future stops the download; what was written to
    /// `output` by then is a correct beginning of the file.
    ///
    /// # Errors
    /// As [`Session::open_file`] and [`RemoteFile::read_at`]; [`ClientError::Local`] when `output` fails.
    pub async fn download(
        &self,
        path: &str,
        output: &mut (dyn AsyncWrite + Unpin + Send),
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<u64, ClientError> {
        let file = self.open_file(path).await?;
        let total = file.size();
        let mut done = 0;
        progress(done, total);
        let mut chunks = file.chunks(0);
        let mut next = chunks.next().await?;
        while let Some(chunk) = next {
            // The chunks that follow are fetched while this one is written.
            let (written, after) = join(output.write_all(&chunk), chunks.next()).await;
            written?;
            done += chunk.len() as u64;
            progress(done, total);
            next = after?;
        }
        output.flush().await?;
        Ok(done)
    }

    /// Reads a small file into memory.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`] above `max_bytes`, and as [`Session::open_file`].
    pub async fn read(&self, path: &str, max_bytes: u64) -> Result<Vec<u8>, ClientError> {
        let file = self.open_file(path).await?;
        if file.size() > max_bytes {
            return Err(ClientError::TooLarge {
                what: "the file",
                max: max_bytes,
            });
        }
        let mut content = Vec::new();
        let mut chunks = file.chunks(0);
        while let Some(chunk) = chunks.next().await? {
            content.extend_from_slice(&chunk);
        }
        Ok(content)
    }
}

impl RemoteFile {
    pub(crate) const fn new(
        reading: Arc<Reading>,
        path: String,
        space: SpaceState,
        first: Opened,
        properties: FileProperties,
    ) -> Self {
        Self {
            reading,
            path,
            space,
            first,
            properties,
            recent: Mutex::new(None),
        }
    }

    /// Returns the size in bytes, as the file's owner claims it.
    pub const fn size(&self) -> u64 {
        self.properties.size_bytes
    }

    /// Returns the state that is read.
    pub fn version(&self) -> Version {
        Version::of(&self.first.cid)
    }

    /// Returns the mime type.
    pub fn mime_type(&self) -> &str {
        &self.properties.mime_type
    }

    /// Returns the properties.
    pub const fn properties(&self) -> &FileProperties {
        &self.properties
    }

    /// Reads up to `length` bytes at `offset`: fewer only at the end of a chunk or of the file, none at the end.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`] for an offset beyond the end; [`ClientError::CannotRead`] when the chunk does
    /// not authenticate or is missing.
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, ClientError> {
        if offset > self.size() {
            return Err(ClientError::TooLarge {
                what: "the offset",
                max: self.size(),
            });
        }
        if offset == self.size() || length == 0 {
            return Ok(Bytes::new());
        }
        let index = chunk_index(offset);
        let recent = self.recent().clone();
        let chunk = match recent {
            Some((known, chunk)) if known == index => chunk,
            _ => {
                let chunk = self.chunk(index).await?;
                *self.recent() = Some((index, chunk.clone()));
                chunk
            }
        };
        let start = usize::try_from(offset % CHUNK_BYTES).unwrap_or(usize::MAX);
        let end = start.saturating_add(length).min(chunk.len());
        Ok(if start < end {
            chunk.slice(start..end)
        } else {
            Bytes::new()
        })
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Option<(u64, Bytes)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts reading the content from chunk `from` on, in order, fetching ahead.
    pub fn chunks(&self, from: u64) -> ChunkReader<'_> {
        // The node of chunk 0 was read when the file was opened: a small file costs no look-up.
        let mut looked_up = VecDeque::new();
        let mut next = from;
        if from == 0 && self.properties.stream_secret.is_some() {
            looked_up.push_back((0, self.first.clone()));
            next = 1;
        }
        ChunkReader {
            file: self,
            next,
            place: Some((0, ChunkPlace::first(&self.first.capability))),
            looked_up,
            in_flight: FuturesOrdered::new(),
            legacy: Some((0, self.first.clone())),
        }
    }

    fn snapshot(&self) -> Snapshot<'_> {
        Snapshot::with(&self.reading, self.space.clone())
    }

    async fn chunk(&self, index: u64) -> Result<Bytes, ClientError> {
        if index == 0 {
            return self.open_chunk(0, self.first.clone()).await;
        }
        let Some(secret) = &self.properties.stream_secret else {
            let chunk = self.chunks(index).next().await?;
            return chunk.ok_or_else(|| self.damaged());
        };
        if index >= MAX_CHUNKS {
            return Err(self.damaged());
        }
        let mut place = ChunkPlace::first(&self.first.capability);
        let mut at = 0;
        // Every step is a hash, and the size is only claimed: no more steps than chunks that are there.
        while index - at > CHUNKS_PER_LEG {
            place = place
                .advance(secret, CHUNKS_PER_LEG)
                .ok_or_else(|| self.damaged())?;
            at += CHUNKS_PER_LEG;
            self.chunk_nodes(at, vec![place.clone()]).await?;
        }
        let place = place
            .advance(secret, index - at)
            .ok_or_else(|| self.damaged())?;
        let nodes = self.chunk_nodes(index, vec![place]).await?;
        let (index, node) = nodes.into_iter().next().ok_or_else(|| self.damaged())?;
        self.open_chunk(index, node).await
    }

    /// Looks up the nodes of consecutive chunks from `first` on.
    async fn chunk_nodes(
        &self,
        first: u64,
        places: Vec<ChunkPlace>,
    ) -> Result<Vec<(u64, Opened)>, ClientError> {
        let wanted: Vec<Wanted> = places
            .iter()
            .map(|place| Wanted {
                map_key: *place.map_key.bytes(),
                bat: place.bat.clone(),
            })
            .collect();
        let tree = self.space.tree()?;
        let blocks = self.reading.view.blocks.lookup(tree, &wanted).await?;
        let mut nodes = Vec::with_capacity(places.len());
        for ((place, block), index) in places.into_iter().zip(blocks).zip(first..) {
            let capability = self.first.capability.at(place.map_key, place.bat);
            // The size says that the chunk exists.
            let block = block.ok_or_else(|| self.damaged())?;
            let opened = Opened::open(&block, &capability)?;
            if opened.is_directory_layout() {
                return Err(self.damaged());
            }
            nodes.push((index, opened));
        }
        Ok(nodes)
    }

    /// Fetches the fragments of a chunk and opens it whole.
    async fn open_chunk(&self, index: u64, node: Opened) -> Result<Bytes, ClientError> {
        let size = self.size();
        if node.fragments().is_empty() {
            return Ok(fit_chunk(node.content(&[])?, size, index));
        }
        let fragments = self.reading.fragments(node.fragments()).await?;
        let content = self
            .reading
            .compute(move || {
                node.content(&fragments)
                    .map(|data| fit_chunk(data, size, index))
            })
            .await?;
        content.map_err(|_| self.damaged())
    }

    fn damaged(&self) -> ClientError {
        ClientError::cannot_read(self.path.clone())
    }
}

/// A walk over the chunks of a file.
pub struct ChunkReader<'a> {
    file: &'a RemoteFile,
    /// Index of the next chunk to fetch.
    next: u64,
    /// A chunk and its place, kept so that the chain is hashed once per file and not once per lookup.
    place: Option<(u64, ChunkPlace)>,
    looked_up: VecDeque<(u64, Opened)>,
    in_flight: FuturesOrdered<BoxFuture<'a, Result<Bytes, ClientError>>>,
    /// Where the walk over a file without stream secret stands.
    legacy: Option<(u64, Opened)>,
}

impl std::fmt::Debug for ChunkReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkReader")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl ChunkReader<'_> {
    /// Returns the next chunk; `None` at the end. Dropping the future loses nothing but the fetching.
    ///
    /// # Errors
    /// [`ClientError::CannotRead`] when a chunk does not authenticate or is missing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        if self.file.properties.stream_secret.is_none() {
            return self.follow().await;
        }
        while self.in_flight.len() < CHUNKS_IN_FLIGHT {
            if self.looked_up.is_empty() {
                self.look_up().await?;
            }
            let Some((index, node)) = self.looked_up.pop_front() else {
                break;
            };
            let file = self.file;
            self.in_flight
                .push_back(file.open_chunk(index, node).boxed());
        }
        self.in_flight.next().await.transpose()
    }

    async fn look_up(&mut self) -> Result<(), ClientError> {
        let file = self.file;
        let end = chunk_count(file.size()).min(self.next.saturating_add(NODES_PER_LOOKUP));
        if self.next >= end {
            return Ok(());
        }
        let secret = file.properties.stream_secret.as_ref();
        let secret = secret.ok_or(ClientError::Internal("a file without stream secret"))?;
        let start = self.place.take();
        let mut place = start
            .and_then(|(at, place)| place.advance(secret, self.next.checked_sub(at)?))
            .ok_or_else(|| file.damaged())?;
        let mut places = Vec::new();
        for _ in self.next..end {
            let after = place.next(secret);
            places.push(std::mem::replace(&mut place, after));
        }
        let nodes = file.chunk_nodes(self.next, places).await?;
        self.looked_up.extend(nodes);
        self.place = Some((end, place));
        self.next = end;
        Ok(())
    }

    /// Goes from node to node of a file without stream secret (legacy, Spec: 20 §7.4).
    async fn follow(&mut self) -> Result<Option<Bytes>, ClientError> {
        let file = self.file;
        let count = chunk_count(file.size());
        while self.next < count {
            let (index, node) = self.legacy.take().ok_or_else(|| file.damaged())?;
            if index + 1 < count {
                let (map_key, bat) = node.next();
                let capability = file.first.capability.at(map_key, bat);
                let after = file.snapshot().open(&capability, None).await?;
                self.legacy = after.map(|after| (index + 1, after));
            }
            if index == self.next {
                self.next += 1;
                return file.open_chunk(index, node).await.map(Some);
            }
        }
        Ok(None)
    }
}
