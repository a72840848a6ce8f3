//! `kastro node`: who the node is to other nodes, and a new identity for it.

use node::operator::identity::{IdentityShown, RotateIdentity, ShowIdentity};

use crate::{
    args::{IdentityArgs, IdentityCommand},
    exit::Failure,
    operator::Operator,
    output::Output,
};

/// Identities after which the oldest ones lead nowhere any more: nodes follow no more than eight steps.
const MANY_IDENTITIES: u64 = 9;

/// Runs the command.
///
/// # Errors
///
/// When the node cannot be reached, or refuses.
pub async fn run(args: &IdentityArgs, output: Output) -> Result<(), Failure> {
    let operator = Operator::reach(match &args.command {
        IdentityCommand::Status(args) | IdentityCommand::Rotate(args) => &args.node,
    })
    .await?;
    let done = match &args.command {
        IdentityCommand::Status(_) => status(&operator, output).await,
        IdentityCommand::Rotate(_) => rotate(&operator, output).await,
    };
    operator.close().await;
    done
}

async fn status(operator: &Operator, output: Output) -> Result<(), Failure> {
    let shown = operator.ask_for(ShowIdentity::default(), output).await?;
    if output.json {
        return output.json(&shown);
    }
    let IdentityShown {
        id,
        before,
        addresses,
    } = shown;
    output.line(&format!("id       {id}"))?;
    for earlier in before.iter().rev() {
        let next = match &earlier.next {
            Some(next) => format!("moved on to {next}"),
            None => "nobody finds the node under it".to_owned(),
        };
        output.line(&format!("before   {}: {next}", earlier.id))?;
    }
    for address in addresses {
        output.line(&format!("address  {address}"))?;
    }
    if !operator.is_running() {
        output.hint("The node is not running: others do not reach it now.");
    }
    Ok(())
}

async fn rotate(operator: &Operator, output: Output) -> Result<(), Failure> {
    let done = operator.ask_for(RotateIdentity::default(), output).await?;
    if output.json {
        return output.json(&done);
    }
    output.line(&format!(
        "this node is {} from now on; before it was {}",
        done.to, done.from
    ))?;
    if operator.is_running() {
        output.hint("Restart it: until then it goes by the old id.");
    }
    if done.identities > MANY_IDENTITIES {
        output.hint(
            "Nodes follow eight changes at most: people whose claims name older ids are not found from elsewhere.",
        );
    }
    output.hint("Keep the files `node-*.key` as you keep `node.key`: they lead from the old ids to this one.");
    Ok(())
}
