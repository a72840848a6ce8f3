//! The two ways from the client to a node: over HTTP, and directly into a node opened in this process.

mod http;
mod in_process;

pub use http::HttpTransport;
pub use in_process::InProcess;
