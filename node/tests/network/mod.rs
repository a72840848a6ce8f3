//! Several nodes of one network, in one process, with links that can be cut.

mod lies;
mod migration;
mod mirrors;
mod names;
mod rows;
mod simulation;
pub(crate) mod world;
