//! `kastro names`: who gives out names, and taking that over.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use node::operator::names::{ExportNames, FollowNames, NamesShown, ShowNames, TakeOverNames};

use crate::{
    args::{NamesArgs, NamesCommand},
    exit::{Class, Failure},
    human,
    operator::Operator,
    output::Output,
};

/// Runs the command.
///
/// # Errors
///
/// When the node cannot be reached, or refuses.
pub async fn run(args: &NamesArgs, output: Output) -> Result<(), Failure> {
    let operator = Operator::reach(match &args.command {
        NamesCommand::Status(args) => &args.node,
        NamesCommand::Follow(args) => &args.node,
        NamesCommand::Export(args) | NamesCommand::TakeOver(args) => &args.node,
    })
    .await?;
    let done = with(&operator, &args.command, output).await;
    operator.close().await;
    done
}

async fn with(operator: &Operator, command: &NamesCommand, output: Output) -> Result<(), Failure> {
    // The node may have another working folder.
    let absolute = |file: &std::path::Path| {
        std::path::absolute(file).map_err(|error| Failure::local("find", file, &error))
    };
    match command {
        NamesCommand::Status(args) => {
            let operation = ShowNames { sync: args.sync };
            shown(&operator.ask_for(operation, output).await?, output)
        }
        NamesCommand::Follow(args) => {
            let operation = FollowNames {
                node: args.from.clone(),
            };
            shown(&operator.ask_for(operation, output).await?, output)
        }
        NamesCommand::Export(args) => {
            let operation = ExportNames {
                file: absolute(&args.file)?,
            };
            let done = operator.ask_for(operation, output).await?;
            if output.json {
                return output.json(&done);
            }
            output.line(&format!("wrote {}", done.file.display()))?;
            output.hint("Whoever has this file can give out names: keep it like a password.");
            Ok(())
        }
        NamesCommand::TakeOver(args) => {
            let operation = TakeOverNames {
                file: absolute(&args.file)?,
            };
            let done = operator.ask_for(operation, output).await?;
            if output.json {
                return output.json(&done);
            }
            output.line(&format!(
                "{} names taken over; the network is {} from now on",
                done.names, done.network
            ))?;
            output.hint(
                "Restart this node. Tell the others once: `kastro names follow NODE`, with this node's id.",
            );
            Ok(())
        }
    }
}

fn shown(names: &NamesShown, output: Output) -> Result<(), Failure> {
    if output.json {
        output.json(names)?;
    } else {
        output.line(&format!("network  {}", names.network))?;
        let role = match names.is_authority {
            true => "this node gives out the names".to_owned(),
            false => format!("followed; asks {}", names.asked.join(", ")),
        };
        output.line(&format!("role     {role}"))?;
        output.line(&format!("names    {}", names.names))?;
        if let Some(seconds) = names.status.in_step_seconds {
            output.line(&format!("in step  {}", human::time(at(seconds))))?;
        }
        if names.waiting_signups > 0 {
            output.line(&format!(
                "waiting  {} sign-ups for the authority's answer",
                names.waiting_signups
            ))?;
        }
        for (name, reason) in &names.status.refused {
            output.line(&format!("refused  {}: {reason}", human::printable(name)))?;
        }
    }
    if let Some(by) = &names.overtaken_by {
        let text = format!("{by} has a newer table: this node gives out no names");
        return Err(Failure::new(Class::Refused, text)
            .help("if that node took over, follow it: docs/mirror.md"));
    }
    if let Some(alarm) = &names.status.alarm {
        let text = format!("the authority's table contradicts what was seen: {alarm}");
        return Err(Failure::new(Class::Damaged, text)
            .help("nothing of it was taken; ask the authority's operator before anything else"));
    }
    Ok(())
}

fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
