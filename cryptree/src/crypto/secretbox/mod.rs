//! XSalsa20-Poly1305 with the tag in front (Spec: 02 §7.2).
//!
//! One interface, two backends with the same bytes: libsodium on native targets, the portable crates on
//! wasm32. Both are compiled and compared in native tests.

#[cfg(not(target_arch = "wasm32"))]
mod native;
#[cfg(any(test, target_arch = "wasm32"))]
mod portable;

#[cfg(not(target_arch = "wasm32"))]
use native as backend;
#[cfg(target_arch = "wasm32")]
use portable as backend;

use super::{CannotOpen, Nonce, SymmetricKey};

/// Length of the tag in front of the cipher text, in bytes.
pub const TAG_BYTES: usize = 16;

/// An authentication tag.
pub type Tag = [u8; TAG_BYTES];

/// Returns tag and cipher text of `plaintext`.
///
/// `nonce` must never have been used with `key` before.
pub fn seal(key: &SymmetricKey, nonce: &Nonce, plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(TAG_BYTES + plaintext.len());
    sealed.extend_from_slice(&[0; TAG_BYTES]);
    sealed.extend_from_slice(plaintext);
    if let Some((tag, message)) = sealed.split_first_chunk_mut::<TAG_BYTES>() {
        *tag = seal_in_place(key, nonce, message);
    }
    sealed
}

/// Returns the plaintext of tag and cipher text.
///
/// # Errors
/// [`CannotOpen`] when the tag does not fit, or is not there.
pub fn open(key: &SymmetricKey, nonce: &Nonce, sealed: &[u8]) -> Result<Vec<u8>, CannotOpen> {
    let (tag, cipher) = sealed.split_first_chunk().ok_or(CannotOpen)?;
    let mut message = cipher.to_vec();
    open_in_place(key, nonce, tag, &mut message)?;
    Ok(message)
}

/// Encrypts `message` where it is and returns the tag.
pub fn seal_in_place(key: &SymmetricKey, nonce: &Nonce, message: &mut [u8]) -> Tag {
    backend::seal(key.bytes(), nonce.bytes(), message)
}

/// Decrypts `cipher` where it is; on failure it is unchanged.
///
/// # Errors
/// [`CannotOpen`] when the tag does not fit.
pub fn open_in_place(
    key: &SymmetricKey,
    nonce: &Nonce,
    tag: &Tag,
    cipher: &mut [u8],
) -> Result<(), CannotOpen> {
    backend::open(key.bytes(), nonce.bytes(), tag, cipher)
}

/// Makes one secret box out of pieces that lie in different buffers.
///
/// The tag, which stands in front, is known last.
#[derive(Debug)]
pub struct Sealer(backend::Sealer);

impl Sealer {
    /// Starts a box; `nonce` must never have been used with `key` before.
    pub fn new(key: &SymmetricKey, nonce: &Nonce) -> Self {
        Self(backend::Sealer::new(key.bytes(), nonce.bytes()))
    }

    /// Encrypts the next piece, of any length, where it is.
    pub fn apply(&mut self, piece: &mut [u8]) {
        self.0.apply(piece);
    }

    /// Returns the length of a piece, at most `longest`, after which the cipher goes on at full speed.
    pub fn step(&self, longest: usize) -> usize {
        self.0.step(longest)
    }

    /// Returns the tag of everything that was encrypted.
    pub fn finish(self) -> Tag {
        self.0.finish()
    }
}

/// Opens one secret box whose cipher text is the concatenation of `pieces`, into one new buffer.
///
/// # Errors
/// [`CannotOpen`] when the tag does not fit.
pub fn open_pieces(
    key: &SymmetricKey,
    nonce: &Nonce,
    tag: &Tag,
    pieces: &[&[u8]],
) -> Result<Vec<u8>, CannotOpen> {
    backend::open_pieces(key.bytes(), nonce.bytes(), tag, pieces)
}

#[cfg(test)]
mod tests {
    use dryoc::classic::crypto_secretbox::crypto_secretbox_easy;
    use proptest::prelude::*;

    use super::*;

    fn pattern(length: usize) -> Vec<u8> {
        (0..=250).cycle().take(length).collect()
    }

    #[test]
    fn both_backends_and_a_third_implementation_agree() {
        let (key, nonce) = ([3; 32], [5; 24]);
        for length in [0, 1, 16, 31, 32, 33, 63, 64, 65, 255, 4096, 4102, 100_003] {
            let message = pattern(length);
            let mut ours = message.clone();
            let tag = native::seal(&key, &nonce, &mut ours);
            let mut portable = message.clone();
            assert_eq!(portable::seal(&key, &nonce, &mut portable), tag);
            assert_eq!(portable, ours);
            let mut third = vec![0; length + TAG_BYTES];
            crypto_secretbox_easy(&mut third, &message, &nonce, &key).unwrap();
            assert_eq!(third, [&tag[..], &ours[..]].concat());
            assert_eq!(
                portable::open(&key, &nonce, &tag, &mut portable),
                Ok(()),
                "length {length}"
            );
            assert_eq!(portable, message);
        }
    }

    #[test]
    fn both_backends_agree_piece_by_piece() {
        let (key, nonce) = ([3; 32], [5; 24]);
        let message = pattern(70_001);
        let mut whole = message.clone();
        let tag = native::seal(&key, &nonce, &mut whole);
        for piece in [1, 6, 15, 16, 17, 64, 1000, 40_000] {
            let mut bytes = message.clone();
            let mut sealer = portable::Sealer::new(&key, &nonce);
            bytes.chunks_mut(piece).for_each(|p| sealer.apply(p));
            assert_eq!(sealer.finish(), tag, "pieces of {piece}");
            assert_eq!(bytes, whole);
            let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
            for open in [native::open_pieces, portable::open_pieces] {
                assert_eq!(open(&key, &nonce, &tag, &pieces).unwrap(), message);
                assert_eq!(open(&key, &nonce, &[0; 16], &pieces), Err(CannotOpen));
            }
        }
    }

    #[test]
    fn less_than_a_tag_does_not_open() {
        let (key, nonce) = (SymmetricKey::from_bytes([1; 32]), Nonce::received([2; 24]));
        for length in 0..TAG_BYTES {
            assert_eq!(open(&key, &nonce, &vec![0; length]), Err(CannotOpen));
        }
    }

    proptest! {
        #[test]
        fn any_changed_bit_is_noticed(
            message in proptest::collection::vec(any::<u8>(), 0..300),
            bit in any::<prop::sample::Index>(),
        ) {
            let (key, nonce) = (SymmetricKey::from_bytes([1; 32]), Nonce::received([2; 24]));
            let mut sealed = seal(&key, &nonce, &message);
            prop_assert_eq!(open(&key, &nonce, &sealed).unwrap(), message);
            let bit = bit.index(sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(open(&key, &nonce, &sealed), Err(CannotOpen));
        }
    }
}
