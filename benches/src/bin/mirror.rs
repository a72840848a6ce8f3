//! What it costs to go on with a copy that broke off: a node mirrors an account, is killed in the middle, and started
//! again.
//!
//! ```text
//! cargo build --release -p cli && cargo run --release -p benches --bin mirror [-- MIB]
//! ```
//!
//! `MIB` is the size of the account, 1024 when absent; on the disk it takes a little more than twice that. 10240 is what the
//! goal speaks of.
//! Reads and writes of the mirror's process are those of `/proc/PID/io`, so they are told on Linux only.

use std::{
    fs,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use benches::{
    program::{self, done, fill},
    table::{Table, mb_per_second, megabytes},
};
use serde_json::Value;
use tests::{Kastro, NodeProcess, bytes_below};

const DEFAULT_MIB: u64 = 1024;
/// Size of one uploaded file.
const FILE_MIB: u64 = 256;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(3600);
const PASSWORD: &str = "benchmark password";

fn main() -> anyhow::Result<()> {
    let mib = match std::env::args().nth(1) {
        Some(text) => text.parse().context("the size is a number of MiB")?,
        None => DEFAULT_MIB,
    };
    let kastro = program::kastro()?;
    let folder = tempfile::tempdir()?;
    let mut table = Table::default();
    let options = ["--log", "warn", "--set", "mirror.is_automatic=false"];
    let home = NodeProcess::start(&kastro, &folder.path().join("home"), &options);
    let alice = person(&kastro, folder.path(), &home);
    done(alice.run(&["signup"]))?;
    let filled = fill_account(&alice, folder.path(), mib)?;
    table.row(
        format!("{mib} MiB up to the home"),
        format!("{:.0} MB/s", mb_per_second(mib << 20, filled)),
        "-",
    );

    let joins = [
        format!("name_authority={}", network(&kastro, &home)?),
        format!("p2p.peers={}", home.peers().first().context("no address")?),
    ];
    let mut all = options.to_vec();
    all.extend(joins.iter().flat_map(|one| ["--set", one.as_str()]));
    let place = folder.path().join("mirror");
    let start = || NodeProcess::start(&kastro, &place, &all);
    let mirror = start();
    operate(&kastro, &mirror, &["names", "status", "--sync"])?;
    let room = format!("{}M", mib * 2 + 1024);
    operate(
        &kastro,
        &mirror,
        &["mirror", "add", "alice", "--quota", &room],
    )?;
    done(alice.run(&["mirror", "allow", mirror.url()]))?;

    // Cut off when half of it is there.
    let begun = Instant::now();
    let mut round = begin_round(&kastro, &mirror)?;
    let blocks = place.join("store/blocks");
    until("half of the copy", || bytes_below(&blocks) > mib << 19)?;
    mirror.kill();
    let _ = round.wait();
    let half = begun.elapsed();
    let kept = bytes_below(&blocks);
    table.row(
        "copied when the mirror is killed",
        format!("{} in {:.1} s", megabytes(Some(kept)), half.as_secs_f64()),
        "-",
    );

    let begun = Instant::now();
    let mirror = start();
    let listening = begun.elapsed();
    let before = io(&mirror);
    let mut round = begin_round(&kastro, &mirror)?;
    until("a new block", || {
        bytes_below(&blocks) > kept || !matches!(round.try_wait(), Ok(None))
    })?;
    let first = begun.elapsed();
    let at_first = io(&mirror);
    let mut printed = String::new();
    if let Some(mut stdout) = round.stdout.take() {
        std::io::Read::read_to_string(&mut stdout, &mut printed)?;
    }
    round.wait()?;
    let whole = begun.elapsed();
    let at_end = io(&mirror);
    let run: Value = serde_json::from_str(printed.lines().last().unwrap_or_default())
        .context("the round failed")?;
    let shown = operate(&kastro, &mirror, &["--json", "--quiet", "mirror", "status"])?;
    let shown: Value = serde_json::from_str(shown.lines().next().unwrap_or_default())?;
    let number = |value: &Value, field: &str| value.get(field).and_then(Value::as_u64);
    if number(&run, "in_step") != Some(1) {
        bail!("the copy is not in step: {run}");
    }
    let (fetched, used) = (number(&run, "bytes"), number(&shown, "used_bytes"));
    let twice = fetched
        .zip(used)
        .map(|(f, used)| (f + kept).saturating_sub(used));
    table.row(
        "start of the process to listening; to the first new block on the disk",
        format!(
            "{:.2} s; {:.2} s",
            listening.as_secs_f64(),
            first.as_secs_f64()
        ),
        "seconds",
    );
    let read = |from: Option<Io>, to: Option<Io>| {
        let spent = from.zip(to);
        format!(
            "{} ({} of them from the disk)",
            megabytes(spent.map(|(from, to)| to.asked - from.asked)),
            megabytes(spent.map(|(from, to)| to.disk - from.disk))
        )
    };
    table.row(
        "read from its own files until then; until it is in step",
        format!("{}; {}", read(before, at_first), read(before, at_end)),
        "not what it has",
    );
    table.row(
        "until it is in step",
        format!(
            "{:.1} s, {} fetched in {} blocks, {} of them a second time",
            whole.as_secs_f64(),
            megabytes(fetched),
            number(&run, "blocks").unwrap_or(0),
            megabytes(twice)
        ),
        "-",
    );
    let begun = Instant::now();
    let before = io(&mirror);
    let again = operate(&kastro, &mirror, &["--json", "--quiet", "mirror", "run"])?;
    let again: Value = serde_json::from_str(again.lines().last().unwrap_or_default())?;
    table.row(
        "another round, nothing changed",
        format!(
            "{:.2} s, {} blocks fetched, {} read",
            begun.elapsed().as_secs_f64(),
            number(&again, "blocks").unwrap_or(0),
            read(before, io(&mirror))
        ),
        "-",
    );
    table.row(
        "mirror: resident (highest)",
        megabytes(mirror.memory().map(|memory| memory.1)),
        "<= 80 MB",
    );
    table.print();
    Ok(())
}

/// Uploads files until the account has this size; returns the time of all commands.
fn fill_account(alice: &Kastro, folder: &Path, mib: u64) -> anyhow::Result<Duration> {
    let (mut took, mut left) = (Duration::ZERO, mib);
    let source = folder.join("file");
    let mut written = 0;
    while left > 0 {
        let size = left.min(FILE_MIB);
        if size != written {
            fill(&source, size << 20)?;
            written = size;
        }
        // Each file is sealed with keys of its own, so the same content is stored again.
        let name = format!("/alice/file-{left}");
        took += done(alice.run(&["put", "file", &name]))?.took;
        left -= size;
    }
    fs::remove_file(source)?;
    Ok(took)
}

fn person(kastro: &Path, folder: &Path, node: &NodeProcess) -> Kastro {
    Kastro::new(kastro, folder)
        .with("KASTRO_SERVER", node.url())
        .with("KASTRO_USER", "alice")
        .with("KASTRO_PASSWORD", PASSWORD)
}

fn operator(kastro: &Path, node: &NodeProcess) -> Kastro {
    Kastro::new(kastro, node.data()).with("KASTRO_DATA", &node.data().display().to_string())
}

/// Runs an operator's command on a running node.
fn operate(kastro: &Path, node: &NodeProcess, arguments: &[&str]) -> anyhow::Result<String> {
    let finished = operator(kastro, node).run(arguments);
    Ok(String::from_utf8(done(finished)?.stdout)?)
}

fn begin_round(kastro: &Path, node: &NodeProcess) -> anyhow::Result<std::process::Child> {
    let mut command = operator(kastro, node).command(&["--json", "--quiet", "mirror", "run"]);
    Ok(command.stderr(Stdio::null()).spawn()?)
}

/// Asks a node which network its names are of.
fn network(kastro: &Path, node: &NodeProcess) -> anyhow::Result<String> {
    let shown = operate(kastro, node, &["--json", "names", "status"])?;
    let shown: Value = serde_json::from_str(shown.trim())?;
    let network = shown.get("network").and_then(Value::as_str);
    Ok(network.context("the node names no network")?.to_owned())
}

/// What a process has read.
#[derive(Debug, Clone, Copy)]
struct Io {
    /// Bytes that it asked the system for, those in memory included.
    asked: u64,
    /// Bytes that came from a disk.
    disk: u64,
}

fn io(node: &NodeProcess) -> Option<Io> {
    let text = fs::read_to_string(format!("/proc/{}/io", node.id())).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    Some(Io {
        asked: field("rchar:")?,
        disk: field("read_bytes:")?,
    })
}

fn until(what: &str, mut fact: impl FnMut() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !fact() {
        if begun.elapsed() > PATIENCE {
            bail!("waited in vain for {what}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
