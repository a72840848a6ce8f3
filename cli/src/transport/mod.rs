//! The ways from the client to a node.

mod http;

pub use http::HttpTransport;
