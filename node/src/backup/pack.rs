//! Packs: files of many blocks with an index at the end. A pack is written once and never changed.
//!
//! | bytes | what |
//! | --- | --- |
//! | 14 | `kastro pack 1\n` |
//! | for each block | length of the CID (u8), binary CID, length (u32), bytes |
//! | index, for each block | length of the CID (u8), binary CID, offset of the bytes (u64), length (u32) |
//! | 52 | offset of the index (u64), number of blocks (u32), SHA-256 of the index, `KASTROPK` |

use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use champ::{Block, Cid, MAX_BLOCK_BYTES};
use sha2::{Digest as _, Sha256};

use super::{
    error::BackupError,
    folder::{DRAFT_PREFIX, create, names, sync},
};

const MAGIC: &[u8; 14] = b"kastro pack 1\n";
const END: &[u8; 8] = b"KASTROPK";
const FOOTER_BYTES: u64 = 8 + 4 + 32 + 8;
/// A pack is closed when it has this many bytes: as much work as a broken backup loses at most.
const PACK_BYTES: u64 = 64 << 20;
/// Longest index that is read into memory: a pack of the smallest blocks is far below.
const MAX_INDEX_BYTES: u64 = 256 << 20;
/// Longest CID of a block.
const MAX_CID_BYTES: usize = 36;

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) pack: u64,
    pub(super) offset: u64,
    pub(super) bytes: u32,
}

/// One block in the index of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) cid: Cid,
    pub(super) offset: u64,
    pub(super) bytes: u32,
}

/// Returns the path of a pack.
pub(super) fn path(packs: &Path, number: u64) -> PathBuf {
    packs.join(format!("{number:016x}.pack"))
}

/// Returns the numbers of the packs in a folder, in ascending order.
pub(super) fn numbers(packs: &Path) -> Result<Vec<u64>, BackupError> {
    let names = names(packs)?;
    let hex = names.iter().filter_map(|name| name.strip_suffix(".pack"));
    let mut numbers: Vec<u64> = hex
        .filter_map(|n| u64::from_str_radix(n, 16).ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Which blocks a backup has, and where.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) blocks: HashMap<Cid, Location>,
    /// Packs whose index cannot be used: their blocks count as absent.
    pub(super) damaged: Vec<PathBuf>,
    pub(super) next: u64,
}

