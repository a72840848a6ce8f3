//! Every store against the contract of its traits.

mod contract;
mod crash;
mod disk;
mod kill;
mod model_disk;
mod random;
