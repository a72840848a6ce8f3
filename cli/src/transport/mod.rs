//! The two ways from the client to a node: over HTTP, and directly into a node opened in this process.

mod http;
mod in_process;
mod limited;
mod offline;

pub use http::HttpTransport;
pub use in_process::InProcess;
pub use limited::Limited;
pub use offline::{OFFLINE, Offline};
