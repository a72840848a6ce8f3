//! Deleting (Spec: 21 §12.5).
//!
//! Everything below an item goes with it in the same commit as its entry, so a reader sees the item or
//! nothing. Items in a writing space of their own take that space with them, from the inside out.

use std::{collections::HashSet, sync::Arc};

use champ::{cbor::Value, map::Champ};
use futures_util::{FutureExt, future::BoxFuture};
use pki::{
    keys::{SecretKeyWithHash, Writer},
    owned::owned_key_label,
    pointer::SignedPointer,
    wire::pointer_batch::PointerWrite,
};

use super::{
    Session,
    draft::Draft,
    folder::Folder,
    nodes::Opened,
    path::RemotePath,
    session::{Account, Reading},
    snapshot::{Item, Pages, Snapshot},
    version::Version,
};
use crate::{
    api::PointerAnswer,
    capability::{Child, MapKey},
    chunk_chain::{ChunkPlace, StreamSecret, chunk_count},
    error::ClientError,
};

/// Folders within folders that are followed.
const MAX_DEPTH: usize = 2048;
/// Items that one deletion removes.
const MAX_ITEMS: usize = 2_000_000;
/// Chunks looked for at once beyond the first.
const CHUNKS_PER_LOOKUP: usize = 160;

/// What was found below an item: equal marks stand for equal nodes, by place and content.
pub(super) type Contents = HashSet<u128>;

/// What a deletion was meant for. What another device has written since is not deleted.
#[derive(Debug)]
pub(super) enum Expected {
    /// Whatever is found at the first look.
    Anything,
    /// This state of the item itself.
    Version(Version),
    /// A folder with nothing in it.
    Empty,
    /// At most this.
    Contents(Contents),
}

impl Session {
    /// Deletes the file or folder at a path with everything below it.
    ///
    /// The item is gone when this returns; dropping the future leaves it whole or gone, except that items in
    /// it which were shared for writing are removed one after the other, before the rest.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::ReadOnly`] (also for a home folder),
    /// [`ClientError::ChangedElsewhere`] when another device writes to it at the same time: then it stays.
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        let path: RemotePath = path.parse()?;
        self.delete_as_seen(&path, Expected::Anything).await
    }

    /// Deletes the item at a path like [`Session::delete`] if it is in this state.
    ///
    /// The state of a folder does not tell what is in the folders and files below it.
    ///
    /// # Errors
    /// [`ClientError::ChangedElsewhere`] when it is in another state, and those of [`Session::delete`].
    pub async fn delete_version(&self, path: &str, version: Version) -> Result<(), ClientError> {
        let path: RemotePath = path.parse()?;
        self.delete_as_seen(&path, Expected::Version(version)).await
    }

    /// Removes an empty folder.
    ///
    /// # Errors
    /// [`ClientError::NotEmpty`], [`ClientError::NotADirectory`], and those of [`Session::delete`].
    pub async fn remove_folder(&self, path: &str) -> Result<(), ClientError> {
        let path: RemotePath = path.parse()?;
        self.delete_as_seen(&path, Expected::Empty).await
    }

    pub(super) async fn delete_as_seen(
        &self,
        path: &RemotePath,
        mut expected: Expected,
    ) -> Result<(), ClientError> {
        let mut runs = self.account.runs();
        loop {
            match self.delete_once(path, &mut expected).await {
                Err(error) => runs.again_after(error).await?,
                done => return done,
            }
        }
    }

    /// Returns what the item at a path consists of now.
    pub(super) async fn contents(&self, path: &RemotePath) -> Result<Contents, ClientError> {
        let mut snapshot = Snapshot::new(&self.account);
        let (item, parent) = snapshot.resolve(path).await?;
        let mut doomed = Doomed::new(parent.as_ref().unwrap_or(&item));
        doomed.collect(&mut snapshot, &item, 0).await?;
        Ok(doomed.contents)
    }

    async fn delete_once(
        &self,
        path: &RemotePath,
        expected: &mut Expected,
    ) -> Result<(), ClientError> {
        let account = &self.account;
        let Some((parent_path, name)) = path.split_last() else {
            return Err(ClientError::ReadOnly {
                path: path.to_string(),
            });
        };
        let lock = account.locks.of(&account.home.writer);
        let _writing = lock.lock().await;
        let mut snapshot = Snapshot::new(account);
        let parent = snapshot.folder(&parent_path).await?;
        let signer = parent.writable(&parent_path)?;
        let mut folder = Folder::load(&mut snapshot, &parent).await?;
        let missing = || ClientError::not_found(path.to_string());
        let child = folder
            .find(&mut snapshot, name)
            .await?
            .ok_or_else(missing)?;
        let place = child.capability().ok_or_else(missing)?.clone();
        // An entry whose node is gone already (an interrupted deletion) is just removed.
        let item = snapshot
            .item(parent.capability(), parent.signer.as_ref(), &child)
            .await?;
        let mut doomed = Doomed::new(&parent);
        if let Some(item) = &item {
            doomed.collect(&mut snapshot, item, 0).await?;
            expected.check(path, item, &doomed)?;
        }
        for space in std::mem::take(&mut doomed.spaces) {
            account.delete_space(space).await?;
            snapshot = Snapshot::new(account);
        }
        let mut draft = account.draft(&mut snapshot, &parent, signer).await?;
        draft.remove_all(&doomed.keys).await?;
        folder.remove(&mut snapshot, name, &place).await?;
        folder.write(&mut draft, &mut *account.random()).await?;
        draft.commit().await.map(|_| ())
    }
}

