//! One thing to do.

use super::super::tree::{Id, RemoteFile, Stamp};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Rename or move in the account.
    MoveRemote {
        /// Old path.
        from: String,
        /// New path.
        to: String,
    },
    /// Rename or move on this machine.
    MoveLocal {
        /// Old path.
        from: String,
        /// New path.
        to: String,
    },
    /// Make a folder in the account.
    MakeRemote {
        /// Its path.
        path: String,
    },
    /// Make a folder on this machine.
    MakeLocal {
        /// Its path.
        path: String,
        /// The remote folder.
        id: Option<Id>,
    },
    /// Send a file.
    Upload {
        /// Its path.
        path: String,
        /// The local file as it was when this was decided.
        stamp: Stamp,
        /// The remote file that is replaced.
        replaces: Option<RemoteFile>,
    },
    /// Fetch a file.
    Download {
        /// Its path.
        path: String,
        /// The remote file as it was when this was decided.
        remote: RemoteFile,
        /// The local file that is replaced.
        replaces: Option<Stamp>,
    },
    /// Read a remote file to learn whether it is the same as the local one.
    Compare {
        /// Its path.
        path: String,
        /// The remote file as it was when this was decided.
        remote: RemoteFile,
    },
    /// Delete on this machine.
    DeleteLocal {
        /// Its path.
        path: String,
        /// The file as it was when this was decided; none for a folder, which must be empty by then.
        stamp: Option<Stamp>,
    },
    /// Delete in the account, with everything below.
    DeleteRemote {
        /// Its path.
        path: String,
        /// What may be deleted with it: itself, and everything that was below it when this was decided. Files with
        /// their versions.
        expected: Vec<(String, Option<RemoteFile>)>,
    },
}

impl Action {
    /// Returns the word for it, for people and scripts.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::MoveRemote { .. } => "move-there",
            Self::MoveLocal { .. } => "move-here",
            Self::MakeRemote { .. } => "make-there",
            Self::MakeLocal { .. } => "make-here",
            Self::Upload { .. } => "upload",
            Self::Download { .. } => "download",
            Self::Compare { .. } => "compare",
            Self::DeleteLocal { .. } => "delete-here",
            Self::DeleteRemote { .. } => "delete-there",
        }
    }

    /// Returns the path it is about; the new one of a move.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::MoveRemote { to, .. } | Self::MoveLocal { to, .. } => to,
            Self::MakeRemote { path }
            | Self::MakeLocal { path, .. }
            | Self::Upload { path, .. }
            | Self::Download { path, .. }
            | Self::Compare { path, .. }
            | Self::DeleteLocal { path, .. }
            | Self::DeleteRemote { path, .. } => path,
        }
    }

    /// Returns the bytes it transfers.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        match self {
            Self::Upload { stamp, .. } => stamp.size,
            Self::Download { remote, .. } | Self::Compare { remote, .. } => remote.size,
            _ => 0,
        }
    }
}
