//! Backups: a folder that holds complete, verified snapshots of a node, and what turns one back into a node.
//!
//! A snapshot is one moment of all metadata and the list of all blocks, with the node's keys and settings. The
//! blocks themselves are kept once for all snapshots, in packs; what is there already is not copied again.
//! Everything is written under a name that means nothing, flushed, and then renamed, so a backup that breaks off
//! leaves the older snapshots as they are and the next one goes on with the packs it has finished.
//!
//! The format is described in `docs/backup-format.md`.
//!
//! Spec: 40 REL-12, REL-13.

mod create;
mod error;
mod folder;
mod manifest;
mod pack;
mod prune;
mod restore;
mod rows;
mod supply;
mod verify;

pub use create::{BackupOptions, BackupOutcome, BackupProgress, backup};
pub use error::BackupError;
pub use manifest::{Content, Manifest, StoredFile};
pub use restore::{
    RESTORING_FILE, RestoreOptions, RestoreOutcome, Restored, restore, restore_as, restored,
};
pub use supply::BackupBlocks;
pub use verify::{Verified, verify};