impl Expected {
    /// Checks what was found, and from then on expects nothing more than that.
    fn check(&mut self, path: &RemotePath, item: &Item, found: &Doomed) -> Result<(), ClientError> {
        let path = || path.to_string();
        let is_right = match self {
            Self::Anything => true,
            Self::Version(version) => item.version() == *version,
            Self::Contents(seen) => found.contents.is_subset(seen),
            Self::Empty if !item.properties.is_directory => {
                return Err(ClientError::NotADirectory { path: path() });
            }
            // Checked at every run: nothing that comes into the folder is deleted.
            Self::Empty if found.items > 1 => return Err(ClientError::NotEmpty { path: path() }),
            Self::Empty => return Ok(()),
        };
        if !is_right {
            return Err(ClientError::ChangedElsewhere { path: path() });
        }
        if !matches!(self, Self::Contents(_)) {
            *self = Self::Contents(found.contents.clone());
        }
        Ok(())
    }
}

/// A writing space that goes with the item it was made for.
pub(super) struct DoomedSpace {
    writer: Writer,
    signer: Arc<SecretKeyWithHash>,
    /// The space that authorised it.
    parent: Writer,
    parent_signer: Arc<SecretKeyWithHash>,
}

/// What has to go.
pub(super) struct Doomed {
    writer: Writer,
    signer: Option<Arc<SecretKeyWithHash>>,
    /// Nodes in the space of the folder.
    pub(super) keys: Vec<MapKey>,
    /// Inner spaces, innermost first.
    pub(super) spaces: Vec<DoomedSpace>,
    /// The nodes by which a change of any of it shows: of every page, and of every first chunk.
    contents: Contents,
    /// Files and folders, and entries that cannot be opened.
    items: usize,
    visited: HashSet<(Writer, MapKey)>,
}

/// Stands for a node at its place.
fn mark(node: &Opened) -> u128 {
    use sha2::Digest as _;
    let hash = sha2::Sha256::new()
        .chain_update(node.capability.map_key.bytes())
        .chain_update(node.cid.to_bytes())
        .finalize();
    hash.iter()
        .take(16)
        .fold(0, |mark, byte| mark << 8 | u128::from(*byte))
}

impl Doomed {
    pub(super) fn new(folder: &Item) -> Self {
        Self {
            writer: folder.capability().writer.clone(),
            signer: folder.signer.clone(),
            keys: Vec::new(),
            spaces: Vec::new(),
            contents: Contents::new(),
            items: 0,
            visited: HashSet::new(),
        }
    }

