//! Blocks in an S3-compatible store, against a server in this process.

mod direct;
mod faults;
mod proxy;
mod store;
