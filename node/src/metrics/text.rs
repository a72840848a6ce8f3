//! The text format of Prometheus, version 0.0.4: as much of it as there is to say here.
//!
//! Written by hand because it is a page of code; values are whole numbers, and names, labels and help are texts of
//! this crate, so nothing needs escaping.

use std::fmt::Write as _;

/// A text under construction.
#[derive(Debug, Default)]
pub(super) struct Text {
    out: String,
    /// Name of the family that samples belong to.
    name: &'static str,
}

impl Text {
    /// Begins a family.
    pub(super) fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        // Writing to a string cannot fail.
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Adds a sample of the family.
    pub(super) fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: u64) {
        self.labelled(suffix, labels);
        let _ = writeln!(self.out, " {value}");
    }

    /// Adds a family of one gauge.
    pub(super) fn gauge(&mut self, name: &'static str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        self.sample("", &[], value);
    }

    /// Adds the samples of a histogram of microseconds: `buckets` holds upper ends and how many fell below them
    /// and above the one before.
    pub(super) fn histogram(
        &mut self,
        (label, value): (&str, &str),
        buckets: impl Iterator<Item = (u64, u64)>,
        count: u64,
        micros: u64,
    ) {
        let mut below = 0u64;
        for (end, inside) in buckets {
            below += inside;
            self.sample("_bucket", &[(label, value), ("le", &seconds(end))], below);
        }
        self.sample("_bucket", &[(label, value), ("le", "+Inf")], count);
        self.labelled("_sum", &[(label, value)]);
        let _ = writeln!(self.out, " {}", seconds(micros));
        self.sample("_count", &[(label, value)], count);
    }

    fn labelled(&mut self, suffix: &str, labels: &[(&str, &str)]) {
        let _ = write!(self.out, "{}{suffix}", self.name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let start = if index == 0 { '{' } else { ',' };
            let _ = write!(self.out, "{start}{label}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
    }

    /// Returns the text.
    pub(super) fn finish(self) -> String {
        self.out
    }
}

/// Writes microseconds as seconds, without zeros at the end.
fn seconds(micros: u64) -> String {
    let (whole, rest) = (micros / 1_000_000, micros % 1_000_000);
    if rest == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{rest:06}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_written_shortly() {
        for (micros, text) in [
            (0, "0"),
            (500, "0.0005"),
            (1_000_000, "1"),
            (2_500_000, "2.5"),
            (60_003_000, "60.003"),
        ] {
            assert_eq!(seconds(micros), text);
        }
    }
}
