//! `kastro mv` and `kastro cp`: moves, renames and copies within the account.

use cryptree::ClientError;

use crate::{
    args::{CpArgs, MvArgs},
    connect::{Connected, connect},
    exit::{Class, Failure},
    output::Output,
    remote_path::{RemotePath, absolute},
};

/// Runs `mv`.
///
/// # Errors
///
/// When it cannot be moved; it is where it was then.
pub async fn run(args: &MvArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let moved = async {
        let (from, to) = ends(&connected, &args.from, &args.to).await?;
        Ok(connected.session.move_to(&from, &to).await?)
    }
    .await;
    connected.close().await;
    moved
}

/// Runs `cp`.
///
/// # Errors
///
/// When it cannot be copied.
pub async fn copy(args: &CpArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let copied = async {
        let (from, to) = ends(&connected, &args.from, &args.to).await?;
        if !args.recursive && connected.session.stat(&from).await?.is_directory {
            return Err(Failure::new(Class::Exists, format!("`{from}` is a folder"))
                .help("--recursive copies it with everything in it"));
        }
        Ok(connected.session.copy(&from, &to).await?)
    }
    .await;
    connected.close().await;
    copied
}

/// Returns both paths; an existing folder as target receives the item under its own name.
async fn ends(
    connected: &Connected,
    from: &RemotePath,
    to: &RemotePath,
) -> Result<(String, String), Failure> {
    let from = from.of(connected.user());
    let mut target = to.of(connected.user());
    match connected.session.stat(&absolute(&target)).await {
        Ok(entry) if entry.is_directory => target.extend(from.last().cloned()),
        Ok(_) if to.asks_for_folder() => {
            return Err(Failure::new(
                Class::Exists,
                format!("`{}` is not a folder", absolute(&target)),
            ));
        }
        Ok(_) => {}
        Err(ClientError::NotFound { .. }) if !to.asks_for_folder() => {}
        Err(error) => return Err(error.into()),
    }
    Ok((absolute(&from), absolute(&target)))
}
