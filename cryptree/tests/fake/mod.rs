//! A node in memory with the checks of Spec: 06 to 08 and 10 that a client can notice, and a way to make it lie.

pub mod node;
pub mod surroundings;

pub use node::{FakeNode, Fault};
pub use surroundings::TestSurroundings;
