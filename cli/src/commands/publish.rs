//! `kastro publish` and `kastro unpublish`: what anybody may read, also without an account.

use crate::{
    args::{PublishArgs, UnpublishArgs},
    connect::connect,
    exit::Failure,
    output::Output,
    remote_path::absolute,
};

/// Publishes.
///
/// # Errors
///
/// All of the client's.
pub async fn run(args: &PublishArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let path = absolute(&args.path.of(connected.user()));
    let done = connected.session.publish(&path).await;
    connected.close().await;
    done?;
    output.hint("Anybody can read it now, and everything below it; copies may stay for ever.");
    Ok(())
}

/// Takes a publication back.
///
/// # Errors
///
/// All of the client's.
pub async fn take_back(args: &UnpublishArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let path = absolute(&args.path.of(connected.user()));
    let done = connected.session.unpublish(&path).await;
    connected.close().await;
    done?;
    output.hint("It is no longer handed out. Whoever read it may have kept a copy, or the key.");
    Ok(())
}
