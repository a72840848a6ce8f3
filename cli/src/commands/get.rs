//! `kastro get`: downloads files and folders with the rules of `cp -r`.
//!
//! Nothing is written outside the target: every remote name is checked before it becomes a local one, and no
//! link found in the target is followed. Memory is bounded: small files are fetched in parallel, large ones alone.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use cryptree::client::{Detail, Entry, FoundEntry, RemoteFile, Session};
use futures_util::{StreamExt, future::join, stream::FuturesUnordered};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    args::GetArgs,
    commands::{cat, ls::system_time, tally::Tally},
    connect::{Connected, connect},
    exit::{Class, Failure},
    local::{fetch::resume, name, name::Platform, partial::PartialFile},
    output::Output,
    progress::Progress,
    remote_path::absolute,
};

/// Runs the command.
///
/// # Errors
///
/// `Partial` when some files could not be downloaded.
pub async fn run(args: &GetArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let done = get(args, &connected, output).await;
    connected.close().await;
    done
}

async fn get(args: &GetArgs, connected: &Connected, output: Output) -> Result<(), Failure> {
    let components = args.source.of(connected.user());
    let source = absolute(&components);
    if args.thumbnail {
        return thumbnail(args, connected, &source, components.last(), output).await;
    }
    if args.target.as_os_str() == "-" {
        let file = connected.session.open_file(&source).await?;
        return cat::print(&file, 0, file.size(), output).await;
    }
    let entry = connected.session.stat(&source).await?;
    if args.source.asks_for_folder() && !entry.is_directory {
        return Err(Failure::new(
            Class::Exists,
            format!("`{source}` is not a folder"),
        ));
    }
    let own_name = components.last().map_or("", String::as_str);
    let target = target(&args.target, own_name)?;
    let download = Download {
        session: connected.session.clone(),
        force: args.force,
        budget: Arc::new(Semaphore::new(BUDGET_UNITS)),
        progress: Progress::start(output, "get"),
        output,
    };
    let mut tally = Tally::default();
    if entry.is_directory {
        download.tree(source, target, &mut tally).await?;
    } else {
        // One file fails with its own reason and exit code.
        match download.file(&source, &target, &entry, None).await? {
            Outcome::Done(bytes) => tally.file(bytes),
            Outcome::Skipped => tally.skipped += 1,
        }
    }
    drop(download);
    tally.finish("downloaded", output)
}

/// Writes the small picture that was uploaded with a file.
async fn thumbnail(
    args: &GetArgs,
    connected: &Connected,
    source: &str,
    own_name: Option<&String>,
    output: Output,
) -> Result<(), Failure> {
    let Some(thumbnail) = connected.session.thumbnail(source).await? else {
        let message = format!("`{source}` has no thumbnail");
        return Err(Failure::new(Class::NotFound, message)
            .help("only pictures get one, when they are uploaded"));
    };
    if args.target.as_os_str() == "-" {
        return output.bytes(thumbnail.image());
    }
    let target = target(&args.target, own_name.map_or("", String::as_str))?;
    if fs::symlink_metadata(&target).is_ok() && !args.force {
        let message = format!("{} exists", target.display());
        return Err(Failure::new(Class::Exists, message).help("--force replaces it"));
    }
    let write = |error: io::Error| Failure::local("write", &target, &error);
    let mut partial = PartialFile::create(&target).map_err(write)?;
    partial.append(thumbnail.image()).map_err(write)?;
    partial.finish(None).map_err(write)?;
    let mut tally = Tally::default();
    tally.file(u64::try_from(thumbnail.image().len()).unwrap_or(u64::MAX));
    tally.finish("downloaded", output)
}

/// Applies the rules of `cp -r` to the target.
pub(crate) fn target(typed: &Path, own_name: &str) -> Result<PathBuf, Failure> {
    let asks_for_folder = typed
        .as_os_str()
        .as_encoded_bytes()
        .last()
        .is_some_and(|last| *last == b'/');
    if typed.is_dir() {
        name::check(own_name, Platform::here()).map_err(|error| {
            Failure::new(Class::NotAllowed, format!("`{own_name}`: {error}"))
                .help("give the local name too")
        })?;
        return Ok(typed.join(own_name));
    }
    if asks_for_folder {
        return Err(Failure::new(
            Class::Local,
            format!("{} is not a folder", typed.display()),
        ));
    }
    Ok(typed.to_path_buf())
}

