//! What only the user can read: login, capabilities, encrypted files and folders, and the client that moves them.
//!
//! The formats are bytes in, bytes out: no sockets, no files, no clock and no randomness of their own. They
//! compile for wasm32, so that keys never leave a browser page.
//!
//! Spec: 02, 20 and 21; the client's side of 05 to 10.

pub mod api;
pub mod capability;
pub mod chunk_chain;
pub mod ciphertext;
pub mod client;
pub mod counters;
pub mod crypto;
pub mod directory;
pub mod environment;
pub mod error;
pub mod file;
pub mod hash_tree;
pub mod link_node;
pub mod login;
pub mod mime;
pub mod node;
pub mod properties;
#[cfg(test)]
mod replay;
pub mod sandbox;
pub mod secret_link;
pub mod transport;
pub mod upload_record;

pub use client::{Client, Session, SignIn};
pub use environment::Environment;
pub use error::{ClientError, Misbehavior};
pub use transport::{ApiRequest, ApiResponse, Transport, TransportError};
