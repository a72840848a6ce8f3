//! The whole suite on every kind of store, and with several nodes on one data set.
//!
//! The suite itself runs in memory. Each test here runs it once more, in a process of its own, on what
//! `KASTRO_TEST_STORE`, `KASTRO_TEST_BLOCKS` and `KASTRO_TEST_NODES` say; with several nodes, consecutive requests of a test go to
//! different ones. By hand:
//!
//! `KASTRO_TEST_STORE=postgres KASTRO_TEST_NODES=2 cargo test -p node --test main -- conformance::`

use std::{
    env,
    process::{Command, Stdio},
};

use node::{Config, MetadataPlace, store::FreeFloor};
use tempfile::TempDir;

use crate::servers::{postgres, s3};

/// What the suite runs on.
pub(crate) struct Kind {
    store: String,
    pub(crate) nodes: usize,
}

impl Kind {
    pub(crate) fn of_this_run() -> Self {
        Self {
            store: env::var("KASTRO_TEST_STORE").unwrap_or_else(|_| "memory".to_owned()),
            nodes: env::var("KASTRO_TEST_NODES").map_or(1, |nodes| nodes.parse().unwrap()),
        }
    }

    /// Puts the data of a test where this run keeps it.
    pub(crate) fn place(&self, config: &mut Config) -> Option<TempDir> {
        match self.store.as_str() {
            "memory" => None,
            "disk" => {
                let folder = tempfile::tempdir().unwrap();
                config.data = Some(folder.path().join("data"));
                config.free_floor = FreeFloor::Bytes(0);
                Some(folder)
            }
            "postgres" => {
                let server = postgres::shared().expect("a PostgreSQL server");
                config.metadata = MetadataPlace::Postgres(Box::new(server.new_data_set()));
                None
            }
            other => panic!("KASTRO_TEST_STORE={other}"),
        }
    }
}

/// Runs the suite in a process of its own.
fn suite(store: &str, blocks: &str, nodes: usize) {
    // Speed, logs and metrics are matters of one process.
    let skipped = [
        "conformance::kinds",
        "conformance::load",
        "conformance::secrecy",
        "labels_of_metrics",
    ];
    let run = Command::new(env::current_exe().unwrap())
        .arg("conformance::")
        .args(skipped.iter().flat_map(|name| ["--skip", name]))
        .env("KASTRO_TEST_STORE", store)
        .env("KASTRO_TEST_BLOCKS", blocks)
        .env("KASTRO_TEST_NODES", nodes.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&run.stdout);
    let summary = out
        .lines()
        .rev()
        .find(|line| line.starts_with("test result:"));
    println!(
        "{store} {blocks}, {nodes} nodes: {}",
        summary.unwrap_or_default()
    );
    assert!(
        run.status.success(),
        "{out}\n{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

#[test]
fn the_suite_passes_on_disk() {
    suite("disk", "", 1);
}

#[test]
fn the_suite_passes_on_postgres() {
    if postgres::shared().is_some() {
        suite("postgres", "", 1);
    }
}

#[test]
fn the_suite_passes_with_two_nodes_on_one_data_set() {
    if postgres::shared().is_some() {
        suite("postgres", "", 2);
    }
}

#[test]
fn the_suite_passes_on_disk_with_blocks_in_a_bucket() {
    if s3::server().is_some() {
        suite("disk", "s3", 1);
    }
}

#[test]
fn the_suite_passes_with_two_nodes_on_postgres_with_blocks_in_a_bucket() {
    if postgres::shared().is_some() && s3::server().is_some() {
        suite("postgres", "s3", 2);
    }
}
