//! Commands of the person who runs a node.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::parse_size;
use crate::config::Flags;

/// Which node a command of the operator means: the one of a data folder on this machine.
///
/// When that node is running the command asks it, else it opens the folder itself.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Node")]
pub struct OperatorOptions {
    /// Data folder of the node [env: KASTRO_DATA] [default: ~/.kastro].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// File with the node's settings [env: KASTRO_CONFIG] [default: config.toml in the data folder].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl OperatorOptions {
    /// Returns what was given as values of settings.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags {
            data: self.data.clone(),
            config: self.config.clone(),
            ..Flags::default()
        }
    }
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
    List(NodeArgs),
    /// Show everything the node knows about an account.
    Show(UserArgs),
    /// Remove an account and its data from this node. There is no undo.
    ///
    /// The name stays taken: it belongs to whoever holds its key, on every node of the network. A
    /// removal that was cut off goes on when the command is run again.
    Remove(UserRemoveArgs),
}

/// Options of `users remove`.
#[derive(Debug, Args)]
pub struct UserRemoveArgs {
    /// The user name.
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Also when this node is the account's home, or has what a move of it still needs: its files exist nowhere else.
    #[arg(long)]
    pub force: bool,

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

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Compare the clock with this server's too, for example https://www.example.org.
    #[arg(long, value_name = "URL")]
    pub time_source: Option<String>,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `space-requests`.
#[derive(Debug, Args)]
pub struct SpaceRequestsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SpaceRequestsCommand,
}

/// The commands of `space-requests`.
#[derive(Debug, Subcommand)]
pub enum SpaceRequestsCommand {
    /// List the requests that wait.
    List(NodeArgs),
    /// Grant a request.
    Approve(ApproveArgs),
    /// Remove a request; the account keeps the space it has.
    Decline(UserArgs),
}

/// Options of commands without any of their own.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `space-requests approve`.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// The user name.
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Grant this much instead of what was asked for.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub size: Option<u64>,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `invite`.
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: InviteCommand,
}

/// The commands of `invite`.
#[derive(Debug, Subcommand)]
pub enum InviteCommand {
    /// Make sign-up tokens and print them: the only time they are shown.
    New(InviteNewArgs),
    /// List the ids of the tokens that nobody has used yet.
    List(NodeArgs),
    /// Make a token worthless.
    Revoke(InviteRevokeArgs),
}

/// Options of `invite new`.
#[derive(Debug, Args)]
pub struct InviteNewArgs {
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: u32,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `invite revoke`.
#[derive(Debug, Args)]
pub struct InviteRevokeArgs {
    /// The id that `invite list` shows, or the token itself.
    #[arg(value_name = "TOKEN")]
    pub token: String,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `messages`.
#[derive(Debug, Args)]
pub struct MessagesArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: MessagesCommand,
}

/// The commands of `messages`.
#[derive(Debug, Subcommand)]
pub enum MessagesCommand {
    /// Show what you and a user wrote to each other.
    List(UserArgs),
    /// Write to a user, who sees it at the next login.
    Send(MessageSendArgs),
}

/// Options of `messages send`.
#[derive(Debug, Args)]
pub struct MessageSendArgs {
    /// The user name.
    #[arg(value_name = "NAME")]
    pub name: String,

    /// The message (`-`: standard input).
    #[arg(value_name = "TEXT")]
    pub text: String,

    /// The id of the user's message that this one answers.
    #[arg(long, value_name = "ID")]
    pub reply_to: Option<i64>,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `waitlist`.
#[derive(Debug, Args)]
pub struct WaitlistArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: WaitlistCommand,
}

/// The commands of `waitlist`.
#[derive(Debug, Subcommand)]
pub enum WaitlistCommand {
    /// Print the addresses, one a line.
    List(NodeArgs),
    /// Take an address off the list.
    Remove(WaitlistRemoveArgs),
}

/// Options of `waitlist remove`.
#[derive(Debug, Args)]
pub struct WaitlistRemoveArgs {
    /// The address.
    #[arg(value_name = "ADDRESS")]
    pub address: String,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

pub(super) const DOCTOR_EXAMPLES: &str = "\
Examples:
  kastro doctor
  kastro doctor --time-source https://www.example.org
  kastro doctor --json | jq -c 'select(.level != \"ok\")'

No data is changed. The exit code is 3 when a check failed; warnings do not count.";

pub(super) const SPACE_REQUESTS_EXAMPLES: &str = "\
Examples:
  kastro space-requests list
  kastro space-requests approve alice              what was asked for
  kastro space-requests approve alice --size 50G";

pub(super) const INVITE_EXAMPLES: &str = "\
Examples:
  kastro invite new --count 3      three tokens, each good for one account
  kastro invite list               their ids; the tokens are not stored
  kastro invite revoke 8c4f1d2ab0e9

A person uses one as: KASTRO_SIGNUP_TOKEN=... kastro signup NAME";

pub(super) const MESSAGES_EXAMPLES: &str = "\
Examples:
  kastro messages send alice 'The node moves on Sunday; expect an hour without it.'
  kastro messages send alice - < letter.txt
  kastro messages list alice";

pub(super) const USERS_EXAMPLES: &str = "\
Examples:
  kastro users list
  kastro users show alice
  kastro users remove alice --force
  kastro users list --json | jq -r 'select(.used_bytes > 1e9) | .name'

Works with the node running or not. Nobody's file names or contents can be shown: the node
does not have them.";

pub(super) const QUOTA_EXAMPLES: &str = "\
Examples:
  kastro quota show alice
  kastro quota set alice 50G
  kastro quota default 5G";
