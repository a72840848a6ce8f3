//! Reading what somebody has made public, without an account (Spec: 04 §7, 13 §9).
//!
//! Invariant: nothing is read but what the owner's own published tree leads to; links out of a published folder
//! into another owner's data do not exist, since no link names an owner.

use std::sync::Arc;

use champ::{
    Cid,
    cbor::{Record as _, RecordError, Value},
};
use pki::{
    keys::{Owner, Writer},
    pointer::PointerMemory,
    published::{LookupFailure, PublishedPath, find},
    username::Username,
};

use super::{
    Client,
    cache::ChildLists,
    file::RemoteFile,
    list::{Detail, FolderReader, Listing},
    session::Reading,
    snapshot::{Item, Snapshot},
    space::OwnerView,
};
use crate::{
    capability::AbsoluteCapability,
    error::{ClientError, Misbehavior},
    properties::{FileName, FileProperties},
};

/// Memory for blocks read lately: a gateway has many of these at once.
const CACHE_BYTES: usize = 128 << 10;
/// Child lists kept; a full page is some 200 kB.
const MAX_CHILD_LISTS: usize = 2;

/// What one user has made public.
#[derive(Debug, Clone)]
pub struct PublishedFiles {
    name: Username,
    view: OwnerView,
}

/// A file or folder that was published or that a secret link leads to, or one below such a folder.
pub struct PublishedItem {
    reading: Arc<Reading>,
    item: Item,
    path: String,
    versions: Versions,
}

/// The states of writing spaces that something was read from: as long as they are the same, so is what was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions(Vec<(Writer, Option<Cid>)>);

impl Versions {
    fn add(&mut self, writer: Writer, root: Option<Cid>) {
        if !self.0.iter().any(|(known, _)| *known == writer) {
            self.0.push((writer, root));
        }
    }

    /// Adds those of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (writer, root) in &other.0 {
            self.add(writer.clone(), root.clone());
        }
    }
}

impl champ::cbor::Record for Versions {
    /// `[[writer, root] ...]`; an absent root is null. Ours alone, for whoever keeps versions.
    fn to_value(&self) -> Value {
        let pairs = self.0.iter().map(|(writer, root)| {
            let root = root.clone().map_or(Value::Null, Value::Link);
            Value::List(vec![writer.to_value(), root])
        });
        Value::List(pairs.collect())
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut versions = Self::default();
        for pair in value.into_list("versions")? {
            let mut pair = pair.into_list("version")?.into_iter();
            let mut next = || pair.next().ok_or(RecordError::Missing("version"));
            let writer = Writer::from_value(next()?)?;
            let root = match next()? {
                Value::Link(root) => Some(root),
                Value::Null => None,
                _ => return Err(RecordError::OutOfRange { field: "root" }),
            };
            versions.add(writer, root);
        }
        Ok(versions)
    }
}

impl Client {
    /// Prepares to read what `name` has made public.
    ///
    /// # Errors
    /// [`ClientError::UnknownUser`].
    pub async fn published(&self, name: &str) -> Result<PublishedFiles, ClientError> {
        let unknown = || ClientError::UnknownUser {
            name: name.to_owned(),
        };
        let name = Username::parse(name).map_err(|_| unknown())?;
        let identity = self.api().public_key(&name).await?.ok_or_else(unknown)?;
        Ok(PublishedFiles {
            view: self.view_keeping(CACHE_BYTES, Owner(identity), PointerMemory::new()),
            name,
        })
    }
}

impl PublishedFiles {
    /// Returns the user name.
    pub fn username(&self) -> &str {
        self.name.as_str()
    }

    /// Opens the item at `path` by the first published element on it, and walks down the rest.
    ///
    /// `None`: nothing on the path is published. The published tree is read anew each time.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when the path below what is published does not exist; all of reading.
    pub async fn open(&self, path: &PublishedPath) -> Result<Option<PublishedItem>, ClientError> {
        let identity = self.view.owner().as_writer();
        let Some(space) = self.view.space(&identity).await? else {
            return Ok(None);
        };
        let mut versions = Versions::default();
        versions.add(identity, Some(space.root));
        let Some(public) = space.data.public else {
            return Ok(None);
        };
        let found = find(&public, path, &self.view.blocks).await;
        let Some(found) = found.map_err(|error| match error {
            LookupFailure::Source(error) => error.into(),
            LookupFailure::Missing(cid) => Misbehavior::BlockWithheld { cid }.into(),
            _ => ClientError::bad_record("published tree"),
        })?
        else {
            return Ok(None);
        };
        let capability = AbsoluteCapability::from_value(found.capability.to_value())
            .map_err(|_| ClientError::bad_record("published capability"))?;
        if capability.owner != *self.view.owner() {
            return Err(ClientError::bad_record("published capability"));
        }
        // What the owner does not own is not the owner's to publish.
        self.view.check_owned(None, &capability.writer).await?;
        let reading = Arc::new(Reading {
            name: self.name.clone(),
            home: capability,
            view: self.view.clone(),
            child_lists: ChildLists::at_most(MAX_CHILD_LISTS),
        });
        let mut snapshot = Snapshot::new(&reading);
        let first = snapshot
            .open(&reading.home, None)
            .await?
            .ok_or_else(|| ClientError::not_found(path.to_string()))?;
        let item = snapshot.follow(first, None).await?;
        versions.extend(&snapshot.versions());
        drop(snapshot);
        let (published, rest) = path
            .elements()
            .split_at_checked(found.depth)
            .unwrap_or_default();
        let item = PublishedItem {
            path: format!("/{}", published.join("/")),
            reading,
            item,
            versions,
        };
        if rest.is_empty() {
            return Ok(Some(item));
        }
        item.below(rest).await.map(Some)
    }

