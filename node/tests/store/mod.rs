//! Every store against the contract of its traits.

mod contract;
mod disk;
