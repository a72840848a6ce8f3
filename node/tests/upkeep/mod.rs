//! Check, repair, scrub, backup and restore, on a whole node with real files.

mod check;
mod scrub;
mod world;
