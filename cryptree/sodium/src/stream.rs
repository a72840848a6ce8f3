//! A secret box that is made or opened piece by piece.
//!
//! A file chunk is one secret box cut into several blocks. Working on the pieces where they will be sent
//! from saves a copy of the whole chunk. XSalsa20-Poly1305 allows it: the key stream is addressed by
//! position, and the tag is computed over the cipher text in order. The composition is NaCl's: subkey =
//! HSalsa20(key, first 16 nonce bytes), key stream = Salsa20(subkey, last 8), of which the first 32 bytes
//! are the one-time key and the message starts at byte 32.

use libsodium_sys as ffi;
use zeroize::{Zeroize, Zeroizing};

use crate::{KEY_BYTES, NONCE_BYTES, Refused, TAG_BYTES, choose_implementations};

/// Encrypts the pieces of one message in order.
pub struct StreamSealer {
    cipher: KeyStream,
    tag: Authenticator,
}

impl StreamSealer {
    /// Starts a message; `nonce` must never have been used with `key`.
    pub fn new(key: &[u8; KEY_BYTES], nonce: &[u8; NONCE_BYTES]) -> Self {
        let (cipher, tag) = start(key, nonce);
        Self { cipher, tag }
    }

    /// Encrypts the next piece in place; pieces may have any length.
    pub fn apply(&mut self, piece: &mut [u8]) {
        let mut rest = piece;
        while !rest.is_empty() {
            // Small steps, so that the authenticator reads what the cipher left in the cache.
            let (step, tail) = rest.split_at_mut(self.step(rest.len().min(STEP_BYTES)));
            self.cipher.apply(step);
            self.tag.update(step);
            rest = tail;
        }
    }

    /// Returns the length of a piece, at most `longest`, after which the next one starts where the cipher
    /// works at full speed. Callers that choose their pieces save a tenth of the time.
    pub fn step(&self, longest: usize) -> usize {
        let ahead = self.cipher.position.wrapping_add(longest as u64) % WIDE_BYTES;
        match usize::try_from(ahead) {
            Ok(beyond) if beyond < longest => longest - beyond,
            _ => longest,
        }
    }

    /// Returns the tag of everything that was encrypted.
    pub fn finish(self) -> [u8; TAG_BYTES] {
        self.tag.finish()
    }
}

impl std::fmt::Debug for StreamSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamSealer(..)")
    }
}

/// Checks the pieces of one message in order; only when the tag fits can they be decrypted.
pub struct StreamOpener {
    cipher: KeyStream,
    tag: Authenticator,
}

impl StreamOpener {
    /// Starts a message.
    pub fn new(key: &[u8; KEY_BYTES], nonce: &[u8; NONCE_BYTES]) -> Self {
        let (cipher, tag) = start(key, nonce);
        Self { cipher, tag }
    }

    /// Adds the next piece of cipher text to what the tag is computed over.
    pub fn authenticate(&mut self, piece: &[u8]) {
        self.tag.update(piece);
    }

    /// Compares the tag in constant time and hands out the key stream, positioned at the start.
    ///
    /// # Errors
    /// [`Refused`] when the tag does not fit.
    pub fn verify(self, tag: &[u8; TAG_BYTES]) -> Result<impl FnMut(&mut [u8]), Refused> {
        let actual = self.tag.finish();
        // SAFETY: both pointers are valid for the 16 bytes that the call reads.
        let status = unsafe { ffi::crypto_verify_16(actual.as_ptr(), tag.as_ptr()) };
        if status != 0 {
            return Err(Refused);
        }
        let mut cipher = self.cipher;
        Ok(move |piece: &mut [u8]| cipher.apply(piece))
    }
}

impl std::fmt::Debug for StreamOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamOpener(..)")
    }
}

fn start(key: &[u8; KEY_BYTES], nonce: &[u8; NONCE_BYTES]) -> (KeyStream, Authenticator) {
    choose_implementations();
    let mut subkey = Zeroizing::new([0; KEY_BYTES]);
    // SAFETY: the call writes 32 bytes to the subkey, reads 16 bytes of the 24-byte nonce and 32 of the
    // key; a null constant selects the standard one.
    let status = unsafe {
        ffi::crypto_core_hsalsa20(
            subkey.as_mut_ptr(),
            nonce.as_ptr(),
            key.as_ptr(),
            std::ptr::null(),
        )
    };
    debug_assert_eq!(status, 0, "key derivation cannot fail");
    let [.., a, b, c, d, e, f, g, h] = *nonce;
    let mut cipher = KeyStream {
        subkey,
        nonce: [a, b, c, d, e, f, g, h],
        position: 0,
    };
    let mut one_time_key = Zeroizing::new([0; KEY_BYTES]);
    cipher.apply(one_time_key.as_mut_slice());
    let tag = Authenticator::new(&one_time_key);
    (cipher, tag)
}

struct KeyStream {
    subkey: Zeroizing<[u8; KEY_BYTES]>,
    nonce: [u8; 8],
    /// Bytes of key stream used so far.
    position: u64,
}

impl KeyStream {
    fn apply(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        let offset = usize::try_from(self.position % SALSA_BLOCK_BYTES as u64).unwrap_or(0);
        if offset != 0 {
            // libsodium addresses whole blocks: finish the one that the last piece ended in.
            let taken = rest.len().min(SALSA_BLOCK_BYTES - offset);
            let (head, tail) = rest.split_at_mut(taken);
            let mut block = [0; SALSA_BLOCK_BYTES];
            for (to, from) in block.iter_mut().skip(offset).zip(head.iter()) {
                *to = *from;
            }
            self.apply_blocks(&mut block);
            for (to, from) in head.iter_mut().zip(block.iter().skip(offset)) {
                *to = *from;
            }
            block.zeroize();
            self.position += taken as u64;
            rest = tail;
        }
        if !rest.is_empty() {
            self.apply_blocks(rest);
            self.position += rest.len() as u64;
        }
    }