    /// Returns true when nothing has changed in the spaces that something was read from.
    ///
    /// # Errors
    /// As reading a pointer.
    pub async fn are_current(&self, versions: &Versions) -> Result<bool, ClientError> {
        self.view.are_current(versions).await
    }
}

impl OwnerView {
    /// Returns true when no pointer has moved since.
    pub(super) async fn are_current(&self, versions: &Versions) -> Result<bool, ClientError> {
        for (writer, root) in &versions.0 {
            let pointer = self.pointer(writer).await?;
            if pointer.as_ref().and_then(|pointer| pointer.updated()) != root.as_ref() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl PublishedItem {
    pub(super) const fn found(
        reading: Arc<Reading>,
        item: Item,
        path: String,
        versions: Versions,
    ) -> Self {
        Self {
            reading,
            item,
            path,
            versions,
        }
    }

    /// Lists this folder.
    ///
    /// # Errors
    /// [`ClientError::NotADirectory`].
    pub async fn list(&self) -> Result<Listing, ClientError> {
        if !self.item.properties.is_directory {
            return Err(ClientError::NotADirectory {
                path: self.path.clone(),
            });
        }
        let mut snapshot = Snapshot::new(&self.reading);
        // The space that the item is in leads to the others.
        snapshot.space(&self.item.capability().writer, None).await?;
        let mut reader = FolderReader::new(snapshot, self.item.clone(), Detail::Full);
        let mut whole = Listing::default();
        while let Some(page) = reader.next().await? {
            whole.entries.extend(page.entries);
            whole.damaged.extend(page.damaged);
        }
        Ok(whole)
    }

    /// Returns the path from the owner's name on.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the properties, which the owner wrote.
    pub const fn properties(&self) -> &FileProperties {
        &self.item.properties
    }

    /// Returns what this was read from.
    pub const fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Walks down from this folder.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when there is no such item, [`ClientError::NotADirectory`].
    pub async fn below<S: AsRef<str>>(&self, names: &[S]) -> Result<Self, ClientError> {
        let mut snapshot = Snapshot::new(&self.reading);
        // The space that the walk starts in leads to the others.
        snapshot.space(&self.item.capability().writer, None).await?;
        let mut item = self.item.clone();
        let mut path = self.path.clone();
        for name in names {
            if !item.properties.is_directory {
                return Err(ClientError::NotADirectory { path });
            }
            path.push('/');
            path.push_str(name.as_ref());
            let missing = || ClientError::not_found(path.clone());
            let name = FileName::parse(name.as_ref()).map_err(|_| missing())?;
            let child = snapshot.find(&item, &name).await?.ok_or_else(missing)?;
            item = snapshot
                .item(item.capability(), None, &child)
                .await?
                .ok_or_else(missing)?;
        }
        let mut versions = self.versions.clone();
        versions.extend(&snapshot.versions());
        drop(snapshot);
        Ok(Self {
            reading: Arc::clone(&self.reading),
            item,
            path,
            versions,
        })
    }

    /// Opens this file for reading.
    ///
    /// # Errors
    /// [`ClientError::IsADirectory`].
    pub async fn file(&self) -> Result<RemoteFile, ClientError> {
        if self.item.properties.is_directory {
            return Err(ClientError::IsADirectory {
                path: self.path.clone(),
            });
        }
        let mut snapshot = Snapshot::new(&self.reading);
        let space = snapshot.space(&self.item.capability().writer, None).await?;
        Ok(RemoteFile::new(
            Arc::clone(&self.reading),
            self.path.clone(),
            space,
            self.item.opened.clone(),
            self.item.properties.clone(),
        ))
    }
}

impl std::fmt::Debug for PublishedItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishedItem")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Snapshot<'_> {
    /// Returns the states that were read.
    pub(super) fn versions(&self) -> Versions {
        let mut versions = Versions::default();
        for state in self.spaces() {
            versions.add(state.writer.clone(), Some(state.root.clone()));
        }
        versions
    }
}
