//! libsodium: long reviewed, and three times as fast as the portable crates.

use super::{CannotOpen, Tag};

pub(super) use sodium::{StreamSealer as Sealer, seal_detached as seal};

pub(super) fn open(
    key: &[u8; 32],
    nonce: &[u8; 24],
    tag: &Tag,
    cipher: &mut [u8],
) -> Result<(), CannotOpen> {
    sodium::open_detached(key, nonce, tag, cipher).map_err(|_| CannotOpen)
}

pub(super) fn open_pieces(
    key: &[u8; 32],
    nonce: &[u8; 24],
    tag: &Tag,
    pieces: &[&[u8]],
) -> Result<Vec<u8>, CannotOpen> {
    let mut opener = sodium::StreamOpener::new(key, nonce);
    pieces.iter().for_each(|piece| opener.authenticate(piece));
    let mut decrypt = opener.verify(tag).map_err(|_| CannotOpen)?;
    let mut message = Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
    for step in pieces.iter().flat_map(|piece| piece.chunks(STEP_BYTES)) {
        let start = message.len();
        message.extend_from_slice(step);
        decrypt(message.split_at_mut(start).1);
    }
    Ok(message)
}

/// Step in which cipher text is copied and decrypted, small enough to stay in the cache.
const STEP_BYTES: usize = 32 * 1024;
