//! redb: one copy-on-write B-tree file.

use std::path::Path;

use anyhow::Result;
use redb::{Database, ReadableDatabase as _, TableDefinition};

use super::Engine;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("t");
/// As the node sets it.
const CACHE_BYTES: usize = 16 << 20;

pub struct Redb(Database);

impl Redb {
    pub fn open(folder: &Path) -> Result<Self> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(folder.join("data.redb"))?;
        let write = database.begin_write()?;
        write.open_table(TABLE)?;
        write.commit()?;
        Ok(Self(database))
    }
}

impl Engine for Redb {
    fn put(&mut self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let write = self.0.begin_write()?;
        {
            let mut table = write.open_table(TABLE)?;
            for (key, value) in pairs {
                table.insert(key.as_slice(), value.as_slice())?;
            }
        }
        Ok(write.commit()?)
    }

    fn remove(&mut self, keys: &[Vec<u8>]) -> Result<()> {
        let write = self.0.begin_write()?;
        {
            let mut table = write.open_table(TABLE)?;
            for key in keys {
                table.remove(key.as_slice())?;
            }
        }
        Ok(write.commit()?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let table = self.0.begin_read()?.open_table(TABLE)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }
}
