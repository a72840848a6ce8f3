//! `kastro put`: uploads files and folders with the rules of `cp -r`.
//!
//! Whatever is there already with the same size and time is skipped, which is how an interrupted upload of a folder
//! goes on; a large file goes on in the middle by itself. Memory is bounded whatever is uploaded.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use cryptree::{
    ClientError,
    client::{Entry, UploadOptions, Uploaded},
    properties::Timestamp,
};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::{
    args::PutArgs,
    commands::{tally::Tally, upload_folder::FolderUpload},
    connect::{Connected, connect},
    exit::{Class, Failure},
    human,
    local::walk::Walk,
    output::Output,
    progress::Progress,
    remote_path::{RemotePath, absolute},
    thumbnail::Thumbnailer,
};

/// Runs the command.
///
/// # Errors
///
/// `Partial` when some files were left out.
pub async fn run(args: &PutArgs, output: Output) -> Result<(), Failure> {
    let (target, sources) = args
        .paths
        .split_last()
        .filter(|(_, sources)| !sources.is_empty())
        .ok_or_else(|| Failure::new(Class::Usage, "what to upload and where to are needed"))?;
    let target: RemotePath = target
        .to_str()
        .ok_or_else(|| Failure::new(Class::NotAllowed, "a remote path is UTF-8 text"))?
        .parse()
        .map_err(|error| Failure::new(Class::Usage, format!("{error}")))?;
    // A mistyped name is told before anything is asked or sent.
    for source in sources.iter().filter(|source| !is_stdin(source)) {
        std::fs::metadata(source).map_err(|error| Failure::local("read", source, &error))?;
    }
    let connected = connect(&args.connection, output).await?;
    let done = put(args, &connected, sources, &target, output).await;
    connected.close().await;
    done
}

async fn put(
    args: &PutArgs,
    connected: &Connected,
    sources: &[PathBuf],
    target: &RemotePath,
    output: Output,
) -> Result<(), Failure> {
    let components = target.of(connected.user());
    let existing = match connected.session.stat(&absolute(&components)).await {
        Ok(entry) => Some(entry),
        Err(ClientError::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let into_folder = existing.as_ref().is_some_and(|entry| entry.is_directory);
    if !into_folder && (target.asks_for_folder() || sources.len() > 1) {
        let path = absolute(&components);
        return Err(match existing {
            Some(_) => Failure::new(Class::Exists, format!("`{path}` is not a folder")),
            None => Failure::new(
                Class::NotFound,
                format!("the folder `{path}` does not exist"),
            )
            .help(format!("kastro mkdir -p {path}")),
        });
    }
    let upload = Upload {
        connected,
        force: args.force,
        thumbnails: Thumbnailer::new(!args.no_thumbnails),
        progress: Progress::start(output, "put"),
        output,
    };
    let mut tally = Tally::default();
    for source in sources {
        let (path, existing) = if into_folder {
            match own_name(source)? {
                Some(name) => {
                    let mut path = components.clone();
                    path.push(name);
                    (path, None)
                }
                None => (components.clone(), existing.clone()),
            }
        } else {
            (components.clone(), existing.clone())
        };
        let one = upload.item(args, source, &path, existing, &mut tally);
        match one.await {
            Ok(()) => {}
            Err(failure) if sources.len() == 1 => return Err(failure),
            Err(failure) => upload.problem(&mut tally, &source.display().to_string(), &failure),
        }
    }
    drop(upload);
    tally.finish("uploaded", output)
}

/// One run of the command.
pub(crate) struct Upload<'a> {
    pub(crate) connected: &'a Connected,
    pub(crate) force: bool,
    pub(crate) thumbnails: Thumbnailer,
    pub(crate) progress: Progress,
    pub(crate) output: Output,
}

/// What to do with one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// There already, same size and time.
    Skip,
    /// Nothing has the name.
    Create,
    /// Another file has the name and may be replaced.
    Replace,
}