    /// Collects an item and everything below it.
    ///
    /// What cannot be written by us, or whose space is not owned by the one it is found in, is left alone
    /// (Spec: 21, security check 7); an entry that points back to a visited item ends the walk there.
    pub(super) fn collect<'a>(
        &'a mut self,
        snapshot: &'a mut Snapshot<'_>,
        item: &'a Item,
        depth: usize,
    ) -> BoxFuture<'a, Result<(), ClientError>> {
        self.collect_all(snapshot, item, depth).boxed()
    }

    async fn collect_all(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        item: &Item,
        depth: usize,
    ) -> Result<(), ClientError> {
        // Not by recursion: how deep folders are is for whoever may write in them to say.
        let mut folders = Vec::new();
        self.collect_one(snapshot, item.clone(), depth, &mut folders)
            .await?;
        while let Some((folder, depth)) = folders.pop() {
            let mut pages = Pages::new(folder.opened.clone());
            while let Some(page) = pages.next(snapshot).await? {
                self.keys.push(page.opened.capability.map_key);
                self.contents.insert(mark(&page.opened));
                for child in page.children.iter() {
                    match open_child(snapshot, &folder, child).await? {
                        Some(below) => {
                            self.collect_one(snapshot, below, depth + 1, &mut folders)
                                .await?;
                        }
                        None => self.items += 1,
                    }
                }
            }
        }
        Ok(())
    }

    /// Collects an item itself; a folder is added to `folders`, to be looked into later.
    async fn collect_one(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        item: Item,
        depth: usize,
        folders: &mut Vec<(Item, usize)>,
    ) -> Result<(), ClientError> {
        if depth > MAX_DEPTH || self.visited.len() > MAX_ITEMS {
            return Err(ClientError::TooLarge {
                what: "the folder to delete",
                max: MAX_ITEMS as u64,
            });
        }
        let capability = item.capability();
        if !self
            .visited
            .insert((capability.writer.clone(), capability.map_key))
        {
            return Ok(());
        }
        self.items += 1;
        self.contents.insert(mark(&item.opened));
        if let Some(link) = &item.link
            && link.capability.writer == self.writer
        {
            self.keys.push(link.capability.map_key);
        }
        if capability.writer != self.writer {
            // A space within a space: as many as owner proofs lead to.
            return self.collect_space(snapshot, &item, depth).await;
        }
        if item.properties.is_directory {
            folders.push((item, depth));
        } else {
            self.keys.extend(chunk_keys(snapshot, &item.opened).await?);
        }
        Ok(())
    }

    /// An item in a space of its own: the whole space goes.
    async fn collect_space(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        item: &Item,
        depth: usize,
    ) -> Result<(), ClientError> {
        let (Some(signer), Some(parent_signer)) = (&item.signer, &self.signer) else {
            return Ok(());
        };
        let writer = &item.capability().writer;
        let parent = snapshot.space(&self.writer, None).await?;
        if !snapshot.reading.view.owns_directly(&parent, writer).await? {
            return Ok(());
        }
        let mut inner = Self {
            writer: writer.clone(),
            signer: Some(Arc::clone(signer)),
            keys: Vec::new(),
            spaces: Vec::new(),
            contents: std::mem::take(&mut self.contents),
            // It is counted again, without its link.
            items: self.items.saturating_sub(1),
            visited: std::mem::take(&mut self.visited),
        };
        inner
            .visited
            .remove(&(writer.clone(), item.capability().map_key));
        let unlinked = Item {
            link: None,
            ..item.clone()
        };
        inner.collect(snapshot, &unlinked, depth + 1).await?;
        self.visited = inner.visited;
        self.contents = inner.contents;
        self.items = inner.items;
        self.spaces.extend(inner.spaces);
        self.spaces.push(DoomedSpace {
            writer: writer.clone(),
            signer: Arc::clone(signer),
            parent: self.writer.clone(),
            parent_signer: Arc::clone(parent_signer),
        });
        Ok(())
    }
}

/// Opens a child that is to be deleted; what cannot be opened keeps its nodes, if it has any.
async fn open_child(
    snapshot: &mut Snapshot<'_>,
    folder: &Item,
    child: &Child,
) -> Result<Option<Item>, ClientError> {
    let found = snapshot
        .item(folder.capability(), folder.signer.as_ref(), child)
        .await;
    match found {
        Err(ClientError::CannotRead { .. } | ClientError::NotFound { .. }) => Ok(None),
        other => other,
    }
}

