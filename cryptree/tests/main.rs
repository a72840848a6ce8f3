//! Golden vectors, and whole accounts opened offline, and the client against a node in memory.

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
mod client;
mod content_vectors;
mod fake;
mod key_vectors;
mod node_vectors;
mod properties_vectors;
mod record_vectors;
mod security;
mod shared_with_vectors;
