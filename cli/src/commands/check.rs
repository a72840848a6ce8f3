//! `kastro check` and `kastro repair`: what is wrong with the stored data, and putting it right.

use node::{
    check::{Finding, Report, Severity},
    operator::upkeep::{Check, Database, Repair, RepairOutcome},
};

use crate::{
    args::{CheckArgs, RepairArgs},
    exit::{Class, Failure},
    human,
    operator::Operator,
    output::Output,
};

/// Findings that are printed for people; scripts get all.
const MAX_PRINTED: usize = 50;

/// Runs `check`.
///
/// # Errors
///
/// When something is wrong with the data, or it cannot be checked.
pub async fn run(args: &CheckArgs, output: Output) -> Result<(), Failure> {
    let operator = Operator::reach(&args.node).await?;
    let operation = Check {
        user: args.user.clone(),
        is_quick: args.quick,
        is_fresh: args.fresh,
    };
    let verified = match args.database {
        true => operator.ask_for(Database::Verify, output).await.map(drop),
        false => Ok(()),
    };
    let report = match verified {
        Ok(()) => operator.ask_for(operation, output).await,
        Err(failure) => Err(failure),
    };
    operator.close().await;
    let report = report?;
    if output.json {
        output.json(&report)?;
    } else {
        show(&report, output)?;
    }
    verdict(&report)
}

/// Runs `repair`.
///
/// # Errors
///
/// When data is lost for which there is no good copy, or the node cannot be reached.
pub async fn repair(args: &RepairArgs, output: Output) -> Result<(), Failure> {
    let backup = match &args.from_backup {
        None => None,
        // The node may have another working folder.
        Some(path) => {
            Some(std::path::absolute(path).map_err(|error| Failure::local("find", path, &error))?)
        }
    };
    let operator = Operator::reach(&args.node).await?;
    let operation = Repair {
        user: args.user.clone(),
        is_dry_run: !args.apply,
        backup,
        from_home: args.from_home,
        from_mirror: args.from_mirror.clone(),
    };
    let outcome = operator.ask_for(operation, output).await;
    operator.close().await;
    let outcome = outcome?;
    if output.json {
        output.json(&outcome)?;
    } else {
        show_repair(&outcome, output)?;
    }
    match outcome.repaired.lost.len() {
        0 => Ok(()),
        lost => Err(Failure::new(
            Class::Damaged,
            format!("there is no good copy of {lost} blocks"),
        )
        .help("name a backup with --from-backup or a mirror with --from-mirror, or let the users upload the files again")),
    }
}

fn show(report: &Report, output: Output) -> Result<(), Failure> {
    let how = if report.is_hashed {
        "read and verified"
    } else {
        "looked at"
    };
    output.line(&format!(
        "{} blocks ({}) {how}, {} pointers verified and followed",
        report.blocks,
        human::size(report.bytes),
        report.pointers
    ))?;
    if report.quarantined > 0 {
        output.line(&format!(
            "{} blocks are in quarantine until somebody stores them again",
            report.quarantined
        ))?;
    }
    for affected in &report.affected {
        let what = if affected.is_root_lost {
            "the root is lost: nothing of it can be read".to_owned()
        } else {
            format!(
                "{} blocks missing, {} damaged",
                affected.missing, affected.damaged
            )
        };
        output.line(&format!(
            "affected: {}, writer {}: {what}",
            human::printable(&affected.user),
            affected.writer
        ))?;
    }
    for finding in report.findings.iter().take(MAX_PRINTED) {
        output.line(&line(finding))?;
    }
    let left = report.total().saturating_sub(MAX_PRINTED as u64);
    if left > 0 {
        output.line(&format!("and {left} more (--json lists them)"))?;
    }
    if report.total() == 0 {
        output.line("all is well")?;
    }
    Ok(())
}

fn line(finding: &Finding) -> String {
    let mut text = finding.kind.words().to_owned();
    if let Some(user) = &finding.user {
        text.push_str(&format!(" of {}", human::printable(user)));
    }
    if let Some(cid) = &finding.cid {
        text.push_str(&format!(": {cid}"));
    } else if let Some(writer) = &finding.writer {
        text.push_str(&format!(": writer {writer}"));
    }
    if let Some(parent) = &finding.parent {
        text.push_str(&format!(", linked from {parent}"));
    }
    if !finding.note.is_empty() {
        text.push_str(&format!(": {}", human::printable(&finding.note)));
    }
    text
}

fn verdict(report: &Report) -> Result<(), Failure> {
    let count = report.total();
    match report.worst() {
        None => Ok(()),
        Some(Severity::Damage) => Err(Failure::new(
            Class::Damaged,
            format!("{count} things are wrong, some data is damaged or missing"),
        )
        .help("`kastro repair` says what can be done; nothing has been changed")),
        Some(_) => Err(Failure::new(
            Class::Partial,
            format!("{count} things are untidy, nothing is lost"),
        )
        .help("`kastro repair --apply` puts them right, `kastro quota recount` usage that is off")),
    }
}

fn show_repair(outcome: &RepairOutcome, output: Output) -> Result<(), Failure> {
    let RepairOutcome { found, repaired } = outcome;
    if found.total() == 0 {
        return output.line("all is well, there is nothing to repair");
    }
    let verb = |done: &'static str, would: &'static str| match repaired.is_dry_run {
        false => done,
        true => would,
    };
    let lines = [
        (
            repaired.quarantined,
            verb(
                "damaged copies moved aside",
                "damaged copies would be moved aside",
            ),
        ),
        (
            repaired.healed,
            verb(
                "blocks have a good copy again",
                "blocks would have a good copy again",
            ),
        ),
        (
            repaired.orphans_removed,
            verb(
                "files of no block removed",
                "files of no block would be removed",
            ),
        ),
        (
            repaired.recounted,
            verb("users counted anew", "users would be counted anew"),
        ),
        (
            repaired.left,
            "findings are not repaired here: `kastro check` lists them, `kastro quota recount` puts usage right",
        ),
    ];
    for (count, words) in lines {
        if count > 0 {
            output.line(&format!("{count} {words}"))?;
        }
    }
    for (user, cid) in repaired.lost.iter().take(MAX_PRINTED) {
        let user = human::printable(user);
        output.line(&format!("no good copy of block {cid} of {user}"))?;
    }
    if repaired.is_dry_run {
        output.hint("Nothing has been changed; --apply does it.");
    }
    Ok(())
}
