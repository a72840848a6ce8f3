//! A node in memory with the checks of Spec: 06 to 08 and 10 that a client can notice, and a way to make it lie.

mod accounts;
pub(crate) mod node;
mod pointers;
mod surroundings;

pub(crate) use node::{FakeNode, Fault, State};
pub(crate) use surroundings::TestSurroundings;