/// Returns the tree keys of all chunks of a file: by its size, ending where the tree has no more.
pub(super) async fn chunk_keys(
    snapshot: &mut Snapshot<'_>,
    first: &Opened,
) -> Result<HashSet<MapKey>, ClientError> {
    let capability = &first.capability;
    let mut keys = HashSet::from([capability.map_key]);
    let Some(secret) = &first.properties.stream_secret else {
        let mut current = first.clone();
        while let Some(next) = snapshot.next_page(&current).await? {
            if !keys.insert(next.capability.map_key) {
                break;
            }
            current = next;
        }
        return Ok(keys);
    };
    keys.extend(later_chunk_keys(snapshot, first, secret, 1).await?);
    Ok(keys)
}

/// Returns the tree keys of the chunks from number `from` on, of a file with a stream secret.
pub(super) async fn later_chunk_keys(
    snapshot: &mut Snapshot<'_>,
    first: &Opened,
    secret: &StreamSecret,
    from: u64,
) -> Result<Vec<MapKey>, ClientError> {
    let capability = &first.capability;
    let count = chunk_count(first.properties.size_bytes);
    let space = snapshot.space(&capability.writer, None).await?;
    let before = from.saturating_sub(1);
    let mut place = ChunkPlace::first(capability)
        .advance(secret, before)
        .ok_or_else(|| ClientError::cannot_read("a file"))?;
    let mut keys = Vec::new();
    let mut index = from;
    // A claimed size is not trusted: the walk ends at the first group of which nothing exists.
    while index < count {
        let mut group = Vec::new();
        while index < count && group.len() < CHUNKS_PER_LOOKUP {
            place = place.next(secret);
            group.push(place.map_key);
            index += 1;
        }
        let present = snapshot.reading.present(&space, &group).await?;
        if present.is_empty() {
            break;
        }
        keys.extend(present);
    }
    Ok(keys)
}

impl Reading {
    /// Returns which of `keys` the tree of a space has, reading the tree only.
    pub(super) async fn present(
        &self,
        space: &super::space::SpaceState,
        keys: &[MapKey],
    ) -> Result<Vec<MapKey>, ClientError> {
        let champ = Champ::at(space.tree()?.clone());
        let bytes: Vec<&[u8; 32]> = keys.iter().map(MapKey::bytes).collect();
        champ.load(&bytes, &self.view.blocks).await?;
        let mut present = Vec::new();
        for key in keys {
            if champ.get(key.bytes(), &self.view.blocks).await?.is_some() {
                present.push(*key);
            }
        }
        Ok(present)
    }
}

impl Account {
    /// Empties a writing space, takes its authorisation back, and deletes its pointer.
    async fn delete_space(&self, doomed: DoomedSpace) -> Result<(), ClientError> {
        let mut snapshot = Snapshot::new(self);
        let parent = snapshot.space(&doomed.parent, None).await?;
        let Some(owned) = parent.data.owned.clone() else {
            return Ok(());
        };
        let label = owned_key_label(&doomed.writer.0);
        let mut champ = Champ::at(owned);
        let proof: Option<Value> = champ.get(&label, &self.view.blocks).await?;
        if proof.is_some() {
            champ
                .remove(&label, proof.as_ref(), &self.view.blocks)
                .await?;
            let (owned, blocks) = champ.finish()?;
            let mut draft = Draft::new(self.view.clone(), doomed.parent_signer, parent)?;
            draft.change_root(|data| data.owned = Some(owned), blocks);
            draft.commit().await?;
        }
        let current = self.view.pointer(&doomed.writer).await?;
        if current.as_ref().is_none_or(|pointer| pointer.is_deletion()) {
            return Ok(());
        }
        let update = self
            .view
            .memory()
            .propose(&doomed.writer, current.as_ref(), None)
            .map_err(|_| ClientError::Internal("pointer sequence exhausted"))?;
        let write = PointerWrite {
            signed: SignedPointer::sign(update, doomed.signer.secret()).into_bytes(),
            writer: doomed.writer,
        };
        match self.api().set_pointer(self.owner(), &write).await? {
            PointerAnswer::Done => Ok(()),
            PointerAnswer::Overtaken(_) => Err(ClientError::Conflict),
            PointerAnswer::Unknown(error) => Err(ClientError::Network(error)),
        }
    }
}
