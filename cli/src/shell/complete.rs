//! Completion at the terminal: commands, remote paths, and local ones where a command wants them.

use clap::CommandFactory;
use cryptree::client::{Detail, Session};
use rustyline::{
    Context, Helper,
    completion::{Completer, FilenameCompleter, Pair},
    highlight::Highlighter,
    hint::Hinter,
    validate::Validator,
};

use super::words;
use crate::{args::Cli, human::printable};

/// Completes words.
pub(super) struct Completion {
    session: Session,
    /// The current remote folder.
    pub(super) folder: Vec<String>,
    files: FilenameCompleter,
}

impl Completion {
    pub(super) fn new(session: Session) -> Self {
        Self {
            session,
            folder: Vec::new(),
            files: FilenameCompleter::new(),
        }
    }

    fn remote(&self, typed: &str) -> Vec<Pair> {
        let (folder, beginning) = typed
            .rsplit_once('/')
            .map_or(("", typed), |(folder, name)| {
                (if folder.is_empty() { "/" } else { folder }, name)
            });
        let mut components = match typed.starts_with('/') {
            true => Vec::new(),
            false => self.folder.clone(),
        };
        for name in folder.split('/') {
            match name {
                "" | "." => {}
                ".." => drop(components.pop()),
                name => components.push(name.to_owned()),
            }
        }
        let prefix = typed
            .get(..typed.len() - beginning.len())
            .unwrap_or_default();
        let candidate = |name: &str, is_folder: bool| {
            let slash = if is_folder { "/" } else { "" };
            Pair {
                display: format!("{}{slash}", printable(name)),
                replacement: format!("{}{slash}", words::quoted(&format!("{prefix}{name}"))),
            }
        };
        if components.is_empty() {
            // Whose folders there are besides one's own nobody tells.
            let own = self.session.username();
            let fits = own.starts_with(beginning);
            return fits.then(|| candidate(own, true)).into_iter().collect();
        }
        let path = crate::remote_path::absolute(&components);
        let listed = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(self.session.list(&path, Detail::Quick))
        });
        let mut pairs: Vec<Pair> = listed
            .map(|listing| listing.entries)
            .unwrap_or_default()
            .iter()
            .filter(|entry| entry.name.starts_with(beginning))
            .filter(|entry| beginning.starts_with('.') || !entry.name.starts_with('.'))
            .take(MAX_CANDIDATES)
            .map(|entry| candidate(&entry.name, entry.is_directory))
            .collect();
        pairs.sort_by(|a, b| a.display.cmp(&b.display));
        pairs
    }
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let line = line.get(..position).unwrap_or(line);
        let (start, typed) = words::last(line);
        let before = words::split(line.get(..start).unwrap_or_default()).unwrap_or_default();
        let wants_local = match before.first().map(String::as_str) {
            None => {
                return Ok((start, commands(&typed)));
            }
            Some("lcd") => true,
            Some("put" | "sync") => before.len() == 1,
            Some("get") => before.len() == 2,
            Some(_) => false,
        };
        if wants_local {
            return self.files.complete(line, position, context);
        }
        Ok((start, self.remote(&typed)))
    }
}

/// Returns the commands that begin with what was typed.
fn commands(typed: &str) -> Vec<Pair> {
    let all = Cli::command();
    let known = all
        .get_subcommands()
        .map(|command| command.get_name().to_owned());
    let own = ["cd", "pwd", "lcd", "lpwd", "help", "exit"].map(str::to_owned);
    let mut names: Vec<String> = known
        .filter(|name| super::HELP.split_whitespace().any(|word| word == name))
        .chain(own)
        .filter(|name| name.starts_with(typed))
        .collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .map(|name| Pair {
            replacement: format!("{name} "),
            display: name,
        })
        .collect()
}

impl Hinter for Completion {
    type Hint = String;
}

impl Highlighter for Completion {}
impl Validator for Completion {}
impl Helper for Completion {}

/// Most candidates that are offered.
const MAX_CANDIDATES: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_work_here_are_offered() {
        let names = |typed| -> Vec<String> {
            commands(typed)
                .into_iter()
                .map(|pair| pair.display)
                .collect()
        };
        assert_eq!(names("l"), ["lcd", "link", "lpwd", "ls"]);
        assert_eq!(names("p"), ["publish", "put", "pwd"]);
        assert!(names("serve").is_empty());
    }
}
