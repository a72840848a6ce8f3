//! Signed mutable pointers (Spec: 04 §1-§3, 07 §3).
//!
//! A pointer is a signed statement "my root block is now this CID". Invariants: an update always changes
//! something; a [`SignedPointer`] has been verified and keeps the bytes that were received.

mod memory;
mod successor;
mod update;

pub use memory::{HistoryError, PointerMemory};
pub use successor::{
    MAX_SEQUENCE, MAX_SEQUENCE_LEAP, ParseCasError, PointerCas, PointerRejection, check_successor,
};
pub use update::{
    MAX_SIGNED_BYTES, OFFICIAL_MAX_SIGNED_BYTES, PointerError, PointerUpdate, SignedPointer,
};
