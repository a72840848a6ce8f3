//! `kastro space-requests`: who asked for more space.

use std::time::{Duration, SystemTime};

use node::operator::space_requests::{
    ApproveSpaceRequest, DeclineSpaceRequest, ListSpaceRequests, PendingRequest,
    SpaceRequestDecided,
};

use super::users::quota;
use crate::{
    args::{SpaceRequestsArgs, SpaceRequestsCommand},
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
pub async fn run(args: &SpaceRequestsArgs, output: Output) -> Result<(), Failure> {
    let operator = Operator::reach(match &args.command {
        SpaceRequestsCommand::List(args) => &args.node,
        SpaceRequestsCommand::Approve(args) => &args.node,
        SpaceRequestsCommand::Decline(args) => &args.node,
    })
    .await?;
    let done = with(&operator, &args.command, output).await;
    operator.close().await;
    done
}

async fn with(
    operator: &Operator,
    command: &SpaceRequestsCommand,
    output: Output,
) -> Result<(), Failure> {
    match command {
        SpaceRequestsCommand::List(_) => list(operator, output).await,
        SpaceRequestsCommand::Approve(args) => {
            let operation = ApproveSpaceRequest {
                name: args.name.clone(),
                bytes: args.size,
            };
            decided(&operator.ask_for(operation, output).await?, output)
        }
        SpaceRequestsCommand::Decline(args) => {
            let operation = DeclineSpaceRequest {
                name: args.name.clone(),
            };
            decided(&operator.ask_for(operation, output).await?, output)
        }
    }
}

async fn list(operator: &Operator, output: Output) -> Result<(), Failure> {
    let listed = operator
        .run(ListSpaceRequests {}, output, |value| {
            if output.json {
                return output.json(&value);
            }
            let request: PendingRequest = item(value)?;
            output.line(&format!(
                "{:>10} wanted, {:>10} used of {:>10}  {}  {}{}",
                human::size(request.wanted_bytes),
                human::size(request.used_bytes),
                quota(request.quota_bytes),
                human::time(moment(request.asked_epoch_millis)),
                human::printable(&request.name),
                if request.is_genuine {
                    ""
                } else {
                    "  (not signed by this user: decline it)"
                }
            ))
        })
        .await?;
    if listed.requests == 0 {
        output.hint("No request waits.");
    }
    Ok(())
}

fn decided(decided: &SpaceRequestDecided, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(decided);
    }
    output.line(&format!(
        "{}: {} (was {})",
        human::printable(&decided.name),
        quota(decided.quota_bytes),
        quota(decided.before_bytes)
    ))
}

/// Returns a moment in milliseconds since 1970; the distant past for an impossible one.
pub(crate) fn moment(epoch_millis: i64) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(epoch_millis).unwrap_or(0));
    // Year 9999 is the last that can be shown.
    SystemTime::UNIX_EPOCH + since.min(Duration::from_secs(253_402_300_799))
}
