//! fjall: a log-structured merge tree.

use std::path::Path;

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::Engine;

pub struct Fjall {
    database: Database,
    keyspace: Keyspace,
}

impl Fjall {
    pub fn open(folder: &Path) -> Result<Self> {
        let database = Database::builder(folder).open()?;
        let keyspace = database.keyspace("t", KeyspaceCreateOptions::default)?;
        Ok(Self { database, keyspace })
    }
}

impl Engine for Fjall {
    fn put(&mut self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for (key, value) in pairs {
            batch.insert(&self.keyspace, key.as_slice(), value.as_slice());
        }
        Ok(batch.commit()?)
    }

    fn remove(&mut self, keys: &[Vec<u8>]) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for key in keys {
            batch.remove(&self.keyspace, key.as_slice());
        }
        Ok(batch.commit()?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.keyspace.get(key)?.map(|value| value.to_vec()))
    }
}
