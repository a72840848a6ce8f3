//! Safe calls into libsodium: secret boxes, their streaming form, and scrypt.
//!
//! Bulk encryption is where a client spends its time, and the reviewed C code is three times as fast as
//! the portable crates. This crate and `memory` are the only ones of the workspace with `unsafe`; every block states why
//! it is sound. It knows nothing of our formats: keys, nonces and tags are plain arrays here.
//!
//! Spec: 02 §7.2, §8.2.

#![expect(
    unsafe_code,
    reason = "foreign function calls; see the SAFETY comments"
)]

mod scrypt;
mod secret_box;
mod stream;

pub use scrypt::scrypt;
pub use secret_box::{open_detached, seal_detached};
pub use stream::{StreamOpener, StreamSealer};

use std::sync::Once;

/// Length of a key, in bytes.
pub const KEY_BYTES: usize = 32;
/// Length of a nonce, in bytes.
pub const NONCE_BYTES: usize = 24;
/// Length of an authentication tag, in bytes.
pub const TAG_BYTES: usize = 16;

/// The one way in which any call here fails: a tag that does not fit, or scrypt parameters out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("refused by libsodium")
    }
}

impl std::error::Error for Refused {}

/// Lets libsodium pick the implementation for this processor.
///
/// Its result is ignored: without it the slow reference code runs, which computes the same.
fn choose_implementations() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: takes no arguments and may be called at any time from any thread.
        let _ = unsafe { libsodium_sys::sodium_init() };
    });
}
