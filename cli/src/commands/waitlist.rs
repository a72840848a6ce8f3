//! `kastro waitlist`: who wants to be told when there is room.

use node::operator::waitlist::{ListWaiting, RemoveWaiting, Waiting};

use crate::{
    args::{WaitlistArgs, WaitlistCommand},
    exit::Failure,
    human,
    operator::{Operator, item},
    output::Output,
};

/// Runs the command.
///
/// # Errors
///
/// When the node cannot be reached, or refuses.
pub async fn run(args: &WaitlistArgs, output: Output) -> Result<(), Failure> {
    let operator = Operator::reach(match &args.command {
        WaitlistCommand::List(args) => &args.node,
        WaitlistCommand::Remove(args) => &args.node,
    })
    .await?;
    let done = with(&operator, &args.command, output).await;
    operator.close().await;
    done
}

async fn with(
    operator: &Operator,
    command: &WaitlistCommand,
    output: Output,
) -> Result<(), Failure> {
    match command {
        WaitlistCommand::List(_) => {
            let listed = operator
                .run(ListWaiting {}, output, |value| {
                    if output.json {
                        return output.json(&value);
                    }
                    let waiting: Waiting = item(value)?;
                    output.line(&human::printable(&waiting.address))
                })
                .await?;
            output.hint(&format!("{} addresses", listed.addresses));
            Ok(())
        }
        WaitlistCommand::Remove(args) => {
            let address = args.address.clone();
            operator.ask_for(RemoveWaiting { address }, output).await?;
            if output.json {
                return output.json(&serde_json::json!({ "removed": args.address }));
            }
            output.line(&format!("removed {}", human::printable(&args.address)))
        }
    }
}
