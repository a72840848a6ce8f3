//! How long a node takes from the start of its process to its first answer, after a clean stop and after `kill -9`
//! among writers. Each start is a process of its own: this program, called with `start` or `write`.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{account::Account, open, resident_megabytes, writer::Writers};

/// Starts of each kind.
const ROUNDS: u32 = 7;
/// Writers that are killed.
const WRITERS: u8 = 4;

/// Runs one side of the measurement if this process was started for it.
pub(crate) async fn child(arguments: &[String]) -> Result<bool> {
    match arguments {
        [mode, folder, request] if mode == "start" => start(Path::new(folder), request).await?,
        [mode, folder, round] if mode == "write" => write(Path::new(folder), round).await?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Opens the node, answers one request, says so.
async fn start(folder: &Path, request: &str) -> Result<()> {
    let begun = Instant::now();
    let (node, _) = open(folder).await?;
    let opened = begun.elapsed();
    let answer = crate::account::post(&node, request, Vec::new()).await?;
    ensure!(!answer.is_empty(), "no pointer");
    println!(
        "opened in {:.1} ms, resident {} MB",
        opened.as_secs_f64() * 1e3,
        resident_megabytes()
    );
    node.close().await?;
    Ok(())
}

/// Writes until it is killed.
async fn write(folder: &Path, round: &str) -> Result<()> {
    let (node, _) = open(folder).await?;
    let number: u8 = round.parse()?;
    let mut accounts = Vec::new();
    for n in 0..WRITERS {
        let seed = 100 + number * WRITERS + n;
        accounts.push(Account::sign_up(&node, &format!("killed{seed}"), seed).await?);
    }
    let mut writers = Writers::start(&node, accounts);
    writers.begin();
    println!("writing");
    tokio::time::sleep(Duration::from_secs(600)).await;
    Ok(())
}

/// Measures starts; `request` is what the first answer is to.
pub(crate) fn measure(folder: &Path, request: &str) -> Result<()> {
    let folder = folder.to_str().context("the folder has no name")?;
    let mut clean = Vec::new();
    for _ in 0..ROUNDS {
        clean.push(timed(folder, request)?);
    }
    show("after a clean stop", clean);
    let mut killed = Vec::new();
    for round in 0..ROUNDS {
        let (mut child, _) = spawn(&["write", folder, &round.to_string()])?;
        // Longer each time, so that the log is at different lengths.
        std::thread::sleep(Duration::from_millis(300 + u64::from(round) * 900));
        child.kill()?;
        child.wait()?;
        killed.push(timed(folder, request)?);
    }
    show("after kill -9 among writers", killed);
    Ok(())
}

/// Returns the time from the start of the process to its first answer, and what it says.
fn timed(folder: &str, request: &str) -> Result<(Duration, String)> {
    let begun = Instant::now();
    let (mut child, line) = spawn(&["start", folder, request])?;
    let took = begun.elapsed();
    ensure!(child.wait()?.success(), "the node failed");
    Ok((took, line))
}

/// Starts this program again and waits for its first line.
fn spawn(arguments: &[&str]) -> Result<(Child, String)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().context("no output")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    ensure!(!line.is_empty(), "the process said nothing");
    Ok((child, line))
}

fn show(name: &str, mut starts: Vec<(Duration, String)>) {
    println!("\nstart to first answer {name}");
    for (took, line) in &starts {
        println!("  {:.1} ms ({})", took.as_secs_f64() * 1e3, line.trim());
    }
    starts.sort();
    if let (Some((median, _)), Some((worst, _))) = (starts.get(starts.len() / 2), starts.last()) {
        println!(
            "  median {:.1} ms, worst {:.1} ms",
            median.as_secs_f64() * 1e3,
            worst.as_secs_f64() * 1e3
        );
    }
}
