//! Reads the account's side: one look-up for 20 entries, no content.

use std::collections::BTreeMap;

use cryptree::{
    ClientError,
    client::{Session, Versions},
};

use super::{
    here::{MAX_ITEMS, joined},
    ignore::Ignored,
    tree::{Remote, RemoteFile},
};
use crate::{
    exit::{Class, Failure},
    local::{name, name::Platform},
};

/// The account's side.
#[derive(Debug, Default)]
pub struct There {
    /// What takes part.
    pub tree: BTreeMap<String, Remote>,
    /// What does not.
    pub excluded: Vec<String>,
    /// Of that, what a person should hear of, and why.
    pub notes: Vec<(String, String)>,
    /// Tells later whether anything has changed; none when the folder does not exist.
    pub versions: Option<Versions>,
}

/// Reads everything below the folder `root`; a folder that does not exist is empty.
///
/// # Errors
///
/// When it cannot be read or there is too much.
pub async fn read(session: &Session, root: &str) -> Result<There, Failure> {
    let mut there = There::default();
    let is_home = root.trim_matches('/') == session.username();
    let mut walk = match session.walk(root).await {
        Ok(walk) => walk,
        Err(ClientError::NotFound { .. }) => return Ok(there),
        Err(error) => return Err(error.into()),
    };
    while let Some(page) = walk.next().await? {
        for damaged in page.damaged {
            match damaged.name {
                Some(name) => {
                    let path = joined(&page.folder, &name);
                    there.leave_out(path, Failure::from(damaged.reason).message);
                }
                // Whose place it has nobody knows: the folder must not look complete.
                None if page.folder.is_empty() => return Err(damaged.reason.into()),
                None => {
                    let reason = Failure::from(damaged.reason).message;
                    there.leave_out(page.folder.clone(), reason);
                }
            }
        }
        for found in page.entries {
            let entry = &found.entry;
            let path = joined(&page.folder, &entry.name);
            // The account's own machinery.
            if is_home && page.folder.is_empty() && entry.is_hidden == Some(true) {
                there.excluded.push(path);
                continue;
            }
            if let Err(reason) = name::check(&entry.name, Platform::here()) {
                there.leave_out(path, reason.to_string());
                continue;
            }
            let id = Some(found.id());
            let remote = if entry.is_directory {
                Remote::Folder { id }
            } else {
                Remote::File(RemoteFile {
                    id,
                    version: entry.version.map(|version| *version.as_bytes()),
                    size: entry.size_bytes.unwrap_or(0),
                    modified: entry
                        .modified
                        .unwrap_or(cryptree::properties::Timestamp::from_epoch_seconds(0)),
                    hash: entry.content_hash,
                    is_verified: false,
                })
            };
            there.tree.insert(path, remote);
            if there.tree.len() > MAX_ITEMS {
                return Err(Failure::new(
                    Class::TooLarge,
                    format!("more than {MAX_ITEMS} files and folders in `{root}`"),
                ));
            }
        }
    }
    there.versions = Some(walk.versions().clone());
    Ok(there)
}

impl There {
    fn leave_out(&mut self, path: String, reason: String) {
        self.excluded.push(path.clone());
        self.notes.push((path, reason));
    }

    /// Returns what the ignore files of the local side leave out here too.
    #[must_use]
    pub fn ignored(&self, ignored: &Ignored) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for (path, remote) in &self.tree {
            let is_folder = matches!(remote, Remote::Folder { .. });
            if ignored.matches(path, is_folder) {
                found.push(path.clone());
            }
        }
        found
    }
}
