//! `kastro ls`: lists folders page by page, so that a folder of any size starts to appear at once.

use std::time::SystemTime;

use cryptree::{
    ClientError,
    client::{Detail, Entry},
    properties::Timestamp,
};
use serde::Serialize;

use crate::{
    args::LsArgs,
    connect::{Connected, connect},
    exit::{Class, Failure},
    human::{self, printable},
    output::Output,
    remote_path::{absolute, here},
};

/// An entry as scripts see it.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    path: &'a str,
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hidden: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thumbnail_size: Option<usize>,
}

impl<'a> Row<'a> {
    /// Makes the row of an entry at a path.
    #[must_use]
    pub fn new(path: &'a str, entry: &'a Entry) -> Self {
        let time = |time: Option<Timestamp>| time.map(|time| human::rfc3339(system_time(time)));
        Self {
            path,
            name: &entry.name,
            kind: if entry.is_directory { "folder" } else { "file" },
            size: entry.size_bytes.filter(|_| !entry.is_directory),
            modified: time(entry.modified),
            created: time(entry.created),
            mime_type: entry.mime_type.as_deref().filter(|mime| !mime.is_empty()),
            hidden: entry.is_hidden,
            thumbnail_size: entry.thumbnail_bytes,
        }
    }
}

/// Returns a recorded time as a time of this machine.
#[must_use]
pub fn system_time(time: Timestamp) -> SystemTime {
    use std::time::Duration;
    let seconds = Duration::from_secs(time.epoch_seconds().unsigned_abs());
    let whole = if time.epoch_seconds() >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    };
    whole
        .and_then(|whole| whole.checked_add(Duration::from_nanos(u64::from(time.nanos()))))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Runs the command.
///
/// # Errors
///
/// `Partial` when some entries or paths could not be read.
pub async fn run(args: &LsArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let listed = list_all(args, &connected, output).await;
    connected.close().await;
    listed
}

async fn list_all(args: &LsArgs, connected: &Connected, output: Output) -> Result<(), Failure> {
    let user = connected.user();
    let mut paths: Vec<String> = args
        .paths
        .iter()
        .map(|path| absolute(&path.of(user)))
        .collect();
    if paths.is_empty() {
        paths.push(here(user));
    }
    let several = paths.len() > 1 || args.recursive;
    if let [path] = paths.as_slice()
        && !args.recursive
    {
        // The one failure is the command's.
        return match folder(args, connected, path, false, output).await? {
            Found { problems: 0, .. } => Ok(()),
            _ => Err(some_unreadable()),
        };
    }
    let mut problems = 0;
    paths.reverse();
    while let Some(path) = paths.pop() {
        match folder(args, connected, &path, several, output).await {
            Ok(found) => {
                problems += found.problems;
                if args.recursive {
                    paths.extend(found.folders.into_iter().rev());
                }
            }
            Err(failure) if failure.message.is_empty() => return Err(failure),
            Err(failure) => {
                output.problem(&path, &failure);
                problems += 1;
            }
        }
    }
    if problems > 0 {
        return Err(some_unreadable());
    }
    Ok(())
}

/// What was seen on the way.
struct Found {
    folders: Vec<String>,
    problems: usize,
}

async fn folder(
    args: &LsArgs,
    connected: &Connected,
    path: &str,
    with_title: bool,
    output: Output,
) -> Result<Found, Failure> {
    let mut found = Found {
        folders: Vec::new(),
        problems: 0,
    };
    // Names and kinds cost much less than the rest; hidden entries are told apart by the rest.
    let detail = if args.all && !args.long && !output.json {
        Detail::Quick
    } else {
        Detail::Full
    };
    let mut reader = match connected.session.read_folder(path, detail).await {
        Ok(reader) => reader,
        Err(ClientError::NotADirectory { .. }) => {
            let entry = connected.session.stat(path).await?;
            print(args, path, &entry, output)?;
            return Ok(found);
        }
        Err(error) => return Err(error.into()),
    };
    if with_title && !output.json {
        output.line(&format!("{}:", printable(path)))?;
    }
    let mut entries = Vec::new();
    while let Some(page) = reader.next().await? {
        for damaged in page.damaged {
            let name = damaged.name.unwrap_or_else(|| "an entry".to_owned());
            output.problem(&format!("{path}/{name}"), &damaged.reason.into());
            found.problems += 1;
        }
        entries.extend(page.entries);
    }
    entries.retain(|entry| args.all || entry.is_hidden != Some(true));
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    for entry in &entries {
        let path = format!("{path}/{}", entry.name);
        print(args, &path, entry, output)?;
        if entry.is_directory {
            found.folders.push(path);
        }
    }
    if with_title && !output.json {
        output.line("")?;
    }
    Ok(found)
}

fn print(args: &LsArgs, path: &str, entry: &Entry, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&Row::new(path, entry));
    }
    let slash = if entry.is_directory { "/" } else { "" };
    let name = printable(&entry.name);
    if !args.long {
        return output.line(&format!("{name}{slash}"));
    }
    let size = match entry.size_bytes {
        Some(bytes) if !entry.is_directory => human::size(bytes),
        _ => "-".to_owned(),
    };
    let time = entry
        .modified
        .map_or_else(|| "-".to_owned(), |time| human::time(system_time(time)));
    output.line(&format!("{size:>9}  {time:>16}  {name}{slash}"))
}

fn some_unreadable() -> Failure {
    Failure::new(Class::Partial, "not everything could be listed; see above")
}
