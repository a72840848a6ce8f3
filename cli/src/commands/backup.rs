//! `kastro backup` and `kastro restore`.

use std::path::Path;

use node::{
    backup::{
        BackupError, BackupOutcome, RestoreOptions, RestoreOutcome, Verified, restore_as, verify,
    },
    operator::{Failed, upkeep::Backup},
};

use crate::{
    args::{BackupArgs, RestoreArgs},
    config,
    exit::{Class, Failure},
    human,
    operator::Operator,
    output::Output,
    progress::Progress,
};

/// Lost blocks and problems that are printed for people; scripts get all.
const MAX_PRINTED: usize = 50;

/// Runs `backup`.
///
/// # Errors
///
/// When there is no complete backup afterwards, or blocks were damaged.
pub async fn run(args: &BackupArgs, output: Output) -> Result<(), Failure> {
    let to = std::path::absolute(&args.folder)
        .map_err(|error| Failure::local("find", &args.folder, &error))?;
    if args.verify {
        return verified(&to, output).await;
    }
    let operator = Operator::reach(&args.node).await?;
    let operation = Backup {
        to: to.clone(),
        keep: args.keep.map(usize::from),
    };
    let outcome = operator.ask_for(operation, output).await;
    operator.close().await;
    let outcome = outcome?;
    if output.json {
        output.json(&outcome)?;
    } else {
        show(&outcome, &to, output)?;
    }
    match outcome.damaged.len() {
        0 => Ok(()),
        count => Err(Failure::new(
            Class::Partial,
            format!("the backup is complete but for {count} blocks that are damaged on this node"),
        )
        .help("`kastro check` says whose they are; older snapshots may have good copies")),
    }
}

fn show(outcome: &BackupOutcome, to: &Path, output: Output) -> Result<(), Failure> {
    output.line(&format!(
        "snapshot {} in {}: {} blocks ({}), {} of them new ({})",
        outcome.name,
        to.display(),
        outcome.blocks,
        human::size(outcome.bytes),
        outcome.copied_blocks,
        human::size(outcome.copied_bytes)
    ))?;
    if !outcome.removed.is_empty() {
        output.line(&format!(
            "{} older snapshots removed",
            outcome.removed.len()
        ))?;
    }
    for (user, cid) in outcome.damaged.iter().take(MAX_PRINTED) {
        output.line(&format!(
            "damaged block of {}: {cid}",
            human::printable(user)
        ))?;
    }
    Ok(())
}

async fn verified(from: &Path, output: Output) -> Result<(), Failure> {
    let from = from.to_owned();
    let bar = Progress::start(output, "verifying");
    let work = move || {
        let (mut done, mut expected) = (0, 0);
        verify(&from, &mut |now, all| {
            bar.expect(all - expected);
            bar.done(now - done);
            (done, expected) = (now, all);
            true
        })
    };
    let verified: Verified = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(Class::Other, error.to_string()))?
        .map_err(failure)?;
    if output.json {
        output.json(&verified)?;
    } else {
        output.line(&format!(
            "{} snapshots, {} blocks in {} packs ({}) read and verified",
            verified.snapshots.len(),
            verified.blocks,
            verified.packs,
            human::size(verified.bytes)
        ))?;
        if let Some(newest) = verified.newest_seconds {
            let age = human::span(human::seconds_ago(newest));
            output.line(&format!("the newest snapshot is {age} old"))?;
        }
        for problem in verified.problems.iter().take(MAX_PRINTED) {
            output.line(&human::printable(problem))?;
        }
    }
    match verified.problem_count {
        0 => Ok(()),
        count => Err(
            Failure::new(Class::Damaged, format!("the backup has {count} problems")).help(
                "move damaged packs out of the folder: the next backup copies their blocks again",
            ),
        ),
    }
}

/// Runs `restore`.
///
/// # Errors
///
/// When the folder cannot be restored, or blocks are lost.
pub async fn run_restore(args: &RestoreArgs, output: Output) -> Result<(), Failure> {
    let data = config::data_folder(&args.node.flags())?;
    let options = RestoreOptions {
        from: args.folder.clone(),
        data: data.clone(),
        snapshot: args.snapshot.clone(),
        now_seconds: human::now_seconds(),
    };
    // The store that the node will use: it need not be of the kind that was backed up.
    let settings = config::load(&args.node.flags())?.settings.node;
    let bar = Progress::start(output, "restoring");
    let (mut done, mut expected) = (0, 0);
    let mut told = |now: u64, all: u64| {
        bar.expect(all - expected);
        bar.done(now - done);
        (done, expected) = (now, all);
        true
    };
    let restored = restore_as(&options, &settings, &mut told);
    let outcome = restored.await.map_err(failure)?;
    drop(bar);
    if output.json {
        output.json(&outcome)?;
    } else {
        show_restored(&outcome, &data, output)?;
    }
    match outcome.lost.len() {
        0 => Ok(()),
        count => Err(Failure::new(
            Class::Partial,
            format!("everything is restored but {count} blocks that the backup does not have"),
        )
        .help("`kastro check` on the restored node says which data is affected")),
    }
}

fn show_restored(outcome: &RestoreOutcome, data: &Path, output: Output) -> Result<(), Failure> {
    let age = u64::try_from(outcome.age_seconds).unwrap_or(0);
    output.line(&format!(
        "restored snapshot {} into {}: {} blocks ({}), {} rows, {} keys and settings",
        outcome.name,
        data.display(),
        outcome.blocks,
        human::size(outcome.bytes),
        outcome.rows,
        outcome.files
    ))?;
    output.line(&format!(
        "This data is {} old. What users changed since then is not in it.",
        human::span(age)
    ))?;
    output.line(
        "Devices that have seen newer data will say that the node went back: their users then accept \
         the older state, or upload again what they still have.",
    )?;
    for (user, cid) in outcome.lost.iter().take(MAX_PRINTED) {
        output.line(&format!("lost block of {}: {cid}", human::printable(user)))?;
    }
    output
        .hint("Never let the old node and this one run at the same time: they are the same node.");
    Ok(())
}

fn failure(error: BackupError) -> Failure {
    Failed::from(error).into()
}
