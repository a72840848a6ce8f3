//! `kastro gc`: gives back the space of what was deleted.

use node::{
    gc::{Outcome, OwnerReport, Report},
    operator::{collect::CollectGarbage, upkeep::Database},
};

use crate::{
    args::GcArgs,
    exit::{Class, Failure},
    human,
    operator::Operator,
    output::Output,
};

/// Runs the command.
///
/// # Errors
///
/// When the node cannot be reached, a collection is running already, or data that is needed cannot be read.
pub async fn run(args: &GcArgs, output: Output) -> Result<(), Failure> {
    let operator = Operator::reach(&args.node).await?;
    let operation = CollectGarbage {
        user: args.user.clone(),
        is_dry_run: args.dry_run,
        now: args.now,
    };
    let report = operator.ask_for(operation, output).await;
    let compacted = match (&report, args.compact) {
        (Ok(_), true) => Some(operator.ask_for(Database::Compact, output).await),
        _ => None,
    };
    operator.close().await;
    let report = report?;
    if output.json {
        output.json(&report)?;
    } else {
        show(&report, output)?;
    }
    if let Some(file) = compacted.transpose()?.flatten()
        && !output.json
    {
        output.line(&format!(
            "the database file had {} and has {}",
            human::size(file.before_bytes),
            human::size(file.after_bytes),
        ))?;
    }
    if report.alarms > 0 {
        return Err(Failure::new(
            Class::Damaged,
            format!(
                "data of {} owners cannot be read; nothing of theirs was deleted",
                report.alarms
            ),
        )
        .help("`kastro check` shows what is damaged"));
    }
    Ok(())
}

fn show(report: &Report, output: Output) -> Result<(), Failure> {
    for owner in &report.owners {
        if let Some(text) = noteworthy(owner) {
            let name = owner.user.as_ref().unwrap_or(&owner.partition);
            output.line(&format!("{}: {text}", human::printable(name)))?;
        }
    }
    let done = match report.dry_run {
        true => "would be deleted",
        false => "deleted",
    };
    output.line(&format!(
        "{} blocks ({}) of {} owners looked at, {} blocks ({}) {done}",
        report.seen.blocks,
        human::size(report.seen.bytes),
        report.owners.len(),
        report.deleted.blocks,
        human::size(report.deleted.bytes),
    ))?;
    if report.waiting.blocks > 0 {
        output.line(&format!(
            "{} blocks ({}) are not needed and wait: for uploads that have not ended, or readers of what was just deleted",
            report.waiting.blocks,
            human::size(report.waiting.bytes),
        ))?;
        output.hint("A later collection takes them; --now takes what waits for readers at once.");
    }
    Ok(())
}

/// Returns what a person should know about one owner.
fn noteworthy(owner: &OwnerReport) -> Option<String> {
    match &owner.outcome {
        Outcome::Aborted { reason, .. } => {
            Some(format!("left alone: {}", human::printable(reason)))
        }
        Outcome::Unknown if owner.seen.blocks > 0 => Some(format!(
            "{} blocks ({}) of nobody this node knows are left alone",
            owner.seen.blocks,
            human::size(owner.seen.bytes)
        )),
        Outcome::Waiting { seconds } => {
            let seconds = u64::try_from(*seconds).unwrap_or(0);
            Some(format!(
                "next collection possible in {}",
                human::span(seconds)
            ))
        }
        _ if owner.deleted.blocks > 0 => Some(format!(
            "{} of {} blocks ({})",
            owner.deleted.blocks,
            owner.seen.blocks,
            human::size(owner.deleted.bytes)
        )),
        _ => None,
    }
}
