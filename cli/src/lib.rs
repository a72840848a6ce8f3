//! The `kastro` program as a library: the binary, the examples and the benchmarks share its parts.
//!
//! No protocol logic lives here: only arguments, local files, sockets, prompts and messages.

pub mod args;
pub mod environment;
pub mod exit;
pub mod explain;
pub mod human;
pub mod local;
pub mod output;
pub mod password;
pub mod progress;
pub mod remote_path;
pub mod transport;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    args::Cli,
    exit::{Class, Failure},
    output::Output,
};

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output {
        json: cli.json,
        quiet: cli.quiet,
    };
    match run(cli, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            failure.class.into()
        }
    }
}

fn run(cli: Cli, _output: Output) -> Result<(), Failure> {
    Err(Failure::new(
        Class::Other,
        format!("{:?} is not part of this build yet", cli.command),
    ))
}
