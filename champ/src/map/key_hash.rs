//! Where a key stands in the tree (Spec: 03 §1, §2).

use std::borrow::Cow;

use blake2::{Blake2b512, Digest as _};
use sha2::Sha256;

use super::MAX_DEPTH;

/// The function that turns a key into the hash that decides its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeyHash {
    /// The key itself: file trees, owned keys, secret links.
    #[default]
    Identity,
    /// SHA-256 of the key: public data.
    Sha256,
    /// BLAKE2b-512 of the key: the name directory.
    Blake2b512,
}

impl KeyHash {
    /// Returns the hash of `key`.
    pub fn hash(self, key: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Identity => Cow::Borrowed(key),
            Self::Sha256 => Cow::Owned(Sha256::digest(key).to_vec()),
            Self::Blake2b512 => Cow::Owned(Blake2b512::digest(key).to_vec()),
        }
    }

    pub(super) fn path(self, key: &[u8]) -> Path {
        match self {
            Self::Identity => Path::of(key),
            Self::Sha256 => Path::of(&Sha256::digest(key)),
            Self::Blake2b512 => Path::of(&Blake2b512::digest(key)),
        }
    }
}

/// The slots that a hash selects at depths 0 to 31: its first 96 bits, least significant first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Path(u128);

impl Path {
    /// Takes the first 12 bytes of a hash; bits beyond its end are 0.
    pub(super) fn of(hash: &[u8]) -> Self {
        let mut bytes = [0; 16];
        for (to, from) in bytes
            .iter_mut()
            .zip(hash)
            .take(BITS_PER_LEVEL * MAX_DEPTH / 8)
        {
            *to = *from;
        }
        // "Least significant bit of byte 0 first" is a little endian number.
        Self(u128::from_le_bytes(bytes))
    }

    /// Returns the slot, 0 to 7, at `depth`.
    pub(super) const fn slot(self, depth: usize) -> usize {
        let [low, ..] = (self.0 >> (BITS_PER_LEVEL * depth)).to_le_bytes();
        (low & 7) as usize
    }

    /// Returns a number that sorts paths so that those with a common beginning are together.
    pub(super) const fn tree_order(self) -> u128 {
        self.0.reverse_bits()
    }
}

const BITS_PER_LEVEL: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_three_bits_each_from_the_low_end_of_byte_0() {
        // 0xb1 = 10110001, 0xa2 = 10100010: slots 1, 6, then bits 6, 7 of byte 0 and bit 0 of byte 1.
        let path = Path::of(&[0xb1, 0xa2]);
        assert_eq!([path.slot(0), path.slot(1), path.slot(2)], [1, 6, 2]);
    }

    #[test]
    fn bits_beyond_the_end_of_a_short_key_are_zero() {
        assert_eq!(Path::of(&[0x08]), Path::of(&[0x08, 0, 0]));
        assert_eq!(Path::of(&[]).slot(31), 0);
    }

    #[test]
    fn bytes_beyond_the_twelfth_take_no_part() {
        assert_eq!(Path::of(&[7; 12]), Path::of(&[7; 13]));
        assert_eq!(Path::of(&[0xff; 12]).slot(31), 7);
    }
}
