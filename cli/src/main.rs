//! The `kastro` binary: a node, and the client of one.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
