//! Golden vectors, and whole accounts opened offline.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../src/replay.rs"]
mod replay;
mod support;

mod accounts;
mod capability_vectors;
mod cipher_text_vectors;
mod content_vectors;
mod key_vectors;
mod node_vectors;
mod properties_vectors;
mod record_vectors;
