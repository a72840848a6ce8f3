//! sled: a lock-free tree over a page cache and a log.

use std::path::Path;

use anyhow::Result;
use sled::{Batch, Db};

use super::Engine;

pub struct Sled(Db);

impl Sled {
    pub fn open(folder: &Path) -> Result<Self> {
        // Without automatic flushes: every commit flushes by itself.
        Ok(Self(
            sled::Config::new()
                .path(folder)
                .flush_every_ms(None)
                .open()?,
        ))
    }
}

impl Engine for Sled {
    fn put(&mut self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = Batch::default();
        for (key, value) in pairs {
            batch.insert(key.as_slice(), value.as_slice());
        }
        self.0.apply_batch(batch)?;
        self.0.flush()?;
        Ok(())
    }

    fn remove(&mut self, keys: &[Vec<u8>]) -> Result<()> {
        let mut batch = Batch::default();
        for key in keys {
            batch.remove(key.as_slice());
        }
        self.0.apply_batch(batch)?;
        self.0.flush()?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(key)?.map(|value| value.to_vec()))
    }
}
