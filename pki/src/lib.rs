//! Who may sign what: keys, signed pointers, writers, name chains, access decisions, wire messages.
//!
//! Everything here is public data and signatures over it; nothing can decrypt a user's files. The crate
//! performs no I/O: the clock and the randomness are handed in, blocks come through
//! [`champ::BlockSource`].
//!
//! Spec: 02, 04, 06 §6, 07, 10.

pub mod algorithm;
pub mod block_access;
pub mod boxing;
pub mod chain;
pub mod claim;
pub mod keys;
mod list;
pub mod owned;
pub mod pointer;
pub mod proof_of_work;
pub mod signed;
pub mod username;
pub mod wire;
pub mod writer_data;
