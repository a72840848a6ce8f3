//! Commands of the person who runs a node.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::parse_size;

/// Which node a command of the operator means: the one of a data folder on this machine.
///
/// When that node is running the command asks it, else it opens the folder itself.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Node")]
pub struct OperatorOptions {
    /// Data folder of the node [default: ~/.kastro].
    #[arg(long, env = "KASTRO_DATA", hide_env_values = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Options of `users`.
#[derive(Debug, Args)]
pub struct UsersArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: UsersCommand,
}

/// The commands of `users`.
#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    /// List the accounts with what they use.
    List(UsersListArgs),
    /// Show everything the node knows about an account.
    Show(UserArgs),
}

/// Options of `users list`.
#[derive(Debug, Args)]
pub struct UsersListArgs {
    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of commands about one account.
#[derive(Debug, Args)]
pub struct UserArgs {
    /// The user name.
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `quota`.
#[derive(Debug, Args)]
pub struct QuotaArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: QuotaCommand,
}

/// The commands of `quota`.
#[derive(Debug, Subcommand)]
pub enum QuotaCommand {
    /// Show the space of an account, or what new accounts get.
    Show(QuotaShowArgs),
    /// Set the space of an account; takes effect with its next write.
    Set(QuotaSetArgs),
    /// Set the space of accounts that sign up from now on.
    Default(QuotaDefaultArgs),
    /// Count what an account uses from nothing, and compare with what is recorded.
    Recount(QuotaRecountArgs),
}

/// Options of `quota show`.
#[derive(Debug, Args)]
pub struct QuotaShowArgs {
    /// The user name; without one, the default of new accounts.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `quota set`.
#[derive(Debug, Args)]
pub struct QuotaSetArgs {
    /// The user name. One that nobody has yet is let in when its owner signs up.
    #[arg(value_name = "NAME")]
    pub name: String,

    /// The space, for example 500M or 2T.
    #[arg(value_name = "SIZE", value_parser = parse_size)]
    pub size: u64,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `quota default`.
#[derive(Debug, Args)]
pub struct QuotaDefaultArgs {
    /// The space, for example 500M or 2T.
    #[arg(value_name = "SIZE", value_parser = parse_size, required_unless_present = "reset")]
    pub size: Option<u64>,

    /// Go back to what the configuration says.
    #[arg(long, conflicts_with = "size")]
    pub reset: bool,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `quota recount`.
#[derive(Debug, Args)]
pub struct QuotaRecountArgs {
    /// The user name.
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Put the record right. Without this, only say whether it is.
    #[arg(long)]
    pub apply: bool,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

pub(super) const USERS_EXAMPLES: &str = "\
Examples:
  kastro users list
  kastro users show alice
  kastro users list --json | jq -r 'select(.used_bytes > 1e9) | .name'

Works with the node running or not. Nobody's file names or contents can be shown: the node
does not have them.";

pub(super) const QUOTA_EXAMPLES: &str = "\
Examples:
  kastro quota show alice
  kastro quota set alice 50G
  kastro quota default 5G";
