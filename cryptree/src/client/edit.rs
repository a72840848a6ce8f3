//! Making, renaming, moving and copying (Spec: 21 §8, §12).

use std::sync::Arc;

use futures_util::FutureExt;

use super::{
    Session,
    content::Content,
    file::RemoteFile,
    folder::Folder,
    nodes,
    path::RemotePath,
    remove::Expected,
    session::Account,
    snapshot::{Item, Snapshot},
    upload::UploadOptions,
};
use crate::{
    capability::Child,
    directory::{ChildList, ItemKeys},
    error::ClientError,
    properties::{FileName, FileProperties},
};

/// Folders within folders that a copy follows.
const MAX_COPY_DEPTH: usize = 256;

impl Session {
    /// Makes a folder.
    ///
    /// # Errors
    /// [`ClientError::Exists`], [`ClientError::NotFound`] for the folder it would be in, [`ClientError::ReadOnly`].
    pub async fn make_folder(&self, path: &str) -> Result<(), ClientError> {
        let path: RemotePath = path.parse()?;
        self.account.make_folder(&path, false).await
    }

    /// Makes a folder and those above it, as far as they are missing.
    ///
    /// # Errors
    /// [`ClientError::NotADirectory`] when a file is in the way, [`ClientError::ReadOnly`].
    pub async fn make_folders(&self, path: &str) -> Result<(), ClientError> {
        let path: RemotePath = path.parse()?;
        self.account.make_folders(&path).await
    }

    /// Gives the item at `path` another name in the same folder.
    ///
    /// # Errors
    /// [`ClientError::IllegalName`], [`ClientError::Exists`], [`ClientError::NotFound`], [`ClientError::ReadOnly`].
    pub async fn rename(&self, path: &str, name: &str) -> Result<(), ClientError> {
        let path: RemotePath = path.parse()?;
        let name = FileName::parse(name).map_err(|_| ClientError::IllegalName {
            name: name.to_owned(),
        })?;
        let mut runs = self.account.runs();
        loop {
            match self.account.rename_once(&path, &name).await {
                Err(error) => runs.again_after(error).await?,
                done => return done,
            }
        }
    }

    /// Moves the item at `from` to the path `to`, which must be free; the last name of `to` is its new name.
    ///
    /// Within one writing space nothing is copied and capabilities stay valid. Otherwise the item is copied and
    /// then deleted; an interruption leaves both.
    ///
    /// # Errors
    /// [`ClientError::Exists`], [`ClientError::NotFound`], [`ClientError::IntoItself`], [`ClientError::ReadOnly`].
    pub async fn move_to(&self, from: &str, to: &str) -> Result<(), ClientError> {
        let from: RemotePath = from.parse()?;
        let to: RemotePath = to.parse()?;
        if to.is_within(&from) {
            return Err(ClientError::IntoItself {
                path: from.to_string(),
            });
        }
        let mut runs = self.account.runs();
        loop {
            match self.account.move_once(&from, &to).await {
                Err(error) => runs.again_after(error).await?,
                Ok(Moved::Done) => return Ok(()),
                Ok(Moved::NeedsCopy) => break,
            }
        }
        let seen = self.contents(&from).await?;
        self.copy(&from.to_string(), &to.to_string()).await?;
        // What another device has written since is not in the copy: then both stay.
        self.delete_as_seen(&from, Expected::Contents(seen)).await
    }

