//! Check, repair, scrub, backup and restore, on a whole node with real files.

mod backup;
mod check;
mod disk_trouble;
mod format;
mod kill;
mod scrub;
mod world;
