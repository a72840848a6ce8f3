//! The manifest of a snapshot: what belongs to it, with checksums. A snapshot without one is not complete.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use super::{error::BackupError, folder::FORMAT};

/// Name of the manifest.
pub(super) const MANIFEST_FILE: &str = "manifest.json";
/// Longest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// A file of a snapshot that holds rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Rows in it.
    pub rows: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 as hex.
    pub sha256: String,
}

/// A file of the node's data folder: a key, a setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Path relative to the data folder, with `/`.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 as hex.
    pub sha256: String,
}

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of the backup.
    pub format: u32,
    /// Name of the snapshot: the time it shows, as `20260102T030405Z` and a number.
    pub name: String,
    /// That time in seconds since 1970.
    pub created_seconds: i64,
    /// Version of the program that made it.
    pub program: String,
    /// The metadata.
    pub metadata: Content,
    /// The list of blocks.
    pub blocks: Content,
    /// Bytes of all blocks, as the users count them.
    pub block_bytes: u64,
    /// Blocks that were damaged when the snapshot was made, and are in no pack: user and CID.
    pub damaged: Vec<(String, String)>,
    /// Keys and settings.
    pub files: Vec<StoredFile>,
}

impl Manifest {
    /// Reads the manifest of a snapshot folder.
    pub(super) fn read(snapshot: &Path) -> Result<Self, BackupError> {
        let path = snapshot.join(MANIFEST_FILE);
        let metadata = fs::metadata(&path).map_err(BackupError::io("read", &path))?;
        if metadata.len() > MAX_MANIFEST_BYTES {
            return Err(BackupError::damaged(&path, "it is too long"));
        }
        let bytes = fs::read(&path).map_err(BackupError::io("read", &path))?;
        let manifest: Self = serde_json::from_slice(&bytes)
            .map_err(|_| BackupError::damaged(&path, "it is not what was written"))?;
        if manifest.format > FORMAT {
            return Err(BackupError::NewerFormat {
                found: manifest.format,
                supported: FORMAT,
            });
        }
        Ok(manifest)
    }

    /// Returns the manifest as bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}
