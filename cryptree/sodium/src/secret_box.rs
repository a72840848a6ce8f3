//! Whole messages, in place, with the tag kept apart.

use libsodium_sys as ffi;

use crate::{KEY_BYTES, NONCE_BYTES, Refused, TAG_BYTES, choose_implementations};

/// Encrypts `message` in place and returns the tag.
pub fn seal_detached(
    key: &[u8; KEY_BYTES],
    nonce: &[u8; NONCE_BYTES],
    message: &mut [u8],
) -> [u8; TAG_BYTES] {
    choose_implementations();
    let mut tag = [0; TAG_BYTES];
    let at = message.as_mut_ptr();
    // SAFETY: `at` is valid for reads and writes of `message.len()` bytes, and libsodium allows the cipher
    // text to overwrite the message; tag, nonce and key have the lengths that the call reads and writes.
    let status = unsafe {
        ffi::crypto_secretbox_detached(
            at,
            tag.as_mut_ptr(),
            at,
            message.len() as u64,
            nonce.as_ptr(),
            key.as_ptr(),
        )
    };
    debug_assert_eq!(status, 0, "sealing cannot fail");
    tag
}

/// Checks `tag` in constant time, then decrypts `cipher` in place; on failure `cipher` is unchanged.
///
/// # Errors
/// [`Refused`] when the tag does not fit.
pub fn open_detached(
    key: &[u8; KEY_BYTES],
    nonce: &[u8; NONCE_BYTES],
    tag: &[u8; TAG_BYTES],
    cipher: &mut [u8],
) -> Result<(), Refused> {
    choose_implementations();
    let at = cipher.as_mut_ptr();
    // SAFETY: `at` is valid for reads and writes of `cipher.len()` bytes, and libsodium allows the message
    // to overwrite the cipher text; tag, nonce and key have the lengths that the call reads.
    let status = unsafe {
        ffi::crypto_secretbox_open_detached(
            at,
            at,
            tag.as_ptr(),
            cipher.len() as u64,
            nonce.as_ptr(),
            key.as_ptr(),
        )
    };
    if status == 0 { Ok(()) } else { Err(Refused) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_and_nothing_else_does() {
        let (key, nonce) = ([7; KEY_BYTES], [9; NONCE_BYTES]);
        for length in [0, 1, 31, 32, 33, 64, 1000] {
            let message: Vec<u8> = (0..=250).cycle().take(length).collect();
            let mut bytes = message.clone();
            let tag = seal_detached(&key, &nonce, &mut bytes);
            let sealed = bytes.clone();
            let mut wrong = tag;
            wrong[15] ^= 1;
            assert_eq!(
                open_detached(&key, &nonce, &wrong, &mut bytes),
                Err(Refused)
            );
            assert_eq!(bytes, sealed);
            assert_eq!(open_detached(&key, &nonce, &tag, &mut bytes), Ok(()));
            assert_eq!(bytes, message);
        }
    }
}
