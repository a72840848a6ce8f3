//! What only the user can read: login, capabilities, encrypted files and folders, and the client that moves them.
//!
//! Spec: 02, 20 and 21; the client's side of 05 to 10.

pub mod environment;
pub mod error;
pub mod transport;

pub use environment::Environment;
pub use error::{ClientError, Misbehavior};
pub use transport::{ApiRequest, ApiResponse, Transport, TransportError};
