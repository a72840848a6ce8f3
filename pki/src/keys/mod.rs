//! Signing keys, their hashes, and the two roles a key can have (Spec: 02 §3, §4).
//!
//! Invariants: a [`SecretSigningKey`] never signs with a public half that is not its own; a
//! [`PublicKeyHash`] is identity or sha2-256 over dag-cbor; the placeholder hash authorizes nothing.

mod hash;
mod signing;

pub use hash::{Owner, PublicKeyHash, ResolveError, SecretKeyWithHash, Writer};
pub use signing::{
    PublicSigningKey, SIGNATURE_BYTES, SecretSigningKey, SignatureError, SigningKeyPair,
};
