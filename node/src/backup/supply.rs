//! A backup as a supply of good copies for a repair.

use std::{collections::HashMap, path::Path, sync::Arc};

use champ::{Block, Cid};
use parking_lot::Mutex;

use super::{error::BackupError, folder::Folder, pack::Known, restore::Source};
use crate::check::{BlockSupply, SupplyError};

/// The blocks of a backup.
pub struct BackupBlocks {
    name: String,
    source: Mutex<Source>,
}

impl std::fmt::Debug for BackupBlocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BackupBlocks").field(&self.name).finish()
    }
}

impl BackupBlocks {
    /// Opens a backup. Blocking.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        let folder = Folder::read(path)?;
        let packs = folder.packs();
        let known = Known::read(&packs)?;
        Ok(Self {
            name: path.display().to_string(),
            source: Mutex::new(Source {
                packs,
                known,
                open: HashMap::new(),
            }),
        })
    }
}

#[async_trait::async_trait]
impl BlockSupply for BackupBlocks {
    async fn block(&self, _user: &str, cid: &Cid) -> Result<Option<Block>, SupplyError> {
        // One block at a time, from a local file.
        let block = self.source.lock().block(cid);
        block.map_err(|error| SupplyError {
            supply: self.name.clone(),
            source: Arc::new(error),
        })
    }
}
