//! Integration tests of the crate: one binary.
#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that trips over one of these has failed; measures and skipped tests are told"
)]

mod conformance;
mod gc;
mod network;
mod operator;
mod p2p;
#[cfg(unix)]
mod servers;
mod store;
mod upkeep;
mod webauthn;