impl Upload<'_> {
    async fn item(
        &self,
        args: &PutArgs,
        source: &Path,
        path: &[String],
        existing: Option<Entry>,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        if is_stdin(source) {
            return self.stdin(&absolute(path), tally).await;
        }
        let read = |error| Failure::local("read", source, &error);
        let metadata = std::fs::metadata(source).map_err(read)?;
        if metadata.is_dir() {
            let walk = Walk::new(source, args.links).map_err(read)?;
            let mut folder = FolderUpload::new(self, path.to_vec());
            for found in walk {
                Box::pin(folder.take(found, tally)).await?;
            }
            return Box::pin(folder.finish(tally)).await;
        }
        if !metadata.is_file() {
            return Err(Failure::new(
                Class::Local,
                format!("{} is neither a file nor a folder", source.display()),
            )
            .help("`-` uploads what comes in on standard input"));
        }
        let existing = match existing {
            Some(existing) => Some(existing),
            None => self.look(&absolute(path)).await?,
        };
        let file = LocalFile {
            path: source.to_path_buf(),
            size: metadata.len(),
            modified: metadata.modified().map_err(read)?,
        };
        let decision = self.decide(&absolute(path), existing.as_ref(), file.size, file.modified)?;
        self.progress.expect(file.size);
        match decision {
            Decision::Skip => {
                self.progress.done(file.size);
                tally.skipped += 1;
            }
            Decision::Create | Decision::Replace => {
                Box::pin(self.file(&file, &absolute(path), decision)).await?;
                tally.file(file.size);
            }
        }
        Ok(())
    }

    async fn look(&self, path: &str) -> Result<Option<Entry>, Failure> {
        match self.connected.session.stat(path).await {
            Ok(entry) => Ok(Some(entry)),
            Err(ClientError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Decides what to do with a file, given what has its name.
    pub(crate) fn decide(
        &self,
        path: &str,
        existing: Option<&Entry>,
        size: u64,
        modified: SystemTime,
    ) -> Result<Decision, Failure> {
        let Some(existing) = existing else {
            return Ok(Decision::Create);
        };
        if existing.is_directory {
            return Err(Failure::new(Class::Exists, format!("`{path}` is a folder")));
        }
        if existing.size_bytes == Some(size) && existing.modified == Some(timestamp(modified)) {
            return Ok(Decision::Skip);
        }
        if self.force {
            return Ok(Decision::Replace);
        }
        Err(
            Failure::new(Class::Exists, format!("`{path}` exists and differs"))
                .help("--force replaces it"),
        )
    }

    /// Uploads one file by itself.
    pub(crate) async fn file(
        &self,
        file: &LocalFile,
        path: &str,
        decision: Decision,
    ) -> Result<(), Failure> {
        self.progress.at(path);
        let read = |error| Failure::local("read", &file.path, &error);
        let mut source = tokio::fs::File::open(&file.path).await.map_err(read)?;
        source.set_max_buf_size(READ_BYTES);
        let options = UploadOptions {
            thumbnail: self.thumbnails.of(&file.path, file.size).await,
            ..options(timestamp(file.modified), decision)
        };
        let mut seen = 0;
        let uploaded = self
            .connected
            .session
            .upload(
                path,
                &mut source.compat(),
                Some(file.size),
                &options,
                &mut |done, _| {
                    self.progress.done(done.saturating_sub(seen));
                    seen = done;
                },
            )
            .await;
        if let Err(ClientError::Local(error)) = &uploaded {
            return Err(Failure::local("read", &file.path, error));
        }
        self.tell_of_a_copy(&uploaded?);
        file.check_unchanged()
    }

    /// Says where the content is when another device wrote the same path meanwhile.
    fn tell_of_a_copy(&self, uploaded: &Uploaded) {
        if uploaded.is_conflict_copy {
            let path = human::printable(&uploaded.path);
            self.progress.pause(|| {
                self.output.hint(&format!(
                    "another device wrote this file meanwhile: yours is {path}"
                ));
            });
        }
    }

    /// Uploads what comes in on standard input.
    async fn stdin(&self, path: &str, tally: &mut Tally) -> Result<(), Failure> {
        let existing = self.look(path).await?;
        let decision = match existing {
            None => Decision::Create,
            Some(existing) if existing.is_directory => {
                return Err(
                    Failure::new(Class::Usage, "standard input has no name of its own")
                        .help(format!("name the file: {path}/NAME")),
                );
            }
            Some(_) if self.force => Decision::Replace,
            Some(_) => {
                return Err(
                    Failure::new(Class::Exists, format!("`{path}` exists already"))
                        .help("--force replaces it"),
                );
            }
        };
        let mut bytes = 0;
        let mut source = tokio::io::stdin().compat();
        let options = options(timestamp(SystemTime::now()), decision);
        let uploaded = self
            .connected
            .session
            .upload(path, &mut source, None, &options, &mut |done, _| {
                self.progress.expect(done.saturating_sub(bytes));
                self.progress.done(done.saturating_sub(bytes));
                bytes = done;
            })
            .await?;
        self.tell_of_a_copy(&uploaded);
        tally.file(bytes);
        Ok(())
    }

    /// Reports and counts an item that was left out.
    pub(crate) fn problem(&self, tally: &mut Tally, item: &str, failure: &Failure) {
        self.progress
            .pause(|| tally.problem(item, failure, self.output));
    }
}

/// A local file as it was found.
#[derive(Debug, Clone)]
pub(crate) struct LocalFile {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
}

impl LocalFile {
    /// Fails when the file is not what it was when it was found.
    pub(crate) fn check_unchanged(&self) -> Result<(), Failure> {
        let now = std::fs::metadata(&self.path);
        let same = now.is_ok_and(|now| {
            now.len() == self.size
                && now
                    .modified()
                    .is_ok_and(|modified| modified == self.modified)
        });
        if same {
            return Ok(());
        }
        Err(Failure::new(
            Class::Conflict,
            format!("{} changed while it was uploaded", self.path.display()),
        )
        .help("run the command again with --force when nothing writes to it"))
    }
}

/// Returns the options of an upload.
pub(crate) fn options(modified: Timestamp, decision: Decision) -> UploadOptions {
    use cryptree::client::IfExists;
    UploadOptions {
        modified: Some(modified),
        if_exists: match decision {
            Decision::Replace => IfExists::Replace,
            // Nothing was there when it was looked for: what is there now is another device's.
            Decision::Create | Decision::Skip => IfExists::Beside,
        },
        ..UploadOptions::default()
    }
}

/// Returns a time of this machine as files record it.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let (seconds, nanos) = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (
            i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            after.subsec_nanos(),
        ),
        Err(error) => {
            let before = error.duration();
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (-seconds, 0),
                nanos => (-seconds - 1, 1_000_000_000 - nanos),
            }
        }
    };
    Timestamp::new(seconds, nanos).unwrap_or(Timestamp::from_epoch_seconds(seconds))
}

