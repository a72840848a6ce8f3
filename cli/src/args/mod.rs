//! The command line: every command, option and environment variable, with help texts that teach.
//!
//! A password is never an argument: arguments are visible to every process of the machine and end up in
//! shell histories.

mod account;
mod connection;
mod files;
mod link;
mod look;
mod network;
mod operator;
mod serve;
mod sites;
mod sync;
mod upkeep;

use clap::{Parser, Subcommand};

use crate::exit::EXIT_CODES_HELP;

pub use account::{LoginArgs, LogoutArgs, PasswdArgs, ShellArgs, SignupArgs, SpaceArgs};
pub use connection::Connection;
pub use files::{
    CatArgs, CpArgs, GetArgs, LinkRule, LsArgs, MkdirArgs, MvArgs, PutArgs, RmArgs, StatArgs,
    TruncateArgs, UploadsArgs, WriteArgs,
};
pub use link::{LinkArgs, LinkCommand, LinkGetArgs, LinkListArgs, LinkNewArgs, LinkRemoveArgs};
pub use look::{DuArgs, FindArgs, Kind, TreeArgs};
pub use network::{
    IdentityArgs, IdentityCommand, IdentityNodeArgs, MirrorAddArgs, MirrorAllowArgs, MirrorArgs,
    MirrorCommand, MirrorNodeArgs, MirrorUserArgs, MirrorWholeArgs, MoveArgs, NamesArgs,
    NamesCommand, NamesFileArgs, NamesFollowArgs, NamesStatusArgs,
};
pub use operator::{
    ApproveArgs, DoctorArgs, InviteArgs, InviteCommand, InviteNewArgs, InviteRevokeArgs,
    MessageSendArgs, MessagesArgs, MessagesCommand, NodeArgs, OperatorOptions, QuotaArgs,
    QuotaCommand, QuotaDefaultArgs, QuotaRecountArgs, QuotaSetArgs, QuotaShowArgs,
    SpaceRequestsArgs, SpaceRequestsCommand, UserArgs, UserRemoveArgs, UsersArgs, UsersCommand,
    WaitlistArgs, WaitlistCommand, WaitlistRemoveArgs,
};
pub use serve::{ConfigArgs, LogFormat, NodeOptions, ServeArgs, WebHashArgs};
pub use sites::{GatewayArgs, PublishArgs, UnpublishArgs};
pub use sync::SyncArgs;
pub use upkeep::{BackupArgs, CheckArgs, GcArgs, RepairArgs, RestoreArgs, ScrubArgs};

use account::{LOGIN_EXAMPLES, PASSWD_EXAMPLES, SHELL_EXAMPLES, SIGNUP_EXAMPLES};
use files::{
    CAT_EXAMPLES, GET_EXAMPLES, LS_EXAMPLES, MV_EXAMPLES, PUT_EXAMPLES, RM_EXAMPLES,
    UPLOADS_EXAMPLES, WRITE_EXAMPLES,
};
use link::LINK_EXAMPLES;
use look::FIND_EXAMPLES;
use network::{MIRROR_EXAMPLES, MOVE_EXAMPLES, NAMES_EXAMPLES, NODE_EXAMPLES};
use operator::{
    DOCTOR_EXAMPLES, INVITE_EXAMPLES, MESSAGES_EXAMPLES, QUOTA_EXAMPLES, SPACE_REQUESTS_EXAMPLES,
    USERS_EXAMPLES,
};
use serve::{CONFIG_EXAMPLES, SERVE_EXAMPLES, WEB_HASH_EXAMPLES};
use sites::{GATEWAY_EXAMPLES, PUBLISH_EXAMPLES};
use sync::SYNC_EXAMPLES;
use upkeep::{BACKUP_EXAMPLES, CHECK_EXAMPLES, GC_EXAMPLES, REPAIR_EXAMPLES, RESTORE_EXAMPLES};

