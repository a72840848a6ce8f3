//! What a run did, for people and scripts.

use serde::Serialize;

use super::{places::Renamed, plan::Action};
use crate::{
    commands::tally::plural,
    exit::{Class, Failure},
    human::{self, printable},
    output::Output,
    progress::Progress,
};

/// Counts of one run.
#[derive(Debug, Default, Serialize)]
pub struct Counts {
    uploaded: u64,
    downloaded: u64,
    moved: u64,
    deleted_here: u64,
    deleted_there: u64,
    folders: u64,
    conflicts: u64,
    bytes_up: u64,
    bytes_down: u64,
    left_out: u64,
    problems: u64,
}

/// Tells what happens while it happens.
#[derive(Debug)]
pub struct Report {
    counts: Counts,
    output: Output,
    progress: Progress,
    /// What was told already: a folder watched for days is not to repeat itself.
    told: std::collections::HashSet<String>,
}

impl Report {
    /// Starts with nothing done.
    #[must_use]
    pub fn new(output: Output) -> Self {
        Self {
            counts: Counts::default(),
            output,
            progress: Progress::start(output, "sync"),
            told: std::collections::HashSet::new(),
        }
    }

    /// Announces bytes to be transferred.
    pub fn expect(&self, bytes: u64) {
        self.progress.expect(bytes);
    }

    /// Counts bytes transferred.
    pub fn transferred(&self, bytes: u64) {
        self.progress.done(bytes);
    }

    /// Shows what is worked on.
    pub fn at(&self, path: &str) {
        self.progress.at(path);
    }

    /// Counts and tells what was done.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written.
    pub fn done(&mut self, action: &Action) -> Result<(), Failure> {
        let counts = &mut self.counts;
        match action {
            Action::MoveRemote { .. } | Action::MoveLocal { .. } => counts.moved += 1,
            Action::MakeRemote { .. } | Action::MakeLocal { .. } => counts.folders += 1,
            Action::Upload { .. } => {
                counts.uploaded += 1;
                counts.bytes_up += action.bytes();
            }
            Action::Download { .. } => {
                counts.downloaded += 1;
                counts.bytes_down += action.bytes();
            }
            Action::Compare { .. } => counts.bytes_down += action.bytes(),
            Action::DeleteLocal { .. } => counts.deleted_here += 1,
            Action::DeleteRemote { expected, .. } => counts.deleted_there += expected.len() as u64,
        }
        if self.output.json {
            return tell(action, self.output);
        }
        Ok(())
    }

    /// Tells that a file that was changed on both sides is kept twice.
    pub fn conflict(&mut self, copy: &str) {
        self.counts.conflicts += 1;
        let output = self.output;
        let text = format!("changed on both sides, kept both: {}", printable(copy));
        self.progress.pause(|| output.hint(&text));
    }

    /// Tells that something takes no part.
    pub fn note(&mut self, path: &str, reason: &str) {
        if !self.told.insert(path.to_owned()) {
            return;
        }
        self.counts.left_out += 1;
        let output = self.output;
        let text = format!("{}: left out: {}", printable(path), printable(reason));
        self.progress.pause(|| output.hint(&text));
    }

    /// Tells that something has another name here.
    pub fn renamed(&mut self, renamed: &Renamed) {
        if !self.told.insert(renamed.path.clone()) {
            return;
        }
        let output = self.output;
        let text = format!(
            "{}: this disk takes its name for that of `{}`; it is `{}` here",
            renamed.path, renamed.other, renamed.name
        );
        self.progress.pause(|| output.hint(&printable(&text)));
    }

    /// Reports what could not be done.
    pub fn problem(&mut self, path: &str, failure: &Failure) {
        self.counts.problems += 1;
        let output = self.output;
        self.progress.pause(|| output.problem(path, failure));
    }

    /// Returns whether anything was done.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        let counts = &self.counts;
        counts.uploaded
            + counts.downloaded
            + counts.moved
            + counts.deleted_here
            + counts.deleted_there
            + counts.folders
            + counts.problems
            == 0
    }

    /// Sums up and starts counting anew.
    ///
    /// # Errors
    ///
    /// `Partial` when something could not be done.
    pub fn finish(&mut self) -> Result<(), Failure> {
        let counts = std::mem::take(&mut self.counts);
        if self.output.json {
            self.output.json(&counts)?;
        } else {
            let text = summary(&counts);
            self.progress.pause(|| self.output.hint(&text));
        }
        if counts.problems > 0 {
            return Err(Failure::new(
                Class::Partial,
                format!(
                    "{} could not be done; see above",
                    plural(counts.problems, "thing")
                ),
            )
            .help("run the command again when the reasons are gone: it goes on from there"));
        }
        Ok(())
    }
}

fn summary(counts: &Counts) -> String {
    let mut parts = Vec::new();
    let mut add = |count: u64, text: String| {
        if count > 0 {
            parts.push(text);
        }
    };
    let transferred = |verb: &str, files: u64, bytes: u64| {
        format!("{verb} {} ({})", plural(files, "file"), human::size(bytes))
    };
    add(
        counts.uploaded,
        transferred("uploaded", counts.uploaded, counts.bytes_up),
    );
    add(
        counts.downloaded,
        transferred("downloaded", counts.downloaded, counts.bytes_down),
    );
    add(counts.moved, format!("moved {}", counts.moved));
    add(
        counts.deleted_here,
        format!("deleted {} here", counts.deleted_here),
    );
    add(
        counts.deleted_there,
        format!("deleted {} there", counts.deleted_there),
    );
    add(
        counts.conflicts,
        format!("kept {} twice", plural(counts.conflicts, "file")),
    );
    if parts.is_empty() {
        "nothing to do".to_owned()
    } else {
        parts.join(", ")
    }
}

/// Prints an action as a result: one line, for a dry run and for scripts.
///
/// # Errors
///
/// When standard output cannot be written.
pub fn tell(action: &Action, output: Output) -> Result<(), Failure> {
    let from = match action {
        Action::MoveRemote { from, .. } | Action::MoveLocal { from, .. } => Some(from),
        _ => None,
    };
    if output.json {
        let mut row = serde_json::json!({ "action": action.word(), "path": action.path() });
        if let Some(row) = row.as_object_mut() {
            if let Some(from) = from {
                row.insert("from".to_owned(), from.as_str().into());
            }
            if action.bytes() > 0 {
                row.insert("bytes".to_owned(), action.bytes().into());
            }
        }
        return output.json(&row);
    }
    let path = printable(action.path());
    match from {
        Some(from) => output.line(&format!(
            "{:<12} {} -> {path}",
            action.word(),
            printable(from)
        )),
        None => output.line(&format!("{:<12} {path}", action.word())),
    }
}
