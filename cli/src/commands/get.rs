//! `kastro get`: downloads files and folders with the rules of `cp -r`.
//!
//! Nothing is written outside the target: every remote name is checked before it becomes a local one, and everything is made
//! in folders held open, below the one that was named; no link found in it is followed. Names that the disk takes for the
//! same are told apart. Memory is bounded: small files are fetched in parallel, large ones alone.

use std::{
    ffi::{OsStr, OsString},
    io,
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
    human::printable,
    local::{
        fetch::resume,
        folder::Folder,
        name,
        name::Platform,
        partial::PartialFile,
        spelling::{LocalName, Naming},
    },
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
    let (folder, name) = holding(&target)?;
    let mut tally = Tally::default();
    if entry.is_directory {
        let folder = make_folder(&folder, &name)?;
        download.tree(source, folder, &mut tally).await?;
    } else {
        // One file fails with its own reason and exit code.
        let place = (&folder, &*name);
        match download.file(&source, place, &entry, None).await? {
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
    let write = |error: io::Error| Failure::local("write", &target, &error);
    let (folder, name) = holding(&target)?;
    if folder.look(&name).map_err(write)?.is_some() && !args.force {
        let message = format!("{} exists", target.display());
        return Err(Failure::new(Class::Exists, message).help("--force replaces it"));
    }
    let mut partial = PartialFile::create(&folder, &name).map_err(write)?;
    partial.append(thumbnail.image()).map_err(write)?;
    partial.finish(None, args.force).map_err(write)?;
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
    /// Downloads what is in a folder, with everything below it.
    async fn tree(&self, source: String, root: Folder, tally: &mut Tally) -> Result<(), Failure> {
        let mut folders = vec![(source, Vec::new(), None::<FoundEntry>)];
        let mut running = FuturesUnordered::new();
        while let Some((remote, names, found)) = folders.pop() {
            let (local, mut naming) = match make_folders(&root, &names) {
                Ok(made) => made,
                Err(failure) => {
                    self.problem(tally, &remote, &failure);
                    continue;
                }
            };
            tally.folders += 1;
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
                    let name = match local_name(&mut naming, &entry.name) {
                        Ok(LocalName { name, why }) => {
                            self.tell(&remote, &name, why.as_deref());
                            name
                        }
                        Err(failure) => {
                            self.problem(tally, &remote, &failure);
                            continue;
                        }
                    };
                    if entry.is_directory {
                        let mut names = names.clone();
                        names.push(name);
                        folders.push((remote, names, Some(found)));
                        continue;
                    }
                    let local = local.clone();
                    self.progress.expect(entry.size_bytes.unwrap_or(0));
                    while running.len() >= MAX_FILES_AT_ONCE {
                        let Some(ended) = running.next().await else {
                            break;
                        };
                        self.count(tally, ended);
                    }
                    running.push(async move {
                        let place = (&local, OsStr::new(&name));
                        let outcome = self.file(&remote, place, &entry, Some(&found)).await;
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
        (folder, name): (&Folder, &OsStr),
        entry: &Entry,
        found: Option<&FoundEntry>,
    ) -> Result<Outcome, Failure> {
        let local = folder.path().join(name);
        let modified = entry.modified.map(system_time);
        let there = folder.look(name);
        let there = there.map_err(|error| Failure::local("read", &local, &error))?;
        match &there {
            Some(found) if !found.is_file() => {
                return Err(Failure::new(
                    Class::Exists,
                    format!("{} exists and is not a file", local.display()),
                ));
            }
            Some(found) => {
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
            None => {}
        }
        let replaces = there.is_some();
        let _budget = self.reserve(entry.size_bytes.unwrap_or(u64::MAX)).await?;
        self.progress.at(remote);
        if let Some(found) = found {
            let file = self.session.open_found(found, remote)?;
            match content(&self.progress, remote, (folder, name), replaces, &file).await {
                // The file was changed since its folder was read, and the node has dropped the old blocks.
                Err(failure) if failure.class == Class::Damaged => {}
                done => return done.map(Outcome::Done),
            }
        }
        let file = self.session.open_file(remote).await?;
        let fetched = content(&self.progress, remote, (folder, name), replaces, &file).await;
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

    fn tell(&self, remote: &str, name: &str, why: Option<&str>) {
        tell(&self.progress, self.output, remote, name, why);
    }
}

/// Tells that an item has another name here.
pub(crate) fn tell(
    progress: &Progress,
    output: Output,
    remote: &str,
    name: &str,
    why: Option<&str>,
) {
    if let Some(why) = why {
        let text = format!("{remote}: {why}; it is `{name}` here");
        progress.pause(|| output.hint(&printable(&text)));
    }
}

/// Fetches the content of an open file into a partial file, puts that in place, and returns the size.
pub(crate) async fn content(
    progress: &Progress,
    remote: &str,
    place: (&Folder, &OsStr),
    replaces: bool,
    file: &RemoteFile,
) -> Result<u64, Failure> {
    let local = place.0.path().join(place.1);
    let write = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(
            Class::Exists,
            format!("{} was made meanwhile", local.display()),
        ),
        _ => Failure::local("write", &local, &error),
    };
    let resumed = tokio::task::block_in_place(|| resume(file, place, |_| {})).map_err(write)?;
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
    partial.finish(Some(modified), replaces).map_err(write)?;
    Ok(bytes)
}

/// Opens the folder that a target is in.
pub(crate) fn holding(target: &Path) -> Result<(Folder, OsString), Failure> {
    Folder::holding(target).map_err(|error| Failure::local("write", target, &error))
}

/// Opens a folder, which is made when it is not there. A link to a folder is not one.
pub(crate) fn make_folder(parent: &Folder, name: &OsStr) -> Result<Folder, Failure> {
    parent.enter_or_make(name).map_err(|error| {
        let path = parent.path().join(name);
        match error.kind() {
            io::ErrorKind::NotADirectory => Failure::new(
                Class::Exists,
                format!("{} exists and is not a folder", path.display()),
            ),
            _ => Failure::local("make the folder", &path, &error),
        }
    })
}

/// Opens a folder below another, and looks at the names in it. Those on the way are made when they are not there.
pub(crate) fn make_folders(root: &Folder, names: &[String]) -> Result<(Folder, Naming), Failure> {
    let mut folder = root.clone();
    for name in names {
        folder = make_folder(&folder, OsStr::new(name))?;
    }
    let naming = Naming::of(&folder);
    let naming = naming.map_err(|error| Failure::local("read", folder.path(), &error))?;
    Ok((folder, naming))
}

/// Returns the local name of an item.
pub(crate) fn local_name(naming: &mut Naming, name: &str) -> Result<LocalName, Failure> {
    match naming.local(name) {
        Ok(Some(local)) => Ok(local),
        Ok(None) => Err(Failure::new(
            Class::Exists,
            "the name that it would have here is taken",
        )),
        Err(error) => Err(Failure::local("look for", Path::new(name), &error)),
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

    #[test]
    fn a_link_in_the_target_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let link = folder.path().join("sub");
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
        let folder = Folder::open(folder.path()).unwrap();
        let made = |name: &str| make_folder(&folder, OsStr::new(name));
        assert_eq!(made("sub").unwrap_err().class, Class::Exists);
        made("new").unwrap();
        made("new").unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn fs_2_names_that_meet_on_the_disk_are_all_downloaded() {
        use crate::{
            local::folder::NameRules,
            sync::folding::{NAMES, QUIET, here, put, session},
        };
        let disk = tempfile::tempdir().unwrap();
        let session = session().await;
        session.make_folders("/alice/t/D").await.unwrap();
        session.make_folder("/alice/t/d").await.unwrap();
        for name in NAMES {
            put(&session, &format!("/alice/t/{name}x"), name).await;
        }
        put(&session, "/alice/t/D/f", "in D").await;
        put(&session, "/alice/t/d/F", "in d").await;
        // The second time everything is there already.
        for (files, skipped) in [(9, 0), (0, 9)] {
            let download = Download {
                session: session.clone(),
                force: false,
                budget: Arc::new(Semaphore::new(BUDGET_UNITS)),
                progress: Progress::start(QUIET, "get"),
                output: QUIET,
            };
            let root = Folder::with_rules(disk.path(), NameRules::Folding).unwrap();
            let mut tally = Tally::default();
            let got = download.tree("/alice/t".to_owned(), root, &mut tally);
            got.await.unwrap();
            let counts = (tally.files, tally.skipped, tally.problems, tally.folders);
            assert_eq!(counts, (files, skipped, 0, 3));
            let found = here(disk.path());
            let mut contents: Vec<&str> = found.values().map(String::as_str).collect();
            contents.sort_unstable();
            let mut expected = NAMES.to_vec();
            expected.extend(["in D", "in d"]);
            expected.sort_unstable();
            assert_eq!(contents, expected, "{found:?}");
        }
    }
}
