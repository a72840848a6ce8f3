//! Commands that look at whole trees.

use clap::{Args, ValueEnum};

use super::{Connection, parse_size};
use crate::{human::Moment, remote_path::RemotePath};

/// Options of `du`.
#[derive(Debug, Args)]
pub struct DuArgs {
    /// Folders or files [default: your own folder].
    #[arg(value_name = "PATH")]
    pub paths: Vec<RemotePath>,

    /// Show folders down to this depth by themselves; 0 shows one sum.
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    pub depth: usize,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `find`.
#[derive(Debug, Args)]
pub struct FindArgs {
    /// Folders to look in [default: your own folder].
    #[arg(value_name = "PATH")]
    pub paths: Vec<RemotePath>,

    /// Only names like this: `*.jpg`, `report-??.{pdf,txt}`.
    #[arg(short, long, value_name = "PATTERN")]
    pub name: Option<String>,

    /// As --name, with capital and small letters alike.
    #[arg(short, long, value_name = "PATTERN", conflicts_with = "name")]
    pub iname: Option<String>,

    /// Only files, or only folders.
    #[arg(short = 't', long = "type", value_name = "KIND")]
    pub kind: Option<Kind>,

    /// Only files of at least this size.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub larger: Option<u64>,

    /// Only files of at most this size.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub smaller: Option<u64>,

    /// Only what was changed since: `2026-11-22`, `2026-11-22T18:00:00Z`, or `7d`, `12h`, `30m` ago.
    #[arg(long, value_name = "TIME")]
    pub newer: Option<Moment>,

    /// Only what was not changed since.
    #[arg(long, value_name = "TIME")]
    pub older: Option<Moment>,

    /// Hidden entries too.
    #[arg(short, long)]
    pub all: bool,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// A kind of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A file.
    #[value(alias = "f")]
    File,
    /// A folder.
    #[value(alias = "d")]
    Folder,
}

/// Options of `tree`.
#[derive(Debug, Args)]
pub struct TreeArgs {
    /// The folder [default: your own].
    #[arg(value_name = "PATH")]
    pub path: Option<RemotePath>,

    /// Show at most so many levels.
    #[arg(short, long, value_name = "N")]
    pub depth: Option<usize>,

    /// Sizes of files too.
    #[arg(short, long)]
    pub long: bool,

    /// Hidden entries too.
    #[arg(short, long)]
    pub all: bool,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

pub(super) const FIND_EXAMPLES: &str = "\
Examples:
  kastro find --name '*.jpg' /alice/Photos
  kastro find --larger 100M --older 365d
  kastro find -t folder --iname 'invoice*' --json";
