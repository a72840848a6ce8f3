//! Listing and describing (Spec: 21 §7).

use champ::Block;

use super::{
    blocks::Wanted,
    file::RemoteFile,
    nodes::Opened,
    path::RemotePath,
    published::Versions,
    session::{Account, Session},
    snapshot::{Item, Page, Pages, Snapshot},
    space::SpaceState,
    version::Version,
};
use crate::{
    capability::{AbsoluteCapability, Child},
    error::ClientError,
    hash_tree::ContentHash,
    properties::{Thumbnail, Timestamp},
};

/// What is known of a file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name. Any characters but `/`: escape it before showing it.
    pub name: String,
    /// A folder.
    pub is_directory: bool,
    /// Size of the content in bytes, 0 for folders; unknown in a quick listing.
    pub size_bytes: Option<u64>,
    /// Mime type, empty for folders; unknown in quick listings of older folders.
    pub mime_type: Option<String>,
    /// When the content was changed; unknown in a quick listing.
    pub modified: Option<Timestamp>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Not meant to be shown by default; unknown in a quick listing.
    pub is_hidden: Option<bool>,
    /// The state it is in; unknown in a quick listing.
    pub version: Option<Version>,
    /// Root of the content hash tree as whoever wrote the file claims it, for files that have one.
    pub content_hash: Option<ContentHash>,
    /// Size in bytes of its thumbnail, which [`Session::thumbnail`] returns; unknown in a quick listing.
    pub thumbnail_bytes: Option<usize>,
}

impl Entry {
    pub(super) fn of(item: &Item) -> Self {
        let properties = &item.properties;
        Self {
            version: Some(item.version()),
            content_hash: properties.tree_hash.as_ref().map(|branch| branch.root),
            name: properties.name.to_string(),
            is_directory: properties.is_directory,
            size_bytes: Some(properties.size_bytes),
            mime_type: Some(properties.mime_type.clone()),
            modified: Some(properties.modified),
            created: Some(properties.created),
            is_hidden: Some(properties.is_hidden),
            thumbnail_bytes: properties
                .thumbnail
                .as_ref()
                .map(|thumbnail| thumbnail.image().len()),
        }
    }
}

/// An entry that cannot be opened; the rest of the folder is not affected.
#[derive(Debug, Clone)]
pub struct DamagedEntry {
    /// Its name, when the folder's list tells it.
    pub name: Option<String>,
    /// Why it cannot be opened.
    pub reason: ClientError,
}

/// What a folder holds.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Its entries, in stored order.
    pub entries: Vec<Entry>,
    /// Entries that are there and cannot be opened.
    pub damaged: Vec<DamagedEntry>,
}

/// An entry that was opened while its folder was read.
///
/// Reading it needs no look-up of its path, and sees the state that the folder had.
#[derive(Clone)]
pub struct FoundEntry {
    /// What is known of it.
    pub entry: Entry,
    item: Item,
    space: SpaceState,
}

impl FoundEntry {
    /// Returns which file or folder it is: it keeps that when it is renamed, moved without a copy, or written. Only to be
    /// compared.
    pub fn id(&self) -> [u8; 32] {
        *self.item.capability().map_key.bytes()
    }
}

impl std::fmt::Debug for FoundEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FoundEntry")
            .field("entry", &self.entry)
            .finish_non_exhaustive()
    }
}

/// A page of a folder with its entries opened.
#[derive(Debug, Clone, Default)]
pub struct FoundPage {
    /// Its entries, in stored order.
    pub entries: Vec<FoundEntry>,
    /// Entries that are there and cannot be opened.
    pub damaged: Vec<DamagedEntry>,
}

/// How much a listing tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// What the folder itself says: names and kinds. One lookup per 500 entries.
    Quick,
    /// Everything, read from each entry's own node. One more lookup per 20 entries.
    Full,
}

/// A walk over a folder, page by page, on the state it had at the start.
pub struct FolderReader<'a> {
    snapshot: Snapshot<'a>,
    folder: Item,
    pages: Pages,
    detail: Detail,
}

impl std::fmt::Debug for FolderReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FolderReader").finish_non_exhaustive()
    }
}

impl<'a> FolderReader<'a> {
    /// Starts reading a folder that was found.
    pub(super) fn new(snapshot: Snapshot<'a>, folder: Item, detail: Detail) -> Self {
        Self {
            pages: Pages::new(folder.opened.clone()),
            snapshot,
            folder,
            detail,
        }
    }
}

