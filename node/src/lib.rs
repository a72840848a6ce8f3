//! The server: stores, HTTP API, name authority.
//!
//! A node keeps other people's blocks and signed metadata and can decrypt none of it: this crate never depends
//! on `cryptree`.

pub mod store;
