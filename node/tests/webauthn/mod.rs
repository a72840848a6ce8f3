//! Security keys: the golden vectors, and answers of an authenticator made of software.

pub(crate) mod authenticator;
mod properties;
mod vectors;
