//! The command line: every command, option and environment variable, with help texts that teach.
//!
//! A password is never an argument: arguments are visible to every process of the machine and end up in
//! shell histories.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{exit::EXIT_CODES_HELP, remote_path::RemotePath};

/// Your files on your own machine, encrypted before they leave your hands.
///
/// One binary is both the node that stores (it cannot read what it stores) and the client that
/// encrypts. Without a command it starts the node.
#[derive(Debug, Parser)]
#[command(name = "kastro", version, max_term_width = 100, after_help = TOUR, after_long_help = long_tour())]
pub struct Cli {
    /// What to do; `serve` when absent.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Print results, and errors, as JSON for scripts.
    #[arg(long, global = true)]
    pub json: bool,

    /// Print nothing but results and errors: no progress bars, no hints.
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a node: stores encrypted files for the people who sign up at it.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Create an account.
    #[command(after_help = SIGNUP_EXAMPLES)]
    Signup(SignupArgs),
    /// Log in and stay logged in on this machine.
    #[command(after_help = LOGIN_EXAMPLES)]
    Login(LoginArgs),
    /// Forget the session that `login` keeps.
    Logout(LogoutArgs),
    /// List a folder.
    #[command(after_help = LS_EXAMPLES)]
    Ls(LsArgs),
    /// Print a file, or a part of it.
    #[command(after_help = CAT_EXAMPLES)]
    Cat(CatArgs),
    /// Download files and folders.
    #[command(after_help = GET_EXAMPLES)]
    Get(GetArgs),
    /// Upload files and folders.
    #[command(after_help = PUT_EXAMPLES, override_usage = "kastro put [OPTIONS] <LOCAL>... <REMOTE>")]
    Put(PutArgs),
    /// Create folders.
    Mkdir(MkdirArgs),
    /// Move or rename.
    #[command(after_help = MV_EXAMPLES)]
    Mv(MvArgs),
    /// Copy within the account.
    Cp(CpArgs),
    /// Delete. There is no undo.
    #[command(after_help = RM_EXAMPLES)]
    Rm(RmArgs),
    /// Show what is known about a file or folder.
    Stat(StatArgs),
    /// Change the password.
    #[command(after_help = PASSWD_EXAMPLES)]
    Passwd(PasswdArgs),
    /// Show how much space is used and how much there is.
    Space(SpaceArgs),
}

/// How to reach the node and prove who you are.
///
/// With a password at hand (`KASTRO_PASSWORD`, `--password-file`) every command logs in by itself; without
/// one it continues the session that `kastro login` keeps, or asks.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Address of the node [default: the session's, else http://127.0.0.1:8000].
    #[arg(
        long,
        env = "KASTRO_SERVER",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub server: Option<String>,

    /// Work on a node's data folder directly, with no node running.
    #[arg(
        long,
        env = "KASTRO_LOCAL",
        hide_env_values = true,
        value_name = "DIR",
        conflicts_with = "server"
    )]
    pub local: Option<PathBuf>,

    /// Your user name [default: the session's].
    #[arg(
        short,
        long,
        env = "KASTRO_USER",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub user: Option<String>,

    /// Read the password from the first line of a file (`-`: standard input).
    ///
    /// `KASTRO_PASSWORD` in the environment works too; without either it is asked for.
    #[arg(
        long,
        env = "KASTRO_PASSWORD_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub password_file: Option<PathBuf>,

    /// Folder of the session that `login` keeps [default: ~/.config/kastro].
    #[arg(
        long,
        env = "KASTRO_CONFIG",
        hide_env_values = true,
        value_name = "DIR",
        hide_short_help = true
    )]
    pub config: Option<PathBuf>,
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Folder that holds everything the node stores [default: ~/.kastro].
    #[arg(long, env = "KASTRO_DATA", hide_env_values = true, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Address to listen on. Port 0 takes any free port and prints it.
    #[arg(
        long,
        env = "KASTRO_LISTEN",
        hide_env_values = true,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8000"
    )]
    pub listen: String,

    /// Host name under which others reach this node, behind a reverse proxy that ends TLS.
    #[arg(
        long,
        env = "KASTRO_PUBLIC_HOST",
        hide_env_values = true,
        value_name = "HOST"
    )]
    pub public_host: Option<String>,

    /// Space each new account gets, for example 500M or 2T.
    #[arg(long, env = "KASTRO_QUOTA", hide_env_values = true, value_name = "SIZE", value_parser = parse_size)]
    pub quota: Option<u64>,

    /// How much to log: error, warn, info, debug, trace, or a filter such as `node=debug`.
    #[arg(
        long,
        env = "KASTRO_LOG",
        hide_env_values = true,
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,

    /// Form of the log lines on standard error.
    #[arg(
        long,
        env = "KASTRO_LOG_FORMAT",
        hide_env_values = true,
        value_name = "FORM",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Options of `signup`.
#[derive(Debug, Args)]
pub struct SignupArgs {
    /// The user name you want: lower case letters and digits, with single `-` between.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Use a new random passphrase without asking, and print it.
    #[arg(long, conflicts_with = "password_file")]
    pub generate: bool,

    /// Invitation that some nodes ask for.
    #[arg(
        long,
        env = "KASTRO_SIGNUP_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub token: Option<String>,

    /// Do not keep a session on this machine afterwards.
    #[arg(long)]
    pub no_session: bool,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Your user name.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `logout`.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// Folder of the session [default: ~/.config/kastro].
    #[arg(
        long,
        env = "KASTRO_CONFIG",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub config: Option<PathBuf>,
}

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

