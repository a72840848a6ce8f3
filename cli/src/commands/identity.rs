//! `kastro node`: who the node is to other nodes, and a new identity for it.

use node::{
    operator::identity::{IdentityShown, PlaceShown, RotateIdentity, ShowIdentity},
    p2p::Reach,
};

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
        places,
        reach,
        connected,
        relayed,
    } = shown;
    output.line(&format!("id       {id}"))?;
    for earlier in before.iter().rev() {
        let next = match &earlier.next {
            Some(next) => format!("moved on to {next}"),
            None => "nobody finds the node under it".to_owned(),
        };
        output.line(&format!("before   {}: {next}", earlier.id))?;
    }
    for address in &addresses {
        output.line(&format!("address  {address}"))?;
    }
    for place in &places {
        if let Some(line) = trouble(place) {
            output.line(&line)?;
        }
    }
    if !operator.is_running() {
        output.hint("The node is not running: others do not reach it now.");
        return Ok(());
    }
    let through = match relayed {
        0 => String::new(),
        some => format!(", {some} of them through a relay"),
    };
    output.line(&format!("peers    {connected} connected{through}"))?;
    let reach = match reach {
        Reach::Announced => "at the address that p2p.announce names",
        Reach::Public => "by others directly, as they have tried",
        Reach::Private => "by nobody directly, as they have tried",
        _ => "not known yet: nobody could be asked",
    };
    output.line(&format!("reached  {reach}"))?;
    if addresses.is_empty() && !places.is_empty() {
        output
            .hint("Others do not reach this node now. It reaches them, and serves its own users.");
    }
    Ok(())
}

/// Says what is wrong with a place at which the node listens, or should.
fn trouble(place: &PlaceShown) -> Option<String> {
    let address = &place.address;
    if place.is_open {
        let trouble = place.trouble.as_ref()?;
        return Some(format!("note     {address}: {trouble}"));
    }
    let trouble = match &place.trouble {
        Some(trouble) => format!(": {trouble}"),
        None => String::new(),
    };
    let next = match place.next_try_seconds {
        Some(seconds) => format!("tried again in {seconds} s"),
        None => "being tried".to_owned(),
    };
    Some(format!("closed   {address}{trouble}; {next}"))
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
