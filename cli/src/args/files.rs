//! Commands that work on files.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Connection;
use crate::remote_path::RemotePath;

/// Options of `ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Folders or files, `/alice/docs`; a path without `/` in front starts in your own folder.
    #[arg(value_name = "PATH")]
    pub paths: Vec<RemotePath>,

    /// Size and time of every entry too.
    #[arg(short, long)]
    pub long: bool,

    /// Hidden entries too.
    #[arg(short, long)]
    pub all: bool,

    /// Everything below as well.
    #[arg(short = 'R', long)]
    pub recursive: bool,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `cat`.
#[derive(Debug, Args)]
pub struct CatArgs {
    /// The files, one after the other.
    #[arg(value_name = "FILE", required = true)]
    pub paths: Vec<RemotePath>,

    /// Skip this many bytes first; negative counts from the end.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    pub offset: i64,

    /// Print at most this many bytes.
    #[arg(long, value_name = "BYTES")]
    pub length: Option<u64>,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// What to download, then where to: a local path [default: the current folder].
    #[arg(value_name = "REMOTE", required = true)]
    pub source: RemotePath,

    /// Local target, with the rules of `cp -r`: an existing folder receives the item under its own name,
    /// anything else becomes the item. `-` prints a file.
    #[arg(value_name = "LOCAL", default_value = ".")]
    pub target: PathBuf,

    /// Replace local files that differ.
    #[arg(short, long)]
    pub force: bool,

    /// Only the small picture that was uploaded with a file.
    #[arg(long)]
    pub thumbnail: bool,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// Local files and folders (`-`: standard input), then the remote target as last argument.
    #[arg(value_names = ["LOCAL", "REMOTE"], required = true, num_args = 2..)]
    pub paths: Vec<PathBuf>,

    /// Replace remote files that differ.
    #[arg(short, long)]
    pub force: bool,

    /// Upload pictures (JPEG, PNG, GIF, WebP up to 32 MiB) without a small picture for listings.
    #[arg(long)]
    pub no_thumbnails: bool,

    /// What to do with symbolic links found inside folders.
    #[arg(long, value_name = "RULE", default_value = "inside")]
    pub links: LinkRule,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// What to do with symbolic links found inside a folder that is uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LinkRule {
    /// Upload what a link points to if that lies inside the folder; report the others.
    Inside,
    /// Upload what every link points to, wherever it is.
    Follow,
    /// Leave all links out, without a word.
    Skip,
}

/// Options of `uploads`.
#[derive(Debug, Args)]
pub struct UploadsArgs {
    /// Give an upload up: its id as listed (the beginning will do), or the path of its file. May be repeated.
    #[arg(long, value_name = "ID", conflicts_with = "discard_all")]
    pub discard: Vec<String>,

    /// Give all up that were begun long ago: a younger one may be running on another machine.
    #[arg(long)]
    pub discard_all: bool,

    /// With --discard-all: how many hours ago an upload must have been begun.
    #[arg(
        long,
        value_name = "HOURS",
        default_value_t = 24,
        requires = "discard_all"
    )]
    pub older_than: u32,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `write`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("where").required(true).args(["append", "offset"]))]
pub struct WriteArgs {
    /// The file to change.
    #[arg(value_name = "FILE")]
    pub path: RemotePath,

    /// Local file with the new bytes; `-` reads standard input.
    #[arg(value_name = "LOCAL", default_value = "-")]
    pub source: PathBuf,

    /// Write at the end.
    #[arg(short, long)]
    pub append: bool,

    /// Write from this byte on, over what is there; a gap behind the end is filled with zeros.
    #[arg(long, value_name = "BYTES")]
    pub offset: Option<u64>,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `truncate`.
#[derive(Debug, Args)]
pub struct TruncateArgs {
    /// The files.
    #[arg(value_name = "FILE", required = true)]
    pub paths: Vec<RemotePath>,

    /// The new size; a file that is shorter is filled up with zeros.
    #[arg(short, long, value_name = "SIZE", value_parser = super::parse_size)]
    pub size: u64,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `mkdir`.
#[derive(Debug, Args)]
pub struct MkdirArgs {
    /// The folders.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<RemotePath>,