/// Returns the name that a local item gets in a remote folder; none for `.` and the like, whose content is meant.
fn own_name(source: &Path) -> Result<Option<String>, Failure> {
    if is_stdin(source) {
        return Err(
            Failure::new(Class::Usage, "standard input has no name of its own")
                .help("name the file at the end of the remote path"),
        );
    }
    let Some(name) = source.file_name() else {
        return Ok(None);
    };
    name.to_str()
        .map(|name| Some(name.to_owned()))
        .ok_or_else(|| {
            Failure::new(
                Class::NotAllowed,
                format!("the name of {} is not valid UTF-8", source.display()),
            )
            .help("give the remote name too")
        })
}

pub(super) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Bytes read from a local file at once.
const READ_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::commands::ls::system_time;

    #[test]
    fn times_survive_the_way_there_and_back() {
        let epoch = SystemTime::UNIX_EPOCH;
        for time in [
            epoch,
            epoch + Duration::new(1_800_000_000, 123_456_789),
            epoch - Duration::new(10, 0),
            epoch - Duration::new(10, 1),
        ] {
            assert_eq!(system_time(timestamp(time)), time);
        }
    }

    #[test]
    fn items_keep_their_names() {
        let name = |path: &str| own_name(Path::new(path)).unwrap();
        assert_eq!(name("a/b").as_deref(), Some("b"));
        assert_eq!(name("a/b/").as_deref(), Some("b"));
        assert_eq!(name(".."), None);
        assert_eq!(name("."), None);
        assert_eq!(own_name(Path::new("-")).unwrap_err().class, Class::Usage);
    }

    #[test]
    fn a_changed_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "12345").unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        let file = LocalFile {
            path: path.clone(),
            size: 5,
            modified: metadata.modified().unwrap(),
        };
        file.check_unchanged().unwrap();
        std::fs::write(&path, "123456").unwrap();
        assert_eq!(file.check_unchanged().unwrap_err().class, Class::Conflict);
    }
}
