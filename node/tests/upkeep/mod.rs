//! Check, repair, scrub, backup and restore, on a whole node with real files.

mod backup;
#[cfg(unix)]
mod backup_elsewhere;
mod check;
mod disk_trouble;
mod format;
mod kill;
#[cfg(unix)]
mod kill_bucket;
#[cfg(target_os = "linux")]
mod long_run;
mod scrub;
mod world;