    /// Create missing parents, and be content if the folder is there already.
    #[arg(short, long)]
    pub parents: bool,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `mv`.
#[derive(Debug, Args)]
pub struct MvArgs {
    /// What to move.
    #[arg(value_name = "FROM")]
    pub from: RemotePath,

    /// The new path, or an existing folder to move it into.
    #[arg(value_name = "TO")]
    pub to: RemotePath,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `cp`.
#[derive(Debug, Args)]
pub struct CpArgs {
    /// What to copy.
    #[arg(value_name = "FROM")]
    pub from: RemotePath,

    /// The new path, or an existing folder to copy it into.
    #[arg(value_name = "TO")]
    pub to: RemotePath,

    /// Needed to copy a folder.
    #[arg(short, long)]
    pub recursive: bool,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// What to delete.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<RemotePath>,

    /// Delete folders with everything in them.
    #[arg(short, long)]
    pub recursive: bool,

    /// Say nothing when a path does not exist.
    #[arg(short, long)]
    pub force: bool,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `stat`.
#[derive(Debug, Args)]
pub struct StatArgs {
    /// The files and folders.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<RemotePath>,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

pub(super) const LS_EXAMPLES: &str = "\
Examples:
  kastro ls                     your own folder
  kastro ls -l /alice/Photos
  kastro ls -laR --json /alice  everything, for a script";

pub(super) const CAT_EXAMPLES: &str = "\
Examples:
  kastro cat /alice/notes.txt
  kastro cat --offset 1000000 --length 100 /alice/film.mkv     reads only what it needs
  kastro cat --offset=-10 /alice/log.txt                       the last ten bytes";

pub(super) const GET_EXAMPLES: &str = "\
Examples:
  kastro get /alice/Photos              makes ./Photos
  kastro get /alice/Photos backup       makes ./backup (backup/Photos if that exists)
  kastro get /alice/notes.txt -         prints it
  kastro get --thumbnail /alice/a.png small.jpg

Files already there with the same size and time are skipped, and a large file goes on in the
middle, so an interrupted download goes on when the command is run again. A local file that differs is left alone unless --force is
given. A file appears under its name only when it is complete.";

pub(super) const PUT_EXAMPLES: &str = "\
Examples:
  kastro put notes.txt /alice/                     makes /alice/notes.txt
  kastro put Photos /alice/                        makes /alice/Photos
  kastro put Photos /alice/Pictures                makes /alice/Pictures
                                                   (Pictures/Photos if that exists)
  tar c src | kastro put - /alice/src.tar

Files already there with the same size and time are skipped, so an interrupted upload goes on
when the command is run again. A remote file that differs is left alone unless --force is
given. Files that cannot be read are reported and the rest goes on; the exit code then is 3.";

pub(super) const UPLOADS_EXAMPLES: &str = "\
Examples:
  kastro uploads                         what was begun and not finished, from any machine
  kastro put film.mkv /alice/            the same file again: goes on where it stopped
  kastro uploads --discard zb2rhkfQv7TmAx1c   frees what it has stored so far
  kastro uploads --discard-all           those of more than 24 hours ago

What an unfinished upload has stored counts as used space until it is finished or given up.";

pub(super) const WRITE_EXAMPLES: &str = "\
Examples:
  date | kastro write --append /alice/log.txt
  kastro write --offset 1048576 /alice/disk.img block.bin

Only the chunks of 5 MiB that are concerned are transferred. Up to 10 MiB are written in one
step, whole or not at all.";

pub(super) const MV_EXAMPLES: &str = "\
Examples:
  kastro mv /alice/a.txt /alice/b.txt       rename
  kastro mv /alice/a.txt /alice/docs/       move into a folder
An existing file is never replaced.";

pub(super) const RM_EXAMPLES: &str = "\
Examples:
  kastro rm /alice/old.txt
  kastro rm -r /alice/OldPhotos";
