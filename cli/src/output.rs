//! The one place that writes to standard output and standard error.
//!
//! Results go to standard output, everything else to standard error; a closed pipe (`kastro ls | head`) ends the
//! output quietly.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::{
    exit::{Class, Failure},
    human::printable,
};

/// How to talk to the person or script that called.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Results and errors as JSON.
    pub json: bool,
    /// No hints and progress.
    pub quiet: bool,
}

impl Output {
    /// Prints one line of a result.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written.
    pub fn line(self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").map_err(|error| closed(&error))
    }

    /// Prints one result as a line of JSON.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written.
    pub fn json(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::new(Class::Other, format!("cannot write JSON: {error}")))?;
        self.line(&text)
    }

    /// Prints raw bytes of a result.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written.
    pub fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        io::stdout()
            .lock()
            .write_all(bytes)
            .map_err(|error| closed(&error))
    }

    /// Tells a person something that is not the result.
    pub fn hint(self, text: &str) {
        if !self.quiet && !self.json {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// Reports an item that was left out; the command goes on.
    pub fn problem(self, item: &str, failure: &Failure) {
        let mut err = io::stderr().lock();
        if self.json {
            let _ = writeln!(
                err,
                "{}",
                serde_json::json!({ "problem": {
                    "item": item, "code": failure.class.code(), "class": failure.class.name(), "message": failure.message,
                } })
            );
        } else {
            let _ = writeln!(err, "{}: {}", printable(item), printable(&failure.message));
        }
    }

    /// Reports why the command failed.
    pub fn failure(self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        let mut err = io::stderr().lock();
        if self.json {
            let _ = writeln!(
                err,
                "{}",
                serde_json::json!({ "error": {
                    "code": failure.class.code(), "class": failure.class.name(),
                    "message": failure.message, "help": failure.help,
                } })
            );
            return;
        }
        let _ = writeln!(err, "error: {}", printable(&failure.message));
        if let Some(help) = &failure.help {
            let _ = writeln!(err, " help: {}", printable(help));
        }
    }

    /// Returns the same without lines of progress between the results of a list.
    #[must_use]
    pub const fn without_progress_lines(self) -> Self {
        Self {
            quiet: self.quiet || self.json,
            ..self
        }
    }

    /// Returns true when a progress bar makes sense.
    #[must_use]
    pub fn wants_progress(self) -> bool {
        !self.quiet && !self.json && io::stderr().is_terminal()
    }
}

/// A reader that went away wants no more output, and no complaint either.
fn closed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::new(Class::Other, String::new());
    }
    Failure::new(
        Class::Local,
        format!("cannot write to standard output: {error}"),
    )
}
