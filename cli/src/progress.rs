//! A progress bar for people who wait.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

/// Shows bytes and files done; silent when nobody watches.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Starts a bar. The total grows as work is discovered.
    #[must_use]
    pub fn start(output: Output, verb: &'static str) -> Self {
        let bar = ProgressBar::new(0);
        if output.wants_progress() {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
            let style = ProgressStyle::with_template(
                "{prefix} {bytes}/{total_bytes} {bar:24} {binary_bytes_per_sec} {eta} {wide_msg}",
            );
            if let Ok(style) = style {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(verb);
            bar.enable_steady_tick(Duration::from_millis(250));
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self { bar }
    }

    /// Adds work to be done.
    pub fn expect(&self, bytes: u64) {
        self.bar.inc_length(bytes);
    }

    /// Reports work done.
    pub fn done(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Shows what is being worked on.
    pub fn at(&self, item: &str) {
        self.bar.set_message(crate::human::printable(item));
    }

    /// Runs `write` without the bar in the way.
    pub fn pause<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
