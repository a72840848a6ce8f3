//! Who may read a protected block (Spec: 06 §6).
//!
//! [`decision`] judges a token presented over the API; [`signature`] is the proof of a token that nodes
//! show each other instead of the token. Secrets are compared in constant time, and what is compared
//! does not depend on them.

pub mod decision;
pub mod signature;

pub use decision::{Held, Protection, Refused, Tokens};
pub use signature::{BlockAuth, PackedTime};
