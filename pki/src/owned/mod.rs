//! Which keys belong to whom (Spec: 04 §5).
//!
//! A writer's root block lists proofs; each is a statement by the owned key, "I belong to W". A proof
//! that does not verify is ignored, never an error, and a cycle of keys ends where it began.

mod champ_entry;
mod proof;
mod walk;

pub use champ_entry::{add_owned_key, owned_key_label, remove_owned_key};
pub use proof::{MAX_PROOF_BYTES, OwnerProof, ProofError};
pub use walk::{
    Damage, MAX_OWNED_WRITERS, MAX_WALK_BLOCKS, Owned, OwnedError, OwnershipWalk, PointerSource,
    WalkLimits, directly_owned, owned_by_user,
};
