//! The server: stores, HTTP API, name authority, other nodes.
//!
//! A node keeps other people's blocks and signed metadata and can decrypt none of it: this crate never depends
//! on `cryptree`. It answers every call of the network's HTTP API for the users whose home it is, and is its own
//! name authority.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bytes::Bytes;
//! use node::{Config, Node};
//!
//! let node = Node::open(Config::default()).await?;
//! let request = http::Request::post("/api/v0/id").body(Bytes::new())?;
//! let response = node.call(request).await;
//! assert_eq!(response.body(), &Bytes::from(format!("{{\"ID\":\"{}\"}}", node.id())));
//! # Ok(()) }
//! ```
//!
//! Spec: 05 to 13.

pub mod backup;
pub mod check;
pub mod clock;
pub mod config;
pub mod error;
pub mod gc;
pub mod health;
pub mod identity;
pub mod lease;
pub mod metrics;
pub mod mirror;
pub mod names;
pub mod operator;
pub mod p2p;
pub mod random;
pub mod store;
pub mod tls;
pub mod web;
pub mod webauthn;
pub mod workers;

mod accounts;
mod api;
mod auth;
mod bats;
mod blocks;
mod challenges;
mod directory;
mod follow_requests;
mod guard;
mod http;
mod link_counts;
mod messages;
mod migration;
mod node;
mod node_keys;
mod pointers;
mod registrar;
mod rotation;
mod second_factors;
mod shared_keys;
mod signup;
mod space;
mod state;
mod sweep;
mod usage;
mod writers;

pub use config::{BlockPlace, Config, Limits, MetadataPlace};
pub use error::Refusal;
pub use node::{Node, OpenError};
pub use second_factors::FactorKeyError;
pub use shared_keys::SharedKeyError;