/// Your files on your own machine, encrypted before they leave your hands.
///
/// One binary is both the node that stores (it cannot read what it stores) and the client that
/// encrypts. Without a command it starts the node.
#[derive(Debug, Parser)]
#[command(
    name = "kastro",
    version,
    max_term_width = 100,
    help_template = front_page(),
    after_help = TOUR,
    after_long_help = long_tour()
)]
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

/// The commands, in the order in which the front page shows them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a node: stores encrypted files for the people who sign up at it.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),

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
    /// List uploads that were begun and not finished, and give them up.
    #[command(after_help = UPLOADS_EXAMPLES)]
    Uploads(UploadsArgs),
    /// Change a part of a file, or add to its end.
    #[command(after_help = WRITE_EXAMPLES)]
    Write(WriteArgs),
    /// Cut a file, or fill it up with zeros, to a size.
    Truncate(TruncateArgs),
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
    /// Show how much folders hold.
    Du(DuArgs),
    /// Search by name, kind, size and time.
    #[command(after_help = FIND_EXAMPLES)]
    Find(FindArgs),
    /// Draw a folder with everything below it.
    Tree(TreeArgs),
    /// Keep a local folder and a folder of the account the same.
    #[command(after_help = SYNC_EXAMPLES)]
    Sync(SyncArgs),
    /// Run commands one after the other, with a current folder.
    #[command(after_help = SHELL_EXAMPLES)]
    Shell(ShellArgs),

    /// Let anybody read a file or folder, also without an account.
    #[command(after_help = PUBLISH_EXAMPLES)]
    Publish(PublishArgs),
    /// Take a publication back.
    Unpublish(UnpublishArgs),
    /// Make secret links to files and folders, and open those of others.
    #[command(after_help = LINK_EXAMPLES)]
    Link(LinkArgs),

    /// Create an account.
    #[command(after_help = SIGNUP_EXAMPLES)]
    Signup(SignupArgs),
    /// Log in and stay logged in on this machine.
    #[command(after_help = LOGIN_EXAMPLES)]
    Login(LoginArgs),
    /// Forget the session that `login` keeps.
    Logout(LogoutArgs),
    /// Change the password.
    #[command(after_help = PASSWD_EXAMPLES)]
    Passwd(PasswdArgs),
    /// Show how much space is used and how much there is.
    Space(SpaceArgs),

    /// Move the account to another node, or make a mirror its home.
    #[command(after_help = MOVE_EXAMPLES)]
    Move(MoveArgs),

    /// Show the settings of a node and where each came from.
    #[command(after_help = CONFIG_EXAMPLES)]
    Config(ConfigArgs),
    /// Look for what commonly goes wrong with a node, and say what to do.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// List, show and remove the accounts of a node.
    #[command(after_help = USERS_EXAMPLES)]
    Users(UsersArgs),
    /// Show and set how much space accounts have.
    #[command(after_help = QUOTA_EXAMPLES)]
    Quota(QuotaArgs),
    /// Delete blocks that nothing needs any more.
    #[command(after_help = GC_EXAMPLES)]
    Gc(GcArgs),
    /// List, grant and decline requests for more space.
    #[command(after_help = SPACE_REQUESTS_EXAMPLES)]
    SpaceRequests(SpaceRequestsArgs),
    /// Make, list and revoke sign-up tokens.
    #[command(after_help = INVITE_EXAMPLES)]
    Invite(InviteArgs),
    /// Write to the users of a node, and read what they wrote.
    #[command(after_help = MESSAGES_EXAMPLES)]
    Messages(MessagesArgs),
    /// Show who waits for a place.
    Waitlist(WaitlistArgs),
    /// Verify everything a node stores.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Put right what `check` finds.
    #[command(after_help = REPAIR_EXAMPLES)]
    Repair(RepairArgs),
    /// Show how the slow verification in the background is doing.
    Scrub(ScrubArgs),
    /// Back a node up, running or not.
    #[command(after_help = BACKUP_EXAMPLES)]
    Backup(BackupArgs),
    /// Make a data folder from a backup.
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(RestoreArgs),
    /// Keep copies of accounts of other nodes, or let another node keep one of yours.
    #[command(after_help = MIRROR_EXAMPLES)]
    Mirror(MirrorArgs),
    /// Show who gives out the names of users, and take that over.
    #[command(after_help = NAMES_EXAMPLES)]
    Names(NamesArgs),
    /// Show who this node is to other nodes, and give it a new identity.
    #[command(after_help = NODE_EXAMPLES)]
    Node(IdentityArgs),
    /// Serve what users publish as web sites.
    #[command(after_help = GATEWAY_EXAMPLES)]
    Gateway(GatewayArgs),
    /// Print the hash of a web application's files, to compare with what a node serves.
    #[command(after_help = WEB_HASH_EXAMPLES)]
    WebHash(WebHashArgs),
}

