#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]
//! The program as a person uses it: real processes, real sockets, real files.

mod account;
mod bad_input;
mod crash;
mod doctor;
mod files;
mod gateway;
mod gc;
mod hardening;
mod help;
mod links;
mod local_names;
mod nodes;
mod operator;
mod secrecy;
mod shell;
mod shutdown;
mod sync;
mod thumbnails;
mod upkeep;
mod uploads;
mod web;

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tests::{Kastro, NodeProcess};

/// A node, and people with empty machines.
struct World {
    folder: TempDir,
    node: Option<NodeProcess>,
}

impl World {
    fn new() -> Self {
        Self::with_options(&[])
    }

    fn with_options(options: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let node = NodeProcess::start(program(), &folder.path().join("data"), options);
        Self {
            folder,
            node: Some(node),
        }
    }

    fn node(&self) -> &NodeProcess {
        self.node.as_ref().unwrap()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn restart_after_kill(&mut self) {
        self.node.take().unwrap().kill();
        self.node = Some(NodeProcess::start(program(), &self.data(), &[]));
    }

    /// A person at a machine that knows nothing, with the password in the environment.
    fn person(&self, name: &str, machine: &str) -> Kastro {
        let home = self.folder.path().join(machine);
        std::fs::create_dir_all(&home).unwrap();
        Kastro::new(program(), &home)
            .with("KASTRO_SERVER", self.node().url())
            .with("KASTRO_USER", name)
            .with("KASTRO_PASSWORD", &format!("the password of {name}"))
    }

    /// The same after signing up.
    fn signed_up(&self, name: &str, machine: &str) -> Kastro {
        let person = self.person(name, machine);
        person.ok(&["signup", "--no-session"]);
        person
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_kastro"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns the lines of a result as JSON values.
fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
