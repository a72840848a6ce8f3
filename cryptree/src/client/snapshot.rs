//! Reading on one consistent set of writing spaces (Spec: 21 §2.3, §7).

use std::{collections::HashMap, sync::Arc};

use champ::Block;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use pki::keys::{SecretKeyWithHash, Writer};

use super::{
    blocks::Wanted, nodes::Opened, path::RemotePath, session::Reading, space::SpaceState,
    version::Version,
};
use crate::{
    capability::{AbsoluteCapability, Child, MapKey},
    ciphertext::Fragment,
    directory::ChildList,
    error::{ClientError, Misbehavior},
    link_node::{MAX_LINK_HOPS, link_target, seen_through},
    properties::{FileName, FileProperties},
};

/// Pages of one folder; with 500 children each this is fifty million.
pub(crate) const MAX_PAGES: usize = 100_000;
/// Fragments of one node fetched at once.
const FRAGMENTS_IN_FLIGHT: usize = 8;

/// The states of the writing spaces that one operation runs on: each is read once.
pub(crate) struct Snapshot<'a> {
    pub(crate) reading: &'a Reading,
    spaces: HashMap<Writer, SpaceState>,
}

/// A file or folder that was found, opened, and followed through its link node.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// The item's own first node.
    pub(crate) opened: Opened,
    /// Its properties; the name is the one under which it is found.
    pub(crate) properties: FileProperties,
    /// The key that signs for the space the item is in, when we have it.
    pub(crate) signer: Option<Arc<SecretKeyWithHash>>,
    /// The link node in between, in the space of the folder.
    pub(crate) link: Option<Box<Opened>>,
}

impl Item {
    pub(crate) const fn capability(&self) -> &AbsoluteCapability {
        &self.opened.capability
    }

    /// Returns the state it is in.
    pub(crate) fn version(&self) -> Version {
        Version::of(&self.opened.cid)
    }

    /// Returns the node that the folder's entry points to.
    pub(crate) fn entry_node(&self) -> &Opened {
        self.link.as_deref().unwrap_or(&self.opened)
    }

    /// Returns the signing key.
    ///
    /// # Errors
    /// [`ClientError::ReadOnly`].
    pub(crate) fn writable(
        &self,
        path: &RemotePath,
    ) -> Result<Arc<SecretKeyWithHash>, ClientError> {
        self.signer
            .clone()
            .filter(|_| self.capability().is_writable())
            .ok_or_else(|| ClientError::ReadOnly {
                path: path.to_string(),
            })
    }
}