struct Download {
    session: Session,
    force: bool,
    budget: Arc<Semaphore>,
    progress: Progress,
    output: Output,
}

/// What became of one file.
enum Outcome {
    Done(u64),
    Skipped,
}

impl Download {
    /// Downloads a folder with everything below it.
    async fn tree(
        &self,
        source: String,
        target: PathBuf,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let mut folders = vec![(source, target, None::<FoundEntry>)];
        let mut running = FuturesUnordered::new();
        while let Some((remote, local, found)) = folders.pop() {
            match make_folder(&local) {
                Ok(()) => tally.folders += 1,
                Err(failure) if tally.folders == 0 => return Err(failure),
                Err(failure) => {
                    self.problem(tally, &remote, &failure);
                    continue;
                }
            }
            // Only the topmost folder is looked up by its path; the rest is found on the way.
            let reader = match found {
                Some(found) => self.session.read_found(found),
                None => self.session.read_folder(&remote, Detail::Full).await,
            };
            let mut reader = match reader {
                Ok(reader) => reader,
                Err(error) => {
                    self.problem(tally, &remote, &error.into());
                    continue;
                }
            };
            loop {
                let page = match reader.next_found().await {
                    Ok(Some(page)) => page,
                    Ok(None) => break,
                    Err(error) => {
                        self.problem(tally, &remote, &error.into());
                        break;
                    }
                };
                for damaged in page.damaged {
                    let name = damaged.name.unwrap_or_else(|| "an entry".to_owned());
                    self.problem(tally, &format!("{remote}/{name}"), &damaged.reason.into());
                }
                for found in page.entries {
                    let entry = found.entry.clone();
                    let remote = format!("{remote}/{}", entry.name);
                    if let Err(error) = name::check(&entry.name, Platform::here()) {
                        let failure = Failure::new(Class::NotAllowed, error.to_string());
                        self.problem(tally, &remote, &failure);
                        continue;
                    }
                    let local = local.join(&entry.name);
                    if entry.is_directory {
                        folders.push((remote, local, Some(found)));
                        continue;
                    }
                    self.progress.expect(entry.size_bytes.unwrap_or(0));
                    while running.len() >= MAX_FILES_AT_ONCE {
                        let Some(ended) = running.next().await else {
                            break;
                        };
                        self.count(tally, ended);
                    }
                    running.push(async move {
                        let outcome = self.file(&remote, &local, &entry, Some(&found)).await;
                        (remote, outcome)
                    });
                }
            }
        }
        while let Some(ended) = running.next().await {
            self.count(tally, ended);
        }
        Ok(())
    }

