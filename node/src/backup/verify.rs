//! Reading a whole backup: every block of every pack against its name, every list against its checksum.

use std::{collections::HashSet, path::Path};

use champ::Cid;
use serde::{Deserialize, Serialize};

use super::{
    error::BackupError,
    folder::Folder,
    manifest::StoredFile,
    pack::{Pack, numbers},
    rows::{RowReader, checksum},
};
use crate::check::user_of;

/// Problems that are listed one by one.
const MAX_LISTED: usize = 1_000;

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Complete snapshots, oldest first.
    pub snapshots: Vec<String>,
    /// Time of the newest one, seconds since 1970.
    pub newest_seconds: Option<i64>,
    /// Packs.
    pub packs: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// Bytes of the packs.
    pub bytes: u64,
    /// What is wrong, for people; at most a thousand.
    pub problems: Vec<String>,
    /// How many problems there are.
    pub problem_count: u64,
}

impl Verified {
    fn problem(&mut self, text: String) {
        self.problem_count += 1;
        if self.problems.len() < MAX_LISTED {
            self.problems.push(text);
        }
    }
}

/// Verifies a backup. `progress` is told how many of how many bytes are done; when it returns false, it stops.
/// Blocking.
///
/// # Errors
/// [`BackupError`] when it cannot be read at all; damage is no error.
pub fn verify(
    from: &Path,
    progress: &mut (dyn FnMut(u64, u64) -> bool + Send),
) -> Result<Verified, BackupError> {
    let folder = Folder::read(from)?;
    let mut verified = Verified::default();
    let packs = folder.packs();
    let mut all_bytes = 0;
    let numbers = numbers(&packs)?;
    for number in &numbers {
        all_bytes += Pack::open(&packs, *number)?.bytes();
    }
    let mut good: HashSet<Cid> = HashSet::new();
    for number in numbers {
        let pack = Pack::open(&packs, number)?;
        verified.packs += 1;
        match pack.entries() {
            Err(BackupError::Damaged { path, reason }) => {
                verified.problem(format!("{}: {reason}", path.display()));
            }
            Err(error) => return Err(error),
            Ok(entries) => {
                for entry in entries {
                    verified.blocks += 1;
                    match pack.block(&entry) {
                        Ok(_) => drop(good.insert(entry.cid)),
                        Err(_) => {
                            let path = pack.path().display();
                            verified.problem(format!("{path}: block {} is damaged", entry.cid));
                        }
                    }
                }
            }
        }
        verified.bytes += pack.bytes();
        if !progress(verified.bytes, all_bytes) {
            return Err(BackupError::Stopped);
        }
    }
    for name in folder.snapshot_names()? {
        if let Err(error) = snapshot(&folder, &name, &good, &mut verified) {
            verified.problem(format!("snapshot {name}: {error}"));
        }
        verified.snapshots.push(name);
    }
    Ok(verified)
}

fn snapshot(
    folder: &Folder,
    name: &str,
    good: &HashSet<Cid>,
    verified: &mut Verified,
) -> Result<(), BackupError> {
    let manifest = folder.manifest(Some(name))?;
    verified.newest_seconds = Some(manifest.created_seconds);
    let path = folder.snapshot(name);
    let mut rows = RowReader::open(&path.join("metadata"), &manifest.metadata)?;
    while rows.metadata()?.is_some() {}
    for StoredFile {
        path: file,
        bytes,
        sha256,
    } in &manifest.files
    {
        let file = path.join("files").join(file);
        if checksum(&file)? != (*bytes, sha256.clone()) {
            return Err(BackupError::damaged(
                &file,
                "it does not match its checksum",
            ));
        }
    }
    let damaged: HashSet<_> = manifest
        .damaged
        .iter()
        .map(|(_, cid)| cid.clone())
        .collect();
    let mut rows = RowReader::open(&path.join("blocks"), &manifest.blocks)?;
    while let Some((partition, cid, _)) = rows.block()? {
        if !good.contains(&cid) && !damaged.contains(&cid.to_string()) {
            let user = user_of(&partition);
            verified.problem(format!(
                "snapshot {name}: no good copy of block {cid} of {user}"
            ));
        }
    }
    if !manifest.damaged.is_empty() {
        let count = manifest.damaged.len();
        verified.problem(format!(
            "snapshot {name}: {count} blocks were damaged when it was made"
        ));
    }
    Ok(())
}
