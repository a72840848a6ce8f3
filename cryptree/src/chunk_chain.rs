//! Where the chunks of a file are (Spec: 20 §7).
//!
//! A file is cut into chunks of 5 MiB. From the place of the first and a secret, the place of any other is
//! found by hashing, without reading what lies between.

use std::fmt;

use bytes::Bytes;
use champ::{
    access::Bat,
    cbor::{Record, RecordError, Value},
};
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use zeroize::ZeroizeOnDrop;

use crate::capability::{AbsoluteCapability, MapKey};

/// Length of every chunk but the last, in bytes.
pub const CHUNK_BYTES: u64 = 5 << 20;
/// Most chunks of a file (5 PiB): what three levels of the content hash tree describe. Finding a place costs
/// one or two hashes per chunk before it, so the index must be bounded.
pub const MAX_CHUNKS: u64 = 1 << 30;

/// The 32-byte secret from which the places of later chunks derive.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct StreamSecret([u8; 32]);

impl StreamSecret {
    /// Wraps 32 secret bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Draws a fresh secret.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Returns the 32 secret bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn hash(&self, previous: &[u8; 32]) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.0)
            .chain_update(previous)
            .finalize()
            .into()
    }
}

impl fmt::Debug for StreamSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamSecret(..)")
    }
}

impl Record for StreamSecret {
    fn to_value(&self) -> Value {
        Value::from(&self.0)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        value.into_array("stream secret").map(Self)
    }
}

/// The place of one chunk: its CHAMP key and the token of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPlace {
    /// CHAMP key.
    pub map_key: MapKey,
    /// Token; absent for every chunk of a legacy file.
    pub bat: Option<Bat>,
}

impl ChunkPlace {
    /// Returns the place of the first chunk: the capability's own.
    pub fn first(capability: &AbsoluteCapability) -> Self {
        Self {
            map_key: capability.map_key,
            bat: capability.bat.clone(),
        }
    }

    /// Returns the place of the chunk after this.
    #[must_use]
    pub fn next(&self, secret: &StreamSecret) -> Self {
        Self {
            map_key: MapKey::from_bytes(secret.hash(self.map_key.bytes())),
            bat: self
                .bat
                .as_ref()
                .map(|bat| Bat::from_secret(secret.hash(bat.secret()))),
        }
    }

    /// Returns the place `chunks` further on, at two hashes per chunk; `None` from [`MAX_CHUNKS`] on.
    #[must_use]
    pub fn advance(&self, secret: &StreamSecret, chunks: u64) -> Option<Self> {
        if chunks >= MAX_CHUNKS {
            return None;
        }
        let mut place = self.clone();
        for _ in 0..chunks {
            place = place.next(secret);
        }
        Some(place)
    }
}

/// Returns the index of the chunk that holds the byte at `offset`.
pub const fn chunk_index(offset: u64) -> u64 {
    offset / CHUNK_BYTES
}

/// Returns the number of chunks of a file: an empty one has one, empty.
pub const fn chunk_count(size_bytes: u64) -> u64 {
    let count = size_bytes.div_ceil(CHUNK_BYTES);
    if count == 0 { 1 } else { count }
}

/// Returns the length of chunk `index` of a file of `size_bytes`; 0 beyond its end.
pub const fn chunk_length(size_bytes: u64, index: u64) -> u64 {
    let start = index.saturating_mul(CHUNK_BYTES);
    let rest = size_bytes.saturating_sub(start);
    if rest < CHUNK_BYTES {
        rest
    } else {
        CHUNK_BYTES
    }
}

/// Cuts stored data to the length the size claims, or fills it with zeros (Spec: 20 §7.3).
///
/// Both differences occur in files that other clients truncated, cleaned or grew. Never makes more than one
/// chunk, whatever the size claims.
pub fn fit_chunk(data: Bytes, size_bytes: u64, index: u64) -> Bytes {
    let expected = usize::try_from(chunk_length(size_bytes, index)).unwrap_or(usize::MAX);
    if data.len() >= expected {
        return data.slice(..expected);
    }
    let mut filled = Vec::with_capacity(expected);
    filled.extend_from_slice(&data);
    filled.resize(expected, 0);
    filled.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeking_further_than_any_file_is_refused_at_once() {
        let place = ChunkPlace {
            map_key: MapKey::from_bytes([1; 32]),
            bat: None,
        };
        let secret = StreamSecret::from_bytes([2; 32]);
        assert_eq!(place.advance(&secret, chunk_index(1 << 62)), None);
        assert_eq!(place.advance(&secret, 1), Some(place.next(&secret)));
    }

    #[test]
    fn stored_data_is_fitted_to_the_size() {
        let data = || Bytes::from_static(b"abcdef");
        assert_eq!(fit_chunk(data(), 3, 0), "abc");
        assert_eq!(fit_chunk(data(), 0, 0), "");
        assert_eq!(fit_chunk(data(), 8, 0), &b"abcdef\0\0"[..]);
        assert_eq!(fit_chunk(data(), CHUNK_BYTES + 2, 1), "ab");
        assert_eq!(fit_chunk(data(), 3, 1), "");
        assert_eq!(fit_chunk(data(), 1 << 62, 5).len() as u64, CHUNK_BYTES);
    }
}
