//! `kastro space`: how much is used and how much there is.

use crate::{args::SpaceArgs, connect::connect, exit::Failure, human, output::Output};

/// Runs the command.
///
/// # Errors
///
/// When the node cannot be asked.
pub async fn run(args: &SpaceArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let space = connected.session.space().await;
    connected.close().await;
    let space = space?;
    if output.json {
        return output.json(&serde_json::json!({
            "used_bytes": space.used_bytes, "quota_bytes": space.quota_bytes,
        }));
    }
    let free = space.quota_bytes.saturating_sub(space.used_bytes);
    output.line(&format!(
        "{} used of {}, {} free",
        human::size(space.used_bytes),
        human::size(space.quota_bytes),
        human::size(free),
    ))
}