/// Headings of the front page and what stands below them; a command that is named nowhere is the operator's.
const GROUPS: [(&str, &[&str]); 3] = [
    (
        "Files",
        &[
            "ls",
            "cat",
            "get",
            "put",
            "uploads",
            "write",
            "truncate",
            "mkdir",
            "mv",
            "cp",
            "rm",
            "stat",
            "du",
            "find",
            "tree",
            "sync",
            "shell",
            "publish",
            "unpublish",
            "link",
        ],
    ),
    (
        "Account",
        &["signup", "login", "logout", "passwd", "space", "move"],
    ),
    ("Operator (of a node on this machine)", &["serve"]),
];

/// Returns the template of the front page: clap knows one flat list of commands only.
fn front_page() -> String {
    let all = Command::augment_subcommands(clap::Command::new("kastro"));
    let operator = GROUPS.len() - 1;
    let group_of = |name: &str| {
        let named = GROUPS.iter().position(|(_, names)| names.contains(&name));
        named.unwrap_or(operator)
    };
    let width = all
        .get_subcommands()
        .map(|command| command.get_name().len());
    let width = width.max().unwrap_or(0);
    let mut page = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    for (index, (heading, _)) in GROUPS.iter().enumerate() {
        page.push_str(&format!("\n{heading}:\n"));
        for command in all.get_subcommands() {
            let name = command.get_name();
            if group_of(name) == index && !command.is_hide_set() {
                let about = command.get_about().map(ToString::to_string);
                let about = about.unwrap_or_default();
                page.push_str(&format!("  {name:width$}  {about}\n"));
            }
        }
    }
    page.push_str("\nOptions:\n{options}{after-help}");
    page
}

fn long_tour() -> String {
    format!("{TOUR}\n\n{EXIT_CODES_HELP}")
}

/// Parses a size with an optional binary unit: `4096`, `64K`, `500 MiB`, `1.5G`, `2T`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    crate::human::parse_size(text).map_err(str::to_owned)
}

const TOUR: &str = "\
First steps:
  kastro serve                          start a node (in its own terminal)
  kastro signup alice                   create an account, and stay logged in
  kastro put Photos /alice/             upload a folder as /alice/Photos
  kastro ls -l /alice/Photos
  kastro get /alice/Photos copy         download it to ./copy

Each command explains itself: kastro help put";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_front_page_names_every_command_once() {
        let page = front_page();
        for command in Cli::command().get_subcommands() {
            let line = format!("\n  {} ", command.get_name());
            assert_eq!(page.matches(&line).count(), 1, "{line}");
        }
        let known: Vec<String> = Cli::command()
            .get_subcommands()
            .map(|command| command.get_name().to_owned())
            .collect();
        for name in GROUPS.iter().flat_map(|(_, names)| names.iter()) {
            assert!(known.iter().any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn no_option_takes_a_password() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                assert!(
                    !name.contains("password")
                        || name.ends_with("password_file")
                        || !argument.get_action().takes_values(),
                    "{name}"
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
