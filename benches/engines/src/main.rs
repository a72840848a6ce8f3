//! Which embedded store should hold small blocks and metadata? The same load for each candidate, each in a process of its own.
//!
//! ```text
//! cargo run --release --manifest-path benches/engines/Cargo.toml -- --blocks 1000000
//! ```
//!
//! The load is that of a node: durable commits of an upload (five fragments of 1 MiB and six small blocks), durable commits of
//! six small blocks, a fill with small blocks, random reads, deletion of half. Every commit waits for stable storage.

mod engine;
mod load;
mod report;

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::{engine::Kind, load::Plan, report::Figures};

/// Compares embedded stores under the load of a storage node.
#[derive(Debug, Parser)]
struct Args {
    /// Small blocks stored before opening, reading and deleting are measured.
    #[arg(long, default_value_t = 100_000)]
    blocks: u64,
    /// Commits of five fragments of 1 MiB and six small blocks.
    #[arg(long, default_value_t = 40)]
    uploads: u64,
    /// Commits of six small blocks.
    #[arg(long, default_value_t = 400)]
    commits: u64,
    /// Random reads.
    #[arg(long, default_value_t = 50_000)]
    reads: u64,
    /// Only these candidates.
    #[arg(long = "engine", value_enum)]
    engines: Vec<Kind>,
    /// Folder on the disk to measure; a temporary folder below it is used and removed.
    #[arg(long, default_value = ".")]
    disk: PathBuf,
    /// One line of JSON per candidate instead of the table.
    #[arg(long)]
    json: bool,
    /// Measures one candidate in this process and prints one line of JSON.
    #[arg(long, hide = true, value_enum)]
    child: Option<Kind>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let plan = Plan {
        blocks: args.blocks,
        uploads: args.uploads,
        commits: args.commits,
        reads: args.reads,
    };
    if let Some(kind) = args.child {
        let folder = tempfile::tempdir_in(&args.disk).context("no temporary folder")?;
        let figures = load::run(kind, folder.path(), &plan)?;
        println!("{}", serde_json::to_string(&figures)?);
        return Ok(());
    }
    let kinds = if args.engines.is_empty() {
        Kind::ALL.to_vec()
    } else {
        args.engines.clone()
    };
    let mut all = Vec::new();
    for kind in kinds {
        eprintln!("measuring {}", kind.title());
        let figures = measure_in_child(kind, &args)?;
        if args.json {
            println!("{}", serde_json::to_string(&figures)?);
        }
        all.push(figures);
    }
    if !args.json {
        print!("{}", report::table(&all));
    }
    Ok(())
}

/// A process of its own, so that memory is that of one candidate.
fn measure_in_child(kind: Kind, args: &Args) -> Result<Figures> {
    let output = Command::new(std::env::current_exe()?)
        .arg("--child")
        .arg(kind.name())
        .arg("--disk")
        .arg(&args.disk)
        .args(["--blocks", &args.blocks.to_string()])
        .args(["--uploads", &args.uploads.to_string()])
        .args(["--commits", &args.commits.to_string()])
        .args(["--reads", &args.reads.to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "measuring {} failed", kind.title());
    serde_json::from_slice(&output.stdout).context("the measuring process printed something else")
}
