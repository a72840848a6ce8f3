//! `kastro cat`: prints files, or a range that costs no more than it needs.

use bytes::Bytes;
use cryptree::client::RemoteFile;

use crate::{
    args::CatArgs,
    connect::{Connected, connect},
    exit::Failure,
    output::Output,
    remote_path::absolute,
};

/// Runs the command.
///
/// # Errors
///
/// When a file cannot be read; what was printed by then is right.
pub async fn run(args: &CatArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let printed = print_all(args, &connected, output).await;
    connected.close().await;
    printed
}

async fn print_all(args: &CatArgs, connected: &Connected, output: Output) -> Result<(), Failure> {
    for path in &args.paths {
        let path = absolute(&path.of(connected.user()));
        let file = connected.session.open_file(&path).await?;
        let (start, end) = range(args.offset, args.length, file.size());
        print(&file, start, end, output).await?;
    }
    Ok(())
}

/// Prints the bytes from `start` to `end`, fetching ahead once the first chunk is reached.
///
/// # Errors
///
/// When the file cannot be read or the output not be written.
pub async fn print(file: &RemoteFile, start: u64, end: u64, output: Output) -> Result<(), Failure> {
    if end - start <= CHUNK_BYTES {
        let mut at = start;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX);
            let bytes = file.read_at(at, wanted).await?;
            if bytes.is_empty() {
                break;
            }
            at += bytes.len() as u64;
            output.bytes(&bytes)?;
        }
        return Ok(());
    }
    let mut at = start - start % CHUNK_BYTES;
    let mut chunks = file.chunks(start / CHUNK_BYTES);
    while at < end {
        let Some(chunk) = chunks.next().await? else {
            break;
        };
        output.bytes(&part(&chunk, at, start, end))?;
        at += chunk.len() as u64;
    }
    Ok(())
}

/// Returns what of a chunk that begins at `at` lies between `start` and `end`.
fn part(chunk: &Bytes, at: u64, start: u64, end: u64) -> Bytes {
    let inside = |position: u64| {
        let offset = position.saturating_sub(at);
        usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(chunk.len())
    };
    chunk.slice(inside(start)..inside(end))
}

/// Returns first byte and end of the range asked for, within the file.
fn range(offset: i64, length: Option<u64>, size: u64) -> (u64, u64) {
    let start = if offset < 0 {
        size.saturating_sub(offset.unsigned_abs())
    } else {
        offset.unsigned_abs().min(size)
    };
    let end = length.map_or(size, |length| start.saturating_add(length).min(size));
    (start, end)
}

/// Bytes of a chunk (Spec: 20 §7.1).
const CHUNK_BYTES: u64 = 5 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_within_the_file() {
        assert_eq!(range(0, None, 10), (0, 10));
        assert_eq!(range(4, Some(3), 10), (4, 7));
        assert_eq!(range(4, Some(u64::MAX), 10), (4, 10));
        assert_eq!(range(40, Some(3), 10), (10, 10));
        assert_eq!(range(-3, None, 10), (7, 10));
        assert_eq!(range(-30, Some(2), 10), (0, 2));
        assert_eq!(range(i64::MIN, None, 10), (0, 10));
    }

    #[test]
    fn chunks_are_cut_to_the_range() {
        let chunk = Bytes::from_static(b"0123456789");
        assert_eq!(part(&chunk, 100, 100, 200), chunk);
        assert_eq!(part(&chunk, 100, 103, 105), &b"34"[..]);
        assert_eq!(part(&chunk, 100, 0, 103), &b"012"[..]);
        assert_eq!(part(&chunk, 100, 200, 300), &b""[..]);
    }
}
