//! `kastro config`: the settings in force, and a file to start from.

use crate::{args::ConfigArgs, config, exit::Failure, output::Output};

/// Runs the command.
///
/// # Errors
///
/// When a source of settings cannot be understood.
pub fn run(args: &ConfigArgs, output: Output) -> Result<(), Failure> {
    if args.template {
        return output.bytes(config::template().as_bytes());
    }
    if args.table {
        return output.bytes(config::table().as_bytes());
    }
    let effective = config::load(&args.node.flags())?;
    for variable in config::unknown_variables() {
        output.hint(&format!(
            "{variable} is set and means nothing to this version"
        ));
    }
    if output.json {
        return output.json(&config::json(&effective));
    }
    output.bytes(config::effective(&effective).as_bytes())
}