impl FolderReader<'_> {
    /// Returns the next up to 500 entries (more when another client wrote them); `None` at the end.
    ///
    /// # Errors
    /// Whatever keeps the page itself from being read; entries that cannot be opened are reported in it.
    pub async fn next(&mut self) -> Result<Option<Listing>, ClientError> {
        let Some(page) = self.pages.next(&mut self.snapshot).await? else {
            return Ok(None);
        };
        self.list(page).await.map(Some)
    }

    /// Returns the next page like [`FolderReader::next`], in full detail, with what it takes to go on from each
    /// entry: one look-up per 20 entries, and none per file or folder that is then opened.
    ///
    /// # Errors
    /// As [`FolderReader::next`].
    pub async fn next_found(&mut self) -> Result<Option<FoundPage>, ClientError> {
        let Some(page) = self.pages.next(&mut self.snapshot).await? else {
            return Ok(None);
        };
        let mut found = FoundPage::default();
        let mut to_open = Vec::new();
        for child in page.children.iter().cloned() {
            match child {
                Child::Unreadable(..) => found.damaged.push(unreadable()),
                child => to_open.push(child),
            }
        }
        for (name, opened) in self.open_all(to_open).await? {
            match opened {
                Ok(item) => {
                    let writer = item.capability().writer.clone();
                    found.entries.push(FoundEntry {
                        entry: Entry::of(&item),
                        space: self.snapshot.space(&writer, None).await?,
                        item,
                    });
                }
                Err(reason) => found.damaged.push(DamagedEntry { name, reason }),
            }
        }
        Ok(Some(found))
    }

    /// Returns the states that were read so far.
    pub(super) fn versions(&self) -> Versions {
        self.snapshot.versions()
    }

    async fn list(&mut self, page: Page) -> Result<Listing, ClientError> {
        let mut listing = Listing::default();
        let mut to_open = Vec::new();
        for child in page.children.iter() {
            match child.clone() {
                Child::Named(entry)
                    if self.detail == Detail::Quick && entry.is_directory.is_some() =>
                {
                    listing.entries.push(Entry {
                        name: entry.name.to_string(),
                        is_directory: entry.is_directory == Some(true),
                        size_bytes: None,
                        mime_type: entry.mime_type,
                        modified: None,
                        created: entry
                            .created_epoch_seconds
                            .map(Timestamp::from_epoch_seconds),
                        is_hidden: None,
                        version: None,
                        content_hash: None,
                        thumbnail_bytes: None,
                    });
                }
                Child::Unreadable(..) => listing.damaged.push(unreadable()),
                child => to_open.push(child),
            }
        }
        for (name, opened) in self.open_all(to_open).await? {
            match opened {
                Ok(item) => listing.entries.push(Entry::of(&item)),
                Err(reason) => listing.damaged.push(DamagedEntry { name, reason }),
            }
        }
        Ok(listing)
    }

    /// Opens many children: the nodes of one space in bulk, then whatever is behind link nodes.
    async fn open_all(
        &mut self,
        children: Vec<Child>,
    ) -> Result<Vec<(Option<String>, Result<Item, ClientError>)>, ClientError> {
        let folder = self.folder.capability().clone();
        let signer = self.folder.signer.clone();
        let mut resolved = Vec::new();
        for child in &children {
            let name = child.name().map(ToString::to_string);
            let capability = child.capability().map(|relative| relative.resolve(&folder));
            match capability {
                Some(Ok(capability)) => resolved.push((name, Ok(capability))),
                _ => resolved.push((
                    name,
                    Err(ClientError::cannot_read("an entry of the folder")),
                )),
            }
        }
        let same_space: Vec<Wanted> = resolved
            .iter()
            .filter_map(|(_, capability)| capability.as_ref().ok())
            .filter(|capability| capability.writer == folder.writer)
            .map(wanted)
            .collect();
        let found = self
            .snapshot
            .nodes(&folder.writer, None, &same_space)
            .await?;
        let mut found = found.into_iter();
        let mut items = Vec::with_capacity(resolved.len());
        for (name, capability) in resolved {
            let item = match capability {
                Err(error) => Err(error),
                Ok(capability) if capability.writer == folder.writer => {
                    self.finish(&capability, found.next().flatten(), &signer)
                        .await
                }
                Ok(capability) => match self.snapshot.open(&capability, Some(&folder.writer)).await
                {
                    Ok(Some(opened)) => self.snapshot.follow(opened, signer.as_ref()).await,
                    Ok(None) => Err(missing(name.as_deref())),
                    Err(error) => Err(error),
                },
            };
            items.push((name, item));
        }
        Ok(items)
    }

    async fn finish(
        &mut self,
        capability: &AbsoluteCapability,
        block: Option<Block>,
        signer: &Option<std::sync::Arc<pki::keys::SecretKeyWithHash>>,
    ) -> Result<Item, ClientError> {
        let block = block.ok_or_else(|| missing(None))?;
        let opened = Opened::open(&block, capability)?;
        self.snapshot.follow(opened, signer.as_ref()).await
    }
}