    /// Applies the key stream from the start of the block that contains `position`.
    fn apply_blocks(&self, bytes: &mut [u8]) {
        let at = bytes.as_mut_ptr();
        // SAFETY: `at` is valid for reads and writes of `bytes.len()` bytes, and libsodium allows output
        // to overwrite input; nonce and subkey have the 8 and 32 bytes that the call reads.
        let status = unsafe {
            ffi::crypto_stream_salsa20_xor_ic(
                at,
                at,
                bytes.len() as u64,
                self.nonce.as_ptr(),
                self.position / SALSA_BLOCK_BYTES as u64,
                self.subkey.as_ptr(),
            )
        };
        debug_assert_eq!(status, 0, "the key stream cannot fail");
    }
}

struct Authenticator {
    // Boxed: C code may not expect its state to move.
    state: Box<ffi::crypto_onetimeauth_poly1305_state>,
}

impl Authenticator {
    fn new(key: &[u8; KEY_BYTES]) -> Self {
        let mut state = Box::new(ffi::crypto_onetimeauth_poly1305_state { opaque: [0; 256] });
        // SAFETY: the state is a valid, aligned value of the type; the key has the 32 bytes that are read.
        let status = unsafe {
            ffi::crypto_onetimeauth_poly1305_init(std::ptr::from_mut(state.as_mut()), key.as_ptr())
        };
        debug_assert_eq!(status, 0, "authentication cannot fail");
        Self { state }
    }

    fn update(&mut self, bytes: &[u8]) {
        // SAFETY: the state was initialised by `new` and has not moved; `bytes` is valid for its length.
        let status = unsafe {
            ffi::crypto_onetimeauth_poly1305_update(
                std::ptr::from_mut(self.state.as_mut()),
                bytes.as_ptr(),
                bytes.len() as u64,
            )
        };
        debug_assert_eq!(status, 0, "authentication cannot fail");
    }

    fn finish(mut self) -> [u8; TAG_BYTES] {
        let mut tag = [0; TAG_BYTES];
        // SAFETY: the state was initialised by `new` and has not moved; the call writes 16 bytes.
        let status = unsafe {
            ffi::crypto_onetimeauth_poly1305_final(
                std::ptr::from_mut(self.state.as_mut()),
                tag.as_mut_ptr(),
            )
        };
        debug_assert_eq!(status, 0, "authentication cannot fail");
        tag
    }
}

impl Drop for Authenticator {
    fn drop(&mut self) {
        self.state.opaque.zeroize();
    }
}

const SALSA_BLOCK_BYTES: usize = 64;
/// Key stream that the vector implementations make at a time; what is left over takes slower paths.
const WIDE_BYTES: u64 = 512;
/// Fits the first level cache of every processor in use, and is a multiple of the cipher's block.
const STEP_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal_detached;

    #[test]
    fn pieces_of_any_length_give_the_bytes_of_the_whole() {
        let (key, nonce) = ([3; KEY_BYTES], [5; NONCE_BYTES]);
        let message: Vec<u8> = (0..=250).cycle().take(70_003).collect();
        let mut whole = message.clone();
        let tag = seal_detached(&key, &nonce, &mut whole);
        for piece in [1, 6, 32, 63, 64, 65, 4096, 16_384, 20_001, 70_003] {
            let mut bytes = message.clone();
            let mut sealer = StreamSealer::new(&key, &nonce);
            bytes.chunks_mut(piece).for_each(|p| sealer.apply(p));
            assert_eq!(sealer.finish(), tag, "pieces of {piece}");
            assert_eq!(bytes, whole);

            let mut opener = StreamOpener::new(&key, &nonce);
            bytes.chunks(piece).for_each(|p| opener.authenticate(p));
            let mut decrypt = opener.verify(&tag).unwrap();
            bytes.chunks_mut(piece).for_each(&mut decrypt);
            assert_eq!(bytes, message);
        }
    }

    #[test]
    fn steps_end_at_wide_boundaries_and_never_stall() {
        let mut sealer = StreamSealer::new(&[3; KEY_BYTES], &[5; NONCE_BYTES]);
        assert_eq!(sealer.step(0), 0);
        assert_eq!(sealer.step(1), 1);
        // The message starts at byte 32 of the key stream.
        assert_eq!(sealer.step(479), 479);
        assert_eq!(sealer.step(480), 480);
        assert_eq!(sealer.step(16_384), 16_384 - 32);
        sealer.apply(&mut [0; 480]);
        assert_eq!(sealer.step(511), 511);
        assert_eq!(sealer.step(16_384), 16_384);
    }

    #[test]
    fn a_changed_piece_does_not_open() {
        let (key, nonce) = ([3; KEY_BYTES], [5; NONCE_BYTES]);
        let mut bytes = [1; 100];
        let tag = seal_detached(&key, &nonce, &mut bytes);
        bytes[99] ^= 1;
        let mut opener = StreamOpener::new(&key, &nonce);
        opener.authenticate(&bytes);
        assert!(opener.verify(&tag).is_err());
    }

    #[test]
    fn the_empty_message_has_a_tag() {
        let (key, nonce) = ([3; KEY_BYTES], [5; NONCE_BYTES]);
        let tag = seal_detached(&key, &nonce, &mut []);
        assert_eq!(StreamSealer::new(&key, &nonce).finish(), tag);
        assert!(StreamOpener::new(&key, &nonce).verify(&tag).is_ok());
    }
}
