//! `kastro stat`: what is known about a file or folder.

use crate::{
    args::StatArgs,
    commands::ls::{Row, system_time},
    connect::{Connected, connect},
    exit::Failure,
    human::{self, printable},
    output::Output,
    remote_path::absolute,
};

/// Runs the command.
///
/// # Errors
///
/// When a path cannot be read.
pub async fn run(args: &StatArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let shown = show_all(args, &connected, output).await;
    connected.close().await;
    shown
}

async fn show_all(args: &StatArgs, connected: &Connected, output: Output) -> Result<(), Failure> {
    for path in &args.paths {
        let path = absolute(&path.of(connected.user()));
        let entry = connected.session.stat(&path).await?;
        if output.json {
            output.json(&Row::new(&path, &entry))?;
            continue;
        }
        let mut lines = vec![
            ("path", printable(&path)),
            (
                "type",
                if entry.is_directory { "folder" } else { "file" }.to_owned(),
            ),
        ];
        if let (Some(bytes), false) = (entry.size_bytes, entry.is_directory) {
            lines.push(("size", format!("{bytes} ({})", human::size(bytes))));
        }
        if let Some(mime) = entry.mime_type.filter(|mime| !mime.is_empty()) {
            lines.push(("content", printable(&mime)));
        }
        if let Some(bytes) = entry.thumbnail_bytes {
            let size = u64::try_from(bytes).unwrap_or(u64::MAX);
            lines.push(("thumbnail", human::size(size)));
        }
        for (name, time) in [("modified", entry.modified), ("created", entry.created)] {
            if let Some(time) = time {
                lines.push((name, human::rfc3339(system_time(time))));
            }
        }
        if entry.is_hidden == Some(true) {
            lines.push(("hidden", "yes".to_owned()));
        }
        for (name, value) in lines {
            output.line(&format!("{name:>9}  {value}"))?;
        }
    }
    Ok(())
}
