//! Which keys belong to whom (Spec: 04 §5).
//!
//! A writer's root block lists proofs; each is a statement by the owned key, "I belong to W". A proof
//! that does not verify is ignored, never an error, and a cycle of keys ends where it began.

mod proof;

pub use proof::{MAX_PROOF_BYTES, OwnerProof, ProofError, owned_key_label};
