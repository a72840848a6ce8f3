//! The HTTP API against the spec and the recorded exchanges: over sockets and in process.

pub(crate) mod account;
mod accounts;
mod acme;
mod at_rest;
mod deletion;
#[cfg(unix)]
mod direct_store;
mod endpoints;
pub(crate) mod harness;
mod http;
mod kinds;
mod limits;
mod load;
mod load_mixed;
mod pointers;
mod public_files;
mod rows;
mod secrecy;
mod security_keys;
mod signup;
mod space;
mod storage;
mod tls;
mod traces;
mod web;
