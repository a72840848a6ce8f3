//! What the benchmarks share: a load generator, baselines measured in the same run, and the table.
//!
//! Seconds differ between machines; each goal that is a ratio is measured side by side in one run.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

pub mod baseline;
pub mod file_server;
pub mod line;
pub mod load;
pub mod program;
pub mod record;
pub mod table;
