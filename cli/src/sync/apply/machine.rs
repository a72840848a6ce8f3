//! Making, moving, deleting and fetching on this machine.

use std::{collections::BTreeMap, ffi::OsStr, fs::Metadata, io, path::Path};

use cryptree::{
    ClientError,
    client::{Detail, RemoteFile as OpenFile, Session},
};
use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{Apply, is_overtaken};
use crate::{
    commands::{ls::system_time, upload_folder::is_hopeless},
    exit::{Class, Failure},
    human,
    local::{fetch::resume, folder::Folder, spelling::stand_in},
    sync::{
        here::{ContentHasher, inode, stamp},
        plan::Action,
        tree::{Hash, Id, Known, RemoteFile, Stamp, name_of, parent},
    },
};

/// Files fetched at once; larger ones alone.
const FILES_AT_ONCE: usize = 16;
/// Most bytes of the files that are fetched at once, and of one that is not fetched alone.
const BYTES_AT_ONCE: u64 = 8 << 20;

/// A file that was asked for: its path, what the account has there, the local file it takes the place of, and what came;
/// `None` when the local file is no longer what it was.
type Fetched = (
    String,
    RemoteFile,
    Option<Stamp>,
    Result<Option<(Stamp, Hash)>, Failure>,
);

impl Apply<'_> {
    /// Makes a folder and those above it. A link is not a folder.
    pub(super) fn make_local(&mut self, path: &str, id: Option<Id>) -> Result<bool, Failure> {
        self.open_local(path, id)?;
        Ok(true)
    }

    /// Opens a folder, which is made with those above it when it is not there.
    fn open_local(&mut self, path: &str, id: Option<Id>) -> Result<Folder, Failure> {
        let mut folder = self.root.clone();
        let (mut made, mut number) = (String::new(), 0);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            made = super::joined(&made, name);
            let local = self.places.local_name(&made);
            let entered = folder.enter_or_make(&*local);
            let found = entered.and_then(|entered| Ok((entered, folder.look(&*local)?)));
            let path = folder.path().join(&*local);
            let (entered, found) = found.map_err(|error| match error.kind() {
                io::ErrorKind::NotADirectory => Failure::new(
                    Class::Exists,
                    format!("{} exists and is not a folder", path.display()),
                ),
                _ => Failure::local("make the folder", &path, &error),
            })?;
            number = found.as_ref().map_or(0, inode);
            folder = entered;
        }
        let before = match self.state.known().get(path) {
            Some(Known::Folder { id, .. }) => *id,
            _ => None,
        };
        if !path.is_empty() {
            let known = Known::Folder {
                inode: number,
                id: id.or(before),
            };
            self.agree(path, known)?;
        }
        Ok(folder)
    }

    pub(super) fn move_local(&mut self, from: &str, to: &str) -> Result<bool, Failure> {
        let target = match parent(to) {
            Some(folder) => self.open_local(folder, None)?,
            None => self.root.clone(),
        };
        let (source, name) = self.place(from)?;
        let mut new = self.places.local_name(to).into_owned();
        let failed = |error: io::Error| Failure::local("rename", &self.here(from), &error);
        let mut renamed = source.rename(&name, &target, &new);
        if let Err(error) = &renamed
            && error.kind() == io::ErrorKind::AlreadyExists
            && !target
                .names()
                .map_err(failed)?
                .iter()
                .any(|there| *there == *new)
        {
            // The disk takes the name for that of something else, or of the item itself.
            let there = target.look(&new).map_err(failed)?;
            let own = source.look(&name).map_err(failed)?;
            let is_itself = there.as_ref().map(inode) == own.as_ref().map(inode);
            renamed = if is_itself {
                source.replace(&name, &target, &new)
            } else {
                new = stand_in(name_of(to));
                source.rename(&name, &target, &new)
            };
        }
        match renamed {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let path = target.path().join(&new);
                let message = format!("{} exists already", path.display());
                return Err(Failure::new(Class::Exists, message)
                    .help("it was made while this ran: run the command again"));
            }
            Err(error) => return Err(failed(error)),
        }
        if *self.places.local_name(to) != *new {
            self.places.put(to.to_owned(), new);
        }
        self.places.moved(from, to);
        self.state.moved(from, to)?;
        self.state.flush()?;
        Ok(true)
    }

    pub(super) fn delete_local(
        &mut self,
        path: &str,
        expected: Option<&Stamp>,
    ) -> Result<bool, Failure> {
        let local = self.here(path);
        let opened = self.places.open(self.root, path);
        let found = opened.and_then(|(folder, name)| {
            let found = folder.look(&name)?;
            Ok(found.map(|found| (folder, name, found)))
        });
        let found = match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            found => found.map_err(|error| Failure::local("read", &local, &error))?,
        };
        let deleted = match (found, expected) {
            (None, _) => Ok(()),
            (Some((folder, name, found)), Some(expected)) => {
                if !found.is_file() || stamp(&found) != *expected {
                    return Ok(false);
                }
                folder.remove_file(name)
            }
            (Some((folder, name, _)), None) => match folder.remove_folder(name) {
                // Something was put into it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(false),
                done => done,
            },
        };
        deleted.map_err(|error| Failure::local("delete", &local, &error))?;
        self.state.forget(path)?;
        Ok(true)
    }

    /// Fetches files, folder by folder: what is in one folder is found with few look-ups.
    pub(super) async fn download_all(&mut self, actions: Vec<Action>) -> Result<(), Failure> {
        let mut folders: BTreeMap<String, BTreeMap<String, Action>> = BTreeMap::new();
        for action in actions {
            let path = action.path().to_owned();
            let folder = parent(&path).unwrap_or_default().to_owned();
            let name = name_of(&path).to_owned();
            folders.entry(folder).or_default().insert(name, action);
        }
        for (folder, mut wanted) in folders {
            if self.has_failed(&folder) && !folder.is_empty() {
                continue;
            }
            match Box::pin(self.download_folder(&folder, &mut wanted)).await {
                Ok(()) => {}
                Err(failure) if is_hopeless(failure.class) => return Err(failure),
                Err(failure) => self.fail(&folder, &failure),
            }
            // What was not found is looked for again.
            self.is_overtaken |= !wanted.is_empty();
            self.state.flush()?;
        }
        Ok(())
    }

    async fn download_folder(
        &mut self,
        folder: &str,
        wanted: &mut BTreeMap<String, Action>,
    ) -> Result<(), Failure> {
        let is_known = folder.is_empty() || self.state.known().contains_key(folder);
        let place = match is_known {
            true => self.enter_local(folder)?,
            false => self.open_local(folder, None)?,
        };
        let remote_folder = match folder {
            "" => self.remote_root.to_owned(),
            folder => self.there(folder),
        };
        let session = self.session;
        let mut reader = match session.read_folder(&remote_folder, Detail::Full).await {
            Ok(reader) => reader,
            Err(error) if is_overtaken(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut running = FuturesUnordered::new();
        let mut bytes = 0;
        while !wanted.is_empty() {
            let Some(page) = reader.next_found().await? else {
                break;
            };
            for found in page.entries {
                let Some(action) = wanted.remove(&found.entry.name) else {
                    continue;
                };
                let Action::Download {
                    path,
                    remote,
                    replaces,
                } = action
                else {
                    continue;
                };
                let version = found.entry.version.map(|version| *version.as_bytes());
                if version != remote.version {
                    self.is_overtaken = true;
                    continue;
                }
                while running.len() >= FILES_AT_ONCE
                    || (bytes + remote.size > BYTES_AT_ONCE && !running.is_empty())
                {
                    if let Some(ended) = running.next().await {
                        bytes -= self.fetched(ended)?;
                    }
                }
                if let Err(failure) = self.check_room(remote.size) {
                    self.fail(&path, &failure);
                    continue;
                }
                bytes += remote.size;
                self.report.at(&path);
                let name = self.places.local_name(&path).into_owned();
                let (place, remote_path) = (place.clone(), self.there(&path));
                running.push(async move {
                    let local = (&place, OsStr::new(&name));
                    let fetched = match session.open_found(&found, &remote_path) {
                        Ok(file) => fetch(session, file, &remote_path, local, replaces).await,
                        Err(error) => Err(error.into()),
                    };
                    (path, remote, replaces, fetched)
                });
            }
        }
        while let Some(ended) = running.next().await {
            self.fetched(ended)?;
        }
        Ok(())
    }

    /// Opens a folder that is there.
    fn enter_local(&self, folder: &str) -> Result<Folder, Failure> {
        if folder.is_empty() {
            return Ok(self.root.clone());
        }
        let (above, name) = self.place(folder)?;
        let entered = above.enter(&name);
        entered.map_err(|error| Failure::local("open", &above.path().join(&name), &error))
    }

    /// Notes what became of a file that was fetched, and returns its size.
    fn fetched(&mut self, (path, remote, replaces, fetched): Fetched) -> Result<u64, Failure> {
        let size = remote.size;
        match fetched {
            Ok(Some((stamp, hash))) => {
                self.report.transferred(size);
                let known = Known::File {
                    stamp,
                    remote: remote.clone(),
                    hash: Some(hash),
                };
                self.agree(&path, known)?;
                self.report.done(&Action::Download {
                    path,
                    remote,
                    replaces,
                })?;
            }
            Ok(None) => self.is_overtaken = true,
            Err(failure) if is_hopeless(failure.class) => return Err(failure),
            Err(failure) => self.fail(&path, &failure),
        }
        Ok(size)
    }

    /// Checks that a file of that size leaves as much free as it should.
    fn check_room(&self, bytes: u64) -> Result<(), Failure> {
        let Some(free) = free_bytes(self.root.path()) else {
            return Ok(());
        };
        if free.saturating_sub(bytes) >= self.keep_free && free >= bytes {
            return Ok(());
        }
        Err(Failure::new(
            Class::Local,
            format!(
                "not downloaded: the disk has {} free, and {} are to stay free",
                human::size(free),
                human::size(self.keep_free)
            ),
        ))
    }
}

/// Fetches a file beside its place and puts it there; none when what is there is not what the plan saw.
async fn fetch(
    session: &Session,
    file: OpenFile,
    remote: &str,
    local: (&Folder, &OsStr),
    replaces: Option<Stamp>,
) -> Result<Option<(Stamp, Hash)>, Failure> {
    match content(&file, remote, local, replaces).await {
        // The node has dropped blocks of the state that was listed: a later look shows the present one.
        Err(failure) if failure.class == Class::Damaged => match session.stat(remote).await {
            Ok(entry) if entry.version == Some(file.version()) => Err(failure),
            Ok(_) | Err(ClientError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        },
        done => done,
    }
}

async fn content(
    file: &OpenFile,
    remote: &str,
    place: (&Folder, &OsStr),
    replaces: Option<Stamp>,
) -> Result<Option<(Stamp, Hash)>, Failure> {
    let local = place.0.path().join(place.1);
    let write = |error: io::Error| Failure::local("write", &local, &error);
    let mut hasher = ContentHasher::new();
    let resumed = tokio::task::block_in_place(|| resume(file, place, |chunk| hasher.update(chunk)))
        .map_err(write)?;
    let (mut partial, mut bytes) = (resumed.partial, resumed.bytes);
    let mut chunks = file.chunks(resumed.first_chunk);
    while let Some(chunk) = chunks.next().await? {
        tokio::task::block_in_place(|| {
            hasher.update(&chunk);
            partial.append(&chunk)
        })
        .map_err(write)?;
        bytes += chunk.len() as u64;
    }
    if bytes != file.size() {
        return Err(Failure::new(
            Class::Damaged,
            format!("`{remote}` ends after {bytes} of {} bytes", file.size()),
        )
        .help("nothing was kept; ask the node's operator for a check"));
    }
    let now = place.0.look(place.1).map_err(write)?;
    let is_file = now.as_ref().is_none_or(Metadata::is_file);
    if !is_file || now.as_ref().map(stamp) != replaces {
        return Ok(None);
    }
    let modified = system_time(file.properties().modified);
    match partial.finish(Some(modified), replaces.is_some()) {
        Ok(found) => Ok(Some((stamp(&found), hasher.finish()))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(write(error)),
    }
}

/// Returns the bytes that are free on the disk of a folder, where the system tells.
#[must_use]
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}
