//! `kastro shell`: the commands of the command line without logging in each time, with a current folder on either side.
//!
//! At a terminal with history and completion of remote paths; from a pipe as a script, which stops at the first failure.

mod complete;
mod words;

use std::{io::IsTerminal, path::Path};

use clap::Parser;
use rustyline::{Editor, error::ReadlineError, history::FileHistory};

use crate::{
    args::{Cli, Command, ShellArgs},
    connect::{self, Shared, connect},
    exit::{Class, Failure},
    human::printable,
    output::Output,
    remote_path::{self, absolute},
    session,
};
use complete::Completion;

/// Runs the command.
///
/// # Errors
///
/// From a pipe, that of the first command that fails, unless told to go on.
pub async fn run(args: &ShellArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let mut shell = Shell {
        shared: connected.share(),
        folder: vec![connected.user().to_owned()],
        output,
    };
    let done = if std::io::stdin().is_terminal() {
        Box::pin(shell.converse(args)).await
    } else {
        Box::pin(shell.follow(args.keep_going)).await
    };
    drop(shell);
    connected.close().await;
    done
}

struct Shell {
    shared: Shared,
    /// The current remote folder.
    folder: Vec<String>,
    output: Output,
}

/// What to do after a line.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Line,
    End,
}

impl Shell {
    /// Reads lines at a terminal.
    async fn converse(&mut self, args: &ShellArgs) -> Result<(), Failure> {
        let broken = |error: ReadlineError| {
            Failure::new(Class::Local, format!("cannot read a line: {error}"))
        };
        let history = session::config_folder(args.connection.session_dir.as_deref())
            .map(|folder| folder.join("shell-history"));
        let mut editor: Editor<Completion, FileHistory> = Editor::new().map_err(broken)?;
        editor.set_helper(Some(Completion::new(self.shared.session.clone())));
        if let Ok(history) = &history {
            // A new machine has none.
            let _ = editor.load_history(history);
        }
        self.output
            .hint("`help` lists the commands, Tab completes, Ctrl-D ends.");
        loop {
            if let Some(helper) = editor.helper_mut() {
                helper.folder.clone_from(&self.folder);
            }
            let prompt = format!("{}> ", printable(&absolute(&self.folder)));
            let line = match tokio::task::block_in_place(|| editor.readline(&prompt)) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(broken(error)),
            };
            let _ = editor.add_history_entry(&line);
            let ended = tokio::select! {
                ended = Box::pin(self.line(&line)) => ended,
                _ = tokio::signal::ctrl_c() => {
                    Err(Failure::new(Class::Interrupted, "interrupted"))
                }
            };
            match ended {
                Ok(Next::Line) => {}
                Ok(Next::End) => break,
                Err(failure) => self.output.failure(&failure),
            }
        }
        if let Ok(history) = &history {
            keep_history(&mut editor, history);
        }
        Ok(())
    }

    /// Runs the lines of a script.
    async fn follow(&mut self, keep_going: bool) -> Result<(), Failure> {
        use tokio::io::AsyncBufReadExt as _;
        let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
        let mut failed = None;
        loop {
            let line = lines.next_line().await.map_err(|error| {
                Failure::new(Class::Local, format!("cannot read standard input: {error}"))
            })?;
            let Some(line) = line else { break };
            let ended = tokio::select! {
                ended = Box::pin(self.line(&line)) => ended,
                _ = tokio::signal::ctrl_c() => {
                    return Err(Failure::new(Class::Interrupted, "interrupted"));
                }
            };
            match ended {
                Ok(Next::Line) => {}
                Ok(Next::End) => break,
                Err(failure) if keep_going => {
                    self.output.failure(&failure);
                    failed = Some(Failure::new(
                        Class::Partial,
                        "some commands failed; see above",
                    ));
                }
                Err(failure) => return Err(failure),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Runs one line.
    async fn line(&mut self, line: &str) -> Result<Next, Failure> {
        let words =
            words::split(line).map_err(|reason| Failure::new(Class::Usage, reason.to_owned()))?;
        let Some((command, rest)) = words.split_first() else {
            return Ok(Next::Line);
        };
        match (command.as_str(), rest) {
            ("exit" | "quit", _) => return Ok(Next::End),
            ("help", []) => self.output.line(HELP)?,
            ("pwd", []) => self.output.line(&printable(&absolute(&self.folder)))?,
            ("lpwd", []) => {
                let folder = std::env::current_dir()
                    .map_err(|error| Failure::local("read", Path::new("."), &error))?;
                self.output
                    .line(&printable(&folder.display().to_string()))?;
            }
            ("cd", []) => self.folder = vec![self.shared.session.username().to_owned()],
            ("cd", [path]) => self.change_folder(path).await?,
            ("lcd", []) => change_local_folder(&session::home()?)?,
            ("lcd", [path]) => change_local_folder(Path::new(path))?,
            ("cd" | "lcd" | "pwd" | "lpwd", _) => {
                return Err(Failure::new(
                    Class::Usage,
                    format!("{command}: too many words"),
                ));
            }
            _ => self.command(&words).await?,
        }
        Ok(Next::Line)
    }

    async fn change_folder(&mut self, path: &str) -> Result<(), Failure> {
        let folder = self.folder.clone();
        let path = remote_path::within(folder, async { path.parse::<remote_path::RemotePath>() })
            .await
            .map_err(|error| Failure::new(Class::Usage, error.to_string()))?;
        let components = path.of(self.shared.session.username());
        let entry = self.shared.session.stat(&absolute(&components)).await?;
        if !entry.is_directory {
            let path = absolute(&components);
            return Err(Failure::new(
                Class::Exists,
                format!("`{path}` is not a folder"),
            ));
        }
        self.folder = components;
        Ok(())
    }

    /// Runs a command of the command line.
    async fn command(&self, words: &[String]) -> Result<(), Failure> {
        let words = std::iter::once("kastro").chain(words.iter().map(String::as_str));
        let output = self.output;
        let run = async {
            let parsed = match Cli::try_parse_from(words) {
                Ok(parsed) => parsed,
                // A page of help is what was asked for.
                Err(error) if error.exit_code() == 0 => {
                    return output.line(error.render().to_string().trim_end());
                }
                Err(error) => {
                    let text = error.render().to_string();
                    let text = text.trim_start_matches("error: ").trim_end();
                    return Err(Failure::new(Class::Usage, text));
                }
            };
            let output = Output {
                json: parsed.json || output.json,
                quiet: parsed.quiet || output.quiet,
            };
            match parsed.command {
                Some(command) if works_here(&command) => {
                    Box::pin(crate::client_command(&command, output)).await
                }
                _ => Err(
                    Failure::new(Class::Usage, "this command does not work in the shell")
                        .help("`help` lists those that do"),
                ),
            }
        };
        let run = connect::sharing(self.shared.clone(), run);
        Box::pin(remote_path::within(self.folder.clone(), run)).await
    }
}

const fn works_here(command: &Command) -> bool {
    matches!(
        command,
        Command::Ls(_)
            | Command::Cat(_)
            | Command::Get(_)
            | Command::Put(_)
            | Command::Write(_)
            | Command::Truncate(_)
            | Command::Mkdir(_)
            | Command::Mv(_)
            | Command::Cp(_)
            | Command::Rm(_)
            | Command::Stat(_)
            | Command::Du(_)
            | Command::Find(_)
            | Command::Tree(_)
            | Command::Sync(_)
            | Command::Publish(_)
            | Command::Unpublish(_)
            | Command::Link(_)
            | Command::Space(_)
    )
}

fn change_local_folder(path: &Path) -> Result<(), Failure> {
    std::env::set_current_dir(path).map_err(|error| Failure::local("enter", path, &error))
}

/// Keeps the history for the eyes of one person; failing to fails nothing.
fn keep_history(editor: &mut Editor<Completion, FileHistory>, path: &Path) {
    if let Some(folder) = path.parent() {
        let _ = crate::local::private::make_folder(folder);
    }
    let _ = editor.save_history(path);
}

const HELP: &str = "\
Here:     cd [FOLDER]  pwd  lcd [LOCAL]  lpwd  help [COMMAND]  exit
Looking:  ls  tree  find  stat  cat  du  space
Files:    get  put  write  truncate  mkdir  mv  cp  rm  sync  publish  unpublish  link

Paths without a slash in front start in the current folder; `..` is the folder above. Words with blanks
stand in quotes. `help COMMAND` explains one.";
