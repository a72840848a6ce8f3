//! What `du`, `find` and `tree` share: everything below a folder, with what could not be read told and counted.

use cryptree::client::{Entry, Walk};

use crate::{
    exit::{Class, Failure},
    output::Output,
    sync::here::joined,
};

/// Looks at trees, one after the other.
pub(crate) struct Survey {
    output: Output,
    shows_hidden: bool,
    problems: u64,
}

impl Survey {
    /// Starts; hidden entries, and what is below them, are left out unless `shows_hidden`.
    pub(crate) const fn new(shows_hidden: bool, output: Output) -> Self {
        Self {
            output,
            shows_hidden,
            problems: 0,
        }
    }

    /// Hands over every entry below `root`, with its path from there. A folder comes before what is in it.
    ///
    /// # Errors
    ///
    /// When the walk breaks off, and those of `seen`. What is damaged is told instead.
    pub(crate) async fn each(
        &mut self,
        root: &str,
        mut walk: Walk<'_>,
        mut seen: impl FnMut(&str, &Entry) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut hidden: Vec<String> = Vec::new();
        while let Some(page) = walk.next().await? {
            if hidden.iter().any(|above| is_within(&page.folder, above)) {
                continue;
            }
            for damaged in page.damaged {
                let name = damaged.name.unwrap_or_else(|| "an entry".to_owned());
                let path = format!("{root}/{}", joined(&page.folder, &name));
                self.output.problem(&path, &damaged.reason.into());
                self.problems += 1;
            }
            for found in &page.entries {
                let below = joined(&page.folder, &found.entry.name);
                if !self.shows_hidden && found.entry.is_hidden == Some(true) {
                    hidden.push(below);
                } else {
                    seen(&below, &found.entry)?;
                }
            }
        }
        Ok(())
    }

    /// Ends.
    ///
    /// # Errors
    ///
    /// `Partial` when something could not be read.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        if self.problems == 0 {
            return Ok(());
        }
        Err(Failure::new(
            Class::Partial,
            "not everything could be read; see above",
        ))
    }
}

/// Returns true when a folder is another one or below it.
fn is_within(folder: &str, above: &str) -> bool {
    folder
        .strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_within_themselves_and_those_above() {
        assert!(is_within("a/b", "a"));
        assert!(is_within("a", "a"));
        assert!(!is_within("ab", "a"));
        assert!(!is_within("", "a"));
    }
}
