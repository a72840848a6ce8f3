//! `kastro write` and `kastro truncate`: change a file in place, transferring only the chunks concerned.

use std::io::SeekFrom;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeekExt as _};

use crate::{
    args::{TruncateArgs, WriteArgs},
    commands::{put::is_stdin, tally::Tally},
    connect::{Connected, connect},
    exit::Failure,
    output::Output,
    progress::Progress,
    remote_path::absolute,
};

/// Bytes handed over at once: two chunks, so that memory stays near that of an upload.
const STEP_BYTES: usize = 10 << 20;

/// Runs `write`.
///
/// # Errors
///
/// When the local source cannot be read or the remote file not be changed; what was written by then stays.
pub async fn run(args: &WriteArgs, output: Output) -> Result<(), Failure> {
    let local = |error| Failure::local("read", &args.source, &error);
    let (mut source, size): (Box<dyn AsyncRead + Unpin + Send>, u64) = if is_stdin(&args.source) {
        (Box::new(tokio::io::stdin()), 0)
    } else {
        let mut file = tokio::fs::File::open(&args.source).await.map_err(local)?;
        let size = file.seek(SeekFrom::End(0)).await.map_err(local)?;
        file.rewind().await.map_err(local)?;
        (Box::new(file), size)
    };
    let connected = connect(&args.connection, output).await?;
    let progress = Progress::start(output, "write");
    progress.expect(size);
    let written = write(args, &connected, &mut *source, &progress).await;
    drop(progress);
    connected.close().await;
    let mut tally = Tally::default();
    tally.file(written?);
    tally.finish("changed", output)
}

async fn write(
    args: &WriteArgs,
    connected: &Connected,
    source: &mut (dyn AsyncRead + Unpin + Send),
    progress: &Progress,
) -> Result<u64, Failure> {
    let path = absolute(&args.path.of(connected.user()));
    let session = &connected.session;
    let mut written = 0;
    let mut end = None;
    loop {
        let mut piece = Vec::new();
        let mut limited = (&mut *source).take(STEP_BYTES as u64);
        limited
            .read_to_end(&mut piece)
            .await
            .map_err(|error| Failure::local("read", &args.source, &error))?;
        if piece.is_empty() && written > 0 {
            return Ok(written);
        }
        match args.offset {
            Some(offset) => session.write_at(&path, offset + written, &piece).await?,
            // The first piece goes to wherever the end is; the others follow it or fail.
            None => end = Some(session.append(&path, &piece, end).await?),
        }
        if piece.is_empty() {
            return Ok(0);
        }
        written += piece.len() as u64;
        progress.done(piece.len() as u64);
    }
}

/// Runs `truncate`.
///
/// # Errors
///
/// When a file cannot be changed; those before it are.
pub async fn truncate(args: &TruncateArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let mut done = Ok(());
    for path in &args.paths {
        let path = absolute(&path.of(connected.user()));
        done = connected.session.set_size(&path, args.size).await;
        if done.is_err() {
            break;
        }
    }
    connected.close().await;
    Ok(done?)
}
