//! Nodes among each other.

mod forwarding;
pub(crate) mod switchboard;
