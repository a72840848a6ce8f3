//! The `kastro` program as a library: the binary, the examples and the benchmarks share its parts.
//!
//! No protocol logic lives here: only arguments, local files, sockets, prompts and messages.

pub mod args;
pub mod commands;
pub mod config;
pub mod connect;
pub mod environment;
pub mod exit;
pub mod explain;
pub mod gateway;
pub mod human;
pub mod local;
pub mod log;
pub mod operator;
pub mod output;
pub mod password;
pub mod progress;
pub mod remote_path;
pub mod secrets;
pub mod session;
pub mod shell;
pub mod strength;
pub mod sync;
pub mod thumbnail;
pub mod transport;

use std::{process::ExitCode, time::Duration};

use clap::Parser;

use crate::{
    args::{Cli, Command},
    commands::{
        backup, cat, check, config as config_command, doctor, du, find, gateway as gateway_command,
        gc, get, identity, invite, link, login, ls, messages, mirror, mkdir, mv, names, passwd,
        publish, put, quota, relocate, rm, scrub, serve, signup, space, space_requests, stat,
        sync as sync_command, tree, uploads, users, waitlist, web_hash, write,
    },
    exit::{Class, Failure},
    output::Output,
};

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    if thumbnail::is_asked_for() {
        return thumbnail::run_worker();
    }
    // First of all: the environment may hold a password.
    memory::keep_private();
    thumbnail::announce_program();
    secrets::take();
    let mut cli = Cli::parse();
    if cli.command.is_none() {
        cli = Cli::parse_from(std::env::args_os().chain(["serve".into()]));
    }
    let output = Output {
        json: cli.json,
        quiet: cli.quiet,
    };
    memory::share_one_heap();
    if !matches!(cli.command, Some(Command::Serve(_))) {
        memory::keep_out_of_swap();
        memory::keep_large_buffers();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(run(cli, output));
            // A prompt that nobody will answer any more must not keep the process.
            runtime.shutdown_timeout(SHUTDOWN_GRACE);
            ended
        }
        Err(error) => Err(Failure::new(Class::Other, format!("cannot start: {error}"))),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            failure.class.into()
        }
    }
}

async fn run(cli: Cli, output: Output) -> Result<(), Failure> {
    let command = cli
        .command
        .ok_or_else(|| Failure::new(Class::Usage, "a command is needed"))?;
    if let Command::Serve(args) = &command {
        // It ends by signals in its own way.
        return serve::run(args, output).await;
    }
    if let Command::Shell(args) = &command {
        // An interruption ends what it runs, not itself.
        return Box::pin(shell::run(args, output)).await;
    }
    let mut working = tokio::spawn(async move { client_command(&command, output).await });
    let interrupted = tokio::select! {
        ended = &mut working => {
            return ended.unwrap_or_else(|error| {
                Err(Failure::new(Class::Other, format!("a defect of this program: {error}")))
            });
        }
        interrupted = tokio::signal::ctrl_c() => interrupted,
    };
    working.abort();
    // What was half written is tidied up while the work is dropped.
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, working).await;
    password::restore_terminal();
    Err(match interrupted {
        Ok(()) => Failure::new(Class::Interrupted, "interrupted")
            .help("nothing that was acknowledged is lost; run the command again to continue"),
        Err(error) => Failure::new(Class::Other, format!("cannot listen to signals: {error}")),
    })
}

async fn client_command(command: &Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => Box::pin(serve::run(args, output)).await,
        Command::Signup(args) => Box::pin(signup::run(args, output)).await,
        Command::Login(args) => Box::pin(login::run(args, output)).await,
        Command::Logout(args) => login::forget(args, output),
        Command::Ls(args) => Box::pin(ls::run(args, output)).await,
        Command::Cat(args) => Box::pin(cat::run(args, output)).await,
        Command::Get(args) => Box::pin(get::run(args, output)).await,
        Command::Put(args) => Box::pin(put::run(args, output)).await,
        Command::Uploads(args) => Box::pin(uploads::run(args, output)).await,
        Command::Write(args) => Box::pin(write::run(args, output)).await,
        Command::Truncate(args) => Box::pin(write::truncate(args, output)).await,
        Command::Mkdir(args) => Box::pin(mkdir::run(args, output)).await,
        Command::Mv(args) => Box::pin(mv::run(args, output)).await,
        Command::Cp(args) => Box::pin(mv::copy(args, output)).await,
        Command::Rm(args) => Box::pin(rm::run(args, output)).await,
        Command::Stat(args) => Box::pin(stat::run(args, output)).await,
        Command::Du(args) => Box::pin(du::run(args, output)).await,
        Command::Find(args) => Box::pin(find::run(args, output)).await,
        Command::Tree(args) => Box::pin(tree::run(args, output)).await,
        Command::Shell(args) => Box::pin(shell::run(args, output)).await,
        Command::Sync(args) => Box::pin(sync_command::run(args, output)).await,
        Command::Passwd(args) => Box::pin(passwd::run(args, output)).await,
        Command::Space(args) => Box::pin(space::run(args, output)).await,
        Command::Config(args) => config_command::run(args, output),
        Command::Doctor(args) => Box::pin(doctor::run(args, output)).await,
        Command::Users(args) => Box::pin(users::run(args, output)).await,
        Command::Quota(args) => Box::pin(quota::run(args, output)).await,
        Command::Gc(args) => Box::pin(gc::run(args, output)).await,
        Command::Check(args) => Box::pin(check::run(args, output)).await,
        Command::Repair(args) => Box::pin(check::repair(args, output)).await,
        Command::Scrub(args) => Box::pin(scrub::run(args, output)).await,
        Command::Backup(args) => Box::pin(backup::run(args, output)).await,
        Command::Restore(args) => Box::pin(backup::run_restore(args, output)).await,
        Command::WebHash(args) => web_hash::run(args, output),
        Command::SpaceRequests(args) => Box::pin(space_requests::run(args, output)).await,
        Command::Invite(args) => Box::pin(invite::run(args, output)).await,
        Command::Messages(args) => Box::pin(messages::run(args, output)).await,
        Command::Waitlist(args) => Box::pin(waitlist::run(args, output)).await,
        Command::Move(args) => Box::pin(relocate::run(args, output)).await,
        Command::Mirror(args) => Box::pin(mirror::run(args, output)).await,
        Command::Names(args) => Box::pin(names::run(args, output)).await,
        Command::Node(args) => Box::pin(identity::run(args, output)).await,
        Command::Publish(args) => Box::pin(publish::run(args, output)).await,
        Command::Unpublish(args) => Box::pin(publish::take_back(args, output)).await,
        Command::Link(args) => Box::pin(link::run(args, output)).await,
        Command::Gateway(args) => Box::pin(gateway_command::run(args, output)).await,
    }
}

/// The state of a transfer is large, and unoptimized builds copy it around on the stack.
const STACK_BYTES: usize = 8 << 20;
/// How long the end of the program waits for work that was told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
