//! Commands that look after what a node stores: check, repair, scrub, backup, restore.

use std::path::PathBuf;

use clap::Args;

use super::OperatorOptions;

/// Options of `gc`.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Only the blocks of this user.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// Only say what would be deleted.
    #[arg(long)]
    pub dry_run: bool,

    /// Delete also what became garbage less than an hour ago. Whoever is reading a file that was just deleted
    /// may get an error.
    #[arg(long)]
    pub now: bool,

    /// Afterwards, give what is free inside of the database file back to the file system. All other calls wait
    /// meanwhile: seconds for each gigabyte of small blocks.
    #[arg(long, conflicts_with = "dry_run")]
    pub compact: bool,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Only the data of this user.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// Do not read every block: only look whether its copy is there, and follow the pointers.
    #[arg(long)]
    pub quick: bool,

    /// Begin anew, also when an earlier check was broken off.
    #[arg(long)]
    pub fresh: bool,

    /// First verify every page of the database file. All other calls wait meanwhile: seconds for each gigabyte of
    /// small blocks.
    #[arg(long)]
    pub database: bool,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `repair`.
#[derive(Debug, Args)]
pub struct RepairArgs {
    /// Do it. Without this, only say what would be done.
    #[arg(long)]
    pub apply: bool,

    /// Only the data of this user.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// Take good copies of damaged and missing blocks from this backup.
    #[arg(long, value_name = "DIR")]
    pub from_backup: Option<PathBuf>,

    /// Take good copies from the node with this id, which mirrors the users of this one.
    #[arg(long, value_name = "NODE", conflicts_with = "from_backup")]
    pub from_mirror: Option<String>,

    /// Take good copies of mirrored users from their home nodes.
    #[arg(long, conflicts_with_all = ["from_backup", "from_mirror"])]
    pub from_home: bool,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `scrub`.
#[derive(Debug, Args)]
pub struct ScrubArgs {
    /// Start a pass now instead of when it is due.
    #[arg(long)]
    pub now: bool,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Folder of the backup: empty or new, or one that `kastro backup` made. Best on another disk.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,

    /// Keep this many snapshots and remove older ones, once the new one is complete [default: all].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    pub keep: Option<u16>,

    /// Make no backup: read the one that is there and compare every block with its name.
    #[arg(long, conflicts_with = "keep")]
    pub verify: bool,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Folder of the backup.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,

    /// Name of the snapshot [default: the newest].
    #[arg(long, value_name = "NAME")]
    pub snapshot: Option<String>,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

pub(super) const GC_EXAMPLES: &str = "\
Examples:
  kastro gc --dry-run
  kastro gc
  kastro gc --user alice --now
  kastro gc --json | jq .deleted.bytes

A running node does this by itself twice a day, and earlier when much was deleted. What was
deleted stays readable for an hour for those who are just reading it.";

pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  kastro check
  kastro check --user alice
  kastro check --json | jq '.affected'

Reads every block and compares it with its name, follows every signed pointer, and says whose
data is affected. Nothing is changed and nothing deleted. The node may go on serving. A check
that is broken off goes on where it was.

Exit code: 0 all is well, 3 something is untidy that `kastro repair` puts right, 12 data is
damaged or missing.";

pub(super) const REPAIR_EXAMPLES: &str = "\
Examples:
  kastro repair                                  say what would be done
  kastro repair --apply --from-backup /mnt/backup

Damaged copies are moved to the folder `quarantine`, never deleted; good copies come from the
backup, or when a client uploads the same file again. Files, and objects of a bucket that are
older than a day, are removed when nothing knows them.";

pub(super) const BACKUP_EXAMPLES: &str = "\
Examples:
  kastro backup /mnt/backup
  kastro backup /mnt/backup --keep 30
  kastro backup --verify /mnt/backup

A snapshot of one moment, while the node goes on serving: all blocks, all metadata, the node's
keys and settings, also when they are in a bucket or a database. What is in the backup already
is not copied again. Nothing is collected meanwhile. Keep it private: the node's keys are in it.
The files of its users stay encrypted.";

pub(super) const RESTORE_EXAMPLES: &str = "\
Examples:
  kastro restore /mnt/backup --data /srv/kastro
  kastro restore /mnt/backup --snapshot 20260102T030405Z-000
  KASTRO_BLOCKS=s3://bucket kastro restore /mnt/backup --data /srv/kastro

The data goes into the store that the settings name, whatever kind the backup was made of: a
backup and a restore move a node from its disk into a bucket or a database, and back.

Never run the old node and the restored one at the same time: they are the same node.";
