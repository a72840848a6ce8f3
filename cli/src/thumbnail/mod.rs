//! Small pictures of pictures, which travel encrypted with a file's properties (Spec: 20 §5 `i`, 21 §9.2 step 4).
//!
//! Decoders of pictures are the part of this program that is most likely to have a defect, and what they are given may
//! come from anybody. So they run in another process (Spec: 40 FS-12): this binary again, which has no password, can open
//! nothing, has little memory and little time. Whatever happens to it, the upload goes on without a thumbnail.

mod picture;
mod worker;

use std::{
    ffi::{OsStr, OsString},
    io::Read as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::Duration,
};

use cryptree::properties::{MAX_THUMBNAIL_BYTES, Thumbnail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Mutex,
};

pub use picture::{EDGE_PIXELS, MAX_PIXELS, Picture};
pub(crate) use worker::{is_asked_for, run as run_worker};

/// Largest file of which a thumbnail is made, in bytes; anything larger is no picture that people look at.
pub const MAX_PICTURE_BYTES: u64 = 32 << 20;
/// Smallest one.
pub const MIN_PICTURE_BYTES: u64 = 41;
/// How long one thumbnail may take.
const MAX_TIME: Duration = Duration::from_secs(10);
/// Pictures that one process makes: what it leaks and the processor time it uses up end with it.
const MAX_PICTURES: u32 = 200;
/// Processes that may fail before no more are started: then it is not the pictures.
const MAX_FAILURES: u32 = 20;

/// This binary, once it is known to be `kastro`: another program that uses this library cannot be its own worker.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Says that this process is `kastro` itself, which can be started again as the worker.
pub(crate) fn announce_program() {
    if let Ok(program) = std::env::current_exe() {
        let _ = PROGRAM.set(program);
    }
}

/// Makes thumbnails, one after the other. Nothing is started before the first picture is seen.
#[derive(Debug)]
pub struct Thumbnailer {
    /// The program of the worker and its arguments; empty when no thumbnails are made.
    command: Vec<OsString>,
    max_time: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    worker: Option<Worker>,
    failures: u32,
}

/// The process; it is killed when this is dropped.
#[derive(Debug)]
struct Worker {
    _process: Child,
    input: ChildStdin,
    output: ChildStdout,
    pictures: u32,
}

impl Thumbnailer {
    /// Prepares to make thumbnails, or none when they are not wanted or this program cannot.
    #[must_use]
    pub fn new(is_wanted: bool) -> Self {
        let program = PROGRAM.get().filter(|_| is_wanted);
        let command = program.map(|program| vec![program.into(), worker::ARGUMENT.into()]);
        Self {
            command: command.unwrap_or_default(),
            max_time: MAX_TIME,
            state: Mutex::default(),
        }
    }

    /// Makes the thumbnail of a local file; none for what is no picture, cannot be read or decoded, is too large or takes
    /// too long.
    pub async fn of(&self, path: &Path, size: u64) -> Option<Thumbnail> {
        let (program, arguments) = self.command.split_first()?;
        if !(MIN_PICTURE_BYTES..=MAX_PICTURE_BYTES).contains(&size) {
            return None;
        }
        // A few bytes, like those that the upload reads next.
        let mut start = [0; picture::MAGIC_BYTES];
        let mut file = std::fs::File::open(path).ok()?;
        file.read_exact(&mut start).ok()?;
        Picture::of(&start)?;
        let mut state = self.state.lock().await;
        if state.failures >= MAX_FAILURES {
            return None;
        }
        let mut worker = match state.worker.take() {
            Some(worker) => worker,
            None => Worker::start(program, arguments)?,
        };
        let file = tokio::fs::File::from_std(file);
        let made = worker.make(&start, file, size);
        match tokio::time::timeout(self.max_time, made).await {
            Ok(Ok(made)) => {
                if worker.pictures < MAX_PICTURES {
                    state.worker = Some(worker);
                }
                Thumbnail::new(picture::MIME_TYPE, made?)
            }
            // It has crashed, hangs, or speaks nonsense: it goes, and the next picture has another.
            _ => {
                state.failures += 1;
                None
            }
        }
    }
}

impl Worker {
    fn start(program: &OsStr, arguments: &[OsString]) -> Option<Self> {
        let mut process = Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        Some(Self {
            input: process.stdin.take()?,
            output: process.stdout.take()?,
            _process: process,
            pictures: 0,
        })
    }

    /// Sends one picture and takes what comes back; `None` when it could not be decoded.
    async fn make(
        &mut self,
        start: &[u8],
        rest: tokio::fs::File,
        size: u64,
    ) -> std::io::Result<Option<Vec<u8>>> {
        self.pictures += 1;
        self.input.write_all(&size.to_le_bytes()).await?;
        self.input.write_all(start).await?;
        let left = size.saturating_sub(start.len() as u64);
        let sent = tokio::io::copy(&mut rest.take(left), &mut self.input).await?;
        if sent != left {
            // The file became shorter; the worker waits for the rest in vain.
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.input.flush().await?;
        let length = self.output.read_u32_le().await?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_THUMBNAIL_BYTES {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut made = vec![0; length];
        self.output.read_exact(&mut made).await?;
        Ok(Some(made).filter(|made| !made.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(command: &[&str]) -> Thumbnailer {
        Thumbnailer {
            command: command.iter().map(OsString::from).collect(),
            max_time: Duration::from_millis(20),
            state: Mutex::default(),
        }
    }

    fn picture() -> (tempfile::TempDir, PathBuf, u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let picture = [&b"\x89PNG\r\n\x1a\n"[..], &[0; 100]].concat();
        std::fs::write(&path, &picture).unwrap();
        (folder, path, picture.len() as u64)
    }

    #[tokio::test]
    async fn fs_12_a_worker_that_dies_hangs_or_lies_costs_only_the_thumbnail() {
        let (_folder, path, size) = picture();
        for command in [
            &["/nowhere/kastro"][..],
            &["false"],
            &["sleep", "600"],
            &["echo", "a length beyond all limits"],
        ] {
            let thumbnails = with(command);
            for _ in 0..2 {
                assert_eq!(thumbnails.of(&path, size).await, None, "{command:?}");
            }
            assert!(thumbnails.state.lock().await.worker.is_none());
        }
        // After too many no more are started.
        let thumbnails = with(&["false"]);
        thumbnails.state.lock().await.failures = MAX_FAILURES;
        assert_eq!(thumbnails.of(&path, size).await, None);
        assert_eq!(thumbnails.state.lock().await.failures, MAX_FAILURES);
    }

    #[tokio::test]
    async fn nothing_is_started_for_what_is_no_picture() {
        let (folder, path, size) = picture();
        let text = folder.path().join("text");
        std::fs::write(&text, [b' '; 1000]).unwrap();
        let thumbnails = with(&["/nowhere/kastro"]);
        for (path, size) in [
            (&text, 1000),
            (&path, MIN_PICTURE_BYTES - 1),
            (&path, MAX_PICTURE_BYTES + 1),
            (&folder.path().join("missing"), size),
        ] {
            assert_eq!(thumbnails.of(path, size).await, None);
        }
        // In a program that is not `kastro` there is no worker.
        assert!(Thumbnailer::new(true).command.is_empty());
    }
}
