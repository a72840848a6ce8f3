//! SQLite with a write-ahead log.

use std::path::Path;

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension as _};

use super::Engine;

pub struct Sqlite(Connection);

impl Sqlite {
    pub fn open(folder: &Path) -> Result<Self> {
        let connection = Connection::open(folder.join("data.sqlite"))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.execute_batch(
            "create table if not exists t (k blob primary key, v blob not null) without rowid",
        )?;
        Ok(Self(connection))
    }
}

impl Engine for Sqlite {
    fn put(&mut self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let write = self.0.transaction()?;
        {
            let mut insert =
                write.prepare_cached("insert or replace into t (k, v) values (?1, ?2)")?;
            for (key, value) in pairs {
                insert.execute((key, value))?;
            }
        }
        Ok(write.commit()?)
    }

    fn remove(&mut self, keys: &[Vec<u8>]) -> Result<()> {
        let write = self.0.transaction()?;
        {
            let mut delete = write.prepare_cached("delete from t where k = ?1")?;
            for key in keys {
                delete.execute((key,))?;
            }
        }
        Ok(write.commit()?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut select = self.0.prepare_cached("select v from t where k = ?1")?;
        Ok(select.query_row((key,), |row| row.get(0)).optional()?)
    }
}
