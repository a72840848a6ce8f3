//! `kastro rm`: deletes files, and folders when told so.

use cryptree::ClientError;

use crate::{
    args::RmArgs,
    connect::{Connected, connect},
    exit::{Class, Failure},
    output::Output,
    remote_path::absolute,
};

/// Runs the command.
///
/// # Errors
///
/// When something cannot be deleted; what came before it is gone.
pub async fn run(args: &RmArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let removed = remove_all(args, &connected).await;
    connected.close().await;
    removed
}

async fn remove_all(args: &RmArgs, connected: &Connected) -> Result<(), Failure> {
    for path in &args.paths {
        let components = path.of(connected.user());
        let path = absolute(&components);
        if components.len() < 2 {
            return Err(Failure::new(
                Class::NotAllowed,
                format!("`{path}` is the account's own folder and cannot be deleted"),
            ));
        }
        match remove(args, connected, &path).await {
            Err(ClientError::NotFound { .. }) if args.force => {}
            Err(ClientError::IsADirectory { .. }) => {
                return Err(Failure::new(Class::Exists, format!("`{path}` is a folder"))
                    .help("--recursive deletes it with everything in it"));
            }
            removed => removed?,
        }
    }
    Ok(())
}

async fn remove(args: &RmArgs, connected: &Connected, path: &str) -> Result<(), ClientError> {
    if !args.recursive && connected.session.stat(path).await?.is_directory {
        return Err(ClientError::IsADirectory {
            path: path.to_owned(),
        });
    }
    connected.session.delete(path).await
}
