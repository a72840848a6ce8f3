//! Integration tests of the crate: one binary.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;
mod timing;

mod algorithm_vectors;
mod block_access_vectors;
mod boxing_vectors;
mod error_texts;
mod key_vectors;
mod name_error_texts;
mod name_vectors;
mod node_identity_vectors;
mod ownership;
mod pointer_vectors;
mod proof_of_work_vectors;
mod properties;
mod record_vectors;
mod recorded;
mod signed_vectors;
mod wire_properties;
mod writer_data_vectors;
