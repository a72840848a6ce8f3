//! Every store against the contract of its traits.

pub(crate) mod contract;
mod crash;
mod damage;
mod disk;
mod kill;
pub(crate) mod model_disk;
#[cfg(unix)]
mod postgres;
mod random;
#[cfg(unix)]
mod s3;
