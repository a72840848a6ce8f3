//! How a client command reaches the node and proves who asks.

use std::path::PathBuf;

use clap::Args;

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

    /// Transfer no more than this per second, in both directions together: `500K`, `2M`.
    #[arg(
        long,
        env = "KASTRO_LIMIT",
        hide_env_values = true,
        value_name = "SIZE",
        value_parser = super::parse_size,
        hide_short_help = true
    )]
    pub limit: Option<u64>,

    /// Ask no node: go on with the kept session and what was kept of files and folders.
    #[arg(
        long,
        env = "KASTRO_OFFLINE",
        hide_env_values = true,
        hide_short_help = true
    )]
    pub offline: bool,

    /// Keep up to this much of what was read on this machine, encrypted; 0 keeps nothing. Blocks larger than a thousandth of
    /// it are not kept: with 2G or more, also the content of large files.
    #[arg(
        long,
        env = "KASTRO_CACHE_SIZE",
        hide_env_values = true,
        value_name = "SIZE",
        default_value = "256M",
        value_parser = super::parse_size,
        hide_short_help = true
    )]
    pub cache_size: u64,

    /// Folder of the session that `login` keeps, and of the cache [default: ~/.config/kastro].
    #[arg(
        long,
        env = "KASTRO_SESSION_DIR",
        hide_env_values = true,
        value_name = "DIR",
        hide_short_help = true
    )]
    pub session_dir: Option<PathBuf>,
}
