//! Reaches the node of a data folder for its operator: the running one over its socket, else the folder itself.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::{Buf as _, Bytes};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use node::{
    Node,
    operator::{
        Event, Failed, FailedKind, Line, Operation, Progress, Report, Unit, follow, listener,
    },
};
use serde_json::Value;
use tokio::net::UnixStream;

use crate::{
    args::OperatorOptions,
    commands::serve::open_node,
    config,
    exit::{Class, Failure},
    output::Output,
};

/// Longest line of an answer in bytes.
const MAX_LINE_BYTES: usize = 16 << 20;

/// A node, for its operator.
#[derive(Debug)]
pub struct Operator {
    folder: PathBuf,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// A process that holds the folder's lock.
    Running,
    /// This process.
    Here(Box<Node>),
}

impl Operator {
    /// Reaches the node of the data folder that the options name.
    ///
    /// # Errors
    ///
    /// When there is no such folder, or a process has it that does not answer.
    pub async fn reach(options: &OperatorOptions) -> Result<Self, Failure> {
        let folder = config::data_folder(&options.flags())?;
        if !folder.is_dir() {
            return Err(Failure::new(
                Class::Local,
                format!("there is no data folder {}", folder.display()),
            )
            .help("name the node's folder with --data or KASTRO_DATA; `kastro serve` makes it"));
        }
        if connect(&folder).await?.is_some() {
            return Ok(Self {
                folder,
                place: Place::Running,
            });
        }
        let config = config::load(&options.flags())?.settings.node;
        let node = open_node(config).await.map_err(|failure| {
            if failure.class == Class::InUse {
                let socket = folder.join(listener::SOCKET_FILE);
                return failure.help(format!(
                    "that process does not answer on {}: it is still starting or ending, or is another \
                     command; try again",
                    socket.display()
                ));
            }
            failure
        })?;
        Ok(Self {
            folder,
            place: Place::Here(Box::new(node)),
        })
    }

    /// Returns the data folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns true when another process runs the node.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        matches!(self.place, Place::Running)
    }

    /// Runs an operation. Progress is shown to people as a bar and to scripts as lines; each item is handed
    /// to `on_item`.
    ///
    /// # Errors
    ///
    /// The operation's, those of `on_item`, and when the running node cannot be understood.
    pub async fn run<O: Operation>(
        &self,
        operation: O,
        output: Output,
        mut on_item: impl FnMut(Value) -> Result<(), Failure>,
    ) -> Result<O::Outcome, Failure> {
        let bar = Bar::new(output);
        let on_event = |event| match event {
            Event::Progress(progress) => bar.show(&progress),
            Event::Item(item) => bar.pause(|| on_item(item)),
        };
        match &self.place {
            Place::Here(node) => {
                let (report, events) = Report::channel();
                let outcome = follow(operation.run(node, &report), events, on_event).await?;
                Ok(outcome?)
            }
            Place::Running => self.ask(operation, on_event).await,
        }
    }

    /// Runs an operation that has no items.
    ///
    /// # Errors
    ///
    /// As [`Operator::run`].
    pub async fn ask_for<O: Operation>(
        &self,
        operation: O,
        output: Output,
    ) -> Result<O::Outcome, Failure> {
        self.run(operation, output, |_| Ok(())).await
    }

    /// Lets go of a folder that this process opened.
    pub async fn close(self) {
        if let Place::Here(node) = self.place
            && let Err(error) = node.close().await
        {
            tracing::warn!(%error, "the data folder was not closed cleanly");
        }
    }

    async fn ask<O: Operation>(
        &self,
        operation: O,
        mut on_event: impl FnMut(Event) -> Result<(), Failure>,
    ) -> Result<O::Outcome, Failure> {
        let parameters = serde_json::to_vec(&operation).map_err(|error| not_understood(&error))?;
        let target = format!("{}{}", listener::OPERATION_PATH, O::NAME);
        let body = self.send("POST", &target, parameters).await?;
        let mut lines = Lines::of(body);
        while let Some(line) = lines.next().await? {
            match line {
                Line::Progress(progress) => on_event(Event::Progress(progress))?,
                Line::Item(item) => on_event(Event::Item(item))?,
                Line::Failed(failed) => return Err(failed.into()),
                Line::Result(value) => {
                    return serde_json::from_value(value).map_err(|error| not_understood(&error));
                }
            }
        }
        Err(broken("its answer ended early"))
    }

    /// Sends a request to the running node and returns the body of its answer.
    async fn send(&self, method: &str, target: &str, body: Vec<u8>) -> Result<Incoming, Failure> {
        let stream = connect(&self.folder)
            .await?
            .ok_or_else(|| broken("it has just stopped"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error.to_string()))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "localhost")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| broken(&error.to_string()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error.to_string()))?;
        match response.status() {
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => Ok(response.into_body()),
            status => Err(not_understood(&status)),
        }
    }
}

