//! Waits until something changes: at once for local changes where the system tells, by asking for those of others.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Tells when something below a folder changes.
#[derive(Debug)]
pub struct Changes {
    #[cfg(target_os = "linux")]
    events: Option<std::os::fd::OwnedFd>,
}

/// What ended the waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// Something was changed here.
    Local,
    /// It is time to look at the account.
    Time,
}

impl Changes {
    /// Starts listening to a folder and those in it. Where the system cannot tell, or not about so many folders, only the
    /// time wakes.
    #[must_use]
    pub fn of(root: &Path, folders: impl Iterator<Item = PathBuf>) -> Self {
        #[cfg(target_os = "linux")]
        {
            let events = listen(root, folders);
            if let Err(error) = &events {
                tracing::warn!(%error, "local changes are noticed by looking only");
            }
            Self {
                events: events.ok(),
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (root, folders);
            Self {}
        }
    }

    /// Waits for a change or the time; after a change until it has been quiet for a moment, within bounds.
    pub async fn wait(&self, at_most: Duration) -> Woken {
        let Ok(()) = tokio::time::timeout(at_most, self.next()).await else {
            return Woken::Time;
        };
        let quiet = async { while tokio::time::timeout(QUIET, self.next()).await.is_ok() {} };
        let _ = tokio::time::timeout(MAX_UNREST, quiet).await;
        Woken::Local
    }

    /// Waits for a change. Asks the system a few times a second: waiting for the descriptor itself takes unsafe code.
    async fn next(&self) {
        while !self.is_told() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Returns true when there were events. Which they are does not matter: everything is looked at.
    fn is_told(&self) -> bool {
        #[cfg(target_os = "linux")]
        if let Some(events) = &self.events {
            let mut buffer = [0_u8; 4096];
            let mut read = || rustix::io::read(events, &mut buffer).is_ok_and(|n| n > 0);
            let is_told = read();
            while read() {}
            return is_told;
        }
        false
    }
}

#[cfg(target_os = "linux")]
fn listen(root: &Path, folders: impl Iterator<Item = PathBuf>) -> io::Result<std::os::fd::OwnedFd> {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    let events = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let flags = WatchFlags::CLOSE_WRITE
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::ATTRIB
        | WatchFlags::ONLYDIR;
    add_watch(&events, root, flags)?;
    for folder in folders {
        match add_watch(&events, folder, flags) {
            // Gone again: whoever deleted it has woken us.
            Ok(_) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(events)
}

/// Time between two questions to the system.
const LOOK: Duration = Duration::from_millis(200);
/// A change is followed by others: how long none may come.
const QUIET: Duration = Duration::from_millis(500);
/// And how long is waited for that.
const MAX_UNREST: Duration = Duration::from_secs(10);

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn changes_wake_and_quiet_does_not() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("sub")).unwrap();
        let folders = ["sub", "missing"].map(|name| root.path().join(name));
        let changes = Changes::of(root.path(), folders.into_iter());
        assert_eq!(changes.wait(Duration::from_millis(50)).await, Woken::Time);
        std::fs::write(root.path().join("sub/file"), "1").unwrap();
        assert_eq!(changes.wait(Duration::from_secs(30)).await, Woken::Local);
    }
}