/// One page of a folder.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) opened: Opened,
    pub(crate) children: Arc<ChildList>,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn new(reading: &'a Reading) -> Self {
        Self {
            reading,
            spaces: HashMap::new(),
        }
    }

    /// Uses a state that was read already.
    pub(crate) fn with(reading: &'a Reading, space: SpaceState) -> Self {
        let mut snapshot = Self::new(reading);
        snapshot.spaces.insert(space.writer.clone(), space);
        snapshot
    }

    /// Returns the state of a space, reading it when it is first needed.
    ///
    /// A writer other than the home writer must be owned: `from` is the space that led to it.
    pub(crate) async fn space(
        &mut self,
        writer: &Writer,
        from: Option<&Writer>,
    ) -> Result<SpaceState, ClientError> {
        if let Some(space) = self.spaces.get(writer) {
            return Ok(space.clone());
        }
        let view = &self.reading.view;
        if *writer != self.reading.home.writer {
            let from = from.and_then(|from| self.spaces.get(from)).cloned();
            view.check_owned(from.as_ref(), writer).await?;
        }
        let space = view
            .space(writer)
            .await?
            .ok_or_else(|| ClientError::not_found("the folder tree"))?;
        self.spaces.insert(writer.clone(), space.clone());
        Ok(space)
    }

    /// Returns the states that were read so far.
    pub(crate) fn spaces(&self) -> impl Iterator<Item = &SpaceState> {
        self.spaces.values()
    }

    /// Looks up nodes of one space, in order.
    pub(crate) async fn nodes(
        &mut self,
        writer: &Writer,
        from: Option<&Writer>,
        wanted: &[Wanted],
    ) -> Result<Vec<Option<Block>>, ClientError> {
        let space = self.space(writer, from).await?;
        let tree = space.tree()?;
        self.reading.view.blocks.lookup(tree, wanted).await
    }

    /// Opens the first node of a capability; `None` when the tree proves that it is not there.
    pub(crate) async fn open(
        &mut self,
        capability: &AbsoluteCapability,
        from: Option<&Writer>,
    ) -> Result<Option<Opened>, ClientError> {
        let wanted = [Wanted {
            map_key: *capability.map_key.bytes(),
            bat: capability.bat.clone(),
        }];
        let found = self.nodes(&capability.writer, from, &wanted).await?;
        match found.into_iter().flatten().next() {
            Some(block) => Opened::open(&block, capability).map(Some),
            None => Ok(None),
        }
    }

    /// Opens what a folder's entry leads to, through link nodes; `folder_signer` is handed down.
    pub(crate) async fn item(
        &mut self,
        folder: &AbsoluteCapability,
        folder_signer: Option<&Arc<SecretKeyWithHash>>,
        child: &Child,
    ) -> Result<Option<Item>, ClientError> {
        let Some(relative) = child.capability() else {
            return Err(ClientError::cannot_read("an entry of the folder"));
        };
        let capability = relative
            .resolve(folder)
            .map_err(|_| ClientError::cannot_read("an entry of the folder"))?;
        match self.open(&capability, Some(&folder.writer)).await? {
            Some(opened) => self.follow(opened, folder_signer).await.map(Some),
            None => Ok(None),
        }
    }

    /// Follows link nodes from an opened node.
    pub(crate) async fn follow(
        &mut self,
        first: Opened,
        folder_signer: Option<&Arc<SecretKeyWithHash>>,
    ) -> Result<Item, ClientError> {
        let mut opened = first;
        let mut signer = entry_signer(&opened, folder_signer)?;
        let mut link: Option<Box<Opened>> = None;
        for _ in 0..=MAX_LINK_HOPS {
            if !opened.properties.is_link {
                let properties = match &link {
                    Some(link) => seen_through(&link.properties, &opened.properties),
                    None => opened.properties.clone(),
                };
                return Ok(Item {
                    opened,
                    properties,
                    signer,
                    link,
                });
            }
            let children = self.children(&opened).await?;
            let target = link_target(&opened.capability, &children)?;
            let next = self
                .open(&target, Some(&opened.capability.writer))
                .await?
                .ok_or_else(|| ClientError::not_found("the target of a link"))?;
            signer = entry_signer(&next, signer.as_ref())?;
            // The name shown is that of the first link.
            link.get_or_insert_with(|| Box::new(opened.clone()));
            opened = next;
        }
        Err(ClientError::TooLarge {
            what: "a chain of links",
            max: MAX_LINK_HOPS as u64,
        })
    }

    /// Fetches and opens the child list of a folder's page or of a link node.
    ///
    /// The list is kept for a while: resolving paths reads the same pages again and again.
    pub(crate) async fn children(&self, opened: &Opened) -> Result<Arc<ChildList>, ClientError> {
        let lists = &self.reading.child_lists;
        if let Some(children) = lists.get(opened) {
            return Ok(children);
        }
        let fragments = self.reading.fragments(opened.fragments()).await?;
        let children = Arc::new(opened.children(&fragments)?);
        lists.insert(opened, Arc::clone(&children));
        Ok(children)
    }

    /// Returns a folder's page and what comes after it.
    pub(crate) async fn page(&self, opened: Opened) -> Result<Page, ClientError> {
        let children = self.children(&opened).await?;
        Ok(Page { opened, children })
    }

    /// Opens the page after `opened`; `None` at the end of the chain.
    pub(crate) async fn next_page(&mut self, page: &Opened) -> Result<Option<Opened>, ClientError> {
        let (map_key, bat) = page.next();
        let capability = page.capability.at(map_key, bat);
        self.open(&capability, None).await
    }

    /// Finds an entry by name: the first in page order.
    pub(crate) async fn find(
        &mut self,
        folder: &Item,
        name: &FileName,
    ) -> Result<Option<Child>, ClientError> {
        let mut pages = Pages::new(folder.opened.clone());
        while let Some(page) = pages.next(self).await? {
            for child in page.children.iter() {
                if let Some(known) = child.name() {
                    if known == name {
                        return Ok(Some(child.clone()));
                    }
                } else if let Some(item) = self.unnamed(folder, child).await
                    && item.properties.name == *name
                {
                    return Ok(Some(child.clone()));
                }
            }
        }
        Ok(None)
    }

    /// Opens a child of a list without names (legacy) to learn its name.
    async fn unnamed(&mut self, folder: &Item, child: &Child) -> Option<Item> {
        let capability = folder.capability().clone();
        Box::pin(self.item(&capability, folder.signer.as_ref(), child))
            .await
            .ok()
            .flatten()
    }

    /// Opens the home folder.
    pub(crate) async fn home(&mut self) -> Result<Item, ClientError> {
        let home = self.reading.home.clone();
        let opened = self
            .open(&home, None)
            .await?
            .ok_or_else(|| ClientError::not_found("the home folder"))?;
        let signer = entry_signer(&opened, None)?;
        Ok(Item {
            properties: opened.properties.clone(),
            opened,
            signer,
            link: None,
        })
    }

    /// Opens the item at a path, and the folder it is in.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::NotADirectory`].
    pub(crate) async fn resolve(
        &mut self,
        path: &RemotePath,
    ) -> Result<(Item, Option<Item>), ClientError> {
        let mut folders = Vec::new();
        let item = self.walk_down(path, &mut folders).await?;
        Ok((item, folders.pop()))
    }

    /// Opens the item at a path, and adds the folders above it to `folders`, the home folder first.
    ///
    /// # Errors
    /// As [`Snapshot::resolve`].
    pub(crate) async fn walk_down(
        &mut self,
        path: &RemotePath,
        folders: &mut Vec<Item>,
    ) -> Result<Item, ClientError> {
        if path.user() != self.reading.name.as_str() {
            return Err(ClientError::not_found(path.to_string()));
        }
        let mut item = self.home().await?;
        let mut walked = RemotePath::home(path.user());
        for name in path.names() {
            if !item.properties.is_directory {
                return Err(ClientError::NotADirectory {
                    path: walked.to_string(),
                });
            }
            walked = walked.join(name.clone());
            let missing = || ClientError::not_found(walked.to_string());
            let child = self.find(&item, name).await?.ok_or_else(missing)?;
            let next = self
                .item(item.capability(), item.signer.as_ref(), &child)
                .await?
                .ok_or_else(missing)?;
            folders.push(std::mem::replace(&mut item, next));
        }
        Ok(item)
    }

    /// Opens the folder at a path.
    ///
    /// # Errors
    /// As [`Snapshot::resolve`].
    pub(crate) async fn folder(&mut self, path: &RemotePath) -> Result<Item, ClientError> {
        let (item, _) = self.resolve(path).await?;
        if !item.properties.is_directory {
            return Err(ClientError::NotADirectory {
                path: path.to_string(),
            });
        }
        Ok(item)
    }
}