/// Options of `passwd`.
#[derive(Debug, Args)]
pub struct PasswdArgs {
    /// Read the new password from the first line of a file.
    ///
    /// `KASTRO_NEW_PASSWORD` in the environment works too; without either it is asked for.
    #[arg(
        long,
        env = "KASTRO_NEW_PASSWORD_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub new_password_file: Option<PathBuf>,

    /// Use a new random passphrase without asking, and print it.
    #[arg(long, conflicts_with = "new_password_file")]
    pub generate: bool,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `space`.
#[derive(Debug, Args)]
pub struct SpaceArgs {
    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Parses a size with an optional binary unit: `4096`, `64K`, `500M`, `1.5G`, `2T`.
fn parse_size(text: &str) -> Result<u64, String> {
    const WRONG: &str = "a size is a number with an optional unit K, M, G or T (powers of 1024)";
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(WRONG.to_owned()),
    };
    let (whole, tenths) = digits.split_once('.').unwrap_or((digits, "0"));
    let whole: u64 = whole.parse().map_err(|_| WRONG.to_owned())?;
    let tenth: u64 = tenths
        .get(..1)
        .and_then(|digit| digit.parse().ok())
        .ok_or_else(|| WRONG.to_owned())?;
    let unit_bytes = 1_u64 << shift;
    whole
        .checked_mul(unit_bytes)
        .and_then(|bytes| bytes.checked_add(unit_bytes / 10 * tenth))
        .ok_or_else(|| WRONG.to_owned())
}

fn long_tour() -> String {
    format!("{TOUR}\n\n{EXIT_CODES_HELP}")
}

const TOUR: &str = "\
First steps:
  kastro serve                          start a node (in its own terminal)
  kastro signup alice                   create an account, and stay logged in
  kastro put Photos /alice/             upload a folder as /alice/Photos
  kastro ls -l /alice/Photos
  kastro get /alice/Photos copy         download it to ./copy

Each command explains itself: kastro help put";

const SERVE_EXAMPLES: &str = "\
Examples:
  kastro serve                                     everything under ~/.kastro, on 127.0.0.1:8000
  kastro serve --data /srv/kastro --listen 0.0.0.0:8000
  kastro serve --public-host files.example.org     behind a reverse proxy that ends TLS

Ctrl-C (or SIGTERM) finishes the requests under way and stops. Killing it is safe too:
whatever was acknowledged is on the disk.";

const SIGNUP_EXAMPLES: &str = "\
Examples:
  kastro signup alice                              offers a passphrase, or type your own
  kastro signup alice --generate --json            for scripts: prints the passphrase
  KASTRO_PASSWORD=... kastro signup alice --server http://nas:8000

The password is the only key to your files. Nobody can reset it: write it down.";

const LOGIN_EXAMPLES: &str = "\
Examples:
  kastro login alice
  kastro login alice --server http://nas:8000

The session is kept encrypted in ~/.config/kastro/session; its key lies in the memory-backed
folder $XDG_RUNTIME_DIR where there is one (gone after a restart), else beside it. Both files
are readable by you alone (mode 0600). Whoever has both can act as you: `kastro logout`
removes them.";

const LS_EXAMPLES: &str = "\
Examples:
  kastro ls                     your own folder
  kastro ls -l /alice/Photos
  kastro ls -laR --json /alice  everything, for a script";

const CAT_EXAMPLES: &str = "\
Examples:
  kastro cat /alice/notes.txt
  kastro cat --offset 1000000 --length 100 /alice/film.mkv     reads only what it needs
  kastro cat --offset=-10 /alice/log.txt                       the last ten bytes";

const GET_EXAMPLES: &str = "\
Examples:
  kastro get /alice/Photos              makes ./Photos
  kastro get /alice/Photos backup       makes ./backup (backup/Photos if that exists)
  kastro get /alice/notes.txt -         prints it

Files already there with the same size and time are skipped, so an interrupted download goes
on when the command is run again. A local file that differs is left alone unless --force is
given. A file appears under its name only when it is complete.";

const PUT_EXAMPLES: &str = "\
Examples:
  kastro put notes.txt /alice/                     makes /alice/notes.txt
  kastro put Photos /alice/                        makes /alice/Photos
  kastro put Photos /alice/Pictures                makes /alice/Pictures
                                                   (Pictures/Photos if that exists)
  tar c src | kastro put - /alice/src.tar

Files already there with the same size and time are skipped, so an interrupted upload goes on
when the command is run again. A remote file that differs is left alone unless --force is
given. Files that cannot be read are reported and the rest goes on; the exit code then is 3.";

const MV_EXAMPLES: &str = "\
Examples:
  kastro mv /alice/a.txt /alice/b.txt       rename
  kastro mv /alice/a.txt /alice/docs/       move into a folder
An existing file is never replaced.";

const RM_EXAMPLES: &str = "\
Examples:
  kastro rm /alice/old.txt
  kastro rm -r /alice/OldPhotos";

const PASSWD_EXAMPLES: &str = "\
Examples:
  kastro passwd                                    asks for the present and the new password
  kastro passwd --generate                         a new random passphrase
The old password stops working at once, on every machine.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64K"), Ok(65536));
        assert_eq!(parse_size("1.5G"), Ok((1 << 30) + (1 << 30) / 10 * 5));
        for wrong in ["", "G", "1X", "-1", "1.G", "99999999999999T"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_option_takes_a_password() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                assert!(
                    !name.contains("password") || name.ends_with("password_file"),
                    "{name}"
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
