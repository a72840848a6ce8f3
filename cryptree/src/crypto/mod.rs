//! The primitives, each behind one small module with our own types (Spec: 02).
//!
//! Nothing outside this module names a cryptography crate. Sealing draws its nonce from the generator
//! handed in; opening authenticates everything before it returns anything.

mod boxing;
mod curve;
mod hybrid;
mod kdf;
mod key;
mod password;
pub mod secretbox;

pub use boxing::{BoxError, BoxingKeyPair, SecretBoxingKey};
pub use curve::CurveSecretKey;
pub use hybrid::HybridSecretKey;
pub use kdf::derive_key;
pub use key::{Nonce, SymmetricKey};
pub use password::{PasswordError, hash_password};

/// Cipher text that does not open: wrong key, damaged, or forged. Deliberately says no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cipher text cannot be opened with this key")]
pub struct CannotOpen;
