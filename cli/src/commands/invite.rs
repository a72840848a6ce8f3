//! `kastro invite`: sign-up tokens.

use node::operator::invites::{Invite, ListInvites, NewInvites, RevokeInvite};

use super::space_requests::moment;
use crate::{
    args::{InviteArgs, InviteCommand},
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
pub async fn run(args: &InviteArgs, output: Output) -> Result<(), Failure> {
    let operator = Operator::reach(match &args.command {
        InviteCommand::New(args) => &args.node,
        InviteCommand::List(args) => &args.node,
        InviteCommand::Revoke(args) => &args.node,
    })
    .await?;
    let done = with(&operator, &args.command, output).await;
    operator.close().await;
    done
}

async fn with(operator: &Operator, command: &InviteCommand, output: Output) -> Result<(), Failure> {
    match command {
        InviteCommand::New(args) => {
            let operation = NewInvites { count: args.count };
            let made = operator.ask_for(operation, output).await?;
            for invite in &made.invites {
                if output.json {
                    output.json(invite)?;
                } else {
                    output.line(&invite.token)?;
                }
            }
            output.hint(
                "Each token is good for one account and is not shown again:\n  \
                 KASTRO_SIGNUP_TOKEN=TOKEN kastro signup NAME",
            );
            Ok(())
        }
        InviteCommand::List(_) => {
            let listed = operator
                .run(ListInvites {}, output, |value| {
                    if output.json {
                        return output.json(&value);
                    }
                    let invite: Invite = item(value)?;
                    let made = invite.made_epoch_millis.map_or_else(
                        || "from the configuration".to_owned(),
                        |millis| human::time(moment(millis)),
                    );
                    output.line(&format!("{}  {made}", invite.id))
                })
                .await?;
            if listed.invites == 0 {
                output.hint("No unused token; `kastro invite new` makes one.");
            }
            Ok(())
        }
        InviteCommand::Revoke(args) => {
            let operation = RevokeInvite {
                which: args.token.clone(),
            };
            let revoked = operator.ask_for(operation, output).await?;
            if output.json {
                return output.json(&revoked);
            }
            output.line(&format!("revoked {}", revoked.id))
        }
    }
}