/// Reads an item of an operation.
///
/// # Errors
///
/// When the running node is of another version.
pub fn item<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| not_understood(&error))
}

/// Connects to the socket in a data folder; `None` when no process listens on it.
///
/// # Errors
///
/// When the socket is there and may not be used.
async fn connect(folder: &Path) -> Result<Option<UnixStream>, Failure> {
    let path = folder.join(listener::SOCKET_FILE);
    // Connecting to a socket of this machine does not wait.
    let connected = listener::short_path(folder, |near| {
        std::os::unix::net::UnixStream::connect(near.join(listener::SOCKET_FILE))
    });
    let usable = connected.and_then(|stream| {
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    });
    match usable {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(Failure::local("connect to", &path, &error)
            .help("run the command as the user that runs the node")),
    }
}

/// The lines of a streamed answer.
struct Lines {
    body: Incoming,
    buffered: Vec<u8>,
    searched: usize,
}

impl Lines {
    const fn of(body: Incoming) -> Self {
        Self {
            body,
            buffered: Vec::new(),
            searched: 0,
        }
    }

    async fn next(&mut self) -> Result<Option<Line>, Failure> {
        loop {
            let unsearched = self.buffered.get(self.searched..).unwrap_or_default();
            if let Some(end) = unsearched.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffered.split_off(self.searched + end + 1);
                let line = std::mem::replace(&mut self.buffered, rest);
                self.searched = 0;
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| not_understood(&error));
            }
            self.searched = self.buffered.len();
            if self.searched > MAX_LINE_BYTES {
                return Err(broken("a line of its answer is too long"));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| broken(&error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                self.buffered.extend_from_slice(data.chunk());
            }
        }
    }
}

fn broken(why: &str) -> Failure {
    Failure::new(
        Class::NoServer,
        format!("the running node did not finish: {why}"),
    )
    .help("look at its log; what was done stays done, and the command can be run again")
}

fn not_understood(what: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Class::WrongServer,
        format!("the running node does not understand this command: {what}"),
    )
    .help("it is another version of kastro: restart it with this one")
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Self {
        let class = match failed.kind {
            FailedKind::NotFound => Class::NotFound,
            FailedKind::Refused => Class::Refused,
            FailedKind::NotAllowed => Class::NotAllowed,
            FailedKind::Conflict => Class::Conflict,
            FailedKind::Damaged => Class::Damaged,
            FailedKind::NoSpace => Class::NoSpace,
            FailedKind::Local => Class::Local,
            FailedKind::Request => return not_understood(&failed.message),
            _ => Class::Other,
        };
        let failure = Self::new(class, failed.message);
        match failed.help {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

/// How far an operation is: a bar for people, lines on standard error for scripts.
struct Bar {
    bar: ProgressBar,
    output: Output,
}

impl Bar {
    fn new(output: Output) -> Self {
        let bar = ProgressBar::new(0);
        if output.wants_progress() {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self { bar, output }
    }

    fn show(&self, progress: &Progress) -> Result<(), Failure> {
        if self.output.json && !self.output.quiet {
            return self.output.json(&Line::Progress(progress.clone()));
        }
        let template = match (progress.unit, progress.total.is_some()) {
            (Unit::Bytes, true) => "{msg} {bytes}/{total_bytes} {bar:24} {eta}",
            (Unit::Bytes, false) => "{msg} {bytes} {binary_bytes_per_sec}",
            (Unit::Items, true) => "{msg} {pos}/{len} {bar:24} {eta}",
            (Unit::Items, false) => "{msg} {pos}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
        self.bar.set_length(progress.total.unwrap_or(progress.done));
        self.bar.set_position(progress.done);
        self.bar
            .set_message(crate::human::printable(&progress.stage));
        Ok(())
    }

    fn pause<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
