//! The bytes of one step of a change: as many as are changed in one commit.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::chunk_chain::{CHUNK_BYTES, chunk_index};

/// Chunks changed in one commit: what a change costs in memory, with what is made of it.
const STEP_CHUNKS: u64 = 4;

/// Bytes of one step.
pub(super) struct Piece {
    pub(super) at: u64,
    pub(super) bytes: Bytes,
}

impl Piece {
    /// Takes as much of `bytes` as one step may change.
    pub(super) fn of(at: u64, bytes: &[u8]) -> Self {
        let most = (chunk_index(at) + STEP_CHUNKS) * CHUNK_BYTES - at;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Self {
            at,
            bytes: Bytes::copy_from_slice(bytes.get(..most).unwrap_or(bytes)),
        }
    }

    /// Zeros from `from` to `at`, then `bytes`: as much as one step may change.
    pub(super) fn after_zeros(from: u64, at: u64, bytes: &[u8]) -> Self {
        let zeros = Self::zeros(from, at);
        if zeros.range().end < at {
            return zeros;
        }
        let most = (chunk_index(from) + STEP_CHUNKS) * CHUNK_BYTES - at;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut whole = BytesMut::from(&*zeros.bytes);
        whole.extend_from_slice(bytes.get(..most).unwrap_or(bytes));
        Self {
            at: from,
            bytes: whole.freeze(),
        }
    }

    /// Zeros from `from` towards `to`.
    pub(super) fn zeros(from: u64, to: u64) -> Self {
        let most = (chunk_index(from) + STEP_CHUNKS) * CHUNK_BYTES;
        let length = to.min(most).saturating_sub(from);
        Self {
            at: from,
            bytes: vec![0; usize::try_from(length).unwrap_or(0)].into(),
        }
    }

    pub(super) fn range(&self) -> Range<u64> {
        self.at..self.at + self.bytes.len() as u64
    }
}

/// What one step wrote, and the size of the file after it.
pub(super) struct Written {
    pub(super) range: Range<u64>,
    pub(super) size: u64,
}

impl Written {
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX)
    }
}