fn unreadable() -> DamagedEntry {
    DamagedEntry {
        name: None,
        reason: ClientError::cannot_read("an entry of the folder"),
    }
}

impl Session {
    /// Opens a file that was found while its folder was read; `path` names it in errors. No round trip.
    ///
    /// The node may drop blocks of a state that is no longer current: a reader that then fails opens the path
    /// again.
    ///
    /// # Errors
    /// [`ClientError::IsADirectory`].
    pub fn open_found(&self, found: &FoundEntry, path: &str) -> Result<RemoteFile, ClientError> {
        if found.entry.is_directory {
            return Err(ClientError::IsADirectory {
                path: path.to_owned(),
            });
        }
        Ok(RemoteFile::new(
            std::sync::Arc::clone(&self.account.reading),
            path.to_owned(),
            found.space.clone(),
            found.item.opened.clone(),
            found.item.properties.clone(),
        ))
    }

    /// Starts listing a folder that was found while the folder above it was read. No round trip.
    ///
    /// # Errors
    /// [`ClientError::NotADirectory`].
    pub fn read_found(&self, found: FoundEntry) -> Result<FolderReader<'_>, ClientError> {
        if !found.entry.is_directory {
            return Err(ClientError::NotADirectory {
                path: found.entry.name,
            });
        }
        let account: &Account = &self.account;
        let snapshot = Snapshot::with(account, found.space);
        Ok(FolderReader::new(snapshot, found.item, Detail::Full))
    }

    /// Starts listing a folder.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::NotADirectory`].
    pub async fn read_folder(
        &self,
        path: &str,
        detail: Detail,
    ) -> Result<FolderReader<'_>, ClientError> {
        let path: RemotePath = path.parse()?;
        let mut snapshot = Snapshot::new(&self.account);
        let folder = snapshot.folder(&path).await?;
        Ok(FolderReader::new(snapshot, folder, detail))
    }

    /// Lists a whole folder.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::NotADirectory`].
    pub async fn list(&self, path: &str, detail: Detail) -> Result<Listing, ClientError> {
        let mut reader = self.read_folder(path, detail).await?;
        let mut whole = Listing::default();
        while let Some(page) = reader.next().await? {
            whole.entries.extend(page.entries);
            whole.damaged.extend(page.damaged);
        }
        Ok(whole)
    }

    /// Describes the file or folder at a path.
    ///
    /// # Errors
    /// [`ClientError::NotFound`].
    pub async fn stat(&self, path: &str) -> Result<Entry, ClientError> {
        let path: RemotePath = path.parse()?;
        let (item, _) = Snapshot::new(&self.account).resolve(&path).await?;
        Ok(Entry::of(&item))
    }

    /// Returns the small picture that was uploaded with the file at a path, if there is one.
    ///
    /// It is what whoever wrote the file says it is: decode it as carefully as any picture of a stranger.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], and whatever keeps the path from being read.
    pub async fn thumbnail(&self, path: &str) -> Result<Option<Thumbnail>, ClientError> {
        let path: RemotePath = path.parse()?;
        let (item, _) = Snapshot::new(&self.account).resolve(&path).await?;
        Ok(item.properties.thumbnail)
    }

    /// Returns true when something is at a path.
    ///
    /// # Errors
    /// Anything but [`ClientError::NotFound`].
    pub async fn exists(&self, path: &str) -> Result<bool, ClientError> {
        match self.stat(path).await {
            Ok(_) => Ok(true),
            Err(ClientError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the capability of the item at a path as text. Whoever holds it can read, and here also write,
    /// the item: treat it like a password.
    ///
    /// # Errors
    /// [`ClientError::NotFound`].
    pub async fn capability_link(&self, path: &str) -> Result<String, ClientError> {
        let path: RemotePath = path.parse()?;
        let (item, _) = Snapshot::new(&self.account).resolve(&path).await?;
        Ok(item.capability().to_link_text())
    }
}

fn wanted(capability: &AbsoluteCapability) -> Wanted {
    Wanted {
        map_key: *capability.map_key.bytes(),
        bat: capability.bat.clone(),
    }
}

fn missing(name: Option<&str>) -> ClientError {
    ClientError::not_found(name.unwrap_or("an entry of the folder"))
}
