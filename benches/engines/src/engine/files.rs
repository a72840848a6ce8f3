//! Large values as files, small ones in redb: the order of flushes is that of the node's disk engine.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::{Engine, redb::Redb};

/// Values of this size and more become files.
const FILE_BYTES: usize = 64 << 10;

pub struct FilesAndRedb {
    folder: PathBuf,
    small: Redb,
}

impl FilesAndRedb {
    pub fn open(folder: &Path) -> Result<Self> {
        let files = folder.join("files");
        fs::create_dir_all(&files)?;
        Ok(Self {
            folder: files,
            small: Redb::open(folder)?,
        })
    }

    fn path(&self, key: &[u8]) -> PathBuf {
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(name)
    }
}

impl Engine for FilesAndRedb {
    fn put(&mut self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut rows = Vec::with_capacity(pairs.len());
        let mut written = Vec::new();
        for (key, value) in pairs {
            if value.len() < FILE_BYTES {
                rows.push((key.clone(), value.clone()));
                continue;
            }
            let mut file = File::create(self.path(key))?;
            file.write_all(value)?;
            written.push(file);
            rows.push((key.clone(), Vec::new()));
        }
        for file in &written {
            file.sync_data()?;
        }
        if !written.is_empty() {
            File::open(&self.folder)?.sync_all()?;
        }
        self.small.put(&rows)
    }

    fn remove(&mut self, keys: &[Vec<u8>]) -> Result<()> {
        self.small.remove(keys)?;
        for key in keys {
            match fs::remove_file(self.path(key)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.small.get(key)? {
            Some(value) if value.is_empty() => Ok(Some(fs::read(self.path(key))?)),
            other => Ok(other),
        }
    }
}
