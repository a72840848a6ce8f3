//! The portable crates, for wasm32.
//!
//! Boxes are opened by `crypto_secretbox`, and made piece by piece from the two crates it is made of.

use crypto_secretbox::{
    AeadInPlace, KeyInit, XSalsa20Poly1305,
    aead::{Key, generic_array::GenericArray},
};
use poly1305::{Block, Poly1305, universal_hash::UniversalHash};
use salsa20::{
    XSalsa20,
    cipher::{KeyIvInit, StreamCipher},
};
use zeroize::Zeroizing;

use super::{CannotOpen, TAG_BYTES, Tag};

pub(super) fn seal(key: &[u8; 32], nonce: &[u8; 24], message: &mut [u8]) -> Tag {
    let mut sealer = Sealer::new(key, nonce);
    sealer.apply(message);
    sealer.finish()
}

pub(super) fn open(
    key: &[u8; 32],
    nonce: &[u8; 24],
    tag: &Tag,
    cipher: &mut [u8],
) -> Result<(), CannotOpen> {
    XSalsa20Poly1305::new(Key::<XSalsa20Poly1305>::from_slice(key))
        .decrypt_in_place_detached(
            GenericArray::from_slice(nonce),
            &[],
            cipher,
            GenericArray::from_slice(tag),
        )
        .map_err(|_| CannotOpen)
}

pub(super) fn open_pieces(
    key: &[u8; 32],
    nonce: &[u8; 24],
    tag: &Tag,
    pieces: &[&[u8]],
) -> Result<Vec<u8>, CannotOpen> {
    let mut message = pieces.concat();
    open(key, nonce, tag, &mut message)?;
    Ok(message)
}

pub(super) struct Sealer {
    cipher: XSalsa20,
    tag: Poly1305,
    /// Cipher text that does not yet fill a block of the authenticator.
    pending: Vec<u8>,
}

impl Sealer {
    pub(super) fn new(key: &[u8; 32], nonce: &[u8; 24]) -> Self {
        let mut cipher = XSalsa20::new(
            GenericArray::from_slice(key),
            GenericArray::from_slice(nonce),
        );
        let mut one_time_key = Zeroizing::new([0; 32]);
        cipher.apply_keystream(one_time_key.as_mut_slice());
        Self {
            cipher,
            tag: KeyInit::new(GenericArray::from_slice(one_time_key.as_slice())),
            pending: Vec::with_capacity(TAG_BYTES),
        }
    }

    pub(super) fn apply(&mut self, piece: &mut [u8]) {
        self.cipher.apply_keystream(piece);
        let mut rest: &[u8] = piece;
        if !self.pending.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(BLOCK_BYTES - self.pending.len()));
            self.pending.extend_from_slice(head);
            rest = tail;
            if self.pending.len() < BLOCK_BYTES {
                return;
            }
            self.tag.update(&[*Block::from_slice(&self.pending)]);
            self.pending.clear();
        }
        let blocks = rest.chunks_exact(BLOCK_BYTES);
        self.pending.extend_from_slice(blocks.remainder());
        blocks.for_each(|block| self.tag.update(&[*Block::from_slice(block)]));
    }

    /// Every position is as good as another.
    #[cfg_attr(
        not(target_arch = "wasm32"),
        expect(dead_code, reason = "compiled for comparison")
    )]
    pub(super) const fn step(&self, longest: usize) -> usize {
        longest
    }

    pub(super) fn finish(self) -> Tag {
        self.tag.compute_unpadded(&self.pending).into()
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(..)")
    }
}

const BLOCK_BYTES: usize = 16;
