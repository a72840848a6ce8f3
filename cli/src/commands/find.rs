//! `kastro find`: searches a tree by name, kind, size and time.

use std::time::SystemTime;

use cryptree::client::Entry;
use globset::{GlobBuilder, GlobMatcher};

use crate::{
    args::{FindArgs, Kind},
    commands::{
        ls::{Row, system_time},
        survey::Survey,
    },
    connect::{Connected, connect},
    exit::{Class, Failure},
    human::printable,
    output::Output,
    remote_path::{absolute, here},
};

/// Runs the command.
///
/// # Errors
///
/// `Partial` when something could not be read.
pub async fn run(args: &FindArgs, output: Output) -> Result<(), Failure> {
    let wanted = Wanted::new(args, SystemTime::now())?;
    let connected = connect(&args.connection, output).await?;
    let found = Box::pin(search(args, &wanted, &connected, output)).await;
    connected.close().await;
    found
}

async fn search(
    args: &FindArgs,
    wanted: &Wanted,
    connected: &Connected,
    output: Output,
) -> Result<(), Failure> {
    let mut roots: Vec<String> = args
        .paths
        .iter()
        .map(|path| absolute(&path.of(connected.user())))
        .collect();
    if roots.is_empty() {
        roots.push(here(connected.user()));
    }
    let mut survey = Survey::new(args.all, output);
    for root in &roots {
        let walk = connected.session.walk(root).await?;
        let print_wanted = |below: &str, entry: &Entry| {
            if wanted.matches(entry) {
                print(&format!("{root}/{below}"), entry, output)?;
            }
            Ok(())
        };
        survey.each(root, walk, print_wanted).await?;
    }
    survey.finish()
}

fn print(path: &str, entry: &Entry, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&Row::new(path, entry));
    }
    let slash = if entry.is_directory { "/" } else { "" };
    output.line(&format!("{}{slash}", printable(path)))
}

/// What is looked for.
struct Wanted {
    name: Option<GlobMatcher>,
    kind: Option<Kind>,
    at_least: u64,
    at_most: Option<u64>,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
}

impl Wanted {
    fn new(args: &FindArgs, now: SystemTime) -> Result<Self, Failure> {
        let pattern = args.name.as_ref().or(args.iname.as_ref());
        let name = pattern.map(|pattern| -> Result<GlobMatcher, Failure> {
            let mut builder = GlobBuilder::new(pattern);
            builder.case_insensitive(args.iname.is_some());
            let glob = builder.build().map_err(|error| {
                Failure::new(Class::Usage, format!("`{pattern}` is no pattern: {error}"))
            })?;
            Ok(glob.compile_matcher())
        });
        Ok(Self {
            name: name.transpose()?,
            kind: args.kind,
            at_least: args.larger.unwrap_or(0),
            at_most: args.smaller,
            since: args.newer.map(|moment| moment.before(now)),
            until: args.older.map(|moment| moment.before(now)),
        })
    }

    fn matches(&self, entry: &Entry) -> bool {
        let kind = if entry.is_directory {
            Kind::Folder
        } else {
            Kind::File
        };
        let asks_for_size = self.at_least > 0 || self.at_most.is_some();
        let size = entry.size_bytes.unwrap_or(0);
        let modified = entry.modified.map(system_time);
        self.kind.is_none_or(|wanted| wanted == kind)
            && self
                .name
                .as_ref()
                .is_none_or(|name| name.is_match(&entry.name))
            && (!asks_for_size || kind == Kind::File)
            && size >= self.at_least
            && self.at_most.is_none_or(|most| size <= most)
            && self
                .since
                .is_none_or(|since| modified.is_some_and(|at| at >= since))
            && self
                .until
                .is_none_or(|until| modified.is_some_and(|at| at < until))
    }
}
