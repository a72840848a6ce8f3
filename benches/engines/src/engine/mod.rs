//! The candidates behind one small interface.

mod files;
mod fjall;
mod redb;
mod sled;
mod sqlite;

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

pub use files::FilesAndRedb;

/// A store of byte keys and values. Every change is on stable storage when the call returns.
pub trait Engine {
    /// Stores all pairs or none.
    fn put(&mut self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()>;
    /// Removes all keys or none.
    fn remove(&mut self, keys: &[Vec<u8>]) -> Result<()>;
    /// Reads one value.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
}

/// A candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Values of 64 KiB and more as files, the others in redb: what Kastro does.
    Files,
    /// redb alone.
    Redb,
    /// fjall alone.
    Fjall,
    /// sled alone.
    Sled,
    /// SQLite alone.
    Sqlite,
}

impl Kind {
    /// Every candidate.
    pub const ALL: [Self; 5] = [
        Self::Files,
        Self::Redb,
        Self::Fjall,
        Self::Sled,
        Self::Sqlite,
    ];

    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Redb => "redb",
            Self::Fjall => "fjall",
            Self::Sled => "sled",
            Self::Sqlite => "sqlite",
        }
    }

    /// Returns the name in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Files => "files + redb 4 (Kastro)",
            Self::Redb => "redb 4",
            Self::Fjall => "fjall 3",
            Self::Sled => "sled 0.34",
            Self::Sqlite => "SQLite (WAL, synchronous=full)",
        }
    }

    /// Opens or makes the store in `folder`.
    pub fn open(self, folder: &Path) -> Result<Box<dyn Engine>> {
        Ok(match self {
            Self::Files => Box::new(FilesAndRedb::open(folder)?),
            Self::Redb => Box::new(redb::Redb::open(folder)?),
            Self::Fjall => Box::new(fjall::Fjall::open(folder)?),
            Self::Sled => Box::new(sled::Sled::open(folder)?),
            Self::Sqlite => Box::new(sqlite::Sqlite::open(folder)?),
        })
    }
}
