//! The HTTP API against the spec and the recorded exchanges: over sockets and in process.

mod harness;
mod traces;
