//! Commands about secret links.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Connection;
use crate::remote_path::RemotePath;

/// Options of `link`.
#[derive(Debug, Args)]
pub struct LinkArgs {
    /// What to do with links.
    #[command(subcommand)]
    pub command: LinkCommand,
}

/// The commands of `link`.
#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// Make a link: whoever has it reads the file or folder, without an account.
    Create(LinkNewArgs),
    /// List the links you have made.
    List(LinkListArgs),
    /// Take links back.
    Rm(LinkRemoveArgs),
    /// Download what a link leads to. Needs no account.
    Get(LinkGetArgs),
}

/// Options of `link create`.
#[derive(Debug, Args)]
pub struct LinkNewArgs {
    /// The file or folder.
    #[arg(value_name = "PATH")]
    pub path: RemotePath,

    /// Stop handing it out after this time: `30m`, `12h`, `7d`, `4w`.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub expires: Option<u64>,

    /// Hand it out this often at most.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: Option<u32>,

    /// Ask the visitor for a password too, to be told by another way than the link.
    ///
    /// It comes from `KASTRO_LINK_PASSWORD`, from --link-password-file, or from a prompt.
    #[arg(long)]
    pub with_password: bool,

    /// Read that password from the first line of a file.
    #[arg(long, value_name = "FILE")]
    pub link_password_file: Option<PathBuf>,

    /// Take a password that is very short or very long.
    #[arg(long)]
    pub allow_weak_password: bool,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `link list`.
#[derive(Debug, Args)]
pub struct LinkListArgs {
    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `link rm`.
#[derive(Debug, Args)]
pub struct LinkRemoveArgs {
    /// The links, or their numbers as `link list` shows them.
    #[arg(value_name = "LINK", required = true)]
    pub links: Vec<String>,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `link get`.
#[derive(Debug, Args)]
pub struct LinkGetArgs {
    /// The link; `-` reads it from standard input, where no other process sees it.
    #[arg(value_name = "LINK")]
    pub link: String,

    /// Local target, with the rules of `cp -r`.
    #[arg(value_name = "LOCAL", default_value = ".")]
    pub target: PathBuf,

    /// Read the password that belongs to the link from the first line of a file; `KASTRO_LINK_PASSWORD` works too.
    #[arg(long, value_name = "FILE")]
    pub link_password_file: Option<PathBuf>,

    /// Replace local files.
    #[arg(short, long)]
    pub force: bool,

    /// How to reach the node; the one that the link names when absent.
    #[command(flatten)]
    pub connection: Connection,
}

/// Parses a time with a unit, in seconds.
fn parse_time(text: &str) -> Result<u64, String> {
    let wrong = || "write a number with m, h, d or w: 12h, 7d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let number = text.get(..text.len() - unit.len_utf8()).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(seconds);
    seconds
        .filter(|n| (1..=MAX_SECONDS).contains(n))
        .ok_or_else(wrong)
}

/// A hundred years.
const MAX_SECONDS: u64 = 100 * 366 * 86_400;

pub(super) const LINK_EXAMPLES: &str = "\
Examples:
  kastro link create photos/summer                     prints the link
  kastro link create --expires 7d --uses 3 report.pdf
  kastro link list
  kastro link rm 463930018
  kastro link get http://127.0.0.1:8000/secret/z59vu.../463930018#...

Expiry and number of uses bind the node only: who once opened a link has the key for good, and
a dishonest node can count wrongly. A link also tells the names of the folders above the item.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_an_end() {
        assert_eq!(parse_time("30m"), Ok(1800));
        assert_eq!(parse_time("2w"), Ok(14 * 86_400));
        for wrong in [
            "",
            "7",
            "d",
            "0d",
            "-1d",
            "1y",
            "7 d",
            "99999999999999w",
            "1\u{e9}",
        ] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
