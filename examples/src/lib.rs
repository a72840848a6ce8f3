//! Kastro's stories as programs that run by themselves, each in a temporary folder.
//!
//! * `self_hosted_node`: one person runs one node and keeps files there.
//! * `login_through_another_node`: somebody logs in at a friend's node and reaches the one at home through it.
//! * `mirror_untrusted_node`: a node that cannot read an account keeps a copy of it, and the account comes back from there.
//!
//! `cargo run -p examples --example self_hosted_node`
//!
//! Every node and every command is a process of its own: the story's program plays `kastro` when it is called by that
//! name, so that what is printed here is what a person types.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;
use tests::{Kastro, NodeProcess};

/// Where a story takes place: a folder with the program in it.
#[derive(Debug)]
pub struct Stage {
    folder: TempDir,
    program: PathBuf,
}

/// Somebody who types commands.
#[derive(Debug)]
pub struct Person {
    prompt: String,
    kastro: Kastro,
    home: PathBuf,
}

/// Tells a story, or is `kastro` when called by that name.
pub fn main(story: fn(&Stage) -> anyhow::Result<()>) -> ExitCode {
    let called = std::env::args_os().next().map(PathBuf::from);
    if called.is_some_and(|name| name.file_name() == Some(PROGRAM.as_ref())) {
        return cli::main();
    }
    match Stage::new().and_then(|stage| story(&stage)) {
        Ok(()) => {
            say("Done.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

const PROGRAM: &str = "kastro";

impl Stage {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join(PROGRAM);
        std::os::unix::fs::symlink(std::env::current_exe()?, &program)?;
        Ok(Self { folder, program })
    }

    /// Returns the path of something on the stage.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a node in a process of its own, with its data in the folder of its name.
    #[must_use]
    pub fn node(&self, name: &str, settings: &[String]) -> NodeProcess {
        let options: Vec<_> = settings
            .iter()
            .flat_map(|setting| ["--set", setting])
            .collect();
        let node = NodeProcess::start(&self.program, &self.path(name), &options);
        say(&format!("   {name}$ kastro serve {}", options.join(" ")));
        say(&format!("   {}", node.url()));
        node
    }

    /// Brings somebody with a password to an empty machine.
    ///
    /// # Errors
    /// When the machine's folder cannot be made.
    pub fn person(
        &self,
        name: &str,
        machine: &str,
        node: &NodeProcess,
        password: &str,
    ) -> anyhow::Result<Person> {
        let person = self.somebody(&format!("{name}@{machine}"), machine)?;
        let kastro = person
            .kastro
            .with("KASTRO_SERVER", node.url())
            .with("KASTRO_USER", name)
            .with("KASTRO_PASSWORD", password);
        Ok(Person { kastro, ..person })
    }

    /// Brings the operator of a node.
    ///
    /// # Errors
    /// When the machine's folder cannot be made.
    pub fn operator(&self, name: &str, node: &NodeProcess) -> anyhow::Result<Person> {
        let person = self.somebody(name, &format!("operator of {name}"))?;
        let data = node.data().display().to_string();
        let kastro = person.kastro.with("KASTRO_DATA", &data);
        Ok(Person { kastro, ..person })
    }

    fn somebody(&self, prompt: &str, machine: &str) -> anyhow::Result<Person> {
        let home = self.path(machine);
        std::fs::create_dir_all(&home)?;
        Ok(Person {
            prompt: prompt.to_owned(),
            kastro: Kastro::new(&self.program, &home),
            home,
        })
    }
}

impl Person {
    /// Runs a command, shows it with what it printed, and returns that.
    ///
    /// # Errors
    /// With the command's message when it fails.
    pub fn types(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let finished = self.run(arguments);
        ensure!(
            finished.code == Some(0),
            "{}{}",
            finished.text(),
            finished.stderr
        );
        for line in finished.text().lines() {
            say(&format!("   {line}"));
        }
        Ok(finished.text())
    }

    /// Runs a command that must be refused, and shows why.
    ///
    /// # Errors
    /// When it is not.
    pub fn is_refused(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let finished = self.run(arguments);
        ensure!(finished.code != Some(0), "{}", finished.text());
        for line in finished.stderr.lines() {
            say(&format!("   {line}"));
        }
        Ok(())
    }

    /// Runs a command and returns a field of its JSON answer.
    ///
    /// # Errors
    /// When it fails or there is no such field.
    pub fn asks(&self, arguments: &[&str], field: &str) -> anyhow::Result<serde_json::Value> {
        let answer = self.types(&[arguments, &["--json"]].concat())?;
        let answer: serde_json::Value = serde_json::from_str(answer.trim())?;
        let found = answer.get(field);
        found.cloned().with_context(|| format!("no `{field}`"))
    }

    fn run(&self, arguments: &[&str]) -> tests::Finished {
        let shown: Vec<_> = arguments.iter().map(|part| quoted(part)).collect();
        say(&format!("   {}$ kastro {}", self.prompt, shown.join(" ")));
        self.kastro.run(arguments)
    }

    /// Writes a file on this person's machine.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn writes(&self, file: &str, content: &[u8]) -> anyhow::Result<()> {
        Ok(std::fs::write(self.home.join(file), content)?)
    }

    /// Fails unless a file on this person's machine holds just these bytes.
    ///
    /// # Errors
    /// When it does not.
    pub fn holds(&self, file: &str, content: &[u8]) -> anyhow::Result<()> {
        if std::fs::read(self.home.join(file))? != content {
            bail!("{file} differs");
        }
        say(&format!("   {file} is there, byte for byte"));
        Ok(())
    }
}

fn quoted(part: &str) -> String {
    let is_plain = !part.contains(char::is_whitespace) && !part.is_empty();
    if is_plain {
        part.to_owned()
    } else {
        format!("'{part}'")
    }
}

/// Some bytes that are not all alike.
#[must_use]
pub fn film(bytes: u32) -> Vec<u8> {
    let byte = |i: u32| i.wrapping_mul(2_654_435_761).to_be_bytes()[0];
    (0..bytes).map(byte).collect()
}

/// Fails if a name or the bytes of any file below `folder` holds one of `words`.
///
/// # Errors
/// Then, and when the folder cannot be read.
pub fn tells_nothing(folder: &Path, words: &[&str]) -> anyhow::Result<()> {
    let files = files(folder)?;
    for path in &files {
        let name = path.strip_prefix(folder)?.as_os_str().as_encoded_bytes();
        let bytes = std::fs::read(path)?;
        for word in words {
            let inside = |text: &[u8]| text.windows(word.len()).any(|part| part == word.as_bytes());
            ensure!(
                !inside(name) && !inside(&bytes),
                "`{word}` is readable in {}",
                path.display()
            );
        }
    }
    say(&format!("   searched {} files", files.len()));
    Ok(())
}

/// Returns the bytes of all block files below a data folder: what is written beside them does not grow with uploads.
///
/// # Errors
/// When the folder cannot be read.
pub fn bytes_of_blocks(data: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for path in files(data)? {
        let is_block = path.iter().any(|part| part == "blocks");
        bytes += if is_block { path.metadata()?.len() } else { 0 };
    }
    Ok(bytes)
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Prints a line of the story.
#[expect(clippy::print_stdout, reason = "a story is told")]
pub fn say(line: &str) {
    println!("{line}");
}
