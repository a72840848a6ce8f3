//! `kastro du`: how much what is below a folder holds.

use std::collections::BTreeMap;

use cryptree::ClientError;

use crate::{
    args::DuArgs,
    connect::{Connected, connect},
    exit::{Class, Failure},
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
    let mut problems = 0;
    for path in &paths {
        let mut sums: BTreeMap<String, Sum> = BTreeMap::from([(String::new(), Sum::default())]);
        match connected.session.walk(path).await {
            Ok(mut walk) => {
                while let Some(page) = walk.next().await? {
                    for damaged in page.damaged {
                        let name = damaged.name.unwrap_or_else(|| "an entry".to_owned());
                        output.problem(
                            &format!("{path}/{}/{name}", page.folder),
                            &damaged.reason.into(),
                        );
                        problems += 1;
                    }
                    let mut sum = Sum::default();
                    for found in page
                        .entries
                        .iter()
                        .filter(|found| !found.entry.is_directory)
                    {
                        sum.bytes = sum
                            .bytes
                            .saturating_add(found.entry.size_bytes.unwrap_or(0));
                        sum.files += 1;
                    }
                    add(&mut sums, &page.folder, sum, args.depth);
                }
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
    if problems > 0 {
        return Err(Failure::new(
            Class::Partial,
            "not everything could be counted; see above",
        ));
    }
    Ok(())
}

/// Adds to a folder and those above it, as far as they are shown.
fn add(sums: &mut BTreeMap<String, Sum>, folder: &str, sum: Sum, depth: usize) {
    let names: Vec<&str> = folder.split('/').filter(|name| !name.is_empty()).collect();
    for level in 0..=names.len().min(depth) {
        let shown = names.get(..level).unwrap_or_default().join("/");
        let total = sums.entry(shown).or_default();
        total.bytes = total.bytes.saturating_add(sum.bytes);
        total.files += sum.files;
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
        let sum = Sum { bytes: 5, files: 1 };
        for folder in ["", "a", "a/b", "a/b/c", "d"] {
            add(&mut sums, folder, sum, 2);
        }
        let shown: Vec<_> = sums
            .iter()
            .map(|(path, sum)| (path.as_str(), sum.bytes))
            .collect();
        assert_eq!(shown, [("", 25), ("a", 15), ("a/b", 10), ("d", 5)]);
    }
}
