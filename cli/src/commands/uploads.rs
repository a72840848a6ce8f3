//! `kastro uploads`: what was begun and not finished, by any client of the account, and giving it up
//! (Spec: 21 §9.4 to §9.6).

use std::time::{Duration, SystemTime};

use cryptree::client::UnfinishedUpload;
use serde::Serialize;

use crate::{
    args::UploadsArgs,
    connect::{Connected, connect},
    exit::{Class, Failure},
    human::{self, printable},
    output::Output,
    remote_path::{RemotePath, absolute},
};

/// An unfinished upload as scripts see it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    id: &'a str,
    path: &'a str,
    size: u64,
    started: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    discarded: bool,
}

/// Runs the command.
///
/// # Errors
///
/// `NotFound` when an upload that is to be given up is not there; `Usage` when an id fits several.
pub async fn run(args: &UploadsArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let done = list_or_discard(args, &connected, output).await;
    connected.close().await;
    done
}

async fn list_or_discard(
    args: &UploadsArgs,
    connected: &Connected,
    output: Output,
) -> Result<(), Failure> {
    let mut uploads = connected.session.unfinished_uploads().await?;
    uploads.sort_by(|a, b| (a.started_epoch_millis, a.id()).cmp(&(b.started_epoch_millis, b.id())));
    if args.discard.is_empty() && !args.discard_all {
        for upload in &uploads {
            print(upload, false, output)?;
        }
        if !uploads.is_empty() {
            output.hint("`kastro put` of the same file goes on; `--discard ID` frees the space.");
        }
        return Ok(());
    }
    for upload in chosen(args, connected.user(), &uploads)? {
        connected.session.discard_upload(upload).await?;
        print(upload, true, output)?;
    }
    Ok(())
}

/// Returns the uploads that are to be given up, each once.
fn chosen<'a>(
    args: &UploadsArgs,
    user: &str,
    uploads: &'a [UnfinishedUpload],
) -> Result<Vec<&'a UnfinishedUpload>, Failure> {
    if args.discard_all {
        let age = Duration::from_secs(u64::from(args.older_than) * 3600);
        let latest = SystemTime::now().checked_sub(age);
        let is_old = |upload: &&UnfinishedUpload| latest.is_some_and(|at| started(upload) <= at);
        return Ok(uploads.iter().filter(is_old).collect());
    }
    let mut chosen: Vec<&UnfinishedUpload> = Vec::new();
    for asked in &args.discard {
        let path = asked.parse::<RemotePath>().ok();
        let path = path.map(|path| absolute(&path.of(user)));
        let fits = |upload: &&UnfinishedUpload| {
            (asked.len() >= MIN_ID_CHARS && upload.id().starts_with(asked.as_str()))
                || path.as_ref() == Some(&upload.path)
        };
        let found: Vec<_> = uploads.iter().filter(fits).collect();
        match found.as_slice() {
            [one] if chosen.iter().any(|known| known.id() == one.id()) => {}
            [one] => chosen.push(one),
            [] => {
                let message = format!("there is no unfinished upload `{}`", printable(asked));
                return Err(Failure::new(Class::NotFound, message).help("kastro uploads"));
            }
            several => {
                let message = format!("{} uploads fit `{}`", several.len(), printable(asked));
                return Err(Failure::new(Class::Usage, message)
                    .help("give more characters of the id that `kastro uploads` lists"));
            }
        }
    }
    Ok(chosen)
}

fn print(upload: &UnfinishedUpload, discarded: bool, output: Output) -> Result<(), Failure> {
    let started = started(upload);
    if output.json {
        return output.json(&Row {
            id: upload.id(),
            path: &upload.path,
            size: upload.size_bytes,
            started: human::rfc3339(started),
            discarded,
        });
    }
    let id: String = upload.id().chars().take(SHOWN_ID_CHARS).collect();
    let size = human::size(upload.size_bytes);
    let path = printable(&upload.path);
    let word = if discarded { "given up  " } else { "" };
    let started = human::time(started);
    output.line(&format!("{word}{id}  {size:>9}  {started:>16}  {path}"))
}

/// Returns when an upload was begun, as far as this machine can say it.
fn started(upload: &UnfinishedUpload) -> SystemTime {
    let distance = Duration::from_millis(upload.started_epoch_millis.unsigned_abs());
    let time = if upload.started_epoch_millis >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Characters of an id that are shown; all ids begin with the same five.
const SHOWN_ID_CHARS: usize = 16;
/// Fewest characters that stand for an id.
const MIN_ID_CHARS: usize = 8;
