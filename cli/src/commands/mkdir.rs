//! `kastro mkdir`: creates folders.

use crate::{
    args::MkdirArgs,
    connect::{Connected, connect},
    exit::Failure,
    output::Output,
    remote_path::absolute,
};

/// Runs the command.
///
/// # Errors
///
/// When a folder cannot be made; those before it are.
pub async fn run(args: &MkdirArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let made = make_all(args, &connected).await;
    connected.close().await;
    made
}

async fn make_all(args: &MkdirArgs, connected: &Connected) -> Result<(), Failure> {
    for path in &args.paths {
        let path = absolute(&path.of(connected.user()));
        if args.parents {
            connected.session.make_folders(&path).await?;
        } else {
            connected.session.make_folder(&path).await?;
        }
    }
    Ok(())
}
