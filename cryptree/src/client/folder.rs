//! A folder loaded for changing: its pages, the names on them, and what is to be written (Spec: 20 §4, 21 §8).

use std::collections::HashMap;

use champ::Cid;
use rand_core::CryptoRng;

use super::{
    draft::Draft,
    nodes::{NewNode, Opened},
    snapshot::{Item, Page, Pages, Snapshot},
};
use crate::{
    capability::{Child, ChildEntry, MapKey, RelativeCapability},
    directory::ChildList,
    error::ClientError,
    properties::FileName,
};

/// All pages of a folder as of one state, and the changes made to them since.
///
/// Every change of a folder rewrites each touched page once, however many entries it adds. The lists of
/// full pages that were not touched are not kept: a folder of 100,000 children is held as its names.
#[derive(Debug)]
pub(crate) struct Folder {
    pages: Vec<FolderPage>,
    names: HashMap<String, usize>,
}

#[derive(Debug)]
struct FolderPage {
    /// `None`: added by us and not yet committed; then it continues the page before.
    opened: Option<Opened>,
    /// `None`: not needed so far.
    children: Option<ChildList>,
    is_changed: bool,
}

impl Folder {
    /// Reads all pages of a folder.
    pub(crate) async fn load(
        snapshot: &mut Snapshot<'_>,
        item: &Item,
    ) -> Result<Self, ClientError> {
        let mut folder = Self {
            pages: Vec::new(),
            names: HashMap::new(),
        };
        let mut pages = Pages::new(item.opened.clone());
        while let Some(Page { opened, children }) = pages.next(snapshot).await? {
            let index = folder.pages.len();
            let mut unnamed = Vec::new();
            for child in children.iter() {
                match child.name() {
                    Some(name) => folder.note(name.as_str(), index),
                    None => unnamed.push(child.clone()),
                }
            }
            for child in unnamed {
                let found = snapshot
                    .item(item.capability(), item.signer.as_ref(), &child)
                    .await;
                if let Ok(Some(found)) = found {
                    folder.note(found.properties.name.as_str(), index);
                }
            }
            folder.pages.push(FolderPage {
                opened: Some(opened),
                children: (children.room() > 0).then(|| (*children).clone()),
                is_changed: false,
            });
        }
        Ok(folder)
    }

    /// A folder whose first page was just made and is empty.
    pub(crate) fn empty(first: Opened) -> Self {
        Self {
            pages: vec![FolderPage {
                opened: Some(first),
                children: Some(ChildList::new()),
                is_changed: false,
            }],
            names: HashMap::new(),
        }
    }

    fn note(&mut self, name: &str, page: usize) {
        self.names.entry(name.to_owned()).or_insert(page);
    }

    pub(crate) fn contains(&self, name: &FileName) -> bool {
        self.names.contains_key(name.as_str())
    }

    /// Returns true when a page has to be written.
    pub(crate) fn is_changed(&self) -> bool {
        self.pages.iter().any(|page| page.is_changed)
    }

    /// Returns the first page.
    pub(crate) fn first(&self) -> Result<&Opened, ClientError> {
        self.pages
            .first()
            .and_then(|page| page.opened.as_ref())
            .ok_or(ClientError::Internal("a folder without pages"))
    }

    /// Adds an entry to the first page with room.
    ///
    /// # Errors
    /// [`ClientError::Exists`].
    pub(crate) fn add(&mut self, entry: ChildEntry) -> Result<(), ClientError> {
        if self.contains(&entry.name) {
            return Err(ClientError::Exists {
                path: entry.name.to_string(),
            });
        }
        let with_room = self.pages.iter().position(|page| {
            // A list without names (legacy) cannot hold named entries beside the others.
            let list = page.children.as_ref();
            list.is_some_and(|list| list.room() > 0 && !list.is_unnamed())
        });
        let index = with_room.unwrap_or_else(|| {
            self.pages.push(FolderPage {
                opened: None,
                children: Some(ChildList::new()),
                is_changed: true,
            });
            self.pages.len() - 1
        });
        self.note(entry.name.as_str(), index);
        if let Some(page) = self.pages.get_mut(index) {
            page.is_changed = true;
            if let Some(children) = &mut page.children {
                children.push(entry);
            }
        }
        Ok(())
    }

    /// Finds the entry of that name: the first in page order.
    pub(crate) async fn find(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        name: &FileName,
    ) -> Result<Option<Child>, ClientError> {
        let Some(index) = self.names.get(name.as_str()).copied() else {
            return Ok(None);
        };
        let children = self.children(snapshot, index).await?;
        if let Some(entry) = children.find(name.as_str()) {
            return Ok(Some(Child::Named(entry.clone())));
        }
        Ok(None)
    }

