//! Options of commands about other nodes: names, copies, moving house.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Connection, OperatorOptions, parse_size};

/// Options of `node`.
#[derive(Debug, Args)]
pub struct IdentityArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: IdentityCommand,
}

/// The commands of `node`.
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// Show the node's id, those it had before, and the addresses at which other nodes reach it.
    Status(IdentityNodeArgs),
    /// Give the node a new key and id. It goes on answering for the old ones.
    ///
    /// Nobody else has to do anything: people's claims, settings and mirrors that name the old id lead to the new
    /// one, by a record that the old key signs. Do it when somebody else may have seen `node.key`; that
    /// somebody can still pose as the old id until those who ask for it have found the record.
    Rotate(IdentityNodeArgs),
}

/// Options of commands about the node's identity.
#[derive(Debug, Args)]
pub struct IdentityNodeArgs {
    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `names`.
#[derive(Debug, Args)]
pub struct NamesArgs {
    /// What to do; `status` when absent.
    #[command(subcommand)]
    pub command: NamesCommand,
}

/// The commands of `names`.
#[derive(Debug, Subcommand)]
pub enum NamesCommand {
    /// Show who gives out the names that this node knows, and how following them goes.
    Status(NamesStatusArgs),
    /// Get the table of names from another node: after the authority has moved.
    Follow(NamesFollowArgs),
    /// Write the keys of this node's table of names to a file, so that another node can take over.
    Export(NamesFileArgs),
    /// Make this node the authority of the network it follows. The old one must be gone for good.
    TakeOver(NamesFileArgs),
}

/// Options of `names status`.
#[derive(Debug, Args)]
pub struct NamesStatusArgs {
    /// Look at the authority's table first, instead of within the next minute.
    #[arg(long)]
    pub sync: bool,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `names follow`.
#[derive(Debug, Args)]
pub struct NamesFollowArgs {
    /// Id of the node to ask.
    #[arg(value_name = "NODE", required_unless_present = "reset")]
    pub from: Option<String>,

    /// Go back to the node that the table itself and the settings name.
    #[arg(long, conflicts_with = "from")]
    pub reset: bool,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `names export` and `names take-over`.
#[derive(Debug, Args)]
pub struct NamesFileArgs {
    /// The file with the keys. Whoever has it can give out names: keep it like a password.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `mirror`.
#[derive(Debug, Args)]
pub struct MirrorArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: MirrorCommand,
}

/// The commands of `mirror`.
#[derive(Debug, Subcommand)]
pub enum MirrorCommand {
    /// Operator: keep a copy of a user whose home is another node.
    Add(MirrorAddArgs),
    /// Operator: end a copy and delete it from this node.
    Rm(MirrorUserArgs),
    /// Operator: show the copies and whether they are in step.
    Status(MirrorNodeArgs),
    /// Operator: bring all copies into step now.
    Run(MirrorNodeArgs),
    /// Operator: keep copies of all users of another node, which has this one's `instance_bat`.
    Node(MirrorWholeArgs),
    /// User: permit another node to keep a copy of your account, which it cannot read.
    Allow(MirrorAllowArgs),
}

/// Options of `mirror add`.
#[derive(Debug, Args)]
pub struct MirrorAddArgs {
    /// The user name.
    #[arg(value_name = "USER")]
    pub user: String,

    /// Id of the node to copy from [default: the user's home].
    #[arg(long, value_name = "NODE")]
    pub from: Option<String>,

    /// Space of the copy, for example 500G [default: what new accounts get].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub quota: Option<u64>,

    /// Read the user's mirror token from the first line of a file, when the user does not bring it with
    /// `kastro mirror allow`. Without the login data the account cannot be restored from this copy by password.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of commands about one copy.
#[derive(Debug, Args)]
pub struct MirrorUserArgs {
    /// The user name.
    #[arg(value_name = "USER")]
    pub user: String,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of commands about all copies.
#[derive(Debug, Args)]
pub struct MirrorNodeArgs {
    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `mirror node`.
#[derive(Debug, Args)]
pub struct MirrorWholeArgs {
    /// Id of the other node.
    #[arg(value_name = "NODE", required_unless_present = "end")]
    pub from: Option<String>,

    /// File whose first line is the other node's `instance_bat`.
    #[arg(long, value_name = "FILE", required_unless_present = "end")]
    pub token_file: Option<PathBuf>,

    /// Space of each copy, for example 500G [default: what new accounts get].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub quota: Option<u64>,

    /// End it; the copies stay.
    #[arg(long, conflicts_with_all = ["from", "token_file", "quota"])]
    pub end: bool,

    /// Which node.
    #[command(flatten)]
    pub node: OperatorOptions,
}

/// Options of `mirror allow`.
#[derive(Debug, Args)]
pub struct MirrorAllowArgs {
    /// Address of the node that shall keep the copy.
    #[arg(value_name = "URL")]
    pub at: String,

    /// How to reach your own node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `move`.
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// The old home is lost for good: go on with the copy that this node has.
    #[arg(long)]
    pub lost: bool,

    /// With --lost: also when the old home still answers. What was written there since the copy was last in step
    /// is given up.
    #[arg(long, requires = "lost")]
    pub force: bool,

    /// How to reach the node to move to.
    #[command(flatten)]
    pub connection: Connection,
}

pub(super) const NODE_EXAMPLES: &str = "\
Examples:
  kastro node status                               the id and addresses to give to other operators
  kastro node rotate                               a new key and id; then restart the node

docs/p2p.md tells what others see of it.";

pub(super) const NAMES_EXAMPLES: &str = "\
Examples:
  kastro names status                              prints KEY@NODE, for other nodes' name_authority
  kastro serve --set name_authority=KEY@NODE       joins that network, on a node's first start
  kastro names export names.keys                   on the authority: for the day it is lost
  kastro names take-over names.keys                on the node that replaces it; then restart it

docs/mirror.md tells the whole story.";

pub(super) const MIRROR_EXAMPLES: &str = "\
Examples:
  kastro mirror add alice --quota 500G             the operator makes room for a copy
  kastro mirror allow http://friend:8000           alice permits it; her node is asked once a minute
  kastro mirror status
  kastro move --server http://friend:8000 --lost   alice, when her own node is gone

A copy is ciphertext: whoever keeps it reads no name and no line. docs/mirror.md tells what it does see.";

pub(super) const MOVE_EXAMPLES: &str = "\
Examples:
  kastro move --server http://new:8000 --user alice          moves the account to that node
  kastro move --server http://mirror:8000 --user alice --lost
                                                   makes a mirror the home when the old one is gone

Friends, shared folders and links go on working. A move that breaks off goes on when it is run again.";
