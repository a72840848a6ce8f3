//! What a transfer did: counted, summed up for a person or a script, and turned into the exit code.

use serde::Serialize;

use crate::{
    exit::{Class, Failure},
    human,
    output::Output,
};

/// Counts of one transfer.
#[derive(Debug, Default, Serialize)]
pub struct Tally {
    /// Files transferred.
    pub files: u64,
    /// Folders made or found.
    pub folders: u64,
    /// Bytes of the files transferred.
    pub bytes: u64,
    /// Files that were there already.
    pub skipped: u64,
    /// Items that were left out, each reported.
    pub problems: u64,
}

impl Tally {
    /// Counts a file that was transferred.
    pub const fn file(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }

    /// Reports and counts an item that was left out.
    pub fn problem(&mut self, item: &str, failure: &Failure, output: Output) {
        self.problems += 1;
        output.problem(item, failure);
    }

    /// Sums up.
    ///
    /// # Errors
    ///
    /// `Partial` when anything was left out.
    pub fn finish(self, verb: &str, output: Output) -> Result<(), Failure> {
        if output.json {
            output.json(&self)?;
        } else {
            let mut text = format!(
                "{verb} {} ({})",
                plural(self.files, "file"),
                human::size(self.bytes)
            );
            if self.skipped > 0 {
                text.push_str(&format!(", {} there already", plural(self.skipped, "file")));
            }
            output.hint(&text);
        }
        if self.problems > 0 {
            return Err(Failure::new(
                Class::Partial,
                format!("{} left out; see above", plural_was(self.problems, "item")),
            )
            .help("run the command again when the reasons are gone: what is done is skipped"));
        }
        Ok(())
    }
}

/// Returns `1 file`, `2 files`.
#[must_use]
pub fn plural(count: u64, what: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {what}{ending}")
}

fn plural_was(count: u64, what: &str) -> String {
    let verb = if count == 1 { "was" } else { "were" };
    format!("{} {verb}", plural(count, what))
}
