//! Integration tests of the crate: one binary.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

mod champ_vectors;
