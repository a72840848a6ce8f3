//! Everything below a folder, on the state it had at the start: what a comparison with a local folder needs.
//!
//! One lookup per 20 entries; no content is read. Asking later whether anything at all has changed costs one pointer
//! per writing space.

use super::{
    list::{DamagedEntry, Detail, FolderReader, FoundEntry},
    published::Versions,
    session::Session,
};
use crate::error::ClientError;

/// Folders within folders that a walk follows.
const MAX_DEPTH: usize = 2048;

/// A walk over a folder and all folders below it.
///
/// Folders come before what is in them. A folder that cannot be read is reported as damaged in the one above it, or
/// ends the walk with an error when the node withholds it: what is missing is never taken for deleted (Spec: 40,
/// INT-14).
pub struct Walk<'a> {
    session: &'a Session,
    waiting: Vec<(String, usize, FoundEntry)>,
    reading: Option<(String, usize, FolderReader<'a>)>,
    versions: Versions,
}

/// Up to 500 entries of one folder.
#[derive(Debug, Clone, Default)]
pub struct WalkedFolder {
    /// Path of the folder, relative to where the walk began: empty there, then `a`, `a/b`. Names may hold anything but
    /// `/`.
    pub folder: String,
    /// Its entries, in stored order. Their content can be opened with
    /// [`Session::open_found`](super::Session::open_found).
    pub entries: Vec<FoundEntry>,
    /// Entries that are there and cannot be opened.
    pub damaged: Vec<DamagedEntry>,
}

impl std::fmt::Debug for Walk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk").finish_non_exhaustive()
    }
}

impl Session {
    /// Starts a walk over everything below the folder at `path`.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::NotADirectory`].
    pub async fn walk(&self, path: &str) -> Result<Walk<'_>, ClientError> {
        let reader = self.read_folder(path, Detail::Full).await?;
        Ok(Walk {
            session: self,
            waiting: Vec::new(),
            versions: reader.versions(),
            reading: Some((String::new(), 0, reader)),
        })
    }

    /// Returns true when nothing has changed in the writing spaces that something was read from.
    ///
    /// # Errors
    /// As reading a pointer.
    pub async fn are_current(&self, versions: &Versions) -> Result<bool, ClientError> {
        self.account.view.are_current(versions).await
    }
}

impl Walk<'_> {
    /// Returns the next page of a folder; `None` at the end.
    ///
    /// # Errors
    /// Whatever keeps a page from being read; [`ClientError::TooLarge`] for folders within folders without end.
    pub async fn next(&mut self) -> Result<Option<WalkedFolder>, ClientError> {
        loop {
            if let Some((folder, depth, reader)) = &mut self.reading {
                let page = reader.next_found().await?;
                self.versions.extend(&reader.versions());
                if let Some(page) = page {
                    let below = page.entries.iter().rev().filter(|e| e.entry.is_directory);
                    for found in below {
                        let path = joined(folder, &found.entry.name);
                        self.waiting.push((path, *depth + 1, found.clone()));
                    }
                    return Ok(Some(WalkedFolder {
                        folder: folder.clone(),
                        entries: page.entries,
                        damaged: page.damaged,
                    }));
                }
            }
            let Some((folder, depth, found)) = self.waiting.pop() else {
                self.reading = None;
                return Ok(None);
            };
            if depth > MAX_DEPTH {
                return Err(ClientError::TooLarge {
                    what: "the depth of the folder",
                    max: MAX_DEPTH as u64,
                });
            }
            self.reading = Some((folder, depth, self.session.read_found(found)?));
        }
    }

    /// Returns what was read so far, to be given to [`Session::are_current`] later.
    pub const fn versions(&self) -> &Versions {
        &self.versions
    }
}

/// Returns the path of an entry relative to where the walk began.
fn joined(folder: &str, name: &str) -> String {
    match folder {
        "" => name.to_owned(),
        folder => format!("{folder}/{name}"),
    }
}
