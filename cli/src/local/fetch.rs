//! Goes on with a download that was interrupted within a file.
//!
//! What an earlier attempt left belongs to one state of the remote file, which is part of its hidden name, and is kept as
//! far as its chunks have the hashes that the file's tree of hashes tells; without one everything is fetched again.

use std::{ffi::OsStr, io};

use cryptree::client::RemoteFile;
use sha2::{Digest, Sha256};

use super::{folder::Folder, partial::PartialFile};

/// A download that begins where an earlier one stopped.
#[derive(Debug)]
pub struct Resumed {
    /// The hidden file, ready for the next bytes.
    pub partial: PartialFile,
    /// The first chunk to fetch.
    pub first_chunk: u64,
    /// Bytes that are there already.
    pub bytes: u64,
}

/// Opens the hidden file of a download; `on_kept` is handed what is there already, chunk by chunk.
///
/// # Errors
///
/// Of the file system; `WouldBlock` when another process downloads to the same name.
pub fn resume(
    file: &RemoteFile,
    (folder, name): (&Folder, &OsStr),
    mut on_kept: impl FnMut(&[u8]),
) -> io::Result<Resumed> {
    let hashes = file.properties().tree_hash.as_ref();
    let hashes = hashes.and_then(|branch| branch.chunk_hashes());
    // One chunk is fetched in one go, and without hashes nothing tells what is right.
    let Some(hashes) = hashes.filter(|_| file.size() > CHUNK_BYTES as u64) else {
        return Ok(Resumed {
            partial: PartialFile::create(folder, name)?,
            first_chunk: 0,
            bytes: 0,
        });
    };
    let mut partial = PartialFile::take_up(folder, name, &file.version().to_string())?;
    let first_chunk = partial.keep_while(CHUNK_BYTES, |index, chunk| {
        let is_right = hashes.get(index) == Some(Sha256::digest(chunk).into());
        if is_right {
            on_kept(chunk);
        }
        is_right
    })?;
    Ok(Resumed {
        partial,
        first_chunk,
        bytes: first_chunk * CHUNK_BYTES as u64,
    })
}

/// Bytes of a chunk (Spec: 20 §7.1).
const CHUNK_BYTES: usize = 5 << 20;
