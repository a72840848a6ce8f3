//! `kastro move`: changes the node that an account lives at.

use cryptree::client::Moved;

use crate::{args::MoveArgs, connect::connect, exit::Failure, output::Output};

/// Runs the command.
///
/// # Errors
///
/// When either node refuses; the account stays where it is then, and the command can be run again.
pub async fn run(args: &MoveArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let moved = match args.lost {
        true => connected.session.restore_here().await,
        false => connected.session.move_here().await,
    };
    let user = connected.user().to_owned();
    connected.close().await;
    let from = match moved? {
        Moved::Done { from } => Some(from.bare_multihash_text()),
        Moved::WasHere => None,
    };
    if output.json {
        return output.json(&serde_json::json!({ "user": user, "from": from }));
    }
    match from {
        Some(from) => {
            output.line(&format!(
                "{user} lives at this node now, and no longer at {from}"
            ))?;
            output
                .hint("Log in at this node from now on; friends and links find it by themselves.");
            Ok(())
        }
        None => output.line(&format!("{user} lives at this node already")),
    }
}
