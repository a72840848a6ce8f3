//! `kastro quota`: space of accounts.

use node::operator::quota::{
    DefaultQuota, Quota, Recount, Recounted, SetDefaultQuota, SetQuota, ShowDefaultQuota, ShowQuota,
};

use super::users::quota as shown;
use crate::{
    args::{QuotaArgs, QuotaCommand},
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
pub async fn run(args: &QuotaArgs, output: Output) -> Result<(), Failure> {
    let operator = Operator::reach(match &args.command {
        QuotaCommand::Show(args) => &args.node,
        QuotaCommand::Set(args) => &args.node,
        QuotaCommand::Default(args) => &args.node,
        QuotaCommand::Recount(args) => &args.node,
    })
    .await?;
    let done = with(&operator, &args.command, output).await;
    operator.close().await;
    done
}

async fn with(operator: &Operator, command: &QuotaCommand, output: Output) -> Result<(), Failure> {
    match command {
        QuotaCommand::Show(args) => match args.name.clone() {
            Some(name) => quota(&operator.ask_for(ShowQuota { name }, output).await?, output),
            None => default(
                &operator.ask_for(ShowDefaultQuota {}, output).await?,
                output,
            ),
        },
        QuotaCommand::Set(args) => {
            let operation = SetQuota {
                name: args.name.clone(),
                bytes: args.size,
            };
            quota(&operator.ask_for(operation, output).await?, output)
        }
        QuotaCommand::Default(args) => {
            let operation = SetDefaultQuota { bytes: args.size };
            default(&operator.ask_for(operation, output).await?, output)
        }
        QuotaCommand::Recount(args) => {
            let operation = Recount {
                name: args.name.clone(),
                is_applied: args.apply,
            };
            recounted(&operator.ask_for(operation, output).await?, output)
        }
    }
}

fn recounted(found: &Recounted, output: Output) -> Result<(), Failure> {
    if output.json {
        output.json(found)?;
    } else {
        output.line(&format!(
            "{}: {} recorded, {} counted",
            human::printable(&found.name),
            human::size(found.recorded_bytes),
            human::size(found.counted_bytes)
        ))?;
    }
    if found.is_right_now {
        return Ok(());
    }
    let what = format!("the record is wrong for {} writers", found.wrong_writers);
    Err(Failure::new(Class::Damaged, what).help("--apply puts it right"))
}

fn quota(quota: &Quota, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(quota);
    }
    let before = match quota.before_bytes {
        Some(before) if Some(before) != quota.quota_bytes => {
            format!(" (was {})", human::size(before))
        }
        _ => String::new(),
    };
    output.line(&format!(
        "{}: {} used of {}{before}",
        human::printable(&quota.name),
        human::size(quota.used_bytes),
        shown(quota.quota_bytes),
    ))?;
    if !quota.is_claimed {
        output.hint("Nobody has that name yet; whoever signs up with it gets this space.");
    }
    Ok(())
}

fn default(quota: &DefaultQuota, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(quota);
    }
    let origin = if quota.is_set {
        format!(
            "set by `kastro quota default`; the configuration says {}",
            human::size(quota.configured_bytes)
        )
    } else {
        "as configured".to_owned()
    };
    output.line(&format!(
        "new accounts get {} ({origin})",
        human::size(quota.quota_bytes)
    ))
}
