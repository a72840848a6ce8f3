//! Security keys: what an authenticator's answer must say before it counts (Spec: 08 §4.4).
//!
//! Verification follows W3C Web Authentication level 2, §7.1 and §7.2, as far as the spec asks for it: the attestation
//! statement, token binding, extensions and user verification are not looked at. Everything here is a function of
//! its arguments; which challenges are open, which credential ids are taken and where counters are kept is for
//! the caller. Nothing here is secret: a server knows public keys only.
//!
//! Written out rather than taken from `webauthn-rs`, which would bring 126 more packages, MPL-2.0 and a pre-release
//! of `rsa`. Signatures are the work of `ed25519-dalek` (through `pki`) and `ring`.
//!
//! Answers come from strangers. Every part is bounded by [`MAX_PART_BYTES`] before it is read, and nothing is
//! allocated from a declared length.

mod assertion;
mod authenticator_data;
mod cbor;
mod client_data;
mod cose;
mod credential;
mod registration;
mod relying_party;

use pki::wire::second_factor::MAX_REGISTRATION_BYTES;

pub use assertion::{Assertion, verify_assertion};
pub use client_data::presented_challenge;
pub use cose::CoseKey;
pub use credential::{CredentialId, StoredCredential};
pub use registration::{Registered, Registration, verify_registration};
pub use relying_party::{InvalidHost, RelyingParty};

/// Longest part of an answer that is looked at: a whole answer may have no more.
pub const MAX_PART_BYTES: usize = MAX_REGISTRATION_BYTES;

/// The random bytes that an authenticator has to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge(pub [u8; 32]);

/// Why an authenticator's answer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// A part longer than [`MAX_PART_BYTES`].
    #[error("a part of the answer has {0} bytes, more than {MAX_PART_BYTES}")]
    TooLong(usize),
    /// Client data that is not a JSON object with one `type`, `challenge` and `origin` each.
    #[error("malformed client data")]
    ClientData,
    /// Client data of the other ceremony.
    #[error("client data is of another type than {expected}")]
    ClientDataType {
        /// What `type` should have been.
        expected: &'static str,
    },
    /// A challenge that was not given out, was used before or is too old.
    #[error("unknown challenge")]
    Challenge,
    /// The answer was made for a page of another site.
    #[error("origin is not that of this server")]
    Origin,
    /// An attestation object that is not a map with one `fmt`, `attStmt` and `authData` each.
    #[error("malformed attestation object")]
    AttestationObject,
    /// Authenticator data that ends early or goes on after its last part.
    #[error("malformed authenticator data")]
    AuthenticatorData,
    /// The authenticator answered for another relying party.
    #[error("relying party is not this server")]
    RelyingParty,
    /// Nobody touched the authenticator.
    #[error("user was not present")]
    UserAbsent,
    /// A registration without attested credential data.
    #[error("no credential in the registration")]
    CredentialMissing,
    /// A log-in with attested credential data.
    #[error("a credential in the log-in")]
    CredentialUnexpected,
    /// A credential id that is empty or longer than the format allows.
    #[error("credential id of {0} bytes")]
    CredentialIdLength(usize),
    /// The credential id of the answer is not the one the authenticator attested.
    #[error("credential id differs from the attested one")]
    CredentialIdMismatch,
    /// A public key that is not well-formed for its algorithm.
    #[error("malformed public key")]
    PublicKey,
    /// A public key of an algorithm that was not offered.
    #[error("algorithm {0} was not offered")]
    Algorithm(i64),
    /// The signature does not verify.
    #[error("signature does not verify")]
    Signature,
    /// The counter did not grow: the authenticator may have been copied.
    #[error("counter {presented} is not above {stored}")]
    Counter {
        /// The counter of the last accepted answer.
        stored: u32,
        /// The counter of this answer.
        presented: u32,
    },
}

/// Refuses a part that is too long to be looked at.
const fn check_length(part: &[u8]) -> Result<(), Rejection> {
    if part.len() > MAX_PART_BYTES {
        return Err(Rejection::TooLong(part.len()));
    }
    Ok(())
}
