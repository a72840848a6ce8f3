//! Commands about one's own account.

use std::path::PathBuf;

use clap::Args;

use super::Connection;

/// Options of `signup`.
#[derive(Debug, Args)]
pub struct SignupArgs {
    /// The user name you want: lower case letters and digits, with single `-` between.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Use a new random passphrase without asking, and print it.
    #[arg(long, conflicts_with = "password_file")]
    pub generate: bool,

    /// Take a password that is very short or very long.
    #[arg(long)]
    pub allow_weak_password: bool,

    /// Invitation that some nodes ask for [env: KASTRO_SIGNUP_TOKEN].
    #[arg(long, value_name = "TOKEN")]
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
        env = "KASTRO_SESSION_DIR",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub session_dir: Option<PathBuf>,
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

    /// Take a password that is very short or very long.
    #[arg(long)]
    pub allow_weak_password: bool,

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

pub(super) const SIGNUP_EXAMPLES: &str = "\
Examples:
  kastro signup alice                              offers a passphrase, or type your own
  kastro signup alice --generate --json            for scripts: prints the passphrase
  KASTRO_PASSWORD=... kastro signup alice --server http://nas:8000

The password is the only key to your files. Nobody can reset it: write it down.";

pub(super) const LOGIN_EXAMPLES: &str = "\
Examples:
  kastro login alice
  kastro login alice --server http://nas:8000

The session is kept encrypted in ~/.config/kastro/session; its key lies in the memory-backed
folder $XDG_RUNTIME_DIR where there is one (gone after a restart), else beside it. Both files
are readable by you alone (mode 0600). Whoever has both can act as you: `kastro logout`
removes them.";

pub(super) const PASSWD_EXAMPLES: &str = "\
Examples:
  kastro passwd                                    asks for the present and the new password
  kastro passwd --generate                         a new random passphrase
The old password stops working at once, on every machine.";

/// Options of `shell`.
#[derive(Debug, Args)]
pub struct ShellArgs {
    /// From a pipe: go on after a command that failed.
    #[arg(short, long)]
    pub keep_going: bool,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

pub(super) const SHELL_EXAMPLES: &str = "\
Examples:
  kastro shell
  printf 'cd Photos\\nmkdir 2026\\n' | kastro shell     a script stops at the first failure";