impl Known {
    /// Reads the indexes of all packs.
    pub(super) fn read(packs: &Path) -> Result<Self, BackupError> {
        let mut known = Self::default();
        for number in numbers(packs)? {
            known.next = number + 1;
            match Pack::open(packs, number).and_then(|pack| pack.entries()) {
                Ok(entries) => {
                    for entry in entries {
                        let location = Location {
                            pack: number,
                            offset: entry.offset,
                            bytes: entry.bytes,
                        };
                        known.blocks.insert(entry.cid, location);
                    }
                }
                Err(BackupError::Damaged { path, reason }) => {
                    tracing::warn!(pack = %path.display(), reason, "the blocks of a damaged pack are copied anew");
                    known.damaged.push(path);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(known)
    }
}

/// A pack that is complete.
#[derive(Debug)]
pub(super) struct Pack {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Pack {
    pub(super) fn open(packs: &Path, number: u64) -> Result<Self, BackupError> {
        let path = path(packs, number);
        let file = File::open(&path).map_err(BackupError::io("open", &path))?;
        let bytes = file
            .metadata()
            .map_err(BackupError::io("read", &path))?
            .len();
        Ok(Self { file, path, bytes })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn part(&self, offset: u64, bytes: usize) -> Result<Vec<u8>, BackupError> {
        let mut part = vec![0; bytes];
        let read = self.file.read_exact_at(&mut part, offset);
        read.map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.damaged("it is cut short"),
            _ => BackupError::io("read", &self.path)(error),
        })?;
        Ok(part)
    }

    fn damaged(&self, reason: &'static str) -> BackupError {
        BackupError::damaged(&self.path, reason)
    }

    /// Reads the index.
    pub(super) fn entries(&self) -> Result<Vec<Entry>, BackupError> {
        let footer_at = self.bytes.checked_sub(FOOTER_BYTES);
        let footer_at = footer_at.ok_or_else(|| self.damaged("it is cut short"))?;
        let footer = self.part(footer_at, 52)?;
        let mut rest = Reader(&footer);
        let (at, count) = (rest.u64(), rest.u32());
        let (digest, end) = (rest.take(32), rest.take(8));
        let (Some(at), Some(count), Some(digest)) = (at, count, digest) else {
            return Err(self.damaged("its end is wrong"));
        };
        if end != Some(END) {
            return Err(self.damaged("its end is wrong"));
        }
        let bytes = footer_at.checked_sub(at).filter(|n| *n <= MAX_INDEX_BYTES);
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = bytes.ok_or_else(|| self.damaged("its end is wrong"))?;
        let index = self.part(at, bytes)?;
        if Sha256::digest(&index).as_slice() != digest {
            return Err(self.damaged("its index does not match its checksum"));
        }
        let mut entries = Vec::new();
        let mut rest = Reader(&index);
        while !rest.0.is_empty() {
            let entry = rest
                .entry()
                .ok_or_else(|| self.damaged("its index is wrong"))?;
            entries.push(entry);
        }
        if u64::from(count) != entries.len() as u64 {
            return Err(self.damaged("its index is wrong"));
        }
        Ok(entries)
    }

    /// Reads a block and verifies it.
    pub(super) fn block(&self, entry: &Entry) -> Result<Block, BackupError> {
        let bytes = usize::try_from(entry.bytes).unwrap_or(usize::MAX);
        if bytes > MAX_BLOCK_BYTES {
            return Err(self.damaged("its index is wrong"));
        }
        let bytes = self.part(entry.offset, bytes)?;
        Block::verified(entry.cid.clone(), bytes)
            .map_err(|_| self.damaged("a block does not match its name"))
    }
}

/// Writes blocks into packs, one after the other.
#[derive(Debug)]
pub(super) struct PackWriter {
    packs: PathBuf,
    next: u64,
    open: Option<Draft>,
}

#[derive(Debug)]
struct Draft {
    file: BufWriter<File>,
    path: PathBuf,
    at: u64,
    index: Vec<u8>,
    count: u32,
}

impl PackWriter {
    pub(super) fn new(packs: PathBuf, next: u64) -> Self {
        Self {
            packs,
            next,
            open: None,
        }
    }

    /// Adds a block; it counts when its pack is closed. Returns where it is.
    pub(super) fn add(&mut self, block: &Block) -> Result<Location, BackupError> {
        let pack = self.next;
        let draft = match &mut self.open {
            Some(draft) => draft,
            None => self.open.insert(Draft::new(&self.packs, pack)?),
        };
        let location = Location {
            pack,
            offset: draft.add(block)?,
            bytes: u32::try_from(block.bytes().len()).unwrap_or(u32::MAX),
        };
        if draft.at >= PACK_BYTES {
            self.close()?;
        }
        Ok(location)
    }

    /// Closes the pack that is being written: from now on it is part of the backup.
    pub(super) fn close(&mut self) -> Result<(), BackupError> {
        if let Some(draft) = self.open.take() {
            draft.close(&self.packs, self.next)?;
            self.next += 1;
        }
        Ok(())
    }
}

impl Draft {
    fn new(packs: &Path, number: u64) -> Result<Self, BackupError> {
        let path = packs.join(format!("{DRAFT_PREFIX}{number:016x}"));
        let mut file = BufWriter::with_capacity(1 << 20, create(&path)?);
        file.write_all(MAGIC)
            .map_err(BackupError::io("write", &path))?;
        Ok(Self {
            file,
            path,
            at: MAGIC.len() as u64,
            index: Vec::new(),
            count: 0,
        })
    }

    fn add(&mut self, block: &Block) -> Result<u64, BackupError> {
        let cid = block.cid().to_bytes();
        let bytes = u32::try_from(block.bytes().len())
            .unwrap_or(u32::MAX)
            .to_be_bytes();
        let mut head = vec![u8::try_from(cid.len()).unwrap_or(u8::MAX)];
        head.extend_from_slice(&cid);
        let offset = self.at + head.len() as u64 + 4;
        self.index.extend_from_slice(&head);
        self.index.extend_from_slice(&offset.to_be_bytes());
        self.index.extend_from_slice(&bytes);
        head.extend_from_slice(&bytes);
        let written = self.file.write_all(&head);
        let written = written.and_then(|()| self.file.write_all(block.bytes()));
        written.map_err(BackupError::io("write", &self.path))?;
        self.at = offset + block.bytes().len() as u64;
        self.count += 1;
        Ok(offset)
    }

    fn close(mut self, packs: &Path, number: u64) -> Result<(), BackupError> {
        let mut end = std::mem::take(&mut self.index);
        let digest = Sha256::digest(&end);
        end.extend_from_slice(&self.at.to_be_bytes());
        end.extend_from_slice(&self.count.to_be_bytes());
        end.extend_from_slice(&digest);
        end.extend_from_slice(END);
        let written = self.file.write_all(&end);
        let written = written.and_then(|()| self.file.flush());
        let written = written.and_then(|()| self.file.get_ref().sync_all());
        written.map_err(BackupError::io("write", &self.path))?;
        let to = path(packs, number);
        std::fs::rename(&self.path, &to).map_err(BackupError::io("rename", &self.path))?;
        sync(packs)
    }
}

/// Takes fields off the front of bytes.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*head))
    }

    fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*head))
    }

    fn entry(&mut self) -> Option<Entry> {
        let len = usize::from(*self.take(1)?.first()?);
        if len > MAX_CID_BYTES {
            return None;
        }
        let cid = Cid::decode(self.take(len)?).ok()?;
        Some(Entry {
            cid,
            offset: self.u64()?,
            bytes: self.u32()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_give_back_what_was_put_in_and_notice_damage() {
        let folder = tempfile::tempdir().unwrap();
        let packs = folder.path();
        let blocks: Vec<_> = (0..5_u8)
            .map(|n| Block::raw(vec![n; 10 + usize::from(n) * 1000]).unwrap())
            .collect();
        let mut writer = PackWriter::new(packs.to_owned(), 3);
        for block in &blocks {
            writer.add(block).unwrap();
        }
        assert!(numbers(packs).unwrap().is_empty(), "not complete yet");
        writer.close().unwrap();
        writer.close().unwrap();
        assert_eq!(numbers(packs).unwrap(), [3]);
        let known = Known::read(packs).unwrap();
        assert_eq!((known.blocks.len(), known.next), (5, 4));
        let pack = Pack::open(packs, 3).unwrap();
        let entries = pack.entries().unwrap();
        for (entry, block) in entries.iter().zip(&blocks) {
            assert_eq!(pack.block(entry).unwrap(), *block);
            assert_eq!(known.blocks[block.cid()].offset, entry.offset);
        }
        let file = path(packs, 3);
        let good = std::fs::read(&file).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&file, &bad).unwrap();
            let pack = Pack::open(packs, 3).unwrap();
            let is_intact = pack.entries().is_ok_and(|entries| {
                entries.len() == 5 && entries.iter().all(|entry| pack.block(entry).is_ok())
            });
            // Only what nobody reads: the magic and the heads before the bytes.
            let in_blocks = entries.iter().any(|entry| {
                (entry.offset..entry.offset + u64::from(entry.bytes)).contains(&(at as u64))
            });
            let last = entries.last().unwrap();
            let in_index = at as u64 >= last.offset + u64::from(last.bytes);
            assert_eq!(is_intact, !in_blocks && !in_index, "byte {at}");
            if at > 20 && !in_index {
                // Every byte of a block is alike.
                std::fs::write(&file, &good[..at]).unwrap();
                assert!(Pack::open(packs, 3).unwrap().entries().is_err());
                if at > 200 {
                    break;
                }
            }
        }
    }
}