    /// Replaces the entry that points to `place`.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] when it is no longer there.
    pub(crate) async fn replace(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        name: &FileName,
        place: &RelativeCapability,
        entry: ChildEntry,
    ) -> Result<(), ClientError> {
        let index = self.page_of(name)?;
        let renamed = entry.name.clone();
        let replaced = self
            .children(snapshot, index)
            .await?
            .replace(name, place, entry);
        if !replaced {
            return Err(ClientError::Conflict);
        }
        self.touch(index);
        self.names.remove(name.as_str());
        self.note(renamed.as_str(), index);
        Ok(())
    }

    /// Removes the entry that points to `place`.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] when it is no longer there.
    pub(crate) async fn remove(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        name: &FileName,
        place: &RelativeCapability,
    ) -> Result<(), ClientError> {
        let index = self.page_of(name)?;
        let removed = self.children(snapshot, index).await?.remove(name, place);
        if removed.is_none() {
            return Err(ClientError::Conflict);
        }
        self.touch(index);
        self.names.remove(name.as_str());
        Ok(())
    }

    /// Removes the entries that readers must not use, and returns how many there were.
    pub(crate) async fn remove_unreadable(
        &mut self,
        snapshot: &Snapshot<'_>,
    ) -> Result<usize, ClientError> {
        let mut removed = 0;
        for index in 0..self.pages.len() {
            let on_page = self.children(snapshot, index).await?.remove_unreadable();
            if on_page > 0 {
                self.touch(index);
            }
            removed += on_page;
        }
        Ok(removed)
    }

    fn page_of(&self, name: &FileName) -> Result<usize, ClientError> {
        let page = self.names.get(name.as_str()).copied();
        page.ok_or_else(|| ClientError::not_found(name.as_str()))
    }

    fn touch(&mut self, index: usize) {
        if let Some(page) = self.pages.get_mut(index) {
            page.is_changed = true;
        }
    }

    async fn children(
        &mut self,
        snapshot: &Snapshot<'_>,
        index: usize,
    ) -> Result<&mut ChildList, ClientError> {
        const NO_PAGE: ClientError = ClientError::Internal("no such page");
        let page = self.pages.get_mut(index).ok_or(NO_PAGE)?;
        if page.children.is_none() {
            let opened = page.opened.as_ref().ok_or(NO_PAGE)?;
            page.children = Some((*snapshot.children(opened).await?).clone());
        }
        page.children.as_mut().ok_or(NO_PAGE)
    }

    /// Returns the nodes to be written for the changed pages, each with what must be there now.
    pub(crate) fn changed_nodes(
        &mut self,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<(NewNode, Option<Cid>)>, ClientError> {
        let first = self.first()?.clone();
        let mut before = first.clone();
        let mut nodes = Vec::new();
        for page in &mut self.pages {
            if page.is_changed {
                let children = page
                    .children
                    .as_ref()
                    .ok_or(ClientError::Internal("a changed page without children"))?;
                let (node, expected) = match &page.opened {
                    Some(opened) => (
                        opened.with_children(children, rng)?,
                        Some(opened.cid.clone()),
                    ),
                    None => (before.continuation(&first, children, rng)?, None),
                };
                // What is written is what the next change must find.
                let (_, bat) = match &page.opened {
                    Some(opened) => (opened.capability.map_key, opened.capability.bat.clone()),
                    None => before.next(),
                };
                let capability = first.capability.at(node.key, bat);
                page.opened = Some(Opened::open(&node.block, &capability)?);
                page.is_changed = false;
                nodes.push((node, expected));
            }
            if let Some(opened) = &page.opened {
                before = opened.clone();
            }
            if page.children.as_ref().is_some_and(|list| list.room() == 0) {
                page.children = None;
            }
        }
        Ok(nodes)
    }

    /// Returns the places of all pages, and of the page that does not exist after them.
    pub(crate) fn places(&self) -> Vec<(MapKey, Option<Cid>)> {
        let mut places: Vec<(MapKey, Option<Cid>)> = Vec::new();
        for opened in self.pages.iter().filter_map(|page| page.opened.as_ref()) {
            places.push((opened.capability.map_key, Some(opened.cid.clone())));
        }
        if let Some(last) = self
            .pages
            .iter()
            .rev()
            .find_map(|page| page.opened.as_ref())
        {
            places.push((last.next().0, None));
        }
        places
    }

    /// Puts the changed pages into the draft, which then holds only as long as no page changes otherwise.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] when a page is not the one that was loaded.
    pub(crate) async fn write(
        &mut self,
        draft: &mut Draft,
        rng: &mut (dyn CryptoRng + Send),
    ) -> Result<(), ClientError> {
        draft.guard(self.places()).await?;
        for (node, expected) in self.changed_nodes(rng)? {
            draft.put(node, expected.as_ref()).await?;
        }
        Ok(())
    }
}
