//! What end-to-end tests and benchmarks share: a node in its own process, and runs of the client.
//!
//! Everything works in temporary folders, on free ports, without sleeping for luck: each wait is for a fact, with
//! a deadline.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot start its processes has failed"
)]

mod client;
mod node_process;
mod tree;

pub use client::{Finished, Kastro};
pub use node_process::NodeProcess;
pub use tree::{assert_same, bytes_below, mixed_folder, write};
