//! Figures of one candidate and the table of all.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// What was measured of one candidate.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    /// The candidate.
    pub engine: String,
    /// Durable commits of five fragments of 1 MiB and six small blocks.
    pub upload_mb_per_s: f64,
    /// Durable commits of six blocks of 4 KiB, one after the other.
    pub commits_per_s: f64,
    /// Rows of 300 bytes in durable commits of 1000.
    pub fill_per_s: f64,
    /// Random reads of those rows after reopening.
    pub reads_per_s: f64,
    /// Opening until the first row was read.
    pub open_ms: f64,
    /// Largest resident memory while writing.
    pub peak_rss_mib: f64,
    /// Resident memory after the reads.
    pub rss_mib: f64,
    /// Allocated bytes on disk per live byte right after deleting half.
    pub disk_per_live_byte: f64,
    /// The same after closing and opening once more.
    pub disk_per_live_byte_reopened: f64,
}

/// Renders a Markdown table.
pub fn table(all: &[Figures]) -> String {
    let mut out = String::from(
        "| engine | upload commits MB/s | 6-block commits/s | fill rows/s | random reads/s | open ms | RSS MiB peak / after reads | \
         disk per live byte after deletes / reopened |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for f in all {
        let _ = writeln!(
            out,
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.0} / {:.0} | {:.2} / {:.2} |",
            f.engine,
            f.upload_mb_per_s,
            f.commits_per_s,
            f.fill_per_s,
            f.reads_per_s,
            f.open_ms,
            f.peak_rss_mib,
            f.rss_mib,
            f.disk_per_live_byte,
            f.disk_per_live_byte_reopened,
        );
    }
    out
}
