//! Keeps a local folder and a folder of the account the same (`kastro sync`).
//!
//! `plan` decides and touches nothing; everything else reads, writes and remembers. After a crash at any moment the
//! next run sees what both sides are and goes on from there: an agreement that was not written down is found again by
//! comparing.

mod apply;
pub mod here;
pub mod ignore;
mod moves;
pub mod places;
pub mod plan;
pub mod report;
pub mod run;
pub mod state;
pub mod there;
pub mod tree;
pub mod watch;

#[cfg(test)]
pub(crate) mod folding;
#[cfg(test)]
mod model;
