//! `kastro scrub`: how the slow verification of everything is doing.

use node::operator::upkeep::{ScrubShown, ShowScrub};

use crate::{
    args::ScrubArgs,
    exit::{Class, Failure},
    human,
    operator::Operator,
    output::Output,
};

/// Runs the command.
///
/// # Errors
///
/// When damage was found, or the node cannot be reached.
pub async fn run(args: &ScrubArgs, output: Output) -> Result<(), Failure> {
    let operator = Operator::reach(&args.node).await?;
    let operation = ShowScrub {
        start_now: args.now,
    };
    let shown = operator.ask_for(operation, output).await;
    let is_running = operator.is_running();
    operator.close().await;
    let shown = shown?;
    if output.json {
        output.json(&shown)?;
    } else {
        show(&shown, output)?;
    }
    if !is_running {
        output.hint("The node is not running: it scrubs while it serves.");
    }
    let state = shown.state.unwrap_or_default();
    let last = state
        .last
        .map_or(0, |last| last.damaged.saturating_sub(last.healed));
    match last.max(state.damaged.saturating_sub(state.healed)) {
        0 => Ok(()),
        damaged => Err(
            Failure::new(Class::Damaged, format!("{damaged} blocks are damaged"))
                .help("`kastro check` says whose they are, `kastro repair` what can be done"),
        ),
    }
}

fn show(shown: &ScrubShown, output: Output) -> Result<(), Failure> {
    if shown.period_seconds == 0 {
        return output.line("scrubbing is switched off");
    }
    output.line(&format!(
        "every {}, at most {} per second",
        human::span(shown.period_seconds),
        human::size(shown.bytes_per_second)
    ))?;
    let Some(state) = &shown.state else {
        return output.line("not started yet");
    };
    if state.due_seconds.is_none() {
        output.line(&format!(
            "a pass is under way: {} blocks ({}) read, {} damaged{}",
            state.blocks,
            human::size(state.bytes),
            state.damaged,
            healed(state.healed)
        ))?;
    }
    if let Some(last) = &state.last {
        let ago = human::seconds_ago(last.finished_seconds);
        output.line(&format!(
            "last pass ended {} ago: {} blocks ({}), {} damaged{}",
            human::span(ago),
            last.blocks,
            human::size(last.bytes),
            last.damaged,
            healed(last.healed)
        ))?;
    }
    Ok(())
}

fn healed(blocks: u64) -> String {
    match blocks {
        0 => String::new(),
        blocks => format!(", {blocks} of them replaced by copies of other nodes"),
    }
}
