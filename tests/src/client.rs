//! Runs of the client with an environment of their own.

use std::{
    ffi::OsStr,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::node_process::memory_of;

/// One person at one machine: runs `kastro` with a home folder, a server and a password of its own.
#[derive(Debug, Clone)]
pub struct Kastro {
    program: PathBuf,
    variables: Vec<(String, String)>,
    folder: PathBuf,
}

/// How a run ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; `None` when it was killed.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
    /// Wall clock time.
    pub took: Duration,
    /// Highest resident memory in bytes, where the system tells.
    pub peak_memory: Option<u64>,
}

impl Kastro {
    /// Starts with an empty home in `folder`.
    #[must_use]
    pub fn new(program: &Path, folder: &Path) -> Self {
        let home = folder.display().to_string();
        Self {
            program: program.to_path_buf(),
            variables: vec![("HOME".to_owned(), home)],
            folder: folder.to_path_buf(),
        }
    }

    /// Returns the same with an environment variable set.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Returns the command, to be started by the caller. Works in the home folder.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Finished {
        self.run_with_input(arguments, &[])
    }

    /// Runs a command with bytes on standard input.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn run_with_input<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Finished {
        let begin = Instant::now();
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .expect("the client's program starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let (status, peak_memory) = wait(&mut child);
        let _ = writer.join();
        Finished {
            code: status.code(),
            stdout: stdout.join().unwrap_or_default(),
            stderr: String::from_utf8_lossy(&stderr.join().unwrap_or_default()).into_owned(),
            took: begin.elapsed(),
            peak_memory,
        }
    }

    /// Runs a command that must succeed and returns what it printed.
    ///
    /// # Panics
    ///
    /// With its messages, when it does not succeed.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let finished = self.run(arguments);
        assert_eq!(
            finished.code,
            Some(0),
            "kastro {}: {}",
            shown(arguments),
            finished.stderr
        );
        finished.text()
    }

    /// Runs a command that must fail with `code` and one sentence, and returns that.
    ///
    /// # Panics
    ///
    /// When it ends in another way.
    #[track_caller]
    pub fn fails<S: AsRef<OsStr>>(&self, code: i32, arguments: &[S]) -> String {
        let finished = self.run(arguments);
        assert_eq!(
            finished.code,
            Some(code),
            "kastro {}: {}{}",
            shown(arguments),
            finished.text(),
            finished.stderr
        );
        finished.stderr
    }
}

impl Finished {
    /// Returns standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

fn shown<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    arguments
        .iter()
        .map(|argument| argument.as_ref().to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn drain<R: std::io::Read + Send + 'static>(source: Option<R>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            let _ = source.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Waits for the end, looking at the memory on the way: the system forgets it with the process.
fn wait(child: &mut Child) -> (ExitStatus, Option<u64>) {
    let mut peak = None;
    loop {
        if let Some((_, highest)) = memory_of(child.id()) {
            peak = Some(highest);
        }
        if let Some(status) = child.try_wait().expect("the process can be asked") {
            return (status, peak);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
