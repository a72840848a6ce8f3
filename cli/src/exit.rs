//! Exit codes, and the one form in which a command fails: a sentence, what to do next, a code.

use std::process::ExitCode;

/// The class of a failure; each has its own exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// None of the others; also defects of this program.
    Other = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// Some items were done and some were not; each was reported.
    Partial = 3,
    /// Wrong user name, password or second factor.
    Credentials = 4,
    /// The user name belongs to somebody.
    NameTaken = 5,
    /// A user name, file name or password that is not allowed.
    NotAllowed = 6,
    /// The path or user does not exist.
    NotFound = 7,
    /// Something else is there already, or is of the wrong kind.
    Exists = 8,
    /// Out of space on the node.
    NoSpace = 9,
    /// The node cannot be reached.
    NoServer = 10,
    /// The other side is no such node, speaks another version, or does not serve this account.
    WrongServer = 11,
    /// Stored data is damaged, cut short or cannot be decrypted.
    Damaged = 12,
    /// A signature, pointer or identity is forged: the node is not honest.
    Forged = 13,
    /// Somebody else changed the same thing; trying again will work.
    Conflict = 14,
    /// Larger than what is accepted.
    TooLarge = 15,
    /// A local file cannot be read or written.
    Local = 16,
    /// Nobody is logged in, or the session is no longer valid.
    NoSession = 17,
    /// The node refused, or limits requests.
    Refused = 18,
    /// Write access is missing.
    ReadOnly = 19,
    /// Address or folder in use by another process.
    InUse = 20,
    /// Stopped before deleting far more than is likely meant.
    Unsafe = 21,
    /// Ended by Ctrl-C.
    Interrupted = 130,
}

impl Class {
    /// Returns the short name used in JSON errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Usage => "usage",
            Self::Partial => "partial",
            Self::Credentials => "credentials",
            Self::NameTaken => "name-taken",
            Self::NotAllowed => "not-allowed",
            Self::NotFound => "not-found",
            Self::Exists => "exists",
            Self::NoSpace => "no-space",
            Self::NoServer => "no-server",
            Self::WrongServer => "wrong-server",
            Self::Damaged => "damaged",
            Self::Forged => "forged",
            Self::Conflict => "conflict",
            Self::TooLarge => "too-large",
            Self::Local => "local",
            Self::NoSession => "no-session",
            Self::Refused => "refused",
            Self::ReadOnly => "read-only",
            Self::InUse => "in-use",
            Self::Unsafe => "unsafe",
            Self::Interrupted => "interrupted",
        }
    }

    /// Returns the exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Class> for ExitCode {
    fn from(class: Class) -> Self {
        Self::from(class.code())
    }
}

/// Why a command failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Decides the exit code.
    pub class: Class,
    /// One sentence, lower case, without full stop.
    pub message: String,
    /// What the person can do next.
    pub help: Option<String>,
}

impl Failure {
    /// Makes a failure without advice.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            help: None,
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Makes a failure from a local file operation.
    pub fn local(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(
            Class::Local,
            format!("cannot {what} {}: {error}", path.display()),
        )
    }
}

/// The table shown by `kastro --help`.
pub const EXIT_CODES_HELP: &str = "\
Exit codes:
   0  done                                   10  the node cannot be reached
   1  anything not named here                11  another kind or version of server
   2  the command line is wrong              12  data is damaged or cut short
   3  some items failed and were reported    13  forged signature, pointer or identity
   4  wrong name, password, second factor    14  changed meanwhile: try again
   5  the user name is taken                 15  too large
   6  name or password not allowed           16  a local file cannot be read or written
   7  path or user does not exist            17  not logged in
   8  exists, or is of another kind          18  the node refused, or limits requests
   9  out of space                           19  read only
  20  address, data or folder in use        21  would delete far more than is likely meant (sync)
 130  ended by Ctrl-C";

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Class; 22] = [
        Class::Other,
        Class::Usage,
        Class::Partial,
        Class::Credentials,
        Class::NameTaken,
        Class::NotAllowed,
        Class::NotFound,
        Class::Exists,
        Class::NoSpace,
        Class::NoServer,
        Class::WrongServer,
        Class::Damaged,
        Class::Forged,
        Class::Conflict,
        Class::TooLarge,
        Class::Local,
        Class::NoSession,
        Class::Refused,
        Class::ReadOnly,
        Class::InUse,
        Class::Unsafe,
        Class::Interrupted,
    ];

    #[test]
    fn every_class_has_its_own_code_and_name_and_is_documented() {
        let mut codes: Vec<u8> = ALL.iter().map(|class| class.code()).collect();
        let mut names: Vec<_> = ALL.iter().map(|class| class.name()).collect();
        codes.sort_unstable();
        codes.dedup();
        names.sort_unstable();
        names.dedup();
        assert_eq!((codes.len(), names.len()), (ALL.len(), ALL.len()));
        for code in codes {
            assert!(
                EXIT_CODES_HELP.contains(&format!("{code:>2}  ")),
                "{code} is not in the help"
            );
        }
    }
}