/// A walk over the pages of a folder. A malicious writer can make a cycle of pages; it ends there.
pub(crate) struct Pages {
    next: Option<Opened>,
    visited: std::collections::HashSet<MapKey>,
}

impl Pages {
    pub(crate) fn new(first: Opened) -> Self {
        Self {
            next: Some(first),
            visited: std::collections::HashSet::new(),
        }
    }

    /// Returns the next page.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`] beyond [`MAX_PAGES`]; a repeated page is [`Misbehavior::MalformedRecord`].
    pub(crate) async fn next(
        &mut self,
        snapshot: &mut Snapshot<'_>,
    ) -> Result<Option<Page>, ClientError> {
        let Some(opened) = self.next.take() else {
            return Ok(None);
        };
        if !self.visited.insert(opened.capability.map_key) {
            return Err(Misbehavior::MalformedRecord {
                what: "chain of folder pages",
            }
            .into());
        }
        if self.visited.len() > MAX_PAGES {
            return Err(ClientError::TooLarge {
                what: "a folder",
                max: MAX_PAGES as u64,
            });
        }
        self.next = snapshot.next_page(&opened).await?;
        snapshot.page(opened).await.map(Some)
    }
}

impl Reading {
    /// Fetches fragments in parallel, in order. A missing one is tried once more, then an error.
    pub(crate) async fn fragments(
        &self,
        fragments: &[Fragment],
    ) -> Result<Vec<Block>, ClientError> {
        let fetches: Vec<BoxFuture<'_, Result<Block, ClientError>>> = fragments
            .iter()
            .map(|fragment| self.fragment(fragment).boxed())
            .collect();
        stream::iter(fetches)
            .buffered(FRAGMENTS_IN_FLIGHT)
            .try_collect()
            .await
    }

    async fn fragment(&self, fragment: &Fragment) -> Result<Block, ClientError> {
        let blocks = &self.view.blocks;
        let token = fragment.token.as_ref();
        match blocks.required(&fragment.cid, token).await {
            Err(ClientError::Misbehavior(Misbehavior::BlockWithheld { .. })) => {
                blocks.required(&fragment.cid, token).await
            }
            other => other,
        }
    }
}

/// Returns the key for the space a node is in: its own signer link, else the folder's when that fits.
fn entry_signer(
    opened: &Opened,
    folder: Option<&Arc<SecretKeyWithHash>>,
) -> Result<Option<Arc<SecretKeyWithHash>>, ClientError> {
    if let Some(signer) = opened.signer()? {
        return Ok(Some(Arc::new(signer)));
    }
    Ok(folder
        .filter(|signer| signer.writer() == opened.capability.writer)
        .cloned())
}