    /// Downloads one file, unless it is there already.
    async fn file(
        &self,
        remote: &str,
        local: &Path,
        entry: &Entry,
        found: Option<&FoundEntry>,
    ) -> Result<Outcome, Failure> {
        let modified = entry.modified.map(system_time);
        match fs::symlink_metadata(local) {
            Ok(found) if !found.is_file() => {
                return Err(Failure::new(
                    Class::Exists,
                    format!("{} exists and is not a file", local.display()),
                ));
            }
            Ok(found) => {
                let same_size = Some(found.len()) == entry.size_bytes;
                if same_size && modified.is_some() && found.modified().ok() == modified {
                    self.progress.done(found.len());
                    return Ok(Outcome::Skipped);
                }
                if !self.force {
                    return Err(Failure::new(
                        Class::Exists,
                        format!("{} exists and differs", local.display()),
                    )
                    .help("--force replaces it"));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::local("read", local, &error)),
        }
        let _budget = self.reserve(entry.size_bytes.unwrap_or(u64::MAX)).await?;
        self.progress.at(remote);
        if let Some(found) = found {
            let file = self.session.open_found(found, remote)?;
            match content(&self.progress, remote, local, &file).await {
                // The file was changed since its folder was read, and the node has dropped the old blocks.
                Err(failure) if failure.class == Class::Damaged => {}
                done => return done.map(Outcome::Done),
            }
        }
        let file = self.session.open_file(remote).await?;
        let fetched = content(&self.progress, remote, local, &file).await;
        fetched.map(Outcome::Done)
    }

    /// Waits until a file of that size may be fetched beside those under way.
    async fn reserve(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Failure> {
        let units = bytes / UNIT_BYTES + 1;
        let units = u32::try_from(units)
            .unwrap_or(u32::MAX)
            .min(BUDGET_UNITS_U32);
        Arc::clone(&self.budget)
            .acquire_many_owned(units)
            .await
            .map_err(|_| Failure::new(Class::Other, "the download was stopped"))
    }

    fn count(&self, tally: &mut Tally, (remote, outcome): (String, Result<Outcome, Failure>)) {
        match outcome {
            Ok(Outcome::Done(bytes)) => tally.file(bytes),
            Ok(Outcome::Skipped) => tally.skipped += 1,
            Err(failure) => self.problem(tally, &remote, &failure),
        }
    }

    fn problem(&self, tally: &mut Tally, item: &str, failure: &Failure) {
        self.progress
            .pause(|| tally.problem(item, failure, self.output));
    }
}

/// Fetches the content of an open file into a partial file, puts that in place, and returns the size.
pub(crate) async fn content(
    progress: &Progress,
    remote: &str,
    local: &Path,
    file: &RemoteFile,
) -> Result<u64, Failure> {
    let write = |error: io::Error| Failure::local("write", local, &error);
    let resumed = tokio::task::block_in_place(|| resume(file, local, |_| {})).map_err(write)?;
    let (mut partial, mut bytes) = (resumed.partial, resumed.bytes);
    progress.done(bytes);
    let mut chunks = file.chunks(resumed.first_chunk);
    let mut next = chunks.next().await?;
    while let Some(chunk) = next {
        let length = chunk.len() as u64;
        // The chunks that follow are fetched while this one is written.
        let append = tokio::task::spawn_blocking(move || {
            let appended = partial.append(&chunk);
            (partial, appended)
        });
        let (appended, after) = join(append, chunks.next()).await;
        let (back, appended) = appended.map_err(io::Error::other).map_err(write)?;
        partial = back;
        appended.map_err(write)?;
        bytes += length;
        progress.done(length);
        next = after?;
    }
    if bytes != file.size() {
        return Err(Failure::new(
            Class::Damaged,
            format!("`{remote}` ends after {bytes} of {} bytes", file.size()),
        )
        .help("nothing was kept; ask the node's operator for a check"));
    }
    let modified = system_time(file.properties().modified);
    partial.finish(Some(modified)).map_err(write)?;
    Ok(bytes)
}

/// Makes a local folder, or accepts one that is there. A link to a folder is not one.
pub(crate) fn make_folder(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Failure::new(
            Class::Exists,
            format!("{} exists and is not a folder", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir(path).map_err(|error| Failure::local("make the folder", path, &error))
        }
        Err(error) => Err(Failure::local("read", path, &error)),
    }
}

/// Files being fetched or waiting for memory at once.
const MAX_FILES_AT_ONCE: usize = 32;
/// A file costs one unit of memory, and one more for each of these bytes.
const UNIT_BYTES: u64 = 256 << 10;
/// Units in use at once; a file of 4 MiB and more is fetched alone.
const BUDGET_UNITS: usize = 16;
const BUDGET_UNITS_U32: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_follow_the_rules_of_cp() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        assert_eq!(target(base, "a").unwrap(), base.join("a"));
        assert_eq!(target(&base.join("new"), "a").unwrap(), base.join("new"));
        assert_eq!(
            target(&base.join("new/"), "a").unwrap_err().class,
            Class::Local
        );
        assert_eq!(target(base, "..").unwrap_err().class, Class::NotAllowed);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_target_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let link = folder.path().join("sub");
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
        assert_eq!(make_folder(&link).unwrap_err().class, Class::Exists);
        make_folder(&folder.path().join("new")).unwrap();
        make_folder(&folder.path().join("new")).unwrap();
    }
}
