//! Blocks in an S3-compatible store, against a server in this process.

mod direct;
mod faults;
mod measure;
mod proxy;
mod store;
