//! Garbage collection: every interleaving that could lose data, by hand and by dice (Spec: 12 §4, 40 REL-8, REL-9).

pub(crate) mod hooked;
mod owners;
mod recount;
mod rel_8;
mod simulation;
mod world;
