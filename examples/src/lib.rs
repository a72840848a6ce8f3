//! Kastro's stories as programs that run by themselves, each in a temporary folder.
//!
//! * `self_hosted_node`: one person runs one node and keeps files there.
//!
//! `cargo run -p examples --example self_hosted_node`
