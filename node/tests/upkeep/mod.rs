//! Check, repair, scrub, backup and restore, on a whole node with real files.

mod backup;
mod check;
mod format;
mod scrub;
mod world;
