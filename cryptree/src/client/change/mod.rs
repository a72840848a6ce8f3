//! Changing the content of a file in place: ranges, the end, the size (Spec: 21 §10.1 to §10.3).
//!
//! Only the chunks concerned are read and sealed again, under the file's own data key. Every commit also brings
//! chunk 0 up to date and takes back the content hashes that are no longer true. There are never holes: what
//! lies between the old end and new bytes is written as zeros.

mod chunks;
mod piece;
mod step;

use super::Session;
use crate::{
    chunk_chain::{CHUNK_BYTES, MAX_CHUNKS},
    error::ClientError,
};
use piece::Piece;
use step::Change;

/// Largest file.
const MAX_FILE_BYTES: u64 = MAX_CHUNKS * CHUNK_BYTES;

impl Session {
    /// Writes `bytes` into the file at `offset`, over what is there and past its end; a gap is filled with zeros.
    ///
    /// Up to four chunks (20 MiB) are changed in one step, which happens whole or not at all; longer writes are
    /// several steps, in order. Chunks that are not concerned are neither read nor written.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::IsADirectory`], [`ClientError::ReadOnly`],
    /// [`ClientError::TooLarge`] beyond 5 PiB, [`ClientError::QuotaReached`].
    pub async fn write_at(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<(), ClientError> {
        let end = end_of(offset, bytes.len())?;
        let change = Change::of(self, path).await?;
        let mut at = offset;
        let mut rest = bytes;
        loop {
            let written = change
                .step(&|size| {
                    Ok(match rest.is_empty() {
                        false if size < at => Piece::after_zeros(size, at, rest),
                        _ => Piece::of(at, rest),
                    })
                })
                .await?;
            // Nothing of it, when zeros were all that one step could write on the way to the offset.
            let done = written.range.end.saturating_sub(at);
            at += done;
            let done = usize::try_from(done).unwrap_or(usize::MAX);
            rest = rest.get(done..).unwrap_or_default();
            if at >= end {
                return Ok(());
            }
        }
    }

    /// Adds `bytes` to the end of the file and returns its new size.
    ///
    /// With `expected_size` the file must have that size; without it the bytes go to wherever the end is, also
    /// when other devices append at the same time. Up to four chunks are added in one step.
    ///
    /// # Errors
    /// As [`Session::write_at`]; [`ClientError::SourceChanged`] when the size is not the expected one, or
    /// changes between two steps.
    pub async fn append(
        &self,
        path: &str,
        bytes: &[u8],
        expected_size: Option<u64>,
    ) -> Result<u64, ClientError> {
        let change = Change::of(self, path).await?;
        let mut expected = expected_size;
        let mut rest = bytes;
        loop {
            let written = change
                .step(&|size| {
                    if expected.is_some_and(|expected| expected != size) {
                        return Err(ClientError::SourceChanged {
                            path: path.to_owned(),
                        });
                    }
                    end_of(size, rest.len())?;
                    Ok(Piece::of(size, rest))
                })
                .await?;
            rest = rest.get(written.len()..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(written.size);
            }
            expected = Some(written.size);
        }
    }

    /// Makes the file exactly `size` bytes long: cuts it, or fills it up with zeros.
    ///
    /// # Errors
    /// As [`Session::write_at`].
    pub async fn set_size(&self, path: &str, size: u64) -> Result<(), ClientError> {
        end_of(size, 0)?;
        let change = Change::of(self, path).await?;
        loop {
            let reached = change
                .step(&|now| Ok(Piece::zeros(now.min(size), size)))
                .await?
                .size;
            if reached > size {
                return change.cut(size).await;
            }
            if reached == size {
                return Ok(());
            }
        }
    }
}

fn end_of(offset: u64, length: usize) -> Result<u64, ClientError> {
    let end = offset.checked_add(length as u64);
    end.filter(|end| *end <= MAX_FILE_BYTES)
        .ok_or(ClientError::TooLarge {
            what: "the file",
            max: MAX_FILE_BYTES,
        })
}
