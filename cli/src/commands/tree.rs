//! `kastro tree`: draws a folder with everything below it.

use std::collections::BTreeMap;

use cryptree::client::Entry;

use crate::{
    args::TreeArgs,
    commands::{ls::Row, survey::Survey, tally::plural},
    connect::{Connected, connect},
    exit::{Class, Failure},
    human::{self, printable},
    output::Output,
    remote_path::{absolute, here},
    sync::here::MAX_ITEMS,
};

/// Runs the command.
///
/// # Errors
///
/// `Partial` when something could not be read.
pub async fn run(args: &TreeArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let drawn = Box::pin(draw(args, &connected, output)).await;
    connected.close().await;
    drawn
}

/// What is drawn of an entry.
struct Leaf {
    text: String,
    is_folder: bool,
}

async fn draw(args: &TreeArgs, connected: &Connected, output: Output) -> Result<(), Failure> {
    let user = connected.user();
    let root = args
        .path
        .as_ref()
        .map_or_else(|| here(user), |path| absolute(&path.of(user)));
    // Names in order, folders before what is in them.
    let mut tree: BTreeMap<Vec<String>, Leaf> = BTreeMap::new();
    let walk = connected.session.walk(&root).await?;
    let mut survey = Survey::new(args.all, output);
    let add = |below: &str, entry: &Entry| {
        let names: Vec<String> = below.split('/').map(str::to_owned).collect();
        if args.depth.is_some_and(|depth| names.len() > depth) {
            return Ok(());
        }
        if output.json {
            return output.json(&Row::new(&format!("{root}/{below}"), entry));
        }
        let slash = if entry.is_directory { "/" } else { "" };
        let mut text = format!("{}{slash}", printable(&entry.name));
        if let (true, false, Some(bytes)) = (args.long, entry.is_directory, entry.size_bytes) {
            text.push_str(&format!("  ({})", human::size(bytes)));
        }
        let is_folder = entry.is_directory;
        tree.insert(names, Leaf { text, is_folder });
        if tree.len() > MAX_ITEMS {
            return Err(Failure::new(
                Class::TooLarge,
                format!("more than {MAX_ITEMS} files and folders"),
            ));
        }
        Ok(())
    };
    survey.each(&root, walk, add).await?;
    if !output.json {
        output.line(&printable(&root))?;
        for line in lines(&tree) {
            output.line(&line)?;
        }
        let folders = tree.values().filter(|leaf| leaf.is_folder).count() as u64;
        let files = tree.len() as u64 - folders;
        output.hint(&format!(
            "{}, {}",
            plural(folders, "folder"),
            plural(files, "file")
        ));
    }
    survey.finish()
}

fn lines(tree: &BTreeMap<Vec<String>, Leaf>) -> Vec<String> {
    // From the end: an entry is the last of its folder when nothing of that depth was seen since the folder's end.
    let mut lines = Vec::with_capacity(tree.len());
    let mut follows: Vec<bool> = Vec::new();
    for (names, leaf) in tree.iter().rev() {
        let depth = names.len();
        follows.resize(depth, false);
        let mut line = String::new();
        for (level, has_more) in follows.iter().enumerate() {
            line.push_str(match (level + 1 == depth, has_more) {
                (true, true) => "\u{251c}\u{2500}\u{2500} ",
                (true, false) => "\u{2514}\u{2500}\u{2500} ",
                (false, true) => "\u{2502}   ",
                (false, false) => "    ",
            });
        }
        line.push_str(&leaf.text);
        lines.push(line);
        if let Some(has_more) = follows.last_mut() {
            *has_more = true;
        }
    }
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_end_where_they_should() {
        let mut tree = BTreeMap::new();
        for path in ["a", "a/x", "a/y", "a/y/z", "b", "c", "c/d"] {
            let names: Vec<String> = path.split('/').map(str::to_owned).collect();
            let text = names.last().unwrap().clone();
            tree.insert(
                names,
                Leaf {
                    text,
                    is_folder: false,
                },
            );
        }
        let expected = "\
\u{251c}\u{2500}\u{2500} a
\u{2502}   \u{251c}\u{2500}\u{2500} x
\u{2502}   \u{2514}\u{2500}\u{2500} y
\u{2502}       \u{2514}\u{2500}\u{2500} z
\u{251c}\u{2500}\u{2500} b
\u{2514}\u{2500}\u{2500} c
    \u{2514}\u{2500}\u{2500} d";
        assert_eq!(lines(&tree).join("\n"), expected);
    }
}
