//! The table that a benchmark prints, ready for the README.

use std::fmt::Display;

/// Rows of what, measured, goal.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<[String; 3]>,
}

impl Table {
    /// Adds a row and prints it at once, for whoever watches.
    pub fn row(&mut self, what: impl Display, measured: impl Display, goal: impl Display) {
        let row = [what.to_string(), measured.to_string(), goal.to_string()];
        eprintln!("{}: {}   [goal: {}]", row[0], row[1], row[2]);
        self.rows.push(row);
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("| what | measured | goal |\n| --- | --- | --- |");
        for [what, measured, goal] in &self.rows {
            println!("| {what} | {measured} | {goal} |");
        }
    }
}

/// Returns megabytes (10^6) per second.
#[must_use]
pub fn mb_per_second(bytes: u64, took: std::time::Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let bytes = bytes as f64;
    bytes / 1e6 / took.as_secs_f64().max(1e-9)
}

/// Returns bytes as `12.3 MB` (10^6), or a dash.
#[must_use]
pub fn megabytes(bytes: Option<u64>) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    bytes.map_or_else(
        || "-".to_owned(),
        |bytes| format!("{:.1} MB", bytes as f64 / 1e6),
    )
}
