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
        true => connected.session.restore_here(args.force).await,
        false => {
            output.hint(
                "Everything is copied first, which may take long; the account can be used meanwhile. Broken off, it goes on when \
                 the command is run again.",
            );
            connected.session.move_here().await
        }
    };
    let user = connected.user().to_owned();
    connected.close().await;
    let (from, lost_factors) = match moved? {
        Moved::Done { from, lost_factors } => (Some(from.bare_multihash_text()), lost_factors),
        Moved::WasHere => (None, 0),
    };
    if output.json {
        return output.json(&serde_json::json!({
            "user": user, "from": from, "lost_second_factors": lost_factors,
        }));
    }
    match from {
        Some(from) => {
            output.line(&format!(
                "{user} lives at this node now, and no longer at {from}"
            ))?;
            output
                .hint("Log in at this node from now on; friends and links find it by themselves.");
            output.hint(
                "A link begins with the address of the node it was made at: once that is off, `kastro link list` shows it with \
                 this one's.",
            );
            if args.lost {
                output.hint(
                    "What was written after this node's last look at the old home is not here.",
                );
            }
            if lost_factors > 0 || args.lost {
                output.hint(
                    "Second factors stay behind: the password alone opens the account until you set one up again.",
                );
            }
            Ok(())
        }
        None => output.line(&format!("{user} lives at this node already")),
    }
}