    /// Copies the item at `from`, with everything below it, to the free path `to`. Copies have keys of their own.
    ///
    /// # Errors
    /// As [`Session::move_to`].
    pub async fn copy(&self, from: &str, to: &str) -> Result<(), ClientError> {
        let from: RemotePath = from.parse()?;
        let to: RemotePath = to.parse()?;
        if to.is_within(&from) {
            return Err(ClientError::IntoItself {
                path: from.to_string(),
            });
        }
        let (item, _) = Snapshot::new(&self.account).resolve(&from).await?;
        let mut folders = Vec::new();
        self.copy_one(item, from, to, 0, &mut folders).await?;
        // Not by recursion: how deep folders are is for whoever may write in them to say.
        while let Some(CopiedFolder {
            item,
            from,
            to,
            depth,
        }) = folders.pop()
        {
            let mut snapshot = Snapshot::new(&self.account);
            let mut pages = super::snapshot::Pages::new(item.opened.clone());
            while let Some(page) = pages.next(&mut snapshot).await? {
                for child in page.children.iter() {
                    let below = snapshot
                        .item(item.capability(), item.signer.as_ref(), child)
                        .await?
                        .ok_or_else(|| ClientError::not_found(from.to_string()))?;
                    let name = below.properties.name.clone();
                    let (source, target) = (from.join(name.clone()), to.join(name));
                    self.copy_one(below, source, target, depth + 1, &mut folders)
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Copies a file, or makes a folder and adds it to `folders`, to be looked into later.
    async fn copy_one(
        &self,
        item: Item,
        from: RemotePath,
        to: RemotePath,
        depth: usize,
        folders: &mut Vec<CopiedFolder>,
    ) -> Result<(), ClientError> {
        if depth > MAX_COPY_DEPTH {
            return Err(ClientError::TooLarge {
                what: "the depth of the folder",
                max: MAX_COPY_DEPTH as u64,
            });
        }
        if item.properties.is_directory {
            self.account
                .make_folder(&to, item.properties.is_hidden)
                .await?;
            folders.push(CopiedFolder {
                item,
                from,
                to,
                depth,
            });
            return Ok(());
        }
        let mut snapshot = Snapshot::new(&self.account);
        let space = snapshot
            .space(&item.capability().writer, Some(&self.account.home.writer))
            .await?;
        let options = UploadOptions {
            modified: Some(item.properties.modified),
            is_hidden: item.properties.is_hidden,
            thumbnail: item.properties.thumbnail.clone(),
            ..UploadOptions::default()
        };
        let size = item.properties.size_bytes;
        let reading = Arc::clone(&self.account.reading);
        let file = RemoteFile::new(
            reading,
            from.to_string(),
            space,
            item.opened,
            item.properties,
        );
        let mut content = Content::new(&file);
        self.upload(
            &to.to_string(),
            &mut content,
            Some(size),
            &options,
            &mut |_, _| {},
        )
        .boxed()
        .await
        .map(|_| ())
    }
}

/// A folder whose copy is made and still empty.
struct CopiedFolder {
    item: Item,
    from: RemotePath,
    to: RemotePath,
    depth: usize,
}

enum Moved {
    Done,
    NeedsCopy,
}

impl Account {
    /// Makes a folder.
    pub(super) async fn make_folder(
        &self,
        path: &RemotePath,
        is_hidden: bool,
    ) -> Result<(), ClientError> {
        let mut runs = self.runs();
        loop {
            match self.make_folder_once(path, is_hidden).await {
                Err(error) => runs.again_after(error).await?,
                done => return done,
            }
        }
    }

    pub(super) async fn make_folders(&self, path: &RemotePath) -> Result<(), ClientError> {
        // Look before taking the write lock.
        let mut missing = Vec::new();
        let mut wanted = path.clone();
        loop {
            match Snapshot::new(self).folder(&wanted).await {
                Ok(_) => break,
                Err(ClientError::NotFound { .. }) => {
                    let Some((parent, _)) = wanted.split_last() else {
                        return Err(ClientError::not_found(wanted.to_string()));
                    };
                    missing.push(std::mem::replace(&mut wanted, parent));
                }
                Err(error) => return Err(error),
            }
        }
        for folder in missing.iter().rev() {
            match self.make_folder(folder, false).await {
                // Somebody else made it in the meantime.
                Err(ClientError::Exists { .. }) => {
                    Snapshot::new(self).folder(folder).await?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn make_folder_once(
        &self,
        path: &RemotePath,
        is_hidden: bool,
    ) -> Result<(), ClientError> {
        let Some((parent_path, name)) = path.split_last() else {
            return Err(exists(path));
        };
        let lock = self.locks.of(&self.home.writer);
        let _writing = lock.lock().await;
        let mut snapshot = Snapshot::new(self);
        let parent = snapshot.folder(&parent_path).await?;
        let signer = parent.writable(&parent_path)?;
        let mut folder = Folder::load(&mut snapshot, &parent).await?;
        if folder.contains(name) {
            return Err(exists(path));
        }
        let rng = &mut *self.random();
        let keys = ItemKeys::random(rng);
        let capability = keys.capability(
            parent.capability().owner.clone(),
            parent.capability().writer.clone(),
        );
        let properties = FileProperties::directory(name.clone(), self.now(), is_hidden);
        let mut draft = self.draft(&mut snapshot, &parent, signer).await?;
        let node = nodes::new_directory(
            &keys,
            properties.clone(),
            Some(parent.opened.link_from_below(&capability.writer)),
            None,
            self.mirror_for(&parent.opened).as_ref(),
            &ChildList::new(),
            rng,
        )?;
        draft.put(node, None).await?;
        folder.add(nodes::entry(
            parent.capability(),
            &capability,
            &properties,
            rng,
        )?)?;
        folder.write(&mut draft, rng).await?;
        draft.commit().await.map(|_| ())
    }

    async fn rename_once(&self, path: &RemotePath, name: &FileName) -> Result<(), ClientError> {
        let Some((parent_path, old_name)) = path.split_last() else {
            return Err(ClientError::ReadOnly {
                path: path.to_string(),
            });
        };
        if name == old_name {
            return Snapshot::new(self).resolve(path).await.map(|_| ());
        }
        let lock = self.locks.of(&self.home.writer);
        let _writing = lock.lock().await;
        let mut snapshot = Snapshot::new(self);
        let parent = snapshot.folder(&parent_path).await?;
        let signer = parent.writable(&parent_path)?;
        let mut folder = Folder::load(&mut snapshot, &parent).await?;
        let (child, item) = find(&mut snapshot, &mut folder, &parent, path, old_name).await?;
        if folder.contains(name) {
            return Err(exists(&parent_path.join(name.clone())));
        }
        let Child::Named(mut entry) = child else {
            return Err(ClientError::OldLayout {
                what: "renaming in a folder without names",
            });
        };
        let rng = &mut *self.random();
        // An item behind a link node has its name there; the target's own name must not tell the old one.
        if item.link.is_some() {
            self.rename_target(&mut snapshot, &item, name).await?;
        }
        let node = item.entry_node();
        let mut draft = self.draft(&mut snapshot, &parent, signer).await?;
        if node.capability.writer == *draft.writer() {
            let mut properties = node.properties.clone();
            properties.name = name.clone();
            let renamed = node.with_properties(properties, None, rng)?;
            draft.put(renamed, Some(&node.cid)).await?;
        } else {
            self.rename_target(&mut snapshot, &item, name).await?;
        }
        let place = entry.capability.clone();
        entry.name = name.clone();
        folder
            .replace(&mut snapshot, old_name, &place, entry)
            .await?;
        folder.write(&mut draft, rng).await?;
        draft.commit().await.map(|_| ())
    }

    /// Renames an item in its own writing space.
    async fn rename_target(
        &self,
        snapshot: &mut Snapshot<'_>,
        item: &Item,
        name: &FileName,
    ) -> Result<(), ClientError> {
        let Some(signer) = item.signer.clone() else {
            return Ok(());
        };
        let mut properties = item.opened.properties.clone();
        properties.name = name.clone();
        let mut draft = self.draft(snapshot, item, signer).await?;
        let renamed = item
            .opened
            .with_properties(properties, None, &mut *self.random())?;
        draft.put(renamed, Some(&item.opened.cid)).await?;
        draft.commit().await.map(|_| ())
    }

    async fn move_once(&self, from: &RemotePath, to: &RemotePath) -> Result<Moved, ClientError> {
        let read_only = |path: &RemotePath| ClientError::ReadOnly {
            path: path.to_string(),
        };
        let (from_path, old_name) = from.split_last().ok_or_else(|| read_only(from))?;
        let (to_path, new_name) = to.split_last().ok_or_else(|| exists(to))?;
        if from_path == to_path {
            self.rename_once(from, new_name).await?;
            return Ok(Moved::Done);
        }
        let lock = self.locks.of(&self.home.writer);
        let _writing = lock.lock().await;
        let mut snapshot = Snapshot::new(self);
        let source = snapshot.folder(&from_path).await?;
        let target = snapshot.folder(&to_path).await?;
        let signer = source.writable(&from_path)?;
        target.writable(&to_path)?;
        let mut source_folder = Folder::load(&mut snapshot, &source).await?;
        let mut target_folder = Folder::load(&mut snapshot, &target).await?;
        let (child, item) =
            find(&mut snapshot, &mut source_folder, &source, from, old_name).await?;
        if target_folder.contains(new_name) {
            return Err(exists(to));
        }
        let node = item.entry_node();
        let writer = &source.capability().writer;
        if target.capability().writer != *writer || node.capability.writer != *writer {
            return Ok(Moved::NeedsCopy);
        }
        let Child::Named(entry) = child else {
            return Ok(Moved::NeedsCopy);
        };
        let rng = &mut *self.random();
        let mut properties = node.properties.clone();
        properties.name = new_name.clone();
        let mut draft = self.draft(&mut snapshot, &source, signer).await?;
        if node.properties.is_directory {
            // Were a folder above the target moved into the item at the same time, both would be cut off from the home
            // folder, in a ring of their own: such a move changes one of these nodes.
            let mut above = Vec::new();
            snapshot.walk_down(&to_path, &mut above).await?;
            let nodes = above
                .iter()
                .flat_map(|folder| [Some(&folder.opened), folder.link.as_deref()]);
            let nodes = nodes
                .flatten()
                .filter(|node| node.capability.writer == *writer);
            let places = nodes.map(|node| (node.capability.map_key, Some(node.cid.clone())));
            draft.guard(places.collect()).await?;
        }
        let up = target.opened.link_from_below(&node.capability.writer);
        let moved = node.with_properties(properties.clone(), Some(up), rng)?;
        draft.put(moved, Some(&node.cid)).await?;
        source_folder
            .remove(&mut snapshot, old_name, &entry.capability)
            .await?;
        target_folder.add(nodes::entry(
            target.capability(),
            &node.capability,
            &properties,
            rng,
        )?)?;
        target_folder.write(&mut draft, rng).await?;
        source_folder.write(&mut draft, rng).await?;
        draft.commit().await?;
        Ok(Moved::Done)
    }
}

async fn find(
    snapshot: &mut Snapshot<'_>,
    folder: &mut Folder,
    parent: &Item,
    path: &RemotePath,
    name: &FileName,
) -> Result<(Child, Item), ClientError> {
    let missing = || ClientError::not_found(path.to_string());
    let child = folder.find(snapshot, name).await?.ok_or_else(missing)?;
    let item = snapshot
        .item(parent.capability(), parent.signer.as_ref(), &child)
        .await?
        .ok_or_else(missing)?;
    Ok((child, item))
}

fn exists(path: &RemotePath) -> ClientError {
    ClientError::Exists {
        path: path.to_string(),
    }
}
