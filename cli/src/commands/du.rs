//! `kastro du`: how much what is below a folder holds.

use std::collections::BTreeMap;

use cryptree::{ClientError, client::Entry};

use crate::{
    args::DuArgs,
    commands::survey::Survey,
    connect::{Connected, connect},
    exit::Failure,
    human::{self, printable},
    output::Output,
    remote_path::{absolute, here},
};

/// Sums of one folder with everything below it.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    bytes: u64,
    files: u64,
}

/// Runs the command.
///
/// # Errors
///
/// `Partial` when something could not be read and is not counted.
pub async fn run(args: &DuArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let shown = Box::pin(show_all(args, &connected, output)).await;
    connected.close().await;
    shown
}

async fn show_all(args: &DuArgs, connected: &Connected, output: Output) -> Result<(), Failure> {
    let mut paths: Vec<String> = args
        .paths
        .iter()
        .map(|path| absolute(&path.of(connected.user())))
        .collect();
    if paths.is_empty() {
        paths.push(here(connected.user()));
    }
    let mut survey = Survey::new(true, output);
    for path in &paths {
        let mut sums: BTreeMap<String, Sum> = BTreeMap::from([(String::new(), Sum::default())]);
        match connected.session.walk(path).await {
            Ok(walk) => {
                let count = |below: &str, entry: &Entry| {
                    let (folder, bytes) = match entry.is_directory {
                        true => (below, None),
                        false => (parent(below), Some(entry.size_bytes.unwrap_or(0))),
                    };
                    add(&mut sums, folder, bytes, args.depth);
                    Ok(())
                };
                survey.each(path, walk, count).await?;
            }
            Err(ClientError::NotADirectory { .. }) => {
                let entry = connected.session.stat(path).await?;
                let (bytes, files) = (entry.size_bytes.unwrap_or(0), 1);
                sums.insert(String::new(), Sum { bytes, files });
            }
            Err(error) => return Err(error.into()),
        }
        // The sum of all comes last, as people know it.
        let total = sums.remove("").unwrap_or_default();
        for (folder, sum) in &sums {
            print(&format!("{path}/{folder}"), *sum, output)?;
        }
        print(path, total, output)?;
    }
    survey.finish()
}

fn parent(below: &str) -> &str {
    below.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Adds a file of so many bytes, if any, to a folder and those above it, as far as they are shown.
fn add(sums: &mut BTreeMap<String, Sum>, folder: &str, file_bytes: Option<u64>, depth: usize) {
    let names: Vec<&str> = folder.split('/').filter(|name| !name.is_empty()).collect();
    for level in 0..=names.len().min(depth) {
        let shown = names.get(..level).unwrap_or_default().join("/");
        let total = sums.entry(shown).or_default();
        if let Some(bytes) = file_bytes {
            total.bytes = total.bytes.saturating_add(bytes);
            total.files += 1;
        }
    }
}

fn print(path: &str, sum: Sum, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&serde_json::json!({
            "path": path, "bytes": sum.bytes, "files": sum.files,
        }));
    }
    output.line(&format!(
        "{:>9}  {}",
        human::size(sum.bytes),
        printable(path)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_reach_every_folder_that_is_shown() {
        let mut sums = BTreeMap::new();
        for folder in ["", "a", "a/b", "a/b/c", "d"] {
            add(&mut sums, folder, Some(5), 2);
        }
        let shown: Vec<_> = sums
            .iter()
            .map(|(path, sum)| (path.as_str(), sum.bytes))
            .collect();
        assert_eq!(shown, [("", 25), ("a", 15), ("a/b", 10), ("d", 5)]);
    }
}
