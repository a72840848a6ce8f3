//! The command that keeps two folders the same.

use std::path::PathBuf;

use clap::Args;

use super::{Connection, parse_size};
use crate::remote_path::RemotePath;

/// Options of `sync`.
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Local folder.
    #[arg(value_name = "LOCAL")]
    pub folder: PathBuf,

    /// Folder of the account; it is made when missing.
    #[arg(value_name = "REMOTE")]
    pub remote: RemotePath,

    /// Only send: what others changed in the account stays as it is and is not fetched.
    #[arg(long, conflicts_with = "down")]
    pub up: bool,

    /// Only fetch: what was changed here stays as it is and is not sent.
    #[arg(long)]
    pub down: bool,

    /// Print what would be done, and do nothing.
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Go on for ever: send changes as they are made, and look for those of others.
    #[arg(short, long, conflicts_with = "dry_run")]
    pub watch: bool,

    /// With --watch: seconds between two looks at the account.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub poll: u64,

    /// Download nothing that would leave less than this free on the local disk.
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = parse_size)]
    pub keep_free: u64,

    /// Send pictures without a small picture for listings.
    #[arg(long)]
    pub no_thumbnails: bool,

    /// Go on even if that deletes everything, or more than half of many files, on one side.
    #[arg(long)]
    pub allow_delete_all: bool,

    /// Take a home folder, or one above it, for the local folder.
    #[arg(long)]
    pub allow_home: bool,

    /// Name of this machine in conflict copies [default: its host name].
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub device: Option<String>,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

pub(super) const SYNC_EXAMPLES: &str = "\
Examples:
  kastro sync -n ~/Documents /alice/Documents     what would be done
  kastro sync ~/Documents /alice/Documents
  kastro sync --watch ~/Documents /alice/Documents
  kastro sync --up Photos /alice/Photos           a backup: nothing here is ever changed

A file that was changed on both sides is kept twice: the account's version under its name, yours
as `NAME (conflict DATE MACHINE)`. Deleted on one side and changed on the other: the change stays.
`.kastroignore` files name what takes no part, in the syntax of .gitignore. Symbolic links and
special files take no part. An empty or missing local folder never empties the account: see
--allow-delete-all. Interrupted at any moment, the next run goes on.";
