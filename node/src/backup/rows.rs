//! The two lists of a snapshot: rows of metadata, and blocks by the space they are in.
//!
//! Metadata: length of the table's name (u8), name, length of the key (u32), key, length of the value (u32), value.
//! Blocks: a zero byte, length of the name (u8) and name start a space; then for each block the length of its CID
//! (u8, never zero), binary CID, size in bytes (u32).

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use champ::{Cid, text::to_hex};
use sha2::{Digest as _, Sha256};

use super::{error::BackupError, folder::create, manifest::Content};
use crate::store::{MAX_KEY_BYTES, MAX_VALUE_BYTES, Partition};

/// Writes a list and hashes it on the way.
pub(super) struct RowWriter {
    file: BufWriter<File>,
    path: PathBuf,
    hash: Sha256,
    content: Content,
    partition: Option<Partition>,
}

impl RowWriter {
    pub(super) fn create(path: &Path) -> Result<Self, BackupError> {
        Ok(Self {
            file: BufWriter::with_capacity(1 << 18, create(path)?),
            path: path.to_owned(),
            hash: Sha256::new(),
            content: Content::default(),
            partition: None,
        })
    }

    fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        for part in parts {
            self.hash.update(part);
            self.content.bytes += part.len() as u64;
            self.file.write_all(part)?;
        }
        Ok(())
    }

    pub(super) fn metadata(&mut self, table: &str, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.content.rows += 1;
        self.write(&[
            &[u8::try_from(table.len()).unwrap_or(u8::MAX)],
            table.as_bytes(),
            &length(key),
            key,
            &length(value),
            value,
        ])
    }

    pub(super) fn block(&mut self, partition: &Partition, cid: &Cid, size: u32) -> io::Result<()> {
        if self.partition.as_ref() != Some(partition) {
            self.partition = Some(partition.clone());
            let name = partition.as_str().as_bytes();
            let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
            self.write(&[&[0, len], name])?;
        }
        self.content.rows += 1;
        let cid = cid.to_bytes();
        let len = u8::try_from(cid.len()).unwrap_or(u8::MAX);
        self.write(&[&[len], &cid, &size.to_be_bytes()])
    }

    /// Flushes the file to stable storage.
    pub(super) fn finish(mut self) -> Result<Content, BackupError> {
        let flushed = self.file.flush();
        let flushed = flushed.and_then(|()| self.file.get_ref().sync_all());
        flushed.map_err(BackupError::io("write", &self.path))?;
        self.content.sha256 = to_hex(&self.hash.finalize());
        Ok(self.content)
    }
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes()
}

/// Reads a list.
pub(super) struct RowReader {
    file: BufReader<File>,
    path: PathBuf,
    partition: Option<Partition>,
    left: u64,
}

/// One row of metadata.
pub(super) struct MetaRow {
    pub(super) table: String,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

impl RowReader {
    /// Opens a list after comparing it with its checksum.
    pub(super) fn open(path: &Path, content: &Content) -> Result<Self, BackupError> {
        let (bytes, sha256) = checksum(path)?;
        if bytes != content.bytes || sha256 != content.sha256 {
            return Err(BackupError::damaged(path, "it does not match its checksum"));
        }
        Self::unchecked(path, content)
    }

    /// Opens a list that this process has just written.
    pub(super) fn unchecked(path: &Path, content: &Content) -> Result<Self, BackupError> {
        let file = File::open(path).map_err(BackupError::io("open", path))?;
        Ok(Self {
            file: BufReader::with_capacity(1 << 18, file),
            path: path.to_owned(),
            partition: None,
            left: content.rows,
        })
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, BackupError> {
        let mut bytes = vec![0; len];
        let read = self.file.read_exact(&mut bytes);
        read.map_err(BackupError::io("read", &self.path))?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, BackupError> {
        Ok(self.take(1)?.first().copied().unwrap_or(0))
    }

    fn number(&mut self) -> Result<u32, BackupError> {
        let bytes = self.take(4)?;
        Ok(bytes
            .first_chunk()
            .map_or(0, |bytes| u32::from_be_bytes(*bytes)))
    }

    fn sized(&mut self, max: usize) -> Result<Vec<u8>, BackupError> {
        let len = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if len > max {
            return Err(self.damaged());
        }
        self.take(len)
    }

    fn damaged(&self) -> BackupError {
        BackupError::damaged(&self.path, "a row cannot be read")
    }

    /// Returns the next row of metadata.
    pub(super) fn metadata(&mut self) -> Result<Option<MetaRow>, BackupError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let len = usize::from(self.byte()?);
        let table = String::from_utf8(self.take(len)?).map_err(|_| self.damaged())?;
        let key = self.sized(MAX_KEY_BYTES)?;
        let value = self.sized(MAX_VALUE_BYTES)?;
        Ok(Some(MetaRow { table, key, value }))
    }

    /// Returns the next block, with its size in bytes.
    pub(super) fn block(&mut self) -> Result<Option<(Partition, Cid, u32)>, BackupError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let mut len = self.byte()?;
        if len == 0 {
            let name = usize::from(self.byte()?);
            let name = String::from_utf8(self.take(name)?).map_err(|_| self.damaged())?;
            self.partition = Some(Partition::new(&name).map_err(|_| self.damaged())?);
            len = self.byte()?;
        }
        let cid = self.take(usize::from(len))?;
        let cid = Cid::decode(&cid).map_err(|_| self.damaged())?;
        let partition = self.partition.clone().ok_or_else(|| self.damaged())?;
        Ok(Some((partition, cid, self.number()?)))
    }
}

/// Returns the length and the SHA-256, as hex, of a file.
pub(super) fn checksum(path: &Path) -> Result<(u64, String), BackupError> {
    let mut file = File::open(path).map_err(BackupError::io("open", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        let read = file
            .read(&mut buffer)
            .map_err(BackupError::io("read", path))?;
        if read == 0 {
            return Ok((bytes, to_hex(&hash.finalize())));
        }
        bytes += read as u64;
        hash.update(buffer.get(..read).unwrap_or_default());
    }
}
