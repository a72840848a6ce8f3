//! Integration tests of the crate: one binary.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

mod access_vectors;
mod cbor_properties;
mod cbor_vectors;
mod champ_model;
mod champ_properties;
mod champ_security;
mod champ_vectors;
mod cid_vectors;
mod data_stream_vectors;
mod encoding_security;
mod error_texts;
mod fuzz_bodies;
